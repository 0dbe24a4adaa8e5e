//! Tasks that sleep: their step was tried, and nothing in conflict with it has happened since.

use crate::explore::token::TaskSet;
use crate::explore::touch::Touch;
use crate::platform::TaskId;

/// A task that sleeps from a node on.
#[derive(Clone, Copy)]
struct Sleeper {
    node: usize,
    task: TaskId,
    /// Where its step's accesses begin in `Sleepers::touches`.
    touches: usize,
}

/// Those of the schedule that runs.
#[derive(Clone, Default)]
pub(super) struct Sleepers {
    /// In the order of their nodes.
    all: Vec<Sleeper>,
    touches: Vec<Touch>,
    /// Those of `all` that sleep now, and how many were come to.
    asleep: Vec<usize>,
    nr_met: usize,
}

impl Sleepers {
    /// A schedule comes from the beginning.
    pub(super) fn begin(&mut self) {
        self.asleep.clear();
        self.nr_met = 0;
    }

    /// A schedule goes straight to a node, where these tasks sleep.
    pub(super) fn begin_at(&mut self, node: usize, tasks: TaskSet) {
        self.asleep.clear();
        let is_before = |sleeper: &Sleeper| sleeper.node < node;
        self.nr_met = self.all.iter().rposition(is_before).map_or(0, |last| last + 1);
        // A task sleeps again only after it woke, so what lets it sleep is its last one.
        let mut left = tasks;
        for nth in (0..self.nr_met).rev() {
            if left == 0 {
                break;
            }
            let task = 1 << self.all[nth].task;
            if left & task != 0 {
                self.asleep.push(nth);
                left &= !task;
            }
        }
        assert_eq!(left, 0, "who sleeps was tried before");
    }

    pub(super) fn push(&mut self, node: usize, task: TaskId, touches: &[Touch]) {
        self.all.push(Sleeper { node, task, touches: self.touches.len() });
        self.touches.extend_from_slice(touches);
    }

    /// Forgets those from this node on.
    pub(super) fn truncate(&mut self, node: usize) {
        while let Some(sleeper) = self.all.pop_if(|sleeper| sleeper.node >= node) {
            self.touches.truncate(sleeper.touches);
        }
    }

    /// Who was tried before at the node that the schedule has come to, sleeps.
    pub(super) fn meet(&mut self, node: usize) {
        while self.all.get(self.nr_met).is_some_and(|sleeper| sleeper.node == node) {
            self.asleep.push(self.nr_met);
            self.nr_met += 1;
        }
    }

    pub(super) fn is_any_asleep(&self) -> bool {
        !self.asleep.is_empty()
    }

    pub(super) fn asleep(&self) -> TaskSet {
        self.asleep.iter().fold(0, |set, &nth| set | 1 << self.all[nth].task)
    }

    /// Those sleep no more whose step is in conflict with one of these accesses.
    pub(super) fn wake(&mut self, touches: &[Touch]) {
        let Self { all, touches: own, asleep, .. } = self;
        asleep.retain(|&nth| {
            let end = all.get(nth + 1).map_or(own.len(), |next| next.touches);
            let mut step = own[all[nth].touches..end].iter();
            !step.any(|own| touches.iter().any(|touch| own.conflicts(*touch)))
        });
    }
}
