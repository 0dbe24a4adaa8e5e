//! `clear_refs`: a task writes a number to its own `/proc/self/clear_refs`.
//!
//! Source: `fs/proc/task_mmu.c`, v5.1; P10. `get_task_mm()` would count the address space used
//! once more meanwhile (W3), but nobody of it faults while its only task is here.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{ClearRefs, Errno, Kernel, Variant};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `clear_refs_write()`: 1 to 3 make pages old, 4 makes the next write to each fault. 5 forgets
    /// the highest number of pages so far, which nothing here keeps: of that, the lock is left.
    pub fn clear_refs(&self, cpu: &P, what: u64) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        let what = match what {
            1 => ClearRefs::All,
            2 => ClearRefs::Anon,
            3 => ClearRefs::Mapped,
            4 => ClearRefs::SoftDirty,
            5 => {
                sem.down_write(cpu);
                sem.up_write(cpu);
                return Ok(());
            }
            _ => return Err(Errno::Einval),
        };
        // arm64 has neither the flag nor the bit.
        let tracks = what != ClearRefs::SoftDirty || self.config.arch.has_soft_dirty();
        if tracks && what == ClearRefs::SoftDirty && !self.v12(Variant::L1) {
            sem.down_write(cpu);
            self.clear_soft_dirty_alone(cpu, mm);
            sem.up_write(cpu);
            return Ok(());
        }
        sem.down_read(cpu);
        if tracks && what == ClearRefs::SoftDirty && self.any_vma_soft_dirty(cpu, mm) {
            sem.up_read(cpu);
            sem.down_write(cpu);
            self.clear_vma_soft_dirty(cpu, mm);
            sem.downgrade_write(cpu);
        }
        if tracks {
            self.clear_refs_walk(cpu, mm, what);
        }
        sem.up_read(cpu);
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/clear_refs.rs"]
mod tests;

#[cfg(test)]
#[path = "../../tests/unit/ops/clear_refs_schedules.rs"]
mod schedules;
