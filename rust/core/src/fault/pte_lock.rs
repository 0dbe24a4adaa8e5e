//! `pte_map_lock()` and `pte_spinlock()`: the PTE lock, taken by a fault that may be speculative.
//!
//! Source: P05, P06, P22; events P24.

use super::Vmf;
use crate::design::Design;
use crate::events::{Event, TraceEntry};
use crate::mm::{Kernel, PteSlot, Vaddr, Variant, VmaRef};
use crate::platform::{Fence, Mutant, Platform};
use crate::sync::seqcount::fence_unless;
use crate::sync::spinlock::{spin_lock, spin_trylock, spin_unlock};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `vma_has_changed()`: unlinked, or modified since the fault began.
    #[inline(always)]
    fn vma_has_changed(&self, cpu: &P, vmf: &Vmf<'_, P>) -> bool {
        // A cleared node alone tells of an unmap that ended its zap already (A6).
        let unlinked = !cpu.mutant(Mutant::A6) && self.vma_node_empty(cpu, vmf.vma);
        let sequence = vmf.vma.vm_sequence().read(cpu);
        // Orders both reads before what the caller does next; pairs with the smp_wmb of
        // raw_write_seqcount_begin.
        fence_unless(cpu, Fence::Read, Mutant::M5);
        cpu.check("vma_has_changed", !unlinked, || "the VMA is still in the tree".to_owned());
        cpu.check("vma_has_changed", sequence == vmf.sequence, || {
            format!("vm_sequence {sequence:#x} is still {:#x}", vmf.sequence)
        });
        unlinked || sequence != vmf.sequence
    }

    /// Whether the PMD is what the walk saw.
    #[inline(always)]
    fn pmd_same(&self, cpu: &P, vmf: &Vmf<'_, P>) -> bool {
        let pmd = vmf.pmd.read(cpu);
        cpu.check("pmd_same", pmd == vmf.orig_pmd, || {
            format!("the PMD, {}, is still {}", pmd.entry_text(), vmf.orig_pmd.entry_text())
        });
        pmd == vmf.orig_pmd
    }

    /// `pte_map_lock()`: maps the PTE and takes its lock. False, with nothing held: the
    /// speculative fault has to give up. Does not compare the PTE with `orig_pte`: callers do.
    #[inline(always)]
    pub(super) fn pte_map_lock<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> bool {
        let _step = cpu.step("pte_map_lock");
        if !vmf.is_speculative() {
            // Under mmap_sem a table, once seen, stays.
            let Some(table) = vmf.pmd.read(cpu).table() else {
                cpu.finding("use-after-free", "the PTE lock of a PMD that became none".into());
            };
            let slot = self.pte_offset_map_lock(cpu, table, vmf.address);
            vmf.pte = Some(slot);
            vmf.ptl = Some(slot);
            return true;
        }
        self.speculative_lock(cpu, vmf, None)
    }

    /// `pte_spinlock()`: as [`Kernel::pte_map_lock`], for a PTE that the walk has mapped.
    pub(super) fn pte_spinlock<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> bool {
        let _step = cpu.step("pte_spinlock");
        let mapped = vmf.pte.expect("the walk mapped a PTE that is not none");
        if !vmf.is_speculative() {
            spin_lock(cpu, mapped.ptl());
            vmf.ptl = Some(mapped);
            return true;
        }
        self.speculative_lock(cpu, vmf, Some(mapped))
    }

    /// The speculative half of both: check, lock without blocking, check again. A PTE that is
    /// `mapped` stays so, whatever table the lock is of (B3).
    #[inline(always)]
    fn speculative_lock<'k>(
        &'k self,
        cpu: &P,
        vmf: &mut Vmf<'k, P>,
        mapped: Option<PteSlot<'k, P>>,
    ) -> bool {
        loop {
            // Off: the table cannot be freed, and a collapse cannot go past its interrupt.
            cpu.local_irq_disable();
            // First check: the table that the PMD points to has not been freed yet.
            if self.vma_has_changed(cpu, vmf) {
                return self.give_up(cpu, vmf, Event::SpfVmaChanged);
            }
            // No collapse is going on. Without huge pages v12 does not look (B3).
            let compares = self.config.system.transparent_hugepage || !self.v12(Variant::B3);
            let compares = compares && !cpu.mutant(Mutant::A11Compare);
            if compares && !self.pmd_same(cpu, vmf) {
                return self.give_up(cpu, vmf, Event::SpfPmdChanged);
            }
            if cpu.mutant(Mutant::A11Irqs) {
                cpu.local_irq_enable();
                cpu.local_irq_disable();
            }
            let slot = self.slot_to_lock(cpu, vmf);
            if cpu.mutant(Mutant::A22) {
                vmf.pte = Some(slot);
                vmf.ptl = Some(slot);
            }
            // Try only: the holder may wait for this CPU to answer its TLB flush (A9).
            if cpu.mutant(Mutant::A9) {
                spin_lock(cpu, slot.ptl());
            } else if !spin_trylock(cpu, slot.ptl()) {
                cpu.check("spin_trylock", false, || "the PTE lock is free".to_owned());
                cpu.local_irq_enable();
                // DEVIATION: v12 goes round at once, and would see a change of the VMA before
                // the holder lets go.
                cpu.spin_until(slot.ptl().word(), |held| held == 0);
                continue;
            }
            if cpu.mutant(Mutant::A8Lock) {
                cpu.local_irq_enable();
                cpu.local_irq_disable();
            }
            // Second check: the state may have changed before the lock was ours. From here on
            // whoever wants to touch this PTE blocks on the lock.
            if !cpu.mutant(Mutant::A7) && self.vma_has_changed(cpu, vmf) {
                spin_unlock(cpu, slot.ptl());
                return self.give_up(cpu, vmf, Event::SpfVmaChanged);
            }
            // Published only now, so that no error path unlocks what is not held (A22).
            vmf.pte = Some(mapped.unwrap_or(slot));
            vmf.ptl = Some(slot);
            cpu.local_irq_enable();
            return true;
        }
    }

    /// B3: v12 finds the lock through the PMD again, which may be another by now.
    #[inline(always)]
    fn slot_to_lock<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> PteSlot<'k, P> {
        let value = if self.v12(Variant::B3) { vmf.pmd.read(cpu) } else { vmf.orig_pmd };
        let Some(table) = value.table() else {
            cpu.finding("use-after-free", "the PTE lock of a PMD that became none".into());
        };
        self.pte_offset_map(cpu, table, vmf.address)
    }

    #[cold]
    fn give_up(&self, cpu: &P, vmf: &Vmf<'_, P>, event: Event) -> bool {
        self.trace_spf(cpu, event, vmf.vma, vmf.address, true);
        cpu.local_irq_enable();
        false
    }

    /// `trace_spf_vma_changed()` and its sisters. Source: P24.
    #[cold]
    pub(super) fn trace_spf(
        &self,
        cpu: &P,
        event: Event,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        irqs_off: bool,
    ) {
        self.count(cpu, event);
        cpu.gives_up(event, vma.vm_sequence().word(), vma.vm_start().peek().0);
        if self.trace.is_on() {
            self.trace.write(TraceEntry {
                time_ns: cpu.now_ns(),
                cpu: cpu.id(),
                task: cpu.task(),
                event,
                irqs_off,
                vm_start: vma.vm_start().peek().0,
                vm_end: vma.vm_end().peek().0,
                address: address.0,
            });
        }
    }

    /// `pte_unmap_unlock()`
    #[inline(always)]
    pub(super) fn pte_unmap_unlock(&self, cpu: &P, vmf: &mut Vmf<'_, P>) {
        let slot = vmf.ptl.take().expect("the PTE lock is held");
        spin_unlock(cpu, slot.ptl());
    }
}
