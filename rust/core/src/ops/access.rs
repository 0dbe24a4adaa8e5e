//! A task's access to memory: what the hardware and the fault handler make of it.

use crate::design::Design;
use crate::mm::{Access, FaultCode, Kernel, Signal, Vaddr};
use crate::platform::Platform;

/// Who handled a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Handled {
    None = 0,
    Spf = 1,
    Classic = 2,
}

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFailure {
    Signal(Signal),
    /// An access that the kernel made on the task's behalf.
    Efault,
    /// The same fault again and again, each time reported as handled.
    Livelock,
}

/// What became of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessOutcome {
    /// The word read (0 for a write).
    pub result: Result<u64, AccessFailure>,
    /// Who handled its last fault.
    pub handled: Handled,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// One access of the current task at `address`, with as many faults as it takes.
    pub fn user_access(
        &self,
        cpu: &P,
        address: u64,
        access: Access,
        value: u64,
        user: bool,
    ) -> AccessOutcome {
        let is_user_address = address < self.config.arch.task_size;
        if !is_user_address && let Some(failure) = self.kernel_address(cpu, address, user) {
            return AccessOutcome { result: Err(failure), handled: Handled::None };
        }
        let mm = self.current_mm(cpu);
        let address = Vaddr(address);
        let mut handled = Handled::None;
        for _ in 0..cpu.livelock_faults() {
            let tried = if is_user_address {
                self.translate_and_access(cpu, mm, address, access, value, user)
            } else {
                Err(FaultCode::not_present(access, user)) // no table has it
            };
            let code = match tried {
                Ok(word) => return AccessOutcome { result: Ok(word), handled },
                Err(failed) => failed,
            };
            let fault = self.do_page_fault(cpu, address, code);
            handled = if fault.speculative { Handled::Spf } else { Handled::Classic };
            if let Some(signal) = fault.signal {
                let failure =
                    if user { AccessFailure::Signal(signal) } else { AccessFailure::Efault };
                return AccessOutcome { result: Err(failure), handled };
            }
        }
        AccessOutcome { result: Err(AccessFailure::Livelock), handled }
    }
}
