//! The tracer: threads of the children, and what they are made to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::island;
use super::sys::{self, Event, Pid, Regs};

/// Why a run cannot go on.
#[derive(Debug)]
pub enum Fail {
    /// Somebody said so: [`Tracer::sentinel`] was sent [`STOP`].
    Over,
    /// What the program asks for cannot be done here.
    Refused(String),
    /// The host did what it should not.
    Host(String),
}

impl Fail {
    /// An error of a call that the tracer made.
    pub fn of(what: &str) -> impl FnOnce(io::Error) -> Self + '_ {
        move |error| Self::Host(format!("{what}: {error}"))
    }
}

/// What the sentinel is sent to end a run. Children block the signals that others might send.
pub const STOP: i32 = libc::SIGILL;

/// How an access ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessEnd {
    /// It was done; for a read, what it gave.
    Done(u64),
    /// The instruction was fetched; whether it had a page fault of its own, and whether the kernel
    /// may have read it: after a general protection fault it does, which a protection key forbids.
    Fetched { own_fault: bool, may_be_read: bool },
    /// It was refused by this signal.
    Signal { number: i32, code: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// What every register holds while a program's own instruction runs, so that whatever it is, it
/// reaches no memory and makes no system call: no address, and in its low half no number of a call.
const NOWHERE: u64 = 0x8000_0000_ffff_ffff;

pub struct Tracer {
    /// The first process. It only waits, as what everybody else descends from.
    pub sentinel: Pid,
    /// Threads that have been reaped: nothing is told of them any more.
    gone: BTreeSet<Pid>,
    pub island: u64,
    /// A new process's registers.
    fresh: Regs,
    /// What happened while something else was waited for.
    early: BTreeMap<Pid, Event>,
}

impl Tracer {
    /// Takes over a process that [`super::child::start`] has started.
    pub fn new(sentinel: Pid, island: u64) -> Self {
        // SAFETY: all zeroes is a set of registers; these are replaced in `check_start`.
        let fresh = unsafe { std::mem::zeroed() };
        Self { sentinel, gone: BTreeSet::new(), island, fresh, early: BTreeMap::new() }
    }

    /// Waits until the sentinel executes our page.
    pub fn check_start(&mut self) -> Result<(), Fail> {
        match self.wait_for(self.sentinel)? {
            Event::Stopped { signal: libc::SIGTRAP, .. } => {}
            event => return Err(died(self.sentinel, event)),
        }
        let options = libc::PTRACE_O_EXITKILL
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACEEXEC;
        sys::set_options(self.sentinel, options).map_err(Fail::of("ptrace"))?;
        self.fresh = sys::registers(self.sentinel).map_err(Fail::of("ptrace"))?;
        Ok(())
    }

    fn wait_any(&mut self) -> io::Result<Option<(Pid, Event)>> {
        let next = sys::wait_any()?;
        match next {
            Some((pid, Event::Exited(_) | Event::Killed(_))) => drop(self.gone.insert(pid)),
            // A new thread may have the number of an old one.
            Some((pid, Event::Stopped { .. })) => drop(self.gone.remove(&pid)),
            None => {}
        }
        Ok(next)
    }

    /// Waits for the next that happens to `pid`.
    fn wait_for(&mut self, pid: Pid) -> Result<Event, Fail> {
        Ok(self.wait_for_either(pid, pid)?.1)
    }

    /// Waits for the next that happens to one of two threads.
    fn wait_for_either(&mut self, first: Pid, second: Pid) -> Result<(Pid, Event), Fail> {
        loop {
            for pid in [first, second] {
                if let Some(event) = self.early.remove(&pid) {
                    return Ok((pid, event));
                }
            }
            match self.wait_any().map_err(Fail::of("waitpid"))? {
                None => return Err(Fail::Host("the child is gone".to_owned())),
                Some((who, event)) => {
                    if who == self.sentinel && ![first, second].contains(&who) {
                        return Err(Fail::Over);
                    }
                    self.early.insert(who, event);
                }
            }
        }
    }

    /// Lets a stopped thread go on with these registers.
    fn go(&self, pid: Pid, regs: &Regs) -> Result<(), Fail> {
        sys::set_registers(pid, regs).map_err(Fail::of("ptrace"))?;
        sys::resume(pid).map_err(Fail::of("ptrace"))
    }

    /// The registers of code at `offset` in the page.
    fn at(&self, offset: u64) -> Regs {
        // All ones: the thread is not in a system call, which would be begun anew.
        Regs { rip: self.island + offset, orig_rax: u64::MAX, ..self.fresh }
    }

    /// Begins a system call.
    pub fn begin(&self, pid: Pid, number: i64, args: &[u64]) -> Result<(), Fail> {
        let mut regs = self.at(island::SYSCALL);
        regs.rax = number as u64;
        let places = [
            &mut regs.rdi,
            &mut regs.rsi,
            &mut regs.rdx,
            &mut regs.r10,
            &mut regs.r8,
            &mut regs.r9,
        ];
        for (place, arg) in places.into_iter().zip(args) {
            *place = *arg;
        }
        self.go(pid, &regs)
    }

    /// Waits until a call has ended; returns what it gave, or minus an errno.
    pub fn end(&mut self, pid: Pid) -> Result<i64, Fail> {
        match self.wait_for(pid)? {
            Event::Stopped { signal: libc::SIGTRAP, event: 0 } => {
                let regs = sys::registers(pid).map_err(Fail::of("ptrace"))?;
                Ok(regs.rax as i64)
            }
            event => Err(died(pid, event)),
        }
    }

    /// Makes a system call that needs no more than numbers.
    pub fn call(&mut self, pid: Pid, number: i64, args: &[u64]) -> Result<i64, Fail> {
        self.begin(pid, number, args)?;
        self.end(pid)
    }

    /// Writes words where the child can read them, and returns their address.
    pub fn scratch(&self, pid: Pid, words: &[u64]) -> Result<u64, Fail> {
        let address = self.island + island::SCRATCH;
        for (place, word) in words.iter().enumerate() {
            sys::poke(pid, address + 8 * place as u64, *word).map_err(Fail::of("ptrace"))?;
        }
        Ok(address)
    }

    /// Begins `clone`, and waits until there is a new thread, which is stopped and has run no
    /// more than what brings our page into its page table. The caller has yet to [`Tracer::end`].
    /// `Err(errno)`: there is none, and the call has ended.
    pub fn clone(&mut self, pid: Pid, flags: u64) -> Result<Result<Pid, i32>, Fail> {
        self.begin(pid, libc::SYS_clone, &[flags, 0, 0, 0, 0])?;
        match self.wait_for(pid)? {
            Event::Stopped { signal: libc::SIGTRAP, event: 0 } => {
                let regs = sys::registers(pid).map_err(Fail::of("ptrace"))?;
                return Ok(Err(-(regs.rax as i64) as i32));
            }
            Event::Stopped {
                event: libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE,
                ..
            } => {}
            event => return Err(died(pid, event)),
        }
        let child = sys::event_message(pid).map_err(Fail::of("ptrace"))? as Pid;
        if self.gone.contains(&child) {
            self.early.remove(&child); // the end of the old one
        }
        match self.wait_for(child)? {
            Event::Stopped { .. } => {}
            event => return Err(died(child, event)),
        }
        self.go(child, &self.at(island::TRAP))?;
        self.end(child)?;
        sys::resume(pid).map_err(Fail::of("ptrace"))?;
        Ok(Ok(child))
    }

    /// `execveat` of the image. `process` is the process's number, which is the thread's from then
    /// on. The other threads are gone.
    pub fn exec(&mut self, pid: Pid, process: Pid, image: i32) -> Result<Result<(), i32>, Fail> {
        let (empty, argv) = (self.island + island::EMPTY, self.island + island::ARGV);
        let flags = libc::AT_EMPTY_PATH as u64;
        // The environment ends where the argument vector does.
        self.begin(pid, libc::SYS_execveat, &[image as u64, empty, argv, argv + 8, flags])?;
        loop {
            match self.wait_for_either(pid, process)? {
                (_, Event::Stopped { event: libc::PTRACE_EVENT_EXEC, .. }) => break,
                (who, Event::Stopped { signal: libc::SIGTRAP, event: 0 }) if who == pid => {
                    let regs = sys::registers(pid).map_err(Fail::of("ptrace"))?;
                    return Ok(Err(-(regs.rax as i64) as i32));
                }
                // The old first thread, whose vfork had ended, …
                (_, Event::Stopped { signal: libc::SIGTRAP, event: 0 }) if pid != process => {}
                // … or has itself; or this one under its old number.
                (_, Event::Exited(_) | Event::Killed(_)) if pid != process => {}
                (who, event) => return Err(died(who, event)),
            }
        }
        sys::resume(process).map_err(Fail::of("ptrace"))?;
        self.end(process)?;
        Ok(Ok(()))
    }

    /// Ends a thread. Whether it is the last of its process is the caller's to know: only then is
    /// its end waited for, for a first thread's is not told before.
    pub fn exit(&mut self, pid: Pid, process: Pid, is_last: bool) -> Result<(), Fail> {
        self.begin(pid, libc::SYS_exit, &[0])?;
        if pid != process {
            self.wait_for(pid)?;
        }
        if is_last {
            self.wait_for(process)?;
        }
        Ok(())
    }

    /// Accesses the word at the start of the page at `page`.
    pub fn access(
        &mut self,
        pid: Pid,
        how: Access,
        page: u64,
        value: u64,
    ) -> Result<AccessEnd, Fail> {
        if how == Access::Execute {
            return self.execute(pid, page);
        }
        let mut regs = self.at(if how == Access::Read { island::READ } else { island::WRITE });
        (regs.rdi, regs.rsi) = (page, value);
        self.go(pid, &regs)?;
        match self.wait_for(pid)? {
            Event::Stopped { signal: libc::SIGTRAP, event: 0 } => {
                let regs = sys::registers(pid).map_err(Fail::of("ptrace"))?;
                Ok(AccessEnd::Done(regs.rax))
            }
            Event::Stopped { signal: number @ (libc::SIGSEGV | libc::SIGBUS), .. } => {
                let info = sys::siginfo(pid).map_err(Fail::of("ptrace"))?;
                check_address(info, page)?;
                Ok(AccessEnd::Signal { number, code: info.code })
            }
            event => Err(died(pid, event)),
        }
    }

    /// Executes what stands at `page`. What the instruction itself comes to is put aside: it was
    /// fetched, unless the signal is about its own address. A return, with no stack, ends at once.
    ///
    /// Not with `PTRACE_SINGLESTEP`: stepping over a page that is first mapped and then refused
    /// gave one fault where running into it gave two (6.18, in a virtual machine).
    fn execute(&mut self, pid: Pid, page: u64) -> Result<AccessEnd, Fail> {
        let nowhere = Regs {
            rax: NOWHERE,
            rbx: NOWHERE,
            rcx: NOWHERE,
            rdx: NOWHERE,
            rsi: NOWHERE,
            rdi: NOWHERE,
            rbp: NOWHERE,
            rsp: NOWHERE,
            r8: NOWHERE,
            r9: NOWHERE,
            r10: NOWHERE,
            r11: NOWHERE,
            r12: NOWHERE,
            r13: NOWHERE,
            r14: NOWHERE,
            r15: NOWHERE,
            ..self.at(0)
        };
        self.go(pid, &Regs { rip: page, ..nowhere })?;
        let number = match self.wait_for(pid)? {
            Event::Stopped { signal, event: 0 } => signal,
            event => return Err(died(pid, event)),
        };
        let info = sys::siginfo(pid).map_err(Fail::of("ptrace"))?;
        let is_memory = matches!(number, libc::SIGSEGV | libc::SIGBUS);
        let is_about_the_fetch = match info.code {
            SI_KERNEL => !is_canonical(page), // a general protection fault
            _ => info.address == page,
        };
        if is_memory && is_about_the_fetch {
            return Ok(AccessEnd::Signal { number, code: info.code });
        }
        let may_be_read = is_memory && info.code == SI_KERNEL;
        // One outside user space is not counted, here as elsewhere.
        let own_fault = is_memory && !may_be_read && info.address < USER_END;
        Ok(AccessEnd::Fetched { own_fault, may_be_read })
    }

    /// Kills these processes, waits for their ends, and then kills the sentinel and whatever else
    /// descends from it. The sentinel comes last because it is who the kernel gives orphans to.
    pub fn kill_all(&mut self, mut left: Vec<Pid>) {
        left.retain(|pid| !self.gone.contains(pid));
        for &pid in &left {
            sys::kill(pid, libc::SIGKILL);
        }
        while !self.gone.contains(&self.sentinel) {
            if left.is_empty() {
                sys::kill(-self.sentinel, libc::SIGKILL); // its group
            }
            match self.wait_any() {
                Ok(Some(_)) => left.retain(|pid| !self.gone.contains(pid)),
                // Then this thread's end kills them: PTRACE_O_EXITKILL.
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// `si_code` of a signal that is about no address.
const SI_KERNEL: i32 = 0x80;

/// Where user space ends with four levels of page tables: `TASK_SIZE_MAX`.
const USER_END: u64 = (1 << 47) - 4096;

/// Whether x86-64 has the address at all, with four levels of page tables.
fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// The signal must be about the access that was made.
fn check_address(info: sys::Siginfo, page: u64) -> Result<(), Fail> {
    if info.code == SI_KERNEL || info.address == page {
        return Ok(());
    }
    let sys::Siginfo { code, address } = info;
    Err(Fail::Host(format!("an access to {page:#x} got a signal (code {code}) about {address:#x}")))
}

fn died(pid: Pid, event: Event) -> Fail {
    Fail::Host(match event {
        Event::Exited(status) => format!("thread {pid} of the child ended with status {status}"),
        Event::Killed(signal) => format!("thread {pid} of the child was killed by signal {signal}"),
        Event::Stopped { signal, event } => {
            format!("thread {pid} of the child stopped by signal {signal}, event {event}")
        }
    })
}
