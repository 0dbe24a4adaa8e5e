//! Taking pages out of page tables: munmap, MADV_DONTNEED, truncation, exit.
//!
//! Source: `mm/memory.c`, v5.1; bracket: P09.

use std::ops::Range;

use super::gather::MmuGather;
use super::kernel::Kernel;
use super::objects::{Table, VmaRef};
use super::page::{PG_CACHE, ZERO_PFN};
use super::pgtable::MappedPmd;
use super::rmap::Rss;
use super::truncate::ZapDetails;
use super::types::{Pte, Vaddr};
use super::variants::Variant;
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `unmap_vmas()`: zaps `start..end` in the VMAs from `first` on.
    pub(crate) fn unmap_vmas(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        first: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) {
        let mm = tlb.mm();
        self.invalidate_range_start(cpu, mm);
        let mut cursor = Some(first);
        while let Some(vma) = cursor {
            let vm_start = vma.vm_start().read(cpu);
            if vm_start >= end {
                break;
            }
            let from = start.max(vm_start);
            let to = end.min(vma.vm_end().read(cpu));
            if from < to {
                // unmap_single_vma
                if self.is_vm_hugetlb_page(cpu, vma) {
                    self.unmap_hugepage_range(cpu, tlb, vma, from, to);
                } else {
                    self.unmap_page_range(cpu, tlb, vma, from, to, None);
                }
            }
            cursor = self.vmas.get_opt(cpu, vma.vm_next().read(cpu));
        }
        self.invalidate_range_end(cpu, mm);
    }

    /// `zap_page_range()`: zaps part of a VMA that stays, as MADV_DONTNEED does. Caller holds
    /// `mmap_sem` at least for reading.
    pub(crate) fn zap_page_range(&self, cpu: &P, vma: VmaRef<'_, P>, start: Vaddr, end: Vaddr) {
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        self.lru_add_drain(cpu);
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        self.invalidate_range(cpu, mm, || {
            self.unmap_page_range(cpu, &mut tlb, vma, start, end, None);
        });
        self.tlb_finish_mmu(cpu, tlb);
    }

    /// `unmap_page_range()`
    pub(super) fn unmap_page_range(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        details: Option<ZapDetails>,
    ) {
        let _step = cpu.step("unmap_page_range");
        self.beside_other_readers(cpu, vma, || {
            let mut address = start;
            while let Some(found) = self.next_pmd(cpu, tlb.mm(), address, end) {
                address = found.to;
                self.zap_pmd(cpu, tlb, vma, found, details);
            }
        });
    }

    /// What a writer does to the PTEs of `vma` that may hold `mmap_sem` for reading only. P09 and
    /// P10 bump all the same; the cure of B1 relies on the node test and the PTE lock instead.
    #[inline(always)]
    pub(super) fn beside_other_readers(&self, cpu: &P, vma: VmaRef<'_, P>, write: impl FnOnce()) {
        let bump = self.v12(Variant::B1);
        if bump {
            D::vm_write_begin(cpu, vma);
        }
        write();
        if bump {
            D::vm_write_end(cpu, vma);
        }
    }

    /// One round of `zap_pmd_range()`.
    #[inline(always)]
    fn zap_pmd(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        vma: VmaRef<'_, P>,
        found: MappedPmd<'_, P>,
        details: Option<ZapDetails>,
    ) {
        let MappedPmd { pmd, mut value, from, to } = found;
        if value.is_huge() {
            if to.since(from) == self.pmd_size() {
                if self.zap_huge_pmd(cpu, tlb, pmd) {
                    return;
                }
            } else {
                self.split_huge_pmd(cpu, vma, pmd);
            }
            value = pmd.read(cpu);
        }
        // pmd_none_or_trans_huge_or_clear_bad: beside another MADV_DONTNEED or a fault it may be
        // none, or huge again, and what they do counts as done later.
        if let Some(table) = value.table() {
            self.zap_pte_range(cpu, tlb, table, from..to, details);
        }
    }

    /// `zap_pte_range()`
    fn zap_pte_range(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        table: Ptr<Table<P>>,
        range: Range<Vaddr>,
        details: Option<ZapDetails>,
    ) {
        let first = self.pte_offset_map_lock(cpu, table, range.start);
        for slot in first.onwards().take(self.nr_pages(range.start, range.end)) {
            let seen = slot.pte().read(cpu);
            if seen.is_none() {
                continue;
            }
            if details.is_some_and(|details| self.is_spared(cpu, seen, details)) {
                continue;
            }
            if let Some(entry) = seen.swap_slot() {
                // No translation of it exists, and nobody changes it without the lock.
                self.add_mm_counter(cpu, tlb.mm(), Rss::Swap, -1);
                self.free_swap_and_cache(cpu, entry);
                slot.pte().write(cpu, Pte::EMPTY);
                continue;
            }
            if seen.migration_pfn().is_some() {
                // Whoever moves the page finds no entry to put back.
                self.add_mm_counter(cpu, tlb.mm(), Rss::Anon, -1);
                slot.pte().write(cpu, Pte::EMPTY);
                continue;
            }
            // ptep_get_and_clear: atomic, for the hardware sets young and dirty bits.
            let pte = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            tlb.remove_tlb_entry();
            if pte.is_present() && pte.pfn() != ZERO_PFN {
                cpu.charge(Cost::ZapPage, 1);
                let page = self.page(cpu, pte.pfn());
                self.page_remove_rmap(cpu, tlb.mm(), page);
                tlb.remove_page(page.ptr());
            }
        }
        spin_unlock(cpu, first.ptl());
    }

    /// Whether truncation leaves what a PTE says: a private copy, if it is not after those; and
    /// whatever is not present, even the swap entry of a copy (5.1 does so).
    fn is_spared(&self, cpu: &P, pte: Pte, details: ZapDetails) -> bool {
        if !pte.is_present() {
            return true;
        }
        !details.even_cows && !self.page_test(cpu, self.page(cpu, pte.pfn()), PG_CACHE)
    }
}
