//! A bounded search in parts, for several threads.
//!
//! With a bound, which subtrees there are does not depend on the order in which they are searched:
//! either one task is tried at a node, or, once a race in that task's subtree opens it, all that are
//! awake; who sleeps, and until when, follows from the path alone. So a thread can give away what
//! is left to try at its shallowest such node, and whoever finds the race that opens a node gives
//! away the others that are tried there.
//!
//! A race in one part may open a node above it, which others have in common with it: one of which
//! only the first task was tried when something below it was given away. The first who opens it
//! makes parts of its other tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Dpor, Node, Sleepers, StepId, StoreChoices, TaskId, TaskSet};
use crate::explore::token::tasks_of;
use crate::explore::touch::Touch;

/// The way to a node, with what was known of it when it was left.
struct Path {
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    store_choices: StoreChoices,
    sleepers: Sleepers,
}

/// A node of which only the first task was tried, and that several parts can open.
pub(super) struct Closed {
    node: usize,
    path: Arc<Path>,
    sleeper: Option<Arc<[Touch]>>,
    /// The next one above.
    above: Option<Arc<Closed>>,
    is_open: AtomicBool,
}

impl Drop for Closed {
    /// One after the other: a chain of a long schedule would take a deep stack.
    fn drop(&mut self) {
        let mut next = self.above.take();
        while let Some(mut closed) = next.and_then(Arc::into_inner) {
            next = closed.above.take();
        }
    }
}

/// A subtree to search: all at the end of a path that begins in one way.
pub(in crate::explore) struct Part {
    /// None: the root's.
    path: Option<Arc<Path>>,
    node: usize,
    way: Way,
    closed: Option<Arc<Closed>>,
    preemptions: u32,
}

#[derive(Clone)]
enum Way {
    /// This task goes on there. If the one that was tried first sleeps then, what its step touches.
    Task(TaskId, Option<Arc<[Touch]>>),
    /// A choice of the path's, the last one of that node, is this store.
    Store(usize, u32),
}

impl Part {
    /// Everything with so many preemptions at most.
    pub(in crate::explore) fn whole(preemptions: u32) -> Self {
        Self { path: None, node: 0, way: Way::Task(0, None), closed: None, preemptions }
    }
}

impl Dpor {
    /// The next schedules are those of `part`.
    pub(in crate::explore) fn begin(&mut self, part: &Part) {
        self.races.go_back(0);
        (self.preemptions, self.last_preemptions) =
            (Some(part.preemptions), Some(part.preemptions));
        (self.has_begun, self.is_complete, self.was_bounded) = (false, false, false);
        self.nodes.clear();
        self.free_nodes.clear();
        self.store_choices = StoreChoices::default();
        self.sleepers = Sleepers::default();
        self.opened.clear();
        self.closed.clone_from(&part.closed);
        self.nr_shared = 0;
        if let Some(path) = &part.path {
            self.take_path(path, part.node, &part.way);
        }
    }

    fn take_path(&mut self, path: &Path, node: usize, way: &Way) {
        self.nr_shared = node + 1;
        self.nodes.extend_from_slice(&path.nodes[..=node]);
        let free = path.free_nodes.iter().take_while(|&&free| free as usize <= node);
        self.free_nodes.extend(free);
        self.sleepers = path.sleepers.clone();
        self.sleepers.truncate(node + 1);
        match *way {
            Way::Task(task, ref sleeper) => {
                let first = std::mem::replace(&mut self.nodes[node].task, task);
                if let Some(touches) = sleeper {
                    self.sleepers.push(node, first, touches);
                }
                self.store_choices = path.store_choices.before(node);
            }
            Way::Store(choice, store) => {
                self.store_choices = path.store_choices.with(choice, store);
            }
        }
    }

    /// Whether the bound has left something out of the part so far.
    pub(in crate::explore) fn was_bounded(&self) -> bool {
        self.was_bounded
    }

    /// What the schedule that ran has others try above its own part.
    pub(in crate::explore) fn opened(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        for node in std::mem::take(&mut self.opened) {
            let mut next = self.closed.as_ref();
            while let Some(closed) = next.filter(|closed| closed.node > node) {
                next = closed.above.as_ref();
            }
            if let Some(closed) = next.filter(|closed| closed.node == node)
                // Relaxed: who was first is all that it says; the parts go through a lock.
                && !closed.is_open.swap(true, Ordering::Relaxed)
            {
                let others = closed.path.nodes[node].others();
                parts.extend(tasks_of(others).map(|task| self.part_of(closed, task)));
            }
        }
        parts
    }

    fn part_of(&self, closed: &Closed, task: TaskId) -> Part {
        Part {
            path: Some(Arc::clone(&closed.path)),
            node: closed.node,
            way: Way::Task(task, closed.sleeper.clone()),
            closed: closed.above.clone(),
            preemptions: self.preemptions.expect("only a bounded search is in parts"),
        }
    }

    /// Gives away what is left to try at the shallowest node that has something left, if one has.
    pub(in crate::explore) fn give_away(&mut self) -> Vec<Part> {
        let mut nodes = self.nr_shared..self.nodes.len();
        let has_left = |&node: &usize| {
            self.nodes[node].left() != 0 || self.store_choices.left_at(node).next().is_some()
        };
        let Some(node) = nodes.find(has_left) else { return Vec::new() };
        let path = Arc::new(self.path_to(node));
        self.close_shared(node, &path);
        let sleeper = self.sleeper_at(node);
        let stores = self.store_choices.left_at(node);
        let ways = stores.map(|(choice, store)| Way::Store(choice, store));
        let left = tasks_of(self.nodes[node].left());
        let ways: Vec<_> = ways.chain(left.map(|task| Way::Task(task, sleeper.clone()))).collect();
        self.store_choices.leave(node);
        for shared in &mut self.nodes[self.nr_shared..=node] {
            shared.done = TaskSet::MAX;
        }
        self.nr_shared = node + 1;
        let preemptions = self.preemptions.expect("only a bounded search is in parts");
        let part = |way| {
            let (path, closed) = (Some(Arc::clone(&path)), self.closed.clone());
            Part { path, node, way, closed, preemptions }
        };
        ways.into_iter().map(part).collect()
    }

    /// From now on the nodes up to `last` are not this part's alone.
    fn close_shared(&mut self, last: usize, path: &Arc<Path>) {
        let bound = self.preemptions.expect("only a bounded search is in parts");
        for node in self.nr_shared..=last {
            let Node { todo, costs, spent, .. } = self.nodes[node];
            if todo != 0 || costs && spent >= bound || self.nodes[node].others() == 0 {
                continue;
            }
            self.closed = Some(Arc::new(Closed {
                node,
                path: Arc::clone(path),
                sleeper: self.sleeper_at(node),
                above: self.closed.take(),
                is_open: AtomicBool::new(false),
            }));
        }
    }

    /// What the step at a node touches, if its task sleeps once others are tried there.
    fn sleeper_at(&self, node: usize) -> Option<Arc<[Touch]>> {
        let Node { task, chose_stores, .. } = self.nodes[node];
        (!chose_stores && self.sleeps(node, task))
            .then(|| self.races.touches_of(node as StepId).into())
    }

    fn path_to(&self, node: usize) -> Path {
        let mut nodes = self.nodes[..=node].to_vec();
        for node in &mut nodes {
            node.done = TaskSet::MAX;
        }
        Path {
            nodes,
            free_nodes: self.free_nodes.clone(),
            store_choices: self.store_choices.before(node + 1),
            sleepers: self.sleepers.clone(),
        }
    }

    /// Where the schedule that ran comes in the order of a search by one: less is earlier.
    pub(in crate::explore) fn rank(&self) -> Vec<u32> {
        let mut rank = Vec::with_capacity(self.nodes.len());
        for (nth, node) in self.nodes.iter().enumerate() {
            rank.push(if node.task == node.first { 0 } else { node.task + 1 });
            rank.extend(self.store_choices.ranks_at(nth));
        }
        rank
    }
}

impl Node {
    /// Tasks that are still to try.
    fn left(&self) -> TaskSet {
        self.todo & !self.done & !(1 << self.task)
    }

    /// Who is tried once a race opens the node.
    fn others(&self) -> TaskSet {
        self.runnable & !self.asleep & !(1 << self.first)
    }
}
