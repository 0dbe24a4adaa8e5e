//! What a run is told, and what it gives back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::run::lock;
use crate::design::Design;
use crate::events::{Course, NR_EVENTS};
use crate::mm::{Kernel, MmRef, ProcText};
use crate::platform::{Finding, Platform, TaskId};

/// Which design handles faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    Classic,
    Spf,
    /// The speculative one, on v11's tree.
    SpfRwlock,
}

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to keep the outcome of every operation.
    pub record: bool,
    /// The most outcomes to keep; a run with more is refused.
    pub max_outcomes: u64,
    /// Native: whether `compute` and `sleep` take the time they say.
    pub pace: bool,
    /// What to keep of the address space that each process had in the end.
    pub last: Last,
    /// Whether the system is checked at rest when it has ended.
    pub check: bool,
    /// Explore: whether it is also checked whenever a task is about to end while no other is at
    /// work: what is broken may be gone with its address space.
    pub check_before_exit: bool,
    /// Whether to write down what the oracle of [`super::history`] judges.
    pub history: bool,
    /// Virtual time: how many entries of the course of the run to keep; 0: it is not written down.
    pub spans: usize,
    /// Virtual time: whether to count what is waited for.
    pub lock_stat: bool,
}

/// What is kept of a process's last address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Nothing,
    /// Its VMAs.
    Maps,
    /// All that `/proc/PID` says of it.
    ProcText,
}

impl Last {
    /// What is kept of `mm`.
    pub(super) fn of<P: Platform, D: Design>(self, k: &Kernel<P, D>, mm: MmRef<'_, P>) -> ProcText {
        match self {
            Self::Nothing => ProcText::default(),
            Self::Maps => ProcText { maps: k.maps(mm), ..ProcText::default() },
            Self::ProcText => k.proc_text(mm),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            record: true,
            max_outcomes: u64::MAX,
            last: Last::Maps,
            pace: false,
            check: true,
            check_before_exit: false,
            history: false,
            spans: 0,
            lock_stat: false,
        }
    }
}

/// What whoever started a run sees of it, and may tell it, from another thread.
#[derive(Debug, Default)]
pub struct Watch {
    /// Accesses and other operations done; see [`super::Program::nr_operations`].
    pub operations: AtomicU64,
    /// In explore: schedules run.
    pub schedules: AtomicU64,
    stop: AtomicBool,
    refusal: Mutex<Option<String>>,
}

impl Watch {
    /// Ends the run at once; its result says `interrupted`.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
    /// Ends the run because it needs more than there is: `what` says of what, and how much is
    /// allowed. The first refusal counts.
    pub fn refuse(&self, what: String) {
        lock(&self.refusal).get_or_insert(what);
        self.stop();
    }
    /// Why the run was refused, if it was.
    pub fn refusal(&self) -> Option<String> {
        lock(&self.refusal).clone()
    }
    /// Whether the run was told to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The VMAs at a `note` that asks for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteMaps {
    pub task: TaskId,
    pub index: u32,
    pub round: u64,
    /// As in /proc/PID/maps: "start-end perms offset".
    pub maps: Vec<String>,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunResult {
    /// Events of all tasks, in the order of [`crate::events::EVENT_NAMES`].
    pub counters: [u64; NR_EVENTS],
    /// Packed outcomes, task by task, each task's in the order it ran them.
    pub outcomes: Vec<u8>,
    /// The final VMAs of each process, by the number of its first task.
    pub maps: Vec<(TaskId, Vec<String>)>,
    /// All that /proc/PID said of each process in the end, if that was to be kept.
    pub proc: Vec<(TaskId, ProcText)>,
    pub note_maps: Vec<NoteMaps>,
    /// For each task: finished rounds of its `for_ns` repeats.
    pub rounds: Vec<u64>,
    /// For each task: when its first `note` and its last were.
    pub noted_ns: Vec<Option<(u64, u64)>>,
    /// Tasks that wait for ever.
    pub stuck: Vec<TaskId>,
    pub elapsed_ns: u64,
    /// What the tracepoints recorded, packed, in order of time.
    pub trace: Vec<u8>,
    /// How many entries were ever written; the oldest of more than fit are gone.
    pub trace_written: u64,
    /// What the run wrote down of itself.
    pub course: Course,
    /// The broken invariant that ended the run, if one did.
    pub finding: Option<Finding>,
    /// The run was ended by [`Watch::stop`]; the rest is what there was by then.
    pub interrupted: bool,
}
