//! Which task goes next: a tournament over the clocks of the tasks that want to go on.
//!
//! Each node holds the smallest of its four children, so the root is the winner and a change costs
//! one path of comparisons, nothing allocated. A task has a leaf only while it competes: who hands
//! over to the winner takes the winner's, and one path serves both.

use std::cell::{Cell, RefCell};

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::platform::TaskId;

/// When time ends, in nanoseconds: after 19 hours. A clock up to here, and what is added to it
/// at once, fits into one number with the rank of any of 2^16 tasks.
pub(super) const MAX_NS: u64 = 1 << 46;

/// A leaf that no task has.
const ABSENT: u64 = u64::MAX;

/// Children of a node.
const FAN_OUT: usize = 4;

/// Tasks by clock; equal clocks by a rank drawn once.
pub(super) struct Queue {
    /// The key of node 0, the root.
    first: Cell<u64>,
    /// For each node but the leaves the keys of its children: those of n are 4n + 1 to 4n + 4.
    keys: Box<[[Cell<u64>; FAN_OUT]]>,
    /// Leaves without a task, the next to be taken last.
    free: RefCell<Vec<u32>>,
    rank_bits: u32,
    rank_of: Box<[u32]>,
    by_rank: Box<[Cell<Ranked>]>,
}

/// The task of a rank, and the leaf that it has, if it has one.
#[derive(Clone, Copy)]
struct Ranked {
    task: TaskId,
    leaf: u32,
}

impl Queue {
    /// A queue for tasks 0 to `nr_tasks` - 1, none of which is in it.
    pub(super) fn new(nr_tasks: u32, random: &mut Pcg64Mcg) -> Self {
        let mut task_of: Box<[TaskId]> = (0..nr_tasks).collect();
        for last in (1..task_of.len()).rev() {
            task_of.swap(last, random.next_u64() as usize % (last + 1));
        }
        let mut rank_of = vec![0; task_of.len()].into_boxed_slice();
        for (rank, &task) in task_of.iter().enumerate() {
            rank_of[task as usize] = rank as u32;
        }
        // So many nodes have children that what is left is enough leaves.
        let nr_inner = nr_tasks.saturating_sub(1).div_ceil(FAN_OUT as u32 - 1).max(1);
        let leaves = nr_inner..FAN_OUT as u32 * nr_inner + 1;
        Self {
            first: Cell::new(ABSENT),
            keys: (0..nr_inner).map(|_| [const { Cell::new(ABSENT) }; FAN_OUT]).collect(),
            free: RefCell::new(leaves.rev().collect()),
            rank_bits: nr_tasks.next_power_of_two().trailing_zeros(),
            rank_of,
            by_rank: task_of.iter().map(|&task| Cell::new(Ranked { task, leaf: 0 })).collect(),
        }
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
        self.first.get()
    }

    /// The smallest clock; later than any if nobody competes.
    #[inline(always)]
    pub(super) fn first_clock(&self) -> u64 {
        self.first() >> self.rank_bits
    }

    /// Lets the task compete at `clock`.
    #[inline]
    pub(super) fn push(&self, task: TaskId, clock: u64) {
        let leaf = self.free.borrow_mut().pop().expect("a leaf for each task");
        self.set_leaf(task, leaf);
        self.lower(leaf, self.key(task, clock));
    }

    /// Takes out the task with the smallest key.
    #[inline]
    pub(super) fn pop(&self) -> Option<TaskId> {
        let Ranked { task, leaf } = self.winner()?;
        self.set(leaf, ABSENT);
        self.free.borrow_mut().push(leaf);
        Some(task)
    }

    /// As `pop` and then `push`: takes out the task with the smallest key, there is one, and lets
    /// `task` compete at `clock`.
    #[inline]
    pub(super) fn replace_first(&self, task: TaskId, clock: u64) -> TaskId {
        let winner = self.winner().expect("somebody competes");
        self.set_leaf(task, winner.leaf);
        self.set(winner.leaf, self.key(task, clock));
        winner.task
    }

    /// The task with the smallest key.
    #[inline(always)]
    fn winner(&self) -> Option<Ranked> {
        let first = self.first();
        if first == ABSENT {
            return None;
        }
        Some(self.by_rank[(first & ((1 << self.rank_bits) - 1)) as usize].get())
    }

    #[inline(always)]
    fn set_leaf(&self, task: TaskId, leaf: u32) {
        self.by_rank[self.rank_of[task as usize] as usize].set(Ranked { task, leaf });
    }

    /// Gives the winner's leaf another key.
    #[inline(always)]
    fn set(&self, leaf: u32, key: u64) {
        let (mut node, mut key) = (leaf as usize, key);
        while node != 0 {
            let place = node - 1;
            node = place / FAN_OUT;
            let keys = &self.keys[node];
            keys[place % FAN_OUT].set(key);
            let [a, b, c, d] = keys;
            key = a.get().min(b.get()).min(c.get().min(d.get()));
        }
        self.first.set(key);
    }

    /// Gives a leaf without a task a key, which is smaller than none: up to where another is
    /// smaller still.
    #[inline(always)]
    fn lower(&self, leaf: u32, key: u64) {
        let mut node = leaf as usize;
        while node != 0 {
            let place = node - 1;
            node = place / FAN_OUT;
            let held = &self.keys[node][place % FAN_OUT];
            if held.get() <= key {
                return;
            }
            held.set(key);
        }
        self.first.set(self.first().min(key));
    }
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/queue.rs"]
mod tests;
