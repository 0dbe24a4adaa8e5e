//! LRU lists: the pages on their way to them that each CPU collects, and the lock of those of a
//! node.
//!
//! Nothing reads the lists ([`Kernel::swap_out`] and others choose pages by address); they are kept
//! where time counts, for what their locks take. So all but the flag is left out of a page.
//! Source: `mm/swap.c`, `include/linux/mm_inline.h`, `include/linux/mmzone.h`, v5.1. DEVIATION: a
//! page on its way has no reference for that: one that is freed meanwhile never comes to a list.

use super::kernel::Kernel;
use super::objects::{Page, PageRef};
use super::page::{PG_LRU, PG_MLOCKED};
use super::types::VmFlags;
use super::vma::VM_SPECIAL;
use crate::design::Design;
use crate::object;
use crate::platform::{Local, Ordering, Platform, Ptr, Ref, Value};
use crate::sync::refcount::atomic_dec_and_test;
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// `PAGEVEC_SIZE`
pub(super) const PAGEVEC_SIZE: usize = 15;

/// `SWAP_CLUSTER_MAX`: for how many pages `release_pages()` holds the lock.
const SWAP_CLUSTER_MAX: u32 = 32;

object! {
    /// The lists of one node: `lru_lock` has a line to itself (`ZONE_PADDING`), the rest is the
    /// memory cgroup's (`mem_cgroup_per_node`), and written with the lock held.
    pub struct Pgdat of Word = "pglist_data", 256 {
        lru_lock: u64 = 0x00,
        /// `lruvec->lists`: the page that came last.
        lists: Ptr<Page<P>> = 0x40,
        /// `lruvec->reclaim_stat`
        reclaim_stat: u64 = 0x80,
        /// How many pages are on the lists.
        lru_zone_size: u64 = 0xc0,
    }
}

type PgdatRef<'k, P> = Ref<'k, Pgdat<P>>;

/// Pages of one CPU (`lru_add_pvec`): how many, and which.
pub(crate) struct PageVec {
    nr: Local,
    pages: Box<[Local]>,
}

impl PageVec {
    pub(super) fn new<P: Platform>() -> Self {
        let room = if P::KEEPS_LISTS { PAGEVEC_SIZE } else { 0 };
        Self { nr: Local::default(), pages: (0..room).map(|_| Local::default()).collect() }
    }
    pub(super) fn reset(&self) {
        self.nr.set(0);
    }
}

/// A section of the `lru_lock` of one node after the other.
struct Section<'k, P: Platform> {
    pgdat: Option<PgdatRef<'k, P>>,
    /// Pages that came to the node's lists, less those that went.
    pages: i64,
    /// The last that came.
    added: Ptr<Page<P>>,
}

impl<'k, P: Platform> Section<'k, P> {
    fn none() -> Self {
        Self { pgdat: None, pages: 0, added: Ptr::NULL }
    }

    /// Holds the lock of this node, and no other. True: it was taken now.
    fn lock(&mut self, cpu: &P, pgdat: PgdatRef<'k, P>) -> bool {
        if self.pgdat == Some(pgdat) {
            return false;
        }
        self.unlock(cpu);
        cpu.local_irq_disable();
        spin_lock(cpu, pgdat.lru_lock());
        self.pgdat = Some(pgdat);
        true
    }

    /// Ends the section, if there is one. What the kernel writes for each page is written once:
    /// the others hit.
    fn unlock(&mut self, cpu: &P) {
        let Some(pgdat) = self.pgdat.take() else { return };
        if !self.added.is_null() {
            pgdat.lists().write(cpu, self.added);
            pgdat.reclaim_stat().write(cpu, 0);
        }
        let size = pgdat.lru_zone_size().peek();
        pgdat.lru_zone_size().write(cpu, size.wrapping_add_signed(self.pages));
        spin_unlock(cpu, pgdat.lru_lock());
        cpu.local_irq_enable();
        *self = Self::none();
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Sets up the nodes' lists, which are empty.
    pub(super) fn boot_lists(&self) {
        self.pgdats.reset();
        if P::KEEPS_LISTS {
            (0..self.nr_nodes()).for_each(|_| _ = self.pgdats.alloc());
        }
    }

    fn page_pgdat(&self, cpu: &P, page: PageRef<'_, P>) -> PgdatRef<'_, P> {
        self.pgdats.at(cpu, self.page_to_nid(page))
    }

    /// `__lru_cache_add_active_or_unevictable()`: a fresh page, which nobody else knows, of a VMA
    /// with these flags: the fault's copy of them (P16).
    #[inline(always)]
    pub(crate) fn lru_cache_add_active_or_unevictable(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        vma_flags: VmFlags,
    ) {
        if vma_flags & (VmFlags::LOCKED | VM_SPECIAL) == VmFlags::LOCKED {
            page.flags().poke(page.flags().peek() | PG_MLOCKED);
        }
        self.lru_cache_add(cpu, page);
    }

    /// `__lru_cache_add()`: collects the page; the lists get all that were when there are so many,
    /// or one of them is huge.
    #[inline(always)]
    pub(crate) fn lru_cache_add(&self, cpu: &P, page: PageRef<'_, P>) {
        if !P::KEEPS_LISTS {
            return;
        }
        let pvec = &self.cpus[cpu.id() as usize].lru_add_pvec;
        let nr = pvec.nr.get() as usize;
        pvec.pages[nr].set(page.ptr().to_word());
        pvec.nr.set(nr as u64 + 1);
        if nr + 1 == PAGEVEC_SIZE || self.page_is_compound(page) {
            self.pagevec_lru_add(cpu);
        }
    }

    /// `lru_add_drain()`: this CPU's.
    #[inline(always)]
    pub(crate) fn lru_add_drain(&self, cpu: &P) {
        if P::KEEPS_LISTS && self.cpus[cpu.id() as usize].lru_add_pvec.nr.get() != 0 {
            self.pagevec_lru_add(cpu);
        }
    }

    /// `__pagevec_lru_add()`
    #[inline(never)]
    fn pagevec_lru_add(&self, cpu: &P) {
        let pvec = &self.cpus[cpu.id() as usize].lru_add_pvec;
        let mut section = Section::none();
        for word in &pvec.pages[..pvec.nr.get() as usize] {
            let ptr = Ptr::from_word(word.get());
            if !self.pages.is_live(ptr) {
                continue;
            }
            let page = self.pages.get(cpu, ptr);
            let pgdat = self.page_pgdat(cpu, page);
            if section.lock(cpu, pgdat) {
                self.touch_first_of(cpu, pgdat);
            }
            // SetPageLRU, atomically. The bit is set beside the access, for in that the page may
            // have become somebody else's.
            page.flags().fetch_add(cpu, 0, Ordering::Relaxed);
            if self.pages.is_live(ptr) {
                page.flags().poke(page.flags().peek() | PG_LRU);
                section.pages += self.hpage_nr_pages(page);
                section.added = ptr;
            }
        }
        section.unlock(cpu);
        pvec.nr.set(0);
    }

    /// `list_add()` also writes to what was first in the list: a page that another CPU may have put
    /// there.
    fn touch_first_of(&self, cpu: &P, pgdat: PgdatRef<'_, P>) {
        let first = pgdat.lists().peek();
        if !first.is_null() && self.pages.is_live(first) {
            self.pages.get(cpu, first).flags().fetch_add(cpu, 0, Ordering::Relaxed);
        }
    }

    /// `del_page_from_lru_list()`, of a page that nobody has a reference to.
    fn del_page_from_lru_list(&self, cpu: &P, page: PageRef<'_, P>, section: &mut Section<'_, P>) {
        page.flags().write(cpu, page.flags().peek() & !PG_LRU);
        section.pages -= self.hpage_nr_pages(page);
    }

    /// `__page_cache_release()`: of a page whose last reference is gone.
    #[inline(never)]
    pub(super) fn page_cache_release(&self, cpu: &P, page: PageRef<'_, P>) {
        let mut section = Section::none();
        section.lock(cpu, self.page_pgdat(cpu, page));
        self.del_page_from_lru_list(cpu, page, &mut section);
        section.unlock(cpu);
    }

    /// `free_pages_and_swap_cache()`
    pub(super) fn free_pages_and_swap_cache(&self, cpu: &P, pages: &[Ptr<Page<P>>]) {
        self.lru_add_drain(cpu);
        for &page in pages {
            self.free_swap_cache(cpu, self.pages.get(cpu, page));
        }
        self.release_pages(cpu, pages);
    }

    /// `release_pages()`: drops a reference of each; those with no other leave their lists in
    /// sections of several, and are then uncharged and freed.
    fn release_pages(&self, cpu: &P, pages: &[Ptr<Page<P>>]) {
        let mut to_free = Vec::with_capacity(pages.len());
        let mut section = Section::none();
        let mut lock_batch = 0;
        for &page in pages {
            if section.pgdat.is_some() {
                lock_batch += 1;
                if lock_batch == SWAP_CLUSTER_MAX {
                    section.unlock(cpu);
                }
            }
            let page = self.compound_head(cpu, self.pages.get(cpu, page));
            if !atomic_dec_and_test(cpu, page.refcount()) {
                continue;
            }
            if self.page_is_compound(page) {
                section.unlock(cpu);
                self.free_unref_page(cpu, page);
                continue;
            }
            if page.flags().peek() & PG_LRU != 0 {
                if section.lock(cpu, self.page_pgdat(cpu, page)) {
                    lock_batch = 0;
                }
                self.del_page_from_lru_list(cpu, page, &mut section);
            }
            to_free.push(page);
        }
        section.unlock(cpu);
        self.mem_cgroup_uncharge_list(cpu, &to_free);
        to_free.into_iter().for_each(|page| self.free_unref_page(cpu, page));
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/lru.rs"]
mod tests;
