//! The numbers that describe a machine: their names, units, ranges, and where virtual time reads
//! them. A new one needs a line here, and a value in each profile that inherits from no other.

use std::ops::RangeInclusive;

use super::machine::{Distance, Machine};
use crate::events::Cost;

/// What no table holds: of a machine these alone may be fitted to a published result.
pub const FITTABLE: [&str; 2] = ["zap_page_ns", "wakeup_ns"];

/// CPUs that a machine may have.
pub const MAX_CPUS: u64 = 4096;

/// What a value is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Count,
    /// True or false: 1 or 0.
    Flag,
    Nanoseconds,
    Percent,
}

impl Unit {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Count => "",
            Unit::Flag => "flag",
            Unit::Nanoseconds => "ns",
            Unit::Percent => "%",
        }
    }
}

/// One number of a machine.
pub struct Field {
    pub name: &'static str,
    pub unit: Unit,
    pub what: &'static str,
    pub allowed: RangeInclusive<u64>,
    /// The count that makes the number matter when it is above 1.
    pub needs: Option<&'static str>,
    set: fn(&mut Machine, u64),
}

impl Field {
    /// Puts the value where virtual time reads it.
    pub fn set(&self, machine: &mut Machine, value: u64) {
        (self.set)(machine, value);
    }

    /// Where it is in [`FIELDS`].
    pub fn index(name: &str) -> Option<usize> {
        FIELDS.iter().position(|field| field.name == name)
    }
}

const SECOND: u64 = 1_000_000_000;

const fn count(name: &'static str, what: &'static str, set: fn(&mut Machine, u64)) -> Field {
    Field { name, unit: Unit::Count, what, allowed: 1..=MAX_CPUS, needs: None, set }
}

const fn flag(
    name: &'static str,
    needs: Option<&'static str>,
    what: &'static str,
    set: fn(&mut Machine, u64),
) -> Field {
    Field { name, unit: Unit::Flag, what, allowed: 0..=1, needs, set }
}

const fn line(
    name: &'static str,
    needs: Option<&'static str>,
    what: &'static str,
    set: fn(&mut Machine, u64),
) -> Field {
    Field { name, unit: Unit::Nanoseconds, what, allowed: 1..=SECOND, needs, set }
}

const fn time(name: &'static str, what: &'static str, set: fn(&mut Machine, u64)) -> Field {
    Field { name, unit: Unit::Nanoseconds, what, allowed: 0..=SECOND, needs: None, set }
}

macro_rules! cost {
    ($name:literal, $cost:ident, $what:literal) => {
        time($name, $what, |machine, value| machine.cost_ns[Cost::$cost as usize] = value)
    };
}

macro_rules! line {
    ($name:literal, $distance:ident, $needs:expr, $what:literal) => {
        line($name, $needs, $what, |machine, value| {
            machine.line_ns[Distance::$distance as usize] = value;
        })
    };
}

/// All of them, in the order in which they are shown.
pub static FIELDS: &[Field] = &[
    count("sockets", "sockets of the machine", |m, n| m.sockets = n as u32),
    count(
        "dies_per_socket",
        "dies of a socket, or clusters: cores that share a last-level cache",
        |m, n| {
            m.dies_per_socket = n as u32;
        },
    ),
    count("cores_per_die", "cores of a die", |m, n| m.cores_per_die = n as u32),
    count("threads_per_core", "hardware threads of a core", |m, n| m.threads_per_core = n as u32),
    flag(
        "threads_adjacent",
        Some("threads_per_core"),
        "CPUs n and n + 1 are threads of one core; otherwise all first threads come first",
        |m, n| m.threads_adjacent = n != 0,
    ),
    line!("line_own_ns", Own, None, "access to a line in the CPU's own cache"),
    line!(
        "line_core_ns",
        Core,
        Some("threads_per_core"),
        "access to a line that another thread of the core has"
    ),
    line!(
        "line_die_ns",
        Die,
        Some("cores_per_die"),
        "access to a line that another core of the die has"
    ),
    line!(
        "line_socket_ns",
        Socket,
        Some("dies_per_socket"),
        "access to a line that another die of the socket has"
    ),
    line!("line_machine_ns", Machine, Some("sockets"), "access to a line that another socket has"),
    flag(
        "adjacent_line_prefetch",
        None,
        "a line that comes brings a copy of the other one of its pair, of 128 bytes",
        |m, n| m.adjacent_line_prefetch = n != 0,
    ),
    time(
        "atomic_ns",
        "what a locked read-modify-write adds to an access that stays in the cache",
        |m, ns| m.atomic_ns = ns,
    ),
    cost!("fault_ns", FaultEntryExit, "exception, entry and exit of the fault handler"),
    cost!("syscall_ns", SyscallEntryExit, "a system call's entry and exit"),
    cost!("clear_page_ns", ClearPage, "zeroing a page of the machine's arch"),
    cost!("copy_page_ns", CopyPage, "copying a page"),
    cost!("charge_page_ns", ChargePage, "allocating, charging and mapping an anonymous page"),
    cost!("zap_page_ns", ZapPage, "taking a page out of the page table: accounting, rmap, batch"),
    cost!("tlb_fill_ns", TlbFill, "a TLB miss that the walker resolves from the cache"),
    cost!("user_access_ns", UserAccess, "the user's access itself"),
    cost!("flush_local_ns", TlbFlushLocal, "flushing the CPU's own TLB"),
    cost!("slab_ns", SlabAlloc, "an object from a slab"),
    cost!("task_setup_ns", TaskSetup, "setting up a task: fork, clone, exec, exit"),
    cost!("read_page_ns", ReadPage, "reading a page of a file that is not cached, off the CPU"),
    cost!("swap_io_ns", SwapIo, "a request to a swap device, off the CPU"),
    cost!("swap_transfer_ns", SwapTransfer, "each page of such a request"),
    cost!("swap_copy_ns", SwapCopy, "a page to or from a synchronous swap device, by the CPU"),
    flag(
        "broadcast_flush",
        None,
        "TLBs are flushed by an instruction that every CPU sees; otherwise by interrupts",
        |m, n| m.broadcast_flush = n != 0,
    ),
    time("ipi_base_ns", "flushing other CPUs' TLBs: sending", |m, ns| m.ipi_base_ns = ns),
    time("ipi_target_ns", "flushing other CPUs' TLBs: each target, for the sender", |m, ns| {
        m.ipi_target_ns = ns;
    }),
    time(
        "ipi_handler_ns",
        "flushing other CPUs' TLBs: what a run of the handler takes on each target",
        |m, ns| {
            m.ipi_handler_ns = ns;
        },
    ),
    time("wakeup_ns", "from a wake-up to the woken task's first instruction", |m, ns| {
        m.wakeup_ns = ns
    }),
    Field {
        name: "wakeup_jitter_percent",
        unit: Unit::Percent,
        what: "how much of that it varies either way",
        allowed: 0..=100,
        needs: None,
        set: |m, percent| m.wakeup_jitter = percent,
    },
    time(
        "idle_exit_ns",
        "what of a wake-up is leaving the idle state: not if another task is on the CPU",
        |m, ns| {
            m.idle_exit_ns = ns;
        },
    ),
    time("waker_ns", "what each woken task costs its waker", |m, ns| m.waker_ns = ns),
    Field {
        name: "slice_ns",
        unit: Unit::Nanoseconds,
        what: "how long a task keeps a CPU that others wait for",
        allowed: 1_000..=SECOND,
        needs: None,
        set: |m, ns| m.slice_ns = ns,
    },
];
