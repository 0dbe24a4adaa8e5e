//! The swap device: which of its slots are in use, and by how many PTEs.
//!
//! `swap_map` has a word for each slot: how many PTEs (of all address spaces) name it, and whether
//! its page is in the swap cache. Slot 0 is the header. A slot is free when its word is 0.
//!
//! Source: `mm/swapfile.c`, v5.1. DEVIATION: one device with one lock; slots are handed out one
//! after another, without clusters and caches of each CPU, so that who gets which slot depends on
//! nothing but the order of the requests. Counts do not overflow into continuation pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kernel::{Config, Kernel};
use super::objects::PageRef;
use super::page::{PG_DIRTY, PG_SWAPCACHE, PG_WRITEBACK};
use super::swap_objects::{SwapCluster, SwapInfo, SwapStatics, SwapperSpace};
use crate::design::Design;
use crate::platform::arena::Lines;
use crate::platform::{Arena, Field, Ordering, Platform, Ref};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// Bit of a `swap_map` word: the slot's page is in the swap cache, or about to be.
pub(super) const SWAP_HAS_CACHE: u64 = 1 << 32;
/// `swapin_readahead_hits` at boot.
const FIRST_READAHEAD_HITS: u64 = 4;
/// Slots of one object that is made on demand.
pub(super) const CLUSTER: u32 = 64;
/// log2 of the slots whose swap cache has one lock (`SWAP_ADDRESS_SPACE_SHIFT`).
const SPACE_SHIFT: u32 = 14;

/// `system.swap` of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapConfig {
    /// Bytes; the first page holds no data.
    pub size: u64,
    /// `SWP_SYNCHRONOUS_IO`: the CPU itself reads and writes it, as with zram.
    pub synchronous: bool,
    /// The most pages that one read brings in, if `vm.page-cluster` allows as many.
    pub readahead: u64,
    /// Reads around an address (true), or around a slot, as on a disk that turns:
    /// `/sys/kernel/mm/swap/vma_ra_enabled`.
    pub vma_ra_enabled: bool,
}

/// The device of one system.
pub struct Swap<P: Platform> {
    pub(super) config: SwapConfig,
    /// Slots, the header's included.
    pub(super) max: u32,
    info: Arena<SwapInfo<P>>,
    statics: Arena<SwapStatics<P>>,
    spaces: Arena<SwapperSpace<P>>,
    pub(super) clusters: Arena<SwapCluster<P>>,
}

impl<P: Platform> Swap<P> {
    /// The device of a system, if it has one.
    pub(super) fn new(lines: &Arc<Lines>, config: &Config) -> Option<Self> {
        let swap = config.system.swap.as_ref()?;
        Some(Self {
            config: swap.clone(),
            max: (swap.size >> config.arch.page_shift) as u32,
            info: Arena::new(lines, 0),
            statics: Arena::new(lines, 0),
            spaces: Arena::new(lines, 0),
            clusters: Arena::new(lines, CLUSTER),
        })
    }

    /// `swapon`: every slot is free.
    pub(super) fn reset(&self) {
        self.info.reset();
        self.statics.reset();
        self.spaces.reset();
        self.clusters.reset();
        self.info.alloc().cluster_next().poke(1);
        let statics = self.statics.alloc();
        statics.nr_swap_pages().poke(self.nr_slots());
        statics.swapin_readahead_hits().poke(FIRST_READAHEAD_HITS);
        for _ in 0..=self.max >> SPACE_SHIFT {
            self.spaces.alloc();
        }
    }

    /// `total_swap_pages`
    fn nr_slots(&self) -> u64 {
        u64::from(self.max.saturating_sub(1))
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// The device that a swap entry speaks of.
    pub(super) fn swap_device(&self) -> &Swap<P> {
        self.swap.as_ref().expect("a swap entry without a device")
    }
    fn swap_info(&self, cpu: &P) -> Ref<'_, SwapInfo<P>> {
        self.swap_device().info.at(cpu, 0)
    }
    pub(super) fn swap_statics(&self, cpu: &P) -> Ref<'_, SwapStatics<P>> {
        self.swap_device().statics.at(cpu, 0)
    }
    /// The lock of the part of the swap cache that `slot` is in (`swap_address_space()`).
    pub(super) fn swap_cache_lock(&self, cpu: &P, slot: u32) -> Field<'_, P, u64> {
        self.swap_device().spaces.at(cpu, slot >> SPACE_SHIFT).i_pages_lock()
    }

    /// The `swap_map` word of a slot that was handed out before.
    fn swap_map(&self, cpu: &P, slot: u32) -> Field<'_, P, u64> {
        self.swap_device().clusters.at(cpu, slot / CLUSTER).swap_map(slot % CLUSTER)
    }

    /// `SWP_SYNCHRONOUS_IO`
    pub(crate) fn swap_is_synchronous(&self) -> bool {
        self.swap_device().config.synchronous
    }

    /// `vm_swap_full()`: more than half is in use.
    pub(crate) fn vm_swap_full(&self, cpu: &P) -> bool {
        self.swap_statics(cpu).nr_swap_pages().read(cpu) * 2 < self.swap_device().nr_slots()
    }

    /// `get_swap_page()`: a slot that belongs to the swap cache alone. `None`: swap is full.
    pub(super) fn get_swap_page(&self, cpu: &P) -> Option<u32> {
        let left = self.swap_statics(cpu).nr_swap_pages();
        let mut avail = left.read(cpu);
        loop {
            let fewer = avail.checked_sub(1)?;
            match left.compare_exchange(cpu, avail, fewer, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => avail = now,
            }
        }
        let slot = self.scan_swap_map(cpu);
        if slot.is_none() {
            left.fetch_add(cpu, 1, Ordering::Relaxed);
        }
        slot
    }

    /// `scan_swap_map_slots()`: the next free slot, from where the last was found. When more than
    /// half is in use, a slot whose page is in memory and which no PTE names is free as well.
    fn scan_swap_map(&self, cpu: &P) -> Option<u32> {
        let swap = self.swap_device();
        let info = self.swap_info(cpu);
        spin_lock(cpu, info.lock());
        let first = info.cluster_next().read(cpu) as u32;
        let mut found = None;
        for offset in (first..swap.max).chain(1..first) {
            if self.claim_slot(cpu, info, offset) {
                info.cluster_next().write(cpu, u64::from(offset) + 1);
                found = Some(offset);
                break;
            }
        }
        spin_unlock(cpu, info.lock());
        found
    }

    /// Takes the slot if it is free. Caller holds the device's lock, which is dropped in between.
    fn claim_slot(&self, cpu: &P, info: Ref<'_, SwapInfo<P>>, slot: u32) -> bool {
        let clusters = &self.swap_device().clusters;
        if clusters.peek(slot / CLUSTER).is_none() {
            clusters.cover(slot / CLUSTER);
            clusters.alloc_at(slot / CLUSTER);
        }
        let map = self.swap_map(cpu, slot);
        if map.read(cpu) == SWAP_HAS_CACHE && self.vm_swap_full(cpu) {
            spin_unlock(cpu, info.lock());
            self.try_to_reclaim_swap(cpu, slot, true);
            spin_lock(cpu, info.lock());
        }
        let free = map.read(cpu) == 0;
        if free {
            map.write(cpu, SWAP_HAS_CACHE);
            let inuse = info.inuse_pages();
            inuse.write(cpu, inuse.read(cpu) + 1);
        }
        free
    }

    /// `swap_duplicate()`: one more PTE names the slot.
    pub(crate) fn swap_duplicate(&self, cpu: &P, slot: u32) {
        self.change_swap_map(cpu, slot, |count| (count != 0).then_some(count + 1));
    }

    /// `swapcache_prepare()`: the caller will put the slot's page into the swap cache. Errors:
    /// `Exists` where it is there already, or somebody else is about to; `Obsolete` where no PTE
    /// names the slot any more.
    pub(crate) fn swapcache_prepare(&self, cpu: &P, slot: u32) -> Result<(), NoCache> {
        let lock = self.swap_info(cpu).lock();
        spin_lock(cpu, lock);
        let map = self.swap_map(cpu, slot);
        let count = map.read(cpu);
        let result = if count & SWAP_HAS_CACHE != 0 {
            Err(NoCache::Exists)
        } else if count == 0 {
            Err(NoCache::Obsolete)
        } else {
            map.write(cpu, count | SWAP_HAS_CACHE);
            Ok(())
        };
        spin_unlock(cpu, lock);
        result
    }

    /// Waits while the slot is marked and its page is not in the swap cache: whoever marked it is
    /// about to put it there, or reads it past the cache.
    pub(crate) fn wait_for_swap_slot(&self, cpu: &P, slot: u32) {
        let map = self.swap_map(cpu, slot);
        while map.read(cpu) & SWAP_HAS_CACHE != 0 && !self.is_in_swap_cache(cpu, slot) {}
    }

    /// `swap_free()`: one PTE less names the slot.
    pub(crate) fn swap_free(&self, cpu: &P, slot: u32) {
        self.swap_entry_free(cpu, slot, 1);
    }

    /// `put_swap_page()`: the slot's page is no longer in the swap cache.
    pub(crate) fn put_swap_page(&self, cpu: &P, slot: u32) {
        self.swap_entry_free(cpu, slot, SWAP_HAS_CACHE);
    }

    /// `free_swap_and_cache()`: a PTE that named the slot is gone for good; with the last one the
    /// page leaves the swap cache as well, unless somebody has it locked.
    pub(crate) fn free_swap_and_cache(&self, cpu: &P, slot: u32) {
        if self.swap_entry_free(cpu, slot, 1) == SWAP_HAS_CACHE {
            self.try_to_reclaim_swap(cpu, slot, false);
        }
    }

    /// `__swap_entry_free()`: what is left of the slot's word; with nothing left it is free.
    fn swap_entry_free(&self, cpu: &P, slot: u32, usage: u64) -> u64 {
        let freed = self.change_swap_map(cpu, slot, |count| {
            let held =
                if usage == SWAP_HAS_CACHE { count & usage } else { count & !SWAP_HAS_CACHE };
            (held != 0).then(|| count - usage)
        });
        if freed == 0 {
            self.swap_statics(cpu).nr_swap_pages().fetch_add(cpu, 1, Ordering::Relaxed);
        }
        freed
    }

    /// Changes the word of a slot under the device's lock; a change that cannot be is a finding.
    fn change_swap_map(&self, cpu: &P, slot: u32, change: impl Fn(u64) -> Option<u64>) -> u64 {
        let info = self.swap_info(cpu);
        spin_lock(cpu, info.lock());
        let map = self.swap_map(cpu, slot);
        let count = map.read(cpu);
        let Some(changed) = change(count) else {
            cpu.finding("swap-count", format!("slot {slot} is used with count {count:#x}"));
        };
        map.write(cpu, changed);
        if changed == 0 {
            let inuse = info.inuse_pages();
            inuse.write(cpu, inuse.read(cpu) - 1);
        }
        spin_unlock(cpu, info.lock());
        changed
    }

    /// `__swap_count()`: how many PTEs name the slot, as far as can be told without the lock.
    pub(crate) fn swap_count(&self, cpu: &P, slot: u32) -> u64 {
        self.swap_map(cpu, slot).read(cpu) & !SWAP_HAS_CACHE
    }

    /// Whether any PTE names the slot, which need not ever have been used (`__swp_swapcount()`).
    pub(super) fn slot_is_used(&self, cpu: &P, slot: u32) -> bool {
        let known = self.swap_device().clusters.peek(slot / CLUSTER).is_some();
        known && self.swap_count(cpu, slot) != 0
    }

    /// `page_swapcount()`: how many PTEs name the slot of a page that is in the swap cache and
    /// that the caller has locked.
    pub(super) fn page_swapcount(&self, cpu: &P, page: PageRef<'_, P>) -> u64 {
        let lock = self.swap_info(cpu).lock();
        spin_lock(cpu, lock);
        let count = self.swap_count(cpu, page.private().read(cpu) as u32);
        spin_unlock(cpu, lock);
        count
    }

    /// `__try_to_reclaim_swap()`: frees a slot that only the swap cache holds, if the page is not
    /// locked and not mapped, or (`anyway`) mapped too.
    fn try_to_reclaim_swap(&self, cpu: &P, slot: u32, anyway: bool) {
        let Some(page) = self.find_swap_cache(cpu, slot) else { return };
        if self.trylock_page(cpu, page) {
            let unused = anyway || page.mapcount().read(cpu) == 0 || self.vm_swap_full(cpu);
            if unused {
                self.try_to_free_swap(cpu, page);
            }
            self.unlock_page(cpu, page);
        }
        self.put_page(cpu, page);
    }

    /// `try_to_free_swap()`: takes a page out of the swap cache if no PTE names its slot. Caller
    /// has locked it.
    pub(crate) fn try_to_free_swap(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        let flags = page.flags().read(cpu);
        if flags & PG_SWAPCACHE == 0
            || flags & PG_WRITEBACK != 0
            || self.page_swapcount(cpu, page) != 0
        {
            return false;
        }
        self.delete_from_swap_cache(cpu, page);
        self.page_set(cpu, page, PG_DIRTY);
        true
    }

    /// `free_swap_cache()`: for a page whose mapping is gone, before its reference is dropped.
    pub(crate) fn free_swap_cache(&self, cpu: &P, page: PageRef<'_, P>) {
        if !self.page_in_swap_cache(cpu, page) {
            return;
        }
        if page.mapcount().read(cpu) == 0 && self.trylock_page(cpu, page) {
            self.try_to_free_swap(cpu, page);
            self.unlock_page(cpu, page);
        }
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// What is wrong with the device at rest; `swapped` are the PTEs that name each slot.
    pub(super) fn check_swap_map(&self, swapped: &BTreeMap<u32, u64>) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(swap) = &self.swap else { return wrong };
        let mut in_use = 0;
        for slot in 1..swap.clusters.used() * CLUSTER {
            let Some(cluster) = swap.clusters.peek(slot / CLUSTER) else { continue };
            let map = cluster.swap_map(slot % CLUSTER).peek();
            let cached = cluster.cache(slot % CLUSTER).peek();
            in_use += u64::from(map != 0);
            let named = swapped.get(&slot).copied().unwrap_or(0);
            if map & !SWAP_HAS_CACHE != named {
                let counted = map & !SWAP_HAS_CACHE;
                wrong.push(format!("slot {slot}: {counted} counted, {named} PTEs"));
            }
            if (map & SWAP_HAS_CACHE != 0) != (cached != 0) {
                wrong.push(format!("slot {slot}: map {map:#x}, page {cached:#x} in the cache"));
            }
            let page = cached.checked_sub(1).and_then(|pfn| self.pages.peek(pfn as u32));
            let is_its_own = |page: PageRef<'_, P>| {
                let in_cache = page.flags().peek() & PG_SWAPCACHE != 0;
                in_cache && page.private().peek() == u64::from(slot)
            };
            if cached != 0 && !page.is_some_and(is_its_own) {
                wrong.push(format!("slot {slot}: page {} in the cache is not its own", cached - 1));
            }
        }
        let info = swap.info.peek(0).map_or(0, |info| info.inuse_pages().peek());
        let free = swap.statics.peek(0).map_or(0, |statics| statics.nr_swap_pages().peek());
        if (info, free + in_use) != (in_use, swap.nr_slots()) {
            wrong.push(format!("{info} slots counted as used, {free} as free, {in_use} are used"));
        }
        wrong
    }
}

/// Why a slot's page cannot be brought into the swap cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoCache {
    /// It is there, or on its way.
    Exists,
    /// No PTE names the slot any more.
    Obsolete,
}

#[cfg(test)]
#[path = "../../tests/unit/mm/swap.rs"]
mod tests;
