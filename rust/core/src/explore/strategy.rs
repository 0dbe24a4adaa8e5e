//! Strategies: who goes next. The oracle has two questions to answer, "is there another
//! schedule?" and "which task goes on?"; all strategies and the replay are implementations.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::lessons::Lessons;
use super::token::{Deviation, TaskSet, default_task, task_at, tasks_of};
use crate::platform::TaskId;

/// A point of a schedule at which more than one task can go on.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Its number among the points with a choice.
    pub nth: u64,
    pub runnable: TaskSet,
    /// The task that ran last.
    pub current: TaskId,
    /// Whether `current` can go on.
    pub can_go_on: bool,
    /// Whether choosing another than `current` is no preemption, although it can go on.
    pub is_free: bool,
}

impl Point {
    /// Whether choosing another than `current` is a preemption.
    pub fn costs(&self) -> bool {
        self.can_go_on && !self.is_free
    }

    /// The choice that tokens leave out.
    pub fn default_task(&self) -> TaskId {
        default_task(self.runnable, self.current, self.can_go_on)
    }
}

/// Chooses schedules.
pub trait Strategy {
    /// Prepares schedule `nth`, as one that draws has learned to from others. False: there is none
    /// left, or none within the bounds.
    fn next_schedule(&mut self, nth: u64, lessons: &Lessons) -> bool;
    /// Which of the runnable tasks goes on.
    fn choose(&mut self, point: &Point) -> TaskId;
    /// Which of several stores an access comes behind: as `choose`, with stores for tasks, the last
    /// one being `current`.
    fn choose_store(&mut self, point: &Point) -> TaskId {
        self.choose(point)
    }
    /// The most preemptions of the schedule that was prepared.
    fn max_preemptions(&self) -> u32 {
        u32::MAX
    }
    /// Whether every schedule within the bounds was chosen.
    fn is_complete(&self) -> bool {
        false
    }
    /// What is wrong with the choices asked for, after a schedule.
    fn complaint(&self) -> Option<String> {
        None
    }
}

/// Every schedule with at most so many preemptions, depth first.
///
/// Bounding preemptions: Musuvathi and Qadeer, "Iterative context bounding" (2007).
pub struct Dfs {
    preemptions: u32,
    nodes: Vec<Node>,
    /// Where in `nodes` the schedule that runs has come to.
    depth: usize,
    spent: u32,
    is_complete: bool,
}

/// A choice made, and those still to make.
struct Node {
    chosen: TaskId,
    untried: TaskSet,
    runnable: TaskSet,
}

impl Dfs {
    pub fn new(preemptions: u32) -> Self {
        Self { preemptions, nodes: Vec::new(), depth: 0, spent: 0, is_complete: false }
    }
}

impl Strategy for Dfs {
    fn next_schedule(&mut self, nth: u64, _lessons: &Lessons) -> bool {
        self.depth = 0;
        self.spent = 0;
        if nth == 0 {
            return true;
        }
        while let Some(last) = self.nodes.last_mut() {
            if last.untried != 0 {
                last.chosen = last.untried.trailing_zeros();
                last.untried &= last.untried - 1;
                return true;
            }
            self.nodes.pop();
        }
        self.is_complete = true;
        false
    }

    #[inline]
    fn choose(&mut self, point: &Point) -> TaskId {
        let default = point.default_task();
        if point.costs() && self.spent >= self.preemptions {
            return default;
        }
        let chosen = match self.nodes.get(self.depth) {
            Some(node) => {
                assert_eq!(node.runnable, point.runnable, "the same choices, another program");
                node.chosen
            }
            None => {
                let untried = point.runnable & !(1 << default);
                self.nodes.push(Node { chosen: default, untried, runnable: point.runnable });
                default
            }
        };
        self.depth += 1;
        if point.costs() && chosen != point.current {
            self.spent += 1;
        }
        chosen
    }

    fn max_preemptions(&self) -> u32 {
        self.preemptions
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }
}

pub(super) fn pick(rng: &mut Pcg64Mcg, below: u64) -> u64 {
    // The high half of a product: the bias is below 2^-32 for so few tasks.
    ((u128::from(rng.next_u64()) * u128::from(below)) >> 64) as u64
}

pub(super) fn pick_task(rng: &mut Pcg64Mcg, among: TaskSet) -> TaskId {
    let rank = pick(rng, u64::from(among.count_ones())) as u32;
    task_at(among, rank).expect("a rank among the runnable tasks")
}

/// Schedule `nth` of a seed has random numbers of its own.
pub(super) fn rng_of(seed: u64, nth: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Random choices. Each schedule switches often or rarely: with probability 1/2 to 1/128.
pub struct Random {
    seed: u64,
    rng: Pcg64Mcg,
    one_in: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { seed, rng: rng_of(seed, 0), one_in: 2 }
    }
}

impl Strategy for Random {
    fn next_schedule(&mut self, nth: u64, _lessons: &Lessons) -> bool {
        self.rng = rng_of(self.seed, nth);
        self.one_in = 2 << (2 * pick(&mut self.rng, 4));
        true
    }

    fn choose(&mut self, point: &Point) -> TaskId {
        if point.can_go_on && pick(&mut self.rng, self.one_in) != 0 {
            return point.current;
        }
        pick_task(&mut self.rng, point.runnable)
    }
}

/// Random priorities, changed at a few random points: Burckhardt and others, "A randomized
/// scheduler with probabilistic guarantees of finding bugs" (2010).
pub struct Pct {
    seed: u64,
    rng: Pcg64Mcg,
    /// Bugs that need so many ordering constraints are found with the paper's probability.
    depth: u32,
    priorities: [u64; TaskSet::BITS as usize],
    changes: Vec<u64>,
}

impl Pct {
    pub fn new(seed: u64, depth: u32) -> Self {
        Self {
            seed,
            rng: rng_of(seed, 0),
            depth,
            priorities: [0; TaskSet::BITS as usize],
            changes: Vec::new(),
        }
    }

    fn first_of(&self, runnable: TaskSet) -> TaskId {
        tasks_of(runnable)
            .max_by_key(|&task| self.priorities[task as usize])
            .expect("somebody is runnable")
    }
}

impl Strategy for Pct {
    fn next_schedule(&mut self, nth: u64, lessons: &Lessons) -> bool {
        self.rng = rng_of(self.seed, nth);
        for priority in &mut self.priorities {
            *priority = self.rng.next_u64() | 1 << 63;
        }
        let (rng, longest) = (&mut self.rng, lessons.longest.max(1));
        self.changes.clear();
        self.changes.extend((1..self.depth).map(|_| pick(rng, longest)));
        true
    }

    fn choose(&mut self, point: &Point) -> TaskId {
        // A change point takes the running task below all others, later ones lower still.
        let changed = self.changes.iter().filter(|&&change| change == point.nth).count();
        if changed != 0 {
            let first = self.first_of(point.runnable);
            self.priorities[first as usize] = u64::MAX / 2 - point.nth;
        }
        self.first_of(point.runnable)
    }

    /// Priorities are of tasks: an older store is as likely as a change of priorities.
    fn choose_store(&mut self, point: &Point) -> TaskId {
        if !self.changes.contains(&point.nth) && pick(&mut self.rng, 16) != 0 {
            return point.current;
        }
        pick_task(&mut self.rng, point.runnable)
    }
}

/// The one schedule of a token.
pub struct Replay {
    deviations: Vec<Deviation>,
    next: usize,
    complaint: Option<String>,
}

impl Replay {
    pub fn new(deviations: Vec<Deviation>) -> Self {
        Self { deviations, next: 0, complaint: None }
    }
}

impl Strategy for Replay {
    fn next_schedule(&mut self, nth: u64, _lessons: &Lessons) -> bool {
        nth == 0
    }

    fn choose(&mut self, point: &Point) -> TaskId {
        let Some(deviation) = self.deviations.get(self.next).filter(|next| next.point == point.nth)
        else {
            return point.default_task();
        };
        self.next += 1;
        task_at(point.runnable, deviation.rank).unwrap_or_else(|| {
            let place = (point.nth, deviation.rank, point.runnable.count_ones());
            self.complaint = Some(format!(
                "at choice {} the token takes task {} of {} that can go on",
                place.0,
                place.1 + 1,
                place.2
            ));
            point.default_task()
        })
    }

    fn complaint(&self) -> Option<String> {
        let left = self.deviations.len() - self.next;
        self.complaint.clone().or_else(|| {
            (left != 0).then(|| format!("{left} choices of the token were never come to"))
        })
    }
}

/// The one schedule of a list of numbers, which somebody else drew and may make smaller: the n-th
/// is for point n. 0 is the default task, k the k-th of the others, counted round and round.
/// Points beyond the list have 0.
pub struct Guided {
    choices: Vec<u32>,
}

impl Guided {
    pub fn new(choices: Vec<u32>) -> Self {
        Self { choices }
    }
}

impl Strategy for Guided {
    fn next_schedule(&mut self, nth: u64, _lessons: &Lessons) -> bool {
        nth == 0
    }

    fn choose(&mut self, point: &Point) -> TaskId {
        let default = point.default_task();
        let nth = usize::try_from(point.nth).unwrap_or(usize::MAX);
        let others = point.runnable & !(1 << default);
        match self.choices.get(nth) {
            None | Some(0) => default,
            Some(choice) => {
                task_at(others, (choice - 1) % others.count_ones()).expect("a rank among them")
            }
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/explore/strategy.rs"]
mod tests;
