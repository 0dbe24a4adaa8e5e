//! A search that mutates schedules in which something new raced.
//!
//! What is new is a pair of racing accesses: which tasks, which word of which kind of object,
//! whether the later one writes. Source: ours, after Zalewski's American fuzzy lop (2013), and Jeong
//! and others, "Razzer" (2019), for what to look at.

use rand_pcg::Pcg64Mcg;

use super::lessons::Lessons;
use super::strategy::{Point, Strategy, pick, pick_task, rng_of};
use super::token::{Deviation, task_at};
use crate::platform::TaskId;

/// One schedule in so many is drawn, and not made from another.
const ONE_DRAWN_IN: u64 = 4;
/// The most changes to a schedule.
const MAX_CHANGES: u64 = 4;
/// How far a choice is moved at most.
const MAX_MOVE: u64 = 16;

/// Chooses schedules close to those that had something new.
pub struct Coverage {
    seed: u64,
    rng: Pcg64Mcg,
    /// The choices of the schedule that runs, and how many were come to.
    plan: Vec<Deviation>,
    next: usize,
    /// Another task goes on, once in so many points after the plan; 0: never.
    one_in: u64,
}

impl Coverage {
    pub fn new(seed: u64) -> Self {
        Self { seed, rng: rng_of(seed, 0), plan: Vec::new(), next: 0, one_in: 0 }
    }

    fn mutate(&mut self, lessons: &Lessons) {
        let longest = lessons.longest.max(1);
        let rng = &mut self.rng;
        let any = |rng: &mut Pcg64Mcg, len: usize| pick(rng, len as u64) as usize;
        for _ in 0..=pick(rng, MAX_CHANGES) {
            let fresh = Deviation { point: pick(rng, longest), rank: pick(rng, 64) as u32 };
            match pick(rng, 4) {
                0 if !self.plan.is_empty() => {
                    let gone = any(rng, self.plan.len());
                    self.plan.remove(gone);
                }
                1 if !self.plan.is_empty() => {
                    let moved = any(rng, self.plan.len());
                    let (by, forward) = (1 + pick(rng, MAX_MOVE), pick(rng, 2) == 0);
                    let point = &mut self.plan[moved].point;
                    *point = if forward { *point + by } else { point.saturating_sub(by) };
                }
                2 => {
                    // The beginning of this one, and the end of another.
                    let other = &lessons.corpus[any(rng, lessons.corpus.len())];
                    self.plan.retain(|kept| kept.point < fresh.point);
                    self.plan.extend(other.iter().filter(|new| new.point >= fresh.point));
                }
                _ => self.plan.push(fresh),
            }
        }
        self.plan.sort_by_key(|deviation| deviation.point);
        self.plan.dedup_by_key(|deviation| deviation.point);
    }
}

impl Strategy for Coverage {
    fn next_schedule(&mut self, nth: u64, lessons: &Lessons) -> bool {
        self.rng = rng_of(self.seed, nth);
        self.next = 0;
        self.plan.clear();
        self.one_in = 2 << (2 * pick(&mut self.rng, 4));
        let corpus = &lessons.corpus;
        if !corpus.is_empty() && pick(&mut self.rng, ONE_DRAWN_IN) != 0 {
            // What was found last has been looked at least.
            let len = corpus.len() as u64;
            let chosen = pick(&mut self.rng, len).max(pick(&mut self.rng, len));
            self.plan = corpus[chosen as usize].clone();
            self.one_in = 0;
            self.mutate(lessons);
        }
        true
    }

    fn choose(&mut self, point: &Point) -> TaskId {
        while self.plan.get(self.next).is_some_and(|planned| planned.point < point.nth) {
            self.next += 1;
        }
        if let Some(planned) = self.plan.get(self.next)
            && planned.point == point.nth
        {
            let rank = planned.rank % point.runnable.count_ones();
            return task_at(point.runnable, rank).expect("a rank among them");
        }
        if self.one_in == 0 || point.can_go_on && pick(&mut self.rng, self.one_in) != 0 {
            return point.default_task();
        }
        pick_task(&mut self.rng, point.runnable)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/explore/coverage.rs"]
mod tests;
