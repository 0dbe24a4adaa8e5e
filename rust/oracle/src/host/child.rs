//! Starting a child process that has the page of [`super::island`] and stops to be traced.

use std::ffi::{CStr, c_void};
use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::thread;
use std::time::Duration;

use super::island;
use super::sys::{self, Pid};

/// Bytes of the stack on which a new process runs until it executes the image.
const STACK_SIZE: usize = 64 << 10;
/// The stack limit that 5.1's layout, and `arch/x86.rs` of the core, assumes: it decides where
/// mappings begin.
const STACK_LIMIT: u64 = 8 << 20;
/// How often to try while somebody else still has the image open for writing.
const MAX_TRIES: u32 = 200;

/// A process that executes `image`, stopped before its first instruction. It is the calling
/// thread's to trace. `kept` are open in it under the numbers they have here.
pub fn start(image: &Image, kept: &[RawFd]) -> io::Result<Pid> {
    for _ in 1..MAX_TRIES {
        match start_once(image, kept) {
            // A process that another thread is just starting has a copy of the descriptor that
            // the image was written through, until it executes something itself.
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
    start_once(image, kept)
}

/// The file that child processes execute.
pub struct Image {
    file: File,
}

impl Image {
    /// Makes the file for a page at `island`.
    pub fn new(island: u64) -> io::Result<Self> {
        let mut written = sys::memfd(c"spfemu-oracle")?;
        written.write_all(&island::image(island))?;
        // What is open for writing cannot be executed.
        let file = File::open(format!("/proc/self/fd/{}", written.as_raw_fd()))?;
        Ok(Self { file })
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// What the new process needs, and what it says when it fails.
struct Start<'a> {
    image: RawFd,
    kept: &'a [RawFd],
    error: i32,
}

fn start_once(image: &Image, kept: &[RawFd]) -> io::Result<Pid> {
    let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK_SIZE / size_of::<u128>()];
    let mut start = Start { image: image.fd(), kept, error: 0 };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let mask = block_signals();
    // SAFETY: 1. CLONE_VFORK keeps this thread asleep until `child` has executed the image or
    // ended, so the stack and `start` outlive its use of them. 2. The stack's end is aligned to 16.
    // 3. `child` calls nothing that takes a lock, allocates or unwinds: system calls only. 4. With
    // every signal blocked, no handler of this process runs in it.
    let pid = unsafe {
        libc::clone(
            child,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            ptr::from_mut(&mut start).cast(),
        )
    };
    let failed = io::Error::last_os_error();
    restore_signals(&mask);
    if pid == -1 {
        return Err(failed);
    }
    if start.error != 0 {
        reap(pid);
        return Err(io::Error::from_raw_os_error(start.error));
    }
    Ok(pid)
}

fn block_signals() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: 1. `sigfillset` initialises `all`. 2. `pthread_sigmask` initialises `before`; it
    // fails only for a wrong first argument.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: `mask` is a set that `pthread_sigmask` gave.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

fn reap(pid: Pid) {
    // SAFETY: a null pointer asks for no status.
    unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WALL) };
}

/// What the new process does. It shares this process's memory, so it only makes system calls.
extern "C" fn child(argument: *mut c_void) -> libc::c_int {
    // SAFETY: `argument` is the `Start` of `start_once`, which waits meanwhile.
    let start = unsafe { &mut *argument.cast::<Start<'_>>() };
    // SAFETY: 1. Every pointer that is given is to a local, a constant or part of `start`. 2. None
    // of these functions of the C library takes a lock or allocates.
    start.error = unsafe { prepare(start) };
    1
}

/// Makes the process one that can do no harm, and executes the image. Returns an errno.
///
/// Where a step is only for the host's good and is not permitted, the next one follows.
///
/// # Safety
/// Only between `clone` and `execve`.
unsafe fn prepare(start: &Start<'_>) -> i32 {
    // SAFETY: as for this function: locals, constants and parts of `start`; nothing that locks.
    unsafe {
        libc::setpgid(0, 0); // a terminal's Ctrl-C is for the caller
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Whoever loses its parent comes to this process, which leaves no zombies.
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
        limits();
        prefer_in_oom();
        drop_capabilities();
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for &fd in start.kept {
            libc::fcntl(fd, libc::F_SETFD, 0);
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for fd in 0..3 {
            libc::dup2(null, fd);
        }
        leave_traps_only();
        if libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == -1 {
            return *libc::__errno_location();
        }
        let empty: &CStr = c"";
        let arguments = [empty.as_ptr(), ptr::null()];
        let environment: [*const libc::c_char; 1] = [ptr::null()];
        libc::syscall(
            libc::SYS_execveat,
            start.image,
            empty.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        *libc::__errno_location()
    }
}

/// No core dumps, the stack limit of 5.1's default layout, and otherwise as much as there may be:
/// the format knows no other limits.
///
/// # Safety
/// As [`prepare`].
unsafe fn limits() {
    for which in [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK] {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a local that both calls may use.
        unsafe {
            if libc::getrlimit(which, &mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(which, &limit);
            }
        }
    }
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let mut stack = none;
    // SAFETY: both are locals.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        if libc::getrlimit(libc::RLIMIT_STACK, &mut stack) == 0 {
            stack.rlim_cur = STACK_LIMIT.min(stack.rlim_max);
            libc::setrlimit(libc::RLIMIT_STACK, &stack);
        }
    }
}

/// If memory runs out, this process is what the kernel ends.
///
/// # Safety
/// As [`prepare`].
unsafe fn prefer_in_oom() {
    let most = b"1000";
    // SAFETY: the buffer is a constant of the length that is given.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY);
        if fd != -1 {
            libc::write(fd, most.as_ptr().cast(), most.len());
            libc::close(fd);
        }
    }
}

/// A privileged caller's child is not: so that the same comes out for everybody.
///
/// Source: `capabilities(7)`; root's `execve` would give them back without the secure bits.
///
/// # Safety
/// As [`prepare`].
unsafe fn drop_capabilities() {
    const VERSION_3: u32 = 0x2008_0522;
    const NOROOT: libc::c_ulong = 3; // SECBIT_NOROOT and its lock
    let header: [u32; 2] = [VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: `header` and `none` have the layout of version 3.
    unsafe {
        libc::prctl(libc::PR_SET_SECUREBITS, NOROOT);
        libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr());
    }
}

/// Blocks the signals that others send; those that an access raises are the outcomes.
///
/// # Safety
/// As [`prepare`].
unsafe fn leave_traps_only() {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: `sigfillset` initialises the local `mask`.
    unsafe {
        libc::sigfillset(mask.as_mut_ptr());
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP, libc::SIGILL, libc::SIGFPE] {
            libc::sigdelset(mask.as_mut_ptr(), signal);
        }
        libc::sigprocmask(libc::SIG_SETMASK, mask.as_ptr(), ptr::null_mut());
    }
}
