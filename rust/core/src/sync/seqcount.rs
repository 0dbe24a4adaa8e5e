//! Sequence counts: `vma->vm_sequence`. Even is stable, odd is being written.
//!
//! Nobody waits here: a reader that meets a writer gives up. The increments are a load and a
//! store, as the kernel's `seq->sequence++` is, so two writers at once can lose one (B1).

use crate::platform::{Fence, Field, Mutant, Platform};

/// `raw_read_seqcount()`: the count now, odd or even.
///
/// Reads that follow see nothing older than this load. Source: `include/linux/seqlock.h`.
#[inline(always)]
pub fn raw_read_seqcount<P: Platform>(cpu: &P, seq: Field<'_, P, u64>) -> u64 {
    let sequence = seq.read(cpu);
    // rmb: the fields are read after the count; pairs with the wmb in `raw_write_seqcount_end`.
    fence_unless(cpu, Fence::Read, Mutant::M3);
    sequence
}

/// `read_seqcount_retry()`: whether the count is no longer `start`.
#[inline(always)]
#[must_use = "what was read counts only if the sequence did not change"]
pub fn read_seqcount_retry<P: Platform>(cpu: &P, seq: Field<'_, P, u64>, start: u64) -> bool {
    // rmb: the fields are read before the count; pairs with the wmb in
    // `raw_write_seqcount_begin`.
    fence_unless(cpu, Fence::Read, Mutant::M4);
    seq.read(cpu) != start
}

/// `raw_write_seqcount_begin()`: makes the count odd, before any field changes.
#[inline(always)]
pub fn raw_write_seqcount_begin<P: Platform>(cpu: &P, seq: Field<'_, P, u64>) {
    let sequence = seq.read(cpu);
    seq.write(cpu, sequence.wrapping_add(1));
    // wmb: whoever sees a field written now sees the odd count too; pairs with the rmb in
    // `read_seqcount_retry`.
    fence_unless(cpu, Fence::Write, Mutant::M1);
}

/// `raw_write_seqcount_end()`: makes the count even, after all fields changed.
#[inline(always)]
pub fn raw_write_seqcount_end<P: Platform>(cpu: &P, seq: Field<'_, P, u64>) {
    // wmb: whoever sees the even count sees the fields too; pairs with the rmb in
    // `raw_read_seqcount`.
    fence_unless(cpu, Fence::Write, Mutant::M2);
    let sequence = seq.read(cpu);
    seq.write(cpu, sequence.wrapping_add(1));
}

/// A barrier that a mutant takes away.
#[inline(always)]
pub(crate) fn fence_unless<P: Platform>(cpu: &P, fence: Fence, removed: Mutant) {
    if !cpu.mutant(removed) {
        cpu.fence(fence);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/sync/seqcount.rs"]
mod tests;
