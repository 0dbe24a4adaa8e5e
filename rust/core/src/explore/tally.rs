//! Adds up what schedules came to, in their order.

use std::sync::atomic::Ordering;

use super::explorer::{Explorer, Schedule, Subject};
use super::machine::End;
use super::report::{ExploreReport, Violation};

/// What the schedules so far came to.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) report: ExploreReport,
    /// Of the violations.
    kinds: Vec<String>,
}

impl ExploreReport {
    /// Counts a schedule.
    pub(super) fn add(&mut self, schedule: &Schedule) {
        if schedule.is_redundant {
            self.redundant += 1;
            return;
        }
        self.schedules += 1;
        self.steps += schedule.steps;
        self.too_long += u64::from(schedule.end == End::TooLong);
    }
}

impl<S: Subject> Explorer<S> {
    /// Counts a schedule, and reports what it broke that none before it did; whether that is enough.
    pub(super) fn count(&mut self, schedule: &Schedule, tally: &mut Tally) -> bool {
        let report = &mut tally.report;
        report.add(schedule);
        if schedule.is_redundant {
            return false;
        }
        if self.options.only.is_none() {
            self.watch.schedules.store(report.schedules, Ordering::Relaxed);
        }
        if self.options.races {
            report.races.extend(&schedule.pairs);
        }
        self.complain_of_replay(schedule, report);
        for finding in &schedule.findings {
            let kind = Violation::kind(finding.invariant, &finding.what);
            let is_wanted = self.options.only.as_ref().is_none_or(|only| *only == kind);
            if is_wanted && !tally.kinds.contains(&kind) {
                let violation = self.violation(finding, &kind, schedule);
                tally.report.violations.push(violation);
                tally.kinds.push(kind);
            }
        }
        let enough = if self.options.only.is_some() { 1 } else { self.options.max_violations };
        tally.report.violations.len() >= enough
    }
}
