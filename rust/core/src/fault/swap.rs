//! `do_swap_page()`: an access to a page that was swapped out.
//!
//! Source: `mm/memory.c`, `mm/filemap.c`, v5.1; no readahead without a stable VMA: P23; cached VMA
//! fields: P13.

use super::Vmf;
use crate::design::Design;
use crate::events::{Cost, Event};
use crate::mm::{
    FaultFlags, Kernel, PG_DIRTY, PG_LOCKED, PG_SWAPBACKED, PG_SWAPCACHE, PageRef, Pte, Rss,
    SwapIn, SwapReads, Variant, VmFault, VmFlags,
};
use crate::platform::{Mutant, Ordering, Platform, Ptr, Value};

/// The page that a swap-in will map.
struct Incoming<'k, P: Platform> {
    /// With a reference.
    page: PageRef<'k, P>,
    slot: u32,
    /// From the swap cache, and not past it.
    cached: bool,
    /// It had to be read: a major fault.
    read: bool,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    #[inline(never)]
    pub(super) fn do_swap_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("do_swap_page");
        // pte_unmap_same() compares nothing where a PTE is one word; it only unmaps.
        vmf.pte = None;
        let Some(slot) = vmf.orig_pte.swap_slot() else {
            return self.not_in_swap(cpu, vmf);
        };
        let mut reads = SwapReads::none();
        let (incoming, prepared) = match self.find_or_read(cpu, vmf, slot, &mut reads) {
            Ok(found) => found,
            Err(result) => return result,
        };
        let result = match incoming {
            Some(incoming) => self.map_incoming(cpu, vmf, &incoming, &mut reads),
            None => {
                // What was read ahead comes all the same.
                self.finish_reads(cpu, &mut reads);
                self.nothing_to_map(cpu, vmf)
            }
        };
        if prepared {
            self.put_swap_page(cpu, slot);
        }
        result
    }

    /// The PTE is neither present nor in swap: the page is being moved.
    fn not_in_swap(&self, cpu: &P, vmf: &Vmf<'_, P>) -> VmFault {
        if vmf.orig_pte.migration_pfn().is_none() {
            return VmFault::SIGBUS;
        }
        // B4: v12 goes by vmf->pmd, whose table may be gone.
        if vmf.is_speculative() && !self.v12(Variant::B4) {
            return VmFault::RETRY;
        }
        self.migration_entry_wait(cpu, vmf.pmd, vmf.address);
        VmFault::NONE
    }

    /// The slot's page from the swap cache or from the device, and whether the slot is marked
    /// until the fault ends. `None`: there is no memory for it. `Err`: the fault is over.
    fn find_or_read<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        slot: u32,
        reads: &mut SwapReads<'k, P>,
    ) -> Result<(Option<Incoming<'k, P>>, bool), VmFault> {
        if let Some(page) = self.lookup_swap_cache(cpu, slot, vmf.vma, vmf.address) {
            return Ok((Some(Incoming { page, slot, cached: true, read: false }), false));
        }
        let past_the_cache = self.swap_is_synchronous() && self.swap_count(cpu, slot) == 1;
        let mut prepared = false;
        let page = if past_the_cache {
            // L2: without the mark another fault may read the same slot, and the slot may be used
            // again for other content before this one compares its PTE.
            if !self.v12(Variant::L2) {
                prepared = self.swapcache_prepare(cpu, slot).is_ok();
                if !prepared {
                    self.wait_for_swap_slot(cpu, slot);
                    return Err(VmFault::NONE);
                }
            }
            self.read_past_the_cache(cpu, slot)
        } else if vmf.is_speculative() && !cpu.mutant(Mutant::A2) {
            // The window would be computed from bounds that may belong to another VMA by now. The
            // classic fault reads ahead, and later ones find the pages. Silent.
            return Err(VmFault::RETRY);
        } else {
            let fault = SwapIn { slot, vma: vmf.vma, address: vmf.address, pmd: vmf.pmd };
            self.swapin_readahead(cpu, &fault, reads)
        };
        if page.is_some() {
            self.count(cpu, Event::Pgmajfault);
        }
        let cached = !past_the_cache;
        Ok((page.map(|page| Incoming { page, slot, cached, read: true }), prepared))
    }

    /// A page of its own, locked and read by this CPU: nobody else wants it.
    fn read_past_the_cache(&self, cpu: &P, slot: u32) -> Option<PageRef<'_, P>> {
        let page = self.alloc_page(cpu)?;
        // L3: its slot is about to be free, and its PTE may be clean: nothing else says that the
        // content is needed.
        let dirty = if self.v12(Variant::L3) { 0 } else { PG_DIRTY };
        page.flags().poke(PG_LOCKED | PG_SWAPBACKED | dirty);
        self.lru_cache_add(cpu, page);
        cpu.charge(Cost::SwapCopy, 1);
        self.copy_from_slot(cpu, page, slot);
        Some(page)
    }

    /// No page: out of memory, unless somebody else handled the fault.
    fn nothing_to_map<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        if !self.pte_map_lock(cpu, vmf) {
            return VmFault::RETRY;
        }
        let same = self.pte_same(cpu, vmf);
        self.pte_unmap_unlock(cpu, vmf);
        if same { VmFault::OOM } else { VmFault::NONE }
    }

    /// Locks the page, and maps it if nothing has changed.
    fn map_incoming<'k>(
        &'k self,
        cpu: &P,
        vmf: &mut Vmf<'k, P>,
        incoming: &Incoming<'k, P>,
        reads: &mut SwapReads<'k, P>,
    ) -> VmFault {
        let Incoming { page, slot, cached, read } = *incoming;
        let result = if read { VmFault::MAJOR } else { VmFault::NONE };
        if cached && !self.lock_page_or_retry(cpu, vmf, page, reads) {
            self.put_page(cpu, page);
            return result | VmFault::RETRY;
        }
        if cached && !self.is_still_cached(cpu, page, slot) {
            self.unlock_page(cpu, page);
            self.put_page(cpu, page);
            return result;
        }
        if cached && (!vmf.is_speculative() || self.v12(Variant::B5)) {
            self.ksm_might_need_to_copy(cpu, vmf, page);
        }
        let Some(charged) = self.mem_cgroup_charge(cpu, page) else {
            self.unlock_page(cpu, page);
            self.put_page(cpu, page);
            return VmFault::OOM;
        };
        let locked = self.pte_map_lock(cpu, vmf);
        if !locked || !self.pte_same(cpu, vmf) {
            if locked {
                self.pte_unmap_unlock(cpu, vmf);
            }
            if charged {
                self.mem_cgroup_uncharge(cpu, page);
            }
            self.unlock_page(cpu, page);
            self.put_page(cpu, page);
            return if locked { result } else { VmFault::RETRY };
        }
        let result = result | self.install_incoming(cpu, vmf, incoming);
        if !vmf.is_write() {
            self.pte_unmap_unlock(cpu, vmf);
            return result;
        }
        // C7: MAJOR|RETRY would count as done. It cannot be: what a speculative fault has read, past
        // the cache, is nobody else's.
        let result = result | self.do_wp_page(cpu, vmf);
        if result.has(VmFault::ERROR) { result & VmFault::ERROR } else { result }
    }

    /// `ksm_might_need_to_copy()`: a copy, if the page is another's, to whom KSM had lent this one's
    /// place. DEVIATION: the copy is dropped at once. Merged pages do not go to swap, so only a VMA
    /// that is just changing says so: `pte_map_lock` then refuses what is speculative (B5), and beside
    /// a growing stack the page itself is right.
    fn ksm_might_need_to_copy(&self, cpu: &P, vmf: &Vmf<'_, P>, page: PageRef<'_, P>) {
        if !self.page_is_anon(cpu, page) {
            return; // just read
        }
        let root = |anon_vma| self.anon_vmas.get(cpu, anon_vma).root().read(cpu);
        let theirs = root(Ptr::from_word(page.mapping().read(cpu)));
        let ours = root(vmf.vma.anon_vma().read(cpu));
        let index = self.linear_page_index(cpu, vmf.vma, vmf.address);
        if theirs == ours && page.index().read(cpu) == index {
            return;
        }
        let place = self.vma_placement(cpu, vmf.vma, vmf.address, 0);
        if let Some(copy) = self.alloc_page_at(cpu, place) {
            cpu.charge(Cost::CopyPage, 1);
            copy.content().poke(page.content().read(cpu));
            self.put_page(cpu, copy);
        }
    }

    /// Whether the page, which is locked now, is still the one of the slot.
    fn is_still_cached(&self, cpu: &P, page: PageRef<'_, P>, slot: u32) -> bool {
        self.page_test(cpu, page, PG_SWAPCACHE) && page.private().read(cpu) == u64::from(slot)
    }

    /// Replaces the swap entry by the page, whose reference becomes the mapping's. Caller holds
    /// both locks; the page's is given back.
    fn install_incoming<'k>(
        &'k self,
        cpu: &P,
        vmf: &mut Vmf<'k, P>,
        incoming: &Incoming<'k, P>,
    ) -> VmFault {
        let Incoming { page, slot, .. } = *incoming;
        self.add_mm_counter(cpu, vmf.mm, Rss::Anon, 1);
        self.add_mm_counter(cpu, vmf.mm, Rss::Swap, -1);
        let mut entry = Pte::new(page.slot_index(), vmf.vma_page_prot | Pte::YOUNG);
        let mut result = VmFault::NONE;
        let exclusive = vmf.is_write() && self.reuse_swap_page(cpu, page).0;
        if exclusive {
            entry = self.maybe_mkwrite(entry | Pte::MKDIRTY, vmf);
            vmf.flags = vmf.flags & !FaultFlags::WRITE;
            result = VmFault::WRITE;
        }
        let index = self.anon_index(cpu, vmf, vmf.address);
        self.page_add_anon_rmap(cpu, page, vmf.vma, index, exclusive);
        // Release: content and rmap come first; pairs with the dependent access through this PTE.
        // (The kernel sets the PTE before the rmap, under the same locks.)
        vmf.pte.expect("mapped").pte().store(cpu, entry, Ordering::Release);
        vmf.orig_pte = entry;
        self.swap_free(cpu, slot);
        if self.vm_swap_full(cpu) || vmf.vma_flags.has(VmFlags::LOCKED) {
            self.try_to_free_swap(cpu, page);
        }
        self.unlock_page(cpu, page);
        result
    }

    /// `lock_page_or_retry()`: locks a page of the swap cache, and finishes what this fault began
    /// to read. False: it waited for the page with `mmap_sem` dropped, and the fault has to begin
    /// anew. A speculative fault holds no `mmap_sem` and just waits (A17).
    fn lock_page_or_retry<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        page: PageRef<'k, P>,
        reads: &mut SwapReads<'k, P>,
    ) -> bool {
        if self.trylock_page(cpu, page) {
            self.finish_reads(cpu, reads);
            return true;
        }
        let retry = vmf.flags.has(FaultFlags::ALLOW_RETRY);
        if retry {
            self.mmap_sem(vmf.mm).up_read(cpu);
        }
        self.finish_reads(cpu, reads);
        if retry {
            self.wait_on_page_locked(cpu, page);
        } else {
            self.lock_page(cpu, page);
        }
        !retry
    }
}

#[cfg(test)]
#[path = "../../tests/unit/fault/swap.rs"]
mod tests;
