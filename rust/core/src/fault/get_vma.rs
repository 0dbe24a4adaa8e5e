//! v11's look-up without `mmap_sem`. Source: v11, "mm: protect mm_rb tree with a rwlock".

use crate::design::SpfRwlock;
use crate::mm::{Kernel, MmRef, Vaddr, VmaRef, mm_rb_lock};
use crate::platform::{Mutant, Platform};
use crate::sync::refcount::atomic_inc;

impl<P: Platform> Kernel<P, SpfRwlock> {
    /// `get_vma()`: the first VMA that ends above `address`, with a reference that the caller
    /// puts.
    pub(crate) fn get_vma<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
    ) -> Option<VmaRef<'k, P>> {
        let _step = cpu.step("get_vma");
        let lock = mm_rb_lock(mm);
        if !cpu.mutant(Mutant::A23) {
            lock.read_lock(cpu);
        }
        // Not the vmacache: the lock does not protect it.
        let found = self.find_vma_uncached(cpu, mm, address);
        if let Some(vma) = found
            && !cpu.mutant(Mutant::A24Get)
        {
            // Under the lock: a VMA in the tree has its owner's reference.
            atomic_inc(cpu, vma.vm_ref_count());
        }
        if !cpu.mutant(Mutant::A23) {
            lock.read_unlock(cpu);
        }
        if let Some(vma) = found
            && cpu.mutant(Mutant::A24Get)
        {
            atomic_inc(cpu, vma.vm_ref_count());
        }
        found
    }
}

#[cfg(test)]
#[path = "../../tests/unit/fault/get_vma.rs"]
mod tests;
