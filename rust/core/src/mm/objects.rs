//! The kernel's structs as words, with the kernel's field offsets (v5.1, x86-64, plus the
//! series' fields), because the offset decides which fields share a cache line.

use super::hugetlb::ResvMap;
use super::mempolicy::Mempolicy;
use super::pmd::PmdVal;
use super::types::{Pte, Vaddr, VmFlags};
use crate::object;
use crate::platform::{Field, Line, Object, Platform, Ptr, Ref, Value, Word};

object! {
    /// An address space. Faults read some of its words that are next to those which writers write
    /// all the time.
    pub struct Mm of PaddedWord = "mm_struct", 1088 {
        /// First VMA of the list.
        mmap: Ptr<Vma<P>> = 0x00,
        /// Root of the VMA tree.
        mm_rb: Ptr<Vma<P>> = 0x08,
        /// Sequence of the seqlock over the tree's structure. Source: P19.
        mm_seq: u64 = 0x10,
        /// The seqlock's spinlock.
        mm_seq_lock: u64 = 0x14,
        vmacache_seqnum: u64 = 0x18,
        /// v11's lock of the tree, and the lock of those who queue for it. There it is where
        /// `mm_seq` is now, in the same line.
        mm_rb_lock: u64 = 0x20,
        mm_rb_lock_wait: u64 = 0x24,
        /// `mm->highest_vm_end`
        highest_vm_end: Vaddr = 0x50,
        /// The top page table.
        pgd: Ptr<Table<P>> = 0x58,
        mm_users: u64 = 0x60,
        mm_count: u64 = 0x64,
        /// Page tables in use, of all levels.
        pgtables: u64 = 0x68,
        map_count: u64 = 0x70,
        page_table_lock: u64 = 0x74,
        sem_count: i64 = 0x78,
        sem_wait_head: u64 = 0x80,
        sem_wait_tail: u64 = 0x88,
        sem_wait_lock: u64 = 0x90,
        sem_osq: u64 = 0x94,
        sem_owner: u64 = 0x98,
        total_vm: u64 = 0xc0,
        /// Pages of locked VMAs.
        locked_vm: u64 = 0xc8,
        start_brk: Vaddr = 0x108,
        brk: Vaddr = 0x110,
        /// Ours: the process has called brk, so that it cannot place its heap any more.
        brk_used: bool = 0x118,
        /// Ours: how many address spaces were made before this one.
        birth: u64 = 0x11c,
        /// `rss_stat.count[MM_FILEPAGES]`
        file_pages: i64 = 0x2c0,
        /// `rss_stat.count[MM_ANONPAGES]`
        anon_pages: i64 = 0x2c8,
        /// `rss_stat.count[MM_SWAPENTS]`
        swap_entries: i64 = 0x2d0,
        mmu_notifier_mm: Ptr<MmuNotifierMm<P>> = 0x308,
        /// `MMF_*` bits.
        flags: u64 = 0x310,
        /// Ours, where B7 is cured: somebody registers a notifier.
        notifier_writer: bool = 0x318,
        /// `tlb_flush_pending`
        tlb_flush_pending: u64 = 0x340,
        /// `context.tlb_gen` of x86: counts flushes of this address space.
        tlb_gen: u64 = 0x350,
        /// Ours: what the interrupts of the last flush carry, see `tlb.rs`.
        tlb_flush_info: u64 = 0x358,
    }
}

object! {
    /// The notifiers of an address space; here at most one, with what KVM's keeps.
    pub struct MmuNotifierMm of Word = "mmu_notifier_mm", 64 {
        registered: bool = 0x00,
        /// `kvm->mmu_notifier_count`: invalidations that have begun and not ended.
        count: i64 = 0x10,
        /// `kvm->mmu_notifier_seq`
        seq: u64 = 0x18,
    }
}

object! {
    /// A virtual memory area: none shares a line of the host with a neighbour.
    #[repr(align(64))]
    pub struct Vma of Word = "vm_area_struct", 224 {
        vm_start: Vaddr = 0x00,
        vm_end: Vaddr = 0x08,
        // Next to each other on the host, too: what a walk down the tree looks at.
        rb_right: Ptr<Vma<P>> = 0x28,
        rb_left: Ptr<Vma<P>> = 0x30,
        vm_next: Ptr<Vma<P>> = 0x10,
        vm_prev: Ptr<Vma<P>> = 0x18,
        /// Parent pointer of `vm_rb`. A node that is its own parent is in no tree
        /// (`RB_EMPTY_NODE`).
        rb_parent: Ptr<Vma<P>> = 0x20,
        /// Colour of `vm_rb` (the kernel keeps it in the parent word's low bit).
        rb_red: bool = 0x24,
        rb_subtree_gap: u64 = 0x38,
        vm_mm: Ptr<Mm<P>> = 0x40,
        vm_page_prot: Pte = 0x48,
        vm_flags: VmFlags = 0x50,
        /// Next and previous of those that map the same file (the kernel's interval tree).
        i_mmap_next: Ptr<Vma<P>> = 0x58,
        i_mmap_prev: Ptr<Vma<P>> = 0x60,
        /// Head of `anon_vma_chain` (the "same vma" list).
        anon_vma_chain: Ptr<AnonVmaChain<P>> = 0x78,
        /// Last of `anon_vma_chain`: the oldest.
        anon_vma_chain_last: Ptr<AnonVmaChain<P>> = 0x80,
        anon_vma: Ptr<AnonVma<P>> = 0x88,
        /// Which `vm_ops`: see `VmOps`.
        vm_ops: u64 = 0x90,
        vm_pgoff: u64 = 0x98,
        vm_file: Ptr<Inode<P>> = 0xa0,
        /// Of a private hugetlb mapping: its maker's reservations.
        vm_private_data: Ptr<ResvMap<P>> = 0xa8,
        /// `HPAGE_RESV_*`, which the kernel keeps in the low bits of `vm_private_data`.
        resv_flags: u64 = 0xac,
        /// Where the last swap-in was, how much it read around, and how much of that was used.
        swap_readahead_info: u64 = 0xb0,
        vm_policy: Ptr<Mempolicy<P>> = 0xb8,
        /// Even: stable; odd: being modified. Source: P09.
        vm_sequence: u64 = 0xc8,
        /// Source: P20.
        vm_ref_count: u64 = 0xcc,
    }
}

/// `vm_ops` of a VMA: what the kernel would tell apart by pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum VmOps {
    /// NULL: anonymous.
    None = 0,
    /// Operations without `fault`, which 5.1 gives a VMA at birth. None of our files keeps them.
    Dummy = 1,
    /// A regular file: `fault` and `map_pages`.
    File = 2,
    /// shmem: `fault` and `map_pages`.
    Shmem = 3,
    /// hugetlbfs: `fault`, `open`, `close` and `split`.
    Hugetlb = 4,
}

impl VmOps {
    /// Whether the operations that `word` stands for have `fault`.
    #[inline(always)]
    pub fn have_fault(word: u64) -> bool {
        word >= Self::File as u64
    }
}

object! {
    /// The set of VMAs that may map one group of anonymous pages.
    pub struct AnonVma of Word = "anon_vma", 80 {
        root: Ptr<AnonVma<P>> = 0x00,
        sem_count: i64 = 0x08,
        sem_wait_head: u64 = 0x10,
        sem_wait_tail: u64 = 0x18,
        sem_wait_lock: u64 = 0x20,
        sem_osq: u64 = 0x24,
        sem_owner: u64 = 0x28,
        refcount: u64 = 0x30,
        /// Number of child anon_vmas and of VMAs whose `anon_vma` this is.
        degree: u64 = 0x34,
        parent: Ptr<AnonVma<P>> = 0x38,
        /// First of the chains that hang on this anon_vma (the kernel's interval tree).
        rb_root: Ptr<AnonVmaChain<P>> = 0x40,
    }
}

object! {
    /// Links a VMA with an anon_vma.
    pub struct AnonVmaChain of Word = "anon_vma_chain", 64 {
        vma: Ptr<Vma<P>> = 0x00,
        anon_vma: Ptr<AnonVma<P>> = 0x08,
        /// Next and previous of the same VMA.
        same_vma_next: Ptr<AnonVmaChain<P>> = 0x10,
        same_vma_prev: Ptr<AnonVmaChain<P>> = 0x18,
        /// Next and previous of the same anon_vma.
        rb_next: Ptr<AnonVmaChain<P>> = 0x20,
        rb_prev: Ptr<AnonVmaChain<P>> = 0x28,
    }
}

object! {
    /// A page frame.
    pub struct Page of Word = "page", 64 {
        flags: u64 = 0x00,
        /// PMD entries that map the huge page that this page is the head of. (The kernel counts
        /// from -1, in the first tail page.)
        compound_mapcount: u64 = 0x08,
        /// What `page->mapping` says: an inode; with `PG_ANON` in `flags` an anon_vma; or 0, as of
        /// a page of KSM's.
        mapping: u64 = 0x18,
        index: u64 = 0x20,
        /// The swap slot, while the page is in the swap cache.
        private: u64 = 0x28,
        /// Mappings minus one in the kernel; here the number of mappings.
        mapcount: u64 = 0x30,
        refcount: u64 = 0x34,
        /// The page's content: one word stands for all of it.
        content: u64 = 0x38,
    }
}

object! {
    /// A file with its page cache.
    pub struct Inode of Word = "inode", 256 {
        /// Length in bytes.
        i_size: u64 = 0x50,
        /// References: open (1) and one for each VMA.
        count: u64 = 0x58,
        /// `FileKind`.
        kind: u64 = 0x60,
        /// Pages not read yet cost a major fault.
        uncached: bool = 0x68,
        /// Lock of the page cache.
        i_pages_lock: u64 = 0x80,
        /// Root of the page cache: a table of tables or of page numbers + 1.
        i_pages: Ptr<Table<P>> = 0x88,
        /// Levels below `i_pages`; 1: it holds pages.
        i_pages_levels: u64 = 0x90,
        /// First and last VMA that maps the file.
        i_mmap: Ptr<Vma<P>> = 0x98,
        i_mmap_last: Ptr<Vma<P>> = 0xa0,
        i_mmap_sem_count: i64 = 0xa8,
        i_mmap_sem_wait_head: u64 = 0xb0,
        i_mmap_sem_wait_tail: u64 = 0xb8,
        i_mmap_sem_wait_lock: u64 = 0xc0,
        i_mmap_sem_osq: u64 = 0xc4,
        i_mmap_sem_owner: u64 = 0xc8,
        /// `i_rwsem`
        sem_count: i64 = 0xd0,
        sem_wait_head: u64 = 0xd8,
        sem_wait_tail: u64 = 0xe0,
        sem_wait_lock: u64 = 0xe8,
        sem_osq: u64 = 0xec,
        sem_owner: u64 = 0xf0,
        /// Ours: how many pages the file has had from the beginning, and has still.
        nr_original: u64 = 0x70,
        /// Of a hugetlbfs file: the huge pages that are reserved or there.
        resv_map: Ptr<ResvMap<P>> = 0xf8,
    }
}

impl<P: Platform> Page<P> {
    /// The reference count of a frame that may be free, or somebody else's by now.
    #[inline(always)]
    pub(super) fn refcount_of_anybody(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.refcount)
    }
}

/// A page table of any level, and a node of a page cache. The locks of two are not in one line of
/// the host.
#[repr(align(64))]
pub struct Table<P: Platform> {
    /// The split PTE (or PMD) lock, in the table's struct page.
    ptl: Word<P>,
    /// The frame that the table lives in.
    frame: Word<P>,
    /// Of a PMD table: the last table of PTEs that was deposited with it (`pmd_huge_pte`).
    pmd_huge_pte: Word<P>,
    /// Of a deposited table of PTEs: the one that was deposited before it (`page->lru`).
    lru: Word<P>,
    entries: Box<[Word<P>]>,
}

impl<P: Platform> Object for Table<P> {
    type P = P;
    const NAME: &'static str = "page table";
    fn new(line: Line, shape: u32) -> Self {
        // The struct page of the table is the first line, the table follows.
        let ptl = Word::new(line, 0x28);
        let frame = Word::new(line, 0);
        let lru = Word::new(line, 0x08);
        let pmd_huge_pte = Word::new(line, 0x10);
        let entries = (0..shape).map(|i| Word::new(line, Line::BYTES + i * 8)).collect();
        Self { ptl, frame, pmd_huge_pte, lru, entries }
    }
    fn lines(shape: u32) -> u32 {
        1 + (shape * 8).div_ceil(Line::BYTES)
    }
    fn clear(&self) {
        self.ptl.poke(0);
        self.frame.poke(0);
        self.pmd_huge_pte.poke(0);
        self.lru.poke(0);
        self.entries.iter().for_each(|entry| entry.poke(0));
    }
    fn field_text(arena: &str, offset: u32, word: u64) -> String {
        match offset {
            0x08 | 0x10 => Ptr::<Self>::text(word),
            ..Line::BYTES => u64::text(word),
            _ if arena == "pte" => Pte(word).entry_text(),
            _ => PmdVal::<P>::text(word),
        }
    }
    fn field_name(offset: u32) -> String {
        match offset.checked_sub(Line::BYTES) {
            Some(entry) => format!("[{}]", entry / 8),
            None if offset == 0 => "frame".to_owned(),
            None if offset == 0x08 => "lru".to_owned(),
            None if offset == 0x10 => "pmd_huge_pte".to_owned(),
            None => "ptl".to_owned(),
        }
    }
}

impl<'k, P: Platform> Ref<'k, Table<P>> {
    /// The lock of this table (`ptlock_ptr(page)`).
    #[inline(always)]
    pub fn ptl(self) -> Field<'k, P, u64> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().ptl, generation, expect)
    }
    /// The number of the frame that the table lives in.
    #[inline(always)]
    pub fn frame(self) -> Field<'k, P, u64> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().frame, generation, expect)
    }
    /// The last of the tables deposited with this one.
    pub fn pmd_huge_pte(self) -> Field<'k, P, Ptr<Table<P>>> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().pmd_huge_pte, generation, expect)
    }
    /// The table that was deposited before this one.
    pub fn lru(self) -> Field<'k, P, Ptr<Table<P>>> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().lru, generation, expect)
    }
    /// Entry `index` as that of a PMD.
    #[inline(always)]
    pub fn pmd(self, index: u32) -> Field<'k, P, PmdVal<P>> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().entries[index as usize], generation, expect)
    }
    /// Entry `index` as a PTE.
    #[inline(always)]
    pub fn pte(self, index: u32) -> Field<'k, P, Pte> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().entries[index as usize], generation, expect)
    }
    /// Entry `index` as a pointer to the table below.
    #[inline(always)]
    pub fn entry(self, index: u32) -> Field<'k, P, Ptr<Table<P>>> {
        let (generation, expect) = self.stamp();
        Field::new(&self.object().entries[index as usize], generation, expect)
    }
    /// Number of entries.
    #[inline(always)]
    pub fn len(self) -> u32 {
        self.object().entries.len() as u32
    }
    /// A table has entries.
    pub fn is_empty(self) -> bool {
        false
    }
    /// The numbers of the entries that are not none, as nobody's access.
    pub fn peek_used(self) -> impl Iterator<Item = u32> + use<'k, P> {
        let entries = &self.object().entries;
        // Most are none: eight at a time.
        let (eights, rest) = entries.as_chunks::<8>();
        let are_used = |eight: &[Word<P>; 8]| eight.iter().fold(0, |any, e| any | e.peek()) != 0;
        let nr_eights = eights.len();
        (0..nr_eights)
            .filter(move |&nth| are_used(&eights[nth]))
            .flat_map(|nth| 8 * nth..8 * nth + 8)
            .chain(8 * nr_eights..8 * nr_eights + rest.len())
            .filter(|&index| entries[index].peek() != 0)
            .map(|index| index as u32)
    }
}

pub type MmRef<'k, P> = Ref<'k, Mm<P>>;
pub type VmaRef<'k, P> = Ref<'k, Vma<P>>;
pub type TableRef<'k, P> = Ref<'k, Table<P>>;
pub type PageRef<'k, P> = Ref<'k, Page<P>>;
pub type InodeRef<'k, P> = Ref<'k, Inode<P>>;
pub type AnonVmaRef<'k, P> = Ref<'k, AnonVma<P>>;
pub type AvcRef<'k, P> = Ref<'k, AnonVmaChain<P>>;
