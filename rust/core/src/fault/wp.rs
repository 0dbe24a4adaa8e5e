//! `do_wp_page()`: a write to a page that is mapped read-only.
//!
//! Source: `mm/memory.c`, v5.1; P05, P13, P16, P22.

use super::Vmf;
use super::anonymous::release_of_page;
use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Kernel, PG_UPTODATE, PageRef, Pte, Rss, Variant, VmFault, VmFlags};
use crate::platform::{Ordering, Platform};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Called with the PTE lock held; gives it back.
    pub(super) fn do_wp_page<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("do_wp_page");
        // vm_normal_page: only the special-bit half, which reads no VMA field.
        let old_page =
            (!vmf.orig_pte.has(Pte::SPECIAL)).then(|| self.page(cpu, vmf.orig_pte.pfn()));
        let shared_writable =
            vmf.vma_flags.has(VmFlags::SHARED) && vmf.vma_flags.has(VmFlags::WRITE);
        match old_page {
            Some(page) if self.page_is_anon(cpu, page) => {
                if let Some(done) = self.wp_anon_page(cpu, vmf, page) {
                    return done;
                }
            }
            _ if shared_writable => return self.wp_page_reuse(cpu, vmf),
            _ => {}
        }
        if let Some(page) = old_page {
            self.get_page(cpu, page);
        }
        self.pte_unmap_unlock(cpu, vmf);
        self.wp_page_copy(cpu, vmf, old_page)
    }

    /// Reuses an anonymous page that nobody else maps. `None`, with the lock held: copy it.
    fn wp_anon_page<'k>(
        &'k self,
        cpu: &P,
        vmf: &mut Vmf<'k, P>,
        page: PageRef<'k, P>,
    ) -> Option<VmFault> {
        if self.page_is_ksm(cpu, page) && page.refcount().read(cpu) != 1 {
            return None;
        }
        if !self.trylock_page(cpu, page) {
            self.get_page(cpu, page);
            self.pte_unmap_unlock(cpu, vmf);
            self.lock_page(cpu, page);
            let locked = self.pte_map_lock(cpu, vmf);
            if !locked || !self.pte_same(cpu, vmf) {
                self.unlock_page(cpu, page);
                if locked {
                    self.pte_unmap_unlock(cpu, vmf);
                }
                self.put_page(cpu, page);
                return Some(if locked { VmFault::NONE } else { VmFault::RETRY });
            }
            self.put_page(cpu, page);
        }
        if self.page_is_ksm(cpu, page) {
            let index = self.anon_index(cpu, vmf, vmf.address);
            let reuse = self.reuse_ksm_page(cpu, page, vmf.vma, index);
            self.unlock_page(cpu, page);
            return reuse.then(|| self.wp_page_reuse(cpu, vmf));
        }
        let (reuse, total_mapcount) = self.reuse_swap_page(cpu, page);
        // A huge page whose other parts are mapped elsewhere too is not this VMA's alone.
        if reuse && total_mapcount == 1 {
            self.page_move_anon_rmap(cpu, page, vmf.vma);
        }
        self.unlock_page(cpu, page);
        reuse.then(|| self.wp_page_reuse(cpu, vmf))
    }

    /// `wp_page_reuse()`: makes the PTE writable through the cached flags.
    fn wp_page_reuse(&self, cpu: &P, vmf: &mut Vmf<'_, P>) -> VmFault {
        let entry = self.maybe_mkwrite(vmf.orig_pte | Pte::YOUNG | Pte::MKDIRTY, vmf);
        let pte = vmf.pte.expect("mapped").pte();
        // ptep_set_access_flags: more permission needs no flush. The lock keeps all but the
        // hardware's own bits away, and those are set here.
        pte.write(cpu, entry);
        self.pte_unmap_unlock(cpu, vmf);
        VmFault::WRITE
    }

    /// `wp_page_copy()`: a private copy of `old_page` (`None`: the zero page), whose reference
    /// it takes over.
    fn wp_page_copy<'k>(
        &'k self,
        cpu: &P,
        vmf: &mut Vmf<'k, P>,
        old_page: Option<PageRef<'k, P>>,
    ) -> VmFault {
        let _step = cpu.step("wp_page_copy");
        let put_old = |k: &Self| {
            if let Some(old) = old_page {
                k.put_page(cpu, old);
            }
        };
        if self.anon_vma_prepare(cpu, vmf.vma).is_err() {
            put_old(self);
            return VmFault::OOM;
        }
        let Some(new_page) = self.copy_of(cpu, vmf, old_page) else {
            put_old(self);
            return VmFault::OOM;
        };
        let give_up = || {
            self.put_page(cpu, new_page);
            put_old(self);
            VmFault::RETRY
        };
        let Some(notifiers) = self.keep_notifiers(cpu, vmf) else { return give_up() };
        self.invalidate_range_start(cpu, vmf.mm);
        if !self.pte_map_lock(cpu, vmf) {
            // B6: v12 leaves it begun.
            if !self.v12(Variant::B6) {
                self.invalidate_range_end(cpu, vmf.mm);
            }
            self.let_notifiers(cpu, notifiers);
            return give_up();
        }
        let copied = self.pte_same(cpu, vmf);
        if copied {
            self.install_copy(cpu, vmf, old_page, new_page);
        }
        self.pte_unmap_unlock(cpu, vmf);
        self.invalidate_range_end(cpu, vmf.mm);
        self.let_notifiers(cpu, notifiers);
        if copied {
            if let Some(old) = old_page.filter(|_| vmf.vma_flags.has(VmFlags::LOCKED)) {
                // Another task, whose VMA need not be locked, may keep it.
                self.munlock_old_page(cpu, old);
            }
            put_old(self);
            VmFault::WRITE
        } else {
            self.put_page(cpu, new_page);
            put_old(self);
            VmFault::NONE
        }
    }

    /// B7: without `mmap_sem` nothing keeps notifiers as they are until the end of the copy but the
    /// cure's lock. Inner `None`: it is not needed; outer: it cannot be had.
    fn keep_notifiers(&self, cpu: &P, vmf: &Vmf<'_, P>) -> Option<Option<u32>> {
        if !vmf.is_speculative() || self.v12(Variant::B7) {
            return Some(None);
        }
        self.mmu_notifier_trylock(cpu, vmf.mm).map(Some)
    }

    fn let_notifiers(&self, cpu: &P, kept: Option<u32>) {
        if let Some(id) = kept {
            self.mmu_notifier_unlock(cpu, id);
        }
    }

    /// `cow_user_page()`, or a zeroed page; charged. `None`: out of memory.
    fn copy_of(
        &self,
        cpu: &P,
        vmf: &Vmf<'_, P>,
        old_page: Option<PageRef<'_, P>>,
    ) -> Option<PageRef<'_, P>> {
        let place = self.vma_placement(cpu, vmf.vma, vmf.address, 0);
        let new_page = match old_page {
            None => self.alloc_zeroed_page(cpu, place)?,
            Some(old) => {
                let new = self.alloc_page_at(cpu, place)?;
                cpu.charge(Cost::CopyPage, 1);
                new.content().initialise(cpu, old.content().read(cpu));
                new
            }
        };
        new_page.flags().poke(PG_UPTODATE);
        if self.mem_cgroup_charge(cpu, new_page).is_none() {
            self.put_page(cpu, new_page);
            return None;
        }
        Some(new_page)
    }

    /// Replaces the old page by its copy. Caller holds the PTE lock.
    fn install_copy(
        &self,
        cpu: &P,
        vmf: &Vmf<'_, P>,
        old_page: Option<PageRef<'_, P>>,
        new_page: PageRef<'_, P>,
    ) {
        self.add_mm_counter(cpu, vmf.mm, Rss::Anon, 1);
        let entry = Pte::new(new_page.slot_index(), vmf.vma_page_prot);
        let entry = self.maybe_mkwrite(entry | Pte::YOUNG | Pte::MKDIRTY, vmf);
        let pte = vmf.pte.expect("mapped").pte();
        // ptep_clear_flush_notify: no CPU may go on reading the old page once the new one can be
        // written. The flush interrupts others while the PTE lock is held (A9).
        pte.swap(cpu, Pte::EMPTY, Ordering::Relaxed);
        self.flush_tlb_page(cpu, vmf.mm, vmf.address);
        self.add_new_anon_page(cpu, vmf, new_page);
        // Release: pairs with the dependent access through this PTE.
        pte.store(cpu, entry, release_of_page(cpu));
        if let Some(old) = old_page {
            self.page_remove_rmap(cpu, vmf.mm, old);
            // The reference of the mapping; the caller puts the fault's own.
            self.put_page(cpu, old);
        }
    }
}
