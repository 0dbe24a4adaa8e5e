//! Who waits, for what, and who lets whom go on.

use super::machine::{Machine, Phase, Wait, bit};
use super::touch::Thing;
use crate::platform::{Line, TaskId};

impl Machine {
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
        let is_idle = wait == Wait::Callbacks;
        state.waits_for_program.set(on_line == Some(Line::FREE) || is_idle);
        if !is_idle && !matches!(wait, Wait::Interrupt(_) | Wait::Sleep(_)) {
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
        self.at_work.ends(task);
        self.end_softirq();
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
