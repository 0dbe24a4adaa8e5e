//! Programs: operations, interpreter, engines.
