//! `numa_scan`: the scanner of NUMA balancing at work. No system call.
//!
//! Source: `task_numa_work()`, `kernel/sched/fair.c`, v5.1. A program says what is scanned, and when.

use crate::design::Design;
use crate::mm::{Errno, Kernel, Vaddr, VmFlags, VmOps, VmaRef};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Makes the PTEs of the range protnone, so that the next access of each page is seen.
    pub fn numa_scan(&self, cpu: &P, start: u64, length: u64) -> Result<(), Errno> {
        if !self.config.system.numa {
            return Err(Errno::Enosys);
        }
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        // Above user space there is nothing.
        let task_size = self.config.arch.task_size;
        let end = start.saturating_add(length).min(task_size).next_multiple_of(self.page_size());
        let (start, end) = (Vaddr(start), Vaddr(end));
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        let mut cursor = self.find_vma(cpu, mm, start);
        while let Some(vma) = cursor.filter(|vma| vma.vm_start().read(cpu) < end) {
            let from = start.max(vma.vm_start().read(cpu));
            let to = end.min(vma.vm_end().read(cpu));
            // DEVIATION: with one user 5.1 passes only pages that are on its node, most of them.
            let settled = mm.mm_users().read(cpu) == 1;
            if from < to && !settled && self.is_scanned(cpu, vma) {
                self.change_prot_numa(cpu, vma, from, to);
            }
            cursor = self.vm_next(cpu, vma);
        }
        sem.up_read(cpu);
        Ok(())
    }

    /// Private memory that may be accessed, and without a policy (`vma_policy_mof()`): what somebody
    /// has placed is not moved. Nor is what has a shmem file, even its private pages, for
    /// `shmem_get_policy()` has none that says so; nor libraries, of which each node may have its
    /// own copy.
    fn is_scanned(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        let flags = vma.vm_flags().read(cpu);
        let read_only = flags & (VmFlags::READ | VmFlags::WRITE) == VmFlags::READ;
        let is_library = read_only && !vma.vm_file().read(cpu).is_null();
        !is_library
            && !flags.has(VmFlags::SHARED | VmFlags::HUGETLB)
            && self.vma_is_accessible(cpu, vma)
            && vma.vm_ops().read(cpu) != VmOps::Shmem as u64
            && !self.has_policy(cpu, vma)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/numa_scan.rs"]
mod tests;
