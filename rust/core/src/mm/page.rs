//! Page frames: reference counts, page locks, per-CPU free lists over a shared pool.
//!
//! Source: `mm/page_alloc.c`, `include/linux/mm.h`, v5.1. Pages are single (order 0) or, in
//! `compound.rs`, huge. `node.rs` says where they come from, `docs/fidelity.md` what is left out.

use super::kernel::Kernel;
use super::node::{PerCpuPages, Placement};
use super::objects::PageRef;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{CpuId, Field, Hazard, Ordering, Platform, Ptr, Value};
use crate::sync::refcount::{atomic_dec_and_test, atomic_inc};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// Bits of `page->flags`, with the kernel's numbers.
pub(crate) const PG_LOCKED: u64 = 1 << 0;
pub(crate) const PG_UPTODATE: u64 = 1 << 2;
/// Newer than what is in its swap slot.
pub(crate) const PG_DIRTY: u64 = 1 << 3;
/// On an LRU list.
pub(crate) const PG_LRU: u64 = 1 << 4;
/// In the swap cache: `page->private` is its slot.
pub(crate) const PG_SWAPCACHE: u64 = 1 << 10;
/// A page of the hugetlb pool whose reservation is not used up yet.
pub(crate) const PG_PRIVATE: u64 = 1 << 13;
/// On its way to the swap device.
pub(crate) const PG_WRITEBACK: u64 = 1 << 15;
/// The first page of a huge page.
pub(crate) const PG_HEAD: u64 = 1 << 16;
/// Read ahead of its first use (shares its bit with `PG_reclaim`).
pub(crate) const PG_READAHEAD: u64 = 1 << 18;
/// Must be written to swap before it can go; clear for what MADV_FREE gave up.
pub(crate) const PG_SWAPBACKED: u64 = 1 << 19;
/// In a VMA that is locked in memory.
pub(crate) const PG_MLOCKED: u64 = 1 << 21;
/// `PAGE_MAPPING_ANON`, which the kernel keeps in `page->mapping`.
pub(crate) const PG_ANON: u64 = 1 << 32;
/// The page belongs to a page cache.
pub(crate) const PG_CACHE: u64 = 1 << 33;
/// Another page of a huge page (in the kernel, bit 0 of `page->compound_head`).
pub(crate) const PG_TAIL: u64 = 1 << 34;
/// The head of a page of the hugetlb pool (in the kernel, by its destructor).
pub(crate) const PG_HUGETLB: u64 = 1 << 35;
/// Charged to the memory cgroup (the kernel's `page->mem_cgroup`).
pub(crate) const PG_MEMCG: u64 = 1 << 36;
/// A page that KSM has merged, or is about to (in the kernel, `PAGE_MAPPING_KSM`).
pub(crate) const PG_KSM: u64 = 1 << 37;
/// In KSM's stable tree (in the kernel, what `page->mapping` then points to).
pub(crate) const PG_STABLE: u64 = 1 << 38;
/// Who took the last hinting fault on the page (`LAST_CPUPID`): whether anybody, on which node (the
/// kernel keeps the CPU), and the last bits of the task's number.
pub(super) const LAST_CPUPID_SET: u64 = 1 << 40;
pub(super) const LAST_NID_SHIFT: u32 = 41;
pub(super) const LAST_NID_MASK: u64 = 0x3f;
pub(super) const LAST_PID_SHIFT: u32 = 47;
pub(super) const LAST_PID_MASK: u64 = 0xff;
pub(super) const LAST_CPUPID: u64 =
    LAST_CPUPID_SET | LAST_NID_MASK << LAST_NID_SHIFT | LAST_PID_MASK << LAST_PID_SHIFT;

/// The frame of the shared page of zeroes (`empty_zero_page`).
pub(crate) const ZERO_PFN: u32 = 0;

/// How many pages move between a CPU's list and the zone at once (`zone_batchsize()`).
pub(super) fn pcp_batch(memory: u64, page_size: u64) -> u64 {
    let managed = memory / page_size;
    let quarter_mib = ((managed / 1024).min((1 << 20) / page_size) / 4).max(1);
    let half_more = quarter_mib + quarter_mib / 2;
    // One less than a power of two, against cache colouring effects.
    ((1u64 << half_more.ilog2()) - 1).max(1)
}

/// How many pages a CPU's list holds before it gives some back (`pcp->high`).
pub(super) fn pcp_high(batch: u64) -> u64 {
    6 * batch
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Sets the zero page aside.
    pub(super) fn boot_pages(&self) {
        self.pages.cover(ZERO_PFN);
        let zero = self.pages.alloc_at(ZERO_PFN);
        zero.refcount().poke(1);
        zero.flags().poke(PG_UPTODATE);
        self.zones[self.page_to_nid(zero) as usize].fresh.poke(1);
    }

    /// `alloc_page()`: a frame with one reference and undefined content (0 here, or what a
    /// stranger left, is not told apart: callers clear or copy), from where the task's policy
    /// says. `None`: out of memory.
    pub(crate) fn alloc_page(&self, cpu: &P) -> Option<PageRef<'_, P>> {
        self.alloc_page_at(cpu, self.task_placement(cpu))
    }

    /// `__alloc_pages_nodemask()`, of order 0.
    #[inline(always)]
    pub(crate) fn alloc_page_at(&self, cpu: &P, place: Placement) -> Option<PageRef<'_, P>> {
        if cpu.meets(Hazard::FailedAllocation) {
            return None;
        }
        let mine = &self.cpus[cpu.id() as usize];
        let mut list = &mine.pcp[place.first as usize];
        if list.count.get() == 0 {
            list = &mine.pcp[self.refill(cpu, place)? as usize];
        }
        let count = list.count.get() - 1;
        list.count.set(count);
        let pfn = list.pages[count as usize].get() as u32;
        let page = self.pages.alloc_at(pfn);
        page.refcount().poke(1);
        Some(page)
    }

    /// `alloc_zeroed_user_highpage_movable()`
    #[inline(always)]
    pub(crate) fn alloc_zeroed_page(&self, cpu: &P, place: Placement) -> Option<PageRef<'_, P>> {
        let page = self.alloc_page_at(cpu, place)?;
        cpu.charge(Cost::ClearPage, 1);
        page.content().initialise(cpu, 0);
        Some(page)
    }

    /// `__alloc_pages_slowpath()`, without reclaim: what other CPUs keep for themselves is the last
    /// resort.
    #[cold]
    fn refill(&self, cpu: &P, place: Placement) -> Option<u32> {
        self.get_page_from_freelist(cpu, place).or_else(|| {
            self.drain_all_pages(cpu);
            self.get_page_from_freelist(cpu, place)
        })
    }

    /// `get_page_from_freelist()`: the first node that has pages for this CPU.
    fn get_page_from_freelist(&self, cpu: &P, place: Placement) -> Option<u32> {
        let mine = &self.cpus[cpu.id() as usize];
        self.zonelist(place).find(|&node| {
            if mine.pcp[node as usize].count.get() == 0 {
                self.rmqueue_bulk(cpu, node);
            }
            mine.pcp[node as usize].count.get() != 0
        })
    }

    /// Fills this CPU's list from the zone.
    fn rmqueue_bulk(&self, cpu: &P, node: u32) {
        let mine = &self.cpus[cpu.id() as usize].pcp[node as usize];
        let zone = &self.zones[node as usize];
        spin_lock(cpu, Field::permanent(&zone.lock));
        let mut free = zone.free.lock().expect("no panic while held");
        let mut count = 0;
        while count < self.pcp_batch {
            let fresh = zone.fresh.peek();
            let pfn = if let Some(pfn) = free.pages.pop() {
                pfn
            } else if let Some(pfn) = self.nth_of_node(node, fresh) {
                zone.fresh.poke(fresh + 1);
                self.pages.cover(pfn);
                pfn
            } else if self.break_up_huge(&mut free) {
                continue;
            } else {
                break;
            };
            mine.pages[count as usize].set(u64::from(pfn));
            count += 1;
        }
        drop(free);
        mine.count.set(count);
        spin_unlock(cpu, Field::permanent(&zone.lock));
    }

    /// `drain_all_pages()`: gives back to the zones what the lists of all CPUs hold. One that
    /// works, on another thread, keeps its own. Before that come what grace periods have freed:
    /// reclaim, which the kernel tries first, takes longer than one.
    #[cold]
    pub(super) fn drain_all_pages(&self, cpu: &P) {
        cpu.expedite_rcu();
        self.run_rcu_callbacks(cpu);
        for owner in 0..self.cpus.len() as CpuId {
            if owner == cpu.id() {
                self.drain_pages(cpu, owner);
            } else if self.has_free_pages(owner) {
                cpu.while_idle(owner, || self.drain_pages(cpu, owner));
            }
        }
    }

    /// Whether there is anything in the lists of a CPU, which may be changing them.
    fn has_free_pages(&self, owner: CpuId) -> bool {
        self.cpus[owner as usize].pcp.iter().any(|list| list.count.get() != 0)
    }

    /// `drain_pages()`: the lists of one CPU, which does nothing meanwhile.
    fn drain_pages(&self, cpu: &P, owner: CpuId) {
        for (node, list) in self.cpus[owner as usize].pcp.iter().enumerate() {
            if list.count.get() != 0 {
                self.free_pcppages_bulk(cpu, node as u32, list, |_| 0);
            }
        }
    }

    /// `free_pcppages_bulk()`: gives pages of a list back to the zone, until as many are `left` of
    /// those there are as that says.
    #[cold]
    fn free_pcppages_bulk(
        &self,
        cpu: &P,
        node: u32,
        list: &PerCpuPages,
        left: impl FnOnce(u64) -> u64,
    ) {
        let zone = &self.zones[node as usize];
        spin_lock(cpu, Field::permanent(&zone.lock));
        let mut free = zone.free.lock().expect("no panic while held");
        // Only now: while this waited for the lock, the list may have been drained.
        let count = list.count.get();
        let left = left(count);
        // Last taken goes first, so that a replay hands frames out in the same order.
        for slot in (left..count).rev() {
            free.pages.push(list.pages[slot as usize].get() as u32);
        }
        drop(free);
        list.count.set(left);
        spin_unlock(cpu, Field::permanent(&zone.lock));
    }

    /// `get_page()`: one more reference. Those of a huge page are all at its head.
    #[inline(always)]
    pub(crate) fn get_page(&self, cpu: &P, page: PageRef<'_, P>) {
        atomic_inc(cpu, self.compound_head(cpu, page).refcount());
    }

    /// `get_page_unless_zero()`: one more reference, if there is any.
    pub(crate) fn get_page_unless_zero(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        let mut count = page.refcount().read(cpu);
        while count != 0 {
            match page.refcount().compare_exchange(cpu, count, count + 1, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }

    /// `page_cache_get_speculative()`: a reference to whatever the frame holds, unless it is free.
    /// It need not be what the caller has seen there.
    pub(super) fn get_frame_unless_free(&self, cpu: &P, pfn: u32) -> Option<PageRef<'_, P>> {
        let refcount = self.pages.in_slot(pfn).refcount_of_anybody();
        let mut count = refcount.read(cpu);
        while count != 0 {
            // Acquire: who has got the frame anew got it from who took it out of the page cache;
            // pairs with the AcqRel of the last reference's end.
            match refcount.compare_exchange(cpu, count, count + 1, Ordering::Acquire) {
                Ok(_) => return Some(self.page(cpu, pfn)),
                Err(now) => count = now,
            }
        }
        None
    }

    /// Drops a reference; frees the page with the last.
    pub(crate) fn put_page(&self, cpu: &P, page: PageRef<'_, P>) {
        let page = self.compound_head(cpu, page);
        if atomic_dec_and_test(cpu, page.refcount()) {
            self.free_unref_page(cpu, page);
        }
    }

    /// `free_unref_page()`: frees a page whose last reference is gone.
    pub(super) fn free_unref_page(&self, cpu: &P, page: PageRef<'_, P>) {
        if P::KEEPS_LISTS && page.flags().peek() & PG_LRU != 0 {
            self.page_cache_release(cpu, page);
        }
        if page.flags().peek() & PG_HEAD != 0 {
            return self.free_compound_page(cpu, page);
        }
        if page.mapcount().peek() != 0 {
            cpu.finding(
                "page-freed-while-mapped",
                format!("page {} has {} mappings", page.slot_index(), page.mapcount().peek()),
            );
        }
        if page.flags().peek() & PG_MEMCG != 0 {
            self.mem_cgroup_uncharge(cpu, page);
        }
        if page.flags().peek() & PG_STABLE != 0 {
            self.stable_tree_remove(cpu, page);
        }
        self.pages.kill(cpu, page);
        let node = self.page_to_nid(page);
        let mine = &self.cpus[cpu.id() as usize].pcp[node as usize];
        let count = mine.count.get();
        mine.pages[count as usize].set(u64::from(page.slot_index()));
        mine.count.set(count + 1);
        if count + 1 >= pcp_high(self.pcp_batch) {
            self.free_pcppages_bulk(cpu, node, mine, |count| count.saturating_sub(self.pcp_batch));
        }
    }

    /// `trylock_page()`: of a huge page the head is locked.
    pub(crate) fn trylock_page(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        let page = self.compound_head(cpu, page);
        let mut flags = page.flags().read(cpu);
        while flags & PG_LOCKED == 0 {
            // Acquire: what the last holder did to the page; pairs with the Release in
            // unlock_page. Another bit that changed meanwhile is no reason to fail.
            let locked = flags | PG_LOCKED;
            match page.flags().compare_exchange(cpu, flags, locked, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => flags = now,
            }
        }
        false
    }

    /// `lock_page()`: sleeps while another task holds the lock.
    pub(crate) fn lock_page(&self, cpu: &P, page: PageRef<'_, P>) {
        let page = self.compound_head(cpu, page);
        while !self.trylock_page(cpu, page) {
            cpu.sleep_until(page.flags().word(), |flags| flags & PG_LOCKED == 0);
            self.context_switch(cpu);
        }
    }

    /// The end of `context_switch()`: another task may have had the CPU, and a speculative fault goes
    /// on to look at page tables with interrupts off.
    fn context_switch(&self, cpu: &P) {
        let mm = self.current(cpu).mm.get();
        if mm != 0 {
            self.switch_mm(cpu, self.mms.get(cpu, Ptr::from_word(mm)));
        }
    }

    /// `wait_on_page_locked()`: sleeps until nobody holds the lock.
    pub(crate) fn wait_on_page_locked(&self, cpu: &P, page: PageRef<'_, P>) {
        cpu.sleep_until(page.flags().word(), |flags| flags & PG_LOCKED == 0);
    }

    /// `unlock_page()`
    pub(crate) fn unlock_page(&self, cpu: &P, page: PageRef<'_, P>) {
        let page = self.compound_head(cpu, page);
        // Release: pairs with the Acquire in trylock_page. Nobody else clears the bit.
        let flags = page.flags().fetch_add(cpu, -(PG_LOCKED as i64), Ordering::Release);
        if flags & PG_LOCKED == 0 {
            cpu.finding("lock-balance", format!("page {} was not locked", page.slot_index()));
        }
        cpu.wake(page.flags().word());
    }

    /// Whether one of the bits `which` of `page->flags` is set (`PageSwapCache()` and so on).
    #[inline(always)]
    pub(crate) fn page_test(&self, cpu: &P, page: PageRef<'_, P>, which: u64) -> bool {
        page.flags().read(cpu) & which != 0
    }

    /// `SetPageDirty()` and so on: sets the bits `which` atomically.
    pub(crate) fn page_set(&self, cpu: &P, page: PageRef<'_, P>, which: u64) {
        self.change_page_flags(cpu, page, which, 0);
    }

    /// `ClearPageDirty()`, `TestClearPageReadahead()` and so on: clears the bits `which`
    /// atomically. Returns which of them were set.
    pub(crate) fn page_clear(&self, cpu: &P, page: PageRef<'_, P>, which: u64) -> u64 {
        self.change_page_flags(cpu, page, 0, which) & which
    }

    /// `page_cpupid_xchg_last()`
    pub(super) fn page_cpupid_xchg_last(&self, cpu: &P, page: PageRef<'_, P>, new: u64) -> u64 {
        self.change_page_flags(cpu, page, new, LAST_CPUPID & !new) & LAST_CPUPID
    }

    /// Sets and clears bits of `page->flags` in one atomic operation; returns what they were.
    fn change_page_flags(&self, cpu: &P, page: PageRef<'_, P>, set: u64, clear: u64) -> u64 {
        let mut flags = page.flags().read(cpu);
        loop {
            let changed = (flags | set) & !clear;
            if changed == flags {
                return flags;
            }
            match page.flags().compare_exchange(cpu, flags, changed, Ordering::Relaxed) {
                Ok(_) => return flags,
                Err(now) => flags = now,
            }
        }
    }

    /// `page_ref_freeze()`: takes the last `count` references at once, or none. While the count
    /// is 0 nobody can take one.
    pub(crate) fn page_ref_freeze(&self, cpu: &P, page: PageRef<'_, P>, count: u64) -> bool {
        // AcqRel: what all holders did happens before, as in atomic_dec_and_test.
        page.refcount().compare_exchange(cpu, count, 0, Ordering::AcqRel).is_ok()
    }

    /// `PageAnon()`: of a huge page its head knows.
    #[inline(always)]
    pub(crate) fn page_is_anon(&self, cpu: &P, page: PageRef<'_, P>) -> bool {
        self.compound_head(cpu, page).flags().read(cpu) & PG_ANON != 0
    }
}
