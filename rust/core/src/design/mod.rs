//! The seam between a fault handler and the writers it races with.
//!
//! A design says what the two agree on. `docs/adding-a-design.md` shows how to add one.

mod classic;
mod spf;
mod spf_rwlock;

pub use classic::Classic;
pub use spf::Spf;
pub use spf_rwlock::SpfRwlock;

use crate::mm::{FaultFlags, Kernel, MmRef, Vaddr, VmFault, VmaRef};
use crate::platform::Platform;
use crate::sync::refcount::atomic_dec_and_test;

/// What a fault handler and its writers agree on.
pub trait Design: Sized + 'static {
    /// The name given to `--handler`.
    const NAME: &'static str;
    /// `vm_ref_count` of a linked VMA that nobody looks at.
    const LINKED_REFS: u64;

    /// What is tried before `mmap_sem`; `VM_FAULT_RETRY` means "do the classic fault".
    fn fault_before_mmap_sem<P: Platform>(
        k: &Kernel<P, Self>,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        flags: FaultFlags,
    ) -> VmFault;

    /// Opens the section in which fields of `vma` that a fault uses may change.
    /// (`vm_write_begin` and `vm_raw_write_begin` differ only in what lockdep sees.)
    fn vm_write_begin<P: Platform>(cpu: &P, vma: VmaRef<'_, P>);
    /// Closes it.
    fn vm_write_end<P: Platform>(cpu: &P, vma: VmaRef<'_, P>);

    /// Brackets a structural change of the VMA tree.
    fn tree_write_begin<P: Platform>(cpu: &P, mm: MmRef<'_, P>);
    fn tree_write_end<P: Platform>(cpu: &P, mm: MmRef<'_, P>);

    /// A reference for the tree, when a VMA is linked.
    fn get_vma<P: Platform>(cpu: &P, vma: VmaRef<'_, P>);
    /// Drops the tree's reference of a VMA that was unlinked.
    fn put_unlinked_vma<P: Platform>(k: &Kernel<P, Self>, cpu: &P, vma: VmaRef<'_, P>);
    /// Drops one reference; frees the VMA with the last.
    fn put_vma<P: Platform>(k: &Kernel<P, Self>, cpu: &P, vma: VmaRef<'_, P>);
}

/// A design whose faults are tried without `mmap_sem` first: what the tree of VMAs adds.
pub trait Speculative: Design {
    /// `find_vma_rcu()` of v12, `get_vma()` of v11: the first VMA that ends above `address`, found
    /// without `mmap_sem`, with a reference that the caller puts.
    fn find_vma_unlocked<'k, P: Platform>(
        k: &'k Kernel<P, Self>,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
    ) -> Option<VmaRef<'k, P>>;
}

/// `put_vma()` where VMAs have reference counts: whoever drops the last one frees the VMA.
#[inline(always)]
fn put_counted_vma<P: Platform, D: Design>(k: &Kernel<P, D>, cpu: &P, vma: VmaRef<'_, P>) {
    let _step = cpu.step("put_vma");
    if atomic_dec_and_test(cpu, vma.vm_ref_count()) {
        k.vm_area_free(cpu, vma);
    }
}
