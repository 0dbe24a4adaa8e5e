//! `munmap`. Source: `mm/mmap.c`, v5.1; P12, P21.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, NewHalf, Vaddr, Variant, VmFlags, VmaRef};
use crate::platform::{Platform, Ptr};

/// Whether `do_munmap` may go on with `mmap_sem` held for reading once the VMAs are detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Downgrade {
    Never,
    Allowed,
}

/// How `mmap_sem` is held afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Write,
    Read,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `munmap`: a range without mappings is no error.
    pub fn sys_munmap(&self, cpu: &P, start: u64, length: u64) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        let mm = self.current_mm(cpu);
        self.mmap_sem(mm).down_write(cpu);
        let result = self.do_munmap(cpu, mm, start, length, Downgrade::Allowed);
        self.release_mmap_sem(cpu, mm, result.unwrap_or(Held::Write));
        result.map(drop)
    }

    pub(super) fn release_mmap_sem(&self, cpu: &P, mm: MmRef<'_, P>, held: Held) {
        match held {
            Held::Write => self.mmap_sem(mm).up_write(cpu),
            Held::Read => self.mmap_sem(mm).up_read(cpu),
        }
    }

    /// `__do_munmap()`. Caller holds `mmap_sem` for write.
    pub(super) fn do_munmap(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: u64,
        length: u64,
        downgrade: Downgrade,
    ) -> Result<Held, Errno> {
        self.do_munmap_odd(cpu, mm, start, length, downgrade, None)
    }

    /// [`Kernel::do_munmap`] of exactly the VMA `odd`, if that is given: its section, which the
    /// caller has begun, ends once it is unlinked.
    pub(super) fn do_munmap_odd(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: u64,
        length: u64,
        downgrade: Downgrade,
        odd: Option<VmaRef<'_, P>>,
    ) -> Result<Held, Errno> {
        let task_size = self.config.arch.task_size;
        if self.offset_in_page(start) != 0 || start > task_size || length > task_size - start {
            return Err(Errno::Einval);
        }
        let length = self.page_align(length);
        if length == 0 {
            return Err(Errno::Einval);
        }
        let (start, end) = (Vaddr(start), Vaddr(start + length));
        let Some(vma) = self.find_vma(cpu, mm, start) else { return Ok(Held::Write) };
        if vma.vm_start().read(cpu) >= end {
            return Ok(Held::Write);
        }
        let prev = self.split_at_edges(cpu, mm, vma, start, end)?;
        let Some(first) = self.vma_after(cpu, mm, prev) else { return Ok(Held::Write) };
        self.munlock_vmas(cpu, mm, first, end, odd);
        let may_downgrade = self.detach_vmas_to_be_unmapped(cpu, mm, first, prev, end);
        if let Some(odd) = odd {
            D::vm_write_end(cpu, odd);
        }
        // Nobody finds the VMAs any more, so others may fault and look up again (since 4.20).
        let allowed = downgrade == Downgrade::Allowed && self.config.system.downgrade;
        let held = if allowed && may_downgrade {
            let _step = cpu.step("downgrade_write");
            self.mmap_sem(mm).downgrade_write(cpu);
            Held::Read
        } else {
            Held::Write
        };
        self.unmap_region(cpu, mm, first, prev, start, end);
        self.remove_vma_list(cpu, mm, first);
        Ok(held)
    }

    /// Splits the VMAs that reach over an edge of the range. Returns the last VMA below it.
    fn split_at_edges<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        first: VmaRef<'k, P>,
        start: Vaddr,
        end: Vaddr,
    ) -> Result<Option<VmaRef<'k, P>>, Errno> {
        let mut prev = self.vm_prev(cpu, first);
        if start > first.vm_start().read(cpu) {
            // Cutting a hole leaves one VMA more; any other unmapping may pass the limit for a
            // moment, for it ends with fewer.
            if end < first.vm_end().read(cpu) && mm.map_count().read(cpu) >= self.max_map_count(cpu)
            {
                return Err(Errno::Enomem);
            }
            self.split_vma_unlimited(cpu, first, start, NewHalf::Above)?;
            prev = Some(first);
        }
        if let Some(last) = self.find_vma(cpu, mm, end)
            && end > last.vm_start().read(cpu)
        {
            self.split_vma_unlimited(cpu, last, end, NewHalf::Below)?;
        }
        Ok(prev)
    }

    /// `detach_vmas_to_be_unmapped()`: takes the VMAs from `first` to `end` out of tree and
    /// list; they stay linked with each other. Returns whether `mmap_sem` may be downgraded: L4,
    /// not if what comes next can grow into the range meanwhile.
    fn detach_vmas_to_be_unmapped(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        first: VmaRef<'_, P>,
        prev: Option<VmaRef<'_, P>>,
        end: Vaddr,
    ) -> bool {
        let _step = cpu.step("detach_vmas_to_be_unmapped");
        first.vm_prev().write(cpu, Ptr::NULL);
        let mut tail = first;
        let after = loop {
            self.vma_rb_erase(cpu, mm, tail);
            self.add_map_count(cpu, mm, -1);
            match self.vm_next(cpu, tail) {
                Some(next) if next.vm_start().read(cpu) < end => tail = next,
                other => break other,
            }
        };
        let insertion_point = prev.map_or(mm.mmap(), |prev| prev.vm_next());
        insertion_point.write(cpu, after.map_or(Ptr::NULL, |vma| vma.ptr()));
        match after {
            Some(after) => {
                after.vm_prev().write(cpu, prev.map_or(Ptr::NULL, |prev| prev.ptr()));
                self.vma_gap_update(cpu, after);
            }
            None => {
                let highest = prev.map_or(Vaddr(0), |prev| prev.vm_end().read(cpu));
                mm.highest_vm_end().write(cpu, highest);
            }
        }
        tail.vm_next().write(cpu, Ptr::NULL);
        self.vmacache_invalidate(cpu, mm);
        let grows = |vma: VmaRef<'_, P>| vma.vm_flags().read(cpu).has(VmFlags::GROWSDOWN);
        self.v12(Variant::L4) || !after.is_some_and(grows)
    }

    /// `unmap_region()`: pages and page tables of detached VMAs.
    fn unmap_region(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        first: VmaRef<'_, P>,
        prev: Option<VmaRef<'_, P>>,
        start: Vaddr,
        end: Vaddr,
    ) {
        let next = self.vma_after(cpu, mm, prev);
        self.lru_add_drain(cpu);
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        self.unmap_vmas(cpu, &mut tlb, first, start, end);
        let floor = prev.map_or(Vaddr(0), |prev| prev.vm_end().read(cpu));
        let ceiling = next.map_or(Vaddr(0), |next| next.vm_start().read(cpu));
        self.free_pgtables(cpu, &mut tlb, Some(first), floor, ceiling);
        self.tlb_finish_mmu(cpu, tlb);
    }

    /// `remove_vma_list()`
    fn remove_vma_list(&self, cpu: &P, mm: MmRef<'_, P>, first: VmaRef<'_, P>) {
        let mut cursor = Some(first);
        while let Some(vma) = cursor {
            let pages = self.vma_pages(cpu, vma) as i64;
            self.vm_stat_account(cpu, mm, -pages);
            cursor = self.remove_vma(cpu, vma);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/munmap.rs"]
mod tests;
