//! What `/proc/PID` says of an address space: `maps`, `smaps` and what `status` has of memory.
//!
//! Source: `fs/proc/task_mmu.c`, v5.1. For a system at rest, or with `mmap_sem` held.

use super::kernel::Kernel;
use super::objects::{MmRef, TableRef, VmOps, VmaRef};
use super::page::PG_ANON;
use super::types::{Pte, VmFlags};
use crate::design::Design;
use crate::platform::Platform;

/// What `/proc/PID` says of an address space, in lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcText {
    /// "start-end perms offset".
    pub maps: Vec<String>,
    /// With each of these, what is mapped there.
    pub smaps: Vec<String>,
    /// The sums.
    pub status: Vec<String>,
}

/// `struct mem_size_stats`: bytes that a range maps.
#[derive(Clone, Copy, Debug, Default)]
struct MemSizeStats {
    resident: u64,
    anonymous: u64,
    anonymous_thp: u64,
    shmem: u64,
    hugetlb: u64,
    swap: u64,
}

/// `show_smap_vma_flags()`: the names of VMA flags. `VM_LOCKONFAULT` has none. DEVIATION: without
/// `sd`.
const MNEMONICS: [(VmFlags, &str); 25] = [
    (VmFlags::READ, "rd"),
    (VmFlags::WRITE, "wr"),
    (VmFlags::EXEC, "ex"),
    (VmFlags::SHARED, "sh"),
    (VmFlags::MAYREAD, "mr"),
    (VmFlags::MAYWRITE, "mw"),
    (VmFlags::MAYEXEC, "me"),
    (VmFlags::MAYSHARE, "ms"),
    (VmFlags::GROWSDOWN, "gd"),
    (VmFlags::UFFD_MISSING, "um"),
    (VmFlags::PFNMAP, "pf"),
    (VmFlags::LOCKED, "lo"),
    (VmFlags::SEQ_READ, "sr"),
    (VmFlags::RAND_READ, "rr"),
    (VmFlags::DONTCOPY, "dc"),
    (VmFlags::DONTEXPAND, "de"),
    (VmFlags::LOCKONFAULT, "??"),
    (VmFlags::ACCOUNT, "ac"),
    (VmFlags::NORESERVE, "nr"),
    (VmFlags::HUGETLB, "ht"),
    (VmFlags::WIPEONFORK, "wf"),
    (VmFlags::DONTDUMP, "dd"),
    (VmFlags::HUGEPAGE, "hg"),
    (VmFlags::NOHUGEPAGE, "nh"),
    (VmFlags::MERGEABLE, "mg"),
];

impl<P: Platform, D: Design> Kernel<P, D> {
    /// All that `/proc/PID` says of `mm`.
    pub fn proc_text(&self, mm: MmRef<'_, P>) -> ProcText {
        let found = self.gather_stats(mm);
        let smaps = found.iter().flat_map(|(vma, stats)| self.show_smap(*vma, stats)).collect();
        ProcText { maps: self.maps(mm), smaps, status: self.task_mem(mm, &found) }
    }

    /// The VMAs of `mm` in order, as `start-end perms offset`: hexadecimal, at least 8 digits;
    /// the offset in bytes into the file, 0 without one. For a system at rest.
    ///
    /// Source: `show_map_vma()` in `fs/proc/task_mmu.c`, v5.1, without device and name.
    pub fn maps(&self, mm: MmRef<'_, P>) -> Vec<String> {
        self.peek_vmas(mm).map(|vma| self.map_line(vma)).collect()
    }

    /// The VMAs in the list of `mm`, as nobody's access. Ends early at one that was freed.
    pub(crate) fn peek_vmas(&self, mm: MmRef<'_, P>) -> impl Iterator<Item = VmaRef<'_, P>> {
        let mut cursor = mm.mmap().peek();
        std::iter::from_fn(move || {
            let ptr = cursor;
            let vma = (!ptr.is_null()).then(|| self.vmas.peek(ptr.index())).flatten()?;
            cursor = vma.vm_next().peek();
            (vma.ptr() == ptr).then_some(vma)
        })
    }

    fn map_line(&self, vma: VmaRef<'_, P>) -> String {
        let flags = vma.vm_flags().peek();
        let letter = |flag, letter| if flags.has(flag) { letter } else { '-' };
        let offset = if vma.vm_file().peek().is_null() {
            0
        } else {
            vma.vm_pgoff().peek() << self.page_shift()
        };
        format!(
            "{:08x}-{:08x} {}{}{}{} {offset:08x}",
            vma.vm_start().peek(),
            vma.vm_end().peek(),
            letter(VmFlags::READ, 'r'),
            letter(VmFlags::WRITE, 'w'),
            letter(VmFlags::EXEC, 'x'),
            if flags.has(VmFlags::MAYSHARE) { 's' } else { 'p' },
        )
    }
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `show_smap()`. DEVIATION: no lines about sharing, references and dirt.
    fn show_smap(&self, vma: VmaRef<'_, P>, stats: &MemSizeStats) -> Vec<String> {
        let flags = vma.vm_flags().peek();
        let is_hugetlb = flags.has(VmFlags::HUGETLB);
        let page_size = if is_hugetlb { self.pmd_size() } else { self.page_size() };
        let mut lines = vec![self.map_line(vma)];
        let sizes = [
            ("Size", vma.vm_end().peek().since(vma.vm_start().peek())),
            ("KernelPageSize", page_size),
            ("MMUPageSize", page_size),
            ("Rss", stats.resident),
            ("Anonymous", stats.anonymous),
            ("AnonHugePages", stats.anonymous_thp),
            ("Swap", stats.swap),
        ];
        let line = |(name, bytes)| format!("{:<16}{:>8} kB", format!("{name}:"), bytes >> 10);
        lines.extend(sizes.map(line));
        let set = MNEMONICS.iter().filter(|(flag, _)| flags.has(*flag));
        lines.push(set.fold("VmFlags:".into(), |line, (_, name)| line + " " + name));
        lines
    }

    /// `task_mem()`. DEVIATION: the sums are what is mapped now; 5.1's counters lag behind by what
    /// threads have not handed in, and it knows the highest values, too.
    fn task_mem(&self, mm: MmRef<'_, P>, found: &[(VmaRef<'_, P>, MemSizeStats)]) -> Vec<String> {
        let sum = |what: fn(&MemSizeStats) -> u64| found.iter().map(|(_, s)| what(s)).sum::<u64>();
        let (anonymous, shmem) = (sum(|s| s.anonymous), sum(|s| s.shmem));
        let resident = sum(|s| s.resident);
        // is_exec_mapping(), is_stack_mapping(), is_data_mapping()
        let kinds = VmFlags::EXEC | VmFlags::WRITE | VmFlags::SHARED | VmFlags::GROWSDOWN;
        let mapped = |among: VmFlags, is: VmFlags| -> u64 {
            let like = found.iter().filter(|(vma, _)| vma.vm_flags().peek() & kinds & among == is);
            like.map(|(vma, _)| vma.vm_end().peek().since(vma.vm_start().peek())).sum()
        };
        let stack = VmFlags::GROWSDOWN;
        let sizes = [
            ("VmSize", mm.total_vm().peek() << self.page_shift()),
            ("VmLck", mm.locked_vm().peek() << self.page_shift()),
            ("VmRSS", resident),
            ("RssAnon", anonymous),
            ("RssFile", resident - anonymous - shmem),
            ("RssShmem", shmem),
            ("VmData", mapped(VmFlags::WRITE | VmFlags::SHARED | stack, VmFlags::WRITE)),
            ("VmStk", mapped(stack, stack)),
            ("VmExe", 0), // no program has code of its own
            ("VmLib", mapped(VmFlags::EXEC | VmFlags::WRITE | stack, VmFlags::EXEC)),
            ("VmPTE", self.mm_pgtables_bytes(mm)),
            ("VmSwap", sum(|s| s.swap)),
            ("HugetlbPages", sum(|s| s.hugetlb)),
        ];
        sizes.map(|(name, bytes)| format!("{name}:\t{:>8} kB", bytes >> 10)).into()
    }

    /// `smap_gather_stats()` of every VMA in order.
    fn gather_stats<'k>(&'k self, mm: MmRef<'k, P>) -> Vec<(VmaRef<'k, P>, MemSizeStats)> {
        let stats = |vma| (vma, MemSizeStats::default());
        let mut found: Vec<_> = self.peek_vmas(mm).map(stats).collect();
        let Some(pgd) = self.peek_table(0, mm.pgd().peek()) else { return found };
        self.peek_leaves(0, pgd, 0, &mut |address, entry, order| {
            let nth = found.partition_point(|(vma, _)| vma.vm_end().peek().0 <= address);
            if let Some((vma, stats)) = found.get_mut(nth) {
                self.smaps_entry(stats, entry, order, *vma);
            }
        });
        found
    }

    /// `smaps_pte_entry()`, and of a huge page of 2^`order` frames `smaps_pmd_entry()` and
    /// `smaps_hugetlb_range()`.
    fn smaps_entry(&self, stats: &mut MemSizeStats, entry: Pte, order: u32, vma: VmaRef<'_, P>) {
        let bytes = 1 << (self.page_shift() + order);
        if entry.swap_slot().is_some() {
            stats.swap += bytes;
            return;
        }
        let pfn = entry.migration_pfn().unwrap_or_else(|| entry.pfn());
        let Some(head) = self.peek_head(pfn).filter(|_| !self.is_zero_pfn(pfn)) else { return };
        if vma.vm_flags().peek().has(VmFlags::HUGETLB) {
            stats.hugetlb += bytes;
            return;
        }
        stats.resident += bytes;
        if head.flags().peek() & PG_ANON != 0 {
            stats.anonymous += bytes;
            stats.anonymous_thp += if order > 0 { bytes } else { 0 };
        } else if vma.vm_ops().peek() == VmOps::Shmem as u64 {
            stats.shmem += bytes;
        }
    }

    /// Calls `each` with every last entry that is not none: its address, the entry, and of how many
    /// frames it is, as a power of 2.
    fn peek_leaves(
        &self,
        level: usize,
        table: TableRef<'_, P>,
        base: u64,
        each: &mut impl FnMut(u64, Pte, u32),
    ) {
        for index in table.peek_used() {
            let address = base + (u64::from(index) << self.config.arch.levels[level].shift);
            if level + 1 == self.config.arch.levels.len() {
                each(address, table.pte(index).peek(), 0);
                continue;
            }
            let value = table.pmd(index).peek();
            if level == self.pmd_level() && value.is_huge() {
                each(address, self.leaf_of(value), self.hpage_pmd_order());
            } else if let Some(lower) = self.peek_table(level + 1, table.entry(index).peek()) {
                self.peek_leaves(level + 1, lower, address, each);
            }
        }
    }

    /// `mm_pgtables_bytes()`: what PUD, PMD and PTE tables take, deposited ones included.
    /// `__p4d_alloc()` counts nothing.
    fn mm_pgtables_bytes(&self, mm: MmRef<'_, P>) -> u64 {
        self.peek_table(0, mm.pgd().peek()).map_or(0, |pgd| self.bytes_below(0, pgd))
    }

    fn bytes_below(&self, level: usize, table: TableRef<'_, P>) -> u64 {
        let lower_level = level + 1;
        if lower_level == self.config.arch.levels.len() {
            return 0;
        }
        let counts = lower_level + 3 >= self.config.arch.levels.len();
        let size = |table: TableRef<'_, P>| u64::from(table.len()) * size_of::<u64>() as u64;
        let bytes = |table| if counts { size(table) } else { 0 };
        let mut sum = 0;
        for index in table.peek_used() {
            if level == self.pmd_level() && table.pmd(index).peek().is_huge() {
                continue;
            }
            if let Some(lower) = self.peek_table(lower_level, table.entry(index).peek()) {
                sum += bytes(lower) + self.bytes_below(lower_level, lower);
            }
        }
        let mut cursor = table.pmd_huge_pte().peek();
        while let Some(deposited) = self.peek_table(lower_level, cursor) {
            sum += bytes(deposited);
            cursor = deposited.lru().peek();
        }
        sum
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/task_mmu.rs"]
mod tests;
