//! Mutants: one check of v12 removed, to see what it prevents (SPF_V12 9.A), or one barrier (M, 1.4).

pub use crate::platform::Mutant;

/// A catalogue entry.
#[derive(Clone, Copy, Debug)]
pub struct MutantInfo {
    pub which: Mutant,
    /// As in SPF_V12 section 9; M: a barrier of its section 1.4.
    pub entry: &'static str,
    pub name: &'static str,
    /// The check that is removed, and where it is.
    pub removed: &'static str,
    /// What goes wrong without it.
    pub race: &'static str,
    /// How many CPUs the race takes.
    pub cpus: u32,
    /// Which invariants break, the most telling first.
    pub oracle: &'static str,
    /// On which arches, and by their memory models.
    pub models: Models,
}

/// Which machines show what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Models {
    /// Any: no access need be reordered.
    All,
    /// Those whose stores or loads other CPUs can see in another order: arm64 and POWER.
    Weak,
    /// arm64: on POWER other barriers on the way do what is missing.
    Armv8,
    /// None.
    None,
}

impl Models {
    pub fn text(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Weak => "arm64 (armv8), powerpc (power)",
            Self::Armv8 => "arm64 (armv8)",
            Self::None => "none",
        }
    }
}

/// All mutants, in order.
pub const MUTANTS: [MutantInfo; 41] = [
    MutantInfo {
        which: Mutant::A1NoBracket,
        entry: "A1a",
        name: "no-fork-bracket",
        removed: "the odd sequence of the parent's VMAs while fork copies them",
        race: "A fork has made a page read-only and has not flushed yet. A fault with a cold TLB \
               sees a read-only PTE and copies the page; another CPU, whose TLB still lets it, \
               writes to the old page; then the copy without that store takes its place.",
        cpus: 3,
        oracle: "lost-store",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A1EarlyEnd,
        entry: "A1b",
        name: "early-fork-end",
        removed: "the flush before the end: each VMA's sequence is even again right after its copy",
        race: "As A1a: what counts is that no CPU has a writable translation any more when the \
               faults go on.",
        cpus: 3,
        oracle: "lost-store",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A1LastOnly,
        entry: "A1c",
        name: "last-vma-ended",
        removed: "the end of every VMA of the parent but the last",
        race: "The others are odd for ever: no fault in them is speculative again.",
        cpus: 1,
        oracle: "sequence",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A1Failed,
        entry: "A1d",
        name: "failed-fork-not-ended",
        removed: "the end of the parent's VMAs when fork runs out of memory",
        race: "They are odd for ever: no fault in them is speculative again.",
        cpus: 1,
        oracle: "sequence",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A2,
        entry: "A2",
        name: "speculative-readahead",
        removed: "giving up in do_swap_page before swap readahead",
        race: "An mprotect splits the VMA that a speculative swap-in found, so that the address \
               belongs to the other half. The window of the readahead is computed from the bounds \
               as they are now, and does not contain the address.",
        cpus: 2,
        oracle: "readahead-window",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A3,
        entry: "A3",
        name: "late-destination",
        removed: "the odd sequence of mremap's destination from before it can be found: __vma_adjust \
                  ends it, and a new VMA is begun after vma_link",
        race: "A mremap has linked, or extended, the VMA at the new place. A fault finds it and \
               installs a page there; then the pages of the old place are moved on top of it.",
        cpus: 2,
        oracle: "rss-count, mapcount, lost-store",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A4,
        entry: "A4",
        name: "even-source",
        removed: "the odd sequence of mremap's source while its pages move",
        race: "A mremap has moved the PTE of an address, which is none now, and goes on. A fault \
               installs a new page there, and the mremap unmaps it with the rest: a store that \
               neither moved nor ended in a signal.",
        cpus: 2,
        oracle: "lost-store",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A6,
        entry: "A6",
        name: "no-node-test",
        removed: "the look at the tree node (RB_EMPTY_NODE) in vma_has_changed",
        race: "A munmap has unlinked the VMA and zapped its pages, and the sequence is even again. A \
               fault that found the VMA before, and read its sequence only now, sees nothing \
               change, and installs a page in a table that the munmap is about to free.",
        cpus: 2,
        oracle: "mapcount, rss-count",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A7,
        entry: "A7",
        name: "no-second-check",
        removed: "the second vma_has_changed, under the PTE lock, in pte_map_lock and pte_spinlock",
        race: "The fault finds nothing changed. Then a munmap begins, zaps the page and ends. The \
               fault takes the lock, which is free, and installs a page that nobody will zap.",
        cpus: 2,
        oracle: "mapcount, rss-count, use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A8Walk,
        entry: "A8a",
        name: "walk-with-interrupts",
        removed: "the disabled interrupts around the walk of the page tables",
        race: "A munmap takes the tables away and flushes; nothing in the walk keeps its \
               interrupt waiting, so it frees them under the walk.",
        cpus: 2,
        oracle: "use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A8Lock,
        entry: "A8b",
        name: "early-interrupts",
        removed: "the disabled interrupts until the second check in pte_map_lock and pte_spinlock",
        race: "A munmap has zapped the page and waits for the interrupt of the CPU that just took \
               the PTE lock. It comes too early: the table, with the lock in it, is freed before \
               the check says that the VMA is gone.",
        cpus: 2,
        oracle: "use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A9,
        entry: "A9",
        name: "blocking-lock",
        removed: "the trylock: pte_map_lock and pte_spinlock wait for the lock with interrupts off",
        race: "A copy-on-write fault holds the PTE lock and waits for every CPU to flush. A fault \
               on another CPU waits for that lock, and does not answer.",
        cpus: 2,
        oracle: "deadlock",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A10,
        entry: "A10",
        name: "none-is-empty",
        removed: "the abort at a PMD that is none (H16): the fault goes on and allocates a table",
        race: "A collapse has cleared the PMD, to take the small pages away in peace, or a munmap has \
               freed the table. A fault sees none, and puts a page table there: where the huge page \
               is to go, or where nobody will free it.",
        cpus: 2,
        oracle: "collapse-pmd, page-table-count, use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A11Compare,
        entry: "A11a",
        name: "no-pmd-compare",
        removed: "the comparison of the PMD in pte_map_lock and pte_spinlock; alone no schedule shows \
                  it, for the sequence tells of the collapse too (without A11c it does not)",
        race: "A fault has walked to a page table. A collapse clears the PMD and copies the pages. \
               The fault locks the old table and installs a page there, which nobody will find.",
        cpus: 2,
        oracle: "deposit, mapcount, rss-count, page-leak, lost-store",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A11Irqs,
        entry: "A11b",
        name: "pmd-compare-with-irqs-on",
        removed: "the interrupts that are off from the comparison of the PMD on",
        race: "A munmap frees the table after the comparison, for its flush does not wait for a fault \
               that has compared and has not locked yet. Without A11c a collapse does not either, and \
               then it is as without the comparison.",
        cpus: 2,
        oracle: "use-after-free, deposit, mapcount, rss-count, page-leak, lost-store",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A11Bracket,
        entry: "A11c",
        name: "no-collapse-bracket",
        removed: "the odd sequence of collapse_huge_page; alone no schedule shows it, for the \
                  comparison of the PMD tells of the collapse too (without A11a it does not)",
        race: "As without the comparison.",
        cpus: 2,
        oracle: "deposit, mapcount, rss-count, page-leak, lost-store",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A12,
        entry: "A12",
        name: "speculative-upper-tables",
        removed: "the rule that the speculative walk only uses tables that exist (H12 to H14)",
        race: "A munmap has freed the page tables of a VMA. A fault that found it before makes new \
               ones, which nobody will free.",
        cpus: 2,
        oracle: "page-table-count, page-table-leak, panic",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A13,
        entry: "A13",
        name: "no-anon-vma-test",
        removed: "the test for an anon_vma (H4): the fault prepares one",
        race: "The fault looks at the neighbours for an anon_vma that it can share, without \
               mmap_sem, while a munmap frees such a neighbour.",
        cpus: 2,
        oracle: "use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A14,
        entry: "A14",
        name: "no-rmap-bracket",
        removed: "the odd sequence while free_pgtables takes a VMA off its anon_vmas; no schedule \
                  shows it, for the cleared node and the PTE lock keep faults out",
        race: "A fault adds a page to an anon_vma that the VMA is just leaving.",
        cpus: 2,
        oracle: "none",
        models: Models::None,
    },
    MutantInfo {
        which: Mutant::A15,
        entry: "A15",
        name: "bounds-assertion",
        removed: "the bounds-free rmap of a speculative fault: the page must lie within its VMA",
        race: "A fault holds the PTE lock, with everything checked. A mprotect splits the VMA, \
               which takes no PTE lock, and the page lies in the other half: a false alarm.",
        cpus: 2,
        oracle: "vma-bounds",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A16,
        entry: "A16",
        name: "live-flags",
        removed: "the cached vm_flags, where a new page is marked as locked in memory: the live ones \
                  decide",
        race: "The fault holds the PTE lock. A mlock of another part splits the VMA, and what the \
               fault knows as its VMA is that part now; so the page counts as locked in a VMA that \
               is not.",
        cpus: 2,
        oracle: "mlocked",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A17,
        entry: "A17",
        name: "retry-allowed",
        removed: "the clearing of FAULT_FLAG_ALLOW_RETRY and FAULT_FLAG_KILLABLE for speculative faults",
        race: "The fault finds its page in the swap cache, locked by reclaim; to wait, it gives back \
               mmap_sem, which it does not hold.",
        cpus: 2,
        oracle: "lock-balance",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A18,
        entry: "A18",
        name: "speculative-file-fault",
        removed: "the test for a fault operation (H3), and the abort where a page of a file is not \
                  mapped",
        race: "do_fault trusts mmap_sem to keep the VMA and its page tables; munmap frees them \
               meanwhile, or the fault maps a page that munmap has already been for.",
        cpus: 2,
        oracle: "mapped-outside-vma, use-after-free, mapcount, rss-count, page-table-count",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A22,
        entry: "A22",
        name: "early-publish",
        removed: "the late publication of PTE and lock in struct vm_fault; no schedule shows it, \
                  for no caller looks at them after a failure",
        race: "An error path unlocks a lock that the fault does not hold.",
        cpus: 2,
        oracle: "none",
        models: Models::None,
    },
    MutantInfo {
        which: Mutant::A23,
        entry: "A23",
        name: "no-mm-seq",
        removed: "the look at mm_seq around the walk of the tree; no schedule shows it: a fault \
                  that missed its VMA gives up, and one that found another sees so in its bounds",
        race: "A munmap rebalances the tree, and the walk ends at another VMA or at none.",
        cpus: 2,
        oracle: "none",
        models: Models::None,
    },
    MutantInfo {
        which: Mutant::A24Get,
        entry: "A24a",
        name: "late-reference",
        removed: "the reference within the RCU section of the look-up",
        race: "The VMA is unlinked and freed between the end of the section and the reference.",
        cpus: 2,
        oracle: "use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A24Put,
        entry: "A24b",
        name: "direct-put",
        removed: "the grace period before the tree's reference is dropped at unlink",
        race: "A look-up has found the VMA in the tree. It is unlinked and freed before the \
               look-up takes its reference.",
        cpus: 2,
        oracle: "use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A25Kept,
        entry: "A25a",
        name: "kept-reference",
        removed: "the put of the VMA when the look-up starts again",
        race: "Each time that the tree changes during a look-up a reference is left over.",
        cpus: 2,
        oracle: "refcount, vma-leak",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A25Twice,
        entry: "A25b",
        name: "double-put",
        removed: "one put too many when the look-up starts again",
        race: "The last reference goes while the VMA is in the tree.",
        cpus: 2,
        oracle: "refcount, vma-freed-in-tree, use-after-free",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A26,
        entry: "A26",
        name: "inherited-counts",
        removed: "the fresh sequence and reference count of a copied VMA",
        race: "A VMA that is split leaves its reference count to the new half, which is never \
               freed.",
        cpus: 1,
        oracle: "refcount, vma-leak",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A27,
        entry: "A27",
        name: "failed-adjust-ends-nothing",
        removed: "the ends of the VMAs that __vma_adjust has begun, where anon_vma_clone fails",
        race: "A merge finds no memory for an anon_vma_chain and gives up. Nothing of the VMAs has \
               changed, but they stay odd for ever, and no fault in them is speculative again.",
        cpus: 1,
        oracle: "sequence",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A28,
        entry: "A28",
        name: "new-next-not-begun",
        removed: "the begin of the VMA that comes next after a merge",
        race: "The end that belongs to the swallowed VMA makes that of the next one odd: even \
               while it is written, and odd for ever.",
        cpus: 1,
        oracle: "sequence",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A29,
        entry: "A29",
        name: "file-closed-late",
        removed: "the fput of remove_vma: the file is closed when the VMA is freed",
        race: "A munmap returns, and the file that it unmapped is still in use until a grace period \
               has ended: umount says EBUSY.",
        cpus: 1,
        oracle: "file-open",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A30,
        entry: "A30",
        name: "populate-while-odd",
        removed: "the end of mprotect's section before it faults in the pages of locked memory that \
                  becomes writable",
        race: "A writer that faults while its VMA is odd would wait for itself, if anybody ever \
               waited for a sequence to be even.",
        cpus: 1,
        oracle: "fault-while-odd",
        models: Models::All,
    },
    MutantInfo {
        which: Mutant::A31,
        entry: "A31",
        name: "speculate-always",
        removed: "the tests for accesses of the kernel and for one user of the address space (W2, \
                  W3); no schedule shows it, for they save work and keep nothing right",
        race: "None is known.",
        cpus: 2,
        oracle: "none",
        models: Models::None,
    },
    MutantInfo {
        which: Mutant::M1,
        entry: "M1",
        name: "no-wmb-after-begin",
        removed: "the smp_wmb after a sequence became odd",
        race: "What the writer changes is seen before the odd count. A fault that began in time mixes \
               old fields with new ones, and finds its count unchanged: a page is mapped with an \
               index that is not its own.",
        cpus: 2,
        oracle: "rmap",
        models: Models::Armv8,
    },
    MutantInfo {
        which: Mutant::M2,
        entry: "M2",
        name: "no-wmb-before-end",
        removed: "the smp_wmb before a sequence becomes even",
        race: "The even count is seen before what has changed. A fault that begins then takes the old \
               flags for good: after munlock it maps a page as locked.",
        cpus: 2,
        oracle: "mlocked",
        models: Models::Weak,
    },
    MutantInfo {
        which: Mutant::M3,
        entry: "M3",
        name: "no-rmb-after-first-read",
        removed: "the smp_rmb after a sequence is first read",
        race: "The fields are read before the count: as M2, from the reader's side.",
        cpus: 2,
        oracle: "mlocked",
        models: Models::Weak,
    },
    MutantInfo {
        which: Mutant::M4,
        entry: "M4",
        name: "no-rmb-before-retry",
        removed: "the smp_rmb before a sequence is read again",
        race: "The look-up may take a tree that is being rebalanced for one at rest: as A23. Of \
               vm_sequence, what is read then is compared again under the PTE lock.",
        cpus: 2,
        oracle: "none",
        models: Models::None,
    },
    MutantInfo {
        which: Mutant::M5,
        entry: "M5",
        name: "no-rmb-after-node-test",
        removed: "the smp_rmb of vma_has_changed",
        race: "The fields could be read after the count is compared. But that is done twice, and with \
               the PTE lock taken in between, whose holder has seen what the writer did before.",
        cpus: 2,
        oracle: "none",
        models: Models::None,
    },
    MutantInfo {
        which: Mutant::M6,
        entry: "M6",
        name: "no-barrier-before-pte",
        removed: "the order between a new page's content and its PTE",
        race: "Another CPU finds the page before it is cleared, and reads what a stranger left there. \
               On POWER the PTE lock, taken in between, orders them.",
        cpus: 2,
        oracle: "lost-store",
        models: Models::Armv8,
    },
];

/// The entry of a mutant.
pub fn entry_of(which: Mutant) -> &'static str {
    MUTANTS.iter().find(|mutant| mutant.which == which).map_or("", |mutant| mutant.entry)
}

/// What a timeline says where the check is left out.
pub(super) fn without(which: Mutant) -> String {
    let MutantInfo { entry, removed, .. } = MUTANTS[which as usize];
    format!("{entry}: without {removed}")
}

#[cfg(test)]
#[path = "../../tests/unit/explore/mutants.rs"]
mod tests;
