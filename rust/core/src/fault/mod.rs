//! The page-fault path: the front door.
//!
//! The founding document's pseudo code, and where each line of it is:
//!
//! ```text
//! arch_fault_handler()                      entry.rs        Kernel::do_page_fault
//!     speculative_page_fault()              speculative.rs  Kernel::handle_speculative_fault
//!         find_vma_rcu()                    find_vma_rcu.rs, v11's get_vma() get_vma.rs
//!         check vma sequence count          speculative.rs  check_vma_sequence
//!         check vma's support               speculative.rs  check_vma_support
//!         disable interrupt … enable        speculative.rs  walk_irqs_off
//!         handle_pte_fault()                handle_pte.rs
//!             pte_map_lock()                pte_lock.rs
//!             do_anonymous_page()           anonymous.rs
//!             do_fault()                    file.rs
//!             do_wp_page()                  wp.rs
//!             handle_userfault()            userfaultfd.rs
//!         put_vma()
//!     lock(mmap_sem), find_vma()            entry.rs        Kernel::classic_fault
//!     handle_mm_fault()                     classic.rs, huge pages huge.rs
//!         handle_pte_fault()                handle_pte.rs
//!     handle fault error                    entry.rs        Kernel::mm_fault_error
//! ```

mod anonymous;
mod classic;
mod entry;
mod file;
mod find_vma_rcu;
mod get_vma;
mod gup;
mod handle_pte;
mod huge;
mod hugetlb;
mod ksm;
mod numa;
mod pte_lock;
mod speculative;
mod swap;
mod userfaultfd;
mod wp;

pub use entry::FaultResult;

use crate::mm::{FaultFlags, MmRef, Pmd, PmdVal, Pte, PteSlot, Vaddr, VmFlags, VmaRef};
use crate::platform::Platform;

/// One fault on its way: the kernel's `struct vm_fault`.
pub(crate) struct Vmf<'k, P: Platform> {
    pub vma: VmaRef<'k, P>,
    pub mm: MmRef<'k, P>,
    pub flags: FaultFlags,
    /// The page's first byte.
    pub address: Vaddr,
    /// Offset of the page in the mapped object, in pages.
    pub pgoff: u64,
    /// `vm_flags` and `vm_page_prot` as one snapshot: the sequence check under the PTE lock
    /// proves nothing about what happens to the VMA while the lock is held. Source: P13.
    pub vma_flags: VmFlags,
    pub vma_page_prot: Pte,
    /// `vm_sequence` when the fault began. Source: P22.
    pub sequence: u64,
    pub pmd: Pmd<'k, P>,
    /// `*pmd` as the walk saw it. Source: P22.
    pub orig_pmd: PmdVal<P>,
    /// `None`: the PTE was none.
    pub pte: Option<PteSlot<'k, P>>,
    pub orig_pte: Pte,
    /// The table whose PTE lock this fault holds.
    pub ptl: Option<PteSlot<'k, P>>,
}

impl<P: Platform> Vmf<'_, P> {
    #[inline(always)]
    fn is_speculative(&self) -> bool {
        self.flags.has(FaultFlags::SPECULATIVE)
    }
    #[inline(always)]
    fn is_write(&self) -> bool {
        self.flags.has(FaultFlags::WRITE)
    }
}
