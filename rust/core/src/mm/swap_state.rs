//! The swap cache: pages of swap slots that are in memory.
//!
//! A page is in the swap cache from before it is unmapped until after it was written, and from
//! when it is read until nobody names its slot any more, or until it is needed no longer. The
//! cache holds a reference; `page->private` is the slot.
//!
//! Source: `mm/swap_state.c`, v5.1. DEVIATION: who finds a page there takes its reference under
//! the cache's lock; the kernel takes it if it is not 0, and looks again.

use super::kernel::Kernel;
use super::objects::{PageRef, VmaRef};
use super::page::{
    PG_DIRTY, PG_LOCKED, PG_READAHEAD, PG_SWAPBACKED, PG_SWAPCACHE, PG_UPTODATE, PG_WRITEBACK,
};
use super::swap::{CLUSTER, NoCache};
use super::types::Vaddr;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Field, Ordering, Platform};
use crate::sync::refcount::atomic_inc;
use crate::sync::spinlock::{spin_lock, spin_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    fn swap_cache_slot(&self, cpu: &P, slot: u32) -> Field<'_, P, u64> {
        self.swap_device().clusters.at(cpu, slot / CLUSTER).cache(slot % CLUSTER)
    }

    /// Whether the slot's page is in the swap cache now.
    pub(super) fn is_in_swap_cache(&self, cpu: &P, slot: u32) -> bool {
        self.swap_cache_slot(cpu, slot).read(cpu) != 0
    }

    /// `PageSwapCache()`, where there can be any.
    #[inline]
    pub(super) fn page_in_swap_cache(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        self.swap.is_some() && self.page_test(cpu, page, PG_SWAPCACHE)
    }

    /// `find_get_page(swap_address_space())`: the slot's page, with a reference.
    pub(super) fn find_swap_cache(&self, cpu: &P, slot: u32) -> Option<PageRef<'_, P>> {
        if !self.is_in_swap_cache(cpu, slot) {
            return None;
        }
        let entry = self.swap_cache_slot(cpu, slot);
        let lock = self.swap_cache_lock(cpu, slot);
        spin_lock(cpu, lock);
        let found = entry.read(cpu).checked_sub(1).map(|pfn| self.page(cpu, pfn as u32));
        if let Some(page) = found {
            self.get_page(cpu, page);
        }
        spin_unlock(cpu, lock);
        found
    }

    /// `lookup_swap_cache()`: as above, for a fault at `address`; counts what readahead was good
    /// for.
    pub(crate) fn lookup_swap_cache(
        &self,
        cpu: &P,
        slot: u32,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> Option<PageRef<'_, P>> {
        let page = self.find_swap_cache(cpu, slot)?;
        let hit = self.page_clear(cpu, page, PG_READAHEAD) != 0;
        self.note_swap_hit(cpu, vma, address, hit);
        Some(page)
    }

    /// `add_to_swap_cache()`: of a page that the caller has locked, into a slot that is marked.
    fn add_to_swap_cache(&self, cpu: &P, page: PageRef<'_, P>, slot: u32) {
        atomic_inc(cpu, page.refcount());
        self.page_set(cpu, page, PG_SWAPCACHE);
        page.private().write(cpu, u64::from(slot));
        let lock = self.swap_cache_lock(cpu, slot);
        spin_lock(cpu, lock);
        self.swap_cache_slot(cpu, slot).write(cpu, u64::from(page.slot_index()) + 1);
        spin_unlock(cpu, lock);
    }

    /// `__delete_from_swap_cache()`. Caller holds the cache's lock and has locked the page.
    fn delete_swap_cache_entry(&self, cpu: &P, page: PageRef<'_, P>, slot: u32) {
        self.swap_cache_slot(cpu, slot).write(cpu, 0);
        page.private().write(cpu, 0);
        self.page_clear(cpu, page, PG_SWAPCACHE);
    }

    /// `delete_from_swap_cache()`. Caller has locked the page and has a reference of its own.
    pub(super) fn delete_from_swap_cache(&self, cpu: &P, page: PageRef<'_, P>) {
        let slot = page.private().read(cpu) as u32;
        let lock = self.swap_cache_lock(cpu, slot);
        spin_lock(cpu, lock);
        self.delete_swap_cache_entry(cpu, page, slot);
        spin_unlock(cpu, lock);
        self.put_swap_page(cpu, slot);
        self.put_page(cpu, page);
    }

    /// `__remove_mapping()`: takes a page that nobody else has a reference to, and that has been
    /// written, out of the swap cache, and frees it. Caller has locked the page; true: it is gone.
    pub(super) fn remove_mapping(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        let slot = page.private().read(cpu) as u32;
        let lock = self.swap_cache_lock(cpu, slot);
        spin_lock(cpu, lock);
        // The caller's reference and the cache's.
        let frozen = self.page_ref_freeze(cpu, page, 2);
        let removed = frozen && !self.page_test(cpu, page, PG_DIRTY);
        if removed {
            self.delete_swap_cache_entry(cpu, page, slot);
        } else if frozen {
            // page_ref_unfreeze
            page.refcount().store(cpu, 2, Ordering::Release);
        }
        spin_unlock(cpu, lock);
        if removed {
            self.put_swap_page(cpu, slot);
            self.unlock_page(cpu, page);
            self.free_unref_page(cpu, page);
        }
        removed
    }

    /// The swap cache's part of `migrate_page_move_mapping()`: `new` takes the place of a page that
    /// only the caller and the cache have a reference to. Caller has locked both.
    pub(super) fn replace_in_swap_cache(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        new: PageRef<'_, P>,
    ) -> bool {
        let slot = page.private().read(cpu) as u32;
        let lock = self.swap_cache_lock(cpu, slot);
        spin_lock(cpu, lock);
        let alone = self.page_ref_freeze(cpu, page, 2);
        if alone {
            atomic_inc(cpu, new.refcount());
            self.page_set(cpu, new, PG_SWAPCACHE);
            new.private().write(cpu, u64::from(slot));
            self.swap_cache_slot(cpu, slot).write(cpu, u64::from(new.slot_index()) + 1);
            page.private().write(cpu, 0);
            self.page_clear(cpu, page, PG_SWAPCACHE);
            // page_ref_unfreeze
            page.refcount().store(cpu, 1, Ordering::Release);
        }
        spin_unlock(cpu, lock);
        alone
    }

    /// `add_to_swap()`: gives a page that the caller has locked a slot. False: swap is full, or
    /// there is none.
    pub(super) fn add_to_swap(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        let slot = if self.swap.is_some() { self.get_swap_page(cpu) } else { None };
        let Some(slot) = slot else { return false };
        self.add_to_swap_cache(cpu, page, slot);
        // Its PTEs may be clean, if MADV_FREE is only half done with it.
        self.page_set(cpu, page, PG_DIRTY);
        true
    }

    /// `__read_swap_cache_async()`: the page of a slot with a reference, from the swap cache or
    /// (true) fresh, locked and not yet read. `None`: no memory, or nobody names the slot.
    pub(super) fn swap_cache_alloc(&self, cpu: &P, slot: u32) -> Option<(PageRef<'_, P>, bool)> {
        let mut fresh = None;
        loop {
            if let Some(found) = self.find_swap_cache(cpu, slot) {
                if let Some(page) = fresh {
                    self.put_page(cpu, page);
                }
                return Some((found, false));
            }
            let page = fresh.or_else(|| self.alloc_page(cpu))?;
            fresh = Some(page);
            match self.swapcache_prepare(cpu, slot) {
                Ok(()) => {
                    page.flags().poke(PG_LOCKED | PG_SWAPBACKED);
                    self.add_to_swap_cache(cpu, page, slot);
                    self.lru_cache_add(cpu, page);
                    return Some((page, true));
                }
                Err(NoCache::Exists) => self.wait_for_swap_slot(cpu, slot),
                Err(NoCache::Obsolete) => {
                    self.put_page(cpu, page);
                    return None;
                }
            }
        }
    }

    /// `swap_readpage()`, the device's part: the content has arrived in the page, which is
    /// unlocked. (`end_swap_bio_read()`)
    pub(super) fn end_swap_read(&self, cpu: &P, page: PageRef<'_, P>, slot: u32) {
        self.copy_from_slot(cpu, page, slot);
        self.unlock_page(cpu, page);
    }

    /// Fills a page with what the device has.
    pub(crate) fn copy_from_slot(&self, cpu: &P, page: PageRef<'_, P>, slot: u32) {
        let cluster = self.swap_device().clusters.at(cpu, slot / CLUSTER);
        page.content().write(cpu, cluster.content(slot % CLUSTER).get());
        self.page_set(cpu, page, PG_UPTODATE);
    }

    /// `swap_writepage()`: begins to write a page that the caller has locked, and unlocks it.
    /// False: nobody names the slot any more, so it has left the swap cache.
    pub(super) fn swap_writepage(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        let needed = !self.try_to_free_swap(cpu, page);
        if needed {
            self.page_set(cpu, page, PG_WRITEBACK);
            if self.swap_device().config.synchronous {
                cpu.charge(Cost::SwapCopy, 1);
            }
        }
        self.unlock_page(cpu, page);
        needed
    }

    /// `end_swap_bio_write()`, `end_page_writeback()`: the device has it.
    pub(super) fn end_swap_write(&self, cpu: &P, page: PageRef<'_, P>) {
        let slot = page.private().read(cpu) as u32;
        let cluster = self.swap_device().clusters.at(cpu, slot / CLUSTER);
        cluster.content(slot % CLUSTER).set(page.content().read(cpu));
        self.page_clear(cpu, page, PG_WRITEBACK);
        cpu.wake(page.flags().word());
    }
}
