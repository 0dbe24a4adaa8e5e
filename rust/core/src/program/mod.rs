//! Programs: what tasks do, in order; and the interpreter that every platform runs.
//!
//! Source: the program format, `spfemu-program/1`. A [`Program`] is made from the array form and
//! checked once. [`Run`] is one run of it on one kernel: the engine boots it, lets each task call
//! [`run_task`] on its CPU, and takes the result from it.

mod access;
mod calls;
mod decode;
pub mod history;
mod interpret;
mod load;
pub mod native;
mod observe;
mod op;
mod record;
mod result;
mod run;
mod sync;

pub use access::shuffled;
pub use interpret::{Starter, run_task};
pub use load::{FileSpec, Program, ProgramError, ProgramSpec, Start, TaskSpec};
pub use record::{OUTCOME_BYTES, Outcome, RECORD_BYTES, Record};
pub use result::{Handler, Last, NoteMaps, Options, RunResult, Watch};
pub use run::Run;

#[cfg(test)]
#[path = "../../tests/unit/program/raw.rs"]
mod raw;

#[cfg(test)]
#[path = "../../tests/unit/program/build.rs"]
pub(crate) mod build;
