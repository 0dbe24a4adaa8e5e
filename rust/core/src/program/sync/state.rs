//! The monitor's state: who waits for what, and what wakes whom. No platform in here.

use std::collections::BTreeMap;

use super::Stop;
use crate::mm::ProcText;
use crate::platform::TaskId;
use crate::program::load::Program;

/// What a task can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::program) enum Wait {
    /// That an id is set.
    Id(u32),
    /// That everybody who names this barrier has come, or has ended.
    Barrier(u32),
    /// That every post of this name has run once.
    Posts(u32),
    /// That this task has ended.
    End(TaskId),
    /// That this task has ended, or left the address space that it shared with the caller.
    LeftMm(TaskId),
    /// That this process has one task left.
    Alone(usize),
}

/// What a task is told when it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Woken {
    Go = 1,
    Killed = 2,
    Stuck = 3,
    NeverStarted = 4,
}

impl Woken {
    /// What a task does that was told `word`.
    pub fn from_word(word: u64) -> Result<(), Stop> {
        match word {
            1 => Ok(()),
            2 => Err(Stop::Killed),
            3 => Err(Stop::Stuck),
            4 => Err(Stop::NeverStarted),
            _ => unreachable!("a word that only Woken is stored in"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    NotStarted,
    Running,
    Waiting(Wait),
    Ended,
}

struct Task {
    phase: Phase,
    process: usize,
    killed: bool,
    /// It was started by vfork and has its own address space by now.
    left_mm: bool,
    /// The barriers it names.
    barriers: Vec<u32>,
}

struct Process {
    first: TaskId,
    /// Tasks that have not begun to end.
    staying: u32,
    /// Tasks that have not ended.
    present: u32,
    /// Its address space when its last task began to end.
    last: ProcText,
}

#[derive(Default)]
struct Barrier {
    /// Tasks that name it and have not ended.
    expected: usize,
    arrived: Vec<TaskId>,
}

/// Who is to be told what, once the mutex is released.
#[derive(Default)]
pub(super) struct WakeUps {
    pub woken: Vec<(TaskId, Woken)>,
    /// Tasks that are to end at their next operation boundary.
    pub killed: Vec<TaskId>,
}

/// What becomes of a task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// What it waits for has come already.
    Met,
    /// It is to sleep until it is woken.
    Sleep,
}

/// A process as a result shows it.
pub(in crate::program) struct ProcessEnd {
    pub first: TaskId,
    pub last: ProcText,
    /// A task of it that has not ended.
    pub live: Option<TaskId>,
}

pub(super) struct State {
    tasks: Vec<Task>,
    processes: Vec<Process>,
    barriers: Vec<Barrier>,
    ids_set: Vec<bool>,
    /// For each name: how many of its posts have not run yet.
    missing_posts: Vec<u64>,
    waiters: BTreeMap<Wait, Vec<TaskId>>,
    /// See [`State::nr_running`].
    running: u32,
    stuck: Vec<TaskId>,
}

impl State {
    pub fn new(program: &Program) -> Self {
        let mut barriers: Vec<Barrier> = Vec::new();
        barriers.resize_with(program.posts.len(), Barrier::default);
        for name in program.tasks.iter().flat_map(|task| &task.barriers) {
            barriers[*name as usize].expected += 1;
        }
        let task = |barriers: &Vec<u32>| Task {
            phase: Phase::NotStarted,
            process: 0,
            killed: false,
            left_mm: false,
            barriers: barriers.clone(),
        };
        Self {
            tasks: program.tasks.iter().map(|program| task(&program.barriers)).collect(),
            processes: Vec::new(),
            barriers,
            ids_set: vec![false; program.nr_ids as usize],
            missing_posts: program.posts.clone(),
            waiters: BTreeMap::new(),
            running: 0,
            stuck: Vec::new(),
        }
    }

    fn task(&mut self, task: TaskId) -> &mut Task {
        &mut self.tasks[task as usize]
    }

    pub fn process_of(&self, task: TaskId) -> usize {
        self.tasks[task as usize].process
    }

    /// Tasks that have started and neither wait nor have ended.
    pub fn nr_running(&self) -> u32 {
        self.running
    }

    pub fn start_first(&mut self, tasks: &[TaskId], wake: &mut WakeUps) {
        self.new_process(tasks[0]);
        for &task in tasks {
            self.enter(task, 0, wake);
        }
    }

    pub fn start(&mut self, parent: TaskId, child: TaskId, new_process: bool, wake: &mut WakeUps) {
        let mut process = self.process_of(parent);
        if new_process {
            process = self.new_process(child);
        }
        self.enter(child, process, wake);
    }

    fn new_process(&mut self, first: TaskId) -> usize {
        self.processes.push(Process { first, staying: 0, present: 0, last: ProcText::default() });
        self.processes.len() - 1
    }

    fn enter(&mut self, task: TaskId, process: usize, wake: &mut WakeUps) {
        self.task(task).process = process;
        self.processes[process].staying += 1;
        self.processes[process].present += 1;
        self.wake(task, Woken::Go, wake);
    }

    fn wake(&mut self, task: TaskId, woken: Woken, wake: &mut WakeUps) {
        self.task(task).phase = Phase::Running;
        self.running += 1;
        wake.woken.push((task, woken));
    }

    fn wake_waiters(&mut self, wait: Wait, wake: &mut WakeUps) {
        for task in self.waiters.remove(&wait).unwrap_or_default() {
            self.wake(task, Woken::Go, wake);
        }
    }

    /// `task` waits for `wait`.
    pub fn wait(&mut self, task: TaskId, wait: Wait, wake: &mut WakeUps) -> Result<Waiting, Stop> {
        if self.task(task).killed {
            return Err(Stop::Killed);
        }
        if self.is_met(wait) {
            return Ok(Waiting::Met);
        }
        self.task(task).phase = Phase::Waiting(wait);
        self.running -= 1;
        if let Wait::Barrier(name) = wait {
            self.barriers[name as usize].arrived.push(task);
            self.open_if_complete(name, wake);
        } else {
            self.waiters.entry(wait).or_default().push(task);
        }
        self.end_if_nobody_runs(wake);
        Ok(Waiting::Sleep)
    }

    fn is_met(&self, wait: Wait) -> bool {
        match wait {
            Wait::Id(id) => self.ids_set[id as usize],
            Wait::Barrier(_) => false,
            Wait::Posts(name) => self.missing_posts[name as usize] == 0,
            Wait::End(task) => self.has_ended(task),
            Wait::LeftMm(task) => self.has_ended(task) || self.tasks[task as usize].left_mm,
            Wait::Alone(process) => self.processes[process].present == 1,
        }
    }

    fn has_ended(&self, task: TaskId) -> bool {
        self.tasks[task as usize].phase == Phase::Ended
    }

    fn open_if_complete(&mut self, name: u32, wake: &mut WakeUps) {
        let barrier = &mut self.barriers[name as usize];
        if barrier.arrived.len() == barrier.expected {
            for task in std::mem::take(&mut barrier.arrived) {
                self.wake(task, Woken::Go, wake);
            }
        }
    }

    pub fn id_set(&mut self, id: u32, wake: &mut WakeUps) {
        self.ids_set[id as usize] = true;
        self.wake_waiters(Wait::Id(id), wake);
    }

    pub fn posted(&mut self, name: u32, wake: &mut WakeUps) {
        self.missing_posts[name as usize] -= 1;
        if self.missing_posts[name as usize] == 0 {
            self.wake_waiters(Wait::Posts(name), wake);
        }
    }

    /// Ends the other tasks of `task`'s process, for exec.
    pub fn kill_others(&mut self, task: TaskId, wake: &mut WakeUps) -> Result<(), Stop> {
        if self.task(task).killed {
            return Err(Stop::Killed);
        }
        let process = self.process_of(task);
        for other in 0..self.tasks.len() as TaskId {
            let Task { phase, process: its, killed, .. } = self.tasks[other as usize];
            let gone = matches!(phase, Phase::NotStarted | Phase::Ended);
            if other != task && its == process && !gone && !killed {
                self.kill(other, phase, wake);
            }
        }
        Ok(())
    }

    fn kill(&mut self, task: TaskId, phase: Phase, wake: &mut WakeUps) {
        self.task(task).killed = true;
        wake.killed.push(task);
        let Phase::Waiting(wait) = phase else { return };
        if let Wait::Barrier(name) = wait {
            self.barriers[name as usize].arrived.retain(|&other| other != task);
        } else if let Some(waiters) = self.waiters.get_mut(&wait) {
            waiters.retain(|&other| other != task);
        }
        self.wake(task, Woken::Killed, wake);
    }

    /// `task` has an address space of its own.
    pub fn left_mm(&mut self, task: TaskId, wake: &mut WakeUps) {
        self.task(task).left_mm = true;
        self.wake_waiters(Wait::LeftMm(task), wake);
    }

    /// `task` begins to end; whether it is the last of its process that does.
    pub fn leave(&mut self, task: TaskId) -> bool {
        let process = self.process_of(task);
        self.processes[process].staying -= 1;
        self.processes[process].staying == 0
    }

    pub fn set_last(&mut self, task: TaskId, last: ProcText) {
        let process = self.process_of(task);
        self.processes[process].last = last;
    }

    /// `task` has ended, and holds nothing any more.
    pub fn ended(&mut self, task: TaskId, wake: &mut WakeUps) {
        let process = self.process_of(task);
        self.task(task).phase = Phase::Ended;
        self.running -= 1;
        self.processes[process].present -= 1;
        if self.processes[process].present == 1 {
            self.wake_waiters(Wait::Alone(process), wake);
        }
        self.wake_waiters(Wait::End(task), wake);
        self.wake_waiters(Wait::LeftMm(task), wake);
        for name in std::mem::take(&mut self.task(task).barriers) {
            self.barriers[name as usize].expected -= 1;
            self.open_if_complete(name, wake);
        }
        self.end_if_nobody_runs(wake);
    }

    /// If nobody can wake anybody any more: who waits is stuck, and nobody else will start.
    fn end_if_nobody_runs(&mut self, wake: &mut WakeUps) {
        if self.running > 0 {
            return;
        }
        for task in 0..self.tasks.len() as TaskId {
            match self.tasks[task as usize].phase {
                Phase::Waiting(_) => {
                    self.stuck.push(task);
                    wake.woken.push((task, Woken::Stuck));
                }
                Phase::NotStarted => wake.woken.push((task, Woken::NeverStarted)),
                Phase::Running | Phase::Ended => {}
            }
        }
    }

    /// Tasks that wait for ever.
    pub fn stuck(&self) -> Vec<TaskId> {
        self.stuck.clone()
    }

    /// The processes there were, in order of their birth.
    pub fn process_ends(&self) -> Vec<ProcessEnd> {
        let mut ends: Vec<ProcessEnd> = self
            .processes
            .iter()
            .map(|process| ProcessEnd {
                first: process.first,
                last: process.last.clone(),
                live: None,
            })
            .collect();
        for (task, state) in self.tasks.iter().enumerate() {
            if matches!(state.phase, Phase::Running | Phase::Waiting(_)) {
                ends[state.process].live.get_or_insert(task as TaskId);
            }
        }
        ends
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/program/sync.rs"]
mod tests;
