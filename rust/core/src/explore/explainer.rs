//! The steps of one fault, of those of a whole schedule.

use std::cell::{Cell, RefCell};

use super::machine::Machine;
use super::timeline::{Step, push_steps};
use crate::events::Span;
use crate::platform::TaskId;

/// Which of the faults of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichFault {
    Last,
    /// In the order in which they begin, from 1.
    Number(u64),
}

/// What one fault did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// How many faults the run had.
    pub faults: u64,
    /// The fault, from 1; 0 if the run had none of that number.
    pub number: u64,
    pub task: TaskId,
    /// How many the task had had before.
    pub earlier: u64,
    pub address: u64,
    pub steps: Vec<Step>,
}

impl Explanation {
    /// As JSON.
    pub fn to_json(&self) -> String {
        let Self { faults, number, task, earlier, address, steps } = self;
        let mut json = format!(
            r#"{{"faults":{faults},"number":{number},"task":{task},"earlier":{earlier},"address":"{address:#x}","steps":"#
        );
        push_steps(&mut json, steps);
        json.push('}');
        json
    }
}

/// Has the fault that is wanted recorded.
#[derive(Default)]
pub(super) struct Explainer {
    wanted: Cell<Option<WhichFault>>,
    found: RefCell<Explanation>,
    /// Faults of each task so far.
    of_task: RefCell<Vec<u64>>,
    /// How many stretches of work the task has begun since its fault did, and not ended: 0 when
    /// nothing is recorded.
    depth: Cell<u32>,
}

impl Explainer {
    pub(super) fn is_on(&self) -> bool {
        self.wanted.get().is_some()
    }

    /// From now on.
    pub(super) fn begin(&self, which: WhichFault, nr_tasks: u32) {
        self.wanted.set(Some(which));
        *self.of_task.borrow_mut() = vec![0; nr_tasks as usize];
    }

    /// What was found, but for its steps.
    pub(super) fn take(&self) -> Explanation {
        self.wanted.set(None);
        self.found.take()
    }

    pub(super) fn enter(&self, machine: &Machine, task: TaskId, span: Span) {
        let Some(which) = self.wanted.get() else { return };
        let mut found = self.found.borrow_mut();
        if self.depth.get() != 0 && found.task == task {
            self.depth.set(self.depth.get() + 1);
        }
        let Span::Fault(address) = span else { return };
        found.faults += 1;
        let earlier = &mut self.of_task.borrow_mut()[task as usize];
        *earlier += 1;
        if which == WhichFault::Last || which == WhichFault::Number(found.faults) {
            let number = found.faults;
            *found = Explanation { number, task, earlier: *earlier - 1, address, ..found.clone() };
            self.depth.set(1);
            machine.timeline.borrow_mut().clear();
            machine.is_recording.set(true);
        }
    }

    pub(super) fn leave(&self, machine: &Machine, task: TaskId) {
        if self.depth.get() != 0 && self.found.borrow().task == task {
            self.depth.set(self.depth.get() - 1);
            machine.is_recording.set(self.depth.get() != 0);
        }
    }
}
