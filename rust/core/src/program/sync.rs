//! How the tasks of a program wait for each other: barriers, posts, ids, starts and ends.
//!
//! A monitor. Its state is ordinary data behind a mutex, under which nothing of the platform is
//! called, so that a platform of coroutines never switches inside. Who waits sleeps on a word of
//! its own; the words cost nothing, and the explorer never chooses at them.

mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use self::state::{ProcessEnd, Wait};
use self::state::{State, Waiting, WakeUps, Woken};
use super::load::Program;
use crate::mm::ProcText;
use crate::platform::{Field, Line, Ordering, Platform, TaskId, Word};

/// What an id holds that nobody has set. No call returns it: it is no page, and no break.
const UNSET: u64 = u64::MAX - 1;
/// What a word of a sleeping task holds.
const ASLEEP: u64 = 0;

/// Why a task does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It did `exit`, or its operations are through.
    Exit,
    /// Another task of its process called `exec`: it ends in good order.
    Killed,
    /// The kernel killed it, in a call that could not fail any more.
    Sigkill,
    /// It waits for something that will never come.
    Stuck,
    /// Nobody started it.
    NeverStarted,
    /// The run is over.
    Over,
}

/// The words of one task.
struct TaskWords<P: Platform> {
    /// [`ASLEEP`], or a [`Woken`].
    woken: Word<P>,
    /// 1: it is to end at its next operation boundary.
    killed: Word<P>,
}

/// How the tasks of one run wait for each other.
pub(super) struct ProgramSync<P: Platform> {
    ids: Vec<Word<P>>,
    tasks: Vec<TaskWords<P>>,
    state: Mutex<State>,
}

impl<P: Platform> ProgramSync<P> {
    pub fn new(program: &Program) -> Self {
        let word = |offset| Word::new(Line::FREE, offset);
        let ids: Vec<Word<P>> = (0..program.nr_ids).map(|_| word(0)).collect();
        ids.iter().for_each(|id| id.poke(UNSET));
        let words = || TaskWords { woken: word(0), killed: word(Line::SOON) };
        let tasks = program.tasks.iter().map(|_| words());
        Self { ids, tasks: tasks.collect(), state: Mutex::new(State::new(program)) }
    }

    /// The address that `id` names; waits until it is set.
    #[inline]
    pub fn id(&self, cpu: &P, id: u32) -> Result<u64, Stop> {
        if let Some(address) = self.id_so_far(cpu, id) {
            return Ok(address);
        }
        self.wait(cpu, Wait::Id(id))?;
        Ok(self.id_so_far(cpu, id).unwrap_or(UNSET))
    }

    /// As `id`, if it names something by now.
    #[inline]
    pub fn id_so_far(&self, cpu: &P, id: u32) -> Option<u64> {
        let word = Field::<P, u64>::permanent(&self.ids[id as usize]);
        // Acquire: what was done before the id was set has happened; pairs with `set_id`.
        Some(word.load(cpu, Ordering::Acquire)).filter(|&address| address != UNSET)
    }

    /// Lets `id` name `address`.
    pub fn set_id(&self, cpu: &P, id: u32, address: u64) {
        // AcqRel: pairs with the Acquire in `id`.
        if cpu.swap(&self.ids[id as usize], address, Ordering::AcqRel) == UNSET {
            self.change(cpu, |state, wake| state.id_set(id, wake));
        }
    }

    /// One of the posts of `name` has run for the first time.
    pub fn post(&self, cpu: &P, name: u32) {
        self.change(cpu, |state, wake| state.posted(name, wake));
    }

    /// The tasks that start with the program do: before any of them runs.
    pub fn start_first(&self, cpu: &P, tasks: &[TaskId]) {
        self.change(cpu, |state, wake| state.start_first(tasks, wake));
    }

    /// The current task starts `child`: in its own process, or as the first of a new one.
    pub fn start(&self, cpu: &P, child: TaskId, new_process: bool) {
        self.change(cpu, |state, wake| state.start(cpu.task(), child, new_process, wake));
    }

    /// Waits until the current task is started.
    pub fn await_start(&self, cpu: &P) -> Result<(), Stop> {
        self.sleep(cpu)
    }

    /// Waits for `wait`; returns at once if it is met.
    pub fn wait(&self, cpu: &P, wait: Wait) -> Result<(), Stop> {
        let task = cpu.task();
        // Asleep before anybody can know that there is somebody to wake.
        self.tasks[task as usize].woken.poke(ASLEEP);
        // Idle before anybody can know that it waits, and may go on.
        cpu.goes_idle();
        let stop =
            self.change(cpu, |state, wake| state.wait(task, wait, wake)).and_then(|waiting| {
                match waiting {
                    Waiting::Met => Ok(()),
                    Waiting::Sleep => self.sleep(cpu),
                }
            });
        cpu.works_again();
        stop
    }

    /// Ends the other tasks of the current one's process, and waits until they have ended.
    pub fn become_alone(&self, cpu: &P) -> Result<(), Stop> {
        let task = cpu.task();
        self.change(cpu, |state, wake| state.kill_others(task, wake))?;
        let process = self.lock().process_of(task);
        self.wait(cpu, Wait::Alone(process))
    }

    /// The current task has an address space of its own.
    pub fn left_mm(&self, cpu: &P) {
        self.change(cpu, |state, wake| state.left_mm(cpu.task(), wake));
    }

    /// Whether another task's exec ends the current one.
    #[inline]
    pub fn is_killed(&self, cpu: &P) -> bool {
        cpu.load(&self.tasks[cpu.task() as usize].killed, Ordering::Relaxed) != 0
    }

    /// Whether every other task waits for another, has ended or was not started: none is in the
    /// middle of an operation.
    pub fn nobody_else_runs(&self) -> bool {
        self.lock().nr_running() == 1
    }

    /// The current task begins to end; whether it is the last of its process that does.
    pub fn leave(&self, cpu: &P) -> bool {
        self.lock().leave(cpu.task())
    }

    /// What the address space of the current task's process was in the end.
    pub fn set_last(&self, cpu: &P, last: ProcText) {
        self.lock().set_last(cpu.task(), last);
    }

    /// The current task has ended, and holds nothing any more.
    pub fn ended(&self, cpu: &P) {
        cpu.goes_idle();
        self.change(cpu, |state, wake| state.ended(cpu.task(), wake));
    }

    /// Tasks that wait for ever.
    pub fn stuck(&self) -> Vec<TaskId> {
        self.lock().stuck()
    }

    /// The processes there were, in order of their birth.
    pub fn process_ends(&self) -> Vec<ProcessEnd> {
        self.lock().process_ends()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and then wakes whom that wakes.
    fn change<R>(&self, cpu: &P, change: impl FnOnce(&mut State, &mut WakeUps) -> R) -> R {
        let mut wake = WakeUps::default();
        let result = change(&mut self.lock(), &mut wake);
        for task in wake.killed {
            cpu.store(&self.tasks[task as usize].killed, 1, Ordering::Relaxed);
        }
        for (task, woken) in wake.woken {
            let word = &self.tasks[task as usize].woken;
            // Release: what the waker did has happened; pairs with the Acquire in `sleep`.
            cpu.store(word, woken as u64, Ordering::Release);
            cpu.wake(word);
        }
        result
    }

    fn sleep(&self, cpu: &P) -> Result<(), Stop> {
        let word = Field::<P, u64>::permanent(&self.tasks[cpu.task() as usize].woken);
        loop {
            let woken = word.load(cpu, Ordering::Acquire);
            if woken != ASLEEP {
                return Woken::from_word(woken);
            }
            cpu.sleep_until(word.word(), |woken| woken != ASLEEP);
        }
    }
}
