//! `move_page_tables()`: the pages of a range go to another address, for mremap, and for exec, where
//! nobody else runs in the address space yet.
//!
//! In mremap both VMAs are odd meanwhile (P11), and `mmap_sem` is held for write: the only others at work on
//! the old place are those that hold a PTE lock already, and rmap.
//!
//! Source: `mm/mremap.c`, v5.1.

use super::kernel::Kernel;
use super::objects::{MmRef, Table, VmaRef};
use super::pgtable::MappedPmd;
use super::pmd::{Pmd, PmdVal};
use super::types::{Pte, Vaddr};
use super::variants::Variant;
use crate::arch::Family;
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::rwsem::RwSem;
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// Whose pages move.
#[derive(Clone, Copy)]
pub(crate) struct Moving<'k, P: Platform> {
    pub(crate) mm: MmRef<'k, P>,
    pub(crate) vma: VmaRef<'k, P>,
    /// Keep rmap out while pages are at neither place.
    pub(crate) rmap_locks: bool,
}

/// What keeps rmap walks out while pages move.
struct RmapLocks<'k, P: Platform, D: Design> {
    file: Option<RwSem<'k, P, Kernel<P, D>>>,
    anon_vma: Option<RwSem<'k, P, Kernel<P, D>>>,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Moves what is mapped in `length` bytes from `old` to `new`. Returns how many bytes were
    /// done: fewer when there was no memory for a page table.
    pub(crate) fn move_page_tables(
        &self,
        cpu: &P,
        moving: &Moving<'_, P>,
        old: Vaddr,
        new: Vaddr,
        length: u64,
    ) -> u64 {
        let _step = cpu.step("move_page_tables");
        self.invalidate_range(cpu, moving.mm, || self.move_pmds(cpu, moving, old, new, length))
    }

    fn move_pmds(
        &self,
        cpu: &P,
        moving: &Moving<'_, P>,
        old: Vaddr,
        new: Vaddr,
        length: u64,
    ) -> u64 {
        let end = old.offset(length);
        let mut at = old;
        // Where the old place has nothing the kernel goes on, too, one PMD at a time.
        while let Some(mut found) = self.next_pmd(cpu, moving.mm, at, end) {
            at = found.from;
            while at < found.to {
                found.from = at;
                let target = new.offset(at.since(old));
                let Some(moved) = self.move_pmd(cpu, moving, &mut found, target) else {
                    return at.since(old);
                };
                at = at.offset(moved);
            }
        }
        length
    }

    /// Moves as much of what an entry maps as one entry can map at the new place, too. Returns its
    /// length; `None`: out of memory.
    fn move_pmd(
        &self,
        cpu: &P,
        moving: &Moving<'_, P>,
        found: &mut MappedPmd<'_, P>,
        target: Vaddr,
    ) -> Option<u64> {
        let new_pmd = self.pmd_alloc(cpu, moving.mm, target)?;
        let at = found.from;
        let extent = found.to.since(at);
        let whole = extent == self.pmd_size() && (at.0 | target.0) & (self.pmd_size() - 1) == 0;
        if whole && self.move_whole_pmd(cpu, moving, found, new_pmd) {
            return Some(extent);
        }
        if found.value.is_huge() {
            self.split_huge_pmd(cpu, moving.vma, found.pmd);
            found.value = found.pmd.read(cpu);
        }
        let Some(table) = found.value.table() else { return Some(extent) };
        if !self.pte_alloc(cpu, moving.mm, new_pmd) {
            return None;
        }
        let new_table = new_pmd.read(cpu).table().expect("mmap_sem is held for write");
        let room = self.pmd_addr_end(target, target.offset(extent)).since(target);
        self.move_ptes(cpu, moving, table, at, new_table, target, room);
        Some(room)
    }

    /// Moves a huge page, or a whole table, by its entry. False: it has to go page by page.
    fn move_whole_pmd(
        &self,
        cpu: &P,
        moving: &Moving<'_, P>,
        found: &MappedPmd<'_, P>,
        new_pmd: Pmd<'_, P>,
    ) -> bool {
        let is_huge = found.value.is_huge();
        if !is_huge && !self.have_move_pmd() {
            return false;
        }
        // L5: a walk that has read the old PMD would flush the old address for a page that is at the
        // new one by then, and one that comes in between meets it at neither.
        let rmap_locks = moving.rmap_locks || !is_huge && !self.v12(Variant::L5);
        let locked = self.take_rmap_locks(cpu, &Moving { rmap_locks, ..*moving });
        let moved = if is_huge {
            self.move_huge_pmd(cpu, moving.mm, found.pmd, new_pmd)
        } else {
            self.move_normal_pmd(cpu, moving.mm, found.from, new_pmd)
        };
        self.drop_rmap_locks(cpu, locked);
        moved
    }

    /// `CONFIG_HAVE_MOVE_PMD`: in 5.1 only x86 selects it.
    fn have_move_pmd(&self) -> bool {
        let system = &self.config.system;
        system.have_move_pmd.unwrap_or(self.config.arch.family == Family::X86)
    }

    /// `move_normal_pmd()`: lets the old page table map the new place. False: something is in the
    /// way there.
    ///
    /// B8: 5.1 takes only the locks of the PMDs, so a fault that holds the lock of the page table
    /// goes on and flushes the old address for a page that is at the new one by now.
    fn move_normal_pmd(&self, cpu: &P, mm: MmRef<'_, P>, old: Vaddr, new_pmd: Pmd<'_, P>) -> bool {
        let _step = cpu.step("move_normal_pmd");
        let Some(old_pmd) = self.walk_pmd(cpu, mm, old) else { return false };
        if !new_pmd.read(cpu).is_none() {
            return false;
        }
        spin_lock(cpu, old_pmd.ptl());
        let two_locks = new_pmd.in_table() != old_pmd.in_table();
        if two_locks {
            // In any order: who else takes two holds mmap_sem for write as well.
            spin_lock(cpu, new_pmd.ptl());
        }
        let value = old_pmd.read(cpu);
        let pte_lock = value.table().filter(|_| !self.v12(Variant::B8));
        let pte_lock = pte_lock.map(|table| self.pte_offset_map(cpu, table, old));
        if let Some(slot) = pte_lock {
            spin_lock(cpu, slot.ptl());
        }
        old_pmd.set(cpu, PmdVal::NONE);
        new_pmd.set(cpu, value);
        self.flush_tlb_mm(cpu, mm);
        if let Some(slot) = pte_lock {
            spin_unlock(cpu, slot.ptl());
        }
        if two_locks {
            spin_unlock(cpu, new_pmd.ptl());
        }
        spin_unlock(cpu, old_pmd.ptl());
        true
    }

    /// `move_ptes()`: `length` bytes from `old` in `old_table` to `new` in `new_table`.
    #[expect(clippy::too_many_arguments, reason = "as the kernel's")]
    fn move_ptes(
        &self,
        cpu: &P,
        moving: &Moving<'_, P>,
        old_table: Ptr<Table<P>>,
        old: Vaddr,
        new_table: Ptr<Table<P>>,
        new: Vaddr,
        length: u64,
    ) {
        let _step = cpu.step("move_ptes");
        let locked = self.take_rmap_locks(cpu, moving);
        let old_first = self.pte_offset_map_lock(cpu, old_table, old);
        let new_first = self.pte_offset_map(cpu, new_table, new);
        if new_table != old_table {
            // In any order, as above.
            spin_lock(cpu, new_first.ptl());
        }
        let mut force_flush = false;
        let nr_pages = (length >> self.page_shift()) as usize;
        for (from, to) in old_first.onwards().zip(new_first.onwards()).take(nr_pages) {
            if from.pte().read(cpu).is_none() {
                continue;
            }
            // ptep_get_and_clear: the hardware sets young and dirty until it is out.
            let mut pte = from.pte().swap(cpu, Pte::EMPTY, Ordering::Relaxed);
            force_flush |= pte.is_present();
            if pte.is_present() {
                pte |= Pte::SOFT_DIRTY; // move_soft_dirty_pte()
            }
            // Release: who reads the page at the new place sees what was written at the old one;
            // pairs with the Consume of the hardware's walk.
            to.pte().store(cpu, pte, Ordering::Release);
        }
        if force_flush {
            // With both locks: at neither place may the page go while a translation is left.
            self.flush_tlb_mm(cpu, moving.mm);
        }
        if new_table != old_table {
            spin_unlock(cpu, new_first.ptl());
        }
        spin_unlock(cpu, old_first.ptl());
        self.drop_rmap_locks(cpu, locked);
    }

    /// `take_rmap_locks()`, if needed: of the file and of the anonymous pages.
    fn take_rmap_locks<'k>(&'k self, cpu: &P, moving: &Moving<'k, P>) -> RmapLocks<'k, P, D> {
        if !moving.rmap_locks {
            return RmapLocks { file: None, anon_vma: None };
        }
        let file = self.i_mmap_lock_write(cpu, moving.vma);
        let anon_vma = self.anon_vmas.get_opt(cpu, moving.vma.anon_vma().read(cpu));
        let anon_vma = anon_vma.map(|anon_vma| self.anon_vma_sem(cpu, anon_vma));
        if let Some(rmap) = &anon_vma {
            rmap.down_write(cpu);
        }
        RmapLocks { file, anon_vma }
    }

    /// `drop_rmap_locks()`
    fn drop_rmap_locks(&self, cpu: &P, locked: RmapLocks<'_, P, D>) {
        for lock in [locked.anon_vma, locked.file].into_iter().flatten() {
            lock.up_write(cpu);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/move_page_tables.rs"]
mod tests;
