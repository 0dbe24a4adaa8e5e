//! `ksm_scan`: ksmd at work. No system call.
//!
//! Source: `mm/ksm.c`, v5.1. DEVIATION: a program says which pages are looked at, and when; that a page
//! has not changed since the last time is not asked for.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::design::Design;
use crate::mm::{Errno, Kernel, MmRef, PageRef, Vaddr};
use crate::platform::Platform;
use crate::sync::mutex::{mutex_lock, mutex_unlock};
use crate::sync::spinlock::spin_unlock;

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Merges the pages of the range that may be, with each other and with what was merged before.
    pub fn ksm_scan(&self, cpu: &P, start: u64, length: u64) -> Result<(), Errno> {
        if self.offset_in_page(start) != 0 {
            return Err(Errno::Einval);
        }
        // Above user space there is nothing.
        let task_size = self.config.arch.task_size;
        let end = start.saturating_add(length).min(task_size).next_multiple_of(self.page_size());
        let mm = self.current_mm(cpu);
        mutex_lock(cpu, self.ksm_thread_mutex());
        // The unstable tree: by content, where a page was that nobody has shared yet.
        let mut unstable = BTreeMap::new();
        let mut at = Vaddr(start);
        while let Some((address, page)) = self.next_rmap_item(cpu, mm, at..Vaddr(end)) {
            self.cmp_and_merge_page(cpu, mm, address, page, &mut unstable);
            self.put_page(cpu, page);
            at = address.offset(self.page_size());
        }
        mutex_unlock(cpu, self.ksm_thread_mutex());
        Ok(())
    }

    /// `scan_get_next_rmap_item()`: the next page that may be merged, with a reference.
    fn next_rmap_item<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        range: Range<Vaddr>,
    ) -> Option<(Vaddr, PageRef<'k, P>)> {
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        let mut found = None;
        let mut cursor = self.find_vma(cpu, mm, range.start);
        while let Some(vma) = cursor.filter(|vma| vma.vm_start().read(cpu) < range.end) {
            let from = range.start.max(vma.vm_start().read(cpu));
            let to = range.end.min(vma.vm_end().read(cpu));
            if self.is_mergeable(cpu, vma) {
                found = self.follow_anon_page(cpu, mm, from..to);
            }
            if found.is_some() {
                break;
            }
            cursor = self.vm_next(cpu, vma);
        }
        sem.up_read(cpu);
        found
    }

    /// The first page of its own that an address of the range has, with a reference.
    fn follow_anon_page<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        range: Range<Vaddr>,
    ) -> Option<(Vaddr, PageRef<'k, P>)> {
        let mut address = range.start;
        while let Some(pmd) = self.next_pmd(cpu, mm, address, range.end) {
            address = pmd.to;
            let Some(table) = pmd.value.table() else { continue };
            let first = self.pte_offset_map_lock(cpu, table, pmd.from);
            let slots = first.onwards().take(self.nr_pages(pmd.from, pmd.to));
            let found = slots.zip(0..).find_map(|(slot, pages)| {
                let page = self.small_anon_page(cpu, slot.pte().read(cpu))?;
                let at = pmd.from.offset(pages * self.page_size());
                self.suits_ksm(cpu, page).then_some((at, page))
            });
            if let Some((_, page)) = found {
                self.get_page(cpu, page);
            }
            spin_unlock(cpu, first.ptl());
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// `cmp_and_merge_page()`: with the merged page of the same content, if there is one, else with
    /// one that this scan has seen before.
    fn cmp_and_merge_page<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        page: PageRef<'k, P>,
        unstable: &mut BTreeMap<u64, Vaddr>,
    ) {
        let content = page.content().read(cpu);
        if let Some(kpage) = self.stable_tree_search(cpu, content) {
            self.try_to_merge_with_ksm_page(cpu, mm, address, page, Some(kpage));
            self.put_page(cpu, kpage);
            return;
        }
        let Some(tree_address) = unstable.insert(content, address) else { return };
        let one = Vaddr(tree_address.0 + self.page_size());
        let Some((_, tree_page)) = self.next_rmap_item(cpu, mm, tree_address..one) else { return };
        // try_to_merge_two_pages
        if tree_page != page && self.try_to_merge_with_ksm_page(cpu, mm, address, page, None) {
            if self.try_to_merge_with_ksm_page(cpu, mm, tree_address, tree_page, Some(page)) {
                self.stable_tree_insert(cpu, page);
            } else {
                self.break_cow(cpu, mm, address);
            }
        }
        self.put_page(cpu, tree_page);
    }

    /// `try_to_merge_with_ksm_page()`
    fn try_to_merge_with_ksm_page<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        page: PageRef<'k, P>,
        kpage: Option<PageRef<'k, P>>,
    ) -> bool {
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        let merged = self
            .find_mergeable_vma(cpu, mm, address)
            .is_some_and(|vma| self.try_to_merge_one_page(cpu, vma, address, page, kpage));
        sem.up_read(cpu);
        merged
    }

    /// `break_cow()`: the page was made ready for another one, which then would not.
    fn break_cow(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) {
        let sem = self.mmap_sem(mm);
        sem.down_read(cpu);
        if let Some(vma) = self.find_mergeable_vma(cpu, mm, address) {
            // If there is no memory, it stays a merged page that one process has.
            let _ = self.break_ksm(cpu, mm, vma, address);
        }
        sem.up_read(cpu);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/ops/ksm_scan.rs"]
mod tests;
