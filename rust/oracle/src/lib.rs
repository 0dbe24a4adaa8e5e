//! The host's own kernel as an oracle: it runs a program with real system calls.
//!
//! The program's tasks are threads of child processes that this thread traces (`ptrace(2)`). Each
//! process holds one page of code of ours and nothing else, see `host/island.rs`; an operation is a stopped
//! thread that gets the registers of a system call, or of one instruction that reads, writes or
//! executes, and runs until it stops again. So nothing of ours runs in the child, no handler is
//! needed to see a signal, the address space is as empty as the format says, and whatever a program
//! does to itself, its tracer only sees a status.
//!
//! Operations run one at a time: the tasks go in file order, each until it waits or ends, as the
//! reference has it.
//!
//! Source: ours; `ptrace(2)`, `perf_event_open(2)`, `prctl(2)`, `elf(5)`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host;

use std::time::Duration;

use spfemu_core::program::RunResult;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The program cannot run here: what it says, and what is allowed.
    Program(String),
    /// The host does not let us, or the run went wrong.
    Host(String),
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Everything is killed after this time.
    pub timeout: Duration,
    /// Where the faults of an access are read.
    pub counting: Counting,
    /// The most memory that the processes may have together, bytes; `None`: half of what the host
    /// has available.
    pub max_memory: Option<u64>,
}

/// Where the faults of an access are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// [`Counting::Perf`] if the host permits it, else [`Counting::PerfUser`], else
    /// [`Counting::Stat`].
    Best,
    /// perf's software event: each fault, whatever comes of it.
    Perf,
    /// The same without faults in the kernel, which only privileged users may count by default.
    PerfUser,
    /// `min_flt` and `maj_flt` of `/proc/PID/stat`: faults that were settled.
    Stat,
}

/// What a run came to, and how it was made.
#[derive(Clone, Debug)]
pub struct HostRun {
    pub result: RunResult,
    /// Never [`Counting::Best`].
    pub counting: Counting,
    /// Where our page lay, which the program could not use.
    pub island: u64,
    /// Whose outcomes came after each other: task, and how many in a row.
    pub turns: Vec<(u32, u64)>,
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use host::run;

/// There is no host kernel that this crate knows how to drive.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub fn run(
    _spec: &spfemu_core::program::ProgramSpec<'_>,
    _settings: &Settings,
    _watch: &spfemu_core::program::Watch,
) -> Result<HostRun, Error> {
    Err(Error::Host("engine kernel runs on Linux on x86-64 only".to_owned()))
}
