//! `swap_out`: what reclaim does with a range. No system call: the task stands for kswapd.

use crate::design::Design;
use crate::mm::{Errno, Kernel, Vaddr};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Swaps out the anonymous pages of the current address space in `start..start + length`,
    /// and of every other address space that maps the same pages. Pages that cannot be swapped
    /// stay, and are no error; `keep_cache`: all stay in memory, in the swap cache.
    pub fn swap_out(
        &self,
        cpu: &P,
        start: u64,
        length: u64,
        keep_cache: bool,
    ) -> Result<(), Errno> {
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        // Above user space there is nothing.
        let task_size = self.config.arch.task_size;
        let end = start.saturating_add(length).min(task_size).next_multiple_of(self.page_size());
        let mm = self.current_mm(cpu);
        self.reclaim_range(cpu, mm, Vaddr(start)..Vaddr(end), keep_cache);
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/swap_out.rs"]
mod tests;
