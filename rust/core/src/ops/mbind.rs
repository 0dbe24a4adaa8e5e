//! `mbind` and `set_mempolicy`. Source: `mm/mempolicy.c`, v5.1.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, MpolMode, Vaddr};
use crate::platform::{Platform, Ptr, Value};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mbind` without flags: no page moves.
    pub fn sys_mbind(
        &self,
        cpu: &P,
        start: u64,
        length: u64,
        mode: MpolMode,
        nodes: u64,
    ) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        if !self.config.system.numa {
            return Err(Errno::Enosys);
        }
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        // Of almost 2^64 bytes nothing is left.
        let end = start.wrapping_add(self.page_align(length));
        if end < start {
            return Err(Errno::Einval);
        }
        if end == start {
            return Ok(());
        }
        let new = self.mpol_new(cpu, mode, nodes)?.map_or(Ptr::NULL, |policy| policy.ptr());
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        let (start, end) = (Vaddr(start), Vaddr(end));
        let result = if !new.is_null() && self.has_hole(cpu, mm, start, end) {
            Err(Errno::Efault)
        } else {
            self.mbind_range(cpu, mm, start, end, new)
        };
        sem.up_write(cpu);
        self.mpol_put(cpu, new);
        result
    }

    /// What `queue_pages_range()` of 5.1 finds out about a range: whether there is a hole between
    /// two of its VMAs. A hole at its end is overlooked (until 5.5).
    fn has_hole(&self, cpu: &P, mm: MmRef<'_, P>, start: Vaddr, end: Vaddr) -> bool {
        let mut cursor = self.find_vma(cpu, mm, start);
        while let Some(vma) = cursor {
            cursor = self.vm_next(cpu, vma).filter(|next| next.vm_start().read(cpu) < end);
            if cursor.is_some_and(|next| next.vm_start().read(cpu) > vma.vm_end().read(cpu)) {
                return true;
            }
        }
        false
    }

    /// `set_mempolicy`: the policy of the current task, where a VMA has none.
    pub fn sys_set_mempolicy(&self, cpu: &P, mode: MpolMode, nodes: u64) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        if !self.config.system.numa {
            return Err(Errno::Enosys);
        }
        let new = self.mpol_new(cpu, mode, nodes)?.map_or(Ptr::NULL, |policy| policy.ptr());
        let task = self.current(cpu);
        self.mpol_put(cpu, Ptr::from_word(task.mempolicy.get()));
        task.mempolicy.set(new.to_word());
        if mode == MpolMode::Interleave {
            task.il_prev.set(u64::from(u64::BITS - 1)); // the first node is next
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/mbind.rs"]
mod tests;
