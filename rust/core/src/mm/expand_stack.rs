//! Stacks: a VMA grows down to where a fault was.
//!
//! Bounds change here although `mmap_sem` is only held for reading: `page_table_lock` keeps such
//! changes apart, and rmap out the lock of the anon_vma. Nobody else who holds `mmap_sem` for
//! reading may rely on where a VMA that grows begins. Source: `mm/mmap.c`, v5.1; P10.

use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use super::tree::STACK_GUARD_PAGES;
use super::types::{Vaddr, VmFlags};
use super::vma::VM_ACCESS_FLAGS;
use crate::design::Design;
use crate::platform::Platform;
use crate::sync::spinlock::{spin_lock, spin_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `expand_stack()`: makes `vma`, which begins above `address`, begin there. False if it does
    /// not grow down, or may not. Caller holds `mmap_sem`; several may be here at once.
    #[cold]
    pub(crate) fn expand_stack(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> bool {
        if !vma.vm_flags().read(cpu).has(VmFlags::GROWSDOWN) {
            return false;
        }
        self.expand_downwards(cpu, mm, vma, Vaddr(address.0 & !(self.page_size() - 1)))
    }

    /// `expand_downwards()`
    fn expand_downwards(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
    ) -> bool {
        if address.0 < self.config.system.mmap_min_addr || self.in_guard_gap(cpu, vma, address) {
            return false;
        }
        // Without an anon_vma there would be no lock.
        if self.anon_vma_prepare(cpu, vma).is_err() {
            return false;
        }
        let _step = cpu.step("expand_downwards");
        let anon_vma = self.anon_vmas.get(cpu, vma.anon_vma().read(cpu));
        let rmap = self.anon_vma_sem(cpu, anon_vma);
        rmap.down_write(cpu);
        // Somebody else may have been as far by now.
        let start = vma.vm_start().read(cpu);
        let done = address >= start
            || (self.acct_stack_growth(cpu, vma, address)
                && self.move_start_down(cpu, mm, vma, start, address));
        rmap.up_write(cpu);
        done
    }

    /// Whether `address` is too near to memory below that can be accessed and is no stack itself.
    fn in_guard_gap(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> bool {
        let Some(prev) = self.vm_prev(cpu, vma) else { return false };
        let flags = prev.vm_flags().read(cpu);
        !flags.has(VmFlags::GROWSDOWN)
            && flags.has(VM_ACCESS_FLAGS)
            && address.since(prev.vm_end().read(cpu)) < STACK_GUARD_PAGES << self.page_shift()
    }

    /// `acct_stack_growth()`: the limit. Memory is never short of promises here.
    fn acct_stack_growth(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> bool {
        vma.vm_end().read(cpu).since(address) <= self.config.system.stack_limit
    }

    /// False, with nothing changed, if the page offset would become negative.
    fn move_start_down(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        address: Vaddr,
    ) -> bool {
        let pages = start.since(address) >> self.page_shift();
        let Some(pgoff) = vma.vm_pgoff().read(cpu).checked_sub(pages) else { return false };
        spin_lock(cpu, mm.page_table_lock());
        if vma.vm_flags().read(cpu).has(VmFlags::LOCKED) {
            self.add_locked_vm(cpu, mm, pages as i64);
        }
        self.vm_stat_account(cpu, mm, pages as i64);
        D::vm_write_begin(cpu, vma);
        vma.vm_start().write(cpu, address);
        vma.vm_pgoff().write(cpu, pgoff);
        D::vm_write_end(cpu, vma);
        self.vma_gap_update(cpu, vma);
        spin_unlock(cpu, mm.page_table_lock());
        true
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/expand_stack.rs"]
mod tests;
