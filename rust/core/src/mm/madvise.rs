//! Advice about pages: what `MADV_FREE`, `MADV_COLD` and `MADV_PAGEOUT` do to PTEs, and what
//! `MADV_WILLNEED` reads.
//!
//! `MADV_FREE` takes a page's reason to be kept, not the page: it stays as it is until reclaim
//! comes, and counts again as soon as it is written to.
//!
//! Source: `mm/madvise.c`, v5.1; cold and pageout are newer, from v5.4. Bracket: P10.
//! DEVIATION: huge pages, where the advice is for a whole one, PTEs that map parts of one, and
//! pages of files stay as they are; the kernel splits or marks them.

use super::gather::MmuGather;
use super::kernel::Kernel;
use super::objects::{InodeRef, PageRef, Table, VmaRef};
use super::page::{PG_ANON, PG_DIRTY, PG_SWAPBACKED, PG_SWAPCACHE};
use super::pgtable::PteSlot;
use super::pmd::Pmd;
use super::rmap::Rss;
use super::swap_readahead::SwapReads;
use super::types::{Pte, Vaddr};
use super::vmscan::Isolated;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `madvise_free_single_vma()`, for a VMA of private anonymous memory. Caller holds `mmap_sem`
    /// for reading.
    pub(crate) fn madvise_free_single_vma(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) {
        let _step = cpu.step("madvise_free_page_range");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        self.lru_add_drain(cpu);
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        self.invalidate_range(cpu, mm, || {
            self.beside_other_readers(cpu, vma, || {
                self.for_each_table(cpu, vma, start, end, |table, from, to| {
                    self.madvise_free_pte_range(cpu, &mut tlb, table, from, to);
                });
            });
        });
        self.tlb_finish_mmu(cpu, tlb);
    }

    /// Calls `then` for each page table of the range; a huge page that is only partly in it is
    /// split, unless others have it.
    fn for_each_table(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        mut then: impl FnMut(Ptr<Table<P>>, Vaddr, Vaddr),
    ) {
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let mut address = start;
        while let Some(mut found) = self.next_pmd(cpu, mm, address, end) {
            address = found.to;
            let partly = found.to.since(found.from) != self.pmd_size();
            if partly && found.value.is_huge() && self.is_mapped_once(cpu, found.pmd) {
                self.split_huge_pmd(cpu, vma, found.pmd);
                found.value = found.pmd.read(cpu);
            }
            if let Some(table) = found.value.table() {
                then(table, found.from, found.to);
            }
        }
    }

    /// Whether the huge page of a PMD, if it maps one, is mapped nowhere else.
    fn is_mapped_once(&self, cpu: &P, pmd: Pmd<'_, P>) -> bool {
        let Some(leaf) = self.pmd_trans_huge_lock(cpu, pmd) else { return false };
        let once = !self.is_huge_zero(leaf)
            && self.page_trans_huge_mapcount(cpu, self.page(cpu, leaf.pfn())).0 == 1;
        spin_unlock(cpu, pmd.ptl());
        once
    }

    /// `madvise_free_pte_range()`
    fn madvise_free_pte_range(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        table: Ptr<Table<P>>,
        start: Vaddr,
        end: Vaddr,
    ) {
        let first = self.pte_offset_map_lock(cpu, table, start);
        for slot in first.onwards().take(self.nr_pages(start, end)) {
            let pte = slot.pte().read(cpu);
            if let Some(entry) = pte.swap_slot() {
                self.add_mm_counter(cpu, tlb.mm(), Rss::Swap, -1);
                self.free_swap_and_cache(cpu, entry);
                slot.pte().write(cpu, Pte::EMPTY);
            } else if let Some(page) = self.small_anon_page(cpu, pte)
                && self.clean_for_free(cpu, page)
            {
                self.make_pte(cpu, tlb, slot, pte, Pte::YOUNG | Pte::DIRTY);
                self.mark_page_lazyfree(cpu, page);
            }
        }
        spin_unlock(cpu, first.ptl());
    }

    /// The anonymous page that a PTE maps, unless it is part of a huge page.
    pub(crate) fn small_anon_page(&self, cpu: &P, pte: Pte) -> Option<PageRef<'_, P>> {
        let page = self.normal_page(cpu, pte)?;
        let small = !self.page_is_compound(page);
        (small && self.page_test(cpu, page, PG_ANON)).then_some(page)
    }

    /// `vm_normal_page()` of a PTE whatever it is.
    pub(crate) fn normal_page(&self, cpu: &P, pte: Pte) -> Option<PageRef<'_, P>> {
        (pte.is_present() && !pte.has(Pte::SPECIAL)).then(|| self.page(cpu, pte.pfn()))
    }

    /// Takes a page out of the swap cache and makes it clean. False: others have it, or somebody
    /// is at it.
    fn clean_for_free(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        if !self.page_test(cpu, page, PG_SWAPCACHE | PG_DIRTY) {
            return true;
        }
        if !self.trylock_page(cpu, page) {
            return false;
        }
        let free = page.mapcount().read(cpu) == 1
            && (!self.page_in_swap_cache(cpu, page) || self.try_to_free_swap(cpu, page));
        if free {
            self.page_clear(cpu, page, PG_DIRTY);
        }
        self.unlock_page(cpu, page);
        free
    }

    /// Clears bits of a PTE; with the next flush every CPU sees so. Caller holds the PTE lock.
    fn make_pte(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        slot: PteSlot<'_, P>,
        seen: Pte,
        clear: Pte,
    ) {
        if seen.has(clear) {
            // ptep_get_and_clear_full: no bit of the hardware's is lost on the way.
            let pte = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            // Release: whoever walks here afterwards sees the page as the last mapping did.
            slot.pte().store(cpu, pte.without(clear), Ordering::Release);
            tlb.remove_tlb_entry();
        }
    }

    /// `mark_page_lazyfree()`. DEVIATION: at once, not when a batch of pages is full.
    fn mark_page_lazyfree(&self, cpu: &P, page: PageRef<'_, P>) {
        if !self.page_in_swap_cache(cpu, page) {
            self.page_clear(cpu, page, PG_SWAPBACKED);
        }
    }

    /// `madvise_cold()` and `madvise_pageout()`: the pages become old; `pageout`: and are
    /// reclaimed, unless somebody has used them since. Caller holds `mmap_sem` for reading.
    pub(crate) fn madvise_cold_or_pageout(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        pageout: bool,
    ) {
        let _step = cpu.step("madvise_cold_or_pageout");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        self.lru_add_drain(cpu);
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        self.for_each_table(cpu, vma, start, end, |table, from, to| {
            let pages = self.make_old(cpu, &mut tlb, table, from, to, pageout);
            self.reclaim_pages(cpu, pages);
        });
        self.tlb_finish_mmu(cpu, tlb);
    }

    /// `madvise_cold_or_pageout_pte_range()`: the pages to reclaim, if asked for.
    fn make_old(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        table: Ptr<Table<P>>,
        start: Vaddr,
        end: Vaddr,
        pageout: bool,
    ) -> Vec<Isolated<'_, P>> {
        let mut pages = Vec::new();
        let first = self.pte_offset_map_lock(cpu, table, start);
        for slot in first.onwards().take(self.nr_pages(start, end)) {
            let pte = slot.pte().read(cpu);
            let Some(page) = self.small_anon_page(cpu, pte) else { continue };
            self.make_pte(cpu, tlb, slot, pte, Pte::YOUNG);
            if pageout {
                pages.push(self.isolate(cpu, page));
            }
        }
        spin_unlock(cpu, first.ptl());
        pages
    }

    /// `force_swapin_readahead()`: brings the pages of swap entries into the swap cache.
    /// DEVIATION: it returns when they are there.
    pub(crate) fn force_swapin_readahead(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) {
        let _step = cpu.step("force_swapin_readahead");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let mut reads = SwapReads::none();
        let mut address = start;
        while let Some(found) = self.next_pmd(cpu, mm, address, end) {
            address = found.from;
            while address < found.to {
                let pte = found.pmd.read(cpu).table().map(|table| {
                    let slot = self.pte_offset_map_lock(cpu, table, address);
                    let pte = slot.pte().read(cpu);
                    spin_unlock(cpu, slot.ptl());
                    pte
                });
                if let Some(entry) = pte.and_then(Pte::swap_slot)
                    && let Some(page) = self.read_swap_cache_async(cpu, entry, false, &mut reads)
                {
                    self.put_page(cpu, page);
                }
                address = address.offset(self.page_size());
            }
        }
        self.finish_reads(cpu, &mut reads);
    }

    /// `force_page_cache_readahead()`: reads the pages `first..beyond` of a file that are not in
    /// the page cache, as far as memory lasts. DEVIATION: all in one request, and it returns when
    /// they are there.
    pub(crate) fn force_page_cache_readahead(
        &self,
        cpu: &P,
        inode: InodeRef<'_, P>,
        first: u64,
        beyond: u64,
    ) {
        let to_read = self.pages_to_read(cpu, inode);
        let beyond = beyond.min(self.file_pages(cpu, inode)).min(to_read.end);
        let mut reading = Vec::new();
        for index in first.max(to_read.start)..beyond {
            if let Some(page) = self.find_get_page(cpu, inode, index) {
                self.put_page(cpu, page);
                continue;
            }
            let Some(page) = self.page_cache_alloc_locked(cpu) else { break };
            if self.add_to_page_cache_lru(cpu, inode, index, page) {
                reading.push(page);
            } else {
                self.put_page(cpu, page);
            }
        }
        if !reading.is_empty() {
            cpu.wait_for_io(&[(Cost::ReadPage, 1)]);
        }
        for page in reading {
            self.unlock_page(cpu, page);
            self.put_page(cpu, page);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/madvise.rs"]
mod tests;
