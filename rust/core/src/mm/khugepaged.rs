//! khugepaged: the small pages of one PMD's range become a huge page.
//!
//! Source: `mm/khugepaged.c`, v5.1; the bracket around the collapse: P10. The task that asks does
//! what the kernel's own thread would; nothing scans by itself.

use super::kernel::Kernel;
use super::objects::{MmRef, PageRef, Table, VmaRef};
use super::page::{PG_LOCKED, ZERO_PFN};
use super::pgtable::PteSlot;
use super::pmd::{Pmd, PmdVal};
use super::rmap::Rss;
use super::types::{Errno, Pte, Vaddr, VmFlags};
use super::vma::VM_SPECIAL;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Mutant, Platform, Ptr};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// Why there is no huge page: the `SCAN_*` that a caller can tell apart, as the `MADV_COLLAPSE` of
/// later kernels does.
const NOT_SUITABLE: Errno = Errno::Einval;
const PAGE_IN_USE: Errno = Errno::Eagain;
const NO_HUGE_PAGE: Errno = Errno::Enomem;

/// What a look at the PTEs found so far.
#[derive(Default)]
struct Scan {
    none_or_zero: u32,
    writable: bool,
    referenced: bool,
    /// `userfaultfd_armed()`: what is missing is for user space to bring.
    armed: bool,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Collapses the range of the PMD that `address` is in. Where it is huge already, there is
    /// nothing to do.
    pub fn collapse(&self, cpu: &P, address: u64) -> Result<(), Errno> {
        let mm = self.current_mm(cpu);
        let haddr = self.hpage_pmd_start(Vaddr(address));
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        let found = self.khugepaged_scan_pmd(cpu, mm, haddr);
        sem.up_read(cpu);
        match found? {
            Some(pmd) => self.collapse_huge_page(cpu, mm, haddr, pmd),
            None => Ok(()),
        }
    }

    /// `hugepage_vma_revalidate()`: the VMA, if it can have a huge page at `haddr`.
    fn hugepage_vma_revalidate<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        haddr: Vaddr,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let vma = self.find_vma(cpu, mm, haddr).ok_or(NOT_SUITABLE)?;
        let suitable =
            self.transhuge_vma_suitable(cpu, vma, haddr) && self.hugepage_vma_check(cpu, vma);
        if suitable { Ok(vma) } else { Err(NOT_SUITABLE) }
    }

    /// `hugepage_vma_check()`
    fn hugepage_vma_check(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        let flags = vma.vm_flags().read(cpu);
        self.transparent_hugepage_enabled(flags)
            && !flags.has(VM_SPECIAL | VmFlags::HUGETLB)
            && !vma.anon_vma().read(cpu).is_null()
            && self.vma_is_anonymous(cpu, vma)
    }

    /// `khugepaged_scan_pmd()`: whether it is worth while. The PMD; `None`: it is huge already.
    /// Caller holds `mmap_sem` for reading.
    fn khugepaged_scan_pmd<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        haddr: Vaddr,
    ) -> Result<Option<Pmd<'k, P>>, Errno> {
        let _step = cpu.step("khugepaged_scan_pmd");
        let vma = self.hugepage_vma_revalidate(cpu, mm, haddr)?;
        let pmd = self.walk_pmd(cpu, mm, haddr).ok_or(NOT_SUITABLE)?;
        let value = pmd.read(cpu);
        if value.is_huge() {
            return Ok(None);
        }
        let first = self.pte_offset_map_lock(cpu, value.table().ok_or(NOT_SUITABLE)?, haddr);
        let mut scan = self.new_scan(cpu, vma);
        let found = self.scan_ptes(cpu, first, |pte| self.scan_pte(cpu, pte, &mut scan));
        spin_unlock(cpu, first.ptl());
        found?;
        if scan.writable && scan.referenced { Ok(Some(pmd)) } else { Err(NOT_SUITABLE) }
    }

    fn new_scan(&self, cpu: &P, vma: VmaRef<'_, P>) -> Scan {
        Scan { armed: vma.vm_flags().read(cpu).has(VmFlags::UFFD_MISSING), ..Scan::default() }
    }

    /// Looks at the PTEs from `first` to the end of its table, until one will not do.
    fn scan_ptes(
        &self,
        cpu: &P,
        first: PteSlot<'_, P>,
        mut look: impl FnMut(Pte) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut slots = first.onwards().take(self.hpage_pmd_nr() as usize);
        slots.try_for_each(|slot| look(slot.pte().read(cpu)))
    }

    fn scan_pte(&self, cpu: &P, pte: Pte, scan: &mut Scan) -> Result<(), Errno> {
        let Some(page) = self.page_to_collapse(cpu, pte, scan)? else { return Ok(()) };
        if page.flags().read(cpu) & PG_LOCKED != 0 || !self.is_ours_alone(cpu, page) {
            return Err(PAGE_IN_USE);
        }
        Ok(())
    }

    /// The page of a PTE; `None`: none, or that of zeroes, of which there may be any number but
    /// all (`max_ptes_none`).
    fn page_to_collapse(
        &self,
        cpu: &P,
        pte: Pte,
        scan: &mut Scan,
    ) -> Result<Option<PageRef<'_, P>>, Errno> {
        if pte.is_none() || (pte.is_present() && pte.pfn() == ZERO_PFN) {
            scan.none_or_zero += 1;
            let enough = !scan.armed && scan.none_or_zero < self.hpage_pmd_nr();
            return if enough { Ok(None) } else { Err(NOT_SUITABLE) };
        }
        if !pte.is_present() {
            return Err(NOT_SUITABLE);
        }
        let page = self.page(cpu, pte.pfn());
        if self.page_is_compound(page) {
            return Err(NOT_SUITABLE); // a huge page that was split: 5.1 leaves it so
        }
        scan.writable |= pte.has(Pte::WRITE);
        scan.referenced |= pte.has(Pte::YOUNG);
        Ok(Some(page))
    }

    /// Whether nobody else has a reference but the swap cache.
    fn is_ours_alone(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        page.refcount().read(cpu) == 1 + u64::from(self.page_in_swap_cache(cpu, page))
    }

    /// `collapse_huge_page()`: everything is looked at again, for `mmap_sem` was let go.
    fn collapse_huge_page(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        haddr: Vaddr,
        pmd: Pmd<'_, P>,
    ) -> Result<(), Errno> {
        let _step = cpu.step("collapse_huge_page");
        let new_page = self
            .alloc_compound_page(cpu, self.on_node(self.numa_node_id(cpu)))
            .ok_or(NO_HUGE_PAGE)?;
        if self.mem_cgroup_charge(cpu, new_page).is_none() {
            self.put_page(cpu, new_page);
            return Err(NO_HUGE_PAGE);
        }
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        let result = self.collapse_locked(cpu, mm, haddr, pmd, new_page);
        sem.up_write(cpu);
        if result.is_err() {
            self.put_page(cpu, new_page);
        }
        result
    }

    /// The part of `collapse_huge_page()` under `mmap_sem` held for writing.
    fn collapse_locked(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        haddr: Vaddr,
        pmd: Pmd<'_, P>,
        new_page: PageRef<'_, P>,
    ) -> Result<(), Errno> {
        let vma = self.hugepage_vma_revalidate(cpu, mm, haddr)?;
        // mm_find_pmd(): still there, and still a table.
        let now = self.walk_pmd(cpu, mm, haddr).filter(|&now| now == pmd).ok_or(NOT_SUITABLE)?;
        let table = now.read(cpu).table().ok_or(NOT_SUITABLE)?;
        let bracket = !cpu.mutant(Mutant::A11Bracket);
        if bracket {
            D::vm_write_begin(cpu, vma);
        }
        let isolated = self.collapse_isolate(cpu, mm, vma, pmd, table, haddr);
        if let Ok(pages) = &isolated {
            self.collapse_copy(cpu, mm, table, haddr, pages, new_page);
            self.collapse_map(cpu, vma, pmd, table, haddr, new_page);
        }
        if bracket {
            D::vm_write_end(cpu, vma);
        }
        isolated.map(drop)
    }

    /// Takes the table away from everybody, and then the pages: from the clearing of the PMD to
    /// `__collapse_huge_page_isolate()`. Returns the page of each PTE, locked; on failure all is
    /// as it was.
    fn collapse_isolate<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        pmd: Pmd<'k, P>,
        table: Ptr<Table<P>>,
        haddr: Vaddr,
    ) -> Result<Vec<Option<PageRef<'k, P>>>, Errno> {
        let anon_vma = self.anon_vmas.get(cpu, vma.anon_vma().read(cpu));
        let rmap = self.anon_vma_sem(cpu, anon_vma);
        rmap.down_write(cpu);
        // pmdp_collapse_flush(): after the flush, which interrupts every CPU that may walk the
        // table with interrupts off, nobody comes to it any more but whoever has its lock.
        let _step = cpu.step("pmdp_collapse_flush");
        self.invalidate_range(cpu, mm, || {
            self.pmd_lock(cpu, pmd);
            pmd.set(cpu, PmdVal::NONE);
            self.flush_tlb_mm_and_walks(cpu, mm);
            spin_unlock(cpu, pmd.ptl());
        });

        let first = self.pte_offset_map_lock(cpu, table, haddr);
        let mut pages = Vec::with_capacity(self.hpage_pmd_nr() as usize);
        let isolated = self.collapse_huge_page_isolate(cpu, vma, first, &mut pages);
        spin_unlock(cpu, first.ptl());
        if isolated.is_err() {
            for page in pages.drain(..).flatten() {
                self.unlock_page(cpu, page);
            }
            self.pmd_lock(cpu, pmd);
            self.check_pmd_is_none(cpu, pmd);
            pmd.set(cpu, table.into());
            spin_unlock(cpu, pmd.ptl());
        }
        rmap.up_write(cpu);
        isolated.map(|()| pages)
    }

    /// `__collapse_huge_page_isolate()`. Caller holds the PTE lock, and unlocks `pages`.
    fn collapse_huge_page_isolate<'k>(
        &'k self,
        cpu: &P,
        vma: VmaRef<'k, P>,
        first: PteSlot<'k, P>,
        pages: &mut Vec<Option<PageRef<'k, P>>>,
    ) -> Result<(), Errno> {
        let _step = cpu.step("collapse_huge_page_isolate");
        let mut scan = self.new_scan(cpu, vma);
        self.scan_ptes(cpu, first, |pte| {
            let page = self.page_to_collapse(cpu, pte, &mut scan)?;
            if let Some(page) = page {
                if !self.trylock_page(cpu, page) {
                    return Err(PAGE_IN_USE);
                }
                pages.push(Some(page));
                if !self.is_ours_alone(cpu, page) {
                    return Err(PAGE_IN_USE);
                }
                // Out of the swap cache, unless a PTE somewhere names its slot.
                let free = !self.page_in_swap_cache(cpu, page) || self.reuse_swap_page(cpu, page).0;
                return if free { Ok(()) } else { Err(NOT_SUITABLE) };
            }
            pages.push(None);
            Ok(())
        })?;
        if scan.writable && scan.referenced { Ok(()) } else { Err(NOT_SUITABLE) }
    }

    /// `BUG_ON(!pmd_none(*pmd))`: while the PMD is none nobody may put a table there (A10, B2).
    fn check_pmd_is_none(&self, cpu: &P, pmd: Pmd<'_, P>) {
        if !pmd.read(cpu).is_none() {
            cpu.finding("collapse-pmd", "a page table has come to a PMD that collapses".to_owned());
        }
    }

    /// `__collapse_huge_page_copy()`: the small pages go.
    fn collapse_copy(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        table: Ptr<Table<P>>,
        haddr: Vaddr,
        pages: &[Option<PageRef<'_, P>>],
        new_page: PageRef<'_, P>,
    ) {
        let _step = cpu.step("collapse_huge_page_copy");
        let slots = self.pte_offset_map(cpu, table, haddr).onwards();
        for ((page, copy), slot) in pages.iter().zip(self.subpages(cpu, new_page)).zip(slots) {
            self.add_mm_counter(cpu, mm, Rss::Anon, 1);
            let Some(page) = *page else {
                cpu.charge(Cost::ClearPage, 1);
                copy.content().poke(0);
                if !slot.pte().read(cpu).is_none() {
                    self.pte_clear(cpu, slot, |_| ()); // the page of zeroes
                }
                continue;
            };
            cpu.charge(Cost::CopyPage, 1);
            copy.content().poke(page.content().read(cpu));
            self.unlock_page(cpu, page);
            self.pte_clear(cpu, slot, |k| k.page_remove_rmap(cpu, mm, page));
            self.put_page(cpu, page);
        }
    }

    /// Clears a PTE under its lock, and does what else has to be done under it.
    fn pte_clear(&self, cpu: &P, slot: PteSlot<'_, P>, and: impl FnOnce(&Self)) {
        spin_lock(cpu, slot.ptl());
        slot.pte().write(cpu, Pte::EMPTY);
        and(self);
        spin_unlock(cpu, slot.ptl());
    }

    /// Maps the huge page, with the table of the small ones deposited.
    fn collapse_map(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        pmd: Pmd<'_, P>,
        table: Ptr<Table<P>>,
        haddr: Vaddr,
        new_page: PageRef<'_, P>,
    ) {
        let prot = vma.vm_page_prot().read(cpu);
        let mut leaf = Pte::new(new_page.slot_index(), prot | Pte::MKDIRTY | Pte::YOUNG);
        if vma.vm_flags().read(cpu).has(VmFlags::WRITE) {
            leaf |= Pte::WRITE;
        }
        let _step = cpu.step("collapse_huge_page");
        self.pmd_lock(cpu, pmd);
        self.check_pmd_is_none(cpu, pmd);
        let index = self.linear_page_index(cpu, vma, haddr);
        self.page_add_new_huge_anon_rmap(cpu, new_page, vma, index);
        self.lru_cache_add_active_or_unevictable(cpu, new_page, vma.vm_flags().read(cpu));
        let table = self.tables[self.pmd_level() + 1].get(cpu, table);
        self.pgtable_trans_huge_deposit(cpu, pmd, table);
        pmd.set(cpu, self.huge_pmd(leaf));
        spin_unlock(cpu, pmd.ptl());
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/khugepaged.rs"]
mod tests;
