//! A missing page that user space brings: `handle_userfault()`, and `UFFDIO_COPY` of zeroes.
//!
//! Source: `fs/userfaultfd.c`, `mm/userfaultfd.c`, v5.1.

use super::Vmf;
use crate::design::Design;
use crate::mm::{
    FaultFlags, Kernel, MmRef, PG_UPTODATE, Pte, Rss, Vaddr, VmFault, VmFlags, VmaRef,
};
use crate::platform::{Ordering, Platform};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `userfaultfd_missing()`. A speculative fault does not ask: registering after it took the
    /// PTE lock comes too late for it on purpose. Source: P22.
    pub(super) fn userfaultfd_missing(&self, vmf: &Vmf<'_, P>) -> bool {
        !vmf.is_speculative() && vmf.vma_flags.has(VmFlags::UFFD_MISSING)
    }

    /// `handle_userfault()`: tells user space, and waits until the page is there. Called with
    /// `mmap_sem` held for reading, which is gone unless the result is SIGBUS.
    pub(super) fn handle_userfault(&self, cpu: &P, vmf: &Vmf<'_, P>) -> VmFault {
        cpu.step("handle_userfault");
        if !vmf.flags.has(FaultFlags::ALLOW_RETRY) {
            return VmFault::SIGBUS;
        }
        self.mmap_sem(vmf.mm).up_read(cpu);
        self.uffdio_copy(cpu, vmf.mm, vmf.address);
        VmFault::RETRY | VmFault::MAJOR
    }

    /// `UFFDIO_COPY` by whoever reads the descriptor, here the faulting task itself. If it cannot
    /// bring the page, the second round finds that it is still missing.
    fn uffdio_copy(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) {
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        let registered = |vma: &VmaRef<'_, P>| {
            vma.vm_start().read(cpu) <= address
                && vma.vm_flags().read(cpu).has(VmFlags::UFFD_MISSING)
        };
        if let Some(vma) = self.find_vma(cpu, mm, address).filter(registered) {
            // ENOMEM and EEXIST are nobody's business here.
            let _ = self.mcopy_atomic(cpu, mm, vma, address);
        }
        sem.up_read(cpu);
    }

    /// `__mcopy_atomic()` and `mcopy_atomic_pte()`: a zeroed page, writable at once if the VMA is.
    /// `None`: out of memory, or something is there.
    fn mcopy_atomic(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> Option<()> {
        self.anon_vma_prepare(cpu, vma).ok()?;
        let pmd = self.pmd_alloc(cpu, mm, address)?;
        if !self.pte_alloc(cpu, mm, pmd) {
            return None;
        }
        let table = pmd.read(cpu).table()?;
        let page = self.alloc_zeroed_page(cpu, self.vma_placement(cpu, vma, address, 0))?;
        page.flags().poke(PG_UPTODATE);
        if self.mem_cgroup_charge(cpu, page).is_none() {
            self.put_page(cpu, page);
            return None;
        }
        let vm_flags = vma.vm_flags().read(cpu);
        let mut entry = Pte::new(page.slot_index(), vma.vm_page_prot().read(cpu)) | Pte::MKDIRTY;
        if vm_flags.has(VmFlags::WRITE) {
            entry |= Pte::WRITE;
        }
        let slot = self.pte_offset_map_lock(cpu, table, address);
        let missing = slot.pte().read(cpu).is_none();
        if missing {
            self.add_mm_counter(cpu, mm, Rss::Anon, 1);
            let index = self.stable_page_index(cpu, mm, vma, address);
            self.page_add_new_anon_rmap(cpu, page, vma, index);
            self.lru_cache_add_active_or_unevictable(page, vm_flags);
            // Release: as in do_anonymous_page.
            slot.pte().store(cpu, entry, Ordering::Release);
        }
        spin_unlock(cpu, slot.ptl());
        if missing {
            return Some(());
        }
        self.put_page(cpu, page);
        None
    }
}
