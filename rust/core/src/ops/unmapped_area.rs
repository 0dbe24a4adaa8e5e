//! Where a new mapping goes. Source: `get_unmapped_area()`, `mm/mmap.c`, v5.1.

use crate::design::Design;
use crate::mm::{Errno, Kernel, MmRef, UnmappedAreaInfo, Vaddr};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `get_unmapped_area()`: where a mapping of `length` bytes goes, checked.
    pub(super) fn get_unmapped_area(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: u64,
        length: u64,
        fixed: bool,
    ) -> Result<Vaddr, Errno> {
        let task_size = self.config.arch.task_size;
        if length > task_size {
            return Err(Errno::Enomem);
        }
        let start = if fixed {
            // DEVIATION: the kernel takes any address of the last 4095 for an errno, by its
            // negative. That of MAP_FAILED is EPERM; the others are no errnos we have.
            if address == u64::MAX {
                return Err(Errno::Eperm);
            }
            address
        } else {
            self.arch_get_unmapped_area_topdown(cpu, mm, address, length).ok_or(Errno::Enomem)?
        };
        self.check_area(start, length)
    }

    /// [`Kernel::get_unmapped_area`] of a hugetlb file: aligned to its pages. A hint is rounded
    /// down to that, even to 0.
    ///
    /// DEVIATION: x86's text (`arch/x86/mm/hugetlbpage.c`, v5.1) for all arches.
    pub(super) fn hugetlb_get_unmapped_area(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: u64,
        length: u64,
        fixed: bool,
    ) -> Result<Vaddr, Errno> {
        let task_size = self.config.arch.task_size;
        if length > task_size {
            return Err(Errno::Enomem);
        }
        let aligned = self.hpage_pmd_start(Vaddr(address));
        if fixed {
            // prepare_hugepage_range()
            return if aligned.0 == address {
                self.check_area(address, length)
            } else {
                Err(Errno::Einval)
            };
        }
        if address != 0 && aligned.0 <= task_size - length && self.is_room(cpu, mm, aligned, length)
        {
            return self.check_area(aligned.0, length);
        }
        let align_mask = self.pmd_size() - self.page_size();
        let start = self.highest_or_lowest_gap(cpu, mm, length, align_mask);
        self.check_area(start.ok_or(Errno::Enomem)?, length)
    }

    /// Whether nothing is mapped there, nor any gap kept above.
    fn is_room(&self, cpu: &P, mm: MmRef<'_, P>, start: Vaddr, length: u64) -> bool {
        let above = self.find_vma(cpu, mm, start);
        above.is_none_or(|vma| start.0 + length <= self.vm_start_gap(cpu, vma))
    }

    /// The end of `get_unmapped_area()`: whether the place will do.
    fn check_area(&self, start: u64, length: u64) -> Result<Vaddr, Errno> {
        let task_size = self.config.arch.task_size;
        if start > task_size - length {
            return Err(Errno::Enomem);
        }
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        // security_mmap_addr(), without CAP_SYS_RAWIO.
        if start < self.config.system.mmap_min_addr {
            return Err(Errno::Eperm);
        }
        Ok(Vaddr(start))
    }

    /// `arch_get_unmapped_area_topdown()`: the hint if it is free, else the highest gap below
    /// `mmap_base`, else the lowest above `TASK_UNMAPPED_BASE`.
    ///
    /// DEVIATION: the generic text for all arches; powerpc's slices are not modelled.
    fn arch_get_unmapped_area_topdown(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        hint: u64,
        length: u64,
    ) -> Option<u64> {
        let arch = &self.config.arch;
        let min_address = self.config.system.mmap_min_addr;
        if hint != 0
            && hint >= min_address
            && hint <= arch.task_size - length
            && self.is_room(cpu, mm, Vaddr(hint), length)
        {
            return Some(hint);
        }
        self.highest_or_lowest_gap(cpu, mm, length, 0)
    }

    /// The highest gap below `mmap_base` with room for `length` bytes, wherever they have to be
    /// aligned to; else the lowest above `TASK_UNMAPPED_BASE`. `align_mask`: address bits above
    /// the page that have to be 0.
    fn highest_or_lowest_gap(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        length: u64,
        align_mask: u64,
    ) -> Option<u64> {
        let arch = &self.config.arch;
        let room = length.checked_add(align_mask)?;
        // Both walks give a gap of that length; in it the highest aligned address, or the lowest.
        let up = |start: u64| (start + align_mask) & !align_mask;
        let low_limit = self.page_size().max(self.page_align(self.config.system.mmap_min_addr));
        let topdown = UnmappedAreaInfo { length: room, low_limit, high_limit: arch.mmap_base };
        self.unmapped_area_topdown(cpu, mm, topdown).map(up).or_else(|| {
            let low_limit = self.page_align(arch.task_size / 3);
            let info = UnmappedAreaInfo { length: room, low_limit, high_limit: arch.task_size };
            self.unmapped_area(cpu, mm, info).map(up)
        })
    }
}
