//! `exec`: a fresh address space for the current task.
//!
//! Source: `fs/exec.c`, v5.1. No image is loaded: the new address space is empty, apart from
//! where its heap will begin. The process's other tasks have ended before.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, Vaddr};
use crate::platform::{Platform, Value};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Replaces the address space of the current task; `brk_start` says where the heap of the new
    /// one begins. On failure the old one stays.
    pub fn sys_exec(&self, cpu: &P, brk_start: Option<u64>) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        cpu.charge(Cost::TaskSetup, 1);
        let mm = self.mm_alloc(cpu).ok_or(Errno::Enomem)?;
        if let Some(start) = brk_start {
            mm.start_brk().poke(Vaddr(start));
            mm.brk().poke(Vaddr(start));
        }
        self.exec_mmap(cpu, mm);
        Ok(())
    }

    /// `exec_mmap()`: leaves the old address space for `mm`.
    fn exec_mmap(&self, cpu: &P, mm: MmRef<'_, P>) {
        let old_mm = self.current_mm(cpu);
        self.sync_mm_rss(cpu, old_mm);
        // The kernel makes sure here that nobody dumps the old address space.
        let sem = self.mmap_sem(old_mm);
        sem.down_read(cpu);
        self.current(cpu).mm.set(mm.ptr().to_word());
        self.vmacache_flush(cpu);
        sem.up_read(cpu);
        self.mmput(cpu, old_mm);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/exec.rs"]
mod tests;
