//! Who is in the middle of something.

use std::cell::Cell;

use super::machine::bit;
use super::token::TaskSet;
use crate::platform::TaskId;

#[derive(Default)]
pub(super) struct AtWork {
    /// Those in the middle of an operation of the program, or at their end.
    tasks: Cell<TaskSet>,
    /// Whether the softirq is in the middle of a callback.
    pub softirq: Cell<bool>,
}

impl AtWork {
    pub fn reset(&self) {
        self.tasks.set(0);
        self.softirq.set(false);
    }

    pub fn begins(&self, task: TaskId) {
        self.tasks.set(self.tasks.get() | bit(task));
    }

    /// Whether nobody is any more.
    pub fn ends(&self, task: TaskId) -> bool {
        self.tasks.set(self.tasks.get() & !bit(task));
        self.tasks.get() == 0
    }
}
