//! `handle_pte_fault()`: what both handlers do once they know VMA and PMD.
//!
//! Source: `mm/memory.c`, v5.1; P05, P22.

use super::Vmf;
use crate::design::Design;
use crate::mm::{Kernel, Pte, Variant, VmFault};
use crate::platform::{Mutant, Ordering, Platform};

impl<P: Platform, D: Design> Kernel<P, D> {
    #[inline(always)]
    pub(super) fn handle_pte_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("handle_pte_fault");
        if vmf.is_speculative() {
            // B3: v12 reads the PMD here with interrupts on. None is a silent abort.
            if self.v12(Variant::B3) {
                let none = vmf.pmd.read(cpu).is_none();
                cpu.check("pmd_none", !none, || "the PMD is not none".to_owned());
                if none {
                    return VmFault::RETRY;
                }
            }
        } else if !self.map_pte(cpu, vmf) {
            return VmFault::NONE;
        }
        if vmf.pte.is_none() {
            return if self.vma_is_anonymous(cpu, vmf.vma) {
                self.do_anonymous_page(cpu, vmf)
            } else if vmf.is_speculative() && !cpu.mutant(Mutant::A18) {
                // The callbacks of do_fault may drop mmap_sem. Silent.
                VmFault::RETRY
            } else {
                self.do_fault(cpu, vmf)
            };
        }
        if !vmf.orig_pte.is_present() {
            return self.do_swap_page(cpu, vmf);
        }
        if vmf.orig_pte.has(Pte::PROTNONE) && self.vma_is_accessible(cpu, vmf.vma) {
            return self.do_numa_page(cpu, vmf);
        }
        if !self.pte_spinlock(cpu, vmf) {
            return VmFault::RETRY;
        }
        self.handle_present_pte(cpu, vmf)
    }

    /// The classic fault's own look at the PTE; the speculative one brings what its walk saw.
    /// False: there is a huge page meanwhile (`pmd_devmap_trans_unstable()`).
    fn map_pte<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> bool {
        let value = vmf.pmd.read(cpu);
        vmf.pte = None;
        let Some(table) = value.table() else { return value.is_none() };
        let slot = self.pte_offset_map(cpu, table, vmf.address);
        vmf.orig_pte = slot.pte().read(cpu);
        if !vmf.orig_pte.is_none() {
            vmf.pte = Some(slot);
        }
        true
    }

    /// The page is there: a write to a read-only page, or only its access flags. Called with the
    /// PTE lock held, which it gives back.
    #[inline(never)]
    fn handle_present_pte<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let pte = vmf.pte.expect("present").pte();
        if !self.is_orig_pte(cpu, vmf, pte.read(cpu)) {
            // Somebody else did it.
            self.pte_unmap_unlock(cpu, vmf);
            return VmFault::NONE;
        }
        let mut entry = vmf.orig_pte;
        if vmf.is_write() {
            if !entry.has(Pte::WRITE) {
                return self.do_wp_page(cpu, vmf);
            }
            entry |= Pte::MKDIRTY;
        }
        entry |= Pte::YOUNG;
        // ptep_set_access_flags. A spurious fault needs no flush: the hardware walks again.
        let changed = entry != vmf.orig_pte;
        if changed {
            let _ = pte.compare_exchange(cpu, vmf.orig_pte, entry, Ordering::Relaxed);
        }
        self.pte_unmap_unlock(cpu, vmf);
        if !changed && vmf.is_speculative() && !self.v12(Variant::C2) {
            return VmFault::RETRY;
        }
        VmFault::NONE
    }

    /// `maybe_mkwrite()`, from the cached flags (P13).
    pub(super) fn maybe_mkwrite(&self, entry: Pte, vmf: &Vmf<'_, P>) -> Pte {
        if vmf.vma_flags.has(crate::mm::VmFlags::WRITE) { entry | Pte::WRITE } else { entry }
    }

    /// Whether the PTE is still what the fault saw (`pte_same()`). Caller holds the PTE lock.
    pub(super) fn pte_same(&self, cpu: &P, vmf: &Vmf<'_, P>) -> bool {
        vmf.ptl.is_some_and(|slot| self.is_orig_pte(cpu, vmf, slot.pte().read(cpu)))
    }

    #[inline(always)]
    fn is_orig_pte(&self, cpu: &P, vmf: &Vmf<'_, P>, pte: Pte) -> bool {
        cpu.check("pte_same", pte == vmf.orig_pte, || {
            format!("the PTE, {}, is still {}", pte.entry_text(), vmf.orig_pte.entry_text())
        });
        pte == vmf.orig_pte
    }

    /// Whether the PTE of a page that nobody had touched is as it was. Caller holds the PTE lock.
    #[inline(always)]
    pub(super) fn is_still_none(&self, cpu: &P, pte: Pte) -> bool {
        cpu.check("pte_none", pte.is_none(), || format!("the PTE, {}, is none", pte.entry_text()));
        pte.is_none()
    }
}
