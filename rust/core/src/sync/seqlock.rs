//! Sequence locks: `mm->mm_seq`. A sequence count whose readers wait while a writer is inside,
//! and a spin lock that keeps writers apart.

use super::seqcount::{
    fence_unless, raw_write_seqcount_begin, raw_write_seqcount_end, read_seqcount_retry,
};
use super::spinlock::{spin_lock, spin_unlock};
use crate::platform::{Fence, Field, Mutant, Platform};

/// `read_seqbegin()`: spins while a writer is inside; returns an even count.
///
/// Source: `include/linux/seqlock.h`; P19.
#[inline]
pub fn read_seqbegin<P: Platform>(cpu: &P, seq: Field<'_, P, u64>) -> u64 {
    let mut sequence = seq.read(cpu);
    while !is_even(sequence) {
        cpu.spin_until(seq.word(), is_even);
        sequence = seq.read(cpu);
    }
    // rmb: what the lock protects is read after the count; pairs with the wmb in
    // `raw_write_seqcount_end`.
    fence_unless(cpu, Fence::Read, Mutant::M3);
    sequence
}

/// `read_seqretry()`: whether a writer was inside since `start`.
#[inline(always)]
#[must_use = "what was read counts only if the sequence did not change"]
pub fn read_seqretry<P: Platform>(cpu: &P, seq: Field<'_, P, u64>, start: u64) -> bool {
    read_seqcount_retry(cpu, seq, start)
}

/// `write_seqlock()`.
#[inline]
pub fn write_seqlock<P: Platform>(cpu: &P, lock: Field<'_, P, u64>, seq: Field<'_, P, u64>) {
    spin_lock(cpu, lock);
    raw_write_seqcount_begin(cpu, seq);
}

/// `write_sequnlock()`. Caller holds the lock.
#[inline]
pub fn write_sequnlock<P: Platform>(cpu: &P, lock: Field<'_, P, u64>, seq: Field<'_, P, u64>) {
    raw_write_seqcount_end(cpu, seq);
    spin_unlock(cpu, lock);
}

fn is_even(sequence: u64) -> bool {
    sequence.is_multiple_of(2)
}

#[cfg(test)]
#[path = "../../tests/unit/sync/seqlock.rs"]
mod tests;
