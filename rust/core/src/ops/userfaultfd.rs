//! userfaultfd: the ranges whose missing pages user space brings, for which stands the emulator.
//!
//! Each address space has one context, and its descriptor asks for no events.
//! Source: `fs/userfaultfd.c`, v5.1; P10. The fault's half: `fault/userfaultfd.rs`.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, Vaddr, VmFlags, VmOps, VmaRef};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `userfaultfd_register()` for `missing` pages, or else `userfaultfd_unregister()`. Holes are
    /// skipped; in front of the first VMA there may be one, too.
    pub fn userfaultfd_change(
        &self,
        cpu: &P,
        start: u64,
        length: u64,
        missing: bool,
    ) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        // validate_range()
        let task_size = self.config.arch.task_size;
        let unaligned = self.offset_in_page(start) != 0 || self.offset_in_page(length) != 0;
        let mmap_min_addr = self.config.system.mmap_min_addr;
        let outside = start < mmap_min_addr || start >= task_size || length > task_size - start;
        if unaligned || length == 0 || outside {
            return Err(Errno::Einval);
        }
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        let result = self.change_missing(cpu, mm, Vaddr(start), Vaddr(start + length), missing);
        sem.up_write(cpu);
        result
    }

    /// Changes VMA by VMA, once all of them can be.
    fn change_missing(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        missing: bool,
    ) -> Result<(), Errno> {
        let (first, mut prev) = self.find_vma_prev(cpu, mm, start);
        let first = first.ok_or(Errno::Enomem)?;
        let within = |vma: &VmaRef<'_, P>| vma.vm_start().read(cpu) < end;
        if !within(&first) {
            return Err(Errno::Einval);
        }
        if !self.may_split(cpu, first, start) {
            return Err(Errno::Einval);
        }
        let mut cursor = Some(first);
        while let Some(vma) = cursor.filter(within) {
            // Unregistering finds out when it comes to cut there.
            let cuts = missing && end <= vma.vm_end().read(cpu);
            if !self.vma_can_userfault(cpu, vma) || cuts && !self.may_split(cpu, vma, end) {
                return Err(Errno::Einval);
            }
            cursor = self.vm_next(cpu, vma);
        }
        if first.vm_start().read(cpu) < start {
            prev = Some(first);
        }
        let mut at = start;
        cursor = Some(first);
        while let Some(mut vma) = cursor.filter(within) {
            let flags = vma.vm_flags().read(cpu);
            if flags.has(VmFlags::UFFD_MISSING) != missing {
                at = at.max(vma.vm_start().read(cpu));
                let to = vma.vm_end().read(cpu).min(end);
                let others = flags & !VmFlags::UFFD_MISSING;
                let flags = if missing { others | VmFlags::UFFD_MISSING } else { others };
                vma = self.merge_or_split(cpu, mm, vma, prev, at..to, flags)?;
                self.set_vm_flags(cpu, vma, flags);
            }
            at = vma.vm_end().read(cpu);
            prev = Some(vma);
            cursor = self.vm_next(cpu, vma);
        }
        Ok(())
    }

    /// `vma_can_userfault()`
    fn vma_can_userfault(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        let ops = vma.vm_ops().read(cpu);
        [VmOps::None, VmOps::Shmem, VmOps::Hugetlb].iter().any(|&can| can as u64 == ops)
    }

    /// `dup_userfaultfd()` without the event: the child's copy belongs to no context.
    pub(super) fn dup_userfaultfd(&self, cpu: &P, vma: VmaRef<'_, P>) {
        let flags = vma.vm_flags().read(cpu);
        if flags.has(VmFlags::UFFD_MISSING) {
            self.set_vm_flags(cpu, vma, flags & !VmFlags::UFFD_MISSING);
        }
    }

    /// `mremap_userfaultfd_prep()` without the event: nor does what has moved. It is odd still.
    pub(super) fn mremap_userfaultfd_prep(&self, cpu: &P, new_vma: VmaRef<'_, P>) {
        let flags = new_vma.vm_flags().read(cpu);
        if flags.has(VmFlags::UFFD_MISSING) {
            new_vma.vm_flags().write(cpu, flags & !VmFlags::UFFD_MISSING);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/userfaultfd.rs"]
mod tests;
