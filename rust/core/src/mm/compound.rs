//! Compound pages: one huge page as the base pages that it consists of.
//!
//! Source: `include/linux/mm.h`, `mm/page_alloc.c`, `mm/huge_memory.c`, v5.1. Every base page keeps
//! its own content and its own map count (mappings by PTEs); the head has the references of all,
//! and counts the mappings by PMDs. A page stays compound until it is free.

use super::kernel::Kernel;
use super::objects::PageRef;
use super::page::{PG_HEAD, PG_HUGETLB, PG_PRIVATE, PG_TAIL, PG_UPTODATE};
use super::pmd::PmdVal;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Field, Platform};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// Free frames that no CPU has in its own list.
#[derive(Default)]
pub(super) struct FreeArea {
    /// Single frames.
    pub(super) pages: Vec<u32>,
    /// Heads of free huge pages.
    pub(super) huge: Vec<u32>,
}

impl FreeArea {
    pub(super) fn clear(&mut self) {
        self.pages.clear();
        self.huge.clear();
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `HPAGE_PMD_ORDER`: log2 of the frames that a PMD leaf maps.
    #[inline(always)]
    pub(crate) fn hpage_pmd_order(&self) -> u32 {
        self.config.arch.levels[self.pmd_level()].shift - self.page_shift()
    }
    /// `HPAGE_PMD_NR`
    #[inline(always)]
    pub(crate) fn hpage_pmd_nr(&self) -> u32 {
        1 << self.hpage_pmd_order()
    }

    /// `compound_head()`. Whoever has a reference or a mapping keeps the page what it is.
    #[inline(always)]
    pub(crate) fn compound_head<'k>(&'k self, cpu: &P, page: PageRef<'k, P>) -> PageRef<'k, P> {
        if page.flags().peek() & PG_TAIL == 0 {
            return page;
        }
        self.page(cpu, page.slot_index() & !(self.hpage_pmd_nr() - 1))
    }

    /// `PageTransCompound()`
    #[inline(always)]
    pub(crate) fn page_is_compound(&self, page: PageRef<'_, P>) -> bool {
        page.flags().peek() & (PG_HEAD | PG_TAIL) != 0
    }

    /// The base pages of the huge page with this head, in order.
    pub(crate) fn subpages<'k>(
        &'k self,
        cpu: &P,
        head: PageRef<'k, P>,
    ) -> impl Iterator<Item = PageRef<'k, P>> {
        let first = head.slot_index();
        (first..first + self.hpage_pmd_nr()).map(|pfn| self.page(cpu, pfn))
    }

    /// `alloc_pages()` of order `HPAGE_PMD_ORDER`: one reference, undefined content. `None`: no frames in a row are free.
    pub(crate) fn alloc_compound_page(&self, cpu: &P) -> Option<PageRef<'_, P>> {
        let first = self.rmqueue_huge(cpu)?;
        let head = self.pages.alloc_at(first);
        head.flags().poke(PG_HEAD | PG_UPTODATE);
        head.refcount().poke(1);
        for pfn in first + 1..first + self.hpage_pmd_nr() {
            self.pages.alloc_at(pfn).flags().poke(PG_TAIL | PG_UPTODATE);
        }
        Some(head)
    }

    /// `clear_huge_page()`: of a page that nobody else knows.
    pub(crate) fn clear_huge_page(&self, cpu: &P, head: PageRef<'_, P>) {
        cpu.charge(Cost::ClearPage, u64::from(self.hpage_pmd_nr()));
        self.subpages(cpu, head).for_each(|page| page.content().poke(0));
    }

    /// `copy_user_huge_page()`: to a page that nobody else knows.
    pub(crate) fn copy_huge_page(&self, cpu: &P, to: PageRef<'_, P>, from: PageRef<'_, P>) {
        cpu.charge(Cost::CopyPage, u64::from(self.hpage_pmd_nr()));
        for (to, from) in self.subpages(cpu, to).zip(self.subpages(cpu, from)) {
            to.content().poke(from.content().read(cpu));
        }
    }

    /// `free_compound_page()`: the last reference is gone.
    #[cold]
    pub(super) fn free_compound_page(&self, cpu: &P, head: PageRef<'_, P>) {
        let first = head.slot_index();
        let flags = head.flags().peek();
        for page in self.subpages(cpu, head) {
            if page.mapcount().peek() != 0 || page.compound_mapcount().peek() != 0 {
                let pfn = page.slot_index();
                cpu.finding("page-freed-while-mapped", format!("page {pfn} of huge page {first}"));
            }
            self.pages.kill(cpu, page);
        }
        if flags & PG_HUGETLB != 0 {
            self.enqueue_huge_page(cpu, flags & PG_PRIVATE != 0);
        }
        spin_lock(cpu, Field::permanent(&self.zone_lock));
        self.zone_free.lock().expect("no panic while held").huge.push(first);
        spin_unlock(cpu, Field::permanent(&self.zone_lock));
    }

    /// Takes frames for a huge page from the zone: its first one.
    fn rmqueue_huge(&self, cpu: &P) -> Option<u32> {
        spin_lock(cpu, Field::permanent(&self.zone_lock));
        let mut free = self.zone_free.lock().expect("no panic while held");
        let reused = free.huge.pop();
        let found =
            reused.or_else(|| self.fresh_huge(&mut free)).or_else(|| self.merge_buddies(&mut free));
        drop(free);
        spin_unlock(cpu, Field::permanent(&self.zone_lock));
        found
    }

    /// Frames that were never used. What is passed to come to a multiple becomes single frames.
    fn fresh_huge(&self, free: &mut FreeArea) -> Option<u32> {
        let nr = u64::from(self.hpage_pmd_nr());
        let fresh = self.zone_fresh.peek();
        let first = fresh.next_multiple_of(nr);
        let nr_pages = self.config.system.memory >> self.page_shift();
        if first + nr > nr_pages.min(self.huge_limit()) {
            return None;
        }
        // The lowest is handed out first, as if it were fresh.
        free.pages.extend((fresh as u32..first as u32).rev());
        self.zone_fresh.poke(first + nr);
        self.pages.cover((first + nr - 1) as u32);
        Some(first as u32)
    }

    /// Frames beyond are in no huge page: a PMD cannot name it.
    fn huge_limit(&self) -> u64 {
        u64::from(PmdVal::<P>::MAX_NUMBER) << self.hpage_pmd_order()
    }

    /// Buddies that have come together again: single frames that make up a huge page.
    fn merge_buddies(&self, free: &mut FreeArea) -> Option<u32> {
        let nr = self.hpage_pmd_nr();
        let mut sorted = free.pages.clone();
        sorted.retain(|&pfn| u64::from(pfn) < self.huge_limit());
        sorted.sort_unstable();
        // Frames are free once, so so many in a row from a multiple on are all there are.
        let whole =
            |run: &&[u32]| run[0].is_multiple_of(nr) && run[run.len() - 1] - run[0] == nr - 1;
        let first = sorted.windows(nr as usize).find(whole)?[0];
        free.pages.retain(|&pfn| pfn & !(nr - 1) != first);
        Some(first)
    }

    /// `expand()`: breaks a free huge page up into single frames. False: there is none.
    pub(super) fn break_up_huge(&self, free: &mut FreeArea) -> bool {
        let Some(first) = free.huge.pop() else { return false };
        free.pages.extend((first..first + self.hpage_pmd_nr()).rev());
        true
    }
}
