//! `exec`: a fresh address space for the current task.
//!
//! Source: `fs/exec.c`, v5.1. No image is loaded: the new address space is empty, apart from
//! where its heap will begin.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, Vaddr};
use crate::platform::{Platform, Value};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Replaces the address space of the current task; `brk_start` says where the heap of the new
    /// one begins. `de_thread` ends the other tasks of the process, once nothing can fail any
    /// more; if it does not return, because the task is to end itself, nothing has changed.
    pub fn sys_exec<E>(
        &self,
        cpu: &P,
        brk_start: Option<u64>,
        de_thread: impl FnOnce() -> Result<(), E>,
    ) -> Result<Result<(), Errno>, E> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        cpu.charge(Cost::TaskSetup, 1);
        let Some(mm) = self.mm_alloc(cpu) else { return Ok(Err(Errno::Enomem)) };
        if let Some(start) = brk_start {
            mm.start_brk().poke(Vaddr(start));
            mm.brk().poke(Vaddr(start));
            mm.brk_used().poke(true); // a later `start` of brk means nothing
        }
        if let Err(ended) = de_thread() {
            self.mmput(cpu, mm);
            return Err(ended);
        }
        self.exec_mmap(cpu, mm);
        Ok(Ok(()))
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
