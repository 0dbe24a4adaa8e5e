//! A bounded depth-first search by several threads, with the numbers of one.
//!
//! Each searches a part of the tree, and gives some of it away when others have nothing to do
//! (`dpor/share.rs`). The bounds are searched one after the other. Of what breaks the same, the
//! schedule is reported that one thread would come to first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

use super::crew::{Board, Make, State};
use super::dpor::{Dpor, Part};
use super::explorer::{Explorer, Schedule, Subject};
use super::lessons::Lessons;
use super::machine::End;
use super::report::{ExploreReport, Violation};
use crate::platform::Finding;

/// Schedules after which helpers are called.
const WORTH_HELPERS: u64 = 300;

/// What there is to do for one bound on preemptions, and what came of it.
#[derive(Default)]
struct Work {
    parts: VecDeque<Part>,
    nr_busy: u32,
    nr_waiting: usize,
    /// Sums over all bounds, and violations for those that are done.
    report: ExploreReport,
    known: Vec<String>,
    /// Of each kind that was not known before, the first.
    found: BTreeMap<String, Found>,
    /// The bound has left something out.
    was_bounded: bool,
    /// So many kinds were found that the search ends.
    is_enough: bool,
}

/// Something that broke, and in the order of one thread: when.
struct Found {
    when: (Vec<u32>, usize),
    finding: Finding,
    schedule: Schedule,
}

impl<S: Subject> Explorer<S> {
    /// Every schedule with at most so many preemptions.
    pub(super) fn explore_in_parts(
        &mut self,
        preemptions: u32,
        make: &Make<'_, S>,
    ) -> ExploreReport {
        let board = Board::new(Work::default());
        let help = || {
            if let Some(mut explorer) = make() {
                explorer.search_parts(&board, false, &mut || ());
            }
        };
        board.with_helpers(&help, |call| self.lead_parts(&board, preemptions, call));
        let Work { mut report, is_enough, .. } = board.into_work();
        if is_enough {
            // One thread would have ended somewhere on the way.
            self.machine.dpor.replace(Dpor::new(self.machine.nr_tasks, Some(preemptions)));
            return self.explore_in_turn();
        }
        report.complete = report.too_long == 0 && !self.watch.is_stopped();
        report
    }

    fn lead_parts(&mut self, board: &Board<Work>, preemptions: u32, call: &dyn Fn(u32)) {
        let (mut nr_ran, nr_helpers) = (0, self.options.workers - 1);
        for bound in 0..=preemptions {
            board.lock().work.parts.push_back(Part::whole(bound));
            board.tell();
            self.search_parts(board, true, &mut || {
                nr_ran += 1;
                if nr_ran == WORTH_HELPERS {
                    call(nr_helpers);
                }
            });
            let mut state = board.lock();
            let is_over = state.is_over;
            // Who is told to end tells what was found.
            if is_over && !self.watch.is_stopped() {
                return;
            }
            let was_bounded = std::mem::take(&mut state.work.was_bounded);
            let mut found: Vec<_> = std::mem::take(&mut state.work.found).into_iter().collect();
            drop(state);
            found.sort_by(|(_, one), (_, other)| one.when.cmp(&other.when));
            for (kind, Found { finding, schedule, .. }) in found {
                let violation = self.violation(&finding, &kind, &schedule);
                let work = &mut board.lock().work;
                work.report.violations.push(violation);
                work.known.push(kind);
            }
            if is_over || !was_bounded {
                return;
            }
        }
    }

    /// Searches parts until all is over; who leads, until there are none.
    fn search_parts(&mut self, board: &Board<Work>, leads: bool, has_run: &mut dyn FnMut()) {
        let mut state = board.lock();
        while !state.is_over {
            if let Some(part) = state.work.parts.pop_front() {
                state.work.nr_busy += 1;
                drop(state);
                self.search_part(board, &part, has_run);
                state = board.lock();
                state.work.nr_busy -= 1;
                if state.work.nr_busy == 0 || state.is_over {
                    board.tell();
                }
            } else if leads && state.work.nr_busy == 0 {
                return;
            } else {
                state.work.nr_waiting += 1;
                state = board.wait(state);
                state.work.nr_waiting -= 1;
            }
        }
    }

    fn search_part(&mut self, board: &Board<Work>, part: &Part, has_run: &mut dyn FnMut()) {
        self.machine.dpor.borrow_mut().begin(part);
        let (lessons, mut nth) = (Lessons::default(), 0);
        while self.next_schedule(nth, &lessons) {
            let schedule = self.run_schedule();
            if schedule.end == End::Interrupted {
                board.lock().is_over = true;
                return;
            }
            has_run();
            nth += 1;
            let mut parts = self.machine.dpor.borrow_mut().opened();
            let mut state = board.lock();
            state.work.report.add(&schedule);
            state.work.was_bounded |= self.machine.dpor.borrow().was_bounded();
            self.watch.schedules.store(state.work.report.schedules, Ordering::Relaxed);
            if !schedule.is_redundant {
                self.note_findings(&mut state, &schedule);
            }
            state.is_over |= self.watch.is_stopped();
            if state.is_over {
                return;
            }
            let is_hungry = state.work.nr_waiting > state.work.parts.len() + parts.len();
            drop(state);
            if is_hungry {
                parts.extend(self.machine.dpor.borrow_mut().give_away());
            }
            if !parts.is_empty() {
                board.lock().work.parts.extend(parts);
                board.tell();
            }
        }
    }

    /// Keeps what broke, where it is the first of its kind so far.
    fn note_findings(&self, state: &mut State<Work>, schedule: &Schedule) {
        for (nth, finding) in schedule.findings.iter().enumerate() {
            let kind = Violation::kind(finding.invariant, &finding.what);
            if state.work.known.contains(&kind) {
                continue;
            }
            let when = (self.machine.dpor.borrow().rank(), nth);
            if state.work.found.get(&kind).is_none_or(|found| when < found.when) {
                let found = Found { when, finding: finding.clone(), schedule: schedule.clone() };
                state.work.found.insert(kind, found);
            }
        }
        let nr_kinds = state.work.known.len() + state.work.found.len();
        state.work.is_enough |= nr_kinds >= self.options.max_violations;
        state.is_over |= state.work.is_enough;
    }
}
