//! Who goes on: the scheduling points of a schedule, and how it ends.

use super::machine::{End, MAX_TASKS, MORE_STEPS, Machine, Wait, bit};
use super::strategy::Point;
use super::token::{Deviation, TaskSet, rank_of, tasks_of};
use crate::platform::{Finding, TaskId};

impl Machine {
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
    #[inline(always)]
    pub(super) fn decide_on_access(&self, task: TaskId, site: u64, writes: bool) -> TaskId {
        // Most steps of a schedule are those of the one before.
        if !self.is_last() && self.dpor.borrow_mut().repeats(task, self.runnable.get()) {
            self.points.set(self.points.get() + u64::from(self.has_choice()));
            return task;
        }
        self.decide_on_new_access(task, site, writes)
    }

    #[inline(never)]
    fn decide_on_new_access(&self, task: TaskId, site: u64, writes: bool) -> TaskId {
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

    /// Chooses which of `nr` stores an access of the running task is behind, or what else may happen;
    /// the last is what memory in order would do, any other counts as a preemption if it `costs`.
    pub(super) fn choose_store(&self, nr: usize, costs: bool) -> usize {
        let (nth, last) = (self.points.get(), nr as u32 - 1);
        let runnable = TaskSet::MAX >> (MAX_TASKS - nr as u32);
        let point = Point { nth, runnable, current: last, can_go_on: true, is_free: !costs };
        let chosen = if self.reduces.get() {
            self.dpor.borrow_mut().choose_store(&point)
        } else {
            self.strategy.borrow_mut().choose_store(&point)
        };
        self.points.set(nth + 1);
        self.has_chosen(&point, chosen);
        chosen as usize
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
    pub(super) fn pick(&self, last: TaskId) {
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

    pub(super) fn waiting(&self) -> impl Iterator<Item = TaskId> + '_ {
        tasks_of(self.live.get() & !self.runnable.get())
    }

    /// Whether a task waits, and has something left to do.
    pub(super) fn waits_for_others(&self, task: TaskId) -> bool {
        let is_idle = self.tasks[task as usize].wait.get() == Wait::Callbacks;
        self.live.get() & bit(task) != 0 && !is_idle
    }

    fn describe_waits(&self) -> String {
        let one = |task: TaskId| match self.tasks[task as usize].wait.get() {
            Wait::Nothing | Wait::Change | Wait::Callbacks => format!("task {task} waits"),
            Wait::Spin(_) => format!("task {task} spins"),
            Wait::Sleep(_) => format!("task {task} sleeps"),
            Wait::Owner { owner, .. } => format!("task {task} spins while task {owner} runs"),
            Wait::Interrupt(targets) => {
                format!("task {task} waits for the interrupts of CPU {}", targets.trailing_zeros())
            }
        };
        let waits = self.waiting().filter(|&task| self.waits_for_others(task));
        let waits: Vec<_> = waits.map(one).collect();
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
}
