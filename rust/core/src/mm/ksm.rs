//! KSM: anonymous pages with the same content become one page, which nobody may write to.
//!
//! Such a page has no anon_vma: its mappings have nothing to do with each other. No bracket tells of
//! a merge: who faults meanwhile compares PTEs under their lock (SPF_V12 6.2).
//!
//! Source: `mm/ksm.c`, v5.1. DEVIATION: parts of huge pages and what is in the swap cache are not
//! merged, and merged pages are neither reclaimed nor moved, so that nobody looks for their mappings,
//! and none counts as locked in memory; a stable node goes with its page, where the kernel finds out
//! later.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::kernel::Kernel;
use super::objects::{MmRef, PageRef, VmaRef};
use super::page::{PG_ANON, PG_DIRTY, PG_KSM, PG_MLOCKED, PG_STABLE, PG_SWAPCACHE};
use super::pgtable::PteSlot;
use super::rmap::Rss;
use super::types::{Pte, Vaddr, VmFlags};
use crate::design::Design;
use crate::platform::arena::Lines;
use crate::platform::{Field, Line, Ordering, Platform, Word};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// The merged pages that more may be merged with.
pub(crate) struct Ksm<P: Platform> {
    /// `ksm_thread_mutex`: one scan at a time.
    thread_mutex: Word<P>,
    /// Keeps frames from going while they are looked up.
    lock: Word<P>,
    /// The stable tree: a frame for each content. Under `lock`.
    stable: Mutex<BTreeMap<u64, u32>>,
}

impl<P: Platform> Ksm<P> {
    pub(super) fn new(lines: &Lines) -> Self {
        let line: Line = lines.take_named("ksm", 1, |offset| {
            ["thread_mutex", "lock"][offset as usize / 8].to_owned()
        });
        Self {
            thread_mutex: Word::new(line, 0),
            lock: Word::new(line, 8),
            stable: Mutex::default(),
        }
    }
    pub(super) fn reset(&self) {
        self.thread_mutex.poke(0);
        self.lock.poke(0);
        self.peek().clear();
    }
    fn peek(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u32>> {
        self.stable.lock().expect("no panic while held")
    }
    /// How many nodes the stable tree has.
    pub(crate) fn nr_stable(&self) -> usize {
        self.peek().len()
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    pub(crate) fn ksm_thread_mutex(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.ksm.thread_mutex)
    }

    /// `PageKsm()`
    #[inline(always)]
    pub(crate) fn page_is_ksm(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        self.page_test(cpu, page, PG_KSM)
    }

    /// Whether pages of the VMA may be merged.
    pub(crate) fn is_mergeable(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        let is_advised = vma.vm_flags().read(cpu).has(VmFlags::MERGEABLE);
        is_advised && !vma.anon_vma().read(cpu).is_null()
    }

    /// `find_mergeable_vma()`: the VMA that `address` is in, if its pages may be merged. Caller holds
    /// `mmap_sem`.
    pub(crate) fn find_mergeable_vma<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
    ) -> Option<VmaRef<'k, P>> {
        let vma = self.find_vma(cpu, mm, address)?;
        (vma.vm_start().read(cpu) <= address && self.is_mergeable(cpu, vma)).then_some(vma)
    }

    /// `stable_tree_search()` and `get_ksm_page()`: the page that has this content, with a reference.
    pub(crate) fn stable_tree_search(&self, cpu: &P, content: u64) -> Option<PageRef<'_, P>> {
        let lock = Field::permanent(&self.ksm.lock);
        spin_lock(cpu, lock);
        let pfn = self.ksm.peek().get(&content).copied();
        let page = pfn.map(|pfn| self.page(cpu, pfn));
        // The last reference may be gone, or frozen by who makes the page its own and then takes it out
        // of the tree. With this one it stays a merged page.
        let got = page.filter(|&page| self.get_page_unless_zero(cpu, page));
        spin_unlock(cpu, lock);
        got
    }

    /// `stable_tree_insert()`: more pages may be merged with this one. Caller has a reference.
    pub(crate) fn stable_tree_insert(&self, cpu: &P, page: PageRef<'_, P>) {
        self.lock_page(cpu, page);
        let lock = Field::permanent(&self.ksm.lock);
        let content = page.content().read(cpu);
        spin_lock(cpu, lock);
        self.ksm.peek().insert(content, page.slot_index());
        spin_unlock(cpu, lock);
        self.page_set(cpu, page, PG_STABLE);
        self.unlock_page(cpu, page);
    }

    /// `remove_node_from_stable_tree()`, if the page has a node: it goes, or is one process's alone.
    pub(super) fn stable_tree_remove(&self, cpu: &P, page: PageRef<'_, P>) {
        let lock = Field::permanent(&self.ksm.lock);
        let content = page.content().read(cpu);
        spin_lock(cpu, lock);
        let mut stable = self.ksm.peek();
        if stable.get(&content) == Some(&page.slot_index()) {
            stable.remove(&content);
        }
        drop(stable);
        spin_unlock(cpu, lock);
    }

    /// `reuse_ksm_page()`: the page becomes this VMA's alone, if nobody else has a reference. Caller
    /// has locked it, and holds the lock of its PTE.
    pub(crate) fn reuse_ksm_page(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        vma: VmaRef<'_, P>,
        index: u64,
    ) -> bool {
        if !self.page_test(cpu, page, PG_STABLE) || !self.page_ref_freeze(cpu, page, 1) {
            return false;
        }
        self.stable_tree_remove(cpu, page);
        self.page_clear(cpu, page, PG_KSM | PG_STABLE);
        self.page_move_anon_rmap(cpu, page, vma);
        page.index().write(cpu, index);
        // page_ref_unfreeze. Who takes a reference finds the page by its PTE, under the caller's lock.
        page.refcount().write(cpu, 1);
        true
    }

    /// `try_to_merge_one_page()`: makes `page`, at `address`, a KSM page, or replaces it there by the
    /// KSM page `kpage` if they are the same still. Caller holds `mmap_sem` for reading.
    pub(crate) fn try_to_merge_one_page(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        page: PageRef<'_, P>,
        kpage: Option<PageRef<'_, P>>,
    ) -> bool {
        let _step = cpu.step("try_to_merge_one_page");
        // Who waits for one page may have another locked.
        if !self.trylock_page(cpu, page) {
            return false;
        }
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let suits = self.suits_ksm(cpu, page);
        let protect = || self.write_protect_page(cpu, mm, address, page);
        let protected = suits.then(|| self.invalidate_range(cpu, mm, protect)).flatten();
        let merged = match (protected, kpage) {
            (None, _) => false,
            (Some(_), None) => {
                // set_page_stable_node(page, NULL). Reclaim must not take it for clean.
                page.mapping().write(cpu, 0);
                self.page_clear(cpu, page, PG_MLOCKED);
                self.page_set(cpu, page, PG_KSM | PG_DIRTY);
                true
            }
            (Some(pte), Some(kpage)) => {
                let replace = || self.replace_page(cpu, vma, address, page, kpage, pte);
                page.content().read(cpu) == kpage.content().read(cpu)
                    && self.invalidate_range(cpu, mm, replace)
            }
        };
        if merged && kpage.is_some() && vma.vm_flags().read(cpu).has(VmFlags::LOCKED) {
            // munlock_vma_page: who else maps it need not have locked it (as munlock_old_page).
            self.page_clear(cpu, page, PG_MLOCKED);
        }
        self.unlock_page(cpu, page);
        merged
    }

    /// Whether the page is anonymous, and neither in the swap cache nor merged yet.
    pub(crate) fn suits_ksm(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        page.flags().read(cpu) & (PG_ANON | PG_KSM | PG_SWAPCACHE) == PG_ANON
    }

    /// The PTE of an address if it maps the page, locked.
    fn locked_pte_of<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        page: PageRef<'_, P>,
    ) -> Option<PteSlot<'k, P>> {
        let pfn = page.slot_index();
        let maps = |pte: Pte| pte.is_present() && !pte.has(Pte::SPECIAL) && pte.pfn() == pfn;
        self.page_vma_mapped_walk(cpu, mm, address, true, maps)
    }

    /// `write_protect_page()`: from here on no CPU writes to the page by way of this PTE, whose value
    /// comes back. `None`: it is mapped there no more, or somebody else is at it.
    fn write_protect_page(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        page: PageRef<'_, P>,
    ) -> Option<Pte> {
        let slot = self.locked_pte_of(cpu, mm, address, page)?;
        let mut protected = slot.pte().read(cpu);
        let flush_pending = mm.tlb_flush_pending().read(cpu) != 0;
        let mut alone = true;
        // The write bit of a hint says what the page was.
        if protected.has(Pte::WRITE | Pte::DIRTY) || flush_pending {
            // ptep_clear_flush: before the references are counted, so that none is overlooked that
            // get_user_pages_fast is just taking.
            let old = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            self.flush_tlb_page(cpu, mm, address);
            alone = page.mapcount().read(cpu) + 1 == page.refcount().read(cpu);
            protected = old;
            if alone {
                if old.has(Pte::DIRTY) {
                    self.page_set(cpu, page, PG_DIRTY);
                }
                protected = old.without(Pte::WRITE | Pte::DIRTY);
            }
            slot.pte().write(cpu, protected);
        }
        spin_unlock(cpu, slot.ptl());
        alone.then_some(protected)
    }

    /// `replace_page()`: maps `kpage` where `page` was, if the PTE is still `orig`.
    fn replace_page(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        page: PageRef<'_, P>,
        kpage: PageRef<'_, P>,
        orig: Pte,
    ) -> bool {
        let _step = cpu.step("replace_page");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        let Some(slot) = self.locked_pte_of(cpu, mm, address, page) else { return false };
        if slot.pte().read(cpu) != orig {
            spin_unlock(cpu, slot.ptl());
            return false;
        }
        self.get_page(cpu, kpage);
        self.page_dup_rmap(cpu, kpage);
        self.add_mm_counter(cpu, mm, Rss::Anon, 1);
        let new = Pte::new(kpage.slot_index(), vma.vm_page_prot().read(cpu) | Pte::YOUNG);
        slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
        self.flush_tlb_page(cpu, mm, address);
        // Release: the content; pairs with the dependent access through this PTE.
        slot.pte().store(cpu, new, Ordering::Release);
        self.page_remove_rmap(cpu, mm, page);
        spin_unlock(cpu, slot.ptl());
        self.put_page(cpu, page);
        true
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/ksm.rs"]
mod tests;
