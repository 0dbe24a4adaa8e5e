//! The state that all CPUs of an explored system share: who can run, who waits for what, which
//! choices were made.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use super::at_work::AtWork;
use super::dpor::Dpor;
use super::explainer::Explainer;
use super::hazards::Hazards;
use super::memory::{Memory, Model};
use super::strategy::Strategy;
use super::timeline::Step;
use super::token::{Deviation, TaskSet};
use crate::platform::condition::Condition;
use crate::platform::grace::GracePeriods;
use crate::platform::{Finding, LIVELOCK_FAULTS, Lines, RcuCallback, TaskId};
use crate::program::Watch;

/// The most tasks that can be explored: they are bits of a word.
pub const MAX_TASKS: u32 = TaskSet::BITS;

/// Accesses in a row that change nothing, after which a task lets others go on although it does
/// not wait: a loop that watches something without saying so.
const IDLE_ACCESSES: u64 = 2000;

/// The most accesses of the others once something broke.
pub(super) const MORE_STEPS: u64 = 20_000;

/// Accesses, or operations, after which a schedule looks whether it is to end.
const WATCH_EVERY: u64 = 1 << 13;

/// What a task that cannot run waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Wait {
    #[default]
    Nothing,
    /// Until a word (its address in the host) satisfies the task's condition.
    Spin(usize),
    /// As `Spin`, and only once it is woken.
    Sleep(usize),
    /// Until a word is no longer `value`, or `owner` is no longer on a CPU.
    Owner { word: usize, value: u64, owner: TaskId },
    /// Until every CPU of the set has been outside an irq-off section.
    Interrupt(TaskSet),
    /// Until any word changes.
    Change,
    /// Until a grace period has ended that a callback waits for.
    Callbacks,
}

/// What one task waits for.
#[derive(Default)]
pub(super) struct TaskState {
    pub(super) wait: Cell<Wait>,
    pub(super) condition: Condition,
    /// Whether it waits for a word of the program's own synchronisation.
    pub(super) waits_for_program: Cell<bool>,
}

/// Where a schedule is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Each task runs up to its first choice.
    Starting,
    Running,
    /// All tasks have stopped: what runs now is nobody's.
    AtRest,
}

/// How a schedule ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Every task has ended.
    Finished,
    /// The tasks that have not ended wait for each other in the program.
    Stuck,
    Broken(Finding),
    /// It came to the bound on steps.
    TooLong,
    /// Whoever started the exploration wants it to end.
    Interrupted,
}

pub(super) struct Machine {
    pub(super) nr_tasks: u32,
    pub(super) tasks: Vec<TaskState>,
    pub(super) phase: Cell<Phase>,
    pub(super) runnable: Cell<TaskSet>,
    /// Tasks that have not ended.
    pub(super) live: Cell<TaskSet>,
    /// Tasks in an irq-off section.
    pub(super) irqs_off: Cell<TaskSet>,
    /// Tasks whose wait is over when a word is written.
    pub(super) watching: Cell<TaskSet>,
    /// How often a task became runnable.
    arrivals: Cell<u64>,
    /// Tasks that have woken one that waited in the program, and decided nothing since.
    pub(super) have_woken: Cell<TaskSet>,
    /// At most one task can run, and conflicts need not be noted: nothing to decide.
    pub(super) is_alone: Cell<bool>,
    /// Two tasks could run at once before, or a hazard was met.
    pub(super) is_concurrent: Cell<bool>,
    /// See [`Machine::notes`].
    pub(super) notes: Cell<bool>,
    /// Who goes on when the running task suspends itself.
    pub(super) next: Cell<Option<TaskId>>,
    pub(super) end: RefCell<Option<End>>,
    /// What broke, while the other tasks still run (see `halt`).
    pub(super) found: RefCell<Option<Finding>>,
    pub(super) steps: Cell<u64>,
    /// Operations begun: an endless loop need not make an access.
    operations: Cell<u64>,
    pub(super) max_steps: Cell<u64>,
    /// Steps, and operations, up to which nothing need be asked.
    pub(super) unasked: Cell<u64>,
    watch: Arc<Watch>,
    /// The number of steps at which to see whether to ask, or whether the task is idle.
    alarm: Cell<u64>,
    /// The step that last changed a word or switched tasks.
    pub(super) last_progress: Cell<u64>,
    pub(super) points: Cell<u64>,
    pub(super) preemptions: Cell<u32>,
    /// The strategy preempts no more often than that.
    pub(super) max_preemptions: Cell<u32>,
    pub(super) deviations: RefCell<Vec<Deviation>>,
    pub(super) strategy: RefCell<Box<dyn Strategy>>,
    pub(super) dpor: RefCell<Dpor>,
    /// `dpor` chooses, not `strategy`.
    pub(super) reduces: Cell<bool>,
    /// Accesses are noted although `dpor` does not choose.
    pub(super) observes: Cell<bool>,
    /// What a task does once all others have ended is one step.
    pub(super) keeps_together: Cell<bool>,
    /// What a load may see, if that is not always the last store.
    pub(super) memory: RefCell<Memory>,
    pub(super) is_weak: Cell<bool>,
    /// It is asked for now: not before two tasks could run at once.
    pub(super) weakens: Cell<bool>,
    pub(super) grace: GracePeriods,
    pub(super) callbacks: RefCell<VecDeque<(u64, RcuCallback)>>,
    pub(super) mutants: Cell<u64>,
    pub(super) hazards: Cell<Hazards>,
    /// Those that have happened.
    pub(super) met: Cell<Hazards>,
    pub(super) at_work: AtWork,
    pub(super) checks_sections: Cell<bool>,
    pub(super) livelock_faults: Cell<u32>,
    pub(super) is_recording: Cell<bool>,
    /// What a task does while no other can run is recorded, too.
    pub(super) records_all: Cell<bool>,
    pub(super) timeline: RefCell<Vec<Step>>,
    pub(super) explainer: Explainer,
    pub(super) lines: Option<Arc<Lines>>,
}

pub(super) fn bit(task: TaskId) -> TaskSet {
    1 << task
}

impl Machine {
    pub(super) fn new(
        nr_tasks: u32,
        lines: Option<Arc<Lines>>,
        strategy: Box<dyn Strategy>,
        watch: &Arc<Watch>,
    ) -> Self {
        Self {
            nr_tasks,
            tasks: (0..nr_tasks).map(|_| TaskState::default()).collect(),
            phase: Cell::new(Phase::AtRest),
            runnable: Cell::new(0),
            live: Cell::new(0),
            irqs_off: Cell::new(0),
            watching: Cell::new(0),
            arrivals: Cell::new(0),
            have_woken: Cell::new(0),
            is_alone: Cell::new(false),
            is_concurrent: Cell::new(false),
            notes: Cell::new(false),
            next: Cell::new(None),
            end: RefCell::new(None),
            found: RefCell::new(None),
            steps: Cell::new(0),
            operations: Cell::new(0),
            max_steps: Cell::new(u64::MAX),
            unasked: Cell::new(0),
            watch: Arc::clone(watch),
            alarm: Cell::new(0),
            last_progress: Cell::new(0),
            points: Cell::new(0),
            preemptions: Cell::new(0),
            max_preemptions: Cell::new(u32::MAX),
            deviations: RefCell::default(),
            strategy: RefCell::new(strategy),
            dpor: RefCell::new(Dpor::new(nr_tasks, None)),
            reduces: Cell::new(false),
            observes: Cell::new(false),
            keeps_together: Cell::new(true),
            memory: RefCell::new(Memory::new(Model::Sc, nr_tasks as usize)),
            is_weak: Cell::new(false),
            weakens: Cell::new(false),
            grace: GracePeriods::default(),
            callbacks: RefCell::default(),
            mutants: Cell::new(0),
            hazards: Cell::default(),
            met: Cell::default(),
            at_work: AtWork::default(),
            checks_sections: Cell::new(false),
            livelock_faults: Cell::new(LIVELOCK_FAULTS),
            is_recording: Cell::new(false),
            records_all: Cell::new(false),
            timeline: RefCell::default(),
            explainer: Explainer::default(),
            lines,
        }
    }

    /// What runs next is nobody's: no choices, no conflicts.
    pub(super) fn rest(&self) {
        self.come_to_rest();
        self.is_concurrent.set(false);
        self.irqs_off.set(0);
        self.grace.reset();
        self.callbacks.borrow_mut().clear();
        self.steps.set(0);
    }

    /// The schedule has ended.
    pub(super) fn come_to_rest(&self) {
        self.phase.set(Phase::AtRest);
        self.set_runnable(0);
    }

    /// Prepares a schedule: every task can run.
    pub(super) fn begin(&self, max_steps: u64) {
        for task in &self.tasks {
            task.wait.set(Wait::Nothing);
        }
        let all = TaskSet::MAX >> (MAX_TASKS - self.nr_tasks);
        self.live.set(all);
        self.watching.set(0);
        self.have_woken.set(0);
        self.at_work.reset();
        self.met.set(Hazards::default());
        self.found.take();
        self.next.set(None);
        *self.end.borrow_mut() = None;
        self.steps.set(0);
        self.operations.set(0);
        self.max_steps.set(max_steps);
        self.unasked.set(max_steps.min(WATCH_EVERY));
        self.last_progress.set(0);
        self.set_alarm();
        self.points.set(0);
        self.preemptions.set(0);
        self.max_preemptions.set(self.strategy.borrow().max_preemptions());
        self.deviations.borrow_mut().clear();
        if self.observes.get() && !self.reduces.get() {
            let races = &mut self.dpor.borrow_mut().races;
            races.go_back(0);
            races.pairs.get_or_insert_default().clear();
        }
        if self.is_weak.get() {
            self.memory.borrow_mut().reset();
        }
        self.timeline.borrow_mut().clear();
        self.phase.set(Phase::Starting);
        self.set_runnable(all);
    }

    /// The tasks have come to their first choices: who goes first?
    pub(super) fn start(&self) {
        self.phase.set(Phase::Running);
        self.set_runnable(self.runnable.get());
        if self.end.borrow().is_none() {
            self.pick(self.nr_tasks - 1);
        }
    }

    pub(super) fn take_next(&self) -> Option<TaskId> {
        self.next.take()
    }

    pub(super) fn live(&self) -> TaskSet {
        self.live.get()
    }

    /// How many points with a choice there were.
    pub(super) fn points(&self) -> u64 {
        self.points.get()
    }

    pub(super) fn preemptions(&self) -> u32 {
        self.preemptions.get()
    }

    /// Whether nothing is to be decided, noted or recorded now.
    #[inline(always)]
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone.get()
    }

    /// How often a task became runnable so far.
    #[inline(always)]
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals.get()
    }

    pub(super) fn set_runnable(&self, runnable: TaskSet) {
        if runnable & !self.runnable.get() != 0 {
            self.arrivals.set(self.arrivals.get() + 1);
        }
        self.runnable.set(runnable);
        let several = runnable & runnable.wrapping_sub(1) != 0;
        if several && self.phase.get() == Phase::Running {
            self.is_concurrent.set(true);
        }
        let has_choices = self.is_concurrent.get() || !self.hazards.get().is_empty();
        let notes = has_choices && (self.reduces.get() || self.observes.get());
        let is_running = self.phase.get() == Phase::Running;
        self.notes.set(is_running && notes);
        self.weakens.set(is_running && self.is_concurrent.get() && self.is_weak.get());
        self.is_alone.set(is_running && !several && !notes);
    }

    /// Whether two tasks could ever run at once so far: only then can accesses be in conflict.
    #[inline(always)]
    pub(super) fn is_concurrent(&self) -> bool {
        self.is_concurrent.get()
    }

    /// Whether what may happen besides can be chosen now.
    pub(super) fn chooses_hazards(&self) -> bool {
        self.phase.get() == Phase::Running && self.end.borrow().is_none()
    }

    /// Whether accesses that may be in conflict are noted now, for the reduction.
    #[inline(always)]
    pub(super) fn notes(&self) -> bool {
        self.notes.get()
    }

    /// Counts a step of the running task, unless it is time for `count_last_step`.
    #[inline(always)]
    pub(super) fn count_step(&self) -> bool {
        let steps = self.steps.get();
        if steps >= self.alarm.get() {
            return false;
        }
        self.steps.set(steps + 1);
        true
    }

    /// Counts a step of the running task; whether the schedule may go on.
    pub(super) fn count_last_step(&self) -> bool {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        steps <= self.unasked.get() || self.goes_on(steps)
    }

    /// Counts an operation of the running task; whether the schedule may go on.
    pub(super) fn count_operation(&self) -> bool {
        let operations = self.operations.get() + 1;
        self.operations.set(operations);
        operations <= self.unasked.get() || self.goes_on(operations)
    }

    /// Whether the schedule goes on after so many steps or operations; ends it if not.
    #[cold]
    fn goes_on(&self, so_far: u64) -> bool {
        if self.watch.is_stopped() {
            self.end_with(End::Interrupted);
        } else if so_far > self.max_steps.get() {
            self.end_with(End::TooLong);
        } else {
            self.unasked.set(self.max_steps.get().min(so_far.saturating_add(WATCH_EVERY)));
            return true;
        }
        false
    }

    /// Before which step nothing needs to be looked at.
    pub(super) fn set_alarm(&self) {
        self.alarm.set(self.unasked.get().min(self.last_progress.get() + IDLE_ACCESSES));
    }

    /// Whether the running task has looked at words for so long, without any change, that
    /// others should go on.
    #[inline(always)]
    pub(super) fn is_idle(&self) -> bool {
        self.steps.get() - self.last_progress.get() > IDLE_ACCESSES
    }
}
