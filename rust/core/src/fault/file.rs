//! `do_fault()`: the first access to a page of a file mapping. Never speculative: the file's
//! own handler may drop `mmap_sem` (A18).
//!
//! Source: `mm/memory.c`, `mm/filemap.c`, `mm/shmem.c`, v5.1; cached VMA fields: P13.

use super::Vmf;
use crate::design::Design;
use crate::events::{Cost, Event};
use crate::mm::{
    FaultFlags, InodeRef, Kernel, PG_UPTODATE, PageRef, Pte, PteSlot, Rss, Table, Vaddr,
};
use crate::mm::{VmFault, VmFlags, VmOps};
use crate::platform::{Ordering, Platform, Ptr};
use crate::sync::spinlock::spin_unlock;

/// `fault_around_bytes`: how much a read fault maps at most.
const FAULT_AROUND_BYTES: u64 = 64 << 10;

/// Results after which there is no page to map.
const NOT_DONE: VmFault = VmFault(VmFault::ERROR.0 | VmFault::NOPAGE.0 | VmFault::RETRY.0);

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `do_fault()`. Caller holds `mmap_sem` for reading; the PTE was none.
    pub(super) fn do_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let _step = cpu.step("do_fault");
        if !VmOps::have_fault(vmf.vma.vm_ops().read(cpu)) {
            self.no_fault_op(cpu, vmf)
        } else if !vmf.is_write() {
            self.do_read_fault(cpu, vmf)
        } else if !vmf.vma_flags.has(VmFlags::SHARED) {
            self.do_cow_fault(cpu, vmf)
        } else {
            self.do_shared_fault(cpu, vmf)
        }
    }

    /// Operations without `fault`: whoever cleared the PTE for a moment has put it back, or
    /// there is nothing.
    fn no_fault_op<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        if vmf.pmd.read(cpu).is_none() || !self.pte_map_lock(cpu, vmf) {
            return VmFault::SIGBUS;
        }
        let empty = vmf.pte.expect("mapped").pte().read(cpu).is_none();
        self.pte_unmap_unlock(cpu, vmf);
        if empty { VmFault::SIGBUS } else { VmFault::NOPAGE }
    }

    /// `do_read_fault()`: what the page cache has around the address, else this page alone.
    fn do_read_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        if FAULT_AROUND_BYTES > self.page_size() && self.do_fault_around(cpu, vmf) {
            return VmFault::NOPAGE;
        }
        self.map_page_of_file(cpu, vmf)
    }

    /// `do_cow_fault()`: a write to a private mapping gets a copy of the file's page.
    fn do_cow_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        if self.anon_vma_prepare(cpu, vmf.vma).is_err() {
            return VmFault::OOM;
        }
        let place = self.vma_placement(cpu, vmf.vma, vmf.address, 0);
        let Some(cow_page) = self.alloc_page_at(cpu, place) else { return VmFault::OOM };
        if self.mem_cgroup_charge(cpu, cow_page).is_none() {
            self.put_page(cpu, cow_page);
            return VmFault::OOM;
        }
        let (page, found) = match self.filemap_fault(cpu, vmf) {
            Ok(found) => found,
            Err(failed) => {
                self.put_page(cpu, cow_page);
                return failed;
            }
        };
        cpu.charge(Cost::CopyPage, 1);
        cow_page.content().poke(page.content().read(cpu));
        cow_page.flags().poke(cow_page.flags().peek() | PG_UPTODATE);
        let result = found | self.finish_fault(cpu, vmf, cow_page);
        self.unlock_page(cpu, page);
        self.put_page(cpu, page);
        if result.has(NOT_DONE) {
            self.put_page(cpu, cow_page);
        }
        result
    }

    /// `do_shared_fault()`: a write to a shared mapping; `page_mkwrite` always agrees.
    fn do_shared_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        self.map_page_of_file(cpu, vmf)
    }

    /// Finds the page of the file, or brings it in, and maps it.
    fn map_page_of_file<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>) -> VmFault {
        let (page, found) = match self.filemap_fault(cpu, vmf) {
            Ok(found) => found,
            Err(failed) => return failed,
        };
        let result = found | self.finish_fault(cpu, vmf, page);
        self.unlock_page(cpu, page);
        if result.has(NOT_DONE) {
            self.put_page(cpu, page);
        }
        result
    }

    /// `vm_ops->fault`: the page with a reference, locked, and `VM_FAULT_MAJOR` if it had to be
    /// read. After `VM_FAULT_RETRY` the VMA may be gone: `mmap_sem` was dropped for the wait, as
    /// `filemap_fault()` does once in a fault, and `shmem_fault()` never.
    fn filemap_fault(
        &self,
        cpu: &P,
        vmf: &Vmf<'_, P>,
    ) -> Result<(PageRef<'_, P>, VmFault), VmFault> {
        let inode = self.inodes.get(cpu, vmf.vma.vm_file().read(cpu));
        let mut result = VmFault::NONE;
        loop {
            if vmf.pgoff >= self.file_pages(cpu, inode) {
                return Err(VmFault::SIGBUS);
            }
            let (page, found) = self.lock_page_of_file(cpu, vmf, inode)?;
            result |= found;
            if self.is_page_of(cpu, page, inode) {
                // Truncation first makes the file shorter, and then comes for the page.
                if vmf.pgoff < self.file_pages(cpu, inode) {
                    return Ok((page, result));
                }
                result = VmFault::SIGBUS;
            }
            self.unlock_page(cpu, page);
            self.put_page(cpu, page);
            if result.has(VmFault::SIGBUS) {
                return Err(VmFault::SIGBUS);
            }
        }
    }

    /// The page, brought in if it is not there, locked. It may have left the file.
    fn lock_page_of_file(
        &self,
        cpu: &P,
        vmf: &Vmf<'_, P>,
        inode: InodeRef<'_, P>,
    ) -> Result<(PageRef<'_, P>, VmFault), VmFault> {
        let may_drop = || {
            let is_file = vmf.vma.vm_ops().read(cpu) == VmOps::File as u64;
            is_file && vmf.flags.has(FaultFlags::ALLOW_RETRY)
        };
        if let Some(page) = self.find_get_page(cpu, inode, vmf.pgoff) {
            if !self.trylock_page(cpu, page) {
                // Another CPU reads or maps it. lock_page_maybe_drop_mmap()
                if may_drop() {
                    self.unlock_mmap_for_io(cpu, vmf, inode, || {
                        self.lock_page(cpu, page);
                        self.unlock_page(cpu, page);
                        self.put_page(cpu, page);
                    });
                    return Err(VmFault::RETRY);
                }
                self.lock_page(cpu, page);
            }
            return Ok((page, VmFault::NONE));
        }
        if !self.pages_to_read(cpu, inode).contains(&vmf.pgoff) {
            // shmem_getpage_gfp()
            if self.userfaultfd_missing(vmf) {
                return Err(self.handle_userfault(cpu, vmf));
            }
            cpu.charge(Cost::ClearPage, 1);
            return Ok((self.fill_page(cpu, inode, vmf.pgoff, false)?, VmFault::NONE));
        }
        self.count(cpu, Event::Pgmajfault);
        if may_drop() {
            self.unlock_mmap_for_io(cpu, vmf, inode, || {
                // Out of memory: the second round will see.
                if let Ok(page) = self.fill_page(cpu, inode, vmf.pgoff, true) {
                    self.unlock_page(cpu, page);
                    self.put_page(cpu, page);
                }
            });
            return Err(VmFault::MAJOR | VmFault::RETRY);
        }
        Ok((self.fill_page(cpu, inode, vmf.pgoff, true)?, VmFault::MAJOR))
    }

    /// `maybe_unlock_mmap_for_io()`, and what comes until the file is given back: waits without
    /// `mmap_sem`, which the caller holds for reading and does not get back.
    fn unlock_mmap_for_io(
        &self,
        cpu: &P,
        vmf: &Vmf<'_, P>,
        inode: InodeRef<'_, P>,
        wait: impl FnOnce(),
    ) {
        let _step = cpu.step("maybe_unlock_mmap_for_io");
        self.get_file(cpu, inode.ptr());
        self.mmap_sem(vmf.mm).up_read(cpu);
        wait();
        self.fput(cpu, inode.ptr());
    }

    /// Brings a page into the page cache; `read`: from the device. Returned locked, as it is while
    /// it is read: nobody sees half a page. One that is not locked is up to date.
    fn fill_page(
        &self,
        cpu: &P,
        inode: InodeRef<'_, P>,
        index: u64,
        read: bool,
    ) -> Result<PageRef<'_, P>, VmFault> {
        let new = self.page_cache_alloc_locked(cpu).ok_or(VmFault::OOM)?;
        loop {
            if self.add_to_page_cache_lru(cpu, inode, index, new) {
                if read {
                    cpu.wait_for_io(&[(Cost::ReadPage, 1)]);
                }
                return Ok(new);
            }
            // What is there now may be gone again.
            if let Some(page) = self.find_get_page(cpu, inode, index) {
                self.put_page(cpu, new);
                self.lock_page(cpu, page);
                return Ok(page);
            }
        }
    }

    /// `finish_fault()` and `alloc_set_pte()`: maps the locked `page`, or the private copy. The
    /// page table comes only now, so that a fault that fails leaves none.
    fn finish_fault<'k>(&'k self, cpu: &P, vmf: &mut Vmf<'k, P>, page: PageRef<'_, P>) -> VmFault {
        // Also for a read: a copy may have been lost. Not so where pages are mapped around.
        if !vmf.vma_flags.has(VmFlags::SHARED) {
            let unstable = self.check_stable_address_space(cpu, vmf.mm);
            if unstable != VmFault::NONE {
                return unstable;
            }
        }
        if !self.pte_alloc(cpu, vmf.mm, vmf.pmd) {
            return VmFault::OOM;
        }
        if !self.pte_map_lock(cpu, vmf) {
            return VmFault::RETRY;
        }
        let slot = vmf.pte.expect("mapped");
        let free = slot.pte().read(cpu).is_none();
        if free {
            self.set_file_pte(cpu, vmf, slot, page);
        }
        self.pte_unmap_unlock(cpu, vmf);
        if free { VmFault::NONE } else { VmFault::NOPAGE }
    }

    /// The second half of `alloc_set_pte()`. Caller holds the PTE lock; the reference to `page`
    /// becomes the mapping's.
    fn set_file_pte(&self, cpu: &P, vmf: &Vmf<'_, P>, slot: PteSlot<'_, P>, page: PageRef<'_, P>) {
        let mut entry = Pte::new(page.slot_index(), vmf.vma_page_prot | Pte::YOUNG);
        if vmf.is_write() {
            entry = self.maybe_mkwrite(entry | Pte::MKDIRTY, vmf);
        }
        if vmf.is_write() && !vmf.vma_flags.has(VmFlags::SHARED) {
            self.add_mm_counter(cpu, vmf.mm, Rss::Anon, 1);
            self.add_new_anon_page(cpu, vmf, page);
        } else {
            self.add_mm_counter(cpu, vmf.mm, Rss::File, 1);
            self.page_dup_rmap(cpu, page);
        }
        // Release: the page's content and rmap come first; pairs with the dependent access
        // through this PTE.
        slot.pte().store(cpu, entry, Ordering::Release);
    }

    /// `do_fault_around()`: maps what the page cache has of the aligned 64 KiB around the
    /// address, clipped to VMA, page table and file. True: the fault is solved.
    fn do_fault_around<'k>(&'k self, cpu: &P, vmf: &Vmf<'k, P>) -> bool {
        let window = Vaddr(vmf.address.0 & !(FAULT_AROUND_BYTES - 1));
        let start = window.max(vmf.vma.vm_start().read(cpu));
        let end = start.offset(FAULT_AROUND_BYTES).min(vmf.vma.vm_end().read(cpu));
        let end = self.pmd_addr_end(start, end);
        let Some(locked) = self.filemap_map_pages(cpu, vmf, start, end) else { return false };
        let mine = self.pte_offset_map(cpu, pte_table(cpu, vmf), vmf.address).pte().read(cpu);
        spin_unlock(cpu, locked.ptl());
        !mine.is_none()
    }

    /// `filemap_map_pages()`: maps the pages of `start..end` that are in the page cache and that
    /// nobody holds locked. Returns with the PTE lock held if there was one, else `None`.
    fn filemap_map_pages<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        start: Vaddr,
        end: Vaddr,
    ) -> Option<PteSlot<'k, P>> {
        let inode = self.inodes.get(cpu, vmf.vma.vm_file().read(cpu));
        let first = vmf.pgoff - (vmf.address.since(start) >> self.page_shift());
        let nr_pages = end.since(start) >> self.page_shift();
        let beyond = (first + nr_pages).min(self.file_pages(cpu, inode));
        let mut locked = None;
        for index in first..beyond {
            let Some(page) = self.find_get_page(cpu, inode, index) else { continue };
            let address = start.offset((index - first) << self.page_shift());
            if !self.trylock_page(cpu, page) {
                self.put_page(cpu, page);
                continue;
            }
            let stays = self.is_page_of(cpu, page, inode) && index < self.file_pages(cpu, inode);
            if !stays {
                self.unlock_page(cpu, page);
                self.put_page(cpu, page);
                continue;
            }
            let slot = self.map_around_slot(cpu, vmf, address, &mut locked);
            let mapped = slot.is_some_and(|slot| {
                let free = slot.pte().read(cpu).is_none();
                if free {
                    self.set_file_pte(cpu, vmf, slot, page);
                }
                free
            });
            self.unlock_page(cpu, page);
            if !mapped {
                self.put_page(cpu, page);
            }
        }
        locked
    }

    /// The PTE for `address`; the first time this makes sure of the page table and locks it.
    /// `None`: out of memory.
    fn map_around_slot<'k>(
        &'k self,
        cpu: &P,
        vmf: &Vmf<'k, P>,
        address: Vaddr,
        locked: &mut Option<PteSlot<'k, P>>,
    ) -> Option<PteSlot<'k, P>> {
        if locked.is_some() {
            return Some(self.pte_offset_map(cpu, pte_table(cpu, vmf), address));
        }
        if !self.pte_alloc(cpu, vmf.mm, vmf.pmd) {
            return None;
        }
        *locked = Some(self.pte_offset_map_lock(cpu, pte_table(cpu, vmf), address));
        *locked
    }
}

/// The table of PTEs that the fault has made sure of. No huge page maps a file.
fn pte_table<P: Platform>(cpu: &P, vmf: &Vmf<'_, P>) -> Ptr<Table<P>> {
    vmf.pmd.read(cpu).table().expect("a table of PTEs")
}

#[cfg(test)]
#[path = "../../tests/unit/fault/file.rs"]
mod tests;
