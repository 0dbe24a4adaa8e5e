//! The OOM reaper: takes the private memory of a process that the OOM killer has chosen.
//!
//! Source: `mm/oom_kill.c`, `include/linux/oom.h`, v5.1.

use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use super::types::{VmFault, VmFlags};
use super::vma::can_madv_dontneed_vma;
use crate::design::Design;
use crate::platform::{Ordering, Platform};

/// Bits of `mm->flags`, with the kernel's numbers: nothing is left to reap; what was private may be
/// gone, so a fault must not bring zeroes in its place.
const MMF_OOM_SKIP: u64 = 1 << 21;
const MMF_UNSTABLE: u64 = 1 << 22;

/// `MAX_OOM_REAP_RETRIES`, and what it waits in between (`HZ/10`).
const MAX_OOM_REAP_RETRIES: u32 = 10;
const RETRY_NS: u64 = 100_000_000;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `check_stable_address_space()`. Caller holds the page-table lock: whoever reaps comes to
    /// this table later, or has set the bit before.
    #[inline(always)]
    pub(crate) fn check_stable_address_space(&self, cpu: &P, mm: MmRef<'_, P>) -> VmFault {
        let unstable = mm.flags().read(cpu) & MMF_UNSTABLE != 0;
        if unstable { VmFault::SIGBUS } else { VmFault::NONE }
    }

    /// `oom_reap_task()`: tries a few times, for it must not wait for `mmap_sem`, whose holder may
    /// wait for memory.
    pub(crate) fn oom_reap_task(&self, cpu: &P, mm: MmRef<'_, P>) {
        let _step = cpu.step("oom_reap_task");
        for _ in 0..MAX_OOM_REAP_RETRIES {
            if self.oom_reap_task_mm(cpu, mm) {
                break;
            }
            cpu.pass_ns(RETRY_NS, false);
        }
        set_bit(cpu, mm, MMF_OOM_SKIP);
    }

    /// `oom_reap_task_mm()`. False: somebody holds `mmap_sem` for writing.
    fn oom_reap_task_mm(&self, cpu: &P, mm: MmRef<'_, P>) -> bool {
        let sem = self.mmap_sem(mm);
        if !sem.down_read_trylock(cpu) {
            return false;
        }
        if mm.flags().read(cpu) & MMF_OOM_SKIP == 0 {
            self.oom_reap_mm(cpu, mm);
        }
        sem.up_read(cpu);
        true
    }

    /// `__oom_reap_task_mm()`. Caller holds `mmap_sem` for reading; `unmap_page_range` brackets
    /// each VMA (P09, B1).
    fn oom_reap_mm(&self, cpu: &P, mm: MmRef<'_, P>) {
        // Before anything goes: pairs with check_stable_address_space by the page-table lock.
        set_bit(cpu, mm, MMF_UNSTABLE);
        for vma in self.each_vma(cpu, mm) {
            if self.is_reaped(cpu, vma) {
                let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
                self.zap_page_range(cpu, vma, start, end);
            }
        }
    }

    /// `can_madv_dontneed_vma()`, and whether its memory is private.
    fn is_reaped(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        let flags = vma.vm_flags().read(cpu);
        can_madv_dontneed_vma(flags)
            && (self.vma_is_anonymous(cpu, vma) || !flags.has(VmFlags::SHARED))
    }
}

/// `set_bit()` in `mm->flags`.
fn set_bit<P: Platform>(cpu: &P, mm: MmRef<'_, P>, bit: u64) {
    let mut flags = mm.flags().read(cpu);
    while let Err(now) = mm.flags().compare_exchange(cpu, flags, flags | bit, Ordering::Relaxed) {
        flags = now;
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/oom_kill.rs"]
mod tests;
