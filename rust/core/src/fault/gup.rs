//! `get_user_pages()`: faults that no hardware reports, for MAP_POPULATE, mlock and the like.
//!
//! They are not speculative, count no `faults`, and of the arch's handler have nothing.
//! Source: `mm/gup.c`, v5.1; MADV_POPULATE_*: v6.9.

use std::ops::Range;

use crate::design::Design;
use crate::mm::{
    Errno, FaultFlags, Kernel, MmRef, PG_DIRTY, PageRef, Pte, Vaddr, VmFault, VmFlags, VmaRef,
};
use crate::platform::Platform;
use crate::sync::spinlock::spin_unlock;

/// How pages are got.
#[derive(Clone, Copy)]
struct Foll {
    write: bool,
    /// Somebody else's address space.
    remote: bool,
    /// Whatever the protection, as long as there is any. (Then hints of NUMA balancing do not
    /// count, either.)
    force: bool,
    /// Bring in what is not there.
    populate: bool,
}

/// What came of getting pages of one VMA.
#[derive(Clone, Copy)]
struct Got {
    nr_pages: u64,
    /// `mmap_sem` was dropped: the VMA may be gone.
    dropped: bool,
}

/// Whether a fault may drop `mmap_sem`, which is held for reading then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drop {
    Never,
    NotForTheFirst,
    Allowed,
}

impl Drop {
    /// After a round that dropped it for the first page of all. DEVIATION: the kernel drops it each
    /// time, and finds in other ways that there is no memory to read into; whom userfaultfd has
    /// nothing to give waits for ever there.
    fn after(got: Got) -> Self {
        if got.dropped && got.nr_pages == 0 { Self::NotForTheFirst } else { Self::Allowed }
    }
}

/// What becomes of one page.
enum Page {
    There,
    /// Cannot be had now: `mmap_sem` was dropped.
    Retry,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mm_populate()`: faults in all pages of a range of the current address space, as far as
    /// they can be had. Caller does not hold `mmap_sem`.
    pub(crate) fn mm_populate(&self, cpu: &P, start: u64, length: u64) {
        let _ = self.populate_range(cpu, start, length, true);
    }

    /// `__mm_populate()` that stops at the first error.
    pub(crate) fn mm_populate_all(&self, cpu: &P, start: u64, length: u64) -> Result<(), Errno> {
        self.populate_range(cpu, start, length, false)
    }

    /// `__mm_populate()`: VMA by VMA; holes are passed over. Ignored, an error ends only what is
    /// left of its VMA.
    fn populate_range(
        &self,
        cpu: &P,
        start: u64,
        length: u64,
        ignore_errors: bool,
    ) -> Result<(), Errno> {
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        let (mut at, end) = (Vaddr(start), Vaddr(start + length));
        let mut vma: Option<VmaRef<'_, P>> = None;
        let (mut locked, mut drop) = (false, Drop::Allowed);
        let mut result = Ok(());
        while at < end {
            if !locked {
                sem.down_read(cpu);
                locked = true;
                vma = self.find_vma(cpu, mm, at);
            } else if let Some(done) = vma.filter(|vma| at >= vma.vm_end().read(cpu)) {
                vma = self.vm_next(cpu, done);
            }
            let Some(here) = vma.filter(|vma| vma.vm_start().read(cpu) < end) else { break };
            at = at.max(here.vm_start().read(cpu));
            let stop = end.min(here.vm_end().read(cpu));
            match self.populate_vma_page_range(cpu, mm, here, at, stop, drop) {
                Ok(got) => {
                    drop = Drop::after(got);
                    locked = !got.dropped;
                    at = at.offset(got.nr_pages << self.page_shift());
                }
                Err(_) if ignore_errors => at = stop,
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            }
        }
        if locked {
            sem.up_read(cpu);
        }
        result
    }

    /// `populate_vma_page_range()` for a part of one VMA. Private memory that may be written is
    /// written to, for its first write would have to copy.
    fn populate_vma_page_range(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        drop: Drop,
    ) -> Result<Got, Errno> {
        let flags = vma.vm_flags().read(cpu);
        let how = Foll {
            write: flags.has(VmFlags::WRITE) && !flags.has(VmFlags::SHARED),
            remote: false,
            force: flags.has(VmFlags::READ | VmFlags::WRITE | VmFlags::EXEC),
            populate: !flags.has(VmFlags::LOCKONFAULT),
        };
        self.get_user_pages(cpu, mm, vma, start..end, how, drop)
    }

    /// What mprotect does for locked private memory that becomes writable: the copies that writes
    /// would make. Caller holds `mmap_sem` for write and goes on holding it.
    pub(crate) fn populate_for_mprotect(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
    ) {
        if !vma.vm_sequence().peek().is_multiple_of(2) {
            cpu.finding("fault-while-odd", "a writer faults in its own section".to_owned()); // A30
        }
        let _ = self.populate_vma_page_range(cpu, mm, vma, start, end, Drop::Never);
    }

    /// `madvise_populate()`, which came with 5.14, as it is since 6.9: the first error ends it, and
    /// so does a hole. Caller holds `mmap_sem` for reading, which may be dropped and taken again.
    pub(crate) fn madvise_populate(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        write: bool,
    ) -> Result<(), Errno> {
        let how = Foll { write, remote: false, force: false, populate: true };
        let (mut at, mut here, mut drop) = (start, None::<VmaRef<'_, P>>, Drop::Allowed);
        while at < end {
            if here.is_none_or(|vma| at >= vma.vm_end().read(cpu)) {
                here = self.find_vma(cpu, mm, at).filter(|vma| vma.vm_start().read(cpu) <= at);
            }
            let vma = here.ok_or(Errno::Enomem)?;
            if !self.check_vma_flags(cpu, vma, how) {
                return Err(Errno::Einval);
            }
            let stop = end.min(vma.vm_end().read(cpu));
            let got = self.get_user_pages(cpu, mm, vma, at..stop, how, drop)?;
            drop = Drop::after(got);
            if got.dropped {
                self.mmap_sem(mm).down_read(cpu);
                here = None;
            }
            at = at.offset(got.nr_pages << self.page_shift());
        }
        Ok(())
    }

    /// `get_user_pages_remote()` as exec uses it: whether a page of a new stack, which grows down to
    /// it, can be had.
    pub(crate) fn get_user_pages_remote(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        page: Vaddr,
    ) -> bool {
        // find_extend_vma()
        if page < vma.vm_start().read(cpu) && !self.expand_stack(cpu, mm, vma, page) {
            return false;
        }
        let how = Foll { write: true, remote: true, force: true, populate: true };
        let end = page.offset(self.page_size());
        self.get_user_pages(cpu, mm, vma, page..end, how, Drop::Never).is_ok()
    }

    /// `__get_user_pages()` within one VMA: how many pages before the first that cannot be had;
    /// an error if that is the first of all.
    fn get_user_pages(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        Range { start, end }: Range<Vaddr>,
        how: Foll,
        drop: Drop,
    ) -> Result<Got, Errno> {
        let _step = cpu.step("get_user_pages");
        if !self.check_vma_flags(cpu, vma, how) {
            return Err(Errno::Efault);
        }
        let whole = end.since(start) >> self.page_shift();
        for nr_pages in 0..whole {
            let address = start.offset(nr_pages << self.page_shift());
            let drop = match drop {
                Drop::NotForTheFirst if nr_pages > 0 => Drop::Allowed,
                drop => drop,
            };
            match self.get_user_page(cpu, mm, vma, address, how, drop) {
                Ok(Page::There) => {}
                Ok(Page::Retry) => return Ok(Got { nr_pages, dropped: true }),
                Err(errno) if nr_pages == 0 => return Err(errno),
                Err(_) => return Ok(Got { nr_pages, dropped: false }),
            }
        }
        Ok(Got { nr_pages: whole, dropped: false })
    }

    /// `check_vma_flags()`. A protection key counts, force or not: these are data accesses.
    fn check_vma_flags(&self, cpu: &P, vma: VmaRef<'_, P>, how: Foll) -> bool {
        let flags = vma.vm_flags().read(cpu);
        if flags.has(VmFlags::PFNMAP) {
            return false;
        }
        let wanted = if how.write { VmFlags::WRITE } else { VmFlags::READ };
        (flags.has(wanted) || how.force)
            && self.arch_vma_access_permitted(cpu, vma, how.fault_flags())
    }

    /// One page, with as many faults as it takes.
    fn get_user_page(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        how: Foll,
        drop: Drop,
    ) -> Result<Page, Errno> {
        loop {
            if cpu.fatal_signal_pending() {
                return Err(Errno::Efault); // ERESTARTSYS, which nobody lives to see
            }
            // Locked on fault: only what is there.
            if self.follow_page(cpu, mm, vma, address, how) || !how.populate {
                return Ok(Page::There);
            }
            // faultin_page()
            let mut flags = how.fault_flags();
            if drop == Drop::Allowed {
                flags |= FaultFlags::ALLOW_RETRY;
            }
            let fault = if self.is_vm_hugetlb_page(cpu, vma) {
                self.handle_uncounted_fault(cpu, mm, vma, address, flags)
            } else {
                self.handle_mm_fault(cpu, mm, vma, address, flags)
            };
            if fault.has(VmFault::OOM) {
                return Err(Errno::Enomem);
            }
            if fault.has(VmFault::ERROR) {
                return Err(Errno::Efault);
            }
            if fault.has(VmFault::RETRY) {
                return Ok(Page::Retry);
            }
        }
    }

    /// `follow_page_mask()`: whether the page is there, and writable if it is to be written; it is
    /// locked in memory then, if it is to be.
    fn follow_page(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        how: Foll,
    ) -> bool {
        let Some(pmd) = self.walk_pmd(cpu, mm, address) else { return false };
        let value = pmd.read(cpu);
        if value.is_huge()
            && let Some(leaf) = self.pmd_trans_huge_lock(cpu, pmd)
        {
            let there = self.follow_trans_huge_pmd(cpu, vma, leaf, how);
            spin_unlock(cpu, pmd.ptl());
            return there;
        }
        let Some(table) = pmd.read(cpu).table() else { return false };
        let slot = self.pte_offset_map_lock(cpu, table, address);
        let pte = slot.pte().read(cpu);
        let there = how.can_follow(pte);
        if there {
            let page = self.page(cpu, pte.pfn());
            if how.write && !pte.has(Pte::DIRTY) {
                // FOLL_TOUCH, as all who come here ask: what MADV_FREE gave up counts again.
                self.page_set(cpu, self.compound_head(cpu, page), PG_DIRTY);
            }
            // A huge page that PTEs map is not locked.
            let locked = vma.vm_flags().read(cpu).has(VmFlags::LOCKED);
            if locked && !self.page_is_compound(page) {
                self.mlock_if_free(cpu, page);
            }
        }
        spin_unlock(cpu, slot.ptl());
        there
    }

    /// `follow_trans_huge_pmd()`. Caller holds the PMD lock. A huge page that is mapped elsewhere,
    /// too, is not locked.
    fn follow_trans_huge_pmd(&self, cpu: &P, vma: VmaRef<'_, P>, leaf: Pte, how: Foll) -> bool {
        let there = how.can_follow(leaf);
        if there && vma.vm_flags().read(cpu).has(VmFlags::LOCKED) {
            let head = self.page(cpu, leaf.pfn());
            if head.compound_mapcount().read(cpu) == 1 {
                self.mlock_if_free(cpu, head);
            }
        }
        there
    }

    /// Marks a page as locked in memory: not the zero page, which is nobody's, nor one whose lock
    /// somebody holds now; reclaim will see to that.
    fn mlock_if_free(&self, cpu: &P, page: PageRef<'_, P>) {
        if page.mapping().read(cpu) != 0 && self.trylock_page(cpu, page) {
            self.mlock_vma_page(cpu, page);
            self.unlock_page(cpu, page);
        }
    }
}

impl Foll {
    /// What `faultin_page()` makes of it.
    fn fault_flags(self) -> FaultFlags {
        let mut flags = FaultFlags::NONE;
        if self.write {
            flags |= FaultFlags::WRITE;
        }
        if self.remote {
            flags |= FaultFlags::REMOTE;
        }
        flags
    }

    /// Whether what this PTE maps is there, and writable if it is to be written.
    fn can_follow(self, pte: Pte) -> bool {
        pte.is_present()
            && (self.force || !pte.has(Pte::PROTNONE))
            && (!self.write || pte.has(Pte::WRITE))
    }
}

#[cfg(test)]
#[path = "../../tests/unit/fault/gup.rs"]
mod tests;
