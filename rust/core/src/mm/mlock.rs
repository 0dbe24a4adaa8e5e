//! Locked pages: what mlock does to pages, and munlock undoes.
//!
//! No page moves from one LRU list to another here, so of its state only `PG_mlocked` is kept.
//! Source: `mm/mlock.c`, `mm/swap.c`, v5.1; P10.

use super::kernel::Kernel;
use super::lru::PAGEVEC_SIZE;
use super::objects::{MmRef, PageRef, Table, VmaRef};
use super::page::PG_MLOCKED;
use super::pmd::Pmd;
use super::types::{Pte, Vaddr, VmFlags};
use crate::design::Design;
use crate::platform::{Platform, Ptr};
use crate::sync::spinlock::spin_unlock;

/// What a lock sets in `vm_flags`, and munlock clears.
pub(crate) const VM_LOCKED_BOTH: VmFlags = VmFlags(VmFlags::LOCKED.0 | VmFlags::LOCKONFAULT.0);

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mlock_vma_page()`. Caller holds the page's lock.
    pub(crate) fn mlock_vma_page(&self, cpu: &P, page: PageRef<'_, P>) {
        self.page_set(cpu, page, PG_MLOCKED);
    }

    /// `clear_page_mlock()`, if it is set: the last mapping is gone, or the last by a PMD.
    pub(super) fn clear_page_mlock(&self, cpu: &P, page: PageRef<'_, P>) {
        if page.flags().peek() & PG_MLOCKED != 0 {
            self.page_clear(cpu, page, PG_MLOCKED);
        }
    }

    /// `munlock_vma_page()` at the end of `wp_page_copy()`: whoever else maps the page need not
    /// have locked it.
    ///
    /// DEVIATION: it does not look for others that have (`try_to_munlock()`): nothing here keeps
    /// their anon_vma, which the kernel reads under RCU.
    pub(crate) fn munlock_old_page(&self, cpu: &P, page: PageRef<'_, P>) {
        self.lock_page(cpu, page);
        self.page_clear(cpu, page, PG_MLOCKED);
        self.unlock_page(cpu, page);
    }

    /// `munlock_vma_pages_all()` of every locked VMA from `first` to `end`, which are to go. Caller
    /// holds `mmap_sem` for write, or the last reference. The section of `odd` is open already: a
    /// second begin would make it even.
    pub(crate) fn munlock_vmas(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        first: VmaRef<'_, P>,
        end: Vaddr,
        odd: Option<VmaRef<'_, P>>,
    ) {
        if mm.locked_vm().read(cpu) == 0 {
            return;
        }
        let mut cursor = Some(first);
        while let Some(vma) = cursor.filter(|vma| vma.vm_start().read(cpu) < end) {
            if vma.vm_flags().read(cpu).has(VmFlags::LOCKED) {
                self.add_locked_vm(cpu, mm, -(self.vma_pages(cpu, vma) as i64));
                let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
                if odd == Some(vma) {
                    let flags = vma.vm_flags().read(cpu) & !VM_LOCKED_BOTH;
                    vma.vm_flags().write(cpu, flags);
                    self.munlock_range(cpu, vma, start, end);
                } else {
                    self.munlock_vma_pages_range(cpu, vma, start, end);
                }
            }
            cursor = self.vm_next(cpu, vma);
        }
    }

    /// `mm->locked_vm += pages`. Caller holds `mmap_sem` for write, or `page_table_lock`.
    pub(crate) fn add_locked_vm(&self, cpu: &P, mm: MmRef<'_, P>, pages: i64) {
        let locked = mm.locked_vm().read(cpu);
        mm.locked_vm().write(cpu, locked.wrapping_add_signed(pages));
    }

    /// `munlock_vma_pages_range()`: takes the lock from `vma`, then from its pages in the range.
    pub(crate) fn munlock_vma_pages_range(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) {
        let _step = cpu.step("munlock_vma_pages_range");
        let flags = vma.vm_flags().read(cpu) & !VM_LOCKED_BOTH;
        // Around the store alone: a fault that took the PTE lock before sets PG_mlocked by the
        // flags that it saw, and the walk waits for that lock.
        self.set_vm_flags(cpu, vma, flags);
        self.munlock_range(cpu, vma, start, end);
    }

    /// The walk of `munlock_vma_pages_range()`.
    fn munlock_range(&self, cpu: &P, vma: VmaRef<'_, P>, start: Vaddr, end: Vaddr) {
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let mut address = start;
        while let Some(found) = self.next_pmd(cpu, mm, address, end) {
            address = found.to;
            let Some(table) = found.value.table() else {
                self.munlock_huge_page(cpu, found.pmd);
                continue;
            };
            let mut at = found.from;
            while at < found.to {
                let (pages, next) = self.munlock_pagevec_fill(cpu, table, at, found.to);
                self.munlock_pagevec(cpu, &pages);
                at = next;
            }
        }
    }

    /// A huge page was locked only if nobody else mapped it.
    fn munlock_huge_page(&self, cpu: &P, pmd: Pmd<'_, P>) {
        let Some(leaf) = self.pmd_trans_huge_lock(cpu, pmd) else { return };
        let head = self.page(cpu, leaf.pfn());
        self.get_page(cpu, head);
        spin_unlock(cpu, pmd.ptl());
        self.munlock_old_page(cpu, head);
        self.put_page(cpu, head);
    }

    /// `__munlock_pagevec_fill()`: some pages of `start..end`, which lies in `table`, each with a
    /// reference; and where it stopped.
    fn munlock_pagevec_fill(
        &self,
        cpu: &P,
        table: Ptr<Table<P>>,
        start: Vaddr,
        end: Vaddr,
    ) -> (Vec<PageRef<'_, P>>, Vaddr) {
        let mut pages = Vec::new();
        let first = self.pte_offset_map_lock(cpu, table, start);
        let mut slots = first.onwards();
        let mut at = start;
        while at < end && pages.len() < PAGEVEC_SIZE {
            let slot = slots.next().expect("it goes on");
            let pte = slot.pte().read(cpu);
            if pte.is_present() && !pte.has(Pte::SPECIAL) {
                let page = self.page(cpu, pte.pfn());
                // A huge page that PTEs map is not locked.
                if !self.page_is_compound(page) {
                    self.get_page(cpu, page);
                    pages.push(page);
                }
            }
            at = at.offset(self.page_size());
        }
        spin_unlock(cpu, first.ptl());
        (pages, at)
    }

    /// `__munlock_pagevec()`: clears all first, and sets it again where another VMA has it locked.
    fn munlock_pagevec(&self, cpu: &P, pages: &[PageRef<'_, P>]) {
        let was_locked: Vec<bool> =
            pages.iter().map(|&page| self.page_clear(cpu, page, PG_MLOCKED) != 0).collect();
        for (&page, was_locked) in pages.iter().zip(was_locked) {
            if was_locked {
                self.lock_page(cpu, page);
                // DEVIATION: of files, and of KSM's pages, only who unlocks is looked at.
                let has_rmap = self.page_is_anon(cpu, page) && !self.page_is_ksm(cpu, page);
                if page.mapcount().read(cpu) > 1 && has_rmap {
                    // The VMA that is being unlocked keeps its anon_vma.
                    self.try_to_munlock(cpu, page, self.page_anon_vma(cpu, page));
                }
                self.unlock_page(cpu, page);
            }
            self.put_page(cpu, page);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/mlock.rs"]
mod tests;
