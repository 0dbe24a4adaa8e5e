//! Read sections: how long a CPU stays pinned.
//!
//! A section must lie within one pin of the epoch. It need not have a pin of its own, and a pin is
//! the dearest thing that an uncontended fault does: it is kept for up to [`SECTIONS_PER_PIN`]
//! sections. That is safe, for a pin that lasts longer only makes grace periods longer. That they
//! end all the same:
//!
//! * Between two operations the CPU says that it has seen the present epoch ([`KeptPin::repin`]);
//!   after so many sections it does so by giving the pin up.
//! * It gives the pin up before it yields, sleeps or is busy for a time, so that nobody waits for
//!   one who waits.
//! * Whoever defers something gives it up first. So each deferral pins anew, and every 128th pin
//!   tries to begin a new epoch and runs what is due, as without all this.
//! * A CPU that is gone has none.

use std::cell::Cell;

use crossbeam_epoch::{Collector, Guard, LocalHandle};

/// Read sections that share a pin. Its cost is spread thin by then, and two microseconds of faults
/// are not long for a grace period.
pub(super) const SECTIONS_PER_PIN: u32 = 64;

/// A CPU's part in the epochs.
pub(super) struct KeptPin {
    /// Read sections that are open, those with interrupts off among them.
    depth: Cell<u32>,
    /// Outermost sections that may still end under the pin; 0: there is none.
    sections_left: Cell<u32>,
    /// (Declared before `local`: dropped first.)
    pin: Cell<Option<Guard>>,
    /// This CPU has deferred something since it last handed it on.
    has_deferred: Cell<bool>,
    local: LocalHandle,
}

impl KeptPin {
    pub fn new(collector: &Collector) -> Self {
        Self {
            depth: Cell::new(0),
            sections_left: Cell::new(0),
            pin: Cell::new(None),
            has_deferred: Cell::new(false),
            local: collector.register(),
        }
    }

    /// Enters a read section.
    #[inline(always)]
    pub fn enter(&self) {
        self.depth.set(self.depth.get() + 1);
        if self.sections_left.get() == 0 {
            self.pin.set(Some(self.local.pin()));
            self.sections_left.set(SECTIONS_PER_PIN);
        }
    }

    /// Leaves it.
    #[inline(always)]
    pub fn leave(&self) {
        let depth = self.depth.get() - 1;
        self.depth.set(depth);
        if depth == 0 {
            let left = self.sections_left.get() - 1;
            self.sections_left.set(left);
            if left == 0 {
                self.pin.set(None);
            }
        }
    }

    /// Gives up a pin that no section needs now.
    pub fn unpin(&self) {
        if self.depth.get() == 0 {
            self.sections_left.set(0);
            self.pin.set(None);
        }
    }

    /// As if the pin were given up and taken anew, and cheaper. No section is open.
    #[inline]
    pub fn repin(&self) {
        debug_assert_eq!(self.depth.get(), 0, "an operation ends in a read section");
        if let Some(mut pin) = self.pin.take() {
            pin.repin();
            self.pin.set(Some(pin));
        }
    }

    /// Runs `then` when every section of now is left, on some thread.
    pub fn defer(&self, then: impl FnOnce() + Send + 'static) {
        self.unpin();
        self.local.pin().defer(then);
        self.has_deferred.set(true);
    }

    /// Hands on what this CPU deferred, and tries to begin a new epoch. No section is open.
    pub fn flush(&self) {
        debug_assert_eq!(self.depth.get(), 0, "a grace period is waited for in a read section");
        self.unpin();
        self.local.pin().flush();
        self.has_deferred.set(false);
    }

    /// Gives up a pin that no section needs, and hands on what this CPU deferred, for others to run.
    pub fn hand_on(&self) {
        self.unpin();
        if self.has_deferred.get() && self.depth.get() == 0 {
            self.flush();
        }
    }

    #[cfg(test)]
    pub fn is_pinned(&self) -> bool {
        self.local.is_pinned()
    }
}
