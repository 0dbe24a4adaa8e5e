//! `/proc/PID/clear_refs`: makes pages old, or makes each one's next write fault.
//!
//! Source: `fs/proc/task_mmu.c`, v5.1; bracket: P10.

use super::kernel::Kernel;
use super::objects::{MmRef, Table, VmaRef};
use super::pgtable::MappedPmd;
use super::pmd::Pmd;
use super::types::{Pte, Vaddr, VmFlags};
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::spinlock::spin_unlock;

/// What is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClearRefs {
    /// `CLEAR_REFS_ALL`: the young bits.
    All,
    /// `CLEAR_REFS_ANON`: of mappings without a file.
    Anon,
    /// `CLEAR_REFS_MAPPED`: of mappings with one.
    Mapped,
    /// `CLEAR_REFS_SOFT_DIRTY`
    SoftDirty,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Whether a VMA has the flag that says that all of it is soft-dirty.
    pub(crate) fn any_vma_soft_dirty(&self, cpu: &P, mm: MmRef<'_, P>) -> bool {
        self.each_vma(cpu, mm).any(|vma| vma.vm_flags().read(cpu).has(VmFlags::SOFTDIRTY))
    }

    /// Takes that flag away from all VMAs. Caller holds `mmap_sem` for write. Source: P10.
    pub(crate) fn clear_vma_soft_dirty(&self, cpu: &P, mm: MmRef<'_, P>) {
        for vma in self.each_vma(cpu, mm) {
            D::vm_write_begin(cpu, vma);
            self.clear_soft_dirty_flag(cpu, vma);
            D::vm_write_end(cpu, vma);
        }
    }

    fn clear_soft_dirty_flag(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let flags = vma.vm_flags().read(cpu);
        vma.vm_flags().write(cpu, flags & !VmFlags::SOFTDIRTY);
        self.vma_set_page_prot(cpu, vma);
    }

    /// `clear_refs_write()` of soft-dirty bits where L1 is cured. By map counts whoever faults
    /// before the flush reuses the page; by references he may copy it, while a translation that is
    /// yet to go still writes to it. So nobody faults until it is gone: neither with `mmap_sem`,
    /// which the caller holds for write, nor without.
    pub(crate) fn clear_soft_dirty_alone(&self, cpu: &P, mm: MmRef<'_, P>) {
        for vma in self.each_vma(cpu, mm) {
            D::vm_write_begin(cpu, vma);
            self.clear_soft_dirty_flag(cpu, vma);
        }
        self.clear_refs_walk(cpu, mm, ClearRefs::SoftDirty);
        for vma in self.each_vma(cpu, mm) {
            D::vm_write_end(cpu, vma);
        }
    }

    /// The walk of `clear_refs_write()`, and its flush. Caller holds `mmap_sem`, for reading; the
    /// sequences stay as they are, for the PTE lock is enough (6.2).
    /// [`Kernel::clear_soft_dirty_alone`] holds it for writing, and the VMAs odd. DEVIATION: arm64 has no flush.
    pub(crate) fn clear_refs_walk(&self, cpu: &P, mm: MmRef<'_, P>, what: ClearRefs) {
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        // tlb_gather_mmu(0, -1): fullmm, so there is something to flush whatever the walk finds.
        tlb.remove_tlb_entry();
        if what == ClearRefs::SoftDirty {
            self.invalidate_range(cpu, mm, || self.clear_refs_vmas(cpu, mm, what));
        } else {
            self.clear_refs_vmas(cpu, mm, what);
        }
        self.tlb_finish_mmu(cpu, tlb);
    }

    fn clear_refs_vmas(&self, cpu: &P, mm: MmRef<'_, P>, what: ClearRefs) {
        for vma in self.each_vma(cpu, mm) {
            // No hugetlb_entry.
            if !self.is_vm_hugetlb_page(cpu, vma) && clear_refs_test_walk(cpu, vma, what) {
                self.clear_refs_vma(cpu, mm, vma, what);
            }
        }
    }

    fn clear_refs_vma(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>, what: ClearRefs) {
        let end = vma.vm_end().read(cpu);
        let mut address = vma.vm_start().read(cpu);
        while let Some(MappedPmd { pmd, value, from, to }) = self.next_pmd(cpu, mm, address, end) {
            address = to;
            if value.is_huge() && self.clear_refs_huge(cpu, mm, pmd, what) {
                continue;
            }
            // pmd_trans_unstable
            if let Some(table) = pmd.read(cpu).table() {
                self.clear_refs_pte_range(cpu, table, from, to, what);
            }
        }
    }

    /// False: it is no huge page any more.
    fn clear_refs_huge(&self, cpu: &P, mm: MmRef<'_, P>, pmd: Pmd<'_, P>, what: ClearRefs) -> bool {
        let Some(leaf) = self.pmd_trans_huge_lock(cpu, pmd) else { return false };
        if what == ClearRefs::SoftDirty {
            let leaf = self.pmdp_invalidate(cpu, mm, pmd, leaf);
            let leaf = leaf.without(Pte::WRITE | Pte::SOFT_DIRTY);
            pmd.set(cpu, self.huge_pmd(leaf));
        } else {
            self.pmdp_clear(cpu, pmd, Pte::YOUNG);
        }
        spin_unlock(cpu, pmd.ptl());
        true
    }

    /// `clear_refs_pte_range()`. DEVIATION: swap and migration entries have no soft-dirty bit; only
    /// pagemap, which is not there, tells it from a page that was never written.
    fn clear_refs_pte_range(
        &self,
        cpu: &P,
        table: Ptr<Table<P>>,
        start: Vaddr,
        end: Vaddr,
        what: ClearRefs,
    ) {
        let first = self.pte_offset_map_lock(cpu, table, start);
        for slot in first.onwards().take(self.nr_pages(start, end)) {
            let seen = slot.pte().read(cpu);
            if !seen.is_present() {
                continue;
            }
            if what == ClearRefs::SoftDirty {
                // ptep_modify_prot_start: no young or dirty bit of the hardware may be lost.
                let old = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
                slot.pte().write(cpu, old.without(Pte::WRITE | Pte::SOFT_DIRTY));
            } else if seen.has(Pte::YOUNG) && !seen.has(Pte::SPECIAL) {
                // ptep_test_and_clear_young: with the lock held nobody else clears it.
                slot.pte().fetch_add(cpu, -(Pte::YOUNG.0 as i64), Ordering::Relaxed);
            }
        }
        spin_unlock(cpu, first.ptl());
    }
}

/// Whether the walk goes into a VMA.
fn clear_refs_test_walk<P: Platform>(cpu: &P, vma: VmaRef<'_, P>, what: ClearRefs) -> bool {
    let has_file = !vma.vm_file().read(cpu).is_null();
    match what {
        ClearRefs::Anon => !has_file,
        ClearRefs::Mapped => has_file,
        ClearRefs::All | ClearRefs::SoftDirty => true,
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/clear_refs.rs"]
mod tests;
