//! How interleavings are explored, and how far.

use super::hazards::Hazards;
use super::memory::Model;
use super::token::Deviation;
use crate::platform::Mutant;

/// How schedules are chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// All schedules with at most so many preemptions, or all. `reduce` leaves out those that lead
    /// to the same states as others.
    Dfs {
        preemptions: Option<u32>,
        reduce: bool,
    },
    Random {
        seed: u64,
    },
    Pct {
        seed: u64,
        depth: u32,
    },
    /// Schedules close to those in which something new raced.
    Coverage {
        seed: u64,
    },
    /// The one schedule of these choices: see [`Guided`].
    Guided {
        choices: Vec<u32>,
    },
    /// The schedule of this token.
    Replay(String),
    /// The schedule of these choices, as far as they fit.
    Again(Vec<Deviation>),
}

/// What bounds an exploration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExploreOptions {
    pub search: Search,
    /// The most schedules to run; without, `Dfs` runs until it is complete and `Random` and `Pct`
    /// for ever.
    pub max_schedules: Option<u64>,
    /// The most accesses in one schedule, and the most operations.
    pub max_steps: u64,
    /// Stop after so many kinds of violations.
    pub max_violations: usize,
    /// See [`crate::platform::Platform::livelock_faults`].
    pub livelock_faults: u32,
    /// Checks to remove.
    pub mutants: Vec<Mutant>,
    pub memory_model: Model,
    /// What else may happen.
    pub hazards: Hazards,
    /// Stop at the first violation of this kind, and report no other.
    pub only: Option<String>,
    /// Report which pairs of accesses raced.
    pub races: bool,
    /// What findings call the tasks; those beyond are called by their numbers.
    pub task_names: Vec<String>,
    /// Threads that share the work, from 1; what is found does not depend on it.
    pub workers: u32,
}

impl Default for ExploreOptions {
    fn default() -> Self {
        Self {
            search: Search::Dfs { preemptions: Some(2), reduce: true },
            max_schedules: None,
            max_steps: 1_000_000,
            livelock_faults: 16,
            max_violations: 16,
            mutants: Vec::new(),
            memory_model: Model::Sc,
            hazards: Hazards::default(),
            only: None,
            races: false,
            task_names: Vec::new(),
            workers: 1,
        }
    }
}
