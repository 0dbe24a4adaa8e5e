//! Which task goes next: a wheel of time slots for those that go on soon, a heap for all others.
//!
//! Most tasks go on within microseconds, a few nanoseconds apart. A slot of the wheel has those of
//! some nanoseconds, in order, and a bit that says whether there are any, so that putting one in
//! and taking the first out cost the same however many there are. Slots are so short that most have
//! one task or none, which the host's branch predictor likes. Whoever goes on later than the wheel
//! reaches, or finds its slot crowded, is in the heap; the first is the earlier of both firsts.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use crate::platform::TaskId;

/// When time ends, in nanoseconds: after 19 hours. A clock up to here, and what is added to it
/// at once, fits into one number with the rank of any of 2^16 tasks.
pub(super) const MAX_NS: u64 = 1 << 46;

const RANK_BITS: u32 = u16::BITS;

/// The latest clock that a key has room for.
const LAST_NS: u64 = (1 << (u64::BITS - RANK_BITS)) - 2;

/// How many tasks there may be.
pub(super) const MAX_TASKS: u32 = 1 << RANK_BITS;

/// No task: later than any.
const ABSENT: u64 = u64::MAX;

/// A slot is so many nanoseconds, as a power of two.
const SLOT_BITS: u32 = 2;
const WORDS: usize = 64;
/// Slots of the wheel, which reach 16 microseconds.
const SLOTS: u64 = WORDS as u64 * u64::BITS as u64;

/// So many tasks of one slot are looked at for the place of another.
const CROWDED: u32 = 8;

const NOBODY: u32 = u32::MAX;

/// A task in the wheel: its key, and the rank of the next in its slot.
#[derive(Clone, Copy)]
struct Node {
    key: u64,
    next: u32,
}

/// Tasks by clock; equal clocks by a rank drawn once.
pub(super) struct Queue {
    /// The smallest key of all, of the wheel and of the heap.
    first: Cell<u64>,
    first_of_wheel: Cell<u64>,
    first_of_heap: Cell<u64>,
    heap: RefCell<BinaryHeap<Reverse<u64>>>,
    /// The slot, counted from the beginning of time, of whoever went last: here the wheel begins,
    /// and who comes with an earlier clock is put here.
    base: Cell<u64>,
    /// The rank of the first task of each slot, which is at its number modulo theirs.
    heads: Box<[Cell<u32>; SLOTS as usize]>,
    /// Which slots have tasks, and which words of these have bits.
    busy: [Cell<u64>; WORDS],
    busy_words: Cell<u64>,
    nodes: Box<[Cell<Node>]>,
    rank_of: Box<[u32]>,
    task_of: Box<[TaskId]>,
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
        Self {
            first: Cell::new(ABSENT),
            first_of_wheel: Cell::new(ABSENT),
            first_of_heap: Cell::new(ABSENT),
            heap: RefCell::default(),
            base: Cell::new(0),
            heads: Box::new([const { Cell::new(NOBODY) }; SLOTS as usize]),
            busy: [const { Cell::new(0) }; WORDS],
            busy_words: Cell::new(0),
            nodes: task_of.iter().map(|_| Cell::new(Node { key: 0, next: NOBODY })).collect(),
            rank_of,
            task_of,
        }
    }

    /// What a task competes with at `clock`; each task's keys differ from every other's.
    #[inline(always)]
    pub(super) fn key(&self, task: TaskId, clock: u64) -> u64 {
        // Beyond MAX_NS a run ends at the next boundary of an operation.
        clock.min(LAST_NS) << RANK_BITS | u64::from(self.rank_of[task as usize])
    }

    /// Whether nobody is behind a task if its clock is `clock`.
    #[inline(always)]
    pub(super) fn is_first(&self, task: TaskId, clock: u64) -> bool {
        // Mostly the clocks alone say it.
        clock < self.first_clock() || self.key(task, clock) < self.first()
    }

    /// The smallest key, or the largest number if nobody competes.
    #[inline(always)]
    pub(super) fn first(&self) -> u64 {
        self.first.get()
    }

    /// The smallest clock; later than any if nobody competes.
    #[inline(always)]
    pub(super) fn first_clock(&self) -> u64 {
        self.first() >> RANK_BITS
    }

    /// Lets the task compete at `clock`.
    #[inline]
    pub(super) fn push(&self, task: TaskId, clock: u64) {
        let key = self.key(task, clock);
        if !self.put_in_wheel(key) {
            self.put_in_heap(key);
        }
        self.first.set(self.first().min(key));
    }

    /// Takes out the task with the smallest key.
    #[inline]
    pub(super) fn pop(&self) -> Option<TaskId> {
        let first = self.first();
        if first == ABSENT {
            return None;
        }
        // No task in the wheel is before the first of all.
        self.base.set(self.base.get().max(slot_of(first)));
        if first == self.first_of_wheel.get() {
            self.take_from_wheel(first);
        } else {
            self.take_from_heap();
        }
        self.first.set(self.first_of_wheel.get().min(self.first_of_heap.get()));
        Some(self.task_of[rank_of(first) as usize])
    }

    /// As `pop` and then `push`: takes out the task with the smallest key, there is one, and lets
    /// `task` compete at `clock`.
    #[inline]
    pub(super) fn replace_first(&self, task: TaskId, clock: u64) -> TaskId {
        let winner = self.pop().expect("somebody competes");
        self.push(task, clock);
        winner
    }

    /// Whether the wheel has a place for `key`, which is there now.
    #[inline(always)]
    fn put_in_wheel(&self, key: u64) -> bool {
        let base = self.base.get();
        let ahead = slot_of(key).saturating_sub(base);
        if ahead >= SLOTS {
            return false;
        }
        let place = (base + ahead) % SLOTS;
        let (rank, head) = (rank_of(key), &self.heads[place as usize]);
        let mut next = head.get();
        if next == NOBODY {
            let word = place / u64::from(u64::BITS);
            let busy = &self.busy[word as usize];
            busy.set(busy.get() | 1 << (place % u64::from(u64::BITS)));
            self.busy_words.set(self.busy_words.get() | 1 << word);
            head.set(rank);
        } else {
            let mut before = NOBODY;
            for looked_at in 0.. {
                let Node { key: other, next: behind } = self.nodes[next as usize].get();
                if key < other {
                    break;
                }
                if looked_at == CROWDED {
                    return false;
                }
                (before, next) = (next, behind);
                if next == NOBODY {
                    break;
                }
            }
            if before == NOBODY {
                head.set(rank);
            } else {
                let before = &self.nodes[before as usize];
                before.set(Node { next: rank, ..before.get() });
            }
        }
        self.nodes[rank as usize].set(Node { key, next });
        self.first_of_wheel.set(self.first_of_wheel.get().min(key));
        true
    }

    /// Takes the first task of the wheel out, whose key is `first`.
    #[inline(always)]
    fn take_from_wheel(&self, first: u64) {
        let place = self.base.get() % SLOTS;
        let next = self.nodes[rank_of(first) as usize].get().next;
        self.heads[place as usize].set(next);
        if next != NOBODY {
            return self.first_of_wheel.set(self.nodes[next as usize].get().key);
        }
        let (word, bit) = (place / u64::from(u64::BITS), place % u64::from(u64::BITS));
        let busy = &self.busy[word as usize];
        busy.set(busy.get() & !(1 << bit));
        if busy.get() == 0 {
            self.busy_words.set(self.busy_words.get() & !(1 << word));
        }
        let first = self.busy_from(word, bit).map_or(ABSENT, |place| {
            let head = self.heads[place as usize].get();
            self.nodes[head as usize].get().key
        });
        self.first_of_wheel.set(first);
    }

    /// The first slot with a task, from this bit of this word on and once around.
    #[inline(always)]
    fn busy_from(&self, word: u64, bit: u64) -> Option<u64> {
        let behind = self.busy[word as usize].get() & u64::MAX << bit;
        if behind != 0 {
            return Some(word * u64::from(u64::BITS) + u64::from(behind.trailing_zeros()));
        }
        let words = self.busy_words.get();
        let later = words & u64::MAX << word << 1;
        let words = if later == 0 { words } else { later };
        let word = words.trailing_zeros();
        let busy = self.busy.get(word as usize)?.get();
        Some(u64::from(word * u64::BITS + busy.trailing_zeros()))
    }

    #[inline(never)]
    fn put_in_heap(&self, key: u64) {
        self.heap.borrow_mut().push(Reverse(key));
        self.first_of_heap.set(self.first_of_heap.get().min(key));
    }

    #[inline(never)]
    fn take_from_heap(&self) {
        let mut heap = self.heap.borrow_mut();
        heap.pop();
        self.first_of_heap.set(heap.peek().map_or(ABSENT, |&Reverse(key)| key));
    }
}

/// The slot of a key, counted from the beginning of time.
#[inline(always)]
fn slot_of(key: u64) -> u64 {
    key >> (RANK_BITS + SLOT_BITS)
}

#[inline(always)]
fn rank_of(key: u64) -> u32 {
    (key & ((1 << RANK_BITS) - 1)) as u32
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/queue.rs"]
mod tests;
