//! Page tables: walking and allocating.
//!
//! Source: `mm/memory.c`, `include/linux/mm.h`, v5.1. An upper entry is the pointer word of the
//! table below, 0 when none; `pmd.rs` has those of the last level but one. Levels that an
//! architecture folds do not exist here.

use std::ops::Deref;
use std::sync::Arc;

use super::kernel::Kernel;
use super::objects::{MmRef, Table, TableRef};
use super::pmd::{Pmd, PmdVal};
use super::types::{Pte, Vaddr};
use crate::arch::Level;
use crate::design::Design;
use crate::platform::arena::Lines;
use crate::platform::{Arena, Field, Ordering, Platform, Ptr};
use crate::sync::refcount::atomic_inc;
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// The page tables of one level.
pub struct TableLevel<P: Platform> {
    tables: Arena<Table<P>>,
    /// As in the profile: here too, for each step of a walk needs both; entries less one.
    shift: u32,
    mask: u32,
}

impl<P: Platform> TableLevel<P> {
    pub(super) fn new(lines: &Arc<Lines>, level: &Level) -> Self {
        let tables = Arena::with_name(lines, level.entries, level.name);
        Self { tables, shift: level.shift, mask: level.entries - 1 }
    }

    /// The entry of a table of this level that `address` is in.
    #[inline(always)]
    fn index(&self, address: Vaddr) -> u32 {
        (address.0 >> self.shift) as u32 & self.mask
    }
}

impl<P: Platform> Deref for TableLevel<P> {
    type Target = Arena<Table<P>>;
    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.tables
    }
}

#[cold]
fn no_levels() -> ! {
    unreachable!("a profile has two levels at least")
}

/// The place of one PTE: `pte_t *`.
pub struct PteSlot<'k, P: Platform> {
    table: TableRef<'k, P>,
    index: u32,
}

impl<P: Platform> Clone for PteSlot<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Platform> Copy for PteSlot<'_, P> {}

impl<'k, P: Platform> PteSlot<'k, P> {
    /// The PTE itself.
    #[inline(always)]
    pub fn pte(self) -> Field<'k, P, Pte> {
        self.table.pte(self.index)
    }
    /// This PTE and those after it in the same table; the caller knows where to stop.
    #[inline(always)]
    pub fn onwards(self) -> impl Iterator<Item = Self> {
        (self.index..).map(move |index| Self { index, ..self })
    }
    /// `pte_lockptr()`: the lock of the table that the PTE is in.
    #[inline(always)]
    pub fn ptl(self) -> Field<'k, P, u64> {
        self.table.ptl()
    }
}

/// A PMD entry that is not none.
pub(crate) struct MappedPmd<'k, P: Platform> {
    pub pmd: Pmd<'k, P>,
    pub value: PmdVal<P>,
    /// The part of the range that it maps.
    pub from: Vaddr,
    pub to: Vaddr,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Level of the tables whose entries are PMDs.
    #[inline(always)]
    pub(super) fn pmd_level(&self) -> usize {
        self.config.arch.levels.len() - 2
    }
    #[inline(always)]
    pub(super) fn index_at(&self, level: usize, address: Vaddr) -> u32 {
        self.tables[level].index(address)
    }
    /// `PMD_SIZE`: bytes that one PTE table maps.
    #[inline(always)]
    pub(crate) fn pmd_size(&self) -> u64 {
        1 << self.config.arch.levels[self.pmd_level()].shift
    }
    /// How many pages `start..end` has.
    #[inline(always)]
    pub(crate) fn nr_pages(&self, start: Vaddr, end: Vaddr) -> usize {
        (end.since(start) >> self.page_shift()) as usize
    }
    /// The address where the next PTE table begins, or `end` (`pmd_addr_end()`).
    #[inline(always)]
    pub(crate) fn pmd_addr_end(&self, address: Vaddr, end: Vaddr) -> Vaddr {
        self.addr_end(self.pmd_level(), address, end)
    }
    /// `pgd_addr_end()`, `p4d_addr_end()`, …: where the next entry of `level` begins, or `end`.
    #[inline(always)]
    fn addr_end(&self, level: usize, address: Vaddr, end: Vaddr) -> Vaddr {
        let span = 1u64 << self.config.arch.levels[level].shift;
        Vaddr(((address.0 & !(span - 1)) + span).min(end.0))
    }

    /// Walks to the PMD entry for `address`; `None` when an upper level is none.
    #[inline]
    pub(crate) fn walk_pmd(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) -> Option<Pmd<'_, P>> {
        self.walk_pmd_or_level(cpu, mm, address).ok()
    }

    /// As [`Kernel::walk_pmd`], or the upper level whose entry is none.
    #[inline(always)]
    fn walk_pmd_or_level(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
    ) -> Result<Pmd<'_, P>, usize> {
        let [pgds, below @ .., _ptes] = self.tables.as_slice() else { no_levels() };
        let mut table = pgds.get(cpu, mm.pgd().read(cpu));
        let mut index = pgds.index(address);
        for (number, tables) in below.iter().enumerate() {
            // Consume: pairs with the Release in populate, as in Pmd::read.
            let entry = table.entry(index).load(cpu, Ordering::Consume);
            table = tables.get_opt(cpu, entry).ok_or(number)?;
            index = tables.index(address);
        }
        Ok(Pmd::new(table, index))
    }

    /// The PMD entry for `address`, or the upper level whose entry is none; and where ends what was
    /// found, or `end`: the table of PMDs, or what that entry covers.
    pub(super) fn walk_pmd_until(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        end: Vaddr,
    ) -> (Result<Pmd<'_, P>, usize>, Vaddr) {
        let found = self.walk_pmd_or_level(cpu, mm, address);
        let covers = match found {
            Ok(_) => self.pmd_level().checked_sub(1),
            Err(level) => Some(level),
        };
        (found, covers.map_or(end, |level| self.addr_end(level, address, end)))
    }

    /// The next PMD entry for addresses of `from..end` that is not none, its value, and which of
    /// them it maps. What an upper level has none of is passed at once, as by
    /// `pgd_none_or_clear_bad()` and so on.
    pub(crate) fn next_pmd(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        from: Vaddr,
        end: Vaddr,
    ) -> Option<MappedPmd<'_, P>> {
        let mut address = from;
        while address < end {
            let (found, last) = self.walk_pmd_until(cpu, mm, address, end);
            let Ok(mut pmd) = found else {
                address = last;
                continue;
            };
            while address < last {
                let next = self.pmd_addr_end(address, end);
                let value = pmd.read(cpu);
                if !value.is_none() {
                    return Some(MappedPmd { pmd, value, from: address, to: next });
                }
                address = next;
                pmd = pmd.next();
            }
        }
        None
    }

    /// `pte_offset_map()`: the PTE for `address` in the table that `pmd` points to.
    #[inline(always)]
    pub(crate) fn pte_offset_map(
        &self,
        cpu: &P,
        pmd: Ptr<Table<P>>,
        address: Vaddr,
    ) -> PteSlot<'_, P> {
        let Some(ptes) = self.tables.last() else { no_levels() };
        PteSlot { table: ptes.get(cpu, pmd), index: ptes.index(address) }
    }

    /// `pte_offset_map_lock()`
    pub(crate) fn pte_offset_map_lock(
        &self,
        cpu: &P,
        pmd: Ptr<Table<P>>,
        address: Vaddr,
    ) -> PteSlot<'_, P> {
        let slot = self.pte_offset_map(cpu, pmd, address);
        spin_lock(cpu, slot.ptl());
        slot
    }

    /// A table of `level` and the frame it lives in; `None`: out of memory.
    fn alloc_table(&self, cpu: &P, level: usize) -> Option<TableRef<'_, P>> {
        let frame = self.alloc_page(cpu)?;
        let table = self.tables[level].alloc_on(cpu);
        table.frame().poke(u64::from(frame.slot_index()));
        Some(table)
    }

    /// Frees a table that no CPU can reach any more.
    pub(super) fn free_table(&self, cpu: &P, level: usize, table: TableRef<'_, P>) {
        let frame = self.page(cpu, table.frame().peek() as u32);
        self.tables[level].free(cpu, table);
        self.put_page(cpu, frame);
    }

    /// `pgd_alloc()`: false when out of memory.
    pub(crate) fn pgd_alloc(&self, cpu: &P, mm: MmRef<'_, P>) -> bool {
        let Some(table) = self.alloc_table(cpu, 0) else { return false };
        mm.pgd().poke(table.ptr());
        true
    }

    /// `pgd_free()`
    pub(crate) fn pgd_free(&self, cpu: &P, mm: MmRef<'_, P>) {
        let table = self.tables[0].get(cpu, mm.pgd().peek());
        self.free_table(cpu, 0, table);
    }

    /// `p4d_alloc()`, `pud_alloc()`, `pmd_alloc()`: the PMD entry for `address`, with the levels
    /// above it allocated. `None`: out of memory. Caller holds `mmap_sem`.
    pub(crate) fn pmd_alloc(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
    ) -> Option<Pmd<'_, P>> {
        let table = self.table_alloc(cpu, mm, address, self.pmd_level())?;
        Some(Pmd::new(table, self.index_at(self.pmd_level(), address)))
    }

    /// As [`Kernel::pmd_alloc`]: the table of level `lowest`.
    #[inline]
    pub(super) fn table_alloc(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        lowest: usize,
    ) -> Option<TableRef<'_, P>> {
        let mut table = self.tables[0].get(cpu, mm.pgd().read(cpu));
        for level in 0..lowest {
            let entry = table.entry(self.index_at(level, address));
            if entry.read(cpu).is_null() {
                let new = self.alloc_table(cpu, level + 1)?;
                self.populate(cpu, mm, mm.page_table_lock(), entry, level + 1, new);
            }
            // Consume: pairs with the Release in populate.
            table = self.tables[level + 1].get(cpu, entry.load(cpu, Ordering::Consume));
        }
        Some(table)
    }

    /// `pte_alloc()`: makes sure that `pmd` is not none. False: out of memory.
    pub(crate) fn pte_alloc(&self, cpu: &P, mm: MmRef<'_, P>, pmd: Pmd<'_, P>) -> bool {
        if !pmd.read(cpu).is_none() {
            return true;
        }
        let Some(new) = self.pte_alloc_one(cpu) else { return false };
        let entry = pmd.in_table().entry(pmd.index());
        self.populate(cpu, mm, pmd.ptl(), entry, self.pmd_level() + 1, new);
        true
    }

    /// `pte_alloc_one()`: a table of PTEs that is linked nowhere. `None`: out of memory.
    pub(crate) fn pte_alloc_one(&self, cpu: &P) -> Option<TableRef<'_, P>> {
        self.alloc_table(cpu, self.pmd_level() + 1)
    }

    /// `pte_free()`: frees a table of PTEs that was linked nowhere, or that no CPU can reach.
    pub(crate) fn pte_free(&self, cpu: &P, table: TableRef<'_, P>) {
        self.free_table(cpu, self.pmd_level() + 1, table);
    }

    /// Links `new` into `entry` under `lock`, or frees it when another CPU was first.
    fn populate(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        lock: Field<'_, P, u64>,
        entry: Field<'_, P, Ptr<Table<P>>>,
        level: usize,
        new: TableRef<'_, P>,
    ) {
        spin_lock(cpu, lock);
        let first = entry.read(cpu).is_null();
        if first {
            atomic_inc(cpu, mm.pgtables());
            // Release: the zeroed entries of the new table come first (smp_wmb in __pte_alloc);
            // pairs with the Consume of whoever walks.
            entry.store(cpu, new.ptr(), Ordering::Release);
        }
        spin_unlock(cpu, lock);
        if !first {
            self.free_table(cpu, level, new);
        }
    }
}
