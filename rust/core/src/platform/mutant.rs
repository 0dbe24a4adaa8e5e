//! The names of the checks that a run can remove; `explore::mutants` has the catalogue.

/// One check of v12, removed to see what it prevents (SPF_V12 section 9.A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutant {
    /// fork does not make the VMAs odd that it copies.
    A1NoBracket,
    /// fork ends each VMA right after its copy.
    A1EarlyEnd,
    /// fork ends the last VMA only.
    A1LastOnly,
    /// A fork that fails ends none.
    A1Failed,
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
    /// The speculative walk has interrupts on.
    A8Walk,
    /// Interrupts are on for a moment before the second check.
    A8Lock,
    /// The PTE lock is waited for with interrupts off.
    A9,
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
    /// No test for an anon_vma.
    A13,
    /// free_pgtables does not make the VMA odd while it takes it off its anon_vmas.
    A14,
    /// A fresh page must lie within its VMA's bounds of now.
    A15,
    /// The live `vm_flags` decide whether a page counts as locked, not the fault's copy.
    A16,
    /// A speculative fault may drop `mmap_sem`.
    A17,
    /// No test for a fault operation; a page of a file that is not mapped is brought in.
    A18,
    /// The PTE and its lock are published before the lock is taken.
    A22,
    /// The tree is walked without a look at `mm_seq`.
    A23,
    /// The reference is taken after the RCU section.
    A24Get,
    /// The tree's reference is dropped at once.
    A24Put,
    /// A look-up that starts again keeps its reference.
    A25Kept,
    /// A look-up that starts again drops its reference twice.
    A25Twice,
    /// A copy of a VMA has its sequence and reference count.
    A26,
    /// `__vma_adjust` that fails ends nothing.
    A27,
    /// After a merge the new next VMA is not odd.
    A28,
    /// A file is closed after a grace period.
    A29,
    /// mprotect faults in before its section of the VMA has ended.
    A30,
    /// Faults of the kernel, and of an address space with one user, are speculative too.
    A31,
    /// No store barrier after a sequence became odd.
    M1,
    /// No store barrier before it becomes even.
    M2,
    /// No load barrier after it is first read.
    M3,
    /// No load barrier before it is read again.
    M4,
    /// No load barrier after `vma_has_changed`.
    M5,
    /// No barrier between a new page's content and its PTE.
    M6,
}
