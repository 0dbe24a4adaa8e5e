//! `brk`. Source: `mm/mmap.c`, v5.1; P08.

use super::munmap::{Downgrade, Held};
use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MergeRequest, MmRef, Vaddr, VmFlags};
use crate::platform::{Platform, Ptr};

/// A 2 MiB boundary above where x86 puts a program of position-independent code
/// (`ELF_ET_DYN_BASE`, two thirds of user space).
const DEFAULT_START_BRK: u64 = 0x5555_5580_0000;
const HEAP_ALIGN: u64 = 2 << 20;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `brk`, by a difference to the break that is; returns the new break. `start` is where the
    /// heap of a process begins that has not called brk before.
    ///
    /// The system call answers a request that it refuses with the old break, which libc makes
    /// `ENOMEM`.
    pub fn sys_brk(&self, cpu: &P, delta: i64, start: Option<u64>) -> Result<u64, Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        let mm = self.current_mm(cpu);
        self.mmap_sem(mm).down_write(cpu);
        if !mm.brk_used().read(cpu) {
            mm.brk_used().write(cpu, true);
            if let Some(start) = start {
                mm.start_brk().write(cpu, Vaddr(start));
                mm.brk().write(cpu, Vaddr(start));
            }
        }
        let old = mm.brk().read(cpu);
        // As sbrk(3), which does not ask the kernel when the sum does not fit.
        let request = old.0.checked_add_signed(delta).map(Vaddr).ok_or(Errno::Enomem);
        let held = request.and_then(|request| self.do_brk(cpu, mm, old, request));
        self.release_mmap_sem(cpu, mm, held.unwrap_or(Held::Write));
        held.and(request).map(|brk| brk.0)
    }

    /// Where the heap begins unless the program says so; lower where user space is smaller.
    pub(super) fn default_start_brk(&self) -> Vaddr {
        let task_size = self.config.arch.task_size;
        if DEFAULT_START_BRK < task_size {
            Vaddr(DEFAULT_START_BRK)
        } else {
            Vaddr((task_size / 3 * 2).next_multiple_of(HEAP_ALIGN))
        }
    }

    /// The system call below `mmap_sem`: moves the break from `old` to `brk`.
    fn do_brk(&self, cpu: &P, mm: MmRef<'_, P>, old: Vaddr, brk: Vaddr) -> Result<Held, Errno> {
        if brk < mm.start_brk().read(cpu) {
            return Err(Errno::Enomem);
        }
        let (new_end, old_end) = (self.page_align(brk.0), self.page_align(old.0));
        if new_end == old_end {
            mm.brk().write(cpu, brk);
            return Ok(Held::Write);
        }
        if brk <= old {
            // Before `mmap_sem` is downgraded, for the break needs it for write.
            mm.brk().write(cpu, brk);
            let result = self.do_munmap(cpu, mm, new_end, old_end - new_end, Downgrade::Allowed);
            return result.map_err(|_| {
                mm.brk().write(cpu, old);
                Errno::Enomem
            });
        }
        // One page stays free between the heap and what comes next.
        if let Some(next) = self.find_vma(cpu, mm, Vaddr(old_end))
            && new_end.wrapping_add(self.page_size()) > self.vm_start_gap(cpu, next)
        {
            return Err(Errno::Enomem);
        }
        self.do_brk_flags(cpu, mm, old_end, new_end.wrapping_sub(old_end))
            .map_err(|_| Errno::Enomem)?;
        mm.brk().write(cpu, brk);
        Ok(Held::Write)
    }

    /// `do_brk_flags()`: anonymous memory at the end of the heap.
    fn do_brk_flags(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let start = self.get_unmapped_area(cpu, mm, start, length, true)?;
        let links = self.munmap_links(cpu, mm, start, length)?;
        if mm.map_count().read(cpu) > self.max_map_count(cpu) {
            return Err(Errno::Enomem);
        }
        let flags = VmFlags::READ
            | VmFlags::WRITE
            | VmFlags::MAYREAD
            | VmFlags::MAYWRITE
            | VmFlags::MAYEXEC
            | VmFlags::ACCOUNT;
        let request = MergeRequest {
            start,
            end: start.offset(length),
            flags,
            anon_vma: Ptr::NULL,
            file: Ptr::NULL,
            pgoff: start.0 >> self.page_shift(),
            policy: Ptr::NULL,
        };
        let vma = match self.vma_merge(cpu, mm, links.prev, &request) {
            Some(vma) => vma,
            None => {
                let vma = self.vm_area_alloc(cpu, mm);
                vma.vm_start().poke(request.start);
                vma.vm_end().poke(request.end);
                vma.vm_pgoff().poke(request.pgoff);
                vma.vm_flags().poke(flags);
                vma.vm_page_prot().poke(self.vm_get_page_prot(flags));
                self.vma_link(cpu, mm, vma, links);
                vma
            }
        };
        self.vm_stat_account(cpu, mm, (length >> self.page_shift()) as i64);
        // Not bracketed in the series; no fault looks at this flag.
        vma.vm_flags().write(cpu, vma.vm_flags().read(cpu) | VmFlags::SOFTDIRTY);
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/brk.rs"]
mod tests;
