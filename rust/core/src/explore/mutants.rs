//! Mutants: one check of v12 removed, to see what it prevents (SPF_V12 section 9.A).

pub use crate::platform::Mutant;

/// A catalogue entry.
#[derive(Clone, Copy, Debug)]
pub struct MutantInfo {
    pub which: Mutant,
    /// As in SPF_V12 section 9.
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
}

/// All mutants, in order.
pub const MUTANTS: [MutantInfo; 10] = [
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
        oracle: "collapse-pmd, page-table-count",
    },
    MutantInfo {
        which: Mutant::A11Compare,
        entry: "A11a",
        name: "no-pmd-compare",
        removed: "the comparison of the PMD in pte_map_lock and pte_spinlock; alone no schedule shows \
                  it, for the sequence tells of the collapse too",
        race: "A fault has walked to a page table. A collapse clears the PMD and copies the pages. \
               The fault locks the old table and installs a page there, which nobody will find.",
        cpus: 2,
        oracle: "deposit, page-leak, lost-store",
    },
    MutantInfo {
        which: Mutant::A11Irqs,
        entry: "A11b",
        name: "pmd-compare-with-irqs-on",
        removed: "the interrupts that are off from the comparison of the PMD on; alone no schedule \
                  shows it",
        race: "As without the comparison: the collapse's flush does not wait for a fault that has \
               compared and has not locked yet.",
        cpus: 2,
        oracle: "deposit, page-leak, lost-store",
    },
    MutantInfo {
        which: Mutant::A11Bracket,
        entry: "A11c",
        name: "no-collapse-bracket",
        removed: "the odd sequence of collapse_huge_page; alone no schedule shows it, for the \
                  comparison of the PMD tells of the collapse too",
        race: "As without the comparison.",
        cpus: 2,
        oracle: "deposit, page-leak, lost-store",
    },
    MutantInfo {
        which: Mutant::A12,
        entry: "A12",
        name: "speculative-upper-tables",
        removed: "the rule that the speculative walk only uses tables that exist (H12 to H14)",
        race: "A munmap has freed the page tables of a VMA. A fault that found it before makes new \
               ones, which nobody will free.",
        cpus: 2,
        oracle: "page-table-leak, page-table-count",
    },
];

/// The entry of a mutant.
pub fn entry_of(which: Mutant) -> &'static str {
    MUTANTS.iter().find(|mutant| mutant.which == which).map_or("", |mutant| mutant.entry)
}

#[cfg(test)]
#[path = "../../tests/unit/explore/mutants.rs"]
mod tests;
