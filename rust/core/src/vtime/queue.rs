//! Which task goes next: a tournament over the clocks of all tasks.
//!
//! Every task has a leaf; each node above holds the smaller of its two children, so the root is
//! the winner and a change costs one path of comparisons, nothing allocated.

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::platform::TaskId;

/// When time ends, in nanoseconds: after 19 hours. A clock up to here, and what is added to it
/// at once, fits into one number with the rank of any of 2^16 tasks.
pub(super) const MAX_NS: u64 = 1 << 46;

/// A leaf whose task does not compete.
const ABSENT: u64 = u64::MAX;

/// Tasks by clock; equal clocks by a rank drawn once.
pub(super) struct Queue {
    /// Node 1 is the root; the children of n are 2n and 2n + 1; the last half are the leaves.
    keys: Vec<u64>,
    nr_leaves: usize,
    rank_bits: u32,
    rank_of: Vec<u32>,
    task_of: Vec<TaskId>,
}

impl Queue {
    /// A queue for tasks 0 to `nr_tasks` - 1, none of which is in it.
    pub(super) fn new(nr_tasks: u32, random: &mut Pcg64Mcg) -> Self {
        let mut task_of: Vec<TaskId> = (0..nr_tasks).collect();
        for last in (1..task_of.len()).rev() {
            task_of.swap(last, random.next_u64() as usize % (last + 1));
        }
        let mut rank_of = vec![0; task_of.len()];
        for (rank, &task) in task_of.iter().enumerate() {
            rank_of[task as usize] = rank as u32;
        }
        let nr_leaves = task_of.len().next_power_of_two();
        let rank_bits = nr_leaves.trailing_zeros();
        Self { keys: vec![ABSENT; 2 * nr_leaves], nr_leaves, rank_bits, rank_of, task_of }
    }

    /// What a task competes with at `clock`; each task's keys differ from every other's.
    #[inline(always)]
    pub(super) fn key(&self, task: TaskId, clock: u64) -> u64 {
        debug_assert!(clock >> (64 - self.rank_bits.max(1)) == 0, "clocks stay near MAX_NS");
        clock << self.rank_bits | u64::from(self.rank_of[task as usize])
    }

    /// The smallest key, or the largest number if nobody competes.
    #[inline(always)]
    pub(super) fn first(&self) -> u64 {
        self.keys[1]
    }

    /// The smallest clock; later than any if nobody competes.
    #[inline(always)]
    pub(super) fn first_clock(&self) -> u64 {
        self.first() >> self.rank_bits
    }

    /// Lets the task compete at `clock`.
    #[inline]
    pub(super) fn push(&mut self, task: TaskId, clock: u64) {
        let key = self.key(task, clock);
        self.set(self.rank_of[task as usize] as usize, key);
    }

    /// Takes out the task with the smallest key.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<TaskId> {
        let first = self.first();
        if first == ABSENT {
            return None;
        }
        let rank = (first & (self.nr_leaves as u64 - 1)) as usize;
        self.set(rank, ABSENT);
        Some(self.task_of[rank])
    }

    #[inline(always)]
    fn set(&mut self, rank: usize, key: u64) {
        let mut node = self.nr_leaves + rank;
        self.keys[node] = key;
        let mut smaller = key;
        while node > 1 {
            smaller = smaller.min(self.keys[node ^ 1]);
            node /= 2;
            self.keys[node] = smaller;
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/queue.rs"]
mod tests;
