//! `copy_page_range()`: what fork copies of a VMA's page tables.
//!
//! Source: `mm/memory.c`, v5.1.

use std::ops::Range;

use super::kernel::Kernel;
use super::objects::{MmRef, Table, VmaRef};
use super::pgtable::PteSlot;
use super::pmd::Pmd;
use super::rmap::Rss;
use super::types::{Errno, Pte, Vaddr, VmFlags};
use crate::design::Design;
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::spinlock::{spin_lock, spin_unlock};

/// VMAs whose page tables are copied even without an anon_vma.
const ALWAYS_COPIED: VmFlags = VmFlags(VmFlags::HUGETLB.0 | VmFlags::PFNMAP.0);

/// Pages that one call found, by counter of the resident set.
#[derive(Default)]
struct RssVec {
    file: i64,
    anon: i64,
    swap: i64,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Copies the PTEs of `vma`, a VMA of `src_mm`, to the same addresses of `dst_mm`; private
    /// writable pages become read-only in both. Without an anon_vma nothing is private yet and
    /// nothing is copied: faults of the child find it all again.
    ///
    /// Caller holds both `mmap_sem`s for writing, and flushes the TLB before it lets go of the
    /// parent's. When memory runs out, what was copied stays, for exit_mmap.
    pub(crate) fn copy_page_range(
        &self,
        cpu: &P,
        dst_mm: MmRef<'_, P>,
        src_mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
    ) -> Result<(), Errno> {
        let _step = cpu.step("copy_page_range");
        let vm_flags = vma.vm_flags().read(cpu);
        if !vm_flags.has(ALWAYS_COPIED) && vma.anon_vma().read(cpu).is_null() {
            return Ok(());
        }
        let is_cow = is_cow_mapping(vm_flags);
        let copy = || {
            if vm_flags.has(VmFlags::HUGETLB) {
                self.copy_hugetlb_page_range(cpu, dst_mm, src_mm, vma)
            } else {
                self.copy_upper(cpu, dst_mm, src_mm, vma)
            }
        };
        // What the child gets a copy of becomes read-only.
        if is_cow { self.invalidate_range(cpu, src_mm, copy) } else { copy() }
    }

    /// `copy_p4d_range()`, `copy_pud_range()`: of all of a VMA.
    fn copy_upper(
        &self,
        cpu: &P,
        dst_mm: MmRef<'_, P>,
        src_mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
    ) -> Result<(), Errno> {
        let mut address = vma.vm_start().read(cpu);
        let end = vma.vm_end().read(cpu);
        while address < end {
            // As far down as the parent has tables the child gets some, even if these are empty.
            let (src, next) = self.walk_pmd_until(cpu, src_mm, address, end);
            let lowest = *src.as_ref().err().unwrap_or(&self.pmd_level());
            let dst_table = self.table_alloc(cpu, dst_mm, address, lowest).ok_or(Errno::Enomem)?;
            if let Ok(src) = src {
                let dst = Pmd::new(dst_table, src.index());
                self.copy_pmd_range(cpu, dst_mm, (dst, src), vma, address..next)?;
            }
            address = next;
        }
        Ok(())
    }

    /// `copy_pmd_range()`: one table of PMDs, from its entry `src` on.
    fn copy_pmd_range(
        &self,
        cpu: &P,
        dst_mm: MmRef<'_, P>,
        (mut dst, mut src): (Pmd<'_, P>, Pmd<'_, P>),
        vma: VmaRef<'_, P>,
        range: Range<Vaddr>,
    ) -> Result<(), Errno> {
        let vm_flags = vma.vm_flags().read(cpu);
        let mut address = range.start;
        while address < range.end {
            let next = self.pmd_addr_end(address, range.end);
            let mut value = src.read(cpu);
            let is_copied = value.is_huge() && self.copy_huge_pmd(cpu, dst_mm, dst, src, vma)?;
            if value.is_huge() && !is_copied {
                value = src.read(cpu);
            }
            if let Some(src_table) = value.table() {
                self.copy_pte_range(cpu, dst_mm, dst, src_table, vm_flags, address..next)?;
            }
            address = next;
            (dst, src) = (dst.next(), src.next());
        }
        Ok(())
    }

    /// `copy_pte_range()`. DEVIATION: it keeps both locks to the end of the table; the kernel
    /// lets go now and then when somebody waits.
    fn copy_pte_range(
        &self,
        cpu: &P,
        dst_mm: MmRef<'_, P>,
        dst_pmd: Pmd<'_, P>,
        src_table: Ptr<Table<P>>,
        vm_flags: VmFlags,
        range: Range<Vaddr>,
    ) -> Result<(), Errno> {
        if !self.pte_alloc(cpu, dst_mm, dst_pmd) {
            return Err(Errno::Enomem);
        }
        let dst_table = dst_pmd.read(cpu).table().expect("nobody else is in the child");
        let dst_first = self.pte_offset_map_lock(cpu, dst_table, range.start);
        let src_first = self.pte_offset_map(cpu, src_table, range.start);
        // Nested: nobody else can reach the child's table yet.
        spin_lock(cpu, src_first.ptl());
        let mut rss = RssVec::default();
        let nr_pages = self.nr_pages(range.start, range.end);
        for (dst, src) in dst_first.onwards().zip(src_first.onwards()).take(nr_pages) {
            let pte = src.pte().read(cpu);
            if !pte.is_none() {
                self.copy_one_pte(cpu, dst, src, pte, vm_flags, &mut rss);
            }
        }
        spin_unlock(cpu, src_first.ptl());
        self.add_mm_rss_vec(cpu, dst_mm, &rss);
        spin_unlock(cpu, dst_first.ptl());
        Ok(())
    }

    /// `copy_one_pte()`. Caller holds both PTE locks.
    fn copy_one_pte(
        &self,
        cpu: &P,
        dst: PteSlot<'_, P>,
        src: PteSlot<'_, P>,
        mut pte: Pte,
        vm_flags: VmFlags,
        rss: &mut RssVec,
    ) {
        if let Some(slot) = pte.swap_slot() {
            self.swap_duplicate(cpu, slot);
            rss.swap += 1;
            dst.pte().write(cpu, pte);
            return;
        }
        if pte.migration_pfn().is_some() {
            // The walk that puts the page back meets the parent before the child.
            rss.anon += 1;
            if is_cow_mapping(vm_flags) && pte.has(Pte::WRITE) {
                pte = pte.without(Pte::WRITE);
                src.pte().write(cpu, pte);
            }
            dst.pte().write(cpu, pte);
            return;
        }
        if is_cow_mapping(vm_flags) && pte.has(Pte::WRITE) {
            // ptep_set_wrprotect: clears one bit atomically, for the hardware sets young and
            // dirty meanwhile. Only lock holders change the bit: subtracting it clears it.
            // Stale writable TLB entries are what P18's brackets are about (A1).
            src.pte().fetch_add(cpu, -(Pte::WRITE.0 as i64), Ordering::Relaxed);
            pte = pte.without(Pte::WRITE);
        }
        if vm_flags.has(VmFlags::SHARED) {
            pte = pte.without(Pte::DIRTY);
        }
        pte = pte.without(Pte::YOUNG);
        if !pte.has(Pte::SPECIAL) {
            let page = self.page(cpu, pte.pfn());
            self.get_page(cpu, page);
            self.page_dup_rmap(cpu, page);
            if self.page_is_anon(cpu, page) {
                rss.anon += 1;
            } else {
                rss.file += 1;
            }
        }
        dst.pte().write(cpu, pte);
    }

    fn add_mm_rss_vec(&self, cpu: &P, mm: MmRef<'_, P>, rss: &RssVec) {
        let counts = [(Rss::File, rss.file), (Rss::Anon, rss.anon), (Rss::Swap, rss.swap)];
        for (which, pages) in counts {
            if pages != 0 {
                self.add_mm_counter(cpu, mm, which, pages);
            }
        }
    }
}

/// `is_cow_mapping()`: private, and could be written.
pub(super) fn is_cow_mapping(vm_flags: VmFlags) -> bool {
    vm_flags & (VmFlags::SHARED | VmFlags::MAYWRITE) == VmFlags::MAYWRITE
}
