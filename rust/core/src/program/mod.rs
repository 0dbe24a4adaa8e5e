//! Programs: operations, interpreter, engines.
pub mod history;
