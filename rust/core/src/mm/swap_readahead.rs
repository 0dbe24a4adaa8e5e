//! Swap readahead: what a swap-in reads besides the page that it is for.
//!
//! Two kinds. Around the *address*, in what the page table names near it: each VMA remembers
//! where its last swap-in was, how much that read, and how much of it was used. Around the
//! *slot*, on a disk that turns: one memory for the whole system. `vm.page-cluster` bounds both.
//!
//! Source: `mm/swap_state.c`, v5.1.

use super::kernel::Kernel;
use super::objects::{PageRef, VmaRef};
use super::page::PG_READAHEAD;
use super::pmd::Pmd;
use super::types::Vaddr;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Ordering, Platform};

/// `SWAP_RA_ORDER_CEILING` of 64-bit machines.
const SWAP_RA_ORDER_CEILING: u64 = 5;
/// Hits that a VMA begins with.
const FIRST_HITS: u64 = 4;

/// The swap-in that is read ahead of.
pub(crate) struct SwapIn<'k, P: Platform> {
    pub slot: u32,
    pub vma: VmaRef<'k, P>,
    pub address: Vaddr,
    pub pmd: Pmd<'k, P>,
}

/// Reads that have begun: their pages are in the swap cache, locked. Whoever begins them ends them
/// with [`Kernel::finish_reads`], in place of the device's interrupt.
#[must_use = "the pages stay locked until the reads are finished"]
pub(crate) struct SwapReads<'k, P: Platform>(Vec<(PageRef<'k, P>, u32)>);

impl<P: Platform> SwapReads<'_, P> {
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }
}

/// What a VMA remembers: `SWAP_RA_VAL`, one word of address, window and hits.
struct ReadaheadInfo {
    address: Vaddr,
    win: u64,
    hits: u64,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `swapin_readahead()`: begins to read the page and what comes with it. `None`: no memory, or
    /// nobody names the slot any more.
    pub(crate) fn swapin_readahead<'k>(
        &'k self,
        cpu: &P,
        fault: &SwapIn<'k, P>,
        reads: &mut SwapReads<'k, P>,
    ) -> Option<PageRef<'k, P>> {
        let _step = cpu.step("swapin_readahead");
        let win = if self.swap_use_vma_readahead() {
            self.swap_vma_readahead(cpu, fault, reads)
        } else {
            self.swap_cluster_readahead(cpu, fault.slot, reads)
        };
        self.read_swap_cache_async(cpu, fault.slot, win <= 1, reads)
    }

    /// `swap_use_vma_readahead()`
    fn swap_use_vma_readahead(&self) -> bool {
        self.swap_device().config.vma_ra_enabled
    }

    /// `swap_vma_readahead()`: what the PTEs around the address name. Returns the window.
    fn swap_vma_readahead<'k>(
        &'k self,
        cpu: &P,
        fault: &SwapIn<'k, P>,
        reads: &mut SwapReads<'k, P>,
    ) -> u64 {
        let Some((win, start, end)) = self.swap_ra_window(cpu, fault) else { return 1 };
        let shift = self.page_shift();
        let this = fault.address.0 >> shift;
        if !(start..end).contains(&this) {
            // A2: the VMA's bounds are those of another state than the one the fault saw.
            let what = format!("pages {start:#x}..{end:#x} around page {this:#x}");
            cpu.finding("readahead-window", what);
        }
        let Some(table) = fault.pmd.read(cpu).table() else { return win };
        let ptes = self.pte_offset_map(cpu, table, Vaddr(start << shift)).onwards();
        for (page, pte) in (start..end).zip(ptes) {
            if let Some(slot) = pte.pte().read(cpu).swap_slot() {
                self.read_ahead(cpu, slot, page != this, reads);
            }
        }
        win
    }

    /// `swap_ra_info()`: how many pages, and from where to where. `None`: only the page itself.
    fn swap_ra_window(&self, cpu: &P, fault: &SwapIn<'_, P>) -> Option<(u64, u64, u64)> {
        let max_win = self.max_window(cpu, SWAP_RA_ORDER_CEILING);
        if max_win == 1 {
            return None;
        }
        let shift = self.page_shift();
        let last = self.readahead_info(cpu, fault.vma);
        let (this, prev) = (fault.address.0 >> shift, last.address.0 >> shift);
        let win = window(prev, this, last.hits, max_win, last.win);
        self.set_readahead_info(
            cpu,
            fault.vma,
            &ReadaheadInfo { address: fault.address, win, hits: 0 },
        );
        if win == 1 {
            return None;
        }
        let (low, high) = if this == prev + 1 {
            (this, this + win)
        } else if prev == this + 1 {
            ((this + 1).saturating_sub(win), this + 1)
        } else {
            let left = (win - 1) / 2;
            (this.saturating_sub(left), this + win - left)
        };
        // swap_ra_clamp_pfn: within the VMA and its page table.
        let table = fault.address.0 & !(self.pmd_size() - 1);
        let start = low.max(fault.vma.vm_start().read(cpu).0 >> shift).max(table >> shift);
        let vm_end = fault.vma.vm_end().read(cpu).0 >> shift;
        let end = high.min(vm_end).min((table + self.pmd_size()) >> shift);
        Some((win, start, end))
    }

    /// `swap_cluster_readahead()`: the slots around. Returns the window.
    fn swap_cluster_readahead<'k>(
        &'k self,
        cpu: &P,
        slot: u32,
        reads: &mut SwapReads<'k, P>,
    ) -> u64 {
        let win = self.swapin_nr_pages(cpu, slot);
        if win > 1 {
            let mask = win - 1;
            let first = (u64::from(slot) & !mask).max(1);
            let last = (u64::from(slot) | mask).min(u64::from(self.swap_device().max) - 1);
            for offset in first..=last {
                self.read_ahead(cpu, offset as u32, offset != u64::from(slot), reads);
            }
        }
        win
    }

    /// `swapin_nr_pages()`: by how much of the last readahead was used, over all address spaces.
    fn swapin_nr_pages(&self, cpu: &P, slot: u32) -> u64 {
        let max_pages = self.max_window(cpu, 31);
        if max_pages <= 1 {
            return 1;
        }
        let statics = self.swap_statics(cpu);
        let hits = statics.swapin_readahead_hits().swap(cpu, 0, Ordering::Relaxed);
        let prev = statics.prev_offset().read(cpu);
        let last = statics.last_readahead_pages().read(cpu);
        let pages = window(prev, u64::from(slot), hits, max_pages, last);
        if hits == 0 {
            statics.prev_offset().write(cpu, u64::from(slot));
        }
        statics.last_readahead_pages().write(cpu, pages);
        pages
    }

    /// The largest window: a power of two.
    fn max_window(&self, cpu: &P, ceiling: u64) -> u64 {
        let page_cluster = cpu.load(&self.sysctl_page_cluster, Ordering::Relaxed);
        let most = self.swap_device().config.readahead.max(1);
        (1 << page_cluster.min(ceiling)).min(1 << most.ilog2())
    }

    /// Reads one slot ahead, if it is used and not in memory.
    fn read_ahead<'k>(&'k self, cpu: &P, slot: u32, is_extra: bool, reads: &mut SwapReads<'k, P>) {
        // The kernel looks under the device's lock, and allocates a page first.
        if !self.slot_is_used(cpu, slot) {
            return;
        }
        let Some((page, fresh)) = self.swap_cache_alloc(cpu, slot) else { return };
        if fresh {
            self.swap_readpage(cpu, page, slot, false, reads);
            if is_extra {
                self.page_set(cpu, page, PG_READAHEAD);
            }
        }
        self.put_page(cpu, page);
    }

    /// `read_swap_cache_async()`: the page of a slot with a reference; a read of it may be on its
    /// way. `do_poll`: one that begins here is over on return.
    pub(crate) fn read_swap_cache_async<'k>(
        &'k self,
        cpu: &P,
        slot: u32,
        do_poll: bool,
        reads: &mut SwapReads<'k, P>,
    ) -> Option<PageRef<'k, P>> {
        let (page, fresh) = self.swap_cache_alloc(cpu, slot)?;
        if fresh {
            self.swap_readpage(cpu, page, slot, do_poll, reads);
        }
        Some(page)
    }

    /// `swap_readpage()`: begins to read a page that the caller has locked. A synchronous device
    /// is through at once.
    fn swap_readpage<'k>(
        &'k self,
        cpu: &P,
        page: PageRef<'k, P>,
        slot: u32,
        do_poll: bool,
        reads: &mut SwapReads<'k, P>,
    ) {
        if self.swap_device().config.synchronous {
            cpu.charge(Cost::SwapCopy, 1);
            self.end_swap_read(cpu, page, slot);
            return;
        }
        reads.0.push((page, slot));
        if do_poll {
            self.finish_reads(cpu, reads);
        }
    }

    /// Waits for the device, which unlocks the pages: they are read together.
    pub(crate) fn finish_reads(&self, cpu: &P, reads: &mut SwapReads<'_, P>) {
        if reads.0.is_empty() {
            return;
        }
        cpu.wait_for_io(&[(Cost::SwapIo, 1), (Cost::SwapTransfer, reads.0.len() as u64)]);
        for (page, slot) in reads.0.drain(..) {
            self.end_swap_read(cpu, page, slot);
        }
    }

    /// The second half of `lookup_swap_cache()`.
    pub(super) fn note_swap_hit(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr, hit: bool) {
        if self.swap_use_vma_readahead() {
            let last = self.readahead_info(cpu, vma);
            let hits = (last.hits + u64::from(hit)).min(self.readahead_mask());
            self.set_readahead_info(cpu, vma, &ReadaheadInfo { address, win: last.win, hits });
        } else if hit {
            let hits = self.swap_statics(cpu).swapin_readahead_hits();
            hits.fetch_add(cpu, 1, Ordering::Relaxed);
        }
    }

    /// `SWAP_RA_HITS_MASK`: window and hits share the bits below the page number.
    fn readahead_mask(&self) -> u64 {
        (1 << (self.page_shift() / 2)) - 1
    }

    fn readahead_info(&self, cpu: &P, vma: VmaRef<'_, P>) -> ReadaheadInfo {
        let word = match vma.swap_readahead_info().read(cpu) {
            0 => FIRST_HITS,
            word => word,
        };
        let mask = self.readahead_mask();
        ReadaheadInfo {
            address: Vaddr(word & !(self.page_size() - 1)),
            win: word >> (self.page_shift() / 2) & mask,
            hits: word & mask,
        }
    }

    fn set_readahead_info(&self, cpu: &P, vma: VmaRef<'_, P>, info: &ReadaheadInfo) {
        let win = info.win << (self.page_shift() / 2);
        vma.swap_readahead_info().write(cpu, info.address.0 | win | info.hits);
    }
}

/// `__swapin_nr_pages()`: how many pages to read, by how many were of use last time.
fn window(prev: u64, this: u64, hits: u64, max_pages: u64, last_pages: u64) -> u64 {
    let pages = if hits == 0 {
        // Nothing to judge by: only the next or the one before goes on.
        if this == prev.wrapping_add(1) || this == prev.wrapping_sub(1) { 2 } else { 1 }
    } else {
        (hits + 2).next_power_of_two()
    };
    // Not to shrink too fast.
    pages.min(max_pages).max(last_pages / 2)
}

#[cfg(test)]
#[path = "../../tests/unit/mm/swap_readahead.rs"]
mod tests;
