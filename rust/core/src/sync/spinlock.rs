//! Spin locks: `mm->page_table_lock`, the split PTE locks, `zone->lock`, …
//!
//! | word | state |
//! |---|---|
//! | 0 | free |
//! | 1 | held |
//!
//! DEVIATION: the kernel's queued spin lock is fair; here whoever is first after a release gets
//! it, but in virtual time, where the lock goes to waiters in the order in which they came.

use crate::platform::{Field, Ordering, Platform};

const FREE: u64 = 0;
const HELD: u64 = 1;

/// `spin_lock()`. Source: `kernel/locking/spinlock.c`.
#[inline]
pub fn spin_lock<P: Platform>(cpu: &P, lock: Field<'_, P, u64>) {
    let is_free = |held| held == FREE;
    if cpu.has_waiters(lock.word()) {
        cpu.spin_behind_others(lock.word(), is_free);
    }
    while !spin_trylock(cpu, lock) {
        cpu.spin_until(lock.word(), is_free);
    }
}

/// `spin_trylock()`: whether the lock was taken. Never waits.
#[inline(always)]
#[must_use = "a lock that was taken must be released"]
pub fn spin_trylock<P: Platform>(cpu: &P, lock: Field<'_, P, u64>) -> bool {
    // Acquire: see what the last holder wrote; pairs with the Release in `spin_unlock`.
    let taken = lock.compare_exchange(cpu, FREE, HELD, Ordering::Acquire).is_ok();
    if taken {
        cpu.acquired(lock.word());
    }
    taken
}

/// `spin_unlock()`. Caller holds the lock.
#[inline(always)]
pub fn spin_unlock<P: Platform>(cpu: &P, lock: Field<'_, P, u64>) {
    if lock.peek() != HELD {
        cpu.finding("lock-balance", "a spin lock is released that nobody holds".to_owned());
    }
    // Release: the next holder sees what was written under the lock; pairs with the Acquire in
    // `spin_trylock`.
    lock.store(cpu, FREE, Ordering::Release);
}

#[cfg(test)]
#[path = "../../tests/unit/sync/spinlock.rs"]
mod tests;
