//! What must hold of a system at rest: between operations, with no callback pending.
//!
//! Numbers are those of `docs/protocol.md`, "What must always hold".

use std::collections::{BTreeMap, BTreeSet};

use super::between_operations::odd_vm_sequence;
use super::kernel::Kernel;
use super::objects::{MmRef, PageRef, Table, TableRef, VmaRef};
use super::page::{
    PG_ANON, PG_CACHE, PG_HEAD, PG_KSM, PG_LOCKED, PG_MLOCKED, PG_SWAPCACHE, PG_TAIL, PG_WRITEBACK,
};
use super::types::{Pte, VmFlags};
use crate::design::Design;
use crate::platform::{Finding, Platform, Ptr, Value};

/// What was counted by walking every address space.
struct Census {
    /// PTEs that map each frame.
    mapped: BTreeMap<u32, u64>,
    /// PMDs that map each huge page, by its head.
    huge_mapped: BTreeMap<u32, u64>,
    /// PTEs that name each slot of the swap device.
    swapped: BTreeMap<u32, u64>,
    /// Frames that page tables and page-cache nodes live in.
    table_frames: BTreeMap<u32, u64>,
    /// Tables reachable, of all levels.
    nr_tables: u32,
    nr_vmas: u32,
    /// Frames that a VMA maps which is locked in memory.
    locked: BTreeSet<u32>,
    findings: Vec<Finding>,
}

impl Census {
    fn find(&mut self, invariant: &'static str, what: String) {
        self.findings.push(Finding { invariant, what });
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Checks a system at rest: no operation runs, no grace period is pending. Returns every
    /// broken invariant; empty is good.
    pub fn check_at_rest(&self) -> Vec<Finding> {
        let mut census = Census {
            mapped: BTreeMap::new(),
            huge_mapped: BTreeMap::new(),
            swapped: BTreeMap::new(),
            table_frames: BTreeMap::new(),
            nr_tables: 0,
            nr_vmas: 0,
            locked: BTreeSet::new(),
            findings: Vec::new(),
        };
        for mm in self.mms.peek_all() {
            self.check_mm(&mut census, mm);
        }
        census.findings.extend(self.check_notifiers());
        census.findings.extend(self.check_files());
        census.findings.extend(self.check_files_closed());
        census.findings.extend(self.check_memcg());
        self.check_leaks(&mut census);
        self.check_swap(&mut census);
        self.check_pages(&mut census);
        census.findings
    }

    fn check_mm(&self, census: &mut Census, mm: MmRef<'_, P>) {
        if !mm.mm_seq().peek().is_multiple_of(2) {
            census.find("sequence", format!("mm_seq of mm {} is odd", mm.slot_index()));
        }
        let spinning = [mm.page_table_lock(), mm.mm_rb_lock(), mm.mm_rb_lock_wait()];
        if spinning.iter().any(|lock| lock.peek() != 0) || mm.sem_count().peek() != 0 {
            census.find("lock-balance", format!("a lock of mm {} is held", mm.slot_index()));
        }
        if mm.tlb_flush_pending().peek() != 0 {
            census.find("lock-balance", format!("a flush of mm {} is pending", mm.slot_index()));
        }
        let vmas = self.check_vmas(census, mm);
        for what in self.check_vma_tree(mm) {
            census.find("vma-tree", what);
        }
        let before = census.nr_tables;
        if let Some(pgd) = self.peek_table(0, mm.pgd().peek()) {
            census.nr_tables += 1;
            *census.table_frames.entry(pgd.frame().peek() as u32).or_default() += 1;
            self.check_table(census, 0, pgd, 0, &vmas);
        }
        let below_pgd = u64::from(census.nr_tables - before).saturating_sub(1);
        if below_pgd != mm.pgtables().peek() {
            let counted = mm.pgtables().peek();
            census.find("page-table-count", format!("{counted} counted, {below_pgd} reachable"));
        }
    }

    /// The VMAs of `mm` in order, each checked.
    fn check_vmas<'k>(&'k self, census: &mut Census, mm: MmRef<'k, P>) -> Vec<VmaRef<'k, P>> {
        let mut vmas: Vec<VmaRef<'k, P>> = Vec::new();
        let mut cursor = mm.mmap().peek();
        while !cursor.is_null() {
            let Some(vma) = self.vmas.peek(cursor.index()).filter(|vma| vma.ptr() == cursor) else {
                census.find("use-after-free", format!("the VMA list names {cursor:?}, freed"));
                break;
            };
            let what = format!("VMA {:#x}..{:#x}", vma.vm_start().peek(), vma.vm_end().peek());
            let below = vmas.last().map_or(0, |last| last.vm_end().peek().0);
            if vma.vm_start().peek() >= vma.vm_end().peek() || vma.vm_start().peek().0 < below {
                census.find("vma-order", format!("{what} after one that ends at {below:#x}"));
            }
            if let Some(odd) = odd_vm_sequence(vma) {
                census.find("sequence", odd);
            }
            let refs = vma.vm_ref_count().peek();
            if refs != D::LINKED_REFS {
                let expect = D::LINKED_REFS;
                census.find("refcount", format!("{what} has {refs} references, not {expect}"));
            }
            vmas.push(vma);
            cursor = vma.vm_next().peek();
        }
        let locked = vmas.iter().filter(|vma| vma.vm_flags().peek().has(VmFlags::LOCKED));
        let bytes: u64 = locked.map(|vma| vma.vm_end().peek().since(vma.vm_start().peek())).sum();
        if bytes >> self.page_shift() != mm.locked_vm().peek() {
            let (pages, counted) = (bytes >> self.page_shift(), mm.locked_vm().peek());
            census.find("locked-vm", format!("{counted} counted, {pages} pages in locked VMAs"));
        }
        census.nr_vmas += vmas.len() as u32;
        if vmas.len() as u64 != mm.map_count().peek() {
            let counted = mm.map_count().peek();
            census.find("map-count", format!("{counted} counted, {} in the list", vmas.len()));
        }
        vmas
    }

    pub(super) fn peek_table(&self, level: usize, ptr: Ptr<Table<P>>) -> Option<TableRef<'_, P>> {
        if ptr.is_null() {
            return None;
        }
        self.tables[level].peek(ptr.index()).filter(|table| table.ptr() == ptr)
    }

    fn check_table(
        &self,
        census: &mut Census,
        level: usize,
        table: TableRef<'_, P>,
        base: u64,
        vmas: &[VmaRef<'_, P>],
    ) {
        if table.ptl().peek() != 0 {
            census.find("lock-balance", format!("the page-table lock at {base:#x} is held"));
        }
        let is_last = level + 1 == self.config.arch.levels.len();
        let mut nr_huge = 0;
        for index in table.peek_used() {
            let address = base + (u64::from(index) << self.config.arch.levels[level].shift);
            if is_last {
                self.check_pte(census, table.pte(index).peek(), address, vmas);
                continue;
            }
            let value = table.pmd(index).peek();
            if level == self.pmd_level() && value.is_huge() {
                nr_huge += u32::from(!self.is_hugetlb_leaf(value));
                self.check_huge_pmd(census, self.leaf_of(value), address, vmas);
                continue;
            }
            let below = table.entry(index).peek();
            let Some(lower) = self.peek_table(level + 1, below) else {
                census.find("use-after-free", format!("a freed table at {address:#x}"));
                continue;
            };
            census.nr_tables += 1;
            *census.table_frames.entry(lower.frame().peek() as u32).or_default() += 1;
            self.check_table(census, level + 1, lower, address, vmas);
        }
        self.check_deposited(census, level, table, nr_huge);
    }

    /// With each leaf but hugetlb's an empty table is deposited, and with nothing else.
    fn check_deposited(
        &self,
        census: &mut Census,
        level: usize,
        table: TableRef<'_, P>,
        nr_huge: u32,
    ) {
        let mut nr_deposited = 0;
        let mut cursor = table.pmd_huge_pte().peek();
        while !cursor.is_null() {
            let Some(deposited) = self.peek_table(level + 1, cursor) else {
                census.find("use-after-free", "a deposited page table was freed".to_owned());
                return;
            };
            nr_deposited += 1;
            census.nr_tables += 1;
            *census.table_frames.entry(deposited.frame().peek() as u32).or_default() += 1;
            if (0..deposited.len()).any(|index| !deposited.pte(index).peek().is_none()) {
                census.find("deposit", "a deposited page table is not empty".to_owned());
            }
            cursor = deposited.lru().peek();
        }
        if nr_deposited != nr_huge {
            census.find("deposit", format!("{nr_deposited} tables for {nr_huge} huge pages"));
        }
    }

    fn check_huge_pmd(&self, census: &mut Census, leaf: Pte, address: u64, vmas: &[VmaRef<'_, P>]) {
        *census.huge_mapped.entry(leaf.pfn()).or_default() += 1;
        self.check_mapping(census, leaf, address, vmas);
    }

    /// A PTE follows from the VMA that it is in. Oracle 8 of SPF_V12 9.D.
    fn check_pte(&self, census: &mut Census, pte: Pte, address: u64, vmas: &[VmaRef<'_, P>]) {
        if let Some(slot) = pte.swap_slot() {
            *census.swapped.entry(slot).or_default() += 1;
            return;
        }
        if !pte.is_present() {
            census.find("pte-against-vma", format!("{address:#x} holds {:#x} at rest", pte.0));
            return;
        }
        *census.mapped.entry(pte.pfn()).or_default() += 1;
        self.check_mapping(census, pte, address, vmas);
    }

    fn check_mapping(&self, census: &mut Census, pte: Pte, address: u64, vmas: &[VmaRef<'_, P>]) {
        let nth = vmas.partition_point(|vma| vma.vm_end().peek().0 <= address);
        let Some(vma) = vmas.get(nth).filter(|vma| vma.vm_start().peek().0 <= address) else {
            census.find("mapped-outside-vma", format!("a page at {address:#x}, in no VMA"));
            return;
        };
        let flags = vma.vm_flags().peek();
        if flags.has(VmFlags::LOCKED) {
            census.locked.insert(pte.pfn());
        }
        let prot = vma.vm_page_prot().peek();
        if pte.has(Pte::WRITE) && !flags.has(VmFlags::WRITE) {
            census.find("pte-against-vma", format!("{address:#x} is writable, its VMA is not"));
        }
        let allowed = prot & (Pte::PRESENT | Pte::READ | Pte::EXEC | Pte::PROTNONE);
        let given = pte & (Pte::PRESENT | Pte::READ | Pte::EXEC | Pte::PROTNONE);
        // Protnone alone can be a hint of NUMA balancing.
        let hint = self.config.system.numa && given == Pte::PROTNONE;
        if allowed != given && !hint {
            census.find(
                "pte-against-vma",
                format!("{address:#x} has {:#x} where its VMA says {:#x}", given.0, allowed.0),
            );
        }
        self.check_rmap(census, pte, address, *vma);
    }

    /// The reverse map of an anonymous page finds this mapping: by an anon_vma of the VMA, at the
    /// place that the page's index says. The oracle of C4.
    fn check_rmap(&self, census: &mut Census, pte: Pte, address: u64, vma: VmaRef<'_, P>) {
        let Some(head) = self.peek_head(pte.pfn()).filter(|_| !self.is_zero_pfn(pte.pfn())) else {
            return;
        };
        if head.flags().peek() & PG_KSM != 0 && pte.has(Pte::WRITE) {
            census.find("pte-against-vma", format!("{address:#x} may write to a merged page"));
        }
        if head.flags().peek() & (PG_ANON | PG_KSM) != PG_ANON {
            return;
        }
        let anon_vma = head.mapping().peek();
        let mut avc = vma.anon_vma_chain().peek();
        while let Some(on_list) = self.avcs.peek(avc.index()).filter(|found| found.ptr() == avc) {
            if on_list.anon_vma().peek().to_word() == anon_vma {
                break;
            }
            avc = on_list.same_vma_next().peek();
        }
        if avc.is_null() {
            census.find("rmap", format!("the page at {address:#x} is of no anon_vma of its VMA"));
        }
        let within = u64::from(pte.pfn() - head.slot_index());
        let index = head.index().peek() + within;
        let pages = (address - vma.vm_start().peek().0) >> self.page_shift();
        let expect = vma.vm_pgoff().peek() + pages;
        if index != expect {
            census.find(
                "rmap",
                format!("the page at {address:#x} has index {index:#x}, its VMA {expect:#x}"),
            );
        }
    }

    fn check_leaks(&self, census: &mut Census) {
        let live_tables: u32 = self.tables.iter().map(|level| level.live()).sum();
        if live_tables != census.nr_tables {
            let lost = live_tables - census.nr_tables.min(live_tables);
            census.find("page-table-leak", format!("{lost} page tables reachable from nowhere"));
        }
        let live_vmas = self.vmas.live();
        if live_vmas != census.nr_vmas {
            let lost = live_vmas - census.nr_vmas.min(live_vmas);
            census.find("vma-leak", format!("{lost} VMAs in no list"));
        }
    }

    /// Each slot is counted as often as PTEs name it.
    fn check_swap(&self, census: &mut Census) {
        for what in self.check_swap_map(&census.swapped) {
            census.find("swap-count", what);
        }
    }

    /// Reference and map counts equal the references that exist.
    fn check_pages(&self, census: &mut Census) {
        let is_free = |pfn: &&u32| self.pages.peek(**pfn).is_none();
        let mapped = census.mapped.keys().chain(census.huge_mapped.keys());
        if let Some(pfn) = mapped.into_iter().find(is_free).copied() {
            census.find("use-after-free", format!("page {pfn} is free and mapped"));
        }
        for page in self.pages.peek_all() {
            let pfn = page.slot_index();
            if !self.is_zero_pfn(pfn) {
                let mapped = census.mapped.get(&pfn).copied().unwrap_or(0);
                let by_pmds = census.huge_mapped.get(&pfn).copied().unwrap_or(0);
                self.check_page(census, page, mapped, by_pmds);
            }
        }
    }

    fn check_page(&self, census: &mut Census, page: PageRef<'_, P>, mapped: u64, by_pmds: u64) {
        let (pfn, flags) = (page.slot_index(), page.flags().peek());
        let tables = census.table_frames.get(&pfn).copied().unwrap_or(0);
        let cached = u64::from(flags & (PG_CACHE | PG_SWAPCACHE) != 0);
        if page.compound_mapcount().peek() != by_pmds {
            let counted = page.compound_mapcount().peek();
            census.find("mapcount", format!("huge page {pfn}: {counted} counted, {by_pmds} PMDs"));
        }
        let expect = if flags & PG_HEAD != 0 {
            // The references of all its parts.
            let parts = census.mapped.range(pfn..pfn + self.hpage_pmd_nr());
            parts.map(|(_, mappings)| mappings).sum::<u64>() + by_pmds + cached
        } else if flags & PG_TAIL != 0 {
            0
        } else {
            mapped + tables + cached
        };
        if page.mapcount().peek() != mapped {
            let counted = page.mapcount().peek();
            census.find("mapcount", format!("page {pfn}: {counted} counted, {mapped} PTEs"));
        }
        if expect == 0 && flags & PG_TAIL == 0 {
            census.find("page-leak", format!("page {pfn} is in use by nobody"));
        } else if page.refcount().peek() != expect {
            let counted = page.refcount().peek();
            census.find("refcount", format!("page {pfn}: {counted} counted, {expect} exist"));
        }
        // 5.1 leaves a huge page its mark when the one that has it locked gets a copy.
        if flags & (PG_MLOCKED | PG_HEAD) == PG_MLOCKED && !census.locked.contains(&pfn) {
            census.find("mlocked", format!("page {pfn} counts as locked, no VMA that maps it is"));
        }
        if flags & PG_LOCKED != 0 {
            census.find("lock-balance", format!("page {pfn} is locked"));
        }
        if flags & PG_WRITEBACK != 0 {
            census.find("swap-count", format!("page {pfn} is being written"));
        }
    }

    /// After the last task ended and the files were closed: nothing is left.
    pub fn check_nothing_left(&self) -> Vec<Finding> {
        let mut findings = self.check_at_rest();
        for (name, live) in [
            ("mm_struct", self.mms.live()),
            ("vm_area_struct", self.vmas.live()),
            ("anon_vma", self.anon_vmas.live()),
            ("anon_vma_chain", self.avcs.live()),
            ("mempolicy", self.policies.live()),
            ("inode", self.inodes.live()),
            ("mmu_notifier_mm", self.notifiers.live()),
            ("page-cache node", self.cache_nodes.live()),
            ("resv_map", self.resv_maps.live()),
            ("KSM's stable nodes", self.ksm.nr_stable() as u32),
            ("reserved huge page", self.hstate.resv_huge_pages.peek() as u32),
        ] {
            if live != 0 {
                findings.push(Finding {
                    invariant: "leak",
                    what: format!("{live} of {name} left at exit"),
                });
            }
        }
        findings
    }

    /// The mm of a task, at rest.
    pub fn mm_of(&self, task: u32) -> Option<MmRef<'_, P>> {
        let ptr = Ptr::from_word(self.tasks[task as usize].mm.get());
        if ptr.is_null() { None } else { self.mms.peek(ptr.index()).filter(|mm| mm.ptr() == ptr) }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/invariants.rs"]
mod tests;
