//! Whether a CPU works, so that another can use what belongs to it while it does not.

use std::sync::atomic::{AtomicU8, Ordering as Std};

/// It sleeps, or has no task yet or no more.
const IDLE: u8 = 0;
/// It is idle, and somebody sees to it that it stays so.
const KEPT: u8 = 1;
const WORKS: u8 = 2;

/// What one CPU does.
#[derive(Default)]
pub(super) struct Activity(AtomicU8);

/// A CPU that is kept idle until this is dropped.
pub(super) struct Kept<'a>(&'a Activity);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `begins`.
        self.0.0.store(IDLE, Std::Release);
    }
}

impl Activity {
    /// The CPU has nothing to do, or had nothing already and may be kept so.
    pub fn ends(&self) {
        // Release: pairs with the Acquire in `keep_idle`.
        let _ = self.0.compare_exchange(WORKS, IDLE, Std::Release, Std::Relaxed);
    }

    /// The CPU works. False: not yet, it is kept idle.
    pub fn begins(&self) -> bool {
        // Acquire: what others did while it was idle; pairs with the Release of `Kept`.
        self.0.compare_exchange(IDLE, WORKS, Std::Acquire, Std::Relaxed) != Err(KEPT)
    }

    /// Keeps the CPU idle. `None`: it works, or another keeps it.
    pub fn keep_idle(&self) -> Option<Kept<'_>> {
        // Acquire: what the CPU did before; pairs with the Release in `ends`.
        let kept = self.0.compare_exchange(IDLE, KEPT, Std::Acquire, Std::Relaxed);
        kept.ok().map(|_| Kept(self))
    }
}
