//! Faults on transparent huge pages: never speculative (H16).
//!
//! Source: `mm/memory.c`, `mm/huge_memory.c`, v5.1.

use super::Vmf;
use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Kernel, PG_UPTODATE, PageRef, PmdVal, Pte, Rss, VmFault};
use crate::platform::{Ordering, Platform};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// The half of `__handle_mm_fault()` about PMDs. `None`: go on with small pages.
    pub(super) fn huge_pmd_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> Option<VmFault> {
        let value = vmf.pmd.read(cpu);
        let result = if value.is_none() {
            let wanted = self.transparent_hugepage_enabled(vmf.vma_flags)
                && self.vma_is_anonymous(cpu, vmf.vma);
            if !wanted {
                return None;
            }
            self.do_huge_pmd_anonymous_page(cpu, vmf)
        } else if value.is_huge() {
            if vmf.is_write() && !self.leaf_of(value).has(Pte::WRITE) {
                self.do_huge_pmd_wp_page(cpu, vmf, value)
            } else {
                self.huge_pmd_set_accessed(cpu, vmf, value);
                VmFault::NONE
            }
        } else {
            return None;
        };
        if result.has(VmFault::FALLBACK) { None } else { Some(result) }
    }

    /// `pmd_trans_unstable()`: whether the PMD has become huge, or none, beside this fault.
    pub(super) fn pmd_trans_unstable(&self, cpu: &P, vmf: &Vmf<'_, P>) -> bool {
        self.has_transparent_hugepage() && vmf.pmd.read(cpu).table().is_none()
    }

    /// `do_huge_pmd_anonymous_page()`: the first access to a range that a huge page can map.
    fn do_huge_pmd_anonymous_page<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("do_huge_pmd_anonymous_page");
        if !self.transhuge_vma_suitable(cpu, vmf.vma, vmf.address) {
            return VmFault::FALLBACK;
        }
        // For a read too, unlike do_anonymous_page.
        if self.anon_vma_prepare(cpu, vmf.vma).is_err() {
            return VmFault::OOM;
        }
        if vmf.is_write() {
            self.map_huge_page(cpu, vmf)
        } else {
            self.map_huge_zero_page(cpu, vmf)
        }
    }

    /// A read: the huge page of zeroes.
    fn map_huge_zero_page<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> VmFault {
        let Some(table) = self.pte_alloc_one(cpu) else { return VmFault::OOM };
        if self.get_huge_zero_page(cpu).is_none() {
            self.pte_free(cpu, table);
            return VmFault::FALLBACK;
        }
        self.pmd_lock(cpu, vmf.pmd);
        let (set, missing, unstable) = self.may_map_huge(cpu, vmf);
        if set {
            self.set_huge_zero_page(cpu, vmf.mm, vmf.pmd, table, vmf.vma_page_prot);
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        if !set {
            self.pte_free(cpu, table);
        }
        if missing { self.handle_userfault(cpu, vmf) } else { unstable }
    }

    /// With the PMD lock held: whether there is nothing yet, and nothing against a huge page; if
    /// there is, whether user space is to bring it, or the OOM reaper has been here.
    fn may_map_huge(&self, cpu: &P, vmf: &Vmf<'_, P>) -> (bool, bool, VmFault) {
        if !vmf.pmd.read(cpu).is_none() {
            return (false, false, VmFault::NONE);
        }
        let unstable = self.check_stable_address_space(cpu, vmf.mm);
        let missing = unstable == VmFault::NONE && self.userfaultfd_missing(vmf);
        (unstable == VmFault::NONE && !missing, missing, unstable)
    }

    /// `alloc_hugepage_vma()`
    fn alloc_huge_page_vma<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> Option<PageRef<'k, P>> {
        let haddr = self.hpage_pmd_start(vmf.address);
        let place = self.vma_placement(cpu, vmf.vma, haddr, self.hpage_pmd_order());
        self.alloc_compound_page(cpu, place)
    }

    /// `__do_huge_pmd_anonymous_page()`: a huge page of its own.
    fn map_huge_page<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> VmFault {
        let Some(page) = self.alloc_huge_page_vma(cpu, vmf) else { return VmFault::FALLBACK };
        if self.mem_cgroup_charge(cpu, page).is_none() {
            self.put_page(cpu, page);
            return VmFault::FALLBACK;
        }
        let Some(table) = self.pte_alloc_one(cpu) else {
            self.put_page(cpu, page);
            return VmFault::OOM;
        };
        self.clear_huge_page(cpu, page);
        self.pmd_lock(cpu, vmf.pmd);
        let (set, missing, unstable) = self.may_map_huge(cpu, vmf);
        if set {
            let index = self.anon_index(cpu, vmf, self.hpage_pmd_start(vmf.address));
            self.page_add_new_huge_anon_rmap(cpu, page, vmf.vma, index);
            self.lru_cache_add_active_or_unevictable(cpu, page, vmf.vma_flags);
            self.pgtable_trans_huge_deposit(cpu, vmf.pmd, table);
            vmf.pmd.set(cpu, self.new_huge_pmd(page, vmf));
            self.add_mm_counter(cpu, vmf.mm, Rss::Anon, i64::from(self.hpage_pmd_nr()));
            vmf.mm.pgtables().fetch_add(cpu, 1, Ordering::Relaxed);
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        if !set {
            self.pte_free(cpu, table);
            self.put_page(cpu, page);
        }
        if missing { self.handle_userfault(cpu, vmf) } else { unstable }
    }

    /// The leaf for a page that is written to: dirty, young, and writable if the VMA is.
    fn new_huge_pmd(&self, page: PageRef<'_, P>, vmf: &Vmf<'_, P>) -> PmdVal<P> {
        let entry = Pte::new(page.slot_index(), vmf.vma_page_prot | Pte::MKDIRTY | Pte::YOUNG);
        self.huge_pmd(self.maybe_mkwrite(entry, vmf))
    }

    /// `huge_pmd_set_accessed()`: only the access flags.
    fn huge_pmd_set_accessed<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>, orig: PmdVal<P>) {
        self.pmd_lock(cpu, vmf.pmd);
        let mut leaf = self.leaf_of(orig) | Pte::YOUNG;
        if vmf.is_write() {
            leaf |= Pte::MKDIRTY;
        }
        // Not: another fault was first, or the hardware, which sets the same bits.
        let _ = vmf.pmd.set_access_flags(cpu, orig, self.huge_pmd(leaf));
        spin_unlock(cpu, vmf.pmd.ptl());
    }

    /// `do_huge_pmd_wp_page()`: a write to a huge page that is mapped read-only.
    fn do_huge_pmd_wp_page<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>, orig: PmdVal<P>) -> VmFault {
        let _step = cpu.step("do_huge_pmd_wp_page");
        let leaf = self.leaf_of(orig);
        if self.is_huge_zero(leaf) {
            return self.huge_wp_copy(cpu, vmf, orig, None);
        }
        self.pmd_lock(cpu, vmf.pmd);
        if vmf.pmd.read(cpu) != orig {
            spin_unlock(cpu, vmf.pmd.ptl());
            return VmFault::NONE;
        }
        let page = self.page(cpu, leaf.pfn());
        if !self.trylock_page(cpu, page) {
            self.get_page(cpu, page);
            spin_unlock(cpu, vmf.pmd.ptl());
            self.lock_page(cpu, page);
            self.pmd_lock(cpu, vmf.pmd);
            let same = vmf.pmd.read(cpu) == orig;
            if !same {
                spin_unlock(cpu, vmf.pmd.ptl());
                self.unlock_page(cpu, page);
            }
            self.put_page(cpu, page);
            if !same {
                return VmFault::NONE;
            }
        }
        let (reuse, _) = self.reuse_swap_page(cpu, page);
        if reuse {
            let entry = self.maybe_mkwrite(leaf | Pte::YOUNG | Pte::MKDIRTY, vmf);
            vmf.pmd.set(cpu, self.huge_pmd(entry));
        }
        self.unlock_page(cpu, page);
        if !reuse {
            self.get_page(cpu, page);
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        if reuse { VmFault::WRITE } else { self.huge_wp_copy(cpu, vmf, orig, Some(page)) }
    }

    /// The copying half of `do_huge_pmd_wp_page()`: of `page`, whose reference it takes over, or
    /// of the huge zero page.
    fn huge_wp_copy<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        orig: PmdVal<P>,
        page: Option<PageRef<'k, P>>,
    ) -> VmFault {
        let new_page = if self.transparent_hugepage_enabled(vmf.vma_flags) {
            self.alloc_huge_page_vma(cpu, vmf)
        } else {
            None
        };
        let Some(new_page) = new_page else { return self.huge_wp_without(cpu, vmf, orig, page) };
        if self.mem_cgroup_charge(cpu, new_page).is_none() {
            self.put_page(cpu, new_page);
            self.split_huge_pmd(cpu, vmf.vma, vmf.pmd);
            if let Some(page) = page {
                self.put_page(cpu, page);
            }
            return VmFault::FALLBACK;
        }
        match page {
            Some(page) => self.copy_huge_page(cpu, new_page, page),
            None => self.clear_huge_page(cpu, new_page),
        }
        self.invalidate_range_start(cpu, vmf.mm);
        self.pmd_lock(cpu, vmf.pmd);
        if let Some(page) = page {
            self.put_page(cpu, page);
        }
        let same = vmf.pmd.read(cpu) == orig;
        if same {
            // pmdp_huge_clear_flush_notify: no CPU may go on reading the old page once the new
            // one can be written.
            vmf.pmd.set(cpu, PmdVal::NONE);
            self.flush_tlb_mm(cpu, vmf.mm);
            let index = self.anon_index(cpu, vmf, self.hpage_pmd_start(vmf.address));
            self.page_add_new_huge_anon_rmap(cpu, new_page, vmf.vma, index);
            self.lru_cache_add_active_or_unevictable(cpu, new_page, vmf.vma_flags);
            vmf.pmd.set(cpu, self.new_huge_pmd(new_page, vmf));
            match page {
                Some(page) => {
                    self.page_remove_huge_rmap(cpu, page);
                    self.put_page(cpu, page);
                }
                None => {
                    self.add_mm_counter(cpu, vmf.mm, Rss::Anon, i64::from(self.hpage_pmd_nr()));
                }
            }
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        self.invalidate_range_end(cpu, vmf.mm);
        if same {
            VmFault::WRITE
        } else {
            self.put_page(cpu, new_page);
            VmFault::NONE
        }
    }

    /// No huge page for the copy: small ones; and when memory for those is short too, the leaf is
    /// split and only the page that is written to is copied.
    #[cold]
    fn huge_wp_without<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        orig: PmdVal<P>,
        page: Option<PageRef<'k, P>>,
    ) -> VmFault {
        let Some(page) = page else {
            self.split_huge_pmd(cpu, vmf.vma, vmf.pmd);
            return VmFault::FALLBACK;
        };
        let mut result = self.do_huge_pmd_wp_page_fallback(cpu, vmf, orig, page);
        if result.has(VmFault::OOM) {
            self.split_huge_pmd(cpu, vmf.vma, vmf.pmd);
            result |= VmFault::FALLBACK;
        }
        self.put_page(cpu, page);
        result
    }

    /// `do_huge_pmd_wp_page_fallback()`: a copy of small pages.
    fn do_huge_pmd_wp_page_fallback<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        orig: PmdVal<P>,
        page: PageRef<'k, P>,
    ) -> VmFault {
        let Some(copies) = self.copy_to_small_pages(cpu, vmf, page) else { return VmFault::OOM };
        self.invalidate_range_start(cpu, vmf.mm);
        self.pmd_lock(cpu, vmf.pmd);
        let same = vmf.pmd.read(cpu) == orig;
        if same {
            vmf.pmd.set(cpu, PmdVal::NONE);
            self.flush_tlb_mm(cpu, vmf.mm);
            let table = self.pgtable_trans_huge_withdraw(cpu, vmf.pmd);
            let mut address = self.hpage_pmd_start(vmf.address);
            for (index, &copy) in (0..).zip(&copies) {
                let entry =
                    Pte::new(copy.slot_index(), vmf.vma_page_prot | Pte::MKDIRTY | Pte::YOUNG);
                let at = self.anon_index(cpu, vmf, address);
                self.page_add_new_anon_rmap(cpu, copy, vmf.vma, at);
                self.lru_cache_add_active_or_unevictable(cpu, copy, vmf.vma_flags);
                table.pte(index).write(cpu, self.maybe_mkwrite(entry, vmf));
                address = address.offset(self.page_size());
            }
            vmf.pmd.set(cpu, table.ptr().into());
            self.page_remove_huge_rmap(cpu, page);
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        self.invalidate_range_end(cpu, vmf.mm);
        if same {
            self.put_page(cpu, page);
            VmFault::WRITE
        } else {
            copies.into_iter().for_each(|copy| self.put_page(cpu, copy));
            VmFault::NONE
        }
    }

    /// `None`: out of memory, with nothing kept.
    fn copy_to_small_pages<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        head: PageRef<'k, P>,
    ) -> Option<Vec<PageRef<'k, P>>> {
        // DEVIATION: 5.1 prefers the node of the huge page.
        let place = self.vma_placement(cpu, vmf.vma, vmf.address, 0);
        let mut copies: Vec<PageRef<'_, P>> = Vec::with_capacity(self.hpage_pmd_nr() as usize);
        for page in self.subpages(cpu, head) {
            let copy = self.alloc_page_at(cpu, place);
            let charged = copy.is_some_and(|copy| self.mem_cgroup_charge(cpu, copy).is_some());
            copies.extend(copy);
            if !charged {
                copies.into_iter().for_each(|copy| self.put_page(cpu, copy));
                return None;
            }
            let copy = copies.last().expect("it was charged");
            cpu.charge(Cost::CopyPage, 1);
            copy.content().poke(page.content().read(cpu));
            copy.flags().poke(copy.flags().peek() | PG_UPTODATE);
        }
        Some(copies)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/fault/huge.rs"]
mod tests;
