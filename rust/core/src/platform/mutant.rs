//! The names of the checks that a run can remove; `explore::mutants` has the catalogue.

/// One check of v12, removed to see what it prevents (SPF_V12 section 9.A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutant {
    /// Swap readahead in a speculative fault.
    A2,
    /// mremap's destination is not odd from before it can be found.
    A3,
    /// mremap's source is not odd while its pages move.
    A4,
    /// No node test in `vma_has_changed`.
    A6,
    /// No second check under the PTE lock.
    A7,
    /// No abort at a PMD that is none.
    A10,
    /// No comparison of the PMD in `pte_map_lock` and `pte_spinlock`.
    A11Compare,
    /// The PMD is compared with interrupts on.
    A11Irqs,
    /// `collapse_huge_page` does not make the VMA odd.
    A11Bracket,
    /// The speculative walk allocates upper page tables.
    A12,
}
