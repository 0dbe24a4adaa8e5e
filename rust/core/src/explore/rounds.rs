//! Schedules that are drawn, by one thread or several.
//!
//! A strategy that learned from each schedule at once would find what depends on how fast which
//! thread is. So schedules come in rounds, whose bounds are the same for any number of threads:
//! within one nothing is learned, and then what all its schedules taught is put together in their
//! order. They are counted in their order too: an exploration that finds enough ends with the same.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::crew::{Board, Make};
use super::explorer::{Explorer, Schedule, Subject};
use super::lessons::Lessons;
use super::machine::End;
use super::report::ExploreReport;
use super::tally::Tally;

/// Schedules of a round. The first has only one: much is learned from it.
const ROUND: u64 = 256;
/// Schedules that a thread takes at a time.
const PIECE: u64 = 4;
/// Schedules after which helpers are called, and how many of the rest each must have to do.
const WORTH_A_HELPER: u64 = 64;

/// A round; its schedules go by their numbers in the exploration.
struct Round {
    /// Those that nobody has taken.
    left: Range<u64>,
    lessons: Arc<Lessons>,
    /// Those that have run, and were not counted yet.
    done: BTreeMap<u64, Schedule>,
}

impl Round {
    fn take_piece(&mut self) -> Range<u64> {
        let Range { start, end } = self.left;
        let piece = start..end.min(start + PIECE);
        self.left.start = piece.end;
        piece
    }
}

impl<S: Subject> Explorer<S> {
    /// Runs schedules until there are as many as wanted, or enough was found.
    pub(super) fn explore_drawn(&mut self, make: &Make<'_, S>) -> ExploreReport {
        let limit = self.options.max_schedules.unwrap_or(u64::MAX);
        let worth = (limit / WORTH_A_HELPER).saturating_sub(1);
        let nr_helpers = u64::from(self.options.workers - 1).min(worth) as u32;
        let (left, lessons, done) = (0..limit.min(1), Arc::default(), BTreeMap::new());
        let board = Board::new(Round { left, lessons, done });
        let help = || {
            if let Some(mut explorer) = make() {
                explorer.help_with_rounds(&board);
            }
        };
        board.with_helpers(&help, |call| self.lead_rounds(&board, limit, || call(nr_helpers)))
    }

    fn lead_rounds(
        &mut self,
        board: &Board<Round>,
        limit: u64,
        call_helpers: impl Fn(),
    ) -> ExploreReport {
        let (mut tally, mut lessons) = (Tally::default(), Lessons::default());
        let mut end = 1;
        for nth in 0..limit {
            if nth == WORTH_A_HELPER {
                call_helpers();
            }
            if nth == end {
                end = limit.min(end.saturating_add(ROUND));
                let mut state = board.lock();
                state.work.left = nth..end;
                state.work.lessons = Arc::new(lessons.clone());
                drop(state);
                board.tell();
            }
            let Some(schedule) = self.drawn(board, nth) else { break };
            lessons.learn(&schedule);
            if self.count(&schedule, &mut tally) {
                break;
            }
        }
        tally.report
    }

    /// Schedule `nth`, once somebody has run it; None if nobody does, for it is to end.
    fn drawn(&mut self, board: &Board<Round>, nth: u64) -> Option<Schedule> {
        let mut state = board.lock();
        loop {
            if let Some(schedule) = state.work.done.remove(&nth) {
                return Some(schedule);
            }
            if state.is_over || self.watch.is_stopped() {
                return None;
            }
            if state.work.left.is_empty() {
                state = board.wait(state);
            } else {
                let (piece, lessons) = (state.work.take_piece(), Arc::clone(&state.work.lessons));
                drop(state);
                self.run_piece(board, piece, &lessons);
                state = board.lock();
            }
        }
    }

    fn help_with_rounds(&mut self, board: &Board<Round>) {
        let mut state = board.lock();
        while !state.is_over {
            if state.work.left.is_empty() {
                state = board.wait(state);
                continue;
            }
            let (piece, lessons) = (state.work.take_piece(), Arc::clone(&state.work.lessons));
            drop(state);
            self.run_piece(board, piece, &lessons);
            state = board.lock();
            // Whoever waits for the rest of the piece need not.
            state.is_over |= self.watch.is_stopped();
        }
        drop(state);
        board.tell();
    }

    fn run_piece(&mut self, board: &Board<Round>, piece: Range<u64>, lessons: &Lessons) {
        for nth in piece {
            self.next_schedule(nth, lessons);
            let mut schedule = self.run_schedule();
            if schedule.end == End::Interrupted {
                return;
            }
            schedule.pairs.retain(|pair| !lessons.seen.contains(pair));
            board.lock().work.done.insert(nth, schedule);
            board.tell();
        }
    }
}
