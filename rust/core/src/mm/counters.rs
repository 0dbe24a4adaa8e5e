//! Event counters of one task.

use super::kernel::Kernel;
use crate::design::Design;
use crate::events::{Event, NR_EVENTS};
use crate::platform::{Local, Platform};

/// The counters of one task.
#[derive(Default)]
pub struct Counters([Local; NR_EVENTS]);

impl Counters {
    #[inline(always)]
    pub fn count(&self, event: Event) {
        self.0[event as usize].add(1);
    }
    /// All counters, in the order of [`Event`].
    pub fn snapshot(&self) -> [u64; NR_EVENTS] {
        std::array::from_fn(|i| self.0[i].get())
    }
    pub fn reset(&self) {
        self.0.iter().for_each(|counter| counter.set(0));
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Counts an event for the current task.
    #[inline(always)]
    pub fn count(&self, cpu: &P, event: Event) {
        self.current(cpu).counters.count(event);
    }
}
