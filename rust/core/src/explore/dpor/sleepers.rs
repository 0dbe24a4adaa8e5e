//! Tasks that sleep: their step was tried, and nothing in conflict with it has happened since.

use crate::explore::touch::Touch;
use crate::platform::TaskId;

/// A task that sleeps from a node on.
#[derive(Clone, Copy)]
pub(super) struct Sleeper {
    pub(super) node: usize,
    pub(super) task: TaskId,
    /// Where its step's accesses begin in `Sleepers::touches`.
    touches: usize,
}

/// Those of the schedule that runs, in the order of their nodes.
#[derive(Clone, Default)]
pub(super) struct Sleepers {
    sleepers: Vec<Sleeper>,
    touches: Vec<Touch>,
}

impl Sleepers {
    pub(super) fn get(&self, nth: usize) -> Option<Sleeper> {
        self.sleepers.get(nth).copied()
    }

    pub(super) fn push(&mut self, node: usize, task: TaskId, touches: &[Touch]) {
        self.sleepers.push(Sleeper { node, task, touches: self.touches.len() });
        self.touches.extend_from_slice(touches);
    }

    /// Forgets those from this node on.
    pub(super) fn truncate(&mut self, node: usize) {
        while let Some(sleeper) = self.sleepers.pop_if(|sleeper| sleeper.node >= node) {
            self.touches.truncate(sleeper.touches);
        }
    }

    /// Whether an access is in conflict with the step of sleeper `nth`.
    pub(super) fn conflicts(&self, nth: usize, touches: &[Touch]) -> bool {
        let end = self.sleepers.get(nth + 1).map_or(self.touches.len(), |next| next.touches);
        let own = &self.touches[self.sleepers[nth].touches..end];
        own.iter().any(|own| touches.iter().any(|touch| own.conflicts(*touch)))
    }
}
