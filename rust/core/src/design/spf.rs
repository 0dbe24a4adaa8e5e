//! Series v12: sequence counts, reference counts, RCU, and speculation before `mmap_sem`.

use super::{Design, Speculative, put_counted_vma};
use crate::mm::{FaultFlags, Kernel, MmRef, Vaddr, VmFault, VmaRef};
use crate::platform::{Mutant, Platform, RcuCallback, Value};
use crate::sync::refcount::atomic_inc;
use crate::sync::seqcount::{raw_write_seqcount_begin, raw_write_seqcount_end};
use crate::sync::seqlock::{write_seqlock, write_sequnlock};

/// The speculative handler and what its writers do for it.
pub enum Spf {}

impl Design for Spf {
    const NAME: &'static str = "spf";
    const LINKED_REFS: u64 = 2; // the owner and the tree

    #[inline]
    fn fault_before_mmap_sem<P: Platform>(
        k: &Kernel<P, Self>,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        flags: FaultFlags,
    ) -> VmFault {
        k.handle_speculative_fault(cpu, mm, address, flags)
    }

    /// Source: P09.
    fn vm_write_begin<P: Platform>(cpu: &P, vma: VmaRef<'_, P>) {
        raw_write_seqcount_begin(cpu, vma.vm_sequence());
        check_section(cpu, vma, "begun");
        cpu.writes_vma(vma.vm_sequence().word(), vma.vm_start().peek().0);
    }
    fn vm_write_end<P: Platform>(cpu: &P, vma: VmaRef<'_, P>) {
        check_section(cpu, vma, "ended");
        raw_write_seqcount_end(cpu, vma.vm_sequence());
    }

    /// Source: P19.
    fn tree_write_begin<P: Platform>(cpu: &P, mm: MmRef<'_, P>) {
        write_seqlock(cpu, mm.mm_seq_lock(), mm.mm_seq());
    }
    fn tree_write_end<P: Platform>(cpu: &P, mm: MmRef<'_, P>) {
        write_sequnlock(cpu, mm.mm_seq_lock(), mm.mm_seq());
    }

    /// Source: P20.
    #[inline]
    fn get_vma<P: Platform>(cpu: &P, vma: VmaRef<'_, P>) {
        atomic_inc(cpu, vma.vm_ref_count());
    }
    /// A look-up that began before the unlink may still take its reference: wait for it.
    /// Source: P21.
    fn put_unlinked_vma<P: Platform>(k: &Kernel<P, Self>, cpu: &P, vma: VmaRef<'_, P>) {
        if cpu.mutant(Mutant::A24Put) {
            return Self::put_vma(k, cpu, vma);
        }
        cpu.call_rcu(RcuCallback::PutVma(vma.ptr().to_word()));
    }
    #[inline]
    fn put_vma<P: Platform>(k: &Kernel<P, Self>, cpu: &P, vma: VmaRef<'_, P>) {
        put_counted_vma(k, cpu, vma);
    }
}

impl Speculative for Spf {
    #[inline(always)]
    fn find_vma_unlocked<'k, P: Platform>(
        k: &'k Kernel<P, Self>,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
    ) -> Option<VmaRef<'k, P>> {
        k.find_vma_rcu(cpu, mm, address)
    }
}

/// A section that is open: its count is odd, or somebody began or ended it twice.
#[inline(always)]
fn check_section<P: Platform>(cpu: &P, vma: VmaRef<'_, P>, what: &str) {
    if cpu.checks_sections() && vma.vm_sequence().peek().is_multiple_of(2) {
        let at = vma.vm_start().peek();
        cpu.finding("sequence", format!("the write section of the VMA at {at:#x} is {what} twice"));
    }
}

#[cfg(test)]
#[path = "../../tests/unit/design/spf.rs"]
mod tests;
