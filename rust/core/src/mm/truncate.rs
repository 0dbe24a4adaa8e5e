//! Truncation: pages of a file go, from its page cache and from wherever they are mapped.
//!
//! No `mmap_sem` is held here: `i_mmap_rwsem` keeps VMAs and page tables, and the page's lock keeps
//! faults from mapping what leaves the page cache. `unmap_page_range` brackets each VMA all the
//! same (P09), also beside a writer that holds `mmap_sem` for write: B1.
//!
//! Source: `mm/truncate.c`, `mm/memory.c`, `mm/shmem.c`, v5.1.

use super::file::FileKind;
use super::kernel::Kernel;
use super::objects::{InodeRef, PageRef, VmaRef};
use super::types::Vaddr;
use crate::design::Design;
use crate::platform::{Ordering, Platform};

/// Which pages to zap: `struct zap_details`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZapDetails {
    /// Private copies, too; else only pages of the file.
    pub(super) even_cows: bool,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// What a file system does when it is told a new length. Caller holds the inode's lock.
    pub(crate) fn setattr_size(&self, cpu: &P, inode: InodeRef<'_, P>, size: u64) {
        let _step = cpu.step("truncate_setsize");
        let old_size = inode.i_size().read(cpu);
        inode.i_size().write(cpu, size);
        let pages = self.file_pages(cpu, inode);
        // What was there once is not when the file grows again.
        inode.nr_original().write(cpu, inode.nr_original().read(cpu).min(pages));
        if self.file_kind(inode) == FileKind::Shmem {
            self.shmem_setattr(cpu, inode, old_size, size, pages);
            return;
        }
        self.truncate_pagecache(cpu, inode, pages);
        // DEVIATION: what stores have left beyond the old end the kernel clears when it writes the
        // page back; here that is when the file grows.
        self.truncate_partial_page(cpu, inode, size.min(old_size));
    }

    /// `shmem_setattr()`: of one that grows it clears nothing.
    fn shmem_setattr(&self, cpu: &P, inode: InodeRef<'_, P>, old_size: u64, size: u64, pages: u64) {
        if size > old_size {
            return;
        }
        if old_size > pages << self.page_shift() {
            self.truncate_pagecache(cpu, inode, pages);
        }
        // shmem_getpage(): what is in swap comes back, and its end is cleared.
        let last = size >> self.page_shift();
        self.force_page_cache_readahead(cpu, inode, last, last + 1);
        self.truncate_partial_page(cpu, inode, size);
    }

    /// `truncate_pagecache()`, of whole pages.
    fn truncate_pagecache(&self, cpu: &P, inode: InodeRef<'_, P>, first: u64) {
        // Once so that truncation itself finds few pages mapped, and once for private copies that
        // faults have made meanwhile.
        self.unmap_mapping_pages(cpu, inode, first, u64::MAX, true);
        self.truncate_inode_pages(cpu, inode, first);
        self.unmap_mapping_pages(cpu, inode, first, u64::MAX, true);
    }

    /// `zero_user_segment()` of a page that is in the page cache, from byte `from` of the file to
    /// the page's end. Its word is the first 8 bytes, the lowest first. Nobody takes the page out
    /// of the file meanwhile, for the caller holds the inode's lock.
    fn truncate_partial_page(&self, cpu: &P, inode: InodeRef<'_, P>, from: u64) {
        let kept = from & (self.page_size() - 1);
        if kept == 0 || kept >= 8 {
            return;
        }
        let Some(page) = self.find_get_page(cpu, inode, from >> self.page_shift()) else { return };
        self.lock_page(cpu, page);
        let (content, mask) = (page.content(), (1 << (8 * kept)) - 1);
        let mut word = content.read(cpu);
        // Who has the page mapped stores all the time; the bytes that stay must not be lost.
        while let Err(now) = content.compare_exchange(cpu, word, word & mask, Ordering::Relaxed) {
            word = now;
        }
        self.unlock_page(cpu, page);
        self.put_page(cpu, page);
    }

    /// `unmap_mapping_pages()`: takes the pages `first..=last` of a file out of all page tables;
    /// `even_cows`: and private copies.
    fn unmap_mapping_pages(
        &self,
        cpu: &P,
        inode: InodeRef<'_, P>,
        first: u64,
        last: u64,
        even_cows: bool,
    ) {
        let _step = cpu.step("unmap_mapping_pages");
        let details = ZapDetails { even_cows };
        let sem = self.i_mmap_sem(inode);
        sem.down_write(cpu);
        for (vma, there) in self.vma_interval_tree_foreach(cpu, inode, first, last) {
            self.zap_page_range_single(cpu, vma, there.start, there.end, details);
        }
        sem.up_write(cpu);
    }

    /// `zap_page_range_single()`: of a VMA that stays. Caller holds its file's `i_mmap_rwsem`.
    fn zap_page_range_single(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        details: ZapDetails,
    ) {
        let mm = self.mms.get(cpu, vma.vm_mm().read(cpu));
        self.lru_add_drain(cpu);
        let mut tlb = self.tlb_gather_mmu(cpu, mm);
        self.invalidate_range(cpu, mm, || {
            self.unmap_page_range(cpu, &mut tlb, vma, start, end, Some(details));
        });
        self.tlb_finish_mmu(cpu, tlb);
    }

    /// `truncate_inode_pages()`: what the page cache has from page `first` on, and what comes
    /// meanwhile.
    fn truncate_inode_pages(&self, cpu: &P, inode: InodeRef<'_, P>, first: u64) {
        loop {
            let found = self.cached_from(cpu, inode, first);
            if found.is_empty() {
                return;
            }
            for pfn in found {
                let Some(page) = self.get_frame_unless_free(cpu, pfn) else { continue };
                self.lock_page(cpu, page);
                if self.is_page_of(cpu, page, inode) && page.index().read(cpu) >= first {
                    self.truncate_inode_page(cpu, inode, page);
                }
                self.unlock_page(cpu, page);
                self.put_page(cpu, page);
            }
        }
    }

    /// `truncate_inode_page()`: caller has locked the page, so no fault maps it now.
    fn truncate_inode_page(&self, cpu: &P, inode: InodeRef<'_, P>, page: PageRef<'_, P>) {
        if page.mapcount().read(cpu) != 0 {
            let index = page.index().read(cpu);
            self.unmap_mapping_pages(cpu, inode, index, index, false);
        }
        self.delete_from_page_cache(cpu, inode, page);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/truncate.rs"]
mod tests;
