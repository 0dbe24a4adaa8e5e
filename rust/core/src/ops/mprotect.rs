//! `mprotect`. Source: `mm/mprotect.c`, v5.1; P10.

use std::ops::Range;

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, VM_ACCESS_FLAGS, Vaddr, VmFlags, VmaRef};
use crate::platform::{Mutant, Platform};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mprotect`. When it fails half way (a hole: `ENOMEM`), what comes before has the new
    /// protection.
    pub fn sys_mprotect(
        &self,
        cpu: &P,
        start: u64,
        length: u64,
        prot: VmFlags,
    ) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        if length == 0 {
            return Ok(());
        }
        let end = start.wrapping_add(self.page_align(length));
        if end <= start {
            return Err(Errno::Enomem);
        }
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        let result = self.do_mprotect(cpu, mm, Vaddr(start), Vaddr(end), prot);
        sem.up_write(cpu);
        result
    }

    /// `do_mprotect_pkey()`, below `mmap_sem`.
    fn do_mprotect(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        prot: VmFlags,
    ) -> Result<(), Errno> {
        let new_flags = |old: VmFlags| {
            let flags = prot | (old & !VM_ACCESS_FLAGS);
            // VM_MAYREAD and so on stand four bits above what they allow.
            let beyond = VmFlags(flags.0 & !(flags.0 >> 4)).has(VM_ACCESS_FLAGS);
            if beyond { Err(Errno::Eacces) } else { Ok(flags) }
        };
        self.change_flags_of_range(cpu, mm, start, end, new_flags, |vma, prev, range, flags| {
            self.mprotect_fixup(cpu, mm, vma, prev, range, flags)
        })
    }

    /// `mprotect_fixup()`: gives the range, which is in `vma`, the flags. Returns the VMA that holds
    /// the range afterwards.
    pub(super) fn mprotect_fixup<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        range: Range<Vaddr>,
        flags: VmFlags,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let old_flags = vma.vm_flags().read(cpu);
        if flags == old_flags {
            return Ok(vma);
        }
        let accounted = VmFlags::ACCOUNT
            | VmFlags::WRITE
            | VmFlags::HUGETLB
            | VmFlags::SHARED
            | VmFlags::NORESERVE;
        let flags = if flags.has(VmFlags::WRITE) && !old_flags.has(accounted) {
            flags | VmFlags::ACCOUNT // for good: a later mprotect does not take it back
        } else {
            flags
        };
        let vma = self.merge_or_split(cpu, mm, vma, prev, range.clone(), flags)?;
        let _step = cpu.step("mprotect_fixup");
        D::vm_write_begin(cpu, vma);
        vma.vm_flags().write(cpu, flags);
        // Nobody else changes it.
        let old_prot = vma.vm_page_prot().peek();
        let dirty_accountable = self.vma_wants_writenotify(cpu, vma, old_prot);
        self.vma_set_page_prot(cpu, vma);
        let prot = vma.vm_page_prot().read(cpu);
        self.change_protection(cpu, vma, range.start, range.end, prot, dirty_accountable);
        let copies = VmFlags::WRITE | VmFlags::SHARED | VmFlags::LOCKED;
        let populate = old_flags & copies == VmFlags::LOCKED && flags.has(VmFlags::WRITE);
        if populate && cpu.mutant(Mutant::A30) {
            self.populate_for_mprotect(cpu, mm, vma, range.start, range.end);
        }
        D::vm_write_end(cpu, vma);
        // Not before the end: a fault of its own would meet the odd sequence.
        if populate {
            self.populate_for_mprotect(cpu, mm, vma, range.start, range.end);
        }
        Ok(vma)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/mprotect.rs"]
mod tests;
