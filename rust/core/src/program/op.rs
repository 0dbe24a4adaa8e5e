//! Operations, decoded and checked: what the interpreter executes.

use crate::mm::{Access, MpolMode, VmFlags};
use crate::ops::exec::ExecArgs;
use crate::ops::madvise::Advice;
use crate::ops::mmap::MapFlags;
use crate::ops::mremap::RemapFlags;
use crate::platform::TaskId;

/// `stack_shift` at most: what `randomize_stack_top()` of x86-64 draws from.
pub(super) const MAX_STACK_SHIFT: u64 = 16 << 30;

/// Flag bit: the optional address is given.
pub(super) const GIVEN: u32 = 1 << 31;

/// An address as a program says it: a number, or an id and an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    /// The id's number, or negative.
    pub(super) base: i32,
    pub(super) offset: i64,
}

impl At {
    pub fn id(self) -> Option<u32> {
        u32::try_from(self.base).ok()
    }
    /// The address, where the id (if there is one) names `base`.
    pub fn resolve(self, base: u64) -> u64 {
        base.wrapping_add_signed(self.offset)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub at: At,
    pub length: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mmap {
    pub hint: Option<At>,
    pub length: u64,
    pub prot: VmFlags,
    pub flags: MapFlags,
    /// Index of the file.
    pub file: Option<u32>,
    pub offset: u64,
    pub id: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mremap {
    pub at: At,
    pub old_length: u64,
    pub new_length: u64,
    pub flags: RemapFlags,
    /// A number, 0, unless it is given.
    pub to: At,
    pub id: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OneAccess {
    pub access: Access,
    /// False: the kernel makes it on the task's behalf.
    pub user: bool,
    pub at: At,
    pub value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TouchOrder {
    Forward,
    Backward,
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    pub access: Access,
    pub user: bool,
    pub order: TouchOrder,
    pub range: Range,
    /// Bytes from one access to the next; 0: a page.
    pub stride: u64,
    pub seed: u64,
    pub value: u64,
}

impl Touch {
    /// How many accesses it is.
    pub fn nr_accesses(&self, page_size: u64) -> u64 {
        let stride = if self.stride == 0 { page_size } else { self.stride };
        self.range.length.div_ceil(stride)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// Rounds at most.
    pub count: u64,
    /// No new round once this much time has passed; 0: no such limit.
    pub for_ns: u64,
    /// Index of the closing bracket.
    pub end: u32,
    /// Which repeat of the task it is.
    pub ordinal: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sysctl {
    SpeculativePageFault,
    PageCluster,
    MaxMapCount,
}

impl Sysctl {
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "vm.speculative_page_fault" => Some(Self::SpeculativePageFault),
            "vm.page-cluster" => Some(Self::PageCluster),
            "vm.max_map_count" => Some(Self::MaxMapCount),
            _ => None,
        }
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Mmap(Mmap),
    Munmap(Range),
    Mprotect(Range, VmFlags),
    Mremap(Mremap),
    Madvise(Range, Advice),
    Mlock { range: Range, onfault: bool },
    Munlock(Range),
    Mbind { range: Range, mode: MpolMode, nodes: u64 },
    SetMempolicy { mode: MpolMode, nodes: u64 },
    Brk { delta: i64, id: Option<u32>, start: Option<u64> },
    Fork { child: TaskId, wait: bool },
    Vfork { child: TaskId, wait: bool },
    Wait { child: TaskId },
    Clone { child: TaskId },
    Exec(ExecArgs),
    Exit,
    Access(OneAccess),
    Touch(Touch),
    Compute { ns: u64 },
    Sleep { ns: u64 },
    Barrier { name: u32 },
    Post { name: u32 },
    Await { name: u32 },
    Repeat(Repeat),
    End { repeat: u32 },
    Sysctl { which: Sysctl, value: i64 },
    Note,
    SwapOut { range: Range, keep_cache: bool },
    Migrate { range: Range, node: u64 },
    Collapse(At),
    NumaScan(Range),
    Truncate { file: u32, length: u64 },
    ClearRefs { what: u64 },
    KsmScan(Range),
    OomReap,
    Rebind { nodes: u64 },
    Notifier { on: bool },
    Userfaultfd { range: Range, register: bool },
}

impl Op {
    /// Its number in the array form.
    pub fn code(&self) -> u16 {
        match self {
            Self::Mmap(_) => 1,
            Self::Munmap(_) => 2,
            Self::Mprotect(..) => 3,
            Self::Mremap(_) => 4,
            Self::Madvise(..) => 5,
            Self::Mlock { .. } => 6,
            Self::Munlock(_) => 7,
            Self::Mbind { .. } => 8,
            Self::SetMempolicy { .. } => 9,
            Self::Brk { .. } => 10,
            Self::Fork { .. } => 11,
            Self::Vfork { .. } => 12,
            Self::Wait { .. } => 13,
            Self::Clone { .. } => 14,
            Self::Exec(_) => 15,
            Self::Exit => 16,
            Self::Access(OneAccess { access: Access::Read, .. }) => 17,
            Self::Access(OneAccess { access: Access::Write, .. }) => 18,
            Self::Access(OneAccess { access: Access::Execute, .. }) => 19,
            Self::Touch(_) => 20,
            Self::Compute { .. } => 21,
            Self::Sleep { .. } => 22,
            Self::Barrier { .. } => 23,
            Self::Post { .. } => 24,
            Self::Await { .. } => 25,
            Self::Repeat(_) => 26,
            Self::End { .. } => 27,
            Self::Sysctl { .. } => 28,
            Self::Note => 29,
            Self::SwapOut { .. } => 30,
            Self::Migrate { .. } => 35,
            Self::Collapse(_) => 31,
            Self::NumaScan(_) => 32,
            Self::Truncate { .. } => 36,
            Self::ClearRefs { .. } => 34,
            Self::KsmScan(_) => 33,
            Self::OomReap => 37,
            Self::Rebind { .. } => 38,
            Self::Notifier { .. } => 39,
            Self::Userfaultfd { register: true, .. } => 40,
            Self::Userfaultfd { register: false, .. } => 41,
        }
    }

    /// Its name in the program format.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mmap(_) => "mmap",
            Self::Munmap(_) => "munmap",
            Self::Mprotect(..) => "mprotect",
            Self::Mremap(_) => "mremap",
            Self::Madvise(..) => "madvise",
            Self::Mlock { .. } => "mlock",
            Self::Munlock(_) => "munlock",
            Self::Mbind { .. } => "mbind",
            Self::SetMempolicy { .. } => "set_mempolicy",
            Self::Brk { .. } => "brk",
            Self::Fork { .. } => "fork",
            Self::Vfork { .. } => "vfork",
            Self::Wait { .. } => "wait",
            Self::Clone { .. } => "clone",
            Self::Exec(_) => "exec",
            Self::Exit => "exit",
            Self::Access(OneAccess { access: Access::Read, .. }) => "read",
            Self::Access(OneAccess { access: Access::Write, .. }) => "write",
            Self::Access(OneAccess { access: Access::Execute, .. }) => "execute",
            Self::Touch(_) => "touch",
            Self::Compute { .. } => "compute",
            Self::Sleep { .. } => "sleep",
            Self::Barrier { .. } => "barrier",
            Self::Post { .. } => "post",
            Self::Await { .. } => "await",
            Self::Repeat(_) => "repeat",
            Self::End { .. } => "end",
            Self::Sysctl { .. } => "sysctl",
            Self::Note => "note",
            Self::SwapOut { .. } => "swap_out",
            Self::Migrate { .. } => "migrate",
            Self::Collapse(_) => "collapse",
            Self::NumaScan(_) => "numa_scan",
            Self::Truncate { .. } => "truncate",
            Self::ClearRefs { .. } => "clear_refs",
            Self::KsmScan(_) => "ksm_scan",
            Self::OomReap => "oom_reap",
            Self::Rebind { .. } => "rebind",
            Self::Notifier { .. } => "notifier",
            Self::Userfaultfd { register: true, .. } => "uffd_register",
            Self::Userfaultfd { register: false, .. } => "uffd_unregister",
        }
    }

    /// Whether it touches nothing but the program's own synchronisation.
    pub fn is_synchronisation(&self) -> bool {
        matches!(
            self,
            Self::Wait { .. } | Self::Barrier { .. } | Self::Post { .. } | Self::Await { .. }
        )
    }

    /// Whether it can move a page to the swap device.
    pub fn swaps_out(&self) -> bool {
        matches!(self, Self::SwapOut { .. } | Self::Madvise(_, Advice::Pageout))
    }

    /// The id that must be set before the operation can begin: that of its (first) address.
    pub fn awaited_id(&self) -> Option<u32> {
        match self {
            Self::Mmap(mmap) => mmap.hint.and_then(At::id),
            Self::Mremap(mremap) => mremap.at.id(),
            Self::Munmap(range)
            | Self::Mprotect(range, _)
            | Self::Madvise(range, _)
            | Self::Mbind { range, .. }
            | Self::NumaScan(range)
            | Self::KsmScan(range)
            | Self::SwapOut { range, .. }
            | Self::Mlock { range, .. }
            | Self::Migrate { range, .. }
            | Self::Munlock(range)
            | Self::Userfaultfd { range, .. } => range.at.id(),
            Self::Access(access) => access.at.id(),
            Self::Touch(touch) => touch.range.at.id(),
            Self::Collapse(at) => at.id(),
            _ => None,
        }
    }

    /// The id of its second address, if it has one.
    pub fn second_id(&self) -> Option<u32> {
        match self {
            Self::Mremap(mremap) => mremap.to.id(),
            _ => None,
        }
    }

    /// The operation with its second address as a number, where the id names `base`.
    pub fn with_second(self, base: u64) -> Self {
        match self {
            Self::Mremap(mremap) => {
                let to = At { base: -1, offset: mremap.to.resolve(base) as i64 };
                Self::Mremap(Mremap { to, ..mremap })
            }
            other => other,
        }
    }
}
