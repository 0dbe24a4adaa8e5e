//! How many faults a thread has had.

use std::fs::File;
use std::io::{self, Read};

use super::procfs;
use super::sys::{self, Pid};
use crate::Counting;

/// perf's software events `faults`, `minor-faults` and `major-faults`.
const EVENTS: [u64; 3] = [2, 5, 6];

/// The counters of one thread.
pub struct Counters {
    process: Pid,
    thread: Pid,
    /// The group of the three events; the first one reads them all.
    events: Option<[File; 3]>,
    user_only: bool,
}

impl Counters {
    /// Opens them; says what [`Counting::Best`] came to.
    pub fn open(process: Pid, thread: Pid, counting: Counting) -> io::Result<(Self, Counting)> {
        let perf = |user_only: bool| -> io::Result<Self> {
            let leader = sys::perf_open(thread, EVENTS[0], None, user_only)?;
            let minor = sys::perf_open(thread, EVENTS[1], Some(&leader), user_only)?;
            let major = sys::perf_open(thread, EVENTS[2], Some(&leader), user_only)?;
            Ok(Self { process, thread, events: Some([leader, minor, major]), user_only })
        };
        let stat = Self { process, thread, events: None, user_only: false };
        match counting {
            Counting::Perf => Ok((perf(false)?, counting)),
            Counting::PerfUser => Ok((perf(true)?, counting)),
            Counting::Stat => Ok((stat, counting)),
            Counting::Best => {
                for user_only in [false, true] {
                    if let Ok(opened) = perf(user_only) {
                        let found = if user_only { Counting::PerfUser } else { Counting::Perf };
                        return Ok((opened, found));
                    }
                }
                Ok((stat, Counting::Stat))
            }
        }
    }

    /// Faults, and of these minor and major ones, so far. `user`: whether it is the thread itself
    /// that faults, or the kernel for it.
    pub fn read(&self, user: bool) -> io::Result<[u64; 3]> {
        let Some([leader, ..]) = &self.events else { return self.read_stat() };
        if !self.count_refused(user) {
            return self.read_stat();
        }
        // The number of values, and then these.
        let mut bytes = [0; 8 * 4];
        let mut leader: &File = leader;
        leader.read_exact(&mut bytes)?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok([1, 2, 3].map(|place| u64::from_ne_bytes(words[place])))
    }

    /// Whether faults are counted that end in a signal.
    pub fn count_refused(&self, user: bool) -> bool {
        self.events.is_some() && (user || !self.user_only)
    }

    /// The thread has another number from now on: that of its process.
    pub fn moved(&mut self, thread: Pid) {
        self.thread = thread;
    }

    fn read_stat(&self) -> io::Result<[u64; 3]> {
        let [minor, major] = procfs::fault_counts(self.process, self.thread)?;
        Ok([minor + major, minor, major])
    }
}
