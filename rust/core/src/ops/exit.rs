//! The end of a task, and of the address space with its last one.
//!
//! Source: `kernel/exit.c`, `kernel/fork.c`, `mm/mmap.c`, v5.1; VMA references: P20, P21.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Kernel, MmRef, Vaddr, VmaRef};
use crate::platform::{Platform, Ptr, Value};
use crate::sync::refcount::atomic_dec_and_test;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// The end of a task: `exit_mm()`, which leaves its address space for good, and
    /// `mpol_put_task_policy()`.
    pub fn exit_mm(&self, cpu: &P) {
        cpu.charge(Cost::SyscallEntryExit, 1);
        cpu.charge(Cost::TaskSetup, 1);
        let mm = self.current_mm(cpu);
        self.sync_mm_rss(cpu, mm);
        // The kernel serialises with a core dump here.
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        self.current(cpu).mm.set(0);
        sem.up_read(cpu);
        self.mmput(cpu, mm);
        let policy = self.current(cpu).mempolicy.get();
        self.current(cpu).mempolicy.set(0);
        self.mpol_put(cpu, Ptr::from_word(policy));
    }

    /// `mmput()`: one user less; with the last the mappings go.
    pub(crate) fn mmput(&self, cpu: &P, mm: MmRef<'_, P>) {
        if atomic_dec_and_test(cpu, mm.mm_users()) {
            self.exit_mmap(cpu, mm);
            self.mmdrop(cpu, mm);
        }
    }

    /// `exit_mmap()`: takes everything down. No lock is held: nobody else has the address space.
    fn exit_mmap(&self, cpu: &P, mm: MmRef<'_, P>) {
        let _step = cpu.step("exit_mmap");
        self.mmu_notifier_release(cpu, mm);
        // None: the program unmapped everything, or fork failed at the first VMA.
        let Some(first) = self.vmas.get_opt(cpu, mm.mmap().read(cpu)) else { return };
        self.munlock_vmas(cpu, mm, first, Vaddr(u64::MAX), None);
        self.lru_add_drain(cpu);
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        self.unmap_vmas(cpu, &mut tlb, first, Vaddr(0), Vaddr(u64::MAX));
        self.free_pgtables(cpu, &mut tlb, Some(first), Vaddr(0), Vaddr(0));
        self.tlb_finish_mmu(cpu, tlb);

        let mut cursor = Some(first);
        while let Some(vma) = cursor {
            cursor = self.vmas.get_opt(cpu, vma.vm_next().read(cpu));
            self.remove_linked_vma(cpu, vma);
        }
    }

    /// `remove_vma()` of a VMA that was never unlinked: closes its file and drops all references
    /// of a linked VMA, the tree's too. Nobody can be looking it up, so no grace period is
    /// waited for.
    fn remove_linked_vma(&self, cpu: &P, vma: VmaRef<'_, P>) {
        // RB_CLEAR_NODE
        vma.rb_parent().write(cpu, vma.ptr());
        self.vm_ops_close(cpu, vma);
        let file = vma.vm_file().read(cpu);
        if !file.is_null() {
            self.fput(cpu, file);
            vma.vm_file().write(cpu, Ptr::NULL);
        }
        for _ in 0..D::LINKED_REFS {
            D::put_vma(self, cpu, vma);
        }
    }

    /// `mmdrop()`: the struct and its top page table go with the last reference.
    pub(super) fn mmdrop(&self, cpu: &P, mm: MmRef<'_, P>) {
        if atomic_dec_and_test(cpu, mm.mm_count()) {
            self.check_mm_is_empty(cpu, mm);
            self.pgd_free(cpu, mm);
            self.mms.free(cpu, mm);
        }
    }

    /// `check_mm()`: an address space that is empty has nothing resident and no page tables.
    fn check_mm_is_empty(&self, cpu: &P, mm: MmRef<'_, P>) {
        for (name, left) in [
            ("MM_FILEPAGES", mm.file_pages().read(cpu)),
            ("MM_ANONPAGES", mm.anon_pages().read(cpu)),
            ("MM_SWAPENTS", mm.swap_entries().read(cpu)),
        ] {
            if left != 0 {
                cpu.finding(
                    "rss-count",
                    format!("{name} is {left} at exit: pages that no VMA covers are still mapped"),
                );
            }
        }
        let pgtables = mm.pgtables().read(cpu);
        if pgtables != 0 {
            cpu.finding("page-table-count", format!("{pgtables} page tables left at exit"));
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/exit.rs"]
mod tests;
