//! `do_anonymous_page()`: the first access to a page of anonymous memory.
//!
//! Source: `mm/memory.c`, v5.1; P13, P22.

use super::Vmf;
use crate::design::Design;
use crate::mm::{Kernel, PG_UPTODATE, Pte, Rss, Variant, VmFault, VmFlags, ZERO_PFN};
use crate::platform::{Mutant, Ordering, Platform};

impl<P: Platform, D: Design> Kernel<P, D> {
    #[inline(always)]
    pub(super) fn do_anonymous_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        cpu.step("do_anonymous_page");
        if vmf.vma_flags.has(VmFlags::SHARED) {
            return VmFault::SIGBUS;
        }
        // Cured, a speculative fault takes the table that the walk saw, which pte_map_lock checks.
        let allocates = !vmf.is_speculative() || self.v12(Variant::B2) || cpu.mutant(Mutant::A10);
        if allocates {
            if !self.pte_alloc(cpu, vmf.mm, vmf.pmd) {
                return VmFault::OOM;
            }
            if self.pmd_trans_unstable(cpu, vmf) {
                return VmFault::NONE;
            }
        }
        if vmf.is_write() { self.map_new_page(cpu, vmf) } else { self.map_zero_page(cpu, vmf) }
    }

    /// A read: the shared page of zeroes, from the cached protection.
    fn map_zero_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        // Young as on all three arches, whose vm_page_prot has the accessed bit.
        let entry = Pte::new(ZERO_PFN, vmf.vma_page_prot | Pte::SPECIAL | Pte::YOUNG);
        if !self.pte_map_lock(cpu, vmf) {
            return VmFault::RETRY;
        }
        let pte = vmf.pte.expect("mapped").pte();
        if pte.read(cpu).is_none() {
            pte.store(cpu, entry, Ordering::Release);
        }
        self.pte_unmap_unlock(cpu, vmf);
        VmFault::NONE
    }

    /// A write: a zeroed page of its own.
    #[inline(always)]
    fn map_new_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        // Trivial when speculative: an anon_vma was there (H4).
        if self.anon_vma_prepare(cpu, vmf.vma).is_err() {
            return VmFault::OOM;
        }
        let Some(page) = self.alloc_zeroed_page(cpu) else { return VmFault::OOM };
        page.flags().poke(PG_UPTODATE);
        let entry = self.maybe_mkwrite(Pte::new(page.slot_index(), vmf.vma_page_prot), vmf);
        if !self.pte_map_lock(cpu, vmf) {
            self.put_page(cpu, page);
            return VmFault::RETRY;
        }
        let pte = vmf.pte.expect("mapped").pte();
        if !pte.read(cpu).is_none() {
            // Somebody else did it.
            self.pte_unmap_unlock(cpu, vmf);
            self.put_page(cpu, page);
            return VmFault::NONE;
        }
        self.add_mm_counter(cpu, vmf.mm, Rss::Anon, 1);
        self.page_add_new_anon_rmap(cpu, page, vmf.vma, vmf.address);
        // Release: the page's content and rmap come first (the barrier in __SetPageUptodate);
        // pairs with the dependent access through this PTE.
        pte.store(cpu, entry | Pte::DIRTY | Pte::YOUNG, Ordering::Release);
        self.pte_unmap_unlock(cpu, vmf);
        VmFault::NONE
    }
}
