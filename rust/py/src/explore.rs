//! One call explores the interleavings of one program.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use serde::Deserialize;
use spfemu_core::explore::mutants::{MUTANTS, Mutant};
use spfemu_core::explore::{ExploreOptions, ExploreReport, MemoryModel, Search};
use spfemu_core::mm::Variants;
use spfemu_core::platform::Hazard;
use spfemu_core::program::Watch;

use crate::error::Error;
use crate::input;
use crate::run::handler;
use crate::watch::watched;

#[derive(Deserialize)]
struct OptionsText {
    strategy: String,
    mutants: Vec<String>,
    variants: BTreeMap<String, String>,
    variants_default: String,
    memory_model: String,
    hazards: Vec<String>,
    schedules: Option<u64>,
    /// None: no bound.
    preemptions: Option<u32>,
    steps: u64,
    seed: u64,
    depth: u32,
    schedule: Vec<u32>,
    reduction: bool,
    replay: Option<String>,
    tree: String,
    races: bool,
    workers: u32,
}

impl OptionsText {
    fn search(&self) -> Result<Search, Error> {
        if let Some(token) = &self.replay {
            return Ok(Search::Replay(token.clone()));
        }
        match self.strategy.as_str() {
            "dfs" => Ok(Search::Dfs { preemptions: self.preemptions, reduce: self.reduction }),
            "random" => Ok(Search::Random { seed: self.seed }),
            "pct" => Ok(Search::Pct { seed: self.seed, depth: self.depth }),
            "coverage" => Ok(Search::Coverage { seed: self.seed }),
            "guided" => Ok(Search::Guided { choices: self.schedule.clone() }),
            other => Err(Error::Engine(format!(
                "strategy '{other}' (allowed: dfs, random, pct, coverage, guided)"
            ))),
        }
    }

    fn explore_options(&self, task_names: Vec<String>) -> Result<ExploreOptions, Error> {
        let models = MemoryModel::ALL;
        let memory_model = models.into_iter().find(|model| model.name() == self.memory_model);
        let memory_model = memory_model.ok_or_else(|| {
            let names = models.map(MemoryModel::name).join(", ");
            Error::Engine(format!("memory model '{}' (allowed: {names})", self.memory_model))
        })?;
        let mutants = self.mutants.iter().map(|name| mutant(name)).collect::<Result<_, _>>()?;
        let hazards = self.hazards.iter().map(|name| hazard(name)).collect::<Result<_, _>>()?;
        let search = self.search()?;
        let (max_schedules, max_steps) = (self.schedules, self.steps);
        let default = ExploreOptions::default();
        let (races, workers) = (self.races, self.workers);
        let bounds = ExploreOptions { search, max_schedules, max_steps, ..default };
        let options = ExploreOptions { mutants, memory_model, hazards, workers, ..bounds };
        Ok(ExploreOptions { task_names, races, ..options })
    }

    fn variants(&self) -> Result<Variants, Error> {
        let base = Variants::all(input::choice(&self.variants_default)?);
        input::variants(base, &self.variants)
    }
}

/// What may happen besides interleaving, by its name.
fn hazard(name: &str) -> Result<Hazard, Error> {
    Hazard::ALL.into_iter().find(|hazard| hazard.name() == name).ok_or_else(|| {
        let names = Hazard::ALL.map(Hazard::name).join(", ");
        Error::Engine(format!("hazard '{name}' (allowed: {names})"))
    })
}

/// The mutant of this name or entry.
fn mutant(name: &str) -> Result<Mutant, Error> {
    let known = MUTANTS.iter().find(|info| info.name == name || info.entry == name);
    known.map(|info| info.which).ok_or_else(|| {
        let names: Vec<&str> = MUTANTS.iter().map(|info| info.name).collect();
        Error::Engine(format!("mutant '{name}' (allowed: {})", names.join(", ")))
    })
}

/// Explores the interleavings of a program under the speculative handler.
///
/// Source: ours. `arch` is the JSON of a profile; `tasks` one array of bytes a task (records of
/// the array form); `meta` and `options` JSON texts; `progress` is called with 0 to 1 (0 as long
/// as nobody knows how far it is), or None.
///
/// Returns a JSON text: `schedules`, `complete`, `redundant`, `steps`, `too_long` and `violations`.
///
/// Raises ProgramError, ProfileError or EngineError for what cannot be explored, and whatever a
/// signal handler raises, with `so_far`: what would have been returned if this had been the end.
#[pyfunction]
pub fn explore(
    py: Python<'_>,
    arch: &str,
    tasks: Vec<PyBuffer<u8>>,
    meta: &str,
    options: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let given = input::program(py, &tasks, meta, Vec::new())?;
    let parse = || {
        let text: OptionsText = serde_json::from_str(options)
            .map_err(|wrong| Error::Engine(format!("options: {wrong}")))?;
        let names = given.task_names.clone();
        let handler = handler("spf", &text.tree)?;
        Ok((input::arch(arch)?, handler, text.variants()?, text.explore_options(names)?))
    };
    let (arch, handler, variants, options) = parse().map_err(|error: Error| error.into_py(py))?;
    let config = input::config(arch, given.system.clone(), variants);
    let watch = Arc::new(Watch::default());
    let work = || {
        spfemu_core::explore::explore(&given.program, handler, &config, &options, &watch)
            .map_err(|wrong| Error::Program(wrong.0))
    };
    let look = |py: Python<'_>| match &progress {
        Some(progress) => {
            let so_far = watch.schedules.load(Ordering::Relaxed) as f64;
            let share: f64 = options.max_schedules.map_or(0.0, |all| so_far / all.max(1) as f64);
            progress.call1(py, (share.min(1.0),)).map(drop)
        }
        None => Ok(()),
    };
    let to_json = |report: ExploreReport| format!("{{{}}}", report.to_json_members());
    let cut = |py: Python<'_>, raised: &PyErr, report| {
        // An exception without attributes goes without.
        raised.value(py).setattr("so_far", to_json(report)).ok();
    };
    watched(py, work, || watch.stop(), look, cut).map(to_json)
}
