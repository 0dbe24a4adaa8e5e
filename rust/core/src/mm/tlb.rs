//! The translation look-aside buffer of each CPU, and how it is flushed.

use crate::platform::Local;

/// Entries of one CPU's TLB, direct mapped by page number.
const NR_ENTRIES: usize = 64;

/// A CPU's TLB. Only its CPU looks at it; others ask for a flush by `mm->tlb_gen` and an IPI.
pub(super) struct Tlb {
    /// `mm->tlb_gen` as of the last flush.
    generation: Local,
    entries: [Entry; NR_ENTRIES],
}

#[derive(Default)]
struct Entry {
    /// Page number + 1; 0: empty.
    tag: Local,
    pte: Local,
}

impl Tlb {
    pub(super) fn new() -> Self {
        Self { generation: Local::default(), entries: std::array::from_fn(|_| Entry::default()) }
    }

    /// Drops every translation.
    pub(super) fn reset(&self) {
        self.generation.set(0);
        self.entries.iter().for_each(|entry| entry.tag.set(0));
    }
}
