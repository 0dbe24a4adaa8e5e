//! Variants: where v12 had a bug, the choice between v12 and the cure of a later port.

/// One bug of v12 (SPF_V12 section 9, B and C; N, ours), or of 5.1 itself (L, ours), that a run
/// can have or not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Variant {
    /// Two writers under `mmap_sem` read: parity of `vm_sequence`.
    B1,
    /// `pte_alloc` in `do_anonymous_page` without `mmap_sem`.
    B2,
    /// The PMD read again after it was compared.
    B3,
    /// `migration_entry_wait` in a speculative fault.
    B4,
    /// KSM's question about a page from swap, put to a VMA that is going.
    B5,
    /// A copy that is given up forgets to end its invalidation.
    B6,
    /// A notifier is registered between a speculative copy's start and end.
    B7,
    /// A whole page table moved under the PMDs' locks alone.
    B8,
    /// A page table freed while a fault that had its lock lets go of it.
    B9,
    /// The vmacache in `find_vma_rcu`.
    C1,
    /// Nothing changed, yet reported handled: the fault comes back for ever.
    C2,
    /// `si_code` SEGV_MAPERR where the classic path says SEGV_ACCERR.
    C3,
    /// A page's index from the start and the offset of a VMA that is changing.
    C4,
    /// A memory policy read while mbind replaces it.
    C5,
    /// A refusal by what the VMA was.
    C6,
    /// `VM_FAULT_MAJOR | VM_FAULT_RETRY` counts as handled.
    C7,
    /// powerpc without protection keys takes no result.
    C8,
    /// A VMA unlinked before its sequence was read.
    C9,
    /// A page reused by its map count while another CPU's stale translation still maps it.
    L1,
    /// Two swap-ins of one slot past the swap cache.
    L2,
    /// A page that is nowhere else, and not dirty.
    L3,
    /// A stack grows into what munmap is unmapping.
    L4,
    /// A whole page table moved while rmap is at it.
    L5,
    /// mremap's source is even before it is unlinked.
    N1,
}

/// v12 as it was, or cured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    V12,
    Fixed,
}

/// A catalogue entry.
pub struct VariantInfo {
    pub which: Variant,
    /// As in SPF_V12 section 9.
    pub entry: &'static str,
    pub name: &'static str,
    /// One sentence: what v12 does, what `fixed` does instead and who chose that.
    pub what: &'static str,
    /// CPUs that a schedule which shows it needs.
    pub cpus: u32,
    /// The invariant that breaks.
    pub oracle: &'static str,
    /// What native and virtual time use: what would corrupt or hang the emulator is fixed.
    pub outside_explore: Choice,
}

/// All variants, in order.
pub const VARIANTS: [VariantInfo; 24] = [
    VariantInfo {
        which: Variant::B1,
        entry: "B1",
        name: "read-locked-writers",
        what: "v12 bumps vm_sequence by load and store also where mmap_sem is only read-locked, \
               so two writers can leave it even while both write, or odd for ever; fixed (a later \
               Android port): only exclusive writers bump",
        cpus: 3,
        oracle: "sequence",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B2,
        entry: "B2",
        name: "speculative-pte-alloc",
        what: "v12 lets a speculative anonymous fault install a page table when the PMD became \
               none; fixed (a later Android port): it gives up instead",
        cpus: 2,
        oracle: "use-after-free, page-table-count, collapse-pmd",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B3,
        entry: "B3",
        name: "unstable-pmd",
        what: "v12 reads the PMD with interrupts on, and again after it compared it; fixed (a \
               later Android port): lock and PTE come from the compared value",
        cpus: 2,
        oracle: "use-after-free",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B4,
        entry: "B4",
        name: "migration-entry-wait",
        what: "v12 waits for a page that is being moved by way of a page table which may be gone; \
               fixed (a later Android port): it gives up at once",
        cpus: 3,
        oracle: "use-after-free",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B5,
        entry: "B5",
        name: "ksm-might-need-to-copy",
        what: "v12 asks whether KSM shared a page of the swap cache before it has the PTE lock, by the \
               VMA's anon_vma, which munmap may have freed; fixed (a later Android port): a \
               speculative fault does not ask",
        cpus: 2,
        oracle: "use-after-free",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B6,
        entry: "B6",
        name: "forgotten-range-end",
        what: "v12's speculative copy-on-write, when it gives up, leaves the invalidation begun that \
               it has told mmu notifiers of, so a guest waits for ever; fixed (a later Android \
               port): it ends it",
        cpus: 2,
        oracle: "notifier-balance",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B7,
        entry: "B7",
        name: "notifier-registration",
        what: "v12 lets an mmu notifier be registered in the middle of a speculative copy-on-write, \
               which then ends an invalidation that this notifier has not seen begin; fixed (Michel \
               Lespinasse): a lock keeps the two apart, and the fault does not wait for it",
        cpus: 2,
        oracle: "notifier-balance",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B8,
        entry: "B8",
        name: "fast-mremap",
        what: "5.1's mremap moves a whole page table under the PMDs' locks alone, so a fault that \
               holds the table's lock flushes the old address for a page that is at the new one by \
               then; fixed (a later Android port): it takes the table's lock, too",
        cpus: 2,
        oracle: "lost-store",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::B9,
        entry: "B9",
        name: "lock-in-the-table",
        what: "v12 frees a page table, and the PTE lock in it, without a look at who still has the \
               lock; fixed (a later Android port): free_pte_range takes the lock and gives it back \
               before it clears the PMD. No schedule shows it: the zap takes the lock, too",
        cpus: 2,
        oracle: "none",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::C1,
        entry: "C1",
        name: "vmacache-lookup",
        what: "v12's find_vma_rcu consults the per-task vmacache; fixed (v9 to v11): it walks the \
               tree",
        cpus: 2,
        oracle: "use-after-free",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::C2,
        entry: "C2",
        name: "unchanged-pte-handled",
        what: "v12 reports a fault handled when the PTE's access flags did not change, so a fault \
               on a protection that VM_READ satisfies comes back for ever; fixed (a later Android \
               port): VM_FAULT_RETRY",
        cpus: 1,
        oracle: "livelock",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::C3,
        entry: "C3",
        name: "si-code",
        what: "v12's speculative SIGSEGV carries SEGV_MAPERR; fixed (ours): the classic path \
               decides",
        cpus: 1,
        oracle: "signal",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::C4,
        entry: "C4",
        name: "torn-index",
        what: "v12, and 5.1 where a stack grows, takes a page's index from the live start and \
               offset of its VMA, which may be of two states; fixed (ours): from when the fault \
               was checked",
        cpus: 2,
        oracle: "rmap",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::C5,
        entry: "C5",
        name: "policy-without-reference",
        what: "v12 reads the policy of a VMA without a reference, and mbind gives the one that it \
               replaces back at once; fixed (ours): a grace period later",
        cpus: 2,
        oracle: "use-after-free",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::C6,
        entry: "C6",
        name: "stale-refusal",
        what: "v12 refuses an access by the flags that the VMA had, and does not look at its sequence \
               again; fixed (ours): it gives up if that has changed. No schedule shows it: the \
               refusal was right when the access began",
        cpus: 2,
        oracle: "none",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::C7,
        entry: "C7",
        name: "major-retry-handled",
        what: "v12 takes any result but VM_FAULT_RETRY itself for handled, also \
               VM_FAULT_MAJOR | VM_FAULT_RETRY; fixed (ours): nothing with that bit. No schedule \
               shows it: a speculative fault that has read a page never goes on to copy it",
        cpus: 2,
        oracle: "none",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::C8,
        entry: "C8",
        name: "nothing-without-keys",
        what: "v12 on powerpc without CONFIG_PPC_MEM_KEYS takes no result of a speculative fault, so \
               each is handled twice; fixed (ours): it takes all, and with keys all but SIGSEGV. Seen \
               in the counters: speculative_pgfault without spf",
        cpus: 1,
        oracle: "none",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::C9,
        entry: "C9",
        name: "sequence-after-unlink",
        what: "v12 reads vm_sequence after the look-up and tests the tree node only under the PTE \
               lock; fixed (ours): a VMA already unlinked aborts at once",
        cpus: 2,
        oracle: "none",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::L1,
        entry: "L1",
        name: "reuse-before-flush",
        what: "Linux 5.1, not the series: munmap drops a page's map count before it flushes, so a \
               copy-on-write fault elsewhere may reuse the page while a stale translation still \
               reads it; fixed (Linux 5.9): reuse only with one reference, and clear_refs lets nobody \
               fault before its own flush (as later Linux)",
        cpus: 3,
        oracle: "lost-store",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::L2,
        entry: "L2",
        name: "swap-in-past-the-cache",
        what: "Linux 5.1, not the series: two faults read a slot of a synchronous device at once, \
               past the swap cache; when the page that the first one mapped is changed and swapped \
               out to the same slot, the second finds its PTE the same and maps what it read \
               before; fixed (Linux 6.8): the slot is marked while one fault reads it",
        cpus: 3,
        oracle: "lost-store",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::L3,
        entry: "L3",
        name: "clean-past-the-cache",
        what: "Linux 5.1, not the series: a page that was read from swap past the swap cache is not \
               marked dirty though it is nowhere else, so after a fork the MADV_FREE of one process \
               lets reclaim drop it for both; fixed (ours): it is marked",
        cpus: 1,
        oracle: "lost-store",
        outside_explore: Choice::V12,
    },
    VariantInfo {
        which: Variant::L4,
        entry: "L4",
        name: "growth-into-unmapping",
        what: "Linux 5.1, not the series: munmap goes on with mmap_sem held for reading even below \
               a VMA that grows down, so a fault may make that grow over what is being unmapped; \
               fixed (Linux 5.8): below such a VMA it keeps writing",
        cpus: 2,
        oracle: "mapcount, use-after-free, rss-count",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::L5,
        entry: "L5",
        name: "table-move-beside-rmap",
        what: "Linux 5.1, not the series: mremap moves a whole page table while reclaim or migration, \
               which has read the old PMD, is about to take a page out of it, so they flush the old \
               address, or find the page at neither; fixed (as later Linux): with the rmap locks held",
        cpus: 2,
        oracle: "use-after-free",
        outside_explore: Choice::Fixed,
    },
    VariantInfo {
        which: Variant::N1,
        entry: "N1",
        name: "even-before-unlinked",
        what: "v12 ends mremap's source once its pages have moved, and unlinks it later, so a fault \
               in between installs a page at the old place that is then unmapped, store and all; \
               fixed (ours): what moves is made a VMA of its own first, and stays odd until it is \
               unlinked",
        cpus: 2,
        oracle: "lost-store",
        outside_explore: Choice::V12,
    },
];

/// The choice for each variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variants([Choice; VARIANTS.len()]);

impl Variants {
    /// Every variant with the same value.
    pub fn all(choice: Choice) -> Self {
        Self([choice; VARIANTS.len()])
    }
    /// What native and virtual time use unless told otherwise.
    pub fn outside_explore() -> Self {
        Self(std::array::from_fn(|i| VARIANTS[i].outside_explore))
    }
    pub fn set(&mut self, which: Variant, choice: Choice) {
        self.0[which as usize] = choice;
    }
    /// Whether this run has the bug.
    #[inline(always)]
    pub fn v12(&self, which: Variant) -> bool {
        self.0[which as usize] == Choice::V12
    }
}
