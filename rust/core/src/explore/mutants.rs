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
pub const MUTANTS: [MutantInfo; 2] = [
    MutantInfo {
        which: Mutant::A6,
        entry: "A6",
        name: "no-node-test",
        removed: "the look at the tree node (RB_EMPTY_NODE) in vma_has_changed",
        race: "A munmap has unlinked the VMA and zapped its pages, and the sequence is even again. A \
               fault that found the VMA before, and read its sequence only now, sees nothing \
               change, and installs a page in a table that the munmap is about to free.",
        cpus: 2,
        oracle: "use-after-free, page-leak, mapped-outside-vma",
    },
    MutantInfo {
        which: Mutant::A7,
        entry: "A7",
        name: "no-second-check",
        removed: "the second vma_has_changed, under the PTE lock, in pte_map_lock and pte_spinlock",
        race: "The fault finds nothing changed. Then a munmap begins, zaps the page and ends. The \
               fault takes the lock, which is free, and installs a page that nobody will zap.",
        cpus: 2,
        oracle: "use-after-free, page-leak, mapped-outside-vma",
    },
];

/// The entry of a mutant.
pub fn entry_of(which: Mutant) -> &'static str {
    MUTANTS.iter().find(|mutant| mutant.which == which).map_or("", |mutant| mutant.entry)
}

#[cfg(test)]
#[path = "../../tests/unit/explore/mutants.rs"]
mod tests;
