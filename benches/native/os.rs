//! What the host's kernel is asked for: CPUs, time, pages.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

/// How many CPUs this program may use.
pub fn nr_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many CPUs there are, and how many want one.
pub fn description() -> String {
    let nr_cpus = nr_cpus();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    format!("{nr_cpus} CPUs with a load of {load}")
}

/// Ties the calling thread to the `nth` of the CPUs it may use, or returns false: there are fewer.
pub fn run_on_cpu(nth: usize) -> bool {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: 1. a set of CPUs is an array of integers, so zeroes are one; 2. the kernel writes at
    // most `size` bytes; 3. CPU_ISSET and CPU_SET stay below CPU_SETSIZE.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size, &mut allowed), 0, "{}", last_error());
        let mut cpus =
            (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &allowed));
        let Some(cpu) = cpus.nth(nth) else { return false };
        let mut only: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut only);
        libc::sched_setaffinity(0, size, &only) == 0
    }
}

/// Nanoseconds that the calling thread has been on a CPU.
pub fn thread_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: 1. `time` is a timespec that the kernel may write.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "{}", last_error());
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn last_error() -> std::io::Error {
    std::io::Error::last_os_error()
}

/// Pages of the host, with no huge page among them.
pub struct Area {
    start: NonNull<AtomicU8>,
    nr_pages: usize,
}

// SAFETY: 1. the pages belong to the area alone until it is dropped; 2. what is in them is atomic.
unsafe impl Sync for Area {}

/// Bytes of a page here; where they are larger, some writes touch a page that is there.
pub const PAGE: usize = 4096;

impl Area {
    pub fn new(nr_pages: usize) -> Self {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let length = nr_pages * PAGE;
        // SAFETY: 1. a new mapping, at a place that the kernel chooses, takes nothing away.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", last_error());
        let area = Self { start: NonNull::new(start.cast()).expect("not at 0"), nr_pages };
        // A kernel without huge pages refuses, and need not be told.
        let _ = area.advise(libc::MADV_NOHUGEPAGE);
        area
    }

    fn advise(&self, advice: libc::c_int) -> libc::c_int {
        // SAFETY: 1. the range is this area's mapping; 2. its content is bytes that any value
        // suits, so it may be dropped.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.nr_pages * PAGE, advice) }
    }

    pub fn take_pages_away(&self) {
        assert_eq!(self.advise(libc::MADV_DONTNEED), 0, "{}", last_error());
    }

    pub fn write_each_page(&self) {
        // SAFETY: 1. the mapping has this many bytes, readable and writable; 2. it lives as long as
        // the area; 3. all access is atomic.
        let bytes =
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.nr_pages * PAGE) };
        for page in bytes.chunks(PAGE) {
            page[0].store(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: 1. this is the area's own mapping; 2. no reference into it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.nr_pages * PAGE) };
    }
}
