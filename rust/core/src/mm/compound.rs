//! Compound pages: one huge page as the base pages that it consists of.
//!
//! Source: `include/linux/mm.h`, `mm/page_alloc.c`, `mm/huge_memory.c`, v5.1. Every base page keeps
//! its own content and its own map count (mappings by PTEs); the head has the references of all,
//! and counts the mappings by PMDs. A page stays compound until it is free.

use super::kernel::Kernel;
use super::node::Placement;
use super::objects::PageRef;
use super::page::{PG_HEAD, PG_HUGETLB, PG_MEMCG, PG_PRIVATE, PG_TAIL, PG_UPTODATE};
use super::pmd::PmdVal;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Field, Hazard, Platform};
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
        self.config.arch.hpage_pmd_order()
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

    /// The head of the page with this number, itself if it is small, as nobody's access. `None`: it
    /// is free.
    pub(super) fn peek_head(&self, pfn: u32) -> Option<PageRef<'_, P>> {
        let page = self.pages.peek(pfn)?;
        match page.flags().peek() & PG_TAIL {
            0 => Some(page),
            _ => self.pages.peek(pfn & !(self.hpage_pmd_nr() - 1)),
        }
    }

    /// `PageTransCompound()`
    #[inline(always)]
    pub(crate) fn page_is_compound(&self, page: PageRef<'_, P>) -> bool {
        page.flags().peek() & (PG_HEAD | PG_TAIL) != 0
    }

    /// `hpage_nr_pages()`
    pub(super) fn hpage_nr_pages(&self, page: PageRef<'_, P>) -> i64 {
        if self.page_is_compound(page) { i64::from(self.hpage_pmd_nr()) } else { 1 }
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
    pub(crate) fn alloc_compound_page(&self, cpu: &P, place: Placement) -> Option<PageRef<'_, P>> {
        if cpu.meets(Hazard::FailedAllocation) { None } else { self.take_compound_page(cpu, place) }
    }

    /// As `alloc_compound_page`, of frames that are known to be there.
    pub(super) fn take_compound_page(&self, cpu: &P, place: Placement) -> Option<PageRef<'_, P>> {
        let rmqueue = || self.zonelist(place).find_map(|node| self.rmqueue_huge(cpu, node));
        let first = rmqueue().or_else(|| {
            self.drain_all_pages(cpu);
            rmqueue()
        })?;
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
        if flags & PG_MEMCG != 0 {
            self.mem_cgroup_uncharge(cpu, head);
        }
        for page in self.subpages(cpu, head) {
            if page.mapcount().peek() != 0 || page.compound_mapcount().peek() != 0 {
                let pfn = page.slot_index();
                cpu.finding("page-freed-while-mapped", format!("page {pfn} of huge page {first}"));
            }
            self.pages.kill(cpu, page);
        }
        let zone = &self.zones[self.page_to_nid(head) as usize];
        spin_lock(cpu, Field::permanent(&zone.lock));
        zone.free.lock().expect("no panic while held").huge.push(first);
        spin_unlock(cpu, Field::permanent(&zone.lock));
        if flags & PG_HUGETLB != 0 {
            // Last: who finds one in the pool finds its frames.
            self.enqueue_huge_page(cpu, flags & PG_PRIVATE != 0);
        }
    }

    /// Takes frames for a huge page from a node: its first one.
    fn rmqueue_huge(&self, cpu: &P, node: u32) -> Option<u32> {
        let zone = &self.zones[node as usize];
        spin_lock(cpu, Field::permanent(&zone.lock));
        let mut free = zone.free.lock().expect("no panic while held");
        let reused = free.huge.pop();
        let found = reused
            .or_else(|| self.fresh_huge(node, &mut free))
            .or_else(|| self.merge_buddies(&mut free));
        drop(free);
        spin_unlock(cpu, Field::permanent(&zone.lock));
        found
    }

    /// Frames that were never used. What is passed to come to a multiple becomes single frames.
    fn fresh_huge(&self, node: u32, free: &mut FreeArea) -> Option<u32> {
        let nr = self.hpage_pmd_nr();
        if self.node_shift < self.hpage_pmd_order() {
            return None; // in no node there are so many in a row
        }
        let fresh = &self.zones[node as usize].fresh;
        let nth = fresh.peek().next_multiple_of(u64::from(nr));
        let first = self.nth_of_node(node, nth)?;
        let last = u64::from(first + nr - 1);
        if last >= self.huge_limit() {
            return None;
        }
        self.nth_of_node(node, nth + u64::from(nr) - 1)?;
        // The lowest is handed out first, as if it were fresh.
        free.pages.extend((fresh.peek()..nth).rev().filter_map(|nth| self.nth_of_node(node, nth)));
        fresh.poke(nth + u64::from(nr));
        self.pages.cover(last as u32);
        Some(first)
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
