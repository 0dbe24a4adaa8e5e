//! `fork`: a copy of the address space; `vfork` and `clone` share it.
//!
//! Source: `kernel/fork.c`, v5.1; the brackets around each copied VMA: P18.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, VmFlags, VmaLinks, VmaRef};
use crate::platform::{Mutant, Platform, Ptr, TaskId, Value};
use crate::sync::refcount::atomic_inc;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Gives the tasks without a `start` their common, empty address space, before they run.
    /// `ENOMEM`: there is no frame for the top page table.
    pub fn start_process(&self, cpu: &P, tasks: &[TaskId]) -> Result<(), Errno> {
        let mm = self.mm_alloc(cpu).ok_or(Errno::Enomem)?;
        mm.mm_users().poke(tasks.len() as u64);
        for &task in tasks {
            self.attach_mm(cpu, task, mm);
        }
        Ok(())
    }

    /// `fork()`: `child` gets a copy of the current task's address space. On failure nothing is
    /// left, and `child` has none.
    pub fn sys_fork(&self, cpu: &P, child: TaskId) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        cpu.charge(Cost::TaskSetup, 1);
        let mm = self.dup_mm(cpu, self.current_mm(cpu))?;
        self.attach_mm(cpu, child, mm);
        self.copy_mempolicy(cpu, child);
        Ok(())
    }

    /// `clone()` with CLONE_VM, and `vfork()`: `child` shares the current task's address space.
    pub fn sys_clone_vm(&self, cpu: &P, child: TaskId) {
        cpu.charge(Cost::SyscallEntryExit, 1);
        cpu.charge(Cost::TaskSetup, 1);
        let mm = self.current_mm(cpu);
        // mmget: the caller's own use keeps it above 0.
        atomic_inc(cpu, mm.mm_users());
        self.attach_mm(cpu, child, mm);
        self.copy_mempolicy(cpu, child);
    }

    /// The memory half of `copy_process()`: `task`, which does not run yet, is to use `mm`.
    fn attach_mm(&self, cpu: &P, task: TaskId, mm: MmRef<'_, P>) {
        let tsk = &self.tasks[task as usize];
        tsk.mm.set(mm.ptr().to_word());
        tsk.rss.iter().for_each(|count| count.set(0));
        tsk.rss_events.set(0);
        tsk.vmacache.iter().for_each(|entry| entry.set(0));
        tsk.vmacache_seqnum.set(self.current(cpu).vmacache_seqnum.get());
    }

    /// A child begins with the policy of its parent, and with the nodes of its cpuset.
    fn copy_mempolicy(&self, cpu: &P, child: TaskId) {
        let policy = self.mpol_dup(cpu, Ptr::from_word(self.current(cpu).mempolicy.get()));
        let (task, parent) = (&self.tasks[child as usize], self.current(cpu));
        task.mempolicy.set(policy.to_word());
        task.mems_allowed.set(parent.mems_allowed.get());
        task.il_prev.set(parent.il_prev.get());
    }

    /// `mm_alloc()`: an empty address space with one user. `None`: out of memory.
    pub(crate) fn mm_alloc(&self, cpu: &P) -> Option<MmRef<'_, P>> {
        cpu.charge(Cost::SlabAlloc, 1);
        let mm = self.mms.try_alloc_on(cpu)?;
        mm.mm_users().poke(1);
        mm.mm_count().poke(1);
        mm.birth().poke(self.nr_mms.get());
        self.nr_mms.add(1);
        let start_brk = self.default_start_brk();
        mm.start_brk().poke(start_brk);
        mm.brk().poke(start_brk);
        if !self.pgd_alloc(cpu, mm) {
            self.mms.free(cpu, mm);
            return None;
        }
        Some(mm)
    }

    /// `dup_mm()`: a copy of `oldmm`.
    fn dup_mm(&self, cpu: &P, oldmm: MmRef<'_, P>) -> Result<MmRef<'_, P>, Errno> {
        let mm = self.mm_alloc(cpu).ok_or(Errno::Enomem)?;
        // The kernel copies the struct before it has the lock; what it then keeps of that:
        mm.start_brk().poke(oldmm.start_brk().read(cpu));
        mm.brk().poke(oldmm.brk().read(cpu));
        mm.brk_used().poke(oldmm.brk_used().read(cpu));
        // highest_vm_end as well, but the last VMA that is copied sets it; no real process comes
        // without one (its stack, the vdso), so here a child without VMAs has 0.
        let copied = self.dup_mmap(cpu, mm, oldmm);
        if let Err(errno) = copied {
            self.mmput(cpu, mm);
            return Err(errno);
        }
        Ok(mm)
    }

    /// `dup_mmap()`: every VMA but those marked DONTCOPY, with the page tables that the child
    /// cannot fault in by itself.
    fn dup_mmap(&self, cpu: &P, mm: MmRef<'_, P>, oldmm: MmRef<'_, P>) -> Result<(), Errno> {
        let _step = cpu.step("dup_mmap");
        let oldsem = self.mmap_sem(oldmm);
        let sem = self.mmap_sem(mm);
        oldsem.down_write(cpu);
        // Not linked in yet: no deadlock potential.
        sem.down_write(cpu);
        let mut last = None;
        let copied = self.copy_vmas(cpu, mm, oldmm, &mut last);
        sem.up_write(cpu);
        // x86's flush_tlb_mm() takes no chances with tables.
        self.flush_tlb_mm_range(cpu, oldmm, true);
        // No CPU has a writable translation of a copied page any more: speculative faults may
        // go on. Earlier, one could copy a page that another CPU still writes to (A1).
        if copied.is_ok() || !cpu.mutant(Mutant::A1Failed) {
            self.end_copied_vmas(cpu, last);
        }
        oldsem.up_write(cpu);
        copied
    }

    /// The loop of `dup_mmap()`. `last` is the last VMA of the parent that was begun, also when
    /// memory ran out.
    fn copy_vmas<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        oldmm: MmRef<'k, P>,
        last: &mut Option<VmaRef<'k, P>>,
    ) -> Result<(), Errno> {
        mm.total_vm().poke(oldmm.total_vm().read(cpu));
        let mut prev = None;
        let mut cursor = oldmm.mmap().read(cpu);
        while let Some(mpnt) = self.vmas.get_opt(cpu, cursor) {
            cursor = mpnt.vm_next().read(cpu);
            if mpnt.vm_flags().read(cpu).has(VmFlags::DONTCOPY) {
                self.vm_stat_account(cpu, mm, -(self.vma_pages(cpu, mpnt) as i64));
                continue;
            }
            let tmp = self.dup_vma(cpu, mm, mpnt)?;
            self.vma_link_file_after(cpu, tmp, mpnt);
            self.vma_link_mm(cpu, mm, tmp, VmaLinks::at_end(prev));
            prev = Some(tmp);
            if !tmp.vm_flags().read(cpu).has(VmFlags::WIPEONFORK) {
                if !cpu.mutant(Mutant::A1NoBracket) {
                    *last = Some(mpnt);
                    D::vm_write_begin(cpu, mpnt);
                }
                self.copy_page_range(cpu, mm, oldmm, mpnt)?;
                if cpu.mutant(Mutant::A1EarlyEnd) {
                    D::vm_write_end(cpu, mpnt);
                    *last = None;
                }
            }
        }
        Ok(())
    }

    /// The child's copy of `mpnt`, linked nowhere yet, with its anon_vma and its file.
    fn dup_vma(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        mpnt: VmaRef<'_, P>,
    ) -> Result<VmaRef<'_, P>, Errno> {
        let tmp = self.vm_area_dup(cpu, mpnt);
        tmp.vm_mm().write(cpu, mm.ptr());
        self.dup_userfaultfd(cpu, tmp);
        let vm_flags = tmp.vm_flags().read(cpu);
        let prepared = if vm_flags.has(VmFlags::WIPEONFORK) {
            // A clean slate. Its list pointers are still the parent's VMA's, so it may share the
            // anon_vma of a neighbour there: 5.1 clears them only below.
            tmp.anon_vma().write(cpu, Ptr::NULL);
            tmp.vm_next().write(cpu, mpnt.vm_next().read(cpu));
            tmp.vm_prev().write(cpu, mpnt.vm_prev().read(cpu));
            self.anon_vma_prepare(cpu, tmp)
        } else {
            self.anon_vma_fork(cpu, tmp, mpnt)
        };
        if let Err(errno) = prepared {
            self.vm_area_free(cpu, tmp);
            return Err(errno);
        }
        self.reset_vma_resv_huge_pages(tmp);
        let unlocked = vm_flags & !(VmFlags::LOCKED | VmFlags::LOCKONFAULT);
        tmp.vm_flags().write(cpu, unlocked);
        tmp.vm_next().write(cpu, Ptr::NULL);
        tmp.vm_prev().write(cpu, Ptr::NULL);
        let file = tmp.vm_file().read(cpu);
        if !file.is_null() {
            self.get_file(cpu, file);
        }
        Ok(tmp)
    }

    /// Ends what `copy_vmas` began: from the last one back, and so for each the end comes once,
    /// also when memory ran out on the way. Source: P18.
    fn end_copied_vmas(&self, cpu: &P, last: Option<VmaRef<'_, P>>) {
        let mut cursor = last.map_or(Ptr::NULL, |vma| vma.ptr());
        while let Some(vma) = self.vmas.get_opt(cpu, cursor) {
            let vm_flags = vma.vm_flags().read(cpu);
            if !vm_flags.has(VmFlags::DONTCOPY | VmFlags::WIPEONFORK) {
                D::vm_write_end(cpu, vma);
                if cpu.mutant(Mutant::A1LastOnly) {
                    return;
                }
            }
            cursor = vma.vm_prev().read(cpu);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/fork.rs"]
mod tests;

#[cfg(test)]
#[path = "../../tests/unit/ops/fork_schedules.rs"]
mod schedules;
