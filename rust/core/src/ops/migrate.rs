//! `migrate`: pages go to other frames, of a node. No system call: the task stands for compaction.

use crate::design::Design;
use crate::mm::{Errno, Kernel, Vaddr};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Moves the anonymous pages of the current address space in `start..start + length`, also
    /// where others map them. Pages that somebody is at stay, and are no error.
    pub fn migrate(&self, cpu: &P, start: u64, length: u64, node: u64) -> Result<(), Errno> {
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        if node >= u64::from(self.config.system.nodes) {
            return Err(Errno::Enodev);
        }
        if self.mems_allowed(cpu) >> node & 1 == 0 {
            return Err(Errno::Eacces);
        }
        // Above user space there is nothing.
        let task_size = self.config.arch.task_size;
        let end = start.saturating_add(length).min(task_size).next_multiple_of(self.page_size());
        let mm = self.current_mm(cpu);
        self.migrate_range(cpu, mm, Vaddr(start)..Vaddr(end), node as u32);
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/migrate.rs"]
mod tests;
