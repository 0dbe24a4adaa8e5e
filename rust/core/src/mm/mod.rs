//! Memory management: address spaces, VMAs, page tables, page frames, files, the TLB.

mod anon_vma;
mod anon_vma_chain;
mod between_operations;
mod change_protection;
mod clear_refs;
mod compound;
mod copy;
mod copy_vma;
mod counters;
mod expand_stack;
mod file;
mod free_pgtables;
mod gaps;
mod gather;
mod huge_memory;
mod huge_pmd;
mod hugetlb;
mod hugetlb_pages;
mod i_mmap;
mod invariants;
mod kernel;
mod khugepaged;
mod ksm;
mod locks;
mod lookup;
mod lru;
mod madvise;
mod memcontrol;
mod mempolicy;
mod migrate;
mod mlock;
mod mmu_notifier;
mod move_page_tables;
mod node;
mod objects;
mod oom_kill;
mod page;
mod pgtable;
mod pmd;
mod rmap;
mod rmap_walk;
mod swap;
mod swap_objects;
mod swap_readahead;
mod swap_state;
mod task_mmu;
mod tlb;
mod tree;
mod tree_check;
mod truncate;
mod types;
pub mod variants;
mod vma;
mod vma_adjust;
mod vma_merge;
mod vmscan;
mod zap;

pub(crate) use clear_refs::ClearRefs;
pub use counters::Counters;
pub use file::FileKind;
pub(crate) use file::MAX_FILE_BYTES;
pub(crate) use gaps::UnmappedAreaInfo;
pub use huge_memory::Thp;
pub(crate) use hugetlb::{HPAGE_RESV_OWNER, HPAGE_RESV_UNMAPPED};
pub use kernel::{Config, Kernel, PerCpu, System, TaskStruct};
pub(crate) use locks::mm_rb_lock;
pub(crate) use lookup::VmaLinks;

pub use mempolicy::{Mempolicy, MempolicyRef, MpolMode};
pub(crate) use mlock::VM_LOCKED_BOTH;
pub(crate) use move_page_tables::Moving;
pub use objects::{
    AnonVma, AnonVmaChain, AnonVmaRef, AvcRef, Inode, InodeRef, Mm, MmRef, MmuNotifierMm, Page,
    PageRef, Table, TableRef, VmOps, Vma, VmaRef,
};
#[cfg(test)]
pub(crate) use page::PG_MLOCKED;
pub(crate) use page::{
    PG_CACHE, PG_DIRTY, PG_LOCKED, PG_SWAPBACKED, PG_SWAPCACHE, PG_UPTODATE, ZERO_PFN,
};
pub use pgtable::PteSlot;
pub use pmd::{Pmd, PmdVal};
pub(crate) use rmap::Rss;
pub use swap::{Swap, SwapConfig};
pub(crate) use swap_readahead::{SwapIn, SwapReads};
pub use task_mmu::ProcText;
pub use types::{Access, Errno, FaultCode, FaultFlags, Pte, Signal, Vaddr, VmFault, VmFlags};
pub use variants::{Choice, Variant, Variants};
pub(crate) use vma::{
    VM_ACCESS_FLAGS, VM_SPECIAL, VM_STACK_INCOMPLETE_SETUP, can_madv_dontneed_vma,
};
pub(crate) use vma_adjust::Bounds;
pub(crate) use vma_merge::{MergeRequest, NewHalf};
