//! `oom_reap`: the OOM reaper at work on the current process. No system call.

use crate::design::Design;
use crate::mm::Kernel;
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Takes the private memory of the process, once in its life; the task stands for the reaper,
    /// and the process goes on, where the kernel's has been killed.
    pub fn oom_reap(&self, cpu: &P) {
        let mm = self.current_mm(cpu);
        self.oom_reap_task(cpu, mm);
    }
}
