//! What a finding becomes: a violation, with the simplest schedule that leads to it.

use std::collections::BTreeMap;

use super::dpor::Dpor;
use super::explorer::{Explorer, Schedule, Subject};
use super::lessons::Lessons;
use super::options::Search;
use super::report::{ExploreReport, Violation};
use super::strategy::{Dfs, Replay};
use super::timeline::Step;
use super::token::{Deviation, Token};
use crate::platform::{CpuId, Finding};

/// Schedules spent on finding a violation with fewer preemptions.
const MAX_SHRINKING: u64 = 50_000;

impl<S: Subject> Explorer<S> {
    /// A token that does not lead through this program is a finding of its own.
    pub(super) fn complain_of_replay(&self, schedule: &Schedule, report: &mut ExploreReport) {
        if !schedule.findings.is_empty() || self.options.only.is_some() {
            return;
        }
        if let Some(what) = self.machine.strategy.borrow().complaint() {
            let finding = Finding { invariant: "replay", what };
            report.violations.push(self.bare_violation(&finding, &schedule.deviations));
        }
    }

    fn token(&self, deviations: &[Deviation]) -> String {
        let fingerprint = self.subject.fingerprint();
        Token { fingerprint, deviations: deviations.to_vec() }.to_text()
    }

    /// The report of a finding: its schedule with as few preemptions as can be found quickly,
    /// and what happened in it.
    pub(super) fn violation(
        &mut self,
        finding: &Finding,
        kind: &str,
        schedule: &Schedule,
    ) -> Violation {
        if self.options.only.is_some() {
            return self.bare_violation(finding, &schedule.deviations);
        }
        let most = match self.options.search {
            Search::Random { .. } | Search::Pct { .. } | Search::Coverage { .. } => {
                schedule.preemptions
            }
            // A search with fewest preemptions first, or somebody's own schedule. Without a bound
            // nothing was said about preemptions.
            Search::Dfs { preemptions: None, .. } => schedule.preemptions,
            _ => 0,
        };
        let (simpler, finding) = match most {
            0 => (schedule.clone(), finding.clone()),
            _ => self.with_fewer_choices(kind, schedule, finding),
        };
        let (deviations, finding) = self
            .with_fewer_preemptions(kind, simpler.preemptions.min(most))
            .unwrap_or((simpler.deviations, finding));
        // Without a choice it is no story of several tasks: then all that each did is told.
        let is_sequential = deviations.is_empty();
        self.machine.records_all.set(is_sequential);
        self.machine.is_recording.set(true);
        self.replay(deviations.clone());
        self.machine.is_recording.set(false);
        let mut timeline = self.machine.timeline.take();
        if !is_sequential {
            timeline = shared_steps(timeline);
        }
        Violation { timeline, ..self.bare_violation(&finding, &deviations) }
    }

    fn bare_violation(&self, finding: &Finding, deviations: &[Deviation]) -> Violation {
        Violation {
            invariant: finding.invariant.to_owned(),
            what: finding.what.clone(),
            entry: None,
            token: self.token(deviations),
            deviations: deviations.to_vec(),
            timeline: Vec::new(),
        }
    }

    /// The schedule without the choices that it breaks the same without.
    fn with_fewer_choices(
        &mut self,
        kind: &str,
        schedule: &Schedule,
        finding: &Finding,
    ) -> (Schedule, Finding) {
        let mut best = (schedule.clone(), finding.clone());
        let mut nth = 0;
        while nth < best.0.deviations.len() && !self.watch.is_stopped() {
            let mut fewer = best.0.deviations.clone();
            fewer.remove(nth);
            let (ran, nr_before) = (self.replay(fewer), best.0.deviations.len());
            // Those after it may be for other moments now: then the schedule is another one.
            let is_simpler =
                ran.deviations.len() < nr_before && ran.preemptions <= best.0.preemptions;
            match ran.findings.iter().find(|found| is_of_kind(found, kind)).cloned() {
                Some(found) if is_simpler => best = (ran, found),
                _ => nth += 1,
            }
        }
        best
    }

    fn replay(&mut self, deviations: Vec<Deviation>) -> Schedule {
        self.with_strategy(Box::new(Replay::new(deviations)), |explorer| {
            explorer.next_schedule(0, &Lessons::default());
            explorer.run_schedule()
        })
    }

    /// A schedule with fewer preemptions that ends in a violation of the same kind.
    fn with_fewer_preemptions(
        &mut self,
        kind: &str,
        preemptions: u32,
    ) -> Option<(Vec<Deviation>, Finding)> {
        let bound = preemptions.checked_sub(1)?;
        let usual = self.machine.dpor.replace(Dpor::new(self.machine.nr_tasks, Some(bound)));
        let found = self.with_strategy(Box::new(Dfs::new(0)), |explorer| {
            explorer.machine.reduces.set(true);
            let lessons = Lessons::default();
            for nth in 0..MAX_SHRINKING {
                if explorer.watch.is_stopped() || !explorer.next_schedule(nth, &lessons) {
                    break;
                }
                let schedule = explorer.run_schedule();
                if let Some(found) = schedule.findings.iter().find(|found| is_of_kind(found, kind))
                {
                    return Some((schedule.deviations.clone(), found.clone()));
                }
            }
            None
        });
        self.machine.dpor.replace(usual);
        found
    }
}

fn is_of_kind(found: &Finding, kind: &str) -> bool {
    Violation::kind(found.invariant, &found.what) == kind
}

/// The steps that tell the story: those on words that more than one CPU touched, and events.
fn shared_steps(mut timeline: Vec<Step>) -> Vec<Step> {
    let mut owners: BTreeMap<String, Option<CpuId>> = BTreeMap::new();
    for step in timeline.iter().filter(|step| step.access.is_of_a_word()) {
        let owner = owners.entry(step.what.clone()).or_insert(Some(step.cpu));
        if *owner != Some(step.cpu) {
            *owner = None;
        }
    }
    timeline.retain(|step| owners.get(&step.what).is_none_or(Option::is_none));
    timeline
}
