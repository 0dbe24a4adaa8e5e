//! `mlock`, `mlock2`, `munlock`. Source: `mm/mlock.c`, v5.1; P10. There is no limit on locked
//! memory.

use std::ops::Range;

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, VM_LOCKED_BOTH, VM_SPECIAL, Vaddr, VmFlags, VmaRef};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mlock`, or with `onfault` `mlock2` with `MLOCK_ONFAULT`. An error from a hole leaves what
    /// comes before it locked, one from bringing pages in all of it.
    pub fn sys_mlock(&self, cpu: &P, start: u64, length: u64, onfault: bool) -> Result<(), Errno> {
        let flags = if onfault { VM_LOCKED_BOTH } else { VmFlags::LOCKED };
        let (start, length) = self.lock_flags_call(cpu, start, length, flags)?;
        // __mlock_posix_error_return()
        self.mm_populate_all(cpu, start, length).map_err(|errno| match errno {
            Errno::Efault => Errno::Enomem,
            Errno::Enomem => Errno::Eagain,
            other => other,
        })
    }

    /// `munlock`
    pub fn sys_munlock(&self, cpu: &P, start: u64, length: u64) -> Result<(), Errno> {
        self.lock_flags_call(cpu, start, length, VmFlags::NONE).map(drop)
    }

    /// What both calls begin with. Returns the range in whole pages.
    fn lock_flags_call(
        &self,
        cpu: &P,
        start: u64,
        length: u64,
        flags: VmFlags,
    ) -> Result<(u64, u64), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        let inside = self.offset_in_page(start);
        let length = self.page_align(length.wrapping_add(inside));
        let start = start - inside;
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        let result = self.apply_vma_lock_flags(cpu, mm, start, length, flags);
        sem.up_write(cpu);
        result.map(|()| (start, length))
    }

    /// `apply_vma_lock_flags()`: VMA by VMA.
    fn apply_vma_lock_flags(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: u64,
        length: u64,
        flags: VmFlags,
    ) -> Result<(), Errno> {
        let end = Vaddr(start.checked_add(length).ok_or(Errno::Einval)?);
        let start = Vaddr(start);
        if end == start {
            return Ok(());
        }
        let new_flags = |old: VmFlags| Ok(old & !VM_LOCKED_BOTH | flags);
        self.change_flags_of_range(cpu, mm, start, end, new_flags, |vma, prev, range, flags| {
            self.mlock_fixup(cpu, mm, vma, prev, range, flags)
        })
    }

    /// `mlock_fixup()`: gives the range, which is in `vma`, the flags. Returns the VMA that holds
    /// the range afterwards.
    fn mlock_fixup<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        range: Range<Vaddr>,
        flags: VmFlags,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let old_flags = vma.vm_flags().read(cpu);
        if flags == old_flags || old_flags.has(VM_SPECIAL | VmFlags::HUGETLB) {
            return Ok(vma);
        }
        let vma = self.merge_or_split(cpu, mm, vma, prev, range.clone(), flags)?;
        let _step = cpu.step("mlock_fixup");
        let pages = (range.end.since(range.start) >> self.page_shift()) as i64;
        if !flags.has(VmFlags::LOCKED) {
            self.add_locked_vm(cpu, mm, -pages);
            self.munlock_vma_pages_range(cpu, vma, range.start, range.end);
            return Ok(vma);
        }
        if !old_flags.has(VmFlags::LOCKED) {
            self.add_locked_vm(cpu, mm, pages);
        }
        self.set_vm_flags(cpu, vma, flags);
        Ok(vma)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/mlock.rs"]
mod tests;
