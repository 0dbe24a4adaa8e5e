//! What there is to choose from, as JSON texts.

use pyo3::prelude::*;
use serde_json::{Value, json};
use spfemu_core::arch::{Arch, Family};
use spfemu_core::explore::mutants::{MUTANTS, MutantInfo};
use spfemu_core::mm::Choice;
use spfemu_core::mm::variants::VARIANTS;
use spfemu_core::vtime::Profile;
use spfemu_core::vtime::fields::{FIELDS, Field, Unit};
use spfemu_core::vtime::profile::Entry;

use crate::error::Error;
use crate::input;

fn text(list: Vec<Value>) -> String {
    Value::Array(list).to_string()
}

/// Returns the arch profiles that come with the package.
///
/// Source: Linux 5.1; each profile says where its numbers are from.
///
/// Returns a JSON text: a list of objects with the fields of `spfemu.profiles.Arch`.
#[pyfunction]
pub fn arch_profiles() -> String {
    text(Arch::builtin().iter().map(profile).collect())
}

fn profile(arch: &Arch) -> Value {
    let family = match arch.family {
        Family::X86 => "x86",
        Family::Powerpc => "powerpc",
        Family::Arm64 => "arm64",
    };
    let levels: Vec<Value> = arch
        .levels
        .iter()
        .map(|level| json!({"name": level.name, "shift": level.shift, "entries": level.entries}))
        .collect();
    json!({
        "name": arch.name,
        "family": family,
        "page_shift": arch.page_shift,
        "levels": levels,
        "task_size": arch.task_size,
        "mmap_base": arch.mmap_base,
        "exec_only": arch.exec_only,
        "source": arch.source,
    })
}

/// Returns the variants: bugs of v12 that a run can have or not have.
///
/// Source: SPF_V12 section 9, B and C.
///
/// Returns a JSON text: a list of `name`, `entry`, `kind`, `cpus`, `oracle`, `what`, and
/// `run_default`, outside explore.
#[pyfunction]
pub fn variants() -> String {
    let entry = |info: &spfemu_core::mm::variants::VariantInfo| {
        let default = match info.outside_explore {
            Choice::V12 => "v12",
            Choice::Fixed => "fixed",
        };
        json!({
            "name": info.name,
            "entry": info.entry,
            "kind": "variant",
            "cpus": info.cpus,
            "oracle": info.oracle,
            "what": info.what,
            "run_default": default,
        })
    };
    text(VARIANTS.iter().map(entry).collect())
}

/// Returns the mutants: checks of v12 that an exploration can remove.
///
/// Source: SPF_V12 sections 9.A and 1.4 (M).
///
/// Returns a JSON text: a list of `name`, `entry`, `kind`, `cpus`, `oracle`,
/// `models`, `removed`, `race`.
#[pyfunction]
pub fn mutants() -> String {
    let entry = |info: &MutantInfo| {
        json!({
            "name": info.name,
            "entry": info.entry,
            "kind": "mutant",
            "cpus": info.cpus,
            "oracle": info.oracle,
            "models": info.models.text(),
            "removed": info.removed,
            "race": info.race,
        })
    };
    text(MUTANTS.iter().map(entry).collect())
}

/// Returns the machines that virtual time knows.
///
/// Source: each number says where it is from.
///
/// Returns a JSON text: a list of `name`, `arch`, `summary`, `cpus`, `page_size`, and `values`, a
/// list of `name`, `value`, `unit`, `kind`, `source` and `what`.
#[pyfunction]
pub fn machines() -> String {
    text(Profile::builtin().iter().map(machine_text).collect())
}

/// Reads a machine, and returns what is known of it.
///
/// Source: the user; the numbers it inherits are those of `machines`. `text` is TOML, or JSON if
/// `is_json`; with `base`, the JSON of a machine, it says only what is to be changed there.
///
/// Returns a JSON text: an object as in `machines`. Raises ProfileError: field, value, what is allowed.
#[pyfunction]
#[pyo3(signature = (text, *, is_json=false, base=None))]
pub fn machine(py: Python<'_>, text: &str, is_json: bool, base: Option<&str>) -> PyResult<String> {
    let profile = match (is_json, base) {
        (false, None) => Profile::from_toml(text).map_err(Error::Profile),
        (true, None) => input::profile(text),
        (true, Some(base)) => input::profile(base)
            .and_then(|base| base.replaced(&input::table(text)?).map_err(Error::Profile)),
        (false, Some(_)) => Err(Error::Profile("machine: changes (allowed: JSON)".to_owned())),
    };
    let profile = profile.map_err(|error| error.into_py(py))?;
    Ok(machine_text(&profile).to_string())
}

fn machine_text(profile: &Profile) -> Value {
    let arch = Arch::builtin().into_iter().find(|arch| arch.name == profile.arch);
    let value = |(field, entry): (&Field, &Option<Entry>)| {
        let entry = entry.as_ref()?;
        let value = match field.unit {
            Unit::Flag => json!(entry.value != 0),
            _ => json!(entry.value),
        };
        Some(json!({
            "name": field.name,
            "value": value,
            "unit": field.unit.name(),
            "kind": entry.kind.name(),
            "source": entry.source,
            "what": field.what,
        }))
    };
    let values: Vec<Value> = FIELDS.iter().zip(&profile.entries).filter_map(value).collect();
    json!({
        "name": profile.name,
        "arch": profile.arch,
        "summary": profile.summary,
        "cpus": profile.nr_cpus(),
        "page_size": arch.map(|arch| arch.page_size()),
        "values": values,
    })
}
