//! One call runs one program on the host's own kernel.

use std::sync::atomic::Ordering;
use std::time::Duration;

use numpy::{IntoPyArray, PyArray1};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::json;
use spfemu_core::program::{Program, Watch};
use spfemu_oracle::{Counting, Settings};

use crate::error::Error;
use crate::input::{self, Meta};
use crate::run::summary;
use crate::watch::watched;

/// Bytes: the host's pages.
const PAGE_SIZE: u64 = 4096;

#[derive(Deserialize)]
struct OptionsText {
    timeout_s: f64,
    counting: String,
    max_memory: Option<u64>,
    note_maps: Vec<(u32, u32)>,
}

/// Runs a program on the host's own kernel, in traced child processes.
///
/// Source: ours. `tasks` is one array of bytes a task (records of the array form); `meta` and
/// `options` JSON texts; `progress` is called with 0 to 1, or None.
///
/// Returns what `run` returns; `settings` has `counting` and `island`, and `turns` says whose
/// outcomes came after each other: task number, and how many in a row.
///
/// Raises ProgramError for what the host cannot or should not do, EngineError if it does not let us
/// or time is up, and whatever a signal handler raises.
#[pyfunction]
pub fn oracle<'py>(
    py: Python<'py>,
    tasks: Vec<PyBuffer<u8>>,
    meta: &str,
    options: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<(String, Bound<'py, PyArray1<u8>>)> {
    let records = input::records(py, &tasks)?;
    let read = || {
        let options: OptionsText = serde_json::from_str(options)
            .map_err(|wrong| Error::Engine(format!("options: {wrong}")))?;
        Ok((options.settings()?, options, Meta::read(meta)?))
    };
    let (settings, options, meta) = read().map_err(|error: Error| error.into_py(py))?;
    let watch = Watch::default();
    // How much there is to do is known if the emulator knows all of it, too.
    let total = meta.with_spec(&records, Vec::new(), |spec| {
        Ok(Program::new(spec).ok().and_then(|program| program.nr_operations(PAGE_SIZE)))
    });
    let total = total.map_err(|error| error.into_py(py))?;
    let look = |py: Python<'_>| match (&progress, total) {
        (Some(progress), Some(total)) => {
            let done = watch.operations.load(Ordering::Relaxed) as f64;
            progress.call1(py, ((done / total.max(1) as f64).min(1.0),)).map(drop)
        }
        _ => Ok(()),
    };
    let work = || {
        meta.with_spec(&records, options.note_maps.clone(), |spec| {
            spfemu_oracle::run(spec, &settings, &watch).map_err(|error| match error {
                spfemu_oracle::Error::Program(what) => Error::Program(what),
                spfemu_oracle::Error::Host(what) => Error::Engine(what),
            })
        })
    };
    let run = watched(py, work, || watch.stop(), look, |_, _, _| ())?;
    let settings = json!({"counting": counting_name(run.counting), "island": run.island});
    let mut summary = summary(&meta.task_names(), &run.result, settings);
    summary["turns"] = json!(run.turns);
    Ok((summary.to_string(), run.result.outcomes.into_pyarray(py)))
}

const COUNTINGS: [(&str, Counting); 4] = [
    ("best", Counting::Best),
    ("perf", Counting::Perf),
    ("perf-user", Counting::PerfUser),
    ("stat", Counting::Stat),
];

fn counting_name(counting: Counting) -> &'static str {
    COUNTINGS.into_iter().find(|entry| entry.1 == counting).expect("all are listed").0
}

impl OptionsText {
    fn settings(&self) -> Result<Settings, Error> {
        let counting = COUNTINGS.into_iter().find(|entry| entry.0 == self.counting);
        let counting = counting.ok_or_else(|| {
            let allowed = COUNTINGS.map(|entry| entry.0).join(", ");
            Error::Engine(format!("counting: value '{}' (allowed: {allowed})", self.counting))
        })?;
        let timeout = Duration::try_from_secs_f64(self.timeout_s)
            .map_err(|wrong| Error::Engine(format!("timeout_s: {wrong}")))?;
        Ok(Settings { timeout, counting: counting.1, max_memory: self.max_memory })
    }
}
