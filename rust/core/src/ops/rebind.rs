//! `rebind`: the cpuset of the task gets other nodes. No system call: a write to `cpuset.mems`.
//!
//! Source: `kernel/cgroup/cpuset.c`, v5.1. DEVIATION: each task has a cpuset to itself, which begins
//! as its parent's is then.

use crate::design::Design;
use crate::mm::{Errno, Kernel};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `update_nodemask()` and `update_tasks_nodemask()`: the policy of the task follows, then those
    /// of its address space. No page moves (`cpuset.memory_migrate` is 0).
    pub fn rebind(&self, cpu: &P, nodes: u64) -> Result<(), Errno> {
        if !self.config.system.numa {
            return Err(Errno::Enosys);
        }
        if nodes & !self.online_nodes() != 0 {
            return Err(Errno::Einval);
        }
        // validate_change(): the cpuset has a task.
        if nodes == 0 {
            return Err(Errno::Enospc);
        }
        if nodes != self.mems_allowed(cpu) {
            // cpuset_change_task_nodemask()
            self.mpol_rebind_task(cpu, nodes);
            self.current(cpu).mems_allowed.set(nodes);
            self.mpol_rebind_mm(cpu, self.current_mm(cpu), nodes);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/rebind.rs"]
mod tests;
