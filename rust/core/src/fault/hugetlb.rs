//! `hugetlb_fault()`: faults in hugetlb mappings. Never speculative (H3).
//!
//! Source: `mm/hugetlb.c`, v5.1; cached VMA fields: P13.

use super::Vmf;
use crate::design::Design;
use crate::mm::{
    HPAGE_RESV_OWNER, HPAGE_RESV_UNMAPPED, InodeRef, Kernel, PG_CACHE, PG_LOCKED, PageRef, PmdVal,
    Pte, VmFault, VmFlags,
};
use crate::platform::Platform;
use crate::sync::mutex::{mutex_lock, mutex_unlock};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Caller holds `mmap_sem` for reading.
    pub(super) fn hugetlb_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("hugetlb_fault");
        vmf.address = self.hpage_pmd_start(vmf.address);
        let mutex = self.hugetlb_fault_mutex(cpu, vmf.mm, vmf.vma, vmf.address);
        mutex_lock(cpu, mutex);
        let entry = vmf.pmd.read(cpu);
        let mut busy = None;
        let result = if entry.is_none() {
            self.hugetlb_no_page(cpu, vmf)
        } else {
            self.hugetlb_present(cpu, vmf, entry, &mut busy)
        };
        mutex_unlock(cpu, mutex);
        if let Some(page) = busy {
            // Not to come back at once for nothing.
            self.wait_on_page_locked(cpu, page);
        }
        result
    }

    fn hugetlb_file<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> (InodeRef<'k, P>, u64) {
        let inode = self.inodes.get(cpu, vmf.vma.vm_file().read(cpu));
        (inode, self.vma_hugecache_offset(cpu, vmf.vma, vmf.address))
    }

    /// `find_lock_page()`
    fn find_lock_huge_page<'k>(
        &'k self,
        cpu: &P,
        inode: InodeRef<'k, P>,
        index: u64,
    ) -> Option<PageRef<'k, P>> {
        let page = self.find_get_page(cpu, inode, index)?;
        self.lock_page(cpu, page);
        Some(page)
    }

    fn unlock_and_put(&self, cpu: &P, page: PageRef<'_, P>) {
        self.unlock_page(cpu, page);
        self.put_page(cpu, page);
    }

    /// `make_huge_pte()`: young, and writable and dirty if so.
    fn make_huge_pte(&self, vmf: &Vmf<'_, P>, page: PageRef<'_, P>, writable: bool) -> PmdVal<P> {
        let entry = Pte::new(page.slot_index(), vmf.vma_page_prot | Pte::YOUNG);
        let more = Pte::WRITE | Pte::DIRTY;
        self.huge_pmd(if writable { entry | more } else { entry.without(Pte::WRITE) })
    }

    /// `hugetlb_no_page()`: maps the file's page, or for a private mapping a new one.
    fn hugetlb_no_page<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> VmFault {
        if vmf.vma.resv_flags().read(cpu) & HPAGE_RESV_UNMAPPED != 0 {
            return VmFault::SIGBUS;
        }
        let (page, is_new) = match self.hugetlb_page(cpu, vmf) {
            Ok(found) => found,
            Err(failed) => return failed,
        };
        let shared = vmf.vma_flags.has(VmFlags::SHARED);
        let anonymous = is_new && !vmf.vma_flags.has(VmFlags::MAYSHARE);
        self.pmd_lock(cpu, vmf.pmd);
        if !vmf.pmd.read(cpu).is_none() {
            // Nobody else faults here, but the kernel looks.
            spin_unlock(cpu, vmf.pmd.ptl());
            self.unlock_page(cpu, page);
            self.restore_reserve_on_error(cpu, vmf.vma, vmf.address, page);
            self.put_page(cpu, page);
            return VmFault::NONE;
        }
        if anonymous {
            self.clear_page_private(cpu, page);
            let pgoff = self.linear_page_index(cpu, vmf.vma, vmf.address);
            self.page_add_new_huge_anon_rmap(cpu, page, vmf.vma, pgoff);
        } else {
            self.page_dup_huge_rmap(cpu, page);
        }
        let writable = shared && vmf.vma_flags.has(VmFlags::WRITE);
        let entry = self.make_huge_pte(vmf, page, writable);
        vmf.pmd.set(cpu, entry);
        let mut result = VmFault::NONE;
        if vmf.is_write() && !shared {
            // The copy at once, without a second fault.
            result = self.hugetlb_cow(cpu, vmf, entry, page, Some(page));
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        self.unlock_page(cpu, page);
        result
    }

    /// The page to map, locked and with a reference for the mapping, and whether it is new.
    fn hugetlb_page<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
    ) -> Result<(PageRef<'k, P>, bool), VmFault> {
        let (inode, index) = self.hugetlb_file(cpu, vmf);
        loop {
            if index >= inode.i_size().read(cpu) / self.pmd_size() {
                return Err(VmFault::SIGBUS);
            }
            if let Some(page) = self.find_lock_huge_page(cpu, inode, index) {
                return Ok((page, false));
            }
            if self.userfaultfd_missing(vmf) {
                return Err(self.hugetlb_userfault(cpu, vmf));
            }
            let page = self.alloc_huge_page(cpu, vmf.vma, vmf.address, false);
            let page = page.ok_or(VmFault::SIGBUS)?;
            self.clear_huge_page(cpu, page);
            // Nobody knows it yet.
            page.flags().poke(page.flags().peek() | PG_LOCKED);
            if !vmf.vma_flags.has(VmFlags::MAYSHARE) {
                if self.anon_vma_prepare(cpu, vmf.vma).is_ok() {
                    return Ok((page, true));
                }
                self.unlock_page(cpu, page);
                self.restore_reserve_on_error(cpu, vmf.vma, vmf.address, page);
                self.put_page(cpu, page);
                return Err(VmFault::OOM);
            }
            page.flags().poke(page.flags().peek() | PG_CACHE);
            if self.add_to_page_cache(cpu, inode, index, page) {
                self.clear_page_private(cpu, page);
                return Ok((page, true));
            }
            page.flags().poke(page.flags().peek() & !PG_CACHE);
            self.unlock_and_put(cpu, page);
        }
    }

    /// The page is for user space to bring, which takes the mutex that the caller holds.
    fn hugetlb_userfault(&self, cpu: &P, vmf: &Vmf<'_, P>) -> VmFault {
        let mutex = self.hugetlb_fault_mutex(cpu, vmf.mm, vmf.vma, vmf.address);
        mutex_unlock(cpu, mutex);
        let result = self.handle_userfault(cpu, vmf);
        mutex_lock(cpu, mutex);
        result
    }

    /// The second half of `hugetlb_fault()`: a page is mapped. `busy`: one that somebody else has
    /// locked, to be waited for.
    fn hugetlb_present<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        entry: PmdVal<P>,
        busy: &mut Option<PageRef<'k, P>>,
    ) -> VmFault {
        let leaf = self.leaf_of(entry);
        let copies = vmf.is_write() && !leaf.has(Pte::WRITE);
        let cached = if copies && !vmf.vma_flags.has(VmFlags::MAYSHARE) {
            let (inode, index) = self.hugetlb_file(cpu, vmf);
            self.find_lock_huge_page(cpu, inode, index)
        } else {
            None
        };
        self.pmd_lock(cpu, vmf.pmd);
        let mut result = VmFault::NONE;
        if vmf.pmd.read(cpu) == entry {
            let page = self.page(cpu, leaf.pfn());
            let locks = cached != Some(page);
            if locks && !self.trylock_page(cpu, page) {
                *busy = Some(page);
            } else {
                self.get_page(cpu, page);
                if copies {
                    result = self.hugetlb_cow(cpu, vmf, entry, page, cached);
                } else {
                    let dirty = if vmf.is_write() { Pte::DIRTY } else { Pte::EMPTY };
                    let used = self.huge_pmd(leaf | Pte::YOUNG | dirty);
                    // Not: the hardware was first, which sets the same bits.
                    let _ = vmf.pmd.set_access_flags(cpu, entry, used);
                }
                if locks {
                    self.unlock_page(cpu, page);
                }
                self.put_page(cpu, page);
            }
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        if let Some(cached) = cached {
            self.unlock_and_put(cpu, cached);
        }
        result
    }

    /// `hugetlb_cow()`: makes the page writable if nobody else maps it, else maps a copy. Called,
    /// and comes back, with the PMD lock held; `old` is locked, `cached` is the file's page.
    fn hugetlb_cow<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        entry: PmdVal<P>,
        old: PageRef<'k, P>,
        cached: Option<PageRef<'k, P>>,
    ) -> VmFault {
        let _step = cpu.step("hugetlb_cow");
        // Who reserved the mapping must not use that up for what only its children need.
        let is_owner = vmf.vma.resv_flags().read(cpu) & HPAGE_RESV_OWNER != 0;
        let outside_reserve = is_owner && cached != Some(old);
        loop {
            if old.compound_mapcount().read(cpu) == 1 && self.page_is_anon(cpu, old) {
                self.page_move_anon_rmap(cpu, old, vmf.vma);
                let leaf = self.leaf_of(vmf.pmd.read(cpu));
                vmf.pmd.set(cpu, self.huge_pmd(leaf | Pte::WRITE | Pte::DIRTY));
                return VmFault::NONE;
            }
            self.get_page(cpu, old);
            spin_unlock(cpu, vmf.pmd.ptl());
            if let Some(new) = self.alloc_huge_page(cpu, vmf.vma, vmf.address, outside_reserve) {
                return self.hugetlb_map_copy(cpu, vmf, entry, old, new);
            }
            self.put_page(cpu, old);
            if outside_reserve {
                self.unmap_ref_private(cpu, vmf, old);
            }
            self.pmd_lock(cpu, vmf.pmd);
            if !outside_reserve {
                return VmFault::SIGBUS;
            }
            if vmf.pmd.read(cpu) != entry {
                return VmFault::NONE;
            }
        }
    }

    /// The rest of `hugetlb_cow()`, with `new` at hand and no lock held.
    fn hugetlb_map_copy<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        entry: PmdVal<P>,
        old: PageRef<'k, P>,
        new: PageRef<'k, P>,
    ) -> VmFault {
        let prepared = self.anon_vma_prepare(cpu, vmf.vma).is_ok();
        if prepared && self.hugetlb_replace(cpu, vmf, entry, old, new) {
            self.put_page(cpu, old); // the mapping's
        } else {
            self.restore_reserve_on_error(cpu, vmf.vma, vmf.address, new);
            self.put_page(cpu, new);
        }
        self.put_page(cpu, old);
        self.pmd_lock(cpu, vmf.pmd);
        if prepared { VmFault::NONE } else { VmFault::OOM }
    }

    /// The middle of `hugetlb_cow()`: maps a copy, unless the entry is no more what it was. Whether
    /// it did.
    fn hugetlb_replace<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        entry: PmdVal<P>,
        old: PageRef<'k, P>,
        new: PageRef<'k, P>,
    ) -> bool {
        self.copy_huge_page(cpu, new, old);
        self.invalidate_range_start(cpu, vmf.mm);
        self.pmd_lock(cpu, vmf.pmd);
        let copied = vmf.pmd.read(cpu) == entry;
        if copied {
            self.clear_page_private(cpu, new);
            // huge_ptep_clear_flush
            vmf.pmd.set(cpu, PmdVal::NONE);
            self.flush_tlb_mm(cpu, vmf.mm);
            let pgoff = self.linear_page_index(cpu, vmf.vma, vmf.address);
            self.page_add_new_huge_anon_rmap(cpu, new, vmf.vma, pgoff);
            vmf.pmd.set(cpu, self.make_huge_pte(vmf, new, true));
            self.page_remove_huge_rmap(cpu, old);
        }
        spin_unlock(cpu, vmf.pmd.ptl());
        self.invalidate_range_end(cpu, vmf.mm);
        copied
    }

    /// `unmap_ref_private()`: takes the page from the mappings that have not reserved it, whose
    /// faults fail from then on.
    fn unmap_ref_private(&self, cpu: &P, vmf: &Vmf<'_, P>, page: PageRef<'_, P>) {
        let pgoff = self.linear_page_index(cpu, vmf.vma, vmf.address);
        let inode = self.inodes.get(cpu, vmf.vma.vm_file().read(cpu));
        let sem = self.i_mmap_sem(inode);
        sem.down_write(cpu);
        for (vma, _) in self.vma_interval_tree_foreach(cpu, inode, pgoff, pgoff) {
            let is_owner = vma.resv_flags().read(cpu) & HPAGE_RESV_OWNER != 0;
            let is_shared = vma.vm_flags().read(cpu).has(VmFlags::MAYSHARE);
            if vma == vmf.vma || is_shared || is_owner {
                continue;
            }
            let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
            let mut tlb = self.tlb_gather_mmu(cpu, mm);
            self.invalidate_range(cpu, mm, || {
                self.unmap_lost_hugepage(cpu, &mut tlb, vma, vmf.address, page);
            });
            self.tlb_finish_mmu(cpu, tlb);
        }
        sem.up_write(cpu);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/fault/hugetlb.rs"]
mod tests;
