//! What munmap, mprotect, fork and mremap do with the PMD of a transparent huge page.
//!
//! Source: `mm/huge_memory.c`, v5.1.

use super::gather::MmuGather;
use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use super::pmd::{Pmd, PmdVal};
use super::rmap::Rss;
use super::types::{Errno, Pte};
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{Ordering, Platform};
use crate::sync::spinlock::{spin_lock, spin_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `zap_huge_pmd()`: takes the whole huge page out. False: it is none any more.
    pub(super) fn zap_huge_pmd(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        pmd: Pmd<'_, P>,
    ) -> bool {
        let Some(_) = self.pmd_trans_huge_lock(cpu, pmd) else { return false };
        let leaf = self.leaf_of(pmd_get_and_clear(cpu, pmd));
        tlb.remove_tlb_entry();
        if !self.is_huge_zero(leaf) {
            cpu.charge(Cost::ZapPage, 1);
            let head = self.page(cpu, leaf.pfn());
            self.page_remove_huge_rmap(cpu, head);
            let nr_pages = i64::from(self.hpage_pmd_nr());
            self.add_mm_counter(cpu, tlb.mm(), Rss::Anon, -nr_pages);
            tlb.remove_page(head.ptr());
        }
        self.zap_deposited_table(cpu, tlb.mm(), pmd);
        spin_unlock(cpu, pmd.ptl());
        true
    }

    /// `change_huge_pmd()`: gives the huge page the protection `prot`. Returns how many pages
    /// that are: none if it is none any more.
    pub(super) fn change_huge_pmd(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        pmd: Pmd<'_, P>,
        prot: Pte,
    ) -> u64 {
        let Some(leaf) = self.pmd_trans_huge_lock(cpu, pmd) else { return 0 };
        let leaf = self.pmdp_invalidate(cpu, mm, pmd, leaf);
        pmd.set(cpu, self.huge_pmd(leaf.modify(prot)));
        spin_unlock(cpu, pmd.ptl());
        u64::from(self.hpage_pmd_nr())
    }

    /// `copy_huge_pmd()`: the child maps the huge page too, and both may only read it. `Ok(false)`:
    /// it is none any more. Caller holds both `mmap_sem`s for writing.
    pub(super) fn copy_huge_pmd(
        &self,
        cpu: &P,
        dst_mm: MmRef<'_, P>,
        dst: Pmd<'_, P>,
        src: Pmd<'_, P>,
        vma: VmaRef<'_, P>,
    ) -> Result<bool, Errno> {
        let table = self.pte_alloc_one(cpu).ok_or(Errno::Enomem)?;
        self.pmd_lock(cpu, dst);
        // Nested: nobody else can reach the child's table yet.
        let Some(leaf) = self.pmd_trans_huge_lock(cpu, src) else {
            self.pte_free(cpu, table);
            spin_unlock(cpu, dst.ptl());
            return Ok(false);
        };
        if self.is_huge_zero(leaf) {
            let prot = vma.vm_page_prot().read(cpu);
            self.set_huge_zero_page(cpu, dst_mm, dst, table, prot);
        } else {
            let head = self.page(cpu, leaf.pfn());
            self.get_page(cpu, head);
            self.page_dup_huge_rmap(cpu, head);
            self.add_mm_counter(cpu, dst_mm, Rss::Anon, i64::from(self.hpage_pmd_nr()));
            dst_mm.pgtables().fetch_add(cpu, 1, Ordering::Relaxed);
            self.pgtable_trans_huge_deposit(cpu, dst, table);
            // pmdp_set_wrprotect. As for PTEs, fork flushes later (A1).
            self.pmdp_clear(cpu, src, Pte::WRITE);
            dst.set(cpu, self.huge_pmd(leaf.without(Pte::WRITE | Pte::YOUNG)));
        }
        spin_unlock(cpu, src.ptl());
        spin_unlock(cpu, dst.ptl());
        Ok(true)
    }

    /// `pmdp_set_wrprotect()`, `pmdp_test_and_clear_young()`: clears one bit atomically, for the
    /// hardware sets others meanwhile. Caller holds the PMD lock.
    pub(super) fn pmdp_clear(&self, cpu: &P, pmd: Pmd<'_, P>, bit: Pte) {
        let mut seen = pmd.read(cpu);
        loop {
            let cleared = self.huge_pmd(self.leaf_of(seen).without(bit));
            match pmd.entry().compare_exchange(cpu, seen, cleared, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
    }

    /// `move_huge_pmd()`: the huge page from one place of an address space to another, both of
    /// its size. False: it is none any more, or something is in the way. Caller holds `mmap_sem`
    /// for writing.
    pub(super) fn move_huge_pmd(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        old: Pmd<'_, P>,
        new: Pmd<'_, P>,
    ) -> bool {
        if !new.read(cpu).is_none() {
            return false;
        }
        let Some(_) = self.pmd_trans_huge_lock(cpu, old) else { return false };
        let same_table = old.in_table() == new.in_table();
        if !same_table {
            // Nested: everybody else takes one.
            spin_lock(cpu, new.ptl());
        }
        let value = pmd_get_and_clear(cpu, old);
        if !same_table {
            // pmd_move_must_withdraw(): the deposit goes along.
            let table = self.pgtable_trans_huge_withdraw(cpu, old);
            self.pgtable_trans_huge_deposit(cpu, new, table);
        }
        // move_soft_dirty_pmd()
        new.set(cpu, self.huge_pmd(self.leaf_of(value) | Pte::SOFT_DIRTY));
        self.flush_tlb_mm(cpu, mm);
        if !same_table {
            spin_unlock(cpu, new.ptl());
        }
        spin_unlock(cpu, old.ptl());
        true
    }
}

/// `pmdp_huge_get_and_clear()`: atomic, for the hardware sets young and dirty bits.
fn pmd_get_and_clear<P: Platform>(cpu: &P, pmd: Pmd<'_, P>) -> PmdVal<P> {
    pmd.entry().swap(cpu, PmdVal::NONE, Ordering::Relaxed)
}
