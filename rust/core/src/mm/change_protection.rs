//! `mprotect`'s walk over the page table.
//!
//! Source: `mm/mprotect.c`, v5.1.

use super::kernel::Kernel;
use super::objects::{Table, VmaRef};
use super::pgtable::MappedPmd;
use super::types::{Pte, Vaddr};
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
        self.inc_tlb_flush_pending(cpu, mm);
        let mut pages = 0;
        let mut address = start;
        while let Some(MappedPmd { pmd, mut value, from, to }) =
            self.next_pmd(cpu, mm, address, end)
        {
            address = to;
            if value.is_huge() {
                if to.since(from) == self.pmd_size() {
                    let changed = self.change_huge_pmd(cpu, mm, pmd, prot);
                    if changed != 0 {
                        pages += changed;
                        continue;
                    }
                } else {
                    self.split_huge_pmd(cpu, vma, pmd);
                }
                // Split, by this walk or by somebody else.
                value = pmd.read(cpu);
            }
            if let Some(table) = value.table() {
                pages += self.change_pte_range(cpu, table, from, to, prot, dirty_accountable);
            }
        }
        if pages != 0 {
            self.flush_tlb_mm(cpu, mm);
        }
        self.dec_tlb_flush_pending(cpu, mm);
    }

    /// `change_pte_range()`: how many PTEs changed.
    fn change_pte_range(
        &self,
        cpu: &P,
        table: Ptr<Table<P>>,
        start: Vaddr,
        end: Vaddr,
        prot: Pte,
        dirty_accountable: bool,
    ) -> u64 {
        let first = self.pte_offset_map_lock(cpu, table, start);
        let mut slot = first;
        let mut pages = 0;
        for nth in 0..end.since(start) >> self.page_shift() {
            if nth > 0 {
                slot = self.next_pte(slot);
            }
            let seen = slot.pte().read(cpu);
            if !seen.is_present() {
                if seen.migration_pfn().is_some() && seen.has(Pte::WRITE) {
                    // make_migration_entry_read: whether it may be written to is not looked into.
                    slot.pte().write(cpu, seen.without(Pte::WRITE));
                    pages += 1;
                }
                continue;
            }
            // ptep_modify_prot_start: no young or dirty bit of the hardware may be lost.
            let old = slot.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            let mut new = old.modify(prot);
            if dirty_accountable && new.has(Pte::DIRTY) {
                new |= Pte::WRITE;
            }
            slot.pte().write(cpu, new);
            pages += 1;
        }
        spin_unlock(cpu, first.ptl());
        pages
    }
}
