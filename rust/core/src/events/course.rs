//! What a run writes down of itself when it is asked to: its course, and what was waited for.

/// A stretch of work of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// An operation of the program, by its name.
    Operation(&'static str),
    /// A hardware fault at this address.
    Fault(u64),
    /// An attempt without `mmap_sem`.
    Speculative,
    /// The fault under `mmap_sem`.
    Classic,
}

/// What a run wrote down of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Packed entries: `SPAN_DTYPE` of the package.
    pub spans: Vec<u8>,
    /// What the names of the entries are.
    pub span_names: Vec<String>,
    /// There was no room for what came after the last entry.
    pub is_cut: bool,
    /// By name.
    pub locks: Vec<LockCount>,
    /// The time of all tasks together, from their first operation to their end.
    pub task_ns: u64,
}

/// What came of all locks, or other words, of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockCount {
    pub name: String,
    /// How often it was taken; 0 of what is no lock.
    pub acquisitions: u64,
    /// How often somebody had to wait until it was free.
    pub contended: u64,
    /// For how long.
    pub wait_ns: u64,
    /// How often its cache line was not in the CPU's own cache.
    pub fetches: u64,
    /// What bringing it took beyond an access that hits.
    pub fetch_ns: u64,
}
