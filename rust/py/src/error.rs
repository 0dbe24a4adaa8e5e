//! Errors of the core as Python exceptions: one exhaustive match.

use pyo3::prelude::*;
use pyo3::types::PyType;

/// Everything that a call can fail with.
pub enum Error {
    /// A program that is not valid: `spfemu.errors.ProgramError`.
    Program(String),
    /// An arch or machine that cannot be: `ProfileError`.
    Profile(String),
    /// A setting that an engine does not have, or a failure of the emulator itself: `EngineError`.
    Engine(String),
    /// A broken invariant: `InvariantViolation`.
    Invariant { invariant: &'static str, what: String },
}

impl Error {
    /// The exception's name in `spfemu.errors`, and its message.
    fn parts(self) -> (&'static str, String) {
        match self {
            Error::Program(what) => ("ProgramError", what),
            Error::Profile(what) => ("ProfileError", what),
            Error::Engine(what) => ("EngineError", what),
            Error::Invariant { invariant: "panic", what } => {
                ("EngineError", format!("the emulator failed: {what}"))
            }
            Error::Invariant { invariant, what } => {
                ("InvariantViolation", format!("{invariant}: {what}"))
            }
        }
    }

    /// The Python exception.
    pub fn into_py(self, py: Python<'_>) -> PyErr {
        let (name, message) = self.parts();
        let class = py.import("spfemu.errors").and_then(|errors| errors.getattr(name));
        match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
            Ok(class) => PyErr::from_type(class, message),
            Err(broken) => broken,
        }
    }
}
