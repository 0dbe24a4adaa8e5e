//! Counters under perf's names, what tracepoints record, and the costs that virtual time charges.
//! Data for all layers.

mod course;
mod trace;

pub use course::{Course, LockCount, Span};
pub use trace::{Trace, TraceEntry};

/// What is counted. Source: SPF_V12 section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Event {
    /// perf `faults`: once for each hardware fault.
    Faults,
    MinorFaults,
    MajorFaults,
    /// perf `spf`: the architecture accepted a speculative result (P25).
    Spf,
    SpfVmaChanged,
    /// Defined by v12, never emitted.
    SpfVmaNoanon,
    SpfVmaNotsup,
    SpfVmaAccess,
    SpfPmdChanged,
    /// vmstat `speculative_pgfault` (P27).
    SpeculativePgfault,
    /// vmstat `pgfault`: classic faults only.
    Pgfault,
    /// vmstat `pgmajfault`.
    Pgmajfault,
}

/// Number of [`Event`]s.
pub const NR_EVENTS: usize = 12;

/// perf's names, in the order of [`Event`].
pub const EVENT_NAMES: [&str; NR_EVENTS] = [
    "faults",
    "minor-faults",
    "major-faults",
    "spf",
    "pagefault:spf_vma_changed",
    "pagefault:spf_vma_noanon",
    "pagefault:spf_vma_notsup",
    "pagefault:spf_vma_access",
    "pagefault:spf_pmd_changed",
    "speculative_pgfault",
    "pgfault",
    "pgmajfault",
];

/// Work that is not an access to a shared word; virtual time knows what each costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cost {
    /// Hardware exception, entry and exit of the fault handler.
    FaultEntryExit,
    /// A system call's entry and exit.
    SyscallEntryExit,
    /// Zeroing one page.
    ClearPage,
    /// Copying one page.
    CopyPage,
    /// What an anonymous page's first mapping costs besides its content: taking it from the
    /// allocator, the memory cgroup's charge, rmap, LRU.
    ChargePage,
    /// Taking one page out of the page table: accounting, rmap, batch.
    ZapPage,
    /// A TLB miss that the hardware walker resolves from the cache.
    TlbFill,
    /// The user's access itself.
    UserAccess,
    /// Flushing this CPU's own TLB.
    TlbFlushLocal,
    /// Allocating an object from a slab.
    SlabAlloc,
    /// Setting up a task: fork, clone, exec, exit.
    TaskSetup,
    /// Reading one page of a file from its device; off the CPU.
    ReadPage,
    /// One request to a normal swap device, from its submission to its interrupt.
    SwapIo,
    /// Each page of such a request.
    SwapTransfer,
    /// One page to or from a synchronous swap device, by the CPU.
    SwapCopy,
}

/// Number of [`Cost`]s.
pub const NR_COSTS: usize = 15;
