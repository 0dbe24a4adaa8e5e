//! Operations as they are asked of the host, and its numbers for the format's.

use spfemu_core::program::Start;

use super::tracer::Access;

/// An address as a program says it: a number, or an id and an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub id: Option<u32>,
    pub offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub at: At,
    pub length: u64,
}

/// A call about the mappings in a range that may have holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeCall {
    Munmap,
    /// With `PROT_*`.
    Mprotect(u64),
    /// With `MADV_*`.
    Madvise(u64),
    Mlock {
        onfault: bool,
    },
    Munlock,
    Mbind {
        mode: u64,
        nodes: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mmap {
    pub hint: Option<At>,
    pub length: u64,
    /// `PROT_*`.
    pub prot: u64,
    /// `MAP_*`.
    pub flags: u64,
    pub file: Option<u32>,
    pub offset: u64,
    pub id: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mremap {
    pub range: Range,
    pub new_length: u64,
    /// `MREMAP_*`.
    pub flags: u64,
    pub target: Option<At>,
    pub id: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    pub access: Access,
    pub user: bool,
    pub order: Order,
    pub range: Range,
    pub stride: u64,
    pub seed: u64,
    pub value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Forward,
    Backward,
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Rounds at most.
    pub count: u64,
    /// No new round once this much time has passed; 0: no such limit.
    pub for_ns: u64,
    /// Index of the closing bracket.
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Mmap(Mmap),
    Range(RangeCall, Range),
    Mremap(Mremap),
    SetMempolicy {
        mode: u64,
        nodes: u64,
    },
    Brk {
        delta: i64,
        id: Option<u32>,
        start: Option<u64>,
    },
    Fork {
        child: u32,
        wait: bool,
    },
    Vfork {
        child: u32,
        wait: bool,
    },
    Wait {
        child: u32,
    },
    Clone {
        child: u32,
    },
    Exec {
        brk_start: Option<u64>,
    },
    Exit,
    Access {
        access: Access,
        user: bool,
        at: At,
        value: u64,
    },
    Touch(Touch),
    /// `compute` and `sleep`: time is the host's own.
    Pause,
    Barrier {
        name: u32,
    },
    Post {
        name: u32,
    },
    Await {
        name: u32,
    },
    Repeat(Repeat),
    End {
        repeat: usize,
    },
    Note,
    Truncate {
        file: u32,
        length: u64,
    },
}

/// One task.
#[derive(Debug)]
pub struct TaskProgram {
    pub start: Start,
    /// With the number of the operation in the array form.
    pub ops: Vec<(Op, u16)>,
}

pub const MMAP_FLAGS: [i32; 11] = [
    libc::MAP_PRIVATE,
    libc::MAP_SHARED,
    libc::MAP_ANONYMOUS,
    libc::MAP_FIXED,
    libc::MAP_FIXED_NOREPLACE,
    libc::MAP_POPULATE,
    libc::MAP_LOCKED,
    libc::MAP_NORESERVE,
    libc::MAP_STACK,
    libc::MAP_GROWSDOWN,
    libc::MAP_HUGETLB,
];

/// `MREMAP_DONTUNMAP`, of 5.7, is the third.
pub const MREMAP_FLAGS: [i32; 3] = [libc::MREMAP_MAYMOVE, libc::MREMAP_FIXED, 4];

pub const ADVICES: [i32; 20] = [
    libc::MADV_DONTNEED,
    libc::MADV_FREE,
    libc::MADV_WILLNEED,
    libc::MADV_NORMAL,
    libc::MADV_RANDOM,
    libc::MADV_SEQUENTIAL,
    libc::MADV_HUGEPAGE,
    libc::MADV_NOHUGEPAGE,
    libc::MADV_DONTFORK,
    libc::MADV_DOFORK,
    libc::MADV_WIPEONFORK,
    libc::MADV_KEEPONFORK,
    libc::MADV_DONTDUMP,
    libc::MADV_DODUMP,
    libc::MADV_MERGEABLE,
    libc::MADV_UNMERGEABLE,
    libc::MADV_PAGEOUT,
    libc::MADV_COLD,
    libc::MADV_POPULATE_READ,
    libc::MADV_POPULATE_WRITE,
];

pub const POLICIES: [i32; 5] = [
    libc::MPOL_DEFAULT,
    libc::MPOL_BIND,
    libc::MPOL_INTERLEAVE,
    libc::MPOL_PREFERRED,
    libc::MPOL_LOCAL,
];
