//! Series v9 to v11: the tree of VMAs has a reader-writer lock, where v12 has RCU.
//!
//! All else is v12's, so that a comparison of the two is one of the trees.

use super::{Design, Speculative, Spf, put_counted_vma};
use crate::mm::{FaultFlags, Kernel, MmRef, Vaddr, VmFault, VmaRef, mm_rb_lock};
use crate::platform::Platform;

/// The speculative handler, on v11's tree.
pub enum SpfRwlock {}

impl Design for SpfRwlock {
    const NAME: &'static str = "spf, rwlock";
    const LINKED_REFS: u64 = 1; // the owner: nobody finds a VMA that is being unlinked

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
    fn vm_write_begin<P: Platform>(cpu: &P, vma: VmaRef<'_, P>) {
        Spf::vm_write_begin(cpu, vma);
    }
    fn vm_write_end<P: Platform>(cpu: &P, vma: VmaRef<'_, P>) {
        Spf::vm_write_end(cpu, vma);
    }

    /// `mm_write_lock()`. Source: v11, "mm: protect mm_rb tree with a rwlock".
    fn tree_write_begin<P: Platform>(cpu: &P, mm: MmRef<'_, P>) {
        mm_rb_lock(mm).write_lock(cpu);
    }
    fn tree_write_end<P: Platform>(cpu: &P, mm: MmRef<'_, P>) {
        mm_rb_lock(mm).write_unlock(cpu);
    }

    fn get_vma<P: Platform>(_cpu: &P, _vma: VmaRef<'_, P>) {}
    fn put_unlinked_vma<P: Platform>(_k: &Kernel<P, Self>, _cpu: &P, _vma: VmaRef<'_, P>) {}
    /// With no grace period: nobody looks at a VMA without the lock or a reference.
    #[inline]
    fn put_vma<P: Platform>(k: &Kernel<P, Self>, cpu: &P, vma: VmaRef<'_, P>) {
        put_counted_vma(k, cpu, vma);
    }
}

impl Speculative for SpfRwlock {
    #[inline(always)]
    fn find_vma_unlocked<'k, P: Platform>(
        k: &'k Kernel<P, Self>,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
    ) -> Option<VmaRef<'k, P>> {
        k.get_vma(cpu, mm, address)
    }
}
