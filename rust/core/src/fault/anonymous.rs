//! `do_anonymous_page()`: the first access to a page of anonymous memory.
//!
//! Source: `mm/memory.c`, v5.1; P13, P22.

use super::Vmf;
use crate::design::Design;
use crate::mm::{
    Kernel, PG_UPTODATE, PageRef, Pte, Rss, Vaddr, Variant, VmFault, VmFlags, ZERO_PFN,
};
use crate::platform::{Mutant, Ordering, Platform};

impl<P: Platform, D: Design> Kernel<P, D> {
    #[inline(always)]
    pub(super) fn do_anonymous_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("do_anonymous_page");
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
        if self.is_still_none(cpu, pte.read(cpu)) {
            let unstable = self.check_stable_address_space(cpu, vmf.mm);
            if unstable != VmFault::NONE {
                self.pte_unmap_unlock(cpu, vmf);
                return unstable;
            }
            if self.userfaultfd_missing(vmf) {
                self.pte_unmap_unlock(cpu, vmf);
                return self.handle_userfault(cpu, vmf);
            }
            pte.store(cpu, entry, Ordering::Release);
        }
        self.pte_unmap_unlock(cpu, vmf);
        VmFault::NONE
    }

    /// What the page gets to know of its first mapping. Caller holds the PTE lock, under which the
    /// VMA may change: its flags are the fault's copy (P16).
    pub(super) fn add_new_anon_page(&self, cpu: &P, vmf: &Vmf<'_, P>, page: PageRef<'_, P>) {
        if cpu.mutant(Mutant::A15) {
            let (start, end) = (vmf.vma.vm_start().read(cpu), vmf.vma.vm_end().read(cpu));
            let address = vmf.address;
            if address < start || end <= address {
                cpu.finding("vma-bounds", format!("{address:#x} is not in {start:#x}..{end:#x}"));
            }
        }
        let index = self.anon_index(cpu, vmf, vmf.address);
        self.page_add_new_anon_rmap(cpu, page, vmf.vma, index);
        let live = cpu.mutant(Mutant::A16);
        let flags = if live { vmf.vma.vm_flags().read(cpu) } else { vmf.vma_flags };
        self.lru_cache_add_active_or_unevictable(cpu, page, flags);
    }

    /// The index of the page at `address`. C4: v12 takes it from the live VMA, whose start and
    /// offset another CPU may be storing one after the other.
    pub(super) fn anon_index(&self, cpu: &P, vmf: &Vmf<'_, P>, address: Vaddr) -> u64 {
        if self.v12(Variant::C4) {
            return self.linear_page_index(cpu, vmf.vma, address);
        }
        let pages = address.0.wrapping_sub(vmf.address.0) as i64 >> self.page_shift();
        vmf.pgoff.wrapping_add_signed(pages)
    }

    /// A write: a zeroed page of its own.
    #[inline(always)]
    fn map_new_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        // Trivial when speculative: an anon_vma was there (H4).
        if self.anon_vma_prepare(cpu, vmf.vma).is_err() {
            return VmFault::OOM;
        }
        let place = self.vma_placement(cpu, vmf.vma, vmf.address, 0);
        let Some(page) = self.alloc_zeroed_page(cpu, place) else { return VmFault::OOM };
        page.flags().poke(PG_UPTODATE);
        if self.mem_cgroup_charge(cpu, page).is_none() {
            self.put_page(cpu, page);
            return VmFault::OOM;
        }
        let entry = self.maybe_mkwrite(Pte::new(page.slot_index(), vmf.vma_page_prot), vmf);
        if !self.pte_map_lock(cpu, vmf) {
            self.put_page(cpu, page);
            return VmFault::RETRY;
        }
        let pte = vmf.pte.expect("mapped").pte();
        if !self.is_still_none(cpu, pte.read(cpu)) {
            // Somebody else did it.
            self.pte_unmap_unlock(cpu, vmf);
            self.put_page(cpu, page);
            return VmFault::NONE;
        }
        let unstable = self.check_stable_address_space(cpu, vmf.mm);
        if unstable != VmFault::NONE {
            self.pte_unmap_unlock(cpu, vmf);
            self.put_page(cpu, page);
            return unstable;
        }
        if self.userfaultfd_missing(vmf) {
            self.pte_unmap_unlock(cpu, vmf);
            self.put_page(cpu, page);
            return self.handle_userfault(cpu, vmf);
        }
        self.add_mm_counter(cpu, vmf.mm, Rss::Anon, 1);
        self.add_new_anon_page(cpu, vmf, page);
        // Release: the page's content and rmap come first (the barrier in __SetPageUptodate);
        // pairs with the dependent access through this PTE.
        pte.store(cpu, entry | Pte::MKDIRTY | Pte::YOUNG, release_of_page(cpu));
        self.pte_unmap_unlock(cpu, vmf);
        VmFault::NONE
    }
}

/// How the PTE of a new page is stored: after the page's content.
#[inline(always)]
pub(super) fn release_of_page<P: Platform>(cpu: &P) -> Ordering {
    if cpu.mutant(Mutant::M6) { Ordering::Relaxed } else { Ordering::Release }
}
