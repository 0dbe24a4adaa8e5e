//! What this binary is: recorded in every result, so that a number can be traced to its build.

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Returns how this binary was built.
///
/// Source: ours.
///
/// Returns a dict of strings: `version` (of the package), `profile` ("release" or "debug"),
/// `opt_level` ("0" to "3"), `checks` ("on" if debug assertions are compiled in, else "off"),
/// `target` (the Rust target triple) and `rustc` (the compiler's own version line).
///
/// Deterministic: constants of the binary.
#[pyfunction]
pub fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("profile", env!("SPFEMU_PROFILE"))?;
    info.set_item("opt_level", env!("SPFEMU_OPT"))?;
    info.set_item("checks", if cfg!(debug_assertions) { "on" } else { "off" })?;
    info.set_item("target", env!("SPFEMU_TARGET"))?;
    info.set_item("rustc", env!("SPFEMU_RUSTC"))?;
    Ok(info)
}

/// Warns whoever imports a debug build, because every time measured with it would be wrong.
pub fn warn_if_unoptimised(py: Python<'_>) -> PyResult<()> {
    if cfg!(debug_assertions) {
        let category = py.get_type::<PyRuntimeWarning>();
        let message = c"spfemu._core is a debug build: results hold, times do not; \
                        build it with `make build` or `pip install .`";
        PyErr::warn(py, &category, message, 1)?;
    }
    Ok(())
}
