//! The tasks of a run: in file order, each until it waits or ends, round after round.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spfemu_core::events::NR_EVENTS;
use spfemu_core::program::{NoteMaps, Outcome, ProgramSpec, Start, Watch};

use super::child::Image;
use super::counters::Counters;
use super::files::Files;
use super::op::{Op, Repeat, TaskProgram};
use super::procfs;
use super::sys::Pid;
use super::tracer::{Fail, Tracer};
use super::waits::{Sync, Wait};
use crate::Counting;

/// What a run works with.
pub struct Host<'a> {
    pub tracer: &'a mut Tracer,
    pub files: &'a Files,
    pub image: &'a Image,
    /// The run is to end.
    pub over: &'a AtomicBool,
    pub watch: &'a Watch,
    /// The most that all processes may have together, bytes.
    pub max_memory: u64,
}

/// A `repeat` that is being executed.
struct Frame {
    repeat: Repeat,
    start: usize,
    left: u64,
    deadline: Option<Instant>,
}

/// A task of the program.
pub struct Task<'a> {
    program: &'a TaskProgram,
    /// It has started and has not ended: its thread.
    pub thread: Option<Pid>,
    pub process: usize,
    pub counters: Option<Counters>,
    pub has_started: bool,
    index: usize,
    frames: Vec<Frame>,
    /// For each operation: how often it ran.
    ran: Vec<u64>,
    /// What it waits for, and the outcome that it has once that has come.
    wait: Option<(Wait, Option<Outcome>)>,
    /// Its thread is in vfork.
    pub in_vfork: bool,
    pub outcomes: Vec<u8>,
    /// Finished rounds of its `for_ns` repeats.
    pub rounds: u64,
}

impl Task<'_> {
    pub fn has_ended(&self) -> bool {
        self.has_started && self.thread.is_none()
    }
}

/// A process of the program.
pub struct Process {
    pub first: u32,
    pub pid: Pid,
    pub mm: usize,
    pub maps: Vec<String>,
    /// It is gone, and its number may be somebody else's.
    pub has_ended: bool,
}

impl Process {
    /// One whose first task is `first`.
    pub fn new(first: u32, pid: Pid, mm: usize) -> Self {
        Self { first, pid, mm, maps: Vec::new(), has_ended: false }
    }
}

/// Where the heap of an address space begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heap {
    /// As the first brk says.
    Open,
    /// Here; the host does not know yet.
    Planned(u64),
    Settled,
}

/// What becomes of a task after an operation.
pub enum Next {
    GoOn,
    /// It waits; then it has this outcome.
    Wait(Wait, Option<Outcome>),
    End,
}

pub struct Run<'a> {
    pub spec: &'a ProgramSpec<'a>,
    pub host: Host<'a>,
    pub tasks: Vec<Task<'a>>,
    pub processes: Vec<Process>,
    pub mms: Vec<Heap>,
    pub sync: Sync,
    pub counting: Counting,
    pub note_maps: Vec<NoteMaps>,
    pub counters: [u64; NR_EVENTS],
    pub turns: Vec<(u32, u64)>,
    /// Faults since somebody looked how much memory there is.
    pub unchecked_faults: u64,
    /// The task and the operation that are at work, for messages.
    pub at: (usize, usize),
}

impl<'a> Run<'a> {
    pub fn new(
        spec: &'a ProgramSpec<'a>,
        programs: &'a [TaskProgram],
        host: Host<'a>,
        counting: Counting,
    ) -> Self {
        let task = |program: &'a TaskProgram| Task {
            program,
            thread: None,
            process: 0,
            counters: None,
            has_started: false,
            index: 0,
            frames: Vec::new(),
            ran: vec![0; program.ops.len()],
            wait: None,
            in_vfork: false,
            outcomes: Vec::new(),
            rounds: 0,
        };
        Self {
            spec,
            host,
            tasks: programs.iter().map(task).collect(),
            processes: Vec::new(),
            mms: Vec::new(),
            sync: Sync::new(spec, programs),
            counting,
            note_maps: Vec::new(),
            counters: [0; NR_EVENTS],
            turns: Vec::new(),
            unchecked_faults: 0,
            at: (0, 0),
        }
    }

    pub fn run(&mut self) -> Result<(), Fail> {
        self.start_first()?;
        loop {
            let mut somebody_ran = false;
            for task in 0..self.tasks.len() {
                if self.can_go_on(task) {
                    somebody_ran = true;
                    self.advance(task)?;
                }
            }
            if !somebody_ran {
                return self.keep_last_maps();
            }
        }
    }

    /// Empties the sentinel's address space, and makes the first process and its threads.
    fn start_first(&mut self) -> Result<(), Fail> {
        let sentinel = self.host.tracer.sentinel;
        self.settle(sentinel)?;
        let pid = self.host.tracer.clone(sentinel, libc::SIGCHLD as u64)?;
        let pid = pid.map_err(|errno| Fail::Host(format!("clone: errno {errno}")))?;
        self.host.tracer.end(sentinel)?;
        self.host.tracer.begin(sentinel, libc::SYS_pause, &[])?;
        let first = |task: &Task<'_>| task.program.start == Start::First;
        let all: Vec<usize> = (0..self.tasks.len()).filter(|&t| first(&self.tasks[t])).collect();
        let Some((&leader, others)) = all.split_first() else {
            return Err(Fail::Refused("no task starts with the program".to_owned()));
        };
        self.mms.push(Heap::Open);
        self.processes.push(Process::new(leader as u32, pid, 0));
        self.started(leader, 0, pid)?;
        for &task in others {
            match self.host.tracer.clone(pid, super::calls::THREAD)? {
                Ok(thread) => {
                    self.host.tracer.end(pid)?;
                    self.started(task, 0, thread)?;
                }
                Err(errno) => return Err(Fail::Host(format!("clone: errno {errno}"))),
            }
        }
        Ok(())
    }

    /// Gives a new process what all have: nothing mapped but our page, and no huge pages.
    pub fn settle(&mut self, pid: Pid) -> Result<(), Fail> {
        let tracer = &mut *self.host.tracer;
        tracer.call(pid, libc::SYS_prctl, &[libc::PR_SET_THP_DISABLE as u64, 1, 0, 0, 0])?;
        for mapping in procfs::mappings(pid).map_err(Fail::of("/proc/PID/maps"))? {
            let length = mapping.end - mapping.start;
            if mapping.start != tracer.island {
                // The kernel's own may be sealed, and one lies beyond user space.
                let ret = tracer.call(pid, libc::SYS_munmap, &[mapping.start, length])?;
                if ret != 0 && !mapping.special {
                    return Err(Fail::Host(format!("munmap of {}: {ret}", mapping.line)));
                }
            }
        }
        Ok(())
    }

    /// `task` is the thread `thread` of a process from now on.
    pub fn started(&mut self, task: usize, process: usize, thread: Pid) -> Result<(), Fail> {
        let pid = self.processes[process].pid;
        let opened = Counters::open(pid, thread, self.counting);
        let (counters, counting) = opened.map_err(Fail::of("the fault counters"))?;
        self.counting = counting;
        let task = &mut self.tasks[task];
        if task.has_started {
            return Err(Fail::Refused("a task is started twice".to_owned()));
        }
        (task.has_started, task.thread, task.process) = (true, Some(thread), process);
        task.counters = Some(counters);
        Ok(())
    }

    // --- who is at work --------------------------------------------------------------------------

    fn can_go_on(&mut self, task: usize) -> bool {
        self.tasks[task].thread.is_some()
            && match &self.tasks[task].wait {
                None => true,
                Some((wait, _)) => {
                    let wait = wait.clone();
                    self.is_met(&wait)
                }
            }
    }

    fn is_met(&mut self, wait: &Wait) -> bool {
        let ended = |task: u32| self.tasks[task as usize].has_ended();
        match *wait {
            Wait::End(task) => ended(task),
            Wait::LeftMm { task, mm } => {
                ended(task) || self.processes[self.tasks[task as usize].process].mm != mm
            }
            _ => self.sync.is_met(wait, &ended),
        }
    }

    /// Lets a task that can go on run until it waits or ends.
    fn advance(&mut self, task: usize) -> Result<(), Fail> {
        let waited = self.tasks[task].wait.take();
        if std::mem::take(&mut self.tasks[task].in_vfork) {
            let thread = self.thread(task);
            self.host.tracer.end(thread)?;
        }
        if let Some((_, Some(outcome))) = waited {
            self.finish_op(task, outcome);
        }
        loop {
            self.check_over()?;
            let index = self.tasks[task].index;
            self.at = (task, index);
            let next = match self.tasks[task].program.ops.get(index) {
                None => Next::End,
                Some((Op::Repeat(repeat), _)) => self.begin_repeat(task, *repeat),
                Some((Op::End { .. }, _)) => self.end_round(task),
                Some((op, _)) => self.execute(task, op)?,
            };
            match next {
                Next::GoOn => {}
                Next::Wait(wait, outcome) => {
                    // It may have come already.
                    if !self.is_met(&wait) || self.tasks[task].in_vfork {
                        self.tasks[task].wait = Some((wait, outcome));
                        return Ok(());
                    }
                    if let Some(outcome) = outcome {
                        self.finish_op(task, outcome);
                    }
                }
                Next::End => return self.end_task(task),
            }
        }
    }

    pub fn check_over(&self) -> Result<(), Fail> {
        if self.host.over.load(Ordering::Relaxed) { Err(Fail::Over) } else { Ok(()) }
    }

    fn begin_repeat(&mut self, task: usize, repeat: Repeat) -> Next {
        let for_ns = Duration::from_nanos(repeat.for_ns);
        let deadline = if repeat.for_ns == 0 { None } else { Instant::now().checked_add(for_ns) };
        let task = &mut self.tasks[task];
        task.frames.push(Frame { repeat, start: task.index, left: repeat.count, deadline });
        next_round(task)
    }

    fn end_round(&mut self, task: usize) -> Next {
        let task = &mut self.tasks[task];
        let frame = task.frames.last().expect("brackets are matched");
        task.rounds += u64::from(frame.repeat.for_ns > 0);
        next_round(task)
    }

    /// How often the current operation of `task` ran before.
    pub fn round(&self, task: usize) -> u64 {
        self.tasks[task].ran[self.tasks[task].index]
    }

    /// The index of the operation that `task` is at.
    pub fn index(&self, task: usize) -> usize {
        self.tasks[task].index
    }

    /// The current operation of `task` has come to its end with an outcome.
    pub fn finish_op(&mut self, task: usize, outcome: Outcome) {
        self.record(task, outcome);
        let task = &mut self.tasks[task];
        task.ran[task.index] += 1;
        task.index += 1;
    }

    /// Keeps an outcome of the current operation of `task`.
    pub fn record(&mut self, task: usize, outcome: Outcome) {
        self.host.watch.operations.fetch_add(1, Ordering::Relaxed);
        for (sum, count) in self.counters.iter_mut().zip(outcome.counters) {
            *sum += u64::from(count);
        }
        let (number, round) = (task as u32, self.round(task));
        match self.turns.last_mut() {
            Some((last, count)) if *last == number => *count += 1,
            _ => self.turns.push((number, 1)),
        }
        let task = &mut self.tasks[task];
        let (index, op) = (task.index as u32, task.program.ops[task.index].1);
        Outcome { task: number, index, round, op, ..outcome }.write(&mut task.outcomes);
    }

    pub fn thread(&self, task: usize) -> Pid {
        self.tasks[task].thread.expect("the task is at work")
    }
}

/// Begins a round of the innermost repeat, or leaves it.
fn next_round(task: &mut Task<'_>) -> Next {
    let frame = task.frames.last_mut().expect("inside a repeat");
    let is_late = frame.deadline.is_some_and(|deadline| Instant::now() >= deadline);
    if frame.left == 0 || is_late {
        task.index = frame.repeat.end + 1;
        task.frames.pop();
    } else {
        frame.left -= 1;
        task.index = frame.start + 1;
    }
    Next::GoOn
}
