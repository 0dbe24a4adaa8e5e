//! A machine as virtual time reads it: topology and costs. What is known of each number, and which
//! there may be, is in [`super::profile`].

use crate::events::{Cost, NR_COSTS};

/// How far apart two CPUs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Distance {
    /// The line is in the CPU's own cache.
    Own = 0,
    /// Another thread of the same core.
    Core = 1,
    /// Another core that shares the last-level cache.
    Die = 2,
    /// Another die of the same socket.
    Socket = 3,
    Machine = 4,
}

/// Number of [`Distance`]s.
pub const NR_DISTANCES: usize = 5;

const DISTANCES: [Distance; NR_DISTANCES] =
    [Distance::Own, Distance::Core, Distance::Die, Distance::Socket, Distance::Machine];

/// A machine. All times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub name: String,
    /// The arch profile that it runs unless told otherwise.
    pub arch: String,
    pub sockets: u32,
    /// Dies, or clusters: the cores that share a last-level cache.
    pub dies_per_socket: u32,
    pub cores_per_die: u32,
    pub threads_per_core: u32,
    /// CPUs n and n + 1 are threads of one core (POWER); otherwise all first threads come first.
    pub threads_adjacent: bool,
    /// An access by [`Distance`] of the line. A distance that the topology does not have costs
    /// what the next nearer one does.
    pub line_ns: [u64; NR_DISTANCES],
    /// A line that comes brings a copy of the other one of its pair.
    pub adjacent_line_prefetch: bool,
    /// What a locked read-modify-write adds to an access of a line that is here.
    pub atomic_ns: u64,
    /// Work that is no access, in the order of [`Cost`].
    pub cost_ns: [u64; NR_COSTS],
    /// TLBs are flushed by an instruction that every CPU sees, not by interrupts.
    pub broadcast_flush: bool,
    /// Sending a flush, each target, and what its handler takes.
    pub ipi_base_ns: u64,
    pub ipi_target_ns: u64,
    pub ipi_handler_ns: u64,
    /// From a wake-up to the first instruction of the woken task, and the share of it (percent)
    /// by which it varies either way.
    pub wakeup_ns: u64,
    pub wakeup_jitter: u64,
    /// What of that it takes to leave the idle state: not paid where the CPU is at work.
    pub idle_exit_ns: u64,
    /// What each woken task costs its waker.
    pub waker_ns: u64,
    /// How long a task keeps a CPU that others wait for.
    pub slice_ns: u64,
}

/// The core, the die and the socket that a CPU is in, each numbered through the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) core: u32,
    pub(super) die: u32,
    pub(super) socket: u32,
}

impl Machine {
    /// How many CPUs it has.
    pub fn nr_cpus(&self) -> u32 {
        self.nr_cores() * self.threads_per_core
    }

    fn nr_cores(&self) -> u32 {
        self.sockets * self.dies_per_socket * self.cores_per_die
    }

    /// What `cost` takes, in nanoseconds.
    #[inline(always)]
    pub fn cost(&self, cost: Cost) -> u64 {
        self.cost_ns[cost as usize]
    }

    /// How often a nearer CPU gets a line before the one that waits longest: so many times as a
    /// line goes from core to core while a request comes from the farthest.
    pub fn near_first(&self) -> u32 {
        (self.line_ns[Distance::Machine as usize] / self.line_ns[Distance::Die as usize]) as u32
    }

    /// The CPU of the machine that is the `nth` of those that take part: the first ones, or those over
    /// which tasks are spread.
    pub(super) fn cpu(&self, nth: u32, spreads: bool) -> u32 {
        if spreads { self.spread(nth) } else { nth }
    }

    /// The CPU that gets the `nth` task when they are spread, as Linux's scheduler spreads those that
    /// are new: over sockets, then dies, then cores, and threads of a core last.
    pub fn spread(&self, nth: u32) -> u32 {
        let (thread, nth) = (nth / self.nr_cores(), nth % self.nr_cores());
        let (socket, nth) = (nth % self.sockets, nth / self.sockets);
        let (die, nth) = (nth % self.dies_per_socket, nth / self.dies_per_socket);
        let core = (socket * self.dies_per_socket + die) * self.cores_per_die + nth;
        if self.threads_adjacent {
            core * self.threads_per_core + thread
        } else {
            thread * self.nr_cores() + core
        }
    }

    /// Where a CPU is.
    pub fn place(&self, cpu: u32) -> Place {
        let core =
            if self.threads_adjacent { cpu / self.threads_per_core } else { cpu % self.nr_cores() };
        let die = core / self.cores_per_die;
        Place { core, die, socket: die / self.dies_per_socket }
    }

    /// Where a CPU is, in one number.
    pub(super) fn spot(&self, cpu: u32) -> Spot {
        let Place { core, die, socket } = self.place(cpu);
        let levels = [socket, die, core, cpu];
        Spot(levels.into_iter().fold(0, |whole, level| whole << SPOT_BITS | u64::from(level)))
    }

    /// How far apart two CPUs are.
    pub fn distance(&self, one: u32, other: u32) -> Distance {
        self.spot(one).distance(self.spot(other))
    }
}

/// Bits of each part of a [`Spot`].
const SPOT_BITS: u32 = 16;

/// Where a CPU is: its socket, die and core and itself, [`SPOT_BITS`] each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot(u64);

impl Spot {
    /// In how many of the four two CPUs differ, for who differs in one does in all that follow.
    #[inline(always)]
    pub(super) fn levels(self, other: Self) -> u32 {
        let differs = u64::BITS - (self.0 ^ other.0).leading_zeros();
        differs.div_ceil(SPOT_BITS)
    }

    /// How far apart two CPUs are.
    #[inline(always)]
    pub(super) fn distance(self, other: Self) -> Distance {
        DISTANCES[self.levels(other) as usize]
    }
}
