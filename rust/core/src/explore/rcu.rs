//! RCU callbacks: who queues them, and who runs them.
//!
//! Each task does between two of its operations. With [`Hazard::Softirq`] a task of its own does as
//! well, whenever it is chosen, which stands for all other CPUs.

use super::cpu::Cpu;
use super::machine::{Machine, Wait, bit};
use super::token::TaskSet;
use super::touch::Thing;
use crate::platform::{Hazard, RcuCallback, TaskId};

impl Machine {
    /// The last task, if it is the one that runs callbacks.
    fn softirq(&self) -> Option<TaskId> {
        self.hazards.get().has(Hazard::Softirq).then(|| self.nr_tasks - 1)
    }

    /// The oldest callback, if its grace period has ended.
    fn ready_callback(&self) -> Option<RcuCallback> {
        let callbacks = self.callbacks.borrow();
        let &(number, callback) = callbacks.front()?;
        self.grace.has_ended(number).then_some(callback)
    }

    /// A callback was queued, or a read section has ended.
    #[inline(always)]
    pub(super) fn look_for_callbacks(&self) {
        if !self.hazards.get().is_empty() && self.ready_callback().is_some() {
            self.wake_softirq();
        }
    }

    fn wake_softirq(&self) {
        if let Some(softirq) = self.softirq()
            && self.tasks[softirq as usize].wait.get() == Wait::Callbacks
        {
            self.make_runnable(softirq);
        }
    }

    /// A task has ended. When all others have, the softirq does, too.
    pub(super) fn end_softirq(&self) {
        if self.softirq().is_some_and(|softirq| self.live() == bit(softirq)) {
            self.wake_softirq();
        }
    }
}

impl Cpu {
    pub(super) fn queue_callback(&self, callback: RcuCallback) {
        self.machine.touch(Thing::Sections, true);
        self.machine.touch(Thing::Callbacks, true);
        self.event(|| format!("call_rcu: {callback}"));
        let number = self.machine.grace.begin();
        self.machine.callbacks.borrow_mut().push_back((number, callback));
        self.machine.look_for_callbacks();
    }

    /// The oldest callback, if its grace period has ended, for this CPU to run.
    pub(super) fn take_callback(&self) -> Option<RcuCallback> {
        self.machine.touch(Thing::Callbacks, false);
        if self.machine.callbacks.borrow().is_empty() {
            return None;
        }
        self.machine.touch(Thing::Sections, true);
        let callback = self.machine.ready_callback()?;
        self.machine.callbacks.borrow_mut().pop_front();
        // A grace period is a full barrier on every CPU.
        self.full_fences_of(TaskSet::MAX);
        self.machine.touch(Thing::Callbacks, true);
        self.event(|| format!("after the grace period: {callback}"));
        Some(callback)
    }

    /// Whether the softirq is in the middle of a callback.
    pub(super) fn softirq_runs(&self) -> bool {
        // What is decided by that comes before its end, or after.
        if self.machine.hazards.get().has(Hazard::Softirq) {
            self.machine.touch(Thing::Callbacks, false);
        }
        self.machine.at_work.softirq.get()
    }

    /// `run_ksoftirqd()`: until all other tasks have ended, and nothing is left.
    pub(super) fn run_ksoftirqd(&self, run_callbacks: impl Fn()) {
        while self.is_live() {
            if self.machine.ready_callback().is_some() {
                self.machine.at_work.softirq.set(true);
                run_callbacks();
                self.machine.touch(Thing::Callbacks, true);
                self.machine.at_work.softirq.set(false);
            } else if self.machine.live() != bit(self.task) {
                self.block(Wait::Callbacks, None);
            } else {
                break;
            }
        }
    }
}
