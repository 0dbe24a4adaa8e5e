//! What happens before what, by the orderings given and nothing else (C11, RC11): the accesses of
//! a test are sequentially consistent, but here they order no more than the host has to.

use std::collections::HashMap;

use crate::platform::{Fence, Ordering, TaskId};

/// For each task how many of its accesses are known.
type Clock = Vec<u32>;

/// Who stored to a word last, and what its value carries to who acquires it.
#[derive(Default)]
struct Last {
    store: Option<(TaskId, u32)>,
    carries: Clock,
}

/// What one task knows.
#[derive(Clone, Default)]
struct Knowledge {
    now: Clock,
    /// What was read without acquiring: an acquire fence makes it known.
    read: Clock,
    /// What was known at the last release fence: every store carries it.
    fenced: Clock,
}

/// Looks for stores that nothing orders.
pub struct Clocks {
    tasks: Vec<Knowledge>,
    words: HashMap<usize, Last>,
    unordered: Vec<usize>,
}

impl Clocks {
    pub fn new(nr_tasks: u32) -> Self {
        let zero = vec![0; nr_tasks as usize];
        let knows = Knowledge { now: zero.clone(), read: zero.clone(), fenced: zero };
        Self { tasks: vec![knows; nr_tasks as usize], words: HashMap::new(), unordered: Vec::new() }
    }

    /// Words to which two tasks stored with nothing that orders the two.
    pub fn unordered(&self) -> &[usize] {
        &self.unordered
    }

    pub fn load(&mut self, task: TaskId, word: usize, order: Ordering) {
        let knows = &mut self.tasks[task as usize];
        let Some(last) = self.words.get(&word) else { return };
        join(&mut knows.read, &last.carries);
        if acquires(order) {
            join(&mut knows.now, &last.carries);
        }
    }

    pub fn store(&mut self, task: TaskId, word: usize, order: Ordering) {
        let nr_tasks = self.tasks.len();
        let last = self.words.entry(word).or_default();
        let knows = &self.tasks[task as usize];
        if last.store.is_some_and(|(other, when)| knows.now[other as usize] < when) {
            self.unordered.push(word);
        }
        last.carries = vec![0; nr_tasks];
        self.put(task, word, order);
    }

    /// A read-modify-write: it comes right after the store it reads, and hands on what that carried.
    pub fn modify(&mut self, task: TaskId, word: usize, order: Ordering) {
        self.load(task, word, order);
        self.put(task, word, order);
    }

    fn put(&mut self, task: TaskId, word: usize, order: Ordering) {
        let knows = &mut self.tasks[task as usize];
        knows.now[task as usize] += 1;
        let last = self.words.entry(word).or_default();
        last.store = Some((task, knows.now[task as usize]));
        let carried = if releases(order) { &knows.now } else { &knows.fenced };
        join(&mut last.carries, carried);
    }

    pub fn fence(&mut self, task: TaskId, fence: Fence) {
        let knows = &mut self.tasks[task as usize];
        if fence != Fence::Write {
            join(&mut knows.now, &knows.read);
        }
        if fence != Fence::Read {
            knows.fenced = knows.now.clone();
        }
    }
}

fn acquires(order: Ordering) -> bool {
    !matches!(order, Ordering::Relaxed | Ordering::Release)
}

fn releases(order: Ordering) -> bool {
    matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst)
}

fn join(into: &mut Clock, from: &Clock) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (mine, theirs) in into.iter_mut().zip(from) {
        *mine = (*mine).max(*theirs);
    }
}
