//! Memory management: address spaces, VMAs, page tables, page frames, files, the TLB.

mod kernel;
mod objects;
mod page;
mod tlb;
mod types;
pub mod variants;

pub use kernel::{Config, Kernel, PerCpu, System, TaskStruct};
pub use objects::{
    AnonVma, AnonVmaChain, AnonVmaRef, AvcRef, Inode, InodeRef, Mm, MmRef, Page, PageRef, Table,
    TableRef, VmOps, Vma, VmaRef,
};
pub use types::{Access, Errno, FaultCode, FaultFlags, Pte, Signal, Vaddr, VmFault, VmFlags};
pub use variants::{Choice, Variant, Variants};
