//! `spfemu._core`: what Python sees of spfemu-core. This file only registers; each other file
//! holds one word of the interface, under the name it has in `_core.pyi`.

mod build_info;
mod error;
mod explore;
mod input;
mod lists;
mod oracle;
mod run;
mod watch;

use pyo3::pymodule;

/// The compiled half of spfemu. Private: use the package `spfemu`.
#[pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::build_info::build_info;
    use crate::build_info::warn_if_unoptimised;
    #[pymodule_export]
    use crate::explore::explore;
    #[pymodule_export]
    use crate::lists::{arch_profiles, machine, machines, mutants, variants};
    #[pymodule_export]
    use crate::oracle::oracle;
    #[pymodule_export]
    use crate::run::run;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        warn_if_unoptimised(module.py())
    }
}
