//! The state that all CPUs of an explored system share: who can run, who waits for what, which
//! choices were made.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

use super::dpor::Dpor;
use super::strategy::{Point, Strategy};
use super::timeline::Step;
use super::token::{Deviation, TaskSet, rank_of};
use super::touch::Thing;
use crate::platform::condition::Condition;
use crate::platform::grace::GracePeriods;
use crate::platform::{Finding, LIVELOCK_FAULTS, Line, Lines, RcuCallback, TaskId};
use crate::program::Watch;

/// The most tasks that can be explored: they are bits of a word.
pub const MAX_TASKS: u32 = TaskSet::BITS;

/// Accesses in a row that change nothing, after which a task lets others go on although it does
/// not wait: a loop that watches something without saying so.
const IDLE_ACCESSES: u64 = 2000;

/// The most accesses of the others once something broke.
const MORE_STEPS: u64 = 20_000;

/// Accesses, or operations, after which a schedule looks whether it is to end.
const WATCH_EVERY: u64 = 1 << 13;

/// What a task that cannot run waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    Nothing,
    /// Until a word (its address in the host) satisfies the task's condition.
    Spin(usize),
    /// As `Spin`, and only once it is woken.
    Sleep(usize),
    /// Until a word is no longer `value`, or `owner` is no longer on a CPU.
    Owner {
        word: usize,
        value: u64,
        owner: TaskId,
    },
    /// Until every CPU of the set has been outside an irq-off section.
    Interrupt(TaskSet),
    /// Until any word changes.
    Change,
}

/// What one task waits for.
pub(super) struct TaskState {
    pub(super) wait: Cell<Wait>,
    pub(super) condition: Condition,
    /// Whether it waits for a word of the program's own synchronisation.
    waits_for_program: Cell<bool>,
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
    runnable: Cell<TaskSet>,
    /// Tasks that have not ended.
    live: Cell<TaskSet>,
    /// Tasks in an irq-off section.
    pub(super) irqs_off: Cell<TaskSet>,
    /// Tasks whose wait is over when a word is written.
    watching: Cell<TaskSet>,
    /// How often a task became runnable.
    arrivals: Cell<u64>,
    /// Tasks that have woken one that waited in the program, and decided nothing since.
    have_woken: Cell<TaskSet>,
    /// At most one task can run, and conflicts need not be noted: nothing to decide.
    is_alone: Cell<bool>,
    /// Two tasks could run at once before.
    is_concurrent: Cell<bool>,
    /// See [`Machine::notes`].
    notes: Cell<bool>,
    /// Who goes on when the running task suspends itself.
    next: Cell<Option<TaskId>>,
    pub(super) end: RefCell<Option<End>>,
    /// What broke, while the other tasks still run (see `halt`).
    found: RefCell<Option<Finding>>,
    pub(super) steps: Cell<u64>,
    /// Operations begun: an endless loop need not make an access.
    operations: Cell<u64>,
    max_steps: Cell<u64>,
    /// Steps, and operations, up to which nothing need be asked.
    unasked: Cell<u64>,
    watch: Arc<Watch>,
    /// The number of steps at which to see whether to ask, or whether the task is idle.
    alarm: Cell<u64>,
    /// The step that last changed a word or switched tasks.
    last_progress: Cell<u64>,
    points: Cell<u64>,
    preemptions: Cell<u32>,
    /// The strategy preempts no more often than that.
    max_preemptions: Cell<u32>,
    pub(super) deviations: RefCell<Vec<Deviation>>,
    pub(super) strategy: RefCell<Box<dyn Strategy>>,
    pub(super) dpor: RefCell<Dpor>,
    /// `dpor` chooses, not `strategy`.
    pub(super) reduces: Cell<bool>,
    /// Accesses are noted although `dpor` does not choose.
    pub(super) observes: Cell<bool>,
    /// What a task does once all others have ended is one step.
    pub(super) keeps_together: Cell<bool>,
    pub(super) grace: GracePeriods,
    pub(super) callbacks: RefCell<VecDeque<(u64, RcuCallback)>>,
    pub(super) mutants: Cell<u64>,
    pub(super) livelock_faults: Cell<u32>,
    pub(super) is_recording: Cell<bool>,
    pub(super) timeline: RefCell<Vec<Step>>,
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
        let task = || TaskState {
            wait: Cell::new(Wait::Nothing),
            condition: Condition::default(),
            waits_for_program: Cell::new(false),
        };
        Self {
            nr_tasks,
            tasks: (0..nr_tasks).map(|_| task()).collect(),
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
            grace: GracePeriods::default(),
            callbacks: RefCell::default(),
            mutants: Cell::new(0),
            livelock_faults: Cell::new(LIVELOCK_FAULTS),
            is_recording: Cell::new(false),
            timeline: RefCell::default(),
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

    fn set_runnable(&self, runnable: TaskSet) {
        if runnable & !self.runnable.get() != 0 {
            self.arrivals.set(self.arrivals.get() + 1);
        }
        self.runnable.set(runnable);
        let several = runnable & runnable.wrapping_sub(1) != 0;
        if several && self.phase.get() == Phase::Running {
            self.is_concurrent.set(true);
        }
        let notes = self.is_concurrent.get() && (self.reduces.get() || self.observes.get());
        let is_running = self.phase.get() == Phase::Running;
        self.notes.set(is_running && notes);
        self.is_alone.set(is_running && !several && !notes);
    }

    /// Whether two tasks could ever run at once so far: only then can accesses be in conflict.
    #[inline(always)]
    pub(super) fn is_concurrent(&self) -> bool {
        self.is_concurrent.get()
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

    /// Whether the running task goes on for certain: nobody else can, or a strategy would say so.
    #[inline(always)]
    pub(super) fn passes(&self) -> bool {
        let runnable = self.runnable.get();
        let is_point = runnable & runnable.wrapping_sub(1) != 0;
        if self.notes() || is_point && self.preemptions.get() < self.max_preemptions.get() {
            return false;
        }
        self.points.set(self.points.get() + u64::from(is_point));
        true
    }

    /// As `decide` before the usual access of `task` while the reduction chooses; notes the access
    /// if `task` goes on.
    #[inline]
    pub(super) fn decide_on_access(&self, task: TaskId, site: u64, writes: bool) -> TaskId {
        if self.is_last() {
            self.dpor.borrow_mut().races.touch(site, writes);
            return task;
        }
        let runnable = self.runnable.get();
        let nth = self.points.get();
        let point = Point { nth, runnable, current: task, can_go_on: true, is_free: false };
        let dpor = &mut *self.dpor.borrow_mut();
        let chosen = dpor.step(&point);
        self.points.set(nth + u64::from(self.has_choice()));
        if chosen == task {
            dpor.races.touch(site, writes);
        } else {
            self.has_chosen(&point, chosen);
        }
        chosen
    }

    /// Chooses who goes on; `task`, which ran last, can.
    #[inline]
    pub(super) fn decide(&self, task: TaskId) -> TaskId {
        if self.is_last() {
            return task;
        }
        self.choose(task, true, false)
    }

    /// As `decide`, between two operations: who has just let another begin may be the one to
    /// wait, and that is no preemption.
    pub(super) fn decide_between_operations(&self, task: TaskId) -> TaskId {
        if self.is_last() {
            return task;
        }
        let have_woken = self.have_woken.get();
        if self.has_choice() {
            self.have_woken.set(have_woken & !bit(task));
        }
        self.choose(task, true, have_woken & bit(task) != 0)
    }

    /// Whether all other tasks have ended: no choice is left, and no step to tell from the next.
    #[inline]
    fn is_last(&self) -> bool {
        let live = self.live.get();
        live & live.wrapping_sub(1) == 0 && self.keeps_together.get()
    }

    /// Whether several tasks can go on.
    fn has_choice(&self) -> bool {
        let runnable = self.runnable.get();
        runnable & runnable.wrapping_sub(1) != 0
    }

    fn choose(&self, current: TaskId, can_go_on: bool, is_free: bool) -> TaskId {
        let (nth, runnable) = (self.points.get(), self.runnable.get());
        let point = Point { nth, runnable, current, can_go_on, is_free };
        let chosen = if self.notes() && self.reduces.get() {
            self.dpor.borrow_mut().step(&point)
        } else if self.has_choice() {
            self.strategy.borrow_mut().choose(&point)
        } else {
            point.default_task()
        };
        if self.notes() && !self.reduces.get() {
            let races = &mut self.dpor.borrow_mut().races;
            races.close();
            races.begin_step(chosen);
        }
        self.points.set(nth + u64::from(self.has_choice()));
        self.has_chosen(&point, chosen);
        chosen
    }

    fn has_chosen(&self, point: &Point, chosen: TaskId) {
        if chosen != point.current {
            self.preemptions.set(self.preemptions.get() + u32::from(point.costs()));
            self.last_progress.set(self.steps.get());
        }
        if chosen != point.default_task() {
            let rank = rank_of(point.runnable, chosen);
            self.deviations.borrow_mut().push(Deviation { point: point.nth, rank });
        }
    }

    /// The running task hands over to `next`. Caller suspends it then.
    pub(super) fn hand_over(&self, next: TaskId) {
        self.next.set(Some(next));
    }

    /// `last` cannot go on: decides who does, or how the schedule ends.
    fn pick(&self, last: TaskId) {
        self.last_progress.set(self.steps.get());
        if self.runnable.get() == 0 && self.found.borrow().is_none() {
            self.run_the_idle();
        }
        if self.runnable.get() == 0 {
            self.finish();
        } else {
            self.next.set(Some(self.choose(last, false, false)));
            if self.notes() && self.is_last() {
                self.dpor.borrow_mut().races.take_the_rest();
            }
        }
    }

    /// Nobody can run: those that wait for any change may look again.
    fn run_the_idle(&self) {
        for task in self.waiting() {
            if self.tasks[task as usize].wait.get() == Wait::Change {
                self.make_runnable(task);
            }
        }
    }

    /// Nobody can run.
    fn finish(&self) {
        let end = if let Some(finding) = self.found.take() {
            End::Broken(finding)
        } else if self.live.get() == 0 {
            End::Finished
        } else if self.waiting().all(|task| self.tasks[task as usize].waits_for_program.get()) {
            End::Stuck
        } else {
            End::Broken(Finding { invariant: "deadlock", what: self.describe_waits() })
        };
        self.end_with(end);
    }

    fn waiting(&self) -> impl Iterator<Item = TaskId> + '_ {
        let waiting = self.live.get() & !self.runnable.get();
        (0..self.nr_tasks).filter(move |&task| waiting & bit(task) != 0)
    }

    fn describe_waits(&self) -> String {
        let one = |task: TaskId| match self.tasks[task as usize].wait.get() {
            Wait::Nothing | Wait::Change => format!("task {task} waits"),
            Wait::Spin(_) => format!("task {task} spins"),
            Wait::Sleep(_) => format!("task {task} sleeps"),
            Wait::Owner { owner, .. } => format!("task {task} spins while task {owner} runs"),
            Wait::Interrupt(targets) => {
                format!("task {task} waits for the interrupts of CPU {}", targets.trailing_zeros())
            }
        };
        let waits: Vec<_> = self.waiting().map(one).collect();
        format!("nobody can go on: {}", waits.join(", "))
    }

    /// Ends the schedule: no task will be resumed. The first end counts.
    pub(super) fn end_with(&self, end: End) {
        let end = self.found.take().map_or(end, End::Broken);
        self.end.borrow_mut().get_or_insert(end);
        self.next.set(None);
        self.is_alone.set(false);
        self.notes.set(false);
    }

    /// `task` has broken something, and never goes on. The others do while their accesses are
    /// noted, for what they race with is wanted, but nothing that they break counts.
    pub(super) fn halt(&self, task: TaskId, finding: Finding) {
        if !self.notes() {
            self.end_with(End::Broken(finding));
            return;
        }
        self.found.borrow_mut().get_or_insert(finding);
        let enough = self.steps.get().saturating_add(MORE_STEPS);
        self.max_steps.set(self.max_steps.get().min(enough));
        self.unasked.set(self.unasked.get().min(enough));
        self.ended(task);
    }

    /// Notes that the step that runs has to do with `thing`, if accesses are noted.
    pub(super) fn touch(&self, thing: Thing, writes: bool) {
        if self.notes() {
            self.dpor.borrow_mut().races.touch_thing(thing, writes);
        }
    }

    /// The running task waits. Caller suspends it then.
    pub(super) fn block(&self, task: TaskId, wait: Wait, on_line: Option<Line>) {
        let state = &self.tasks[task as usize];
        state.wait.set(wait);
        state.waits_for_program.set(on_line == Some(Line::FREE));
        if !matches!(wait, Wait::Interrupt(_) | Wait::Sleep(_)) {
            self.watching.set(self.watching.get() | bit(task));
        }
        self.set_runnable(self.runnable.get() & !bit(task));
        if on_line == Some(Line::FREE) {
            self.touch(Thing::Task(task), true);
        }
        if matches!(wait, Wait::Sleep(_)) {
            self.left_cpu(task);
        }
        if self.phase.get() == Phase::Running {
            self.pick(task);
        }
    }

    /// The running task has ended. Caller suspends it then.
    pub(super) fn ended(&self, task: TaskId) {
        self.live.set(self.live.get() & !bit(task));
        self.set_runnable(self.runnable.get() & !bit(task));
        self.touch(Thing::Task(task), true);
        self.left_cpu(task);
        if self.phase.get() == Phase::Running {
            self.pick(task);
        }
    }

    pub(super) fn make_runnable(&self, task: TaskId) {
        if self.notes() {
            self.dpor.borrow_mut().races.wakes(task);
        }
        if matches!(self.tasks[task as usize].wait.replace(Wait::Nothing), Wait::Sleep(_)) {
            self.touch(Thing::OnCpu(task), true);
        }
        self.watching.set(self.watching.get() & !bit(task));
        self.set_runnable(self.runnable.get() | bit(task));
    }

    /// Whether `task` is on its CPU, which it leaves only to sleep and when it ends.
    pub(super) fn on_cpu(&self, task: TaskId) -> bool {
        self.live.get() & bit(task) != 0
            && !matches!(self.tasks[task as usize].wait.get(), Wait::Sleep(_))
    }

    /// `task` is no longer on its CPU: who spins on it for a lock goes on.
    fn left_cpu(&self, task: TaskId) {
        self.touch(Thing::OnCpu(task), true);
        for waiter in self.waiting() {
            if let Wait::Owner { owner, .. } = self.tasks[waiter as usize].wait.get()
                && owner == task
            {
                self.make_runnable(waiter);
            }
        }
    }

    /// A word was written.
    #[inline(always)]
    pub(super) fn written(&self, word: usize, before: u64, after: u64) {
        if before != after {
            self.last_progress.set(self.steps.get());
        }
        if self.watching.get() != 0 {
            self.look(word, before, after);
        }
    }

    /// Lets those go on who wait for what a word is now, and those not whose wait is not over
    /// after all.
    #[cold]
    fn look(&self, word: usize, before: u64, after: u64) {
        for task in 0..self.nr_tasks {
            if self.watching.get() & bit(task) == 0 {
                continue;
            }
            let state = &self.tasks[task as usize];
            let runnable = self.runnable.get();
            match state.wait.get() {
                Wait::Spin(watched) if watched == word => {
                    let may = state.condition.holds(after);
                    let with = if may { runnable | bit(task) } else { runnable & !bit(task) };
                    if self.notes() && with != runnable {
                        let races = &mut self.dpor.borrow_mut().races;
                        if may { races.wakes(task) } else { races.stops(task) }
                    }
                    self.set_runnable(with);
                }
                Wait::Owner { word: watched, value, .. } if watched == word && after != value => {
                    self.make_runnable(task);
                }
                Wait::Change if before != after => self.make_runnable(task),
                _ => {}
            }
        }
    }

    /// Wakes whoever sleeps on `word`, if what it waits for is so: else it would sleep again.
    pub(super) fn wake(&self, waker: TaskId, word: usize, value: u64) {
        for task in 0..self.nr_tasks {
            let state = &self.tasks[task as usize];
            if state.wait.get() == Wait::Sleep(word) && state.condition.holds(value) {
                let for_program = state.waits_for_program.get();
                self.have_woken.set(self.have_woken.get() | u64::from(for_program) << waker);
                self.make_runnable(task);
            }
        }
    }

    /// `task` has left its irq-off section: interrupts that waited are handled.
    pub(super) fn irqs_on(&self, task: TaskId) {
        self.irqs_off.set(self.irqs_off.get() & !bit(task));
        for waiter in self.waiting() {
            let state = &self.tasks[waiter as usize];
            if let Wait::Interrupt(targets) = state.wait.get() {
                let left = targets & !bit(task);
                if left != targets && self.notes() {
                    self.dpor.borrow_mut().races.wakes(waiter);
                }
                state.wait.set(Wait::Interrupt(left));
                if left == 0 {
                    self.make_runnable(waiter);
                }
            }
        }
    }
}
