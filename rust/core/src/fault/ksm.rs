//! Pages that KSM has merged, made separate again by a fault that no access needs.
//!
//! Source: `mm/ksm.c`, v5.1.

use crate::design::Design;
use crate::mm::{Errno, FaultFlags, Kernel, MmRef, PageRef, Vaddr, VmFault, VmaRef};
use crate::platform::Platform;
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `ksm_madvise()` with `MADV_UNMERGEABLE`, but for the flag: before pages move, or are to be
    /// merged no more. Caller holds `mmap_sem` for write.
    pub(crate) fn unmerge_ksm_pages(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) -> Result<(), Errno> {
        if !self.is_mergeable(cpu, vma) {
            return Ok(());
        }
        let mut at = start;
        while let Some(found) = self.next_pmd(cpu, mm, at, end) {
            at = found.from;
            while found.value.table().is_some() && at < found.to {
                self.break_ksm(cpu, mm, vma, at)?;
                at = at.offset(self.page_size());
            }
            at = found.to;
        }
        Ok(())
    }

    /// `break_ksm()`: a write fault at `address`, so that it has a page of its own. Caller holds
    /// `mmap_sem`.
    pub(crate) fn break_ksm(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> Result<(), Errno> {
        while let Some(page) = self.follow_ksm_page(cpu, mm, address) {
            let flags = FaultFlags::WRITE | FaultFlags::REMOTE;
            let done = self.handle_mm_fault(cpu, mm, vma, address, flags);
            // With this reference the fault has copied, and reused nothing.
            self.put_page(cpu, page);
            if done.has(VmFault::OOM) {
                return Err(Errno::Enomem);
            }
            if done.has(VmFault::WRITE | VmFault::ERROR) {
                break;
            }
        }
        Ok(())
    }

    /// The KSM page that is mapped at `address`, with a reference.
    fn follow_ksm_page(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) -> Option<PageRef<'_, P>> {
        let table = self.walk_pmd(cpu, mm, address)?.read(cpu).table()?;
        let slot = self.pte_offset_map_lock(cpu, table, address);
        let pte = slot.pte().read(cpu);
        let page = self.normal_page(cpu, pte).filter(|&page| self.page_is_ksm(cpu, page));
        if let Some(page) = page {
            self.get_page(cpu, page);
        }
        spin_unlock(cpu, slot.ptl());
        page
    }
}

#[cfg(test)]
#[path = "../../tests/unit/fault/ksm.rs"]
mod tests;
