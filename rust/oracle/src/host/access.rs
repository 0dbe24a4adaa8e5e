//! Accesses: by a task's thread itself, or by the kernel on its behalf.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use spfemu_core::events::NR_EVENTS;
use spfemu_core::program::{Outcome, shuffled};

use super::calls::{PAGE_SIZE, ret_of};
use super::counters::Counters;
use super::op::{Order, Touch};
use super::procfs;
use super::tasks::{Next, Run};
use super::tracer::{Access, AccessEnd, Fail};

/// Each is at least one page.
const FAULTS_BETWEEN_CHECKS: u64 = 1024;

impl Run<'_> {
    pub fn touch(&mut self, task: usize, touch: &Touch) -> Result<Next, Fail> {
        let start = self.resolve(touch.range.at);
        let count = touch.range.length.div_ceil(touch.stride);
        let order = match touch.order {
            Order::Random => shuffled(count as u32, touch.seed),
            Order::Forward | Order::Backward => Vec::new(),
        };
        for number in 0..count {
            self.check_over()?;
            let position = match touch.order {
                Order::Forward => number,
                Order::Backward => count - 1 - number,
                Order::Random => order[number as usize].into(),
            };
            let address = start.wrapping_add(position.wrapping_mul(touch.stride));
            let outcome = self.access(task, touch.access, touch.user, address, touch.value)?;
            let outcome = Outcome { access: number as u32, ..outcome };
            if number + 1 == count {
                self.finish_op(task, outcome);
            } else {
                self.record(task, outcome);
            }
        }
        Ok(Next::GoOn)
    }

    pub fn access(
        &mut self,
        task: usize,
        access: Access,
        user: bool,
        address: u64,
        value: u64,
    ) -> Result<Outcome, Fail> {
        let page = address & !(PAGE_SIZE - 1);
        self.keep_out("an access", page, PAGE_SIZE)?;
        let before = self.faults(task, user)?;
        let thread = self.thread(task);
        let (mut own_fault, mut may_be_read) = (false, false);
        let outcome = if user {
            let end = self.host.tracer.access(thread, access, page, value)?;
            if let AccessEnd::Fetched { own_fault: own, may_be_read: read } = end {
                (own_fault, may_be_read) = (own, read);
            }
            outcome_of(access, end)
        } else {
            self.kernel_access(task, access, page, value)?
        };
        let mut after = self.faults(task, user)?;
        if self.counters(task).count_refused(user) {
            // Such faults are neither minor nor major.
            let handled = (after[1] - before[1]) + (after[2] - before[2]);
            let refused_read = may_be_read && after[0] - before[0] > handled;
            after[0] -= u64::from(own_fault || refused_read);
        }
        self.check_memory(after[0] - before[0])?;
        let mut counters = [0; NR_EVENTS];
        for (event, count) in counters.iter_mut().take(after.len()).enumerate() {
            *count = (after[event] - before[event]) as u32;
        }
        Ok(Outcome { counters, ..outcome })
    }

    /// Looks now and then how much memory the processes have.
    fn check_memory(&mut self, faults: u64) -> Result<(), Fail> {
        self.unchecked_faults += faults;
        if self.unchecked_faults < FAULTS_BETWEEN_CHECKS {
            return Ok(());
        }
        self.unchecked_faults = 0;
        let mut sum = 0;
        for pid in self.live_processes() {
            sum += procfs::resident(pid).map_err(Fail::of("/proc/PID/statm"))?;
        }
        if sum <= self.host.max_memory {
            return Ok(());
        }
        Err(Fail::Host(format!(
            "the program has {sum} bytes of memory (allowed: max_memory, {}, by default half of \
             what is available)",
            self.host.max_memory
        )))
    }

    fn counters(&self, task: usize) -> &Counters {
        self.tasks[task].counters.as_ref().expect("the task is at work")
    }

    fn faults(&self, task: usize, user: bool) -> Result<[u64; 3], Fail> {
        self.counters(task).read(user).map_err(Fail::of("the fault counters"))
    }

    /// The kernel accesses the word on the thread's behalf: it copies it into a pipe, or out of it.
    fn kernel_access(
        &mut self,
        task: usize,
        access: Access,
        page: u64,
        value: u64,
    ) -> Result<Outcome, Fail> {
        let thread = self.thread(task);
        let mut word = value.to_ne_bytes();
        let (mut reader, mut writer) = (&self.host.files.word_reader, &self.host.files.word_writer);
        let (number, fd) = match access {
            Access::Read => (libc::SYS_write, writer.as_raw_fd()),
            Access::Write => {
                writer.write_all(&word).map_err(Fail::of("the pipe"))?;
                (libc::SYS_read, reader.as_raw_fd())
            }
            Access::Execute => {
                let what = "mode kernel of execute: no system call executes for a task";
                return Err(Fail::Refused(what.to_owned()));
            }
        };
        let ret = ret_of(self.host.tracer.call(thread, number, &[fd as u64, page, 8])?);
        // What was read is in the pipe, and what could not be written still is.
        if ret.is_ok() == (access == Access::Read) {
            reader.read_exact(&mut word).map_err(Fail::of("the pipe"))?;
        }
        match ret {
            Ok(8) => Ok(outcome_of(access, AccessEnd::Done(u64::from_ne_bytes(word)))),
            Ok(count) => Err(Fail::Host(format!("{count} bytes of a word were copied"))),
            Err(errno) => Ok(Outcome { ret: Some(-1), errno, ..Outcome::default() }),
        }
    }
}

fn outcome_of(access: Access, end: AccessEnd) -> Outcome {
    match end {
        AccessEnd::Done(word) => Outcome {
            ret: Some(0),
            value: (access == Access::Read).then_some(word),
            ..Outcome::default()
        },
        AccessEnd::Fetched { .. } => Outcome { ret: Some(0), ..Outcome::default() },
        AccessEnd::Signal { number, code } => {
            Outcome { signal: number as u8, si_code: code, ..Outcome::default() }
        }
    }
}
