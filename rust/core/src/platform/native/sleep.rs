//! Sleeping on a word, and waking: a futex of a mutex and a condition variable.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as Std, fence};
use std::sync::{Condvar, Mutex, PoisonError};

use crossbeam_utils::CachePadded;

use super::machine::{Machine, lock};

/// Words share buckets; whoever is woken in vain looks and sleeps again.
const NR_BUCKETS: usize = 64;

#[derive(Default)]
struct Bucket {
    /// How many sleep or are about to.
    nr_sleepers: AtomicUsize,
    mutex: Mutex<()>,
    woken: Condvar,
}

/// All who sleep on words of one machine.
pub(super) struct Sleepers(Box<[CachePadded<Bucket>]>);

impl Sleepers {
    pub(super) fn new() -> Self {
        Self((0..NR_BUCKETS).map(|_| CachePadded::default()).collect())
    }

    fn bucket(&self, word: &AtomicU64) -> &Bucket {
        // A multiplicative hash of the address: the number is 2^64 divided by the golden ratio.
        let address = std::ptr::from_ref(word).addr() as u64;
        let hash = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.0[hash as usize % NR_BUCKETS]
    }

    /// Sleeps until `done(word)`; returns the value, or `None` when the run has ended.
    pub(super) fn sleep_until(
        &self,
        word: &AtomicU64,
        done: impl Fn(u64) -> bool,
        machine: &Machine,
    ) -> Option<u64> {
        let bucket = self.bucket(word);
        let mut awake = lock(&bucket.mutex);
        bucket.nr_sleepers.fetch_add(1, Std::Relaxed);
        // Either the waker counts this sleeper, or the value it stored is seen below. Pairs with
        // the fence in `wake`, and with the one in `wake_all`.
        fence(Std::SeqCst);
        let result = loop {
            let value = word.load(Std::Acquire);
            if done(value) {
                break Some(value);
            }
            if machine.is_stopped() {
                break None;
            }
            awake = bucket.woken.wait(awake).unwrap_or_else(PoisonError::into_inner);
        };
        bucket.nr_sleepers.fetch_sub(1, Std::Relaxed);
        result
    }

    /// Wakes whoever sleeps on `word`, which has its new value already.
    pub(super) fn wake(&self, word: &AtomicU64) {
        fence(Std::SeqCst);
        let bucket = self.bucket(word);
        if bucket.nr_sleepers.load(Std::Relaxed) > 0 {
            // The mutex: a sleeper that has looked at the word is asleep by now.
            drop(lock(&bucket.mutex));
            bucket.woken.notify_all();
        }
    }

    /// Wakes everybody: the run has ended.
    pub(super) fn wake_all(&self) {
        fence(Std::SeqCst);
        for bucket in &self.0 {
            drop(lock(&bucket.mutex));
            bucket.woken.notify_all();
        }
    }
}
