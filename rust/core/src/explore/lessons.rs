//! What schedules that were drawn teach those that are drawn later.

use std::collections::BTreeSet;

use super::explorer::Schedule;
use super::token::Deviation;

/// What the schedules of all rounds before have in common; see `rounds.rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lessons {
    /// The most points that any schedule had.
    pub(super) longest: u64,
    /// The kinds of racing accesses that were seen.
    pub(super) seen: BTreeSet<u64>,
    /// The choices of schedules that had something new.
    pub(super) corpus: Vec<Vec<Deviation>>,
}

impl Lessons {
    pub(super) fn learn(&mut self, schedule: &Schedule) {
        self.learn_from(&schedule.deviations, schedule.points, &schedule.pairs);
    }

    pub(super) fn learn_from(&mut self, deviations: &[Deviation], points: u64, pairs: &[u64]) {
        self.longest = self.longest.max(points);
        let known = self.seen.len();
        self.seen.extend(pairs);
        if self.seen.len() > known {
            self.corpus.push(deviations.to_vec());
        }
    }
}
