//! What changes the protection of PTEs: `mprotect`, and the NUMA scan.
//!
//! Source: `mm/mprotect.c`, v5.1; bracket of the scan: P10.

use super::kernel::Kernel;
use super::objects::{MmRef, Table, VmaRef};
use super::pgtable::{MappedPmd, PteSlot};
use super::types::{Pte, Vaddr, VmFlags};
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `change_protection()`: gives the PTEs of `start..end` the protection `prot` and flushes.
    /// With `dirty_accountable` a dirty page becomes writable at once.
    pub(crate) fn change_protection(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        prot: Pte,
        dirty_accountable: bool,
    ) {
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        if self.is_vm_hugetlb_page(cpu, vma) {
            return self.hugetlb_change_protection(cpu, vma, start, end, prot);
        }
        let writable = dirty_accountable.then(|| self.known_dirty(cpu, vma));
        self.inc_tlb_flush_pending(cpu, mm);
        let mut pages = 0;
        self.change_pmd_range(cpu, mm, start, end, |MappedPmd { pmd, mut value, from, to }| {
            if value.is_huge() {
                if to.since(from) == self.pmd_size() {
                    let changed = self.change_huge_pmd(cpu, mm, pmd, prot);
                    if changed != 0 {
                        pages += changed;
                        return;
                    }
                } else {
                    self.split_huge_pmd(cpu, vma, pmd);
                }
                // Split, by this walk or by somebody else.
                value = pmd.read(cpu);
            }
            if let Some(table) = value.table() {
                pages += self.change_pte_range(cpu, table, from, to, prot, writable);
            }
        });
        if pages != 0 {
            self.flush_tlb_mm(cpu, mm);
        }
        self.dec_tlb_flush_pending(cpu, mm);
    }

    /// `change_pmd_range()`: does this to each PMD that maps something. The mmu notifiers are told if
    /// there is one (5.1 tells them anew for each PUD).
    fn change_pmd_range<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        start: Vaddr,
        end: Vaddr,
        mut change: impl FnMut(MappedPmd<'k, P>),
    ) {
        let mut address = start;
        let mut notified = false;
        while let Some(found) = self.next_pmd(cpu, mm, address, end) {
            address = found.to;
            if !notified {
                self.invalidate_range_start(cpu, mm);
                notified = true;
            }
            change(found);
        }
        if notified {
            self.invalidate_range_end(cpu, mm);
        }
    }

    /// `change_prot_numa()`: makes PTEs protnone, so that the next access is seen. Caller holds
    /// `mmap_sem` for reading. Source: P10.
    pub(crate) fn change_prot_numa(&self, cpu: &P, vma: VmaRef<'_, P>, start: Vaddr, end: Vaddr) {
        let _step = cpu.step("change_prot_numa");
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        self.beside_other_readers(cpu, vma, || {
            self.inc_tlb_flush_pending(cpu, mm);
            let mut pages = 0;
            self.change_pmd_range(cpu, mm, start, end, |found| {
                if let Some(table) = found.value.table() {
                    pages += self.hint_pte_range(cpu, table, found.from, found.to);
                }
            });
            if pages != 0 {
                self.flush_tlb_mm(cpu, mm);
            }
            self.dec_tlb_flush_pending(cpu, mm);
        });
    }

    /// `change_pte_range()` with `prot_numa`, of private memory: pages that nobody else maps.
    /// DEVIATION: small anonymous ones only.
    fn hint_pte_range(&self, cpu: &P, table: Ptr<Table<P>>, start: Vaddr, end: Vaddr) -> u64 {
        let first = self.pte_offset_map_lock(cpu, table, start);
        let mut pages = 0;
        for slot in first.onwards().take(self.nr_pages(start, end)) {
            let seen = slot.pte().read(cpu);
            if seen.migration_pfn().is_some() {
                pages += u64::from(self.make_migration_entry_read(cpu, slot, seen));
                continue;
            }
            let hinted = seen.has(Pte::PROTNONE);
            let page = self.small_anon_page(cpu, seen).filter(|_| !hinted);
            if page.is_none_or(|page| self.page_is_ksm(cpu, page) || page.mapcount().read(cpu) != 1)
            {
                continue;
            }
            let old = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            // pte_mk_savedwrite
            slot.pte().write(cpu, old.modify(Pte::PROTNONE) | (old & Pte::WRITE));
            pages += 1;
        }
        spin_unlock(cpu, first.ptl());
        pages
    }

    /// `make_migration_entry_read()`: whether it was writable. Whether it may be written to is not
    /// looked into.
    fn make_migration_entry_read(&self, cpu: &P, slot: PteSlot<'_, P>, seen: Pte) -> bool {
        let was_writable = seen.has(Pte::WRITE);
        if was_writable {
            slot.pte().write(cpu, seen.without(Pte::WRITE));
        }
        was_writable
    }

    /// What PTEs of a file have whose first write is known already. Where soft-dirty pages are
    /// tracked, 5.1 looks at the wrong flag, and misses the next write.
    fn known_dirty(&self, cpu: &P, vma: VmaRef<'_, P>) -> Pte {
        let flag = vma.vm_flags().read(cpu).has(VmFlags::SOFTDIRTY);
        let tracked = self.config.arch.has_soft_dirty() && flag;
        Pte::DIRTY | if tracked { Pte::SOFT_DIRTY } else { Pte::EMPTY }
    }

    /// `change_pte_range()`: how many PTEs changed. What has all bits of `writable` becomes so.
    fn change_pte_range(
        &self,
        cpu: &P,
        table: Ptr<Table<P>>,
        start: Vaddr,
        end: Vaddr,
        prot: Pte,
        writable: Option<Pte>,
    ) -> u64 {
        let first = self.pte_offset_map_lock(cpu, table, start);
        let mut pages = 0;
        for slot in first.onwards().take(self.nr_pages(start, end)) {
            let seen = slot.pte().read(cpu);
            if !seen.is_present() {
                if seen.migration_pfn().is_some() {
                    pages += u64::from(self.make_migration_entry_read(cpu, slot, seen));
                }
                continue;
            }
            // ptep_modify_prot_start: no young or dirty bit of the hardware may be lost.
            let old = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            let mut new = old.modify(prot);
            if writable.is_some_and(|known| new & known == known) {
                new |= Pte::WRITE;
            }
            slot.pte().write(cpu, new);
            pages += 1;
        }
        spin_unlock(cpu, first.ptl());
        pages
    }
}
