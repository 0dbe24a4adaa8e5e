//! A mutex: a word that is 1 while somebody holds it. Sleeps.

use crate::platform::{Field, Ordering, Platform};

/// `mutex_lock()`
pub fn mutex_lock<P: Platform>(cpu: &P, mutex: Field<'_, P, u64>) {
    // Acquire: pairs with the Release in mutex_unlock.
    while mutex.compare_exchange(cpu, 0, 1, Ordering::Acquire).is_err() {
        cpu.sleep_until(mutex.word(), |held| held == 0);
    }
    cpu.acquired(mutex.word());
}

/// `mutex_unlock()`
pub fn mutex_unlock<P: Platform>(cpu: &P, mutex: Field<'_, P, u64>) {
    mutex.store(cpu, 0, Ordering::Release);
    cpu.wake(mutex.word());
}
