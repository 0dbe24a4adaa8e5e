//! Accesses beyond user space: what becomes of them before a fault is counted.
//!
//! Source, all v5.1: `do_kern_addr_fault()` and `do_general_protection()` of x86,
//! `do_translation_fault()` of arm64, `do_slb_fault()` of powerpc; `access_ok()` of each.

use super::access::AccessFailure;
use crate::arch::{Arch, Family};
use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Kernel, Signal};
use crate::platform::Platform;

/// Where powerpc's kernel regions begin (`KERNEL_REGION_ID`).
const KERNEL_REGIONS: u64 = 0xc << REGION_SHIFT;
const REGION_SHIFT: u32 = 60;
/// A region without anything in it, between vmalloc and vmemmap.
const EMPTY_REGION: u64 = 0xe;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Why an access at `address`, which is at or above `task_size`, does not come to where faults
    /// are counted; `None`: it does, as any other outside the mappings.
    #[cold]
    pub(super) fn kernel_address(
        &self,
        cpu: &P,
        address: u64,
        user: bool,
    ) -> Option<AccessFailure> {
        if address < kernel_start(&self.config.arch) {
            return None;
        }
        if !user {
            return Some(AccessFailure::Efault); // access_ok() says no before the access
        }
        let signal = exception(&self.config.arch, address)?;
        cpu.charge(Cost::FaultEntryExit, 1);
        Some(AccessFailure::Signal(signal))
    }
}

/// The first address that is not taken for a user's: `TASK_SIZE_MAX` on x86, where mmap may stay
/// below it, and `TASK_SIZE`.
fn kernel_start(arch: &Arch) -> u64 {
    match arch.family {
        Family::X86 => arch.task_size.max(arch.covered() / 2 - arch.page_size()),
        Family::Powerpc | Family::Arm64 => arch.task_size,
    }
}

/// The signal of a user's access to the kernel's addresses; `None`: an ordinary page fault.
fn exception(arch: &Arch, address: u64) -> Option<Signal> {
    match arch.family {
        // Its half of the table has nothing for users; no table has what is not canonical.
        Family::X86 if is_canonical(arch, address) => Some(Signal::MAPERR),
        Family::X86 => Some(Signal::KERNEL),
        Family::Arm64 => Some(Signal::MAPERR),
        // The kernel has segments there, so it is a fault for want of a page.
        Family::Powerpc if is_in_kernel_segment(arch, address) => None,
        Family::Powerpc => Some(Signal::BNDERR),
    }
}

/// Whether the bits above those that the table translates repeat the highest of them.
fn is_canonical(arch: &Arch, address: u64) -> bool {
    address < arch.covered() / 2 || address >= (arch.covered() / 2).wrapping_neg()
}

/// Whether `slb_allocate_kernel()` has a segment for the address: `MAX_EA_BITS_PER_CONTEXT`.
fn is_in_kernel_segment(arch: &Arch, address: u64) -> bool {
    let bits = if arch.page_shift == 16 { 49 } else { 46 };
    let offset = address & ((1 << REGION_SHIFT) - 1);
    address >= KERNEL_REGIONS && address >> REGION_SHIFT != EMPTY_REGION && offset >> bits == 0
}

#[cfg(test)]
#[path = "../../tests/unit/ops/kernel_address.rs"]
mod tests;
