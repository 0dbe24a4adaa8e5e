//! Grace periods by hand, for platforms that run on one thread: one ends as soon as every read
//! section that was open when it began has been left.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// The read sections of one task (which are those of its CPU: none spans a task switch).
#[derive(Default)]
pub struct Reader {
    /// Sections that nest, irq-off ones included.
    depth: Cell<u32>,
    /// The last grace period that had begun when the outermost section was entered.
    since: Cell<u64>,
}

impl Reader {
    /// Whether a read section is open.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.depth.get() != 0
    }
    /// Forgets everything, for a new run.
    pub fn reset(&self) {
        self.depth.set(0);
    }
}

/// All grace periods of a system, numbered from 1 in the order in which they began.
#[derive(Default)]
pub struct GracePeriods {
    nr_open: Cell<u32>,
    begun: Cell<u64>,
    ended: Cell<u64>,
    /// For each grace period after `ended`: the sections that it waits for.
    waits_for: RefCell<VecDeque<u32>>,
}

impl GracePeriods {
    /// Enters a section; they nest.
    #[inline(always)]
    pub fn enter(&self, reader: &Reader) {
        let depth = reader.depth.get();
        reader.depth.set(depth + 1);
        if depth == 0 {
            reader.since.set(self.begun.get());
            self.nr_open.set(self.nr_open.get() + 1);
        }
    }

    /// Leaves a section; whether that was the outermost. Caller is in one.
    #[inline(always)]
    pub fn leave(&self, reader: &Reader) -> bool {
        let depth = reader.depth.get() - 1;
        reader.depth.set(depth);
        if depth != 0 {
            return false;
        }
        self.nr_open.set(self.nr_open.get() - 1);
        if reader.since.get() != self.begun.get() {
            self.left(reader.since.get());
        }
        true
    }

    /// A section was left during which grace periods began.
    #[cold]
    fn left(&self, since: u64) {
        let mut waits_for = self.waits_for.borrow_mut();
        // All that began since wait for this section, so none of them has ended.
        let first = (since - self.ended.get()) as usize;
        waits_for.range_mut(first..).for_each(|count| *count -= 1);
        // They end in order: whatever an earlier one waits for, a later one does too.
        while waits_for.front() == Some(&0) {
            waits_for.pop_front();
            self.ended.set(self.ended.get() + 1);
        }
    }

    /// Begins a grace period and returns its number.
    pub fn begin(&self) -> u64 {
        let number = self.begun.get() + 1;
        self.begun.set(number);
        if self.nr_open.get() == 0 {
            // Then no earlier one waits either.
            self.ended.set(number);
        } else {
            self.waits_for.borrow_mut().push_back(self.nr_open.get());
        }
        number
    }

    #[inline(always)]
    pub fn has_ended(&self, number: u64) -> bool {
        number <= self.ended.get()
    }

    /// Forgets everything, for a new run.
    pub fn reset(&self) {
        self.nr_open.set(0);
        self.begun.set(0);
        self.ended.set(0);
        self.waits_for.borrow_mut().clear();
    }
}

#[cfg(test)]
#[path = "../../tests/unit/platform/grace.rs"]
mod tests;
