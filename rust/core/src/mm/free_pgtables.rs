//! Freeing page tables, once what they map is zapped.
//!
//! Source: `mm/memory.c`, v5.1; the bracket around rmap: P12.

use super::gather::MmuGather;
use super::kernel::Kernel;
use super::objects::{TableRef, VmaRef};
use super::pmd::PmdVal;
use super::types::Vaddr;
use super::variants::Variant;
use crate::design::Design;
use crate::platform::{Mutant, Ordering, Platform, Ptr};
use crate::sync::spinlock::{spin_lock, spin_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `free_pgtables()`: frees the tables below the VMAs from `vma` on that nothing else in
    /// `floor..ceiling` (0: the top) needs. Caller has zapped them.
    pub(crate) fn free_pgtables(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        first: Option<VmaRef<'_, P>>,
        floor: Vaddr,
        ceiling: Vaddr,
    ) {
        let _step = cpu.step("free_pgtables");
        let mut cursor = first;
        while let Some(vma) = cursor {
            let start = vma.vm_start().read(cpu);
            let mut last = vma;
            self.unlink_vma_rmap(cpu, vma);
            cursor = self.vmas.get_opt(cpu, vma.vm_next().read(cpu));
            // Neighbours that share a table go in one call down.
            let alone = self.is_vm_hugetlb_page(cpu, vma);
            while let Some(next) = cursor
                && next.vm_start().read(cpu).0 <= last.vm_end().read(cpu).0 + self.pmd_size()
                && !alone
                && !self.is_vm_hugetlb_page(cpu, next)
            {
                self.unlink_vma_rmap(cpu, next);
                last = next;
                cursor = self.vmas.get_opt(cpu, next.vm_next().read(cpu));
            }
            let limit = cursor.map_or(ceiling, |next| next.vm_start().read(cpu));
            self.free_pgd_range(cpu, tlb, start, last.vm_end().read(cpu), floor, limit);
        }
    }

    /// Hides the VMA from rmap before its tables go. Source: P12.
    fn unlink_vma_rmap(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let bracket = !cpu.mutant(Mutant::A14);
        if bracket {
            D::vm_write_begin(cpu, vma);
        }
        self.unlink_anon_vmas(cpu, vma);
        if bracket {
            D::vm_write_end(cpu, vma);
        }
        self.unlink_file_vma(cpu, vma);
    }

    /// `free_pgd_range()`: the tables that map only addresses of `start..end`, where nothing is
    /// mapped from `floor` to `start` and from `end` to `ceiling`.
    pub(crate) fn free_pgd_range(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        start: Vaddr,
        end: Vaddr,
        floor: Vaddr,
        ceiling: Vaddr,
    ) {
        let table = self.tables[0].get(cpu, tlb.mm().pgd().read(cpu));
        let bounds = Bounds { floor: floor.0, ceiling: ceiling.0 };
        if let Some((start, end)) = bounds.clip(start.0, end.0, self.pmd_size()) {
            self.free_range(cpu, tlb, 0, table, start, end, bounds);
        }
    }

    /// `free_p4d_range()`, `free_pud_range()`, `free_pmd_range()`, `free_pte_range()`: one text.
    #[expect(clippy::too_many_arguments, reason = "as the kernel's, with the level")]
    fn free_range(
        &self,
        cpu: &P,
        tlb: &mut MmuGather<'_, P>,
        level: usize,
        table: TableRef<'_, P>,
        start: u64,
        end: u64,
        bounds: Bounds,
    ) {
        let span = 1u64 << self.config.arch.levels[level].shift;
        let mut address = start;
        while address < end {
            let next = ((address & !(span - 1)) + span).min(end);
            let entry = table.entry(self.index_at(level, Vaddr(address)));
            let below = entry.read(cpu);
            if !below.is_null() {
                if PmdVal::from(below).is_huge() {
                    cpu.finding("bad-pmd", format!("a huge page is still mapped at {address:#x}"));
                }
                let lower = self.tables[level + 1].get(cpu, below);
                let is_pte_table = level == self.pmd_level();
                if !is_pte_table {
                    self.free_range(cpu, tlb, level + 1, lower, address, next, bounds);
                }
                // A PTE table goes always: `start..end` was rounded to whole ones.
                if is_pte_table && !self.v12(Variant::B9) {
                    // Whoever still has the lock has let go of it before the table can go.
                    let slot = self.pte_offset_map(cpu, below, Vaddr(address));
                    spin_lock(cpu, slot.ptl());
                    spin_unlock(cpu, slot.ptl());
                }
                if is_pte_table || bounds.cover(address, next, span) {
                    entry.write(cpu, Ptr::NULL);
                    tlb.mm().pgtables().fetch_add(cpu, -1, Ordering::Relaxed);
                    tlb.remove_table(level + 1, below);
                }
            }
            address = next;
        }
    }
}

/// What lies around a range whose tables are freed; ceiling 0 is the top of the address space.
#[derive(Clone, Copy)]
struct Bounds {
    floor: u64,
    ceiling: u64,
}

impl Bounds {
    /// Rounds the range to whole PTE tables that nobody else needs; `None`: there is none.
    fn clip(self, start: u64, end: u64, pmd_size: u64) -> Option<(u64, u64)> {
        let mut start = start & !(pmd_size - 1);
        if start < self.floor {
            start += pmd_size;
        }
        let mut end = end;
        if self.ceiling != 0 {
            let ceiling = self.ceiling & !(pmd_size - 1);
            if ceiling == 0 {
                return None;
            }
            if end > ceiling {
                end -= pmd_size;
            }
        }
        (start < end).then_some((start, end))
    }

    /// Whether the table that maps the `span` around `start..end` maps nothing else.
    fn cover(self, start: u64, end: u64, span: u64) -> bool {
        let start = start & !(span - 1);
        if start < self.floor {
            return false;
        }
        if self.ceiling == 0 {
            return true;
        }
        let ceiling = self.ceiling & !(span - 1);
        ceiling != 0 && end <= ceiling
    }
}
