//! The architecture's fault handler: `do_user_addr_fault` of x86, `do_page_fault` of arm64,
//! `__do_page_fault` of powerpc, with the series' hooks (P28, P29, P30).

use crate::arch::Family;
use crate::design::Design;
use crate::events::{Cost, Event, Span};
use crate::mm::{
    Access, Counters, FaultCode, FaultFlags, Kernel, MmRef, Signal, Vaddr, Variant, VmFault,
    VmFlags, VmaRef,
};
use crate::platform::Platform;

/// How a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultResult {
    /// The signal the task gets, if any; an access by the kernel fails with EFAULT instead.
    pub signal: Option<Signal>,
    /// The architecture accepted the result of what was tried before `mmap_sem`.
    pub speculative: bool,
}

impl FaultResult {
    /// For people.
    fn to_text(self) -> String {
        let handler = if self.speculative { "the speculative handler" } else { "mmap_sem held" };
        match self.signal {
            None => format!("handled with {handler}"),
            Some(signal) => format!("{} with {handler}", signal.to_text()),
        }
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Handles one hardware fault of the current task at `address`.
    pub fn do_page_fault(&self, cpu: &P, address: Vaddr, code: FaultCode) -> FaultResult {
        cpu.enter(Span::Fault(address.0));
        let _step = cpu.step(match self.config.arch.family {
            Family::X86 => "do_user_addr_fault",
            Family::Arm64 => "do_page_fault",
            Family::Powerpc => "__do_page_fault",
        });
        let result = self.do_user_addr_fault(cpu, address, code);
        cpu.tell(|| result.to_text());
        cpu.leave("");
        result
    }

    #[inline(always)]
    fn do_user_addr_fault(&self, cpu: &P, address: Vaddr, code: FaultCode) -> FaultResult {
        cpu.charge(Cost::FaultEntryExit, 1);
        let task = self.current(cpu);
        let counters = &task.counters;
        counters.count(Event::Faults);
        let mm = self.task_mm(cpu, task);
        let flags = fault_flags(code);

        let fault = match self.config.arch.family {
            // P28: the handler could not resolve it.
            Family::X86 if code.pkey => {
                cpu.check("PF_PK", false, || "the protection key permits the access".to_owned());
                VmFault::RETRY
            }
            Family::Powerpc if code.pkey => {
                return FaultResult { signal: Some(Signal::PKUERR), speculative: false };
            }
            _ => D::fault_before_mmap_sem(self, cpu, mm, address, flags),
        };
        let is_final = self.arch_accepts(fault);
        if fault != VmFault::RETRY {
            cpu.check("arch", is_final, || {
                format!("the result, {}, is final here", fault.constants())
            });
        }
        if is_final {
            counters.count(Event::Spf);
            // A speculative success is accounted as minor even if it read swap: only the classic
            // path sets the local `major`. Source: SPF_V12 7.2.
            let signal = done(counters, fault, false);
            return FaultResult { signal, speculative: true };
        }
        cpu.enter(Span::Classic);
        let classic = self.classic_fault(cpu, mm, address, flags, code);
        cpu.leave("");
        let signal = match classic {
            Ok((fault, major)) => done(counters, fault, major),
            Err(bad_area) => Some(bad_area),
        };
        FaultResult { signal, speculative: false }
    }

    /// Whether the classic fault is still to come. C7: v12 compares, so that a RETRY with another
    /// bit is none.
    #[inline(always)]
    pub(super) fn is_retry(&self, result: VmFault) -> bool {
        result.has(VmFault::RETRY) && (result == VmFault::RETRY || !self.v12(Variant::C7))
    }

    /// Whether the architecture takes a result that is not RETRY as final.
    fn arch_accepts(&self, fault: VmFault) -> bool {
        if self.is_retry(fault) {
            return false;
        }
        let is_segv = fault == VmFault::SIGSEGV;
        if is_segv && !self.v12(Variant::C3) {
            return false;
        }
        match self.config.arch.family {
            Family::X86 | Family::Arm64 => true,
            // C8: by P29's expression nothing is ever accepted without memory keys.
            Family::Powerpc => match self.config.system.ppc_mem_keys {
                true => !is_segv,
                false => !self.v12(Variant::C8),
            },
        }
    }

    /// The classic fault, under `mmap_sem`. `Err`: the address or the access is bad. `Ok`: the
    /// handler's result, and whether any round was major.
    #[inline(never)]
    fn classic_fault<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        mut flags: FaultFlags,
        code: FaultCode,
    ) -> Result<(VmFault, bool), Signal> {
        let mut major = false;
        let sem = self.mmap_sem(mm);
        // All three architectures try first, then wait: under many readers the trylock's
        // compare-and-exchange costs more than down_read's addition.
        if !sem.down_read_trylock(cpu) {
            sem.down_read(cpu);
        }
        loop {
            let checked = self.find_and_check_vma(cpu, mm, address, flags, code);
            let vma = match checked {
                Ok(vma) => vma,
                Err(bad_area) => {
                    sem.up_read(cpu);
                    return Err(bad_area);
                }
            };
            let fault = self.handle_mm_fault(cpu, mm, vma, address, flags);
            major |= fault.has(VmFault::MAJOR);
            if fault.has(VmFault::RETRY) && flags.has(FaultFlags::ALLOW_RETRY) {
                // The handler dropped mmap_sem to wait for a page; once more, and then without
                // that permission. Everything is looked up again.
                flags = (flags & !FaultFlags::ALLOW_RETRY) | FaultFlags::TRIED;
                sem.down_read(cpu);
                continue;
            }
            // "We skipped checking for access error due to key earlier."
            let is_key_fault = self.config.arch.family == Family::Powerpc
                && fault.has(VmFault::SIGSEGV)
                && !self.arch_vma_access_permitted(cpu, vma, flags);
            sem.up_read(cpu);
            return if is_key_fault { Err(Signal::PKUERR) } else { Ok((fault, major)) };
        }
    }

    fn find_and_check_vma<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        flags: FaultFlags,
        code: FaultCode,
    ) -> Result<VmaRef<'k, P>, Signal> {
        let vma = self.find_vma(cpu, mm, address).ok_or(Signal::MAPERR)?;
        if vma.vm_start().read(cpu) > address && !self.expand_stack(cpu, mm, vma, address) {
            return Err(Signal::MAPERR);
        }
        let by_key = self.config.arch.family == Family::X86
            && (code.pkey || !self.arch_vma_access_permitted(cpu, vma, flags));
        if by_key {
            return Err(Signal::PKUERR);
        }
        if self.access_error(code, vma.vm_flags().read(cpu)) {
            return Err(Signal::ACCERR);
        }
        Ok(vma)
    }

    /// `access_error()`: whether the VMA's flags forbid the access.
    fn access_error(&self, code: FaultCode, vm_flags: VmFlags) -> bool {
        let accessible = VmFlags::READ | VmFlags::WRITE | VmFlags::EXEC;
        match (self.config.arch.family, code.access) {
            (_, Access::Write) => !vm_flags.has(VmFlags::WRITE),
            // "read, present": the page is there and may not be read or executed.
            (Family::X86, _) => code.protection || !vm_flags.has(accessible),
            (Family::Powerpc | Family::Arm64, Access::Execute) => !vm_flags.has(VmFlags::EXEC),
            (Family::Powerpc, Access::Read) => !vm_flags.has(accessible),
            (Family::Arm64, Access::Read) => !vm_flags.has(VmFlags::READ | VmFlags::WRITE),
        }
    }
}

/// The label `done`: the error path, or the accounting of a fault that was handled.
fn done(counters: &Counters, fault: VmFault, major: bool) -> Option<Signal> {
    if fault.has(VmFault::ERROR) {
        return Some(mm_fault_error(fault));
    }
    counters.count(if major { Event::MajorFaults } else { Event::MinorFaults });
    None
}

/// The flags that the architecture derives from what the hardware said.
fn fault_flags(code: FaultCode) -> FaultFlags {
    let mut flags = FaultFlags::ALLOW_RETRY | FaultFlags::KILLABLE;
    if code.user {
        flags |= FaultFlags::USER;
    }
    match code.access {
        Access::Write => flags |= FaultFlags::WRITE,
        Access::Execute => flags |= FaultFlags::INSTRUCTION,
        Access::Read => {}
    }
    flags
}

/// `mm_fault_error()`
fn mm_fault_error(fault: VmFault) -> Signal {
    if fault.has(VmFault::OOM) {
        Signal::OOM_KILL
    } else if fault.has(VmFault::SIGBUS) {
        Signal::ADRERR
    } else {
        // bad_area_nosemaphore: the generic path for VM_FAULT_SIGSEGV knows no VMA (C3).
        Signal::MAPERR
    }
}
