//! Machines: topology and costs, each number with its source.
//!
//! Sources: **C2C**, the core-to-core-latency tables (round trip / 2 of a compare-exchange
//! ping-pong, n. viennot, MIT); **XPERF**, page-fault entry on a Xeon E5 v3 (lastweek.io, "xperf");
//! **VT**, a study of ebizzy in virtual time for this project, which says which of its values were
//! only assumed; **LMB**, LMBench on POWER8 (AnandTech 10435). `docs/cost-model.md` has the table.

use crate::events::{Cost, NR_COSTS};

/// How far apart two CPUs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Distance {
    /// The line is in the CPU's own cache.
    Own = 0,
    /// Another thread of the same core.
    Core = 1,
    Socket = 2,
    Machine = 3,
}

/// A machine. All times in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub name: &'static str,
    /// The arch profile that it runs unless told otherwise.
    pub arch: &'static str,
    pub sockets: u32,
    pub cores_per_socket: u32,
    pub smt: u32,
    /// CPUs n and n + 1 are threads of one core (POWER); otherwise all first threads come first.
    pub threads_adjacent: bool,
    /// An access by [`Distance`] of the line.
    pub line_ns: [u64; 4],
    /// What a locked read-modify-write adds.
    pub atomic_ns: u64,
    /// Work that is no access, in the order of [`Cost`].
    pub cost_ns: [u64; NR_COSTS],
    /// TLB flushes are broadcast by an instruction, not sent as interrupts.
    pub broadcast_flush: bool,
    /// Sending a flush, each further target, and what a target loses.
    pub ipi_base_ns: u64,
    pub ipi_target_ns: u64,
    pub ipi_handler_ns: u64,
    /// From a wake-up to the first instruction of the woken task, and the share of it (percent)
    /// by which it varies either way.
    pub wakeup_ns: u64,
    pub wakeup_jitter: u64,
    /// What each woken task costs its waker.
    pub waker_ns: u64,
    /// How long a task keeps a CPU that others wait for.
    pub slice_ns: u64,
    /// Which numbers are assumed, and where the others are from.
    pub source: &'static str,
}

impl Machine {
    /// The machines that come with the package.
    pub fn builtin() -> Vec<Machine> {
        vec![x86_48(), power8_1024(), power8_80(), arm64_64()]
    }

    /// How many CPUs it has.
    pub fn nr_cpus(&self) -> u32 {
        self.sockets * self.cores_per_socket * self.smt
    }

    /// What `cost` takes, in nanoseconds.
    #[inline(always)]
    pub fn cost(&self, cost: Cost) -> u64 {
        self.cost_ns[cost as usize]
    }

    /// The core and the socket that a CPU is in.
    pub fn place(&self, cpu: u32) -> (u32, u32) {
        let core = if self.threads_adjacent {
            cpu / self.smt
        } else {
            cpu % (self.sockets * self.cores_per_socket)
        };
        (core, core / self.cores_per_socket)
    }

    /// How far apart two CPUs are.
    pub fn distance(&self, one: u32, other: u32) -> Distance {
        let (here, there) = (self.place(one), self.place(other));
        if one == other {
            Distance::Own
        } else if here.0 == there.0 {
            Distance::Core
        } else if here.1 == there.1 {
            Distance::Socket
        } else {
            Distance::Machine
        }
    }
}

/// Costs in the order of [`Cost`].
struct Costs {
    fault: u64,
    syscall: u64,
    clear_page: u64,
    copy_page: u64,
    zap_page: u64,
    tlb_fill: u64,
    user_access: u64,
    flush_local: u64,
    slab: u64,
    task_setup: u64,
    read_page: u64,
    swap_io: u64,
    swap_transfer: u64,
    swap_copy: u64,
}

impl Costs {
    const fn table(&self) -> [u64; NR_COSTS] {
        [
            self.fault,
            self.syscall,
            self.clear_page,
            self.copy_page,
            self.zap_page,
            self.tlb_fill,
            self.user_access,
            self.flush_local,
            self.slab,
            self.task_setup,
            self.read_page,
            self.swap_io,
            self.swap_transfer,
            self.swap_copy,
        ]
    }
}

/// Two sockets of 12 cores with two threads each, about 2019: the founding document's x86 node,
/// whose type it does not name.
fn x86_48() -> Machine {
    Machine {
        name: "x86-48",
        arch: "x86",
        sockets: 2,
        cores_per_socket: 12,
        smt: 2,
        threads_adjacent: false,
        line_ns: [1, 8, 45, 120],
        atomic_ns: 6,
        cost_ns: Costs {
            fault: 450,
            syscall: 150,
            clear_page: 350,
            copy_page: 500,
            zap_page: 55,
            tlb_fill: 10,
            user_access: 1,
            flush_local: 100,
            slab: 40,
            task_setup: 20_000,
            read_page: 100_000,
            swap_io: 100_000,
            swap_transfer: 2_000,
            swap_copy: 4_000,
        }
        .table(),
        broadcast_flush: false,
        ipi_base_ns: 1_000,
        ipi_target_ns: 300,
        ipi_handler_ns: 1_000,
        wakeup_ns: 15_000,
        wakeup_jitter: 50,
        waker_ns: 1_500,
        slice_ns: 3_000_000,
        source: "lines of a Xeon E5-2680 v4 and fault entry of a Xeon E5 v3, both measured; topology \
                 and all else chosen or assumed: docs/cost-model.md",
    }
}

/// The founding document's POWER8 VM, taken as 128 cores with eight threads each.
fn power8_1024() -> Machine {
    Machine {
        name: "power8-1024",
        arch: "powerpc",
        sockets: 16,
        cores_per_socket: 8,
        smt: 8,
        threads_adjacent: true,
        line_ns: [1, 10, 170, 350],
        atomic_ns: 10,
        cost_ns: Costs {
            fault: 600,
            syscall: 100,
            clear_page: 4_000,
            copy_page: 5_500,
            zap_page: 90,
            tlb_fill: 60,
            user_access: 1,
            flush_local: 100,
            slab: 60,
            task_setup: 30_000,
            read_page: 150_000,
            swap_io: 100_000,
            swap_transfer: 32_000,
            swap_copy: 60_000,
        }
        .table(),
        broadcast_flush: true,
        ipi_base_ns: 400,
        ipi_target_ns: 0,
        ipi_handler_ns: 0,
        wakeup_ns: 35_000,
        wakeup_jitter: 50,
        waker_ns: 700,
        slice_ns: 3_000_000,
        source: "loads as LMBench measured them on POWER8, system call 307 cycles (N. Piggin); topology \
                 and all else chosen or assumed: docs/cost-model.md",
    }
}

/// The 80-CPU POWER8 of the v11 results: ten cores with eight threads.
fn power8_80() -> Machine {
    Machine {
        name: "power8-80",
        sockets: 2,
        cores_per_socket: 5,
        wakeup_ns: 20_000,
        ..power8_1024()
    }
}

/// An arm64 server of 64 cores on one die.
fn arm64_64() -> Machine {
    Machine {
        name: "arm64-64",
        arch: "arm64",
        sockets: 1,
        cores_per_socket: 64,
        smt: 1,
        threads_adjacent: true,
        line_ns: [1, 47, 47, 47],
        broadcast_flush: true,
        ipi_base_ns: 300,
        ipi_target_ns: 0,
        ipi_handler_ns: 0,
        source: "lines of a Graviton2, measured core to core; all else as x86-48, assumed: \
                 docs/cost-model.md",
        ..x86_48()
    }
}
