//! The system calls that a tracer makes, each behind a function that is safe to call.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

pub type Pid = libc::pid_t;
pub type Regs = libc::user_regs_struct;

/// What `waitpid` says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Exited(i32),
    Killed(i32),
    /// A signal that it would get now, and the `PTRACE_EVENT_*`, or 0.
    Stopped {
        signal: i32,
        event: i32,
    },
}

/// A signal that stopped a thread.
#[derive(Clone, Copy, Debug)]
pub struct Siginfo {
    pub code: i32,
    pub address: u64,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Waits until something happens to a thread that the calling thread traces or has started.
/// `None`: there is none.
pub fn wait_any() -> io::Result<Option<(Pid, Event)>> {
    loop {
        let mut status = 0;
        let flags = libc::__WALL | libc::__WNOTHREAD;
        // SAFETY: `status` may be written.
        let pid = unsafe { libc::waitpid(-1, &mut status, flags) };
        if pid != -1 {
            return Ok(Some((pid, event_of(status))));
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

fn event_of(status: i32) -> Event {
    if libc::WIFEXITED(status) {
        Event::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Event::Killed(libc::WTERMSIG(status))
    } else {
        Event::Stopped { signal: libc::WSTOPSIG(status), event: status >> 16 }
    }
}

/// Sends a signal to a process that the caller knows not to have been reaped.
pub fn kill(pid: Pid, signal: i32) {
    // SAFETY: no memory is involved. That it may fail for one that has just ended is no error.
    unsafe { libc::kill(pid, signal) };
}

/// A request without a result, whose two arguments are numbers.
fn request(request: libc::c_uint, pid: Pid, address: u64, data: u64) -> io::Result<()> {
    // SAFETY: of the requests that come here the kernel takes both arguments as numbers, and
    // neither reads nor writes memory of this process.
    check(unsafe { libc::ptrace(request, pid, address, data) }).map(drop)
}

pub fn set_options(pid: Pid, options: i32) -> io::Result<()> {
    request(libc::PTRACE_SETOPTIONS, pid, 0, options as u64)
}

/// Lets a stopped thread go on; the signal that it was stopped by is dropped.
pub fn resume(pid: Pid) -> io::Result<()> {
    request(libc::PTRACE_CONT, pid, 0, 0)
}

/// Writes a word into the memory of a stopped thread, whatever its protection.
pub fn poke(pid: Pid, address: u64, word: u64) -> io::Result<()> {
    request(libc::PTRACE_POKEDATA, pid, address, word)
}

pub fn registers(pid: Pid) -> io::Result<Regs> {
    let mut regs = MaybeUninit::<Regs>::uninit();
    // SAFETY: 1. `regs` has the size and layout that PTRACE_GETREGS writes. 2. It has written all
    // of it if it did not fail.
    unsafe {
        check(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, regs.as_mut_ptr()))?;
        Ok(regs.assume_init())
    }
}

pub fn set_registers(pid: Pid, regs: &Regs) -> io::Result<()> {
    // SAFETY: PTRACE_SETREGS reads a struct of this layout, and writes nothing here.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, pid, 0, ptr::from_ref(regs)) }).map(drop)
}

pub fn siginfo(pid: Pid) -> io::Result<Siginfo> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: 1. PTRACE_GETSIGINFO writes a `siginfo_t`. 2. All zeroes is a valid one, so it is
    // initialised. 3. `si_addr` reads a field that is there for every signal, if only as padding.
    unsafe {
        check(libc::ptrace(libc::PTRACE_GETSIGINFO, pid, 0, info.as_mut_ptr()))?;
        let info = info.assume_init();
        Ok(Siginfo { code: info.si_code, address: info.si_addr() as u64 })
    }
}

/// The number that comes with a `PTRACE_EVENT_*`: the new thread's.
pub fn event_message(pid: Pid) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: PTRACE_GETEVENTMSG writes an unsigned long.
    check(unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, ptr::from_mut(&mut message)) })?;
    Ok(message)
}

/// A file in memory with no name.
pub fn memfd(name: &std::ffi::CStr) -> io::Result<File> {
    // SAFETY: 1. The name ends in a zero byte. 2. A descriptor that it returns is new and ours.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        check(fd.into())?;
        Ok(File::from_raw_fd(fd))
    }
}

/// The file system's `f_type`.
pub fn file_system(file: &File) -> io::Result<i64> {
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: 1. `found` may be written. 2. It has been if the call did not fail.
    unsafe {
        check(libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()).into())?;
        Ok(found.assume_init().f_type)
    }
}

/// Source: `struct perf_event_attr` in `perf_event_open(2)`, its first published size.
#[repr(C)]
#[derive(Default)]
struct PerfAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    bp_type: u32,
    config1: u64,
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_FORMAT_GROUP: u64 = 1 << 3;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;

/// Opens perf's software event `config` for a thread, in the group of `leader`.
pub fn perf_open(
    pid: Pid,
    config: u64,
    leader: Option<&File>,
    user_only: bool,
) -> io::Result<File> {
    let attr = PerfAttr {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<PerfAttr>() as u32,
        config,
        read_format: PERF_FORMAT_GROUP,
        flags: if user_only { EXCLUDE_KERNEL } else { 0 },
        ..PerfAttr::default()
    };
    let group: RawFd = leader.map_or(-1, AsRawFd::as_raw_fd);
    let attr = ptr::from_ref(&attr).cast::<c_void>();
    // SAFETY: 1. `attr` says its own size and lives during the call. 2. A descriptor that it
    // returns is new and ours.
    unsafe {
        let fd =
            libc::syscall(libc::SYS_perf_event_open, attr, pid, -1, group, PERF_FLAG_FD_CLOEXEC);
        check(fd)?;
        Ok(File::from(OwnedFd::from_raw_fd(fd as RawFd)))
    }
}

/// Says that nothing but what is read should be brought into the page cache.
pub fn advise_random(file: &File) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}
