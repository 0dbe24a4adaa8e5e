//! A failure to inject: how the error paths of callers are reached.

use std::sync::atomic::{AtomicU32, Ordering};

/// No failure is injected.
const NEVER: u32 = u32::MAX;

/// Says of each attempt whether it is the one that fails. For one thread at a time.
pub(super) struct Injection(AtomicU32);

impl Default for Injection {
    fn default() -> Self {
        Self(AtomicU32::new(NEVER))
    }
}

impl Injection {
    /// `successes` more attempts succeed, the one after them fails, all later ones succeed.
    pub(super) fn fail_after(&self, successes: u32) {
        self.0.store(successes, Ordering::Relaxed);
    }
    /// No attempt fails.
    pub(super) fn reset(&self) {
        self.fail_after(NEVER);
    }
    /// Whether this attempt is to fail.
    #[inline(always)]
    pub(super) fn strikes(&self) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        if left != NEVER {
            // Below 0 is NEVER again.
            self.0.store(left.wrapping_sub(1), Ordering::Relaxed);
        }
        left == 0
    }
}
