//! Operations: system calls and accesses that a task's thread is made to do.

use spfemu_core::program::Outcome;

use super::island;
use super::op::{At, Mmap, Mremap, Op, Range, RangeCall};
use super::sys::Pid;
use super::tasks::{Heap, Next, Process, Run};
use super::tracer::Fail;
use super::waits::Wait;

/// `clone` flags of a thread of the same process.
pub const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

pub const PAGE_SIZE: u64 = 4096;
/// What an id names when the call that sets it failed: `MAP_FAILED`.
const MAP_FAILED: u64 = u64::MAX;
/// Where a heap begins that nobody has placed: as `ops/brk.rs` of the core has it.
const DEFAULT_HEAP: u64 = 0x5555_5580_0000;

/// What a system call gave: its value, or an errno.
pub type Ret = Result<u64, i32>;

pub fn ret_of(raw: i64) -> Ret {
    // Source: the x86-64 calling convention; the last page of values is errnos.
    if (-4095..0).contains(&raw) { Err(-raw as i32) } else { Ok(raw as u64) }
}

impl Run<'_> {
    /// Begins an operation that is no bracket; it may have to wait for its end.
    pub fn execute(&mut self, task: usize, op: &Op) -> Result<Next, Fail> {
        for id in awaited_ids(op).into_iter().flatten() {
            if self.sync.id(id).is_none() {
                return Ok(Next::Wait(Wait::Id(id), None));
            }
        }
        match *op {
            Op::Access { access, user, at, value } => {
                let outcome = self.access(task, access, user, self.resolve(at), value)?;
                self.finish_op(task, outcome);
                Ok(Next::GoOn)
            }
            Op::Touch(touch) => self.touch(task, &touch),
            Op::Exit => {
                self.finish_op(task, Outcome { ret: Some(0), ..Outcome::default() });
                Ok(Next::End)
            }
            _ => self.system_call(task, op),
        }
    }

    pub fn resolve(&self, at: At) -> u64 {
        let base = at.id.and_then(|id| self.sync.id(id)).unwrap_or(0);
        base.wrapping_add_signed(at.offset)
    }

    // --- system calls ----------------------------------------------------------------------------

    fn system_call(&mut self, task: usize, op: &Op) -> Result<Next, Fail> {
        let ret = match *op {
            Op::Fork { child, .. } => self.new_process(task, child, libc::SIGCHLD)?,
            Op::Vfork { child, .. } => {
                let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
                self.new_process(task, child, flags)?
            }
            Op::Clone { child } => self.clone_thread(task, child)?,
            Op::Exec { brk_start } => self.exec(task, brk_start)?,
            Op::Brk { delta, start, .. } => self.brk(task, delta, start)?,
            _ => self.plain_call(task, op)?,
        };
        if let Some(id) = defined_id(op) {
            self.sync.set_id(id, ret.unwrap_or(MAP_FAILED));
        }
        let (value, errno) = match ret {
            Ok(value) => (value as i64, 0),
            Err(errno) => (-1, errno),
        };
        let outcome = Outcome { ret: Some(value), errno, ..Outcome::default() };
        match (errno, self.wait_after(task, op)) {
            (0, Some(wait)) => Ok(Next::Wait(wait, Some(outcome))),
            _ => {
                self.finish_op(task, outcome);
                Ok(Next::GoOn)
            }
        }
    }

    fn plain_call(&mut self, task: usize, op: &Op) -> Result<Ret, Fail> {
        let thread = self.thread(task);
        match *op {
            Op::Mmap(mmap) => self.mmap(thread, &mmap),
            Op::Range(call, range) => self.range_call(thread, call, range),
            Op::Mremap(mremap) => self.mremap(thread, &mremap),
            Op::SetMempolicy { mode, nodes } => {
                let (mask, max) = self.node_mask(thread, mode, nodes)?;
                self.call(thread, libc::SYS_set_mempolicy, &[mode, mask, max])
            }
            Op::Truncate { file, length } => {
                let done = self.host.files.set_len(file, length);
                // What is no off_t the kernel is not even asked for.
                Ok(done.map(|()| 0).map_err(|error| error.raw_os_error().unwrap_or(libc::EINVAL)))
            }
            Op::Post { name } => {
                self.sync.post(name, task, self.index(task));
                Ok(Ok(0))
            }
            Op::Note => {
                self.note(task)?;
                Ok(Ok(0))
            }
            // What they wait for comes later.
            _ => Ok(Ok(0)),
        }
    }

    fn call(&mut self, thread: Pid, number: i64, args: &[u64]) -> Result<Ret, Fail> {
        Ok(ret_of(self.host.tracer.call(thread, number, args)?))
    }

    fn mmap(&mut self, thread: Pid, mmap: &Mmap) -> Result<Ret, Fail> {
        let address = mmap.hint.map_or(0, |hint| self.resolve(hint));
        // What is longer than any address space is refused wherever it should lie.
        if mmap.hint.is_some() && mmap.length < 1 << 56 {
            self.keep_out("mmap", address, mmap.length)?;
        }
        let file = mmap.file.map_or(u64::MAX, |file| self.host.files.fd(file) as u64);
        let args = [address, mmap.length, mmap.prot, mmap.flags, file, mmap.offset];
        self.call(thread, libc::SYS_mmap, &args)
    }

    fn mremap(&mut self, thread: Pid, mremap: &Mremap) -> Result<Ret, Fail> {
        let start = self.resolve(mremap.range.at);
        let target = mremap.target.map_or(0, |target| self.resolve(target));
        self.keep_out("mremap", start, mremap.range.length.max(mremap.new_length))?;
        if mremap.target.is_some() {
            self.keep_out("mremap", target, mremap.new_length)?;
        }
        let args = [start, mremap.range.length, mremap.new_length, mremap.flags, target];
        self.call(thread, libc::SYS_mremap, &args)
    }

    /// A call about a range. One that meets our page is made in parts around it, as if it were a
    /// hole, where that is the same for the kernel.
    fn range_call(&mut self, thread: Pid, call: RangeCall, range: Range) -> Result<Ret, Fail> {
        let (start, length) = (self.resolve(range.at), range.length);
        let island = self.host.tracer.island;
        let end = start.checked_add(length);
        // What is not aligned, or wraps, is refused before anything happens.
        let (true, Some(end)) = (start.is_multiple_of(PAGE_SIZE), end) else {
            return self.one_range_call(thread, call, start, length);
        };
        if !island::overlaps((start, length), island) {
            return self.one_range_call(thread, call, start, length);
        }
        let above = island + island::SIZE;
        let (lower, upper) = ((start, island - start), (above, end.saturating_sub(above)));
        let (parts, at_hole) = match call {
            // The upper part may be refused, and then nothing may have happened below.
            RangeCall::Munmap => (vec![upper, lower], Ok(0)),
            RangeCall::Mprotect(_) => (vec![lower], Err(libc::ENOMEM)),
            RangeCall::Madvise(_) => (vec![lower, upper], Err(libc::ENOMEM)),
            _ => return self.keep_out("a call", start, length).map(|()| Ok(0)),
        };
        for (start, length) in parts.into_iter().filter(|part| part.1 > 0) {
            match self.one_range_call(thread, call, start, length)? {
                Ok(_) => {}
                Err(libc::ENOMEM) if matches!(call, RangeCall::Madvise(_)) => {}
                Err(errno) => return Ok(Err(errno)),
            }
        }
        Ok(at_hole)
    }

    fn one_range_call(
        &mut self,
        thread: Pid,
        call: RangeCall,
        start: u64,
        length: u64,
    ) -> Result<Ret, Fail> {
        let (number, args) = match call {
            RangeCall::Munmap => (libc::SYS_munmap, [0; 4]),
            RangeCall::Mprotect(prot) => (libc::SYS_mprotect, [prot, 0, 0, 0]),
            RangeCall::Madvise(advice) => (libc::SYS_madvise, [advice, 0, 0, 0]),
            RangeCall::Mlock { onfault: false } => (libc::SYS_mlock, [0; 4]),
            RangeCall::Mlock { onfault: true } => {
                (libc::SYS_mlock2, [libc::MLOCK_ONFAULT.into(), 0, 0, 0])
            }
            RangeCall::Munlock => (libc::SYS_munlock, [0; 4]),
            RangeCall::Mbind { mode, nodes } => {
                let (mask, max) = self.node_mask(thread, mode, nodes)?;
                (libc::SYS_mbind, [mode, mask, max, 0])
            }
        };
        let [first, second, third, fourth] = args;
        self.call(thread, number, &[start, length, first, second, third, fourth])
    }

    /// The address of a node mask in the child, and how many bits the kernel is told it has.
    fn node_mask(&mut self, thread: Pid, mode: u64, nodes: u64) -> Result<(u64, u64), Fail> {
        if [libc::MPOL_DEFAULT as u64, libc::MPOL_LOCAL as u64].contains(&mode) {
            return Ok((0, 0));
        }
        // The kernel looks at one bit less than it is told.
        Ok((self.host.tracer.scratch(thread, &[nodes])?, 65))
    }

    // --- the heap --------------------------------------------------------------------------------

    fn brk(&mut self, task: usize, delta: i64, start: Option<u64>) -> Result<Ret, Fail> {
        let thread = self.thread(task);
        let mm = self.processes[self.tasks[task].process].mm;
        let start = match self.mms[mm] {
            Heap::Open => Some(start.unwrap_or(DEFAULT_HEAP)),
            Heap::Planned(start) => Some(start),
            Heap::Settled => None,
        };
        if let Some(start) = start {
            self.place_heap(thread, start)?;
            self.mms[mm] = Heap::Settled;
        }
        let now = self.host.tracer.call(thread, libc::SYS_brk, &[0])? as u64;
        let wanted = now.wrapping_add_signed(delta);
        if delta == 0 {
            return Ok(Ok(now));
        }
        // The kernel gives back the break that there is, moved or not.
        let after = self.host.tracer.call(thread, libc::SYS_brk, &[wanted])? as u64;
        Ok(if after == wanted { Ok(after) } else { Err(libc::ENOMEM) })
    }

    /// Tells the kernel where the heap begins. Source: `PR_SET_MM_MAP` in `prctl(2)`.
    fn place_heap(&mut self, thread: Pid, start: u64) -> Result<(), Fail> {
        let code = self.host.tracer.island;
        // Where the kernel keeps the old rule, the break may go down to the end of the data.
        let data = start.saturating_sub(1);
        let end = code + island::SIZE;
        // Code, data, heap, stack, arguments, environment; no auxiliary vector; no other file.
        let map =
            [code, end, data, data, start, start, end, code, code, code, code, 0, NO_FILE << 32];
        let address = self.host.tracer.scratch(thread, &map)?;
        let (option, what) = (libc::PR_SET_MM as u64, libc::PR_SET_MM_MAP as u64);
        let args = [option, what, address, size_of_val(&map) as u64, 0];
        match self.call(thread, libc::SYS_prctl, &args)? {
            Ok(_) => Ok(()),
            Err(errno) => Err(Fail::Refused(format!(
                "brk: the host's kernel does not let the heap begin at {start:#x} (errno {errno}; \
                 allowed: addresses from its vm.mmap_min_addr and its CONFIG_LSM_MMAP_MIN_ADDR up, \
                 if it has CONFIG_CHECKPOINT_RESTORE)"
            ))),
        }
    }

    // --- tasks -----------------------------------------------------------------------------------

    /// fork and vfork.
    fn new_process(&mut self, task: usize, child: u32, flags: i32) -> Result<Ret, Fail> {
        let thread = self.thread(task);
        let is_vfork = flags & libc::CLONE_VFORK != 0;
        let pid = match self.host.tracer.clone(thread, flags as u64)? {
            Ok(pid) => pid,
            Err(errno) => return Ok(Err(errno)),
        };
        if is_vfork {
            self.tasks[task].in_vfork = true;
        } else {
            self.host.tracer.end(thread)?;
        }
        let mut mm = self.processes[self.tasks[task].process].mm;
        if !is_vfork {
            self.mms.push(self.mms[mm]);
            mm = self.mms.len() - 1;
        }
        self.processes.push(Process::new(child, pid, mm));
        self.started(child as usize, self.processes.len() - 1, pid)?;
        Ok(Ok(0))
    }

    fn clone_thread(&mut self, task: usize, child: u32) -> Result<Ret, Fail> {
        let thread = self.thread(task);
        match self.host.tracer.clone(thread, THREAD)? {
            Ok(new) => {
                self.host.tracer.end(thread)?;
                self.started(child as usize, self.tasks[task].process, new)?;
                Ok(Ok(0))
            }
            Err(errno) => Ok(Err(errno)),
        }
    }

    /// A fresh address space; the other tasks of the process end.
    fn exec(&mut self, task: usize, brk_start: Option<u64>) -> Result<Ret, Fail> {
        let (thread, process) = (self.thread(task), self.tasks[task].process);
        let pid = self.processes[process].pid;
        let done = self.host.tracer.exec(thread, pid, self.host.image.fd())?;
        if let Err(errno) = done {
            return Ok(Err(errno));
        }
        let others: Vec<usize> = self.live_tasks(process).filter(|&other| other != task).collect();
        for other in others {
            self.tasks[other].thread = None;
        }
        self.tasks[task].thread = Some(pid);
        if let Some(counters) = &mut self.tasks[task].counters {
            counters.moved(pid);
        }
        self.settle(pid)?;
        self.mms.push(brk_start.map_or(Heap::Open, Heap::Planned));
        self.processes[process].mm = self.mms.len() - 1;
        Ok(Ok(0))
    }

    /// What an operation waits for once it is done.
    fn wait_after(&mut self, task: usize, op: &Op) -> Option<Wait> {
        match *op {
            Op::Barrier { name } => Some(self.sync.arrive(name, task)),
            Op::Await { name } => Some(Wait::Posts(name)),
            Op::Wait { child }
            | Op::Fork { child, wait: true }
            | Op::Vfork { child, wait: true } => Some(Wait::End(child)),
            Op::Vfork { child, wait: false } => {
                let mm = self.processes[self.tasks[task].process].mm;
                Some(Wait::LeftMm { task: child, mm })
            }
            _ => None,
        }
    }

    /// Refuses what would touch our page.
    pub fn keep_out(&self, what: &str, start: u64, length: u64) -> Result<(), Fail> {
        let island = self.host.tracer.island;
        if !island::overlaps((start, length), island) {
            return Ok(());
        }
        Err(Fail::Refused(format!(
            "{what} of {length:#x} bytes at {start:#x} meets the page at {island:#x}, which the \
             engine needs (allowed: ranges without it)"
        )))
    }
}

/// `exe_fd` of `struct prctl_mm_map`, its last field: the executable stays as it is.
const NO_FILE: u64 = 0xffff_ffff;

/// The ids that must be set before the operation can begin.
fn awaited_ids(op: &Op) -> [Option<u32>; 2] {
    let at = match op {
        Op::Mmap(mmap) => mmap.hint,
        Op::Mremap(mremap) => {
            return [mremap.range.at.id, mremap.target.and_then(|target| target.id)];
        }
        Op::Range(_, range) => Some(range.at),
        Op::Access { at, .. } => Some(*at),
        Op::Touch(touch) => Some(touch.range.at),
        _ => None,
    };
    [at.and_then(|at| at.id), None]
}

/// The id that the operation names the address by that it returns.
fn defined_id(op: &Op) -> Option<u32> {
    match *op {
        Op::Mmap(Mmap { id, .. }) | Op::Mremap(Mremap { id, .. }) | Op::Brk { id, .. } => id,
        _ => None,
    }
}
