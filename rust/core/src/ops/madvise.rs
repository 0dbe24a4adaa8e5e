//! `madvise`. Source: `mm/madvise.c`, `mm/huge_memory.c`, v5.1; P10.

use std::ops::Range;

use crate::design::Design;
use crate::events::Cost;
use crate::mm::{Errno, Kernel, MmRef, VM_SPECIAL, Vaddr, VmFlags, VmaRef, can_madv_dontneed_vma};
use crate::platform::Platform;

/// Memory that `ksm_madvise()` has nothing to do with.
const UNMERGEABLE: VmFlags = VmFlags(
    VmFlags::SHARED.0
        | VmFlags::MAYSHARE.0
        | VmFlags::PFNMAP.0
        | VmFlags::DONTEXPAND.0
        | VmFlags::HUGETLB.0,
);

/// The advices that can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    Dontneed,
    Free,
    Willneed,
    /// Since 5.4, as `Pageout`.
    Cold,
    Pageout,
    Normal,
    Random,
    Sequential,
    Hugepage,
    Nohugepage,
    Mergeable,
    Unmergeable,
    Dontfork,
    Dofork,
    Wipeonfork,
    Keeponfork,
    Dontdump,
    Dodump,
    /// Since 5.14.
    PopulateRead,
    PopulateWrite,
}

impl Advice {
    /// `madvise_need_mmap_write()`: whether the VMA itself changes.
    fn needs_write(self) -> bool {
        !self.is_about_pages() && !matches!(self, Self::PopulateRead | Self::PopulateWrite)
    }

    fn is_about_pages(self) -> bool {
        matches!(self, Self::Dontneed | Self::Free | Self::Willneed | Self::Cold | Self::Pageout)
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `madvise`. Holes are skipped and make it end in `ENOMEM`.
    pub fn sys_madvise(
        &self,
        cpu: &P,
        start: u64,
        length: u64,
        advice: Advice,
    ) -> Result<(), Errno> {
        cpu.charge(Cost::SyscallEntryExit, 1);
        // madvise_behavior_valid()
        let about_thp = matches!(advice, Advice::Hugepage | Advice::Nohugepage);
        if about_thp && !self.config.system.transparent_hugepage {
            return Err(Errno::Einval);
        }
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        let aligned = self.page_align(length);
        let end = start.wrapping_add(aligned);
        if (length != 0 && aligned == 0) || end < start {
            return Err(Errno::Einval);
        }
        if end == start {
            return Ok(());
        }
        let mm = self.current_mm(cpu);
        let sem = self.mmap_sem(mm);
        if advice.needs_write() {
            sem.down_write(cpu);
        } else {
            sem.down_read(cpu);
        }
        let (start, end) = (Vaddr(start), Vaddr(end));
        let result = match advice {
            Advice::PopulateRead => self.madvise_populate(cpu, mm, start, end, false),
            Advice::PopulateWrite => self.madvise_populate(cpu, mm, start, end, true),
            _ => self.madvise_range(cpu, mm, start, end, advice),
        };
        if advice.needs_write() {
            sem.up_write(cpu);
        } else {
            sem.up_read(cpu);
        }
        result
    }

    /// Advises VMA by VMA.
    fn madvise_range(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        advice: Advice,
    ) -> Result<(), Errno> {
        let (mut cursor, mut prev) = self.find_vma_prev(cpu, mm, start);
        if let Some(vma) = cursor
            && start > vma.vm_start().read(cpu)
        {
            prev = cursor;
        }
        let mut at = start;
        let mut result = Ok(());
        loop {
            let vma = cursor.ok_or(Errno::Enomem)?;
            let vm_start = vma.vm_start().read(cpu);
            if at < vm_start {
                result = Err(Errno::Enomem);
                at = vm_start;
                if at >= end {
                    return result;
                }
            }
            let to = vma.vm_end().read(cpu).min(end);
            let done = self.madvise_vma(cpu, mm, vma, prev, at..to, advice)?;
            // A merge may have gone further than asked.
            at = to.max(done.vm_end().read(cpu));
            if at >= end {
                return result;
            }
            prev = Some(done);
            cursor = self.vm_next(cpu, done);
        }
    }

    /// `madvise_vma()`: advises the range, which is in `vma`. Returns the VMA that holds the range
    /// afterwards.
    fn madvise_vma<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        range: Range<Vaddr>,
        advice: Advice,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let old_flags = vma.vm_flags().read(cpu);
        if advice.is_about_pages() {
            return self.advise_pages(cpu, vma, range, advice).map(|()| vma);
        }
        if advice == Advice::Unmergeable {
            let unmerged = self.unmerge_ksm_pages(cpu, mm, vma, range.start, range.end);
            // For want of memory: try again.
            unmerged.map_err(|_| Errno::Eagain)?;
        }
        let flags = self.advised_flags(cpu, vma, old_flags, advice)?;
        if flags == old_flags {
            return Ok(vma);
        }
        let vma = self.merge_or_split(cpu, mm, vma, prev, range, flags).map_err(|errno| {
            // ENOMEM is kept for too many VMAs; when memory for one is short, try again.
            let too_many = mm.map_count().read(cpu) >= self.max_map_count(cpu);
            if too_many || errno != Errno::Enomem { errno } else { Errno::Eagain }
        })?;
        let _step = cpu.step("madvise_behavior");
        self.set_vm_flags(cpu, vma, flags);
        Ok(vma)
    }

    /// Advice that changes nothing of the VMA.
    fn advise_pages(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        Range { start, end }: Range<Vaddr>,
        advice: Advice,
    ) -> Result<(), Errno> {
        if advice != Advice::Willneed && !can_madv_dontneed_vma(vma.vm_flags().read(cpu)) {
            return Err(Errno::Einval);
        }
        match advice {
            Advice::Free if !self.vma_is_anonymous(cpu, vma) => return Err(Errno::Einval),
            Advice::Free => self.madvise_free_single_vma(cpu, vma, start, end),
            Advice::Willneed => self.madvise_willneed(cpu, vma, start, end),
            Advice::Cold | Advice::Pageout => {
                let pageout = advice == Advice::Pageout;
                self.madvise_cold_or_pageout(cpu, vma, start, end, pageout);
            }
            _ => self.zap_page_range(cpu, vma, start, end),
        }
        Ok(())
    }

    /// `madvise_willneed()`
    fn madvise_willneed(&self, cpu: &P, vma: VmaRef<'_, P>, start: Vaddr, end: Vaddr) {
        match self.inodes.get_opt(cpu, vma.vm_file().read(cpu)) {
            Some(inode) => {
                let (first, beyond) =
                    (self.pgoff_of(cpu, vma, start), self.pgoff_of(cpu, vma, end));
                self.force_page_cache_readahead(cpu, inode, first, beyond);
            }
            None if self.swap.is_some() => self.force_swapin_readahead(cpu, vma, start, end),
            None => {}
        }
    }

    /// What the advice makes of the flags.
    fn advised_flags(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        flags: VmFlags,
        advice: Advice,
    ) -> Result<VmFlags, Errno> {
        let read_ahead = VmFlags::SEQ_READ | VmFlags::RAND_READ;
        let huge = VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE;
        Ok(match advice {
            Advice::Normal => flags & !read_ahead,
            Advice::Random => flags & !read_ahead | VmFlags::RAND_READ,
            Advice::Sequential => flags & !read_ahead | VmFlags::SEQ_READ,
            Advice::Hugepage => flags & !huge | VmFlags::HUGEPAGE,
            Advice::Nohugepage => flags & !huge | VmFlags::NOHUGEPAGE,
            // What cannot be merged is passed over.
            Advice::Mergeable if !flags.has(UNMERGEABLE) => flags | VmFlags::MERGEABLE,
            Advice::Unmergeable => flags & !VmFlags::MERGEABLE,
            Advice::Dontfork => flags | VmFlags::DONTCOPY,
            Advice::Dofork => flags & !VmFlags::DONTCOPY,
            Advice::Wipeonfork => {
                if !vma.vm_file().read(cpu).is_null() || flags.has(VmFlags::SHARED) {
                    return Err(Errno::Einval);
                }
                flags | VmFlags::WIPEONFORK
            }
            Advice::Keeponfork => flags & !VmFlags::WIPEONFORK,
            Advice::Dontdump => flags | VmFlags::DONTDUMP,
            Advice::Dodump => {
                if flags.has(VM_SPECIAL) && !flags.has(VmFlags::HUGETLB) {
                    return Err(Errno::Einval);
                }
                flags & !VmFlags::DONTDUMP
            }
            _ => flags,
        })
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/madvise.rs"]
mod tests;
