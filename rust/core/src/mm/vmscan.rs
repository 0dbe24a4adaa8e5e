//! Reclaim: pages are unmapped, written to swap, and freed.
//!
//! DEVIATION: pages are chosen by address and not by age, for there are no LRU lists; nothing is
//! reclaimed unless a program says so. What follows is what reclaim does with its pages. A normal
//! device writes them together; then they are freed, where the kernel comes back for them later.
//!
//! Source: `mm/vmscan.c`, v5.1.

use std::ops::Range;

use super::kernel::Kernel;
use super::objects::{AnonVmaRef, MmRef, PageRef, Table};
use super::page::{PG_DIRTY, PG_KSM, PG_MLOCKED, PG_SWAPBACKED, PG_SWAPCACHE, PG_WRITEBACK};
use super::rmap_walk::Unmap;
use super::types::{Pte, Vaddr};
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Platform, Ptr};
use crate::sync::spinlock::{spin_trylock, spin_unlock};

/// `SWAP_CLUSTER_MAX`: pages that are looked for with interrupts off at once.
const SWAP_CLUSTER_MAX: u64 = 32;

/// A page that reclaim has a reference to, and (unless it is only in the swap cache, or KSM has merged
/// it) to its anon_vma.
pub(crate) struct Isolated<'k, P: Platform> {
    pub(super) page: PageRef<'k, P>,
    pub(super) anon_vma: Option<AnonVmaRef<'k, P>>,
}

/// What reclaim goes by.
#[derive(Clone, Copy)]
struct Reclaim {
    /// Pages that were used since they were made old stay.
    only_unused: bool,
    /// Pages that were written stay in the swap cache.
    keep_cache: bool,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Reclaims the anonymous pages of `range`, also of those of its swap entries whose pages are
    /// still in the swap cache. `keep_cache`: they stay in the swap cache when they are written.
    /// No lock is held: everything may change meanwhile.
    pub(crate) fn reclaim_range(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        range: Range<Vaddr>,
        keep_cache: bool,
    ) {
        let mut address = range.start;
        while address < range.end {
            let (pages, next) = self.isolate_pages(cpu, mm, address..range.end);
            self.shrink_page_list(cpu, pages, Reclaim { only_unused: false, keep_cache });
            address = next;
        }
    }

    /// The pages of at most `SWAP_CLUSTER_MAX` PTEs from the beginning of `range`, and where to go
    /// on. With interrupts off the page tables stay (get_user_pages_fast goes by the same); what
    /// is mapped under the PTE lock keeps page and anon_vma.
    pub(super) fn isolate_pages(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        range: Range<Vaddr>,
    ) -> (Vec<Isolated<'_, P>>, Vaddr) {
        let mut pages = Vec::new();
        loop {
            cpu.local_irq_disable();
            // The task may not have accessed memory yet, or another one had the CPU while it slept.
            self.switch_mm(cpu, mm);
            let Some((table, from, to)) = self.next_table(cpu, mm, &range) else {
                cpu.local_irq_enable();
                return (pages, range.end);
            };
            let first = self.pte_offset_map(cpu, table, from);
            if !spin_trylock(cpu, first.ptl()) {
                // The holder may wait for this CPU to answer its TLB flush.
                cpu.local_irq_enable();
                cpu.spin_until(first.ptl().word(), |held| held == 0);
                continue;
            }
            let nr_pages = (to.since(from) >> self.page_shift()).min(SWAP_CLUSTER_MAX);
            for slot in first.onwards().take(nr_pages as usize) {
                pages.extend(self.isolate_page(cpu, slot.pte().read(cpu)));
            }
            spin_unlock(cpu, first.ptl());
            cpu.local_irq_enable();
            return (pages, from.offset(nr_pages << self.page_shift()));
        }
    }

    /// The next page table of a range; huge pages are passed over.
    fn next_table(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        range: &Range<Vaddr>,
    ) -> Option<(Ptr<Table<P>>, Vaddr, Vaddr)> {
        let mut address = range.start;
        loop {
            let found = self.next_pmd(cpu, mm, address, range.end)?;
            if let Some(table) = found.value.table() {
                return Some((table, found.from, found.to));
            }
            address = found.to;
        }
    }

    /// The page of one PTE. Caller holds the PTE lock.
    fn isolate_page(&self, cpu: &P, pte: Pte) -> Option<Isolated<'_, P>> {
        if let Some(slot) = pte.swap_slot() {
            let page = self.find_swap_cache(cpu, slot)?;
            return Some(Isolated { page, anon_vma: None });
        }
        self.small_anon_page(cpu, pte).map(|page| self.isolate(cpu, page))
    }

    /// `isolate_lru_page()`: of a page that is mapped under the PTE lock which the caller holds.
    pub(crate) fn isolate<'k>(&'k self, cpu: &P, page: PageRef<'k, P>) -> Isolated<'k, P> {
        self.get_page(cpu, page);
        Isolated { page, anon_vma: self.page_get_anon_vma(cpu, page) }
    }

    /// `reclaim_pages()`: of v5.4.
    pub(super) fn reclaim_pages(&self, cpu: &P, pages: Vec<Isolated<'_, P>>) {
        self.shrink_page_list(cpu, pages, Reclaim { only_unused: true, keep_cache: false });
    }

    /// `shrink_page_list()`
    fn shrink_page_list(&self, cpu: &P, pages: Vec<Isolated<'_, P>>, how: Reclaim) {
        let mut writing = Vec::new();
        let mut written = Vec::new();
        for Isolated { page, anon_vma } in pages {
            match self.shrink_page(cpu, page, anon_vma, how) {
                Fate::Gone => {}
                Fate::Stays => self.put_page(cpu, page),
                Fate::Clean => written.push(page),
                Fate::Writing => writing.push(page),
            }
            if let Some(anon_vma) = anon_vma {
                self.put_anon_vma(cpu, anon_vma);
            }
        }
        self.finish_writes(cpu, &writing);
        written.append(&mut writing);
        for page in written {
            if how.keep_cache || !self.drop_from_swap_cache(cpu, page) {
                self.put_page(cpu, page);
            }
        }
    }

    /// One page of `shrink_page_list()`, up to the end of its write.
    fn shrink_page(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        anon_vma: Option<AnonVmaRef<'_, P>>,
        how: Reclaim,
    ) -> Fate {
        if !self.trylock_page(cpu, page) {
            return Fate::Stays;
        }
        if !self.page_evictable(cpu, page, anon_vma) {
            return self.activate_locked(cpu, page);
        }
        let flags = page.flags().read(cpu);
        if flags & PG_WRITEBACK != 0 {
            self.unlock_page(cpu, page);
            return Fate::Stays;
        }
        // page_check_references
        let used = how.only_unused
            && anon_vma.is_some_and(|family| self.page_referenced(cpu, page, family));
        if used || !self.unmap_for_reclaim(cpu, page, flags, anon_vma, how) {
            return self.activate_locked(cpu, page);
        }
        if flags & PG_SWAPBACKED == 0 {
            return self.discard_lazyfree(cpu, page);
        }
        self.pageout(cpu, page)
    }

    /// `page_evictable()`: whether nobody has locked the page in memory.
    ///
    /// DEVIATION: locked is what a locked VMA maps, even if the page does not say so yet. The kernel
    /// then gives it a slot, and finds out when it unmaps it, perhaps after other mappings.
    fn page_evictable(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        anon_vma: Option<AnonVmaRef<'_, P>>,
    ) -> bool {
        if self.page_test(cpu, page, PG_MLOCKED | PG_KSM) {
            return false;
        }
        let any_locked = (0..self.mms.used())
            .filter_map(|nth| self.mms.peek(nth))
            .any(|mm| mm.locked_vm().peek() != 0);
        !any_locked || !anon_vma.is_some_and(|family| self.try_to_munlock(cpu, page, family))
    }

    /// `shrink_page_list()`, `activate_locked`: what stays gives its slot back if that is worth it.
    fn activate_locked(&self, cpu: &P, page: PageRef<'_, P>) -> Fate {
        let worth = self.swap.is_some() && self.vm_swap_full(cpu);
        if worth || self.page_test(cpu, page, PG_MLOCKED) {
            self.try_to_free_swap(cpu, page);
        }
        self.unlock_page(cpu, page);
        Fate::Stays
    }

    /// Gives a page with these flags a slot, if it needs one, and takes it from all that map it.
    fn unmap_for_reclaim(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        flags: u64,
        anon_vma: Option<AnonVmaRef<'_, P>>,
        how: Reclaim,
    ) -> bool {
        if flags & (PG_SWAPBACKED | PG_SWAPCACHE) == PG_SWAPBACKED && !self.add_to_swap(cpu, page) {
            return false;
        }
        let why = Unmap::Reclaim { only_unused: how.only_unused };
        let unmap = |family| self.try_to_unmap(cpu, page, family, why);
        page.mapcount().read(cpu) == 0 || anon_vma.is_some_and(unmap)
    }

    /// Frees a page that MADV_FREE gave up and that nobody maps any more.
    fn discard_lazyfree(&self, cpu: &P, page: PageRef<'_, P>) -> Fate {
        let frozen = self.page_ref_freeze(cpu, page, 1);
        let clean = frozen && !self.page_test(cpu, page, PG_DIRTY);
        self.unlock_page(cpu, page);
        if clean {
            self.free_unref_page(cpu, page);
            return Fate::Gone;
        }
        if frozen {
            // page_ref_unfreeze
            self.get_page(cpu, page);
        }
        Fate::Stays
    }

    /// `pageout()`: begins to write a page that nobody maps, if it is dirty. Unlocks it.
    fn pageout(&self, cpu: &P, page: PageRef<'_, P>) -> Fate {
        let dirty = self.page_test(cpu, page, PG_DIRTY);
        // is_page_cache_freeable: nobody else has just found it.
        if !dirty || page.refcount().read(cpu) != 2 {
            self.unlock_page(cpu, page);
            return if dirty { Fate::Stays } else { Fate::Clean };
        }
        // clear_page_dirty_for_io
        self.page_clear(cpu, page, PG_DIRTY);
        if self.swap_writepage(cpu, page) { Fate::Writing } else { Fate::Stays }
    }

    /// Waits for the device, which has all of `pages` at once.
    fn finish_writes(&self, cpu: &P, pages: &[PageRef<'_, P>]) {
        if pages.is_empty() {
            return;
        }
        if !self.swap_device().config.synchronous {
            cpu.wait_for_io(&[(Cost::SwapIo, 1), (Cost::SwapTransfer, pages.len() as u64)]);
        }
        for &page in pages {
            self.end_swap_write(cpu, page);
        }
    }

    /// The second look at a page, when it is written: frees it unless somebody needs it. True: the
    /// reference of the caller went with it.
    fn drop_from_swap_cache(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        if !self.trylock_page(cpu, page) {
            return false;
        }
        let flags = page.flags().read(cpu);
        let idle = flags & PG_SWAPCACHE != 0
            && flags & (PG_DIRTY | PG_WRITEBACK) == 0
            && page.mapcount().read(cpu) == 0;
        if idle && self.remove_mapping(cpu, page) {
            return true;
        }
        self.unlock_page(cpu, page);
        false
    }
}

/// What became of a page at first.
enum Fate {
    /// It was freed.
    Gone,
    /// It is needed, or somebody else is at it.
    Stays,
    /// The swap device has it.
    Clean,
    /// It is being written.
    Writing,
}

#[cfg(test)]
#[path = "../../tests/unit/mm/vmscan.rs"]
mod tests;
