//! `notifier`: a secondary MMU begins, or ceases, to follow the current address space.

use crate::design::Design;
use crate::mm::{Errno, Kernel};
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Registers an mmu notifier, as KVM does when a guest is made, or unregisters it.
    pub fn notifier(&self, cpu: &P, on: bool) -> Result<(), Errno> {
        let mm = self.current_mm(cpu);
        if on { self.mmu_notifier_register(cpu, mm) } else { self.mmu_notifier_unregister(cpu, mm) }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/notifier.rs"]
mod tests;
