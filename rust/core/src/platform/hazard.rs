//! What a run can be asked to let happen besides what its tasks do.

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hazard {
    /// A CPU forgets a translation that it is about to use, and walks again.
    TlbEviction,
    /// A CPU looks up a translation that its task uses later.
    TlbRefill,
    /// There is no memory for a page, a page table, an `anon_vma`, a link to one or an `mm_struct`.
    FailedAllocation,
    /// A grace period ends in the middle of an operation, and another CPU runs what waited for it.
    Softirq,
}

impl Hazard {
    pub const ALL: [Self; 4] =
        [Self::TlbEviction, Self::TlbRefill, Self::FailedAllocation, Self::Softirq];

    /// As users call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlbEviction => "tlb-eviction",
            Self::TlbRefill => "tlb-refill",
            Self::FailedAllocation => "failed-allocation",
            Self::Softirq => "softirq",
        }
    }

    /// What a timeline says of it.
    pub(crate) fn happens(self) -> &'static str {
        match self {
            Self::TlbEviction => "the TLB has lost the translation",
            Self::TlbRefill => "the CPU looks up a translation ahead of its use",
            Self::FailedAllocation => "the allocation fails",
            // A task of its own, which is chosen.
            Self::Softirq => "",
        }
    }
}
