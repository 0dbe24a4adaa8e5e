//! Depth-first search that runs one schedule of those that lead to the same (dynamic partial-order
//! reduction), with a bound on preemptions or without.
//!
//! Without a bound: *source sets* with *sleep sets* (Abdulla, Aronis, Jonsson and Sagonas, "Source
//! sets: a foundation for optimal dynamic partial order reduction", JACM 2017). Where a step `e`
//! races with a later one `f`, some task must be tried at `e` with which what leads to `f` without
//! `e` can begin; a task whose subtree is done sleeps in its siblings' until a step conflicts with
//! its own.
//!
//! With a bound both have to know what they cost, for the schedule that stands for another may need
//! more preemptions than that (Coons, Musuvathi and McKinley, "Bounded partial-order reduction",
//! 2013). What is promised: for every schedule within the bound one is run that differs from it only
//! by exchanges of steps without a conflict.
//!
//! * A preemption before a step `e` with which nothing conflicts until its task goes on can as well
//!   come after `e`, at no higher cost. So a task is preempted only before a step that was seen to
//!   race with a later one; there, all others are tried.
//! * Where switching is free (the task that ran waits, has ended, or just let another begin) the
//!   whole block of the task that goes on can move before what others do first, at no higher cost,
//!   unless something in it conflicts. So others are tried there once a step of the task that was
//!   chosen is seen to race.
//! * Only a task that was preempted sleeps: that it goes on before a conflict is the same as to
//!   preempt it a step later, which costs no more and was tried before.
//!
//! Under weak memory a step can have a choice of its own, which store it comes after: all are tried
//! that the bound allows, and such a step does not let its task sleep, for what it touches may depend
//! on the choice. Which choices there are can depend on the order of steps without a conflict (those
//! left out are as good as others: `memory/mod.rs`), so that within a bound a schedule may be stood
//! for by one that takes one more; without a bound nothing is missed.
//!
//! Tested against all schedules of small programs, order by order: `tests/unit/explore/dpor.rs`,
//! under weak memory `weak.rs`.

use std::sync::Arc;

use super::races::{Races, StepId};
use super::store_choices::StoreChoices;
use super::strategy::Point;
use super::token::TaskSet;
use crate::platform::TaskId;

mod share;
mod sleepers;

use share::Closed;
pub(super) use share::Part;
use sleepers::Sleepers;

/// A point of the schedule that runs: before one of its steps.
#[derive(Clone)]
struct Node {
    runnable: TaskSet,
    /// Tasks whose step here was tried before, on the way here.
    asleep: TaskSet,
    /// Tasks whose subtree is done.
    done: TaskSet,
    /// Tasks to try.
    todo: TaskSet,
    /// Who goes on.
    task: TaskId,
    /// Who was tried first.
    first: TaskId,
    /// Who ran last.
    current: TaskId,
    /// Preemptions before.
    spent: u32,
    /// Whether another than `current` costs a preemption.
    costs: bool,
    /// Whether the step of `task` has a choice of stores.
    chose_stores: bool,
}

/// Chooses schedules, and learns from their races which others there are.
pub(super) struct Dpor {
    /// The schedule that runs.
    pub(super) races: Races,
    /// The bound of this pass, and of the last one; none: all schedules in one pass.
    preemptions: Option<u32>,
    last_preemptions: Option<u32>,
    nodes: Vec<Node>,
    /// Nodes where several tasks can go on and none costs a preemption.
    free_nodes: Vec<u32>,
    /// Where in `nodes` the schedule that runs has come to.
    depth: usize,
    /// How many of the nodes are those of the schedule before, the last one with another task.
    given: usize,
    store_choices: StoreChoices,
    sleepers: Sleepers,
    /// All that can go on sleep: what comes now leads to what was found before.
    is_redundant: bool,
    has_begun: bool,
    is_complete: bool,
    /// The bound of this pass has left something out.
    was_bounded: bool,
    /// The first steps of tasks, see `initials`.
    firsts: Vec<StepId>,
    /// Nodes that are not this search's alone; which of them have others to try since it looked.
    nr_shared: usize,
    opened: Vec<usize>,
    /// The last of those of which only the first task is tried, as far as is known here.
    closed: Option<Arc<Closed>>,
}

impl Dpor {
    /// Every schedule with at most so many preemptions, after a pass for each smaller bound:
    /// the first that breaks something is a simple one. Without a bound, every schedule.
    pub(super) fn new(nr_tasks: u32, preemptions: Option<u32>) -> Self {
        Self {
            races: Races::new(nr_tasks),
            preemptions: preemptions.map(|_| 0),
            last_preemptions: preemptions,
            nodes: Vec::new(),
            free_nodes: Vec::new(),
            depth: 0,
            given: 0,
            store_choices: StoreChoices::default(),
            sleepers: Sleepers::default(),
            is_redundant: false,
            has_begun: false,
            is_complete: false,
            was_bounded: false,
            firsts: Vec::new(),
            nr_shared: 0,
            opened: Vec::new(),
            closed: None,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the schedule that ran leads to what another one does.
    pub(super) fn is_redundant(&self) -> bool {
        self.is_redundant
    }

    /// Prepares the next schedule. False: there is none left.
    pub(super) fn next_schedule(&mut self) -> bool {
        self.depth = 0;
        self.given = 0;
        self.sleepers.begin();
        self.store_choices.begin();
        self.is_redundant = false;
        if !std::mem::replace(&mut self.has_begun, true) || self.take_another_way() {
            return true;
        }
        self.free_nodes.clear();
        self.races.go_back(0);
        if let (Some(bound), Some(last)) = (self.preemptions, self.last_preemptions)
            && bound < last
            && std::mem::take(&mut self.was_bounded)
        {
            self.preemptions = Some(bound + 1);
            return true;
        }
        self.is_complete = true;
        false
    }

    /// Lets another task go on at the last node that has one to try.
    fn take_another_way(&mut self) -> bool {
        while let Some(nth) = self.nodes.len().checked_sub(1) {
            if self.store_choices.take_another(nth) {
                self.go_on_from(nth);
                return true;
            }
            let node = &mut self.nodes[nth];
            let chose_stores = std::mem::take(&mut node.chose_stores);
            node.done |= 1 << node.task;
            let left = node.todo & !node.done;
            if left != 0 {
                let tried = std::mem::replace(&mut node.task, left.trailing_zeros());
                if !chose_stores && self.sleeps(nth, tried) {
                    self.sleepers.push(nth, tried, self.races.touches_of(nth as StepId));
                }
                self.go_on_from(nth);
                return true;
            }
            self.nodes.pop();
            if self.free_nodes.last() == Some(&(nth as u32)) {
                self.free_nodes.pop();
            }
            self.sleepers.truncate(nth);
        }
        false
    }

    /// Whether a task that was tried at a node sleeps while others are, unless its step chose stores:
    /// what that does may depend on what it has read.
    fn sleeps(&self, node: usize, task: TaskId) -> bool {
        let node = &self.nodes[node];
        self.preemptions.is_none() || node.costs && task == node.current
    }

    /// The next schedule has the nodes up to this one in common, whose step is another.
    fn go_on_from(&mut self, nth: usize) {
        self.races.go_back(nth);
        self.given = nth + 1;
        self.sleepers.begin_at(nth, self.nodes[nth].asleep);
    }

    /// Whether the next step is one that the schedule has in common with the one before, and `task`
    /// takes it; it is taken then. All that can be learnt of it was.
    #[inline(always)]
    pub(super) fn repeats(&mut self, task: TaskId, runnable: TaskSet) -> bool {
        self.depth + 1 < self.given
            && self.nodes[self.depth].task == task
            && self.repeat(runnable) == task
    }

    #[inline(always)]
    fn repeat(&mut self, runnable: TaskSet) -> TaskId {
        let node = &self.nodes[self.depth];
        assert_eq!(node.runnable, runnable, "the same choices, another program");
        self.depth += 1;
        node.task
    }

    /// Closes the step that ran, and chooses who takes the next one.
    #[inline]
    pub(super) fn step(&mut self, point: &Point) -> TaskId {
        if self.depth + 1 < self.given {
            return self.repeat(point.runnable);
        }
        self.end_step();
        if self.is_redundant {
            return point.default_task();
        }
        let task = match self.nodes.get(self.depth) {
            Some(node) => {
                assert_eq!(node.runnable, point.runnable, "the same choices, another program");
                node.task
            }
            None => match self.new_node(point) {
                Some(task) => task,
                None => {
                    self.is_redundant = true;
                    return point.default_task();
                }
            },
        };
        self.sleepers.meet(self.depth);
        self.depth += 1;
        if self.depth >= self.given {
            self.races.begin_step(task);
        }
        task
    }

    /// The running step has a choice of its own: which store it comes after. All are tried, each
    /// but the last (`current`) as a preemption.
    pub(super) fn choose_store(&mut self, point: &Point) -> u32 {
        let (false, Some(node)) = (self.is_redundant, self.depth.checked_sub(1)) else {
            return point.current;
        };
        self.nodes[node].chose_stores = true;
        let spent = self.spent_at(node);
        let costs = point.costs();
        let tries = !costs || self.preemptions.is_none_or(|bound| spent < bound);
        self.was_bounded |= !tries;
        self.store_choices.choose(node, point.current, costs, tries)
    }

    /// Preemptions up to this node's step, and in it so far.
    fn spent_at(&self, node: usize) -> u32 {
        let Node { spent, costs, task, current, .. } = self.nodes[node];
        spent + u32::from(costs && task != current) + self.store_choices.older_at(node)
    }

    /// The schedule comes where none was before; none: whoever can go on sleeps.
    fn new_node(&mut self, point: &Point) -> Option<TaskId> {
        let asleep = self.sleepers.asleep();
        let awake = point.runnable & !asleep;
        let default = point.default_task();
        let task = match awake {
            0 => return None,
            _ if awake & 1 << default != 0 => default,
            _ => awake.trailing_zeros(),
        };
        let costs = point.costs();
        let spent = self.nodes.len().checked_sub(1).map_or(0, |last| self.spent_at(last));
        if !costs && point.runnable & (point.runnable - 1) != 0 {
            self.free_nodes.push(self.nodes.len() as u32);
        }
        let (runnable, current) = (point.runnable, point.current);
        let (done, todo, chose_stores) = (0, 0, false);
        self.nodes.push(Node {
            runnable,
            asleep,
            done,
            todo,
            task,
            first: task,
            current,
            spent,
            costs,
            chose_stores,
        });
        Some(task)
    }

    /// The step that ran has ended: learns from its races.
    #[inline]
    pub(super) fn end_step(&mut self) {
        if self.depth < self.given {
            return;
        }
        let closed = self.races.close();
        if self.sleepers.is_any_asleep() {
            self.sleepers.wake(self.races.touches_of(self.depth as StepId - 1));
        }
        if let Some(step) = closed
            && (!self.races.races().is_empty() || self.races.stopped() != 0)
        {
            self.learn(step);
        }
    }

    fn learn(&mut self, step: StepId) {
        for nth in 0..self.races.races().len() {
            let earlier = self.races.races()[nth];
            match self.preemptions {
                None => self.reverse(earlier, step),
                Some(bound) => self.try_others(earlier, bound),
            }
        }
        let stopped = self.races.stopped();
        if stopped != 0 {
            match self.preemptions {
                None => self.nodes[step as usize].todo |= stopped,
                Some(bound) => self.try_others(step, bound),
            }
            self.leave_sleepers(step);
        }
    }

    fn leave_sleepers(&mut self, step: StepId) {
        let node = &mut self.nodes[step as usize];
        node.todo &= node.runnable & !node.asleep;
    }

    /// `earlier` races with `later`: some task has to be tried before it with which what leads to
    /// `later` can begin.
    fn reverse(&mut self, earlier: StepId, later: StepId) {
        let initials = self.initials(earlier, later);
        let node = &mut self.nodes[earlier as usize];
        if (node.todo | node.done | node.asleep) & initials != 0 {
            return;
        }
        let candidates = initials & node.runnable;
        let later = self.races.task_of(later);
        if candidates & 1 << later != 0 {
            node.todo |= 1 << later;
        } else if candidates != 0 {
            node.todo |= 1 << candidates.trailing_zeros();
        }
    }

    /// The tasks with which the steps between `earlier` and `later` that do not come after
    /// `earlier`, and then `later`, can begin.
    fn initials(&mut self, earlier: StepId, later: StepId) -> TaskSet {
        let races = &self.races;
        let (mut seen, mut initials): (TaskSet, TaskSet) = (0, 0);
        self.firsts.clear();
        for step in earlier + 1..=later {
            let task = races.task_of(step);
            if seen & 1 << task != 0 || step != later && races.is_before(earlier, step) {
                continue;
            }
            seen |= 1 << task;
            if !self.firsts.iter().any(|&first| races.is_before(first, step)) {
                initials |= 1 << task;
            }
            self.firsts.push(step);
        }
        initials
    }

    /// The step at node `nth` races with a later one: others are tried before it, and wherever its
    /// task was chosen freely.
    fn try_others(&mut self, nth: StepId, bound: u32) {
        let node = &self.nodes[nth as usize];
        let Node { task, costs, spent, .. } = *node;
        let others = node.runnable & !node.asleep & !(1 << task);
        self.was_bounded |= costs && spent >= bound && others != 0;
        let itself = (costs && spent < bound).then_some(nth);
        let free = self.free_nodes.iter().copied().take_while(|&free| free <= nth);
        for nth in itself.into_iter().chain(free) {
            let node = &mut self.nodes[nth as usize];
            if node.task == task {
                if node.todo == 0 && (nth as usize) < self.nr_shared {
                    self.opened.push(nth as usize);
                }
                node.todo |= node.runnable & !node.asleep;
            }
        }
    }
}
