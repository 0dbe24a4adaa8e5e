//! A task and what it does.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use crate::platform::condition::Condition;
use crate::platform::coroutine::{StackPool, Switch};
use crate::platform::{CpuId, TaskId};

/// What a task does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// On its CPU, or in the queue of its CPU.
    Ready,
    /// Busy-waits on its CPU for the word at this address, in this line, to change.
    Spins {
        address: usize,
        line: u32,
    },
    /// Waits, off its CPU, to be woken from the word at this address.
    Sleeps(usize),
    /// On its CPU, until nobody is behind it: then this cache line is asked for, unless it is
    /// here. If `ahead`, it is enough for using it that nobody is behind by more than the slack.
    AsksForLine {
        line: u32,
        writes: bool,
        ahead: bool,
        /// What the access takes if the line is here.
        hit_ns: u64,
    },
    /// On its CPU, which waits for this cache line.
    WaitsForLine(u32),
    /// On its CPU, for so many CPUs to enable interrupts.
    WaitsForIrqs(u32),
    /// On its CPU, until its clock: others handle what it sent them.
    WaitsForAnswers,
    /// Off its CPU until its clock.
    Pauses,
    Ended,
}

/// Without addresses of the host: they differ from run to run.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "is ready",
            Self::Spins { .. } => "spins on a word",
            Self::Sleeps(_) => "sleeps on a word",
            Self::AsksForLine { .. } | Self::WaitsForLine(_) => "waits for a cache line",
            Self::WaitsForIrqs(_) | Self::WaitsForAnswers => "waits for an interrupt",
            Self::Pauses => "pauses",
            Self::Ended => "has ended",
        })
    }
}

/// One task.
#[repr(align(64))]
pub(super) struct Task {
    pub(super) id: TaskId,
    /// How its coroutine gets and gives control.
    pub(super) switch: Rc<Switch>,
    pub(super) clock: Cell<u64>,
    /// What interrupts took from the task while others had control, to be added to its clock.
    pub(super) stolen_ns: Cell<u64>,
    pub(super) state: Cell<State>,
    /// What it spins for.
    pub(super) condition: Condition,
    /// Its CPU: it never moves.
    pub(super) cpu: CpuId,
}

impl Task {
    /// A task that has not begun.
    pub(super) fn new(id: TaskId, pool: &Rc<StackPool>, cpu: CpuId) -> Self {
        Self {
            id,
            switch: Switch::new(pool),
            clock: Cell::new(0),
            stolen_ns: Cell::new(0),
            state: Cell::new(State::Ready),
            condition: Condition::default(),
            cpu,
        }
    }
}
