//! `exec`: a fresh address space for the current task.
//!
//! No image is loaded: the new address space has a stack, if the program asks for one, and its heap
//! will begin where it says. Source: `fs/exec.c`, v5.1; `INIT_VMA()`: P08.

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{
    Bounds, Errno, Kernel, MmRef, Moving, VM_STACK_INCOMPLETE_SETUP, Vaddr, VmFlags, VmaRef,
};
use crate::platform::{Platform, Value};

/// `_STK_LIM / 4 * 3`: what arguments and environment may take at most.
const MAX_ARGS: u64 = (8 << 20) / 4 * 3;
/// `ARG_MAX`: what they may take however small the stack's limit is.
const ARG_MAX: u64 = 128 << 10;
/// By how much `setup_arg_pages()` lets a stack grow beyond what is on it.
const STACK_EXPAND: u64 = 128 << 10;
/// What became of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecFailure {
    /// Nothing has changed.
    Errno(Errno),
    /// Past the point of no return the kernel can only kill.
    Killed,
}

/// `VM_STACK_FLAGS`, for an image that needs no executable stack.
const VM_STACK_FLAGS: VmFlags = VmFlags(
    VmFlags::GROWSDOWN.0
        | VmFlags::READ.0
        | VmFlags::WRITE.0
        | VmFlags::MAYREAD.0
        | VmFlags::MAYWRITE.0
        | VmFlags::MAYEXEC.0
        | VmFlags::ACCOUNT.0,
);

/// Arguments of `exec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecArgs {
    /// Where the heap of the new address space begins.
    pub brk_start: Option<u64>,
    /// Bytes of arguments and environment; 0: the address space has no stack.
    pub stack: u64,
    /// How many bytes below the top of user space the stack is to end, which Linux draws at random.
    pub stack_shift: u64,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Replaces the address space of the current task. `de_thread` ends the other tasks of the
    /// process, once no errno can come any more; if it does not return, because the task is to end
    /// itself, nothing has changed.
    pub fn sys_exec<E>(
        &self,
        cpu: &P,
        args: ExecArgs,
        de_thread: impl FnOnce() -> Result<(), E>,
    ) -> Result<Result<(), ExecFailure>, E> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        cpu.charge(Cost::TaskSetup, 1);
        let Some(mm) = self.mm_alloc(cpu) else {
            return Ok(Err(ExecFailure::Errno(Errno::Enomem)));
        };
        let stack = match self.bprm_mm_init(cpu, mm, args.stack) {
            Ok(stack) => stack,
            Err(errno) => {
                self.mmput(cpu, mm);
                return Ok(Err(ExecFailure::Errno(errno)));
            }
        };
        if let Some(start) = args.brk_start {
            mm.start_brk().poke(Vaddr(start));
            mm.brk().poke(Vaddr(start));
            mm.brk_used().poke(true); // a later `start` of brk means nothing
        }
        if let Err(ended) = de_thread() {
            self.mmput(cpu, mm);
            return Err(ended);
        }
        self.exec_mmap(cpu, mm);
        let Some(stack) = stack else { return Ok(Ok(())) };
        let ready = self.setup_arg_pages(cpu, mm, stack, args.stack_shift);
        Ok(if ready { Ok(()) } else { Err(ExecFailure::Killed) })
    }

    /// `exec_mmap()`: leaves the old address space for `mm`.
    fn exec_mmap(&self, cpu: &P, mm: MmRef<'_, P>) {
        let old_mm = self.current_mm(cpu);
        self.sync_mm_rss(cpu, old_mm);
        // The kernel makes sure here that nobody dumps the old address space.
        let sem = self.mmap_sem(old_mm);
        sem.down_read(cpu);
        self.current(cpu).mm.set(mm.ptr().to_word());
        self.vmacache_flush(cpu);
        sem.up_read(cpu);
        self.mmput(cpu, old_mm);
    }

    /// `bprm_mm_init()` and `copy_strings()`: a stack at the top of user space with so many bytes of
    /// arguments on it, from the top down, before anybody runs in `mm`. None for no bytes.
    fn bprm_mm_init<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        bytes: u64,
    ) -> Result<Option<VmaRef<'k, P>>, Errno> {
        if bytes == 0 {
            return Ok(None);
        }
        // prepare_arg_pages(). DEVIATION: one string, which may be as long as all may be together,
        // and neither pointers nor a file name beside it.
        let limit = (self.config.system.stack_limit / 4).clamp(ARG_MAX, MAX_ARGS);
        // bprm->p: a null pointer stays above.
        let top = self.config.arch.task_size - 8;
        if bytes > limit || bytes > top {
            return Err(Errno::E2big);
        }
        let vma = self.bprm_stack(cpu, mm);
        let lowest = Vaddr((top - bytes) & !(self.page_size() - 1));
        let mut page = Vaddr((top - 1) & !(self.page_size() - 1));
        loop {
            // get_arg_page(). Not under mmap_sem in 5.1: nobody else knows the address space.
            if !self.get_user_pages_remote(cpu, mm, vma, page) {
                return Err(Errno::E2big); // whatever the reason
            }
            if page == lowest {
                return Ok(Some(vma));
            }
            page = Vaddr(page.0 - self.page_size());
        }
    }

    /// `__bprm_mm_init()`: a stack of one page.
    fn bprm_stack<'k>(&'k self, cpu: &P, mm: MmRef<'k, P>) -> VmaRef<'k, P> {
        let vma = self.vm_area_alloc(cpu, mm);
        let end = Vaddr(self.config.arch.task_size);
        let start = Vaddr(end.0 - self.page_size());
        let flags = VM_STACK_FLAGS | VM_STACK_INCOMPLETE_SETUP | VmFlags::SOFTDIRTY;
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        vma.vm_start().poke(start);
        vma.vm_end().poke(end);
        vma.vm_flags().poke(flags);
        vma.vm_page_prot().poke(self.vm_get_page_prot(flags));
        vma.vm_pgoff().poke(start.0 >> self.page_shift());
        let links = self.find_vma_links(cpu, mm, start, end).expect("there is no other VMA yet");
        self.vma_link(cpu, mm, vma, links);
        self.vm_stat_account(cpu, mm, 1);
        sem.up_write(cpu);
        vma
    }

    /// `setup_arg_pages()`: the stack's final place and flags, and some room to begin with. False:
    /// there is no room, or no memory.
    fn setup_arg_pages(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>, shift: u64) -> bool {
        let stack_top = self.page_align(self.config.arch.task_size.saturating_sub(shift));
        let lowest = self.config.system.mmap_min_addr;
        let length = vma.vm_end().read(cpu).since(vma.vm_start().read(cpu));
        if stack_top < lowest || length >= stack_top - lowest {
            return false;
        }
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        let ready = self.finish_stack(cpu, mm, vma, Vaddr(stack_top));
        sem.up_write(cpu);
        ready
    }

    /// As [`Kernel::setup_arg_pages`], with `mmap_sem` held.
    fn finish_stack(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        stack_top: Vaddr,
    ) -> bool {
        let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        let flags = VM_STACK_FLAGS | VM_STACK_INCOMPLETE_SETUP; // no longer soft-dirty
        let Ok(vma) = self.mprotect_fixup(cpu, mm, vma, None, start..end, flags) else {
            return false;
        };
        let shift = end.since(stack_top);
        if shift > 0 && !self.shift_arg_pages(cpu, mm, vma, shift) {
            return false;
        }
        // Without a bracket: these two flags mean nothing to a fault, and nobody else is here.
        vma.vm_flags().write(cpu, vma.vm_flags().read(cpu) & !VM_STACK_INCOMPLETE_SETUP);
        let (start, end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        let limit = self.config.system.stack_limit & !(self.page_size() - 1);
        // What wraps is above the stack, which it covers already.
        let base = if end.since(start) + STACK_EXPAND > limit {
            end.0.wrapping_sub(limit)
        } else {
            start.0.wrapping_sub(STACK_EXPAND)
        };
        self.expand_stack(cpu, mm, vma, Vaddr(base))
    }

    /// `shift_arg_pages()`: moves the stack down. It covers both places meanwhile, in which no page
    /// of the old one has the index that rmap would look for; hence `VM_STACK_INCOMPLETE_SETUP`.
    /// Not odd while its pages move (P10, P11 have no bracket here): nobody else runs in it.
    fn shift_arg_pages(&self, cpu: &P, mm: MmRef<'_, P>, vma: VmaRef<'_, P>, shift: u64) -> bool {
        let _step = cpu.step("shift_arg_pages");
        let (old_start, old_end) = (vma.vm_start().read(cpu), vma.vm_end().read(cpu));
        let length = old_end.since(old_start);
        let (new_start, new_end) = (Vaddr(old_start.0 - shift), Vaddr(old_end.0 - shift));
        let pgoff = vma.vm_pgoff().read(cpu);
        let bounds = |start, end| Bounds { start, end, pgoff, insert: None, expand: None };
        if self.vma_adjust(cpu, vma, bounds(new_start, old_end)).is_err() {
            return false;
        }
        let moving = Moving { mm, vma, rmap_locks: false };
        if self.move_page_tables(cpu, &moving, old_start, new_start, length) != length {
            return false; // what has been moved goes with the task
        }
        // Nothing is mapped above; below is the stack, up to where it ends now.
        self.lru_add_drain(cpu);
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        let left = old_start.max(new_end);
        self.free_pgd_range(cpu, &mut tlb, left, old_end, new_end, Vaddr(0));
        self.tlb_finish_mmu(cpu, tlb);
        self.vma_adjust(cpu, vma, bounds(new_start, new_end)).is_ok()
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/exec.rs"]
mod tests;
