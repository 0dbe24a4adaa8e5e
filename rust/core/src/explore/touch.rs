//! What steps can be in conflict about: words, and what is none.

use super::token::TaskSet;
use crate::platform::{Line, TaskId};

/// What steps can be in conflict about without a word that both access.
#[derive(Clone, Copy)]
pub(super) enum Thing {
    /// Words of the program's own synchronisation.
    Program,
    /// Read sections (readers), and who waits for their end.
    Sections,
    /// The queue of callbacks.
    Callbacks,
    /// Full barriers, if they are all ordered.
    FullFences,
    /// Objects that are freed (readers), and who found one to be.
    Freed,
    /// The end of an operation of this task (a writer), and who begins one.
    Operation(TaskId),
    /// This task ends, or waits for the program.
    Task(TaskId),
    /// Irq-off sections of this task (readers), and who interrupts it.
    Interrupts(TaskId),
    /// Whether this task is on its CPU.
    OnCpu(TaskId),
}

/// Words that stand for a [`Thing`], before those that are words.
pub(super) const NR_THINGS: usize = 16 + 4 * TaskSet::BITS as usize;
/// Words are told apart every four bytes.
pub(super) const WORDS_PER_LINE: usize = Line::BYTES as usize / 4;

impl Thing {
    pub(super) fn word(self) -> usize {
        let of = |kind: usize, task: TaskId| 16 + kind * TaskSet::BITS as usize + task as usize;
        match self {
            Self::Program => 0,
            Self::Sections => 1,
            Self::Callbacks => 2,
            Self::Freed => 3,
            Self::FullFences => 4,
            Self::Operation(task) => of(0, task),
            Self::Task(task) => of(1, task),
            Self::Interrupts(task) => of(2, task),
            Self::OnCpu(task) => of(3, task),
        }
    }
}

/// An access of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Touch {
    pub(super) word: u32,
    pub(super) writes: bool,
}

impl Touch {
    pub(super) fn conflicts(self, other: Self) -> bool {
        self.word == other.word && (self.writes || other.writes)
    }
}

/// Two accesses that race.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) word: u32,
    pub(super) tasks: [TaskId; 2],
    /// The later one writes.
    pub(super) writes: bool,
}

impl Pair {
    /// Where the word is, if it is one.
    pub(super) fn site(&self) -> Option<u64> {
        (self.word as usize).checked_sub(NR_THINGS).map(|word| word as u64 * 4)
    }
}
