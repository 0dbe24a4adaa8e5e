//! Map counts and resident-set counters: what a page knows of its mappings.
//!
//! Source: `mm/rmap.c`, `mm/memory.c`, v5.1; the bounds-free variant: P17.

use super::kernel::Kernel;
use super::objects::{MmRef, PageRef, VmaRef};
use super::page::{PG_ANON, PG_DIRTY, PG_SWAPBACKED, PG_WRITEBACK};
use super::types::Vaddr;
use super::variants::Variant;
use crate::design::Design;
use crate::platform::{Ordering, Platform, Value};

/// The counters of `mm->rss_stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Rss {
    File = 0,
    Anon = 1,
    /// Pages that are in swap.
    Swap = 2,
}

impl Rss {
    pub(crate) const ALL: [Self; 3] = [Self::File, Self::Anon, Self::Swap];
}

/// `TASK_RSS_EVENTS_THRESH`: a task keeps its own counts and tells the mm this often, so that
/// faults do not fight over `mm->rss_stat`. Source: `SPLIT_RSS_COUNTING`.
const TASK_RSS_EVENTS_THRESH: u64 = 64;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `add_mm_counter_fast()`
    #[inline(always)]
    pub(crate) fn add_mm_counter(&self, cpu: &P, mm: MmRef<'_, P>, which: Rss, pages: i64) {
        let task = self.current(cpu);
        if task.mm.get() != mm.ptr().to_word() {
            self.add_mm_counter_now(cpu, mm, which, pages);
            return;
        }
        task.rss[which as usize].add(pages as u64);
        task.rss_events.add(1);
        if task.rss_events.get() > TASK_RSS_EVENTS_THRESH {
            self.sync_mm_rss(cpu, mm);
        }
    }

    fn add_mm_counter_now(&self, cpu: &P, mm: MmRef<'_, P>, which: Rss, pages: i64) {
        let field = match which {
            Rss::File => mm.file_pages(),
            Rss::Anon => mm.anon_pages(),
            Rss::Swap => mm.swap_entries(),
        };
        field.fetch_add(cpu, pages, Ordering::Relaxed);
    }

    /// `sync_mm_rss()`: tells the mm what the current task counted.
    #[inline(never)]
    pub(crate) fn sync_mm_rss(&self, cpu: &P, mm: MmRef<'_, P>) {
        let task = self.current(cpu);
        for which in Rss::ALL {
            let pages = task.rss[which as usize].get() as i64;
            if pages != 0 {
                self.add_mm_counter_now(cpu, mm, which, pages);
                task.rss[which as usize].set(0);
            }
        }
        task.rss_events.set(0);
    }

    /// `__page_add_new_anon_rmap()`: the first mapping of a fresh page, with no test that its
    /// address lies within the VMA, which another CPU may be splitting. Source: P17.
    pub(crate) fn page_add_new_anon_rmap(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        vma: VmaRef<'_, P>,
        index: u64,
    ) {
        // Nobody else knows the page yet: the PTE that publishes it is stored later.
        page.mapcount().poke(1);
        page.flags().poke(page.flags().peek() | PG_ANON | PG_SWAPBACKED);
        page.mapping().poke(vma.anon_vma().read(cpu).to_word());
        page.index().poke(index);
    }

    /// `do_page_add_anon_rmap()`: one more mapping of a page that was in swap. The first decides
    /// who owns it: this VMA if `exclusive`, else the family, for others may map it, too. Caller
    /// has locked the page.
    pub(crate) fn page_add_anon_rmap(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        vma: VmaRef<'_, P>,
        index: u64,
        exclusive: bool,
    ) {
        let first = page.mapcount().fetch_add(cpu, 1, Ordering::Relaxed) == 0;
        // One that was unmapped and not read again still names its anon_vma.
        if !first || self.page_is_anon(cpu, page) {
            return;
        }
        let mut anon_vma = vma.anon_vma().read(cpu);
        if !exclusive {
            anon_vma = self.anon_vmas.get(cpu, anon_vma).root().read(cpu);
        }
        page.mapping().write(cpu, anon_vma.to_word());
        page.index().write(cpu, index);
        self.page_set(cpu, page, PG_ANON);
    }

    /// `linear_page_index()`, from the live fields.
    pub(crate) fn linear_page_index(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> u64 {
        let pages = address.since(vma.vm_start().read(cpu)) >> self.page_shift();
        pages.wrapping_add(vma.vm_pgoff().read(cpu))
    }

    /// As [`Kernel::page_add_new_anon_rmap`], for a fresh huge page that a PMD is to map.
    pub(crate) fn page_add_new_huge_anon_rmap(
        &self,
        cpu: &P,
        head: PageRef<'_, P>,
        vma: VmaRef<'_, P>,
        index: u64,
    ) {
        self.page_add_new_anon_rmap(cpu, head, vma, index);
        head.mapcount().poke(0);
        head.compound_mapcount().poke(1);
    }

    /// `page_move_anon_rmap()`: the page is this VMA's alone now.
    pub(crate) fn page_move_anon_rmap(&self, cpu: &P, page: PageRef<'_, P>, vma: VmaRef<'_, P>) {
        let anon_vma = vma.anon_vma().read(cpu).to_word();
        self.compound_head(cpu, page).mapping().write(cpu, anon_vma);
    }

    /// `page_dup_rmap()`, `page_add_file_rmap()`: one more mapping.
    pub(crate) fn page_dup_rmap(&self, cpu: &P, page: PageRef<'_, P>) {
        page.mapcount().fetch_add(cpu, 1, Ordering::Relaxed);
    }

    /// `page_dup_rmap()` of a huge page: one more PMD maps it.
    pub(crate) fn page_dup_huge_rmap(&self, cpu: &P, head: PageRef<'_, P>) {
        head.compound_mapcount().fetch_add(cpu, 1, Ordering::Relaxed);
    }

    /// `page_remove_rmap()`, with the resident-set count. Caller holds the PTE lock.
    pub(crate) fn page_remove_rmap(&self, cpu: &P, mm: MmRef<'_, P>, page: PageRef<'_, P>) {
        let head = self.compound_head(cpu, page);
        let flags = head.flags().read(cpu);
        let which = if flags & PG_ANON != 0 { Rss::Anon } else { Rss::File };
        self.add_mm_counter(cpu, mm, which, -1);
        match page.mapcount().fetch_add(cpu, -1, Ordering::Relaxed) {
            0 => {
                let pfn = page.slot_index();
                cpu.finding("mapcount", format!("page {pfn} unmapped once too often"))
            }
            1 => self.clear_page_mlock(cpu, head),
            _ => {}
        }
    }

    /// `page_remove_rmap()` of a huge page that a PMD maps no more. Caller holds the PMD lock.
    pub(crate) fn page_remove_huge_rmap(&self, cpu: &P, head: PageRef<'_, P>) {
        match head.compound_mapcount().fetch_add(cpu, -1, Ordering::Relaxed) {
            0 => {
                let pfn = head.slot_index();
                cpu.finding("mapcount", format!("huge page {pfn} unmapped once too often"))
            }
            1 => self.clear_page_mlock(cpu, head),
            _ => {}
        }
    }

    /// `reuse_swap_page()`: whether the page, which the caller locked, is mapped nowhere else, nor
    /// in swap; and how many mappings and swap entries it has in all. If so it leaves the swap
    /// cache, for it is about to be changed. A huge page, or one that it consists of, is mapped
    /// elsewhere if any part of it is.
    pub(crate) fn reuse_swap_page(&self, cpu: &P, page: PageRef<'_, P>) -> (bool, u64) {
        let head = self.compound_head(cpu, page);
        let (most, mappings) = self.page_trans_huge_mapcount(cpu, head);
        let in_cache = self.page_in_swap_cache(cpu, head);
        let in_swap = if in_cache { self.page_swapcount(cpu, head) } else { 0 };
        let count = most + in_swap;
        // L1: an unmapper drops its count before its flush, and its reference after. A fault that
        // has yet to map the page has a reference of its own.
        let refs = mappings.max(1) + u64::from(in_cache);
        let reuse = count <= 1 && (self.v12(Variant::L1) || head.refcount().read(cpu) == refs);
        // What is just being written to swap stays there, and is dirty again once it is mapped.
        if reuse && in_cache && count == 1 && !self.page_test(cpu, head, PG_WRITEBACK) {
            self.delete_from_swap_cache(cpu, head);
            self.page_set(cpu, head, PG_DIRTY);
        }
        (reuse, mappings + in_swap)
    }

    /// `page_trans_huge_mapcount()`: how many mappings the part of a page has that has most, and
    /// how many there are in all, each with a reference.
    pub(super) fn page_trans_huge_mapcount(&self, cpu: &P, head: PageRef<'_, P>) -> (u64, u64) {
        if !self.page_is_compound(head) {
            let mappings = head.mapcount().read(cpu);
            return (mappings, mappings);
        }
        let (mut most, mut mappings) = (0, 0);
        for page in self.subpages(cpu, head) {
            let by_ptes = page.mapcount().read(cpu);
            most = by_ptes.max(most);
            mappings += by_ptes;
        }
        let by_pmds = head.compound_mapcount().read(cpu);
        (most + by_pmds, mappings + by_pmds)
    }
}
