//! Memory management: address spaces, VMAs, page tables, page frames, files, the TLB.

mod change_protection;
mod counters;
mod gather;
mod invariants;
mod kernel;
mod locks;
mod objects;
mod page;
mod pgtable;
mod rmap;
mod tlb;
mod types;
pub mod variants;
mod zap;

pub use counters::Counters;
pub(crate) use gather::MmuGather;
pub use kernel::{Config, Kernel, PerCpu, System, TaskStruct};
pub use objects::{
    AnonVma, AnonVmaChain, AnonVmaRef, AvcRef, Inode, InodeRef, Mm, MmRef, Page, PageRef, Table,
    TableRef, VmOps, Vma, VmaRef,
};
pub(crate) use page::{PG_ANON, PG_CACHE, PG_UPTODATE, ZERO_PFN};
pub use pgtable::{Pmd, PteSlot};
pub(crate) use rmap::Rss;
pub use types::{Access, Errno, FaultCode, FaultFlags, Pte, Signal, Vaddr, VmFault, VmFlags};
pub use variants::{Choice, Variant, Variants};
mod standin;
