//! What tasks wait for: ids, barriers and posts.

use std::collections::BTreeSet;

use spfemu_core::program::ProgramSpec;

use super::op::{Op, TaskProgram};

/// What a task can wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// That an id is set.
    Id(u32),
    /// That a barrier opens which has opened so often before.
    Barrier { name: u32, opened: u64 },
    /// That every post of this name has run once.
    Posts(u32),
    /// That this task has ended.
    End(u32),
    /// That this task has ended, or left this address space.
    LeftMm { task: u32, mm: usize },
}

#[derive(Default)]
struct Barrier {
    /// Tasks that name it.
    tasks: BTreeSet<u32>,
    arrived: BTreeSet<u32>,
    /// How often it has opened.
    opened: u64,
}

/// The program's own synchronisation.
pub struct Sync {
    ids: Vec<Option<u64>>,
    barriers: Vec<Barrier>,
    /// For each name: the posts that have not run, as (task, operation).
    unposted: Vec<BTreeSet<(u32, usize)>>,
}

impl Sync {
    pub fn new(spec: &ProgramSpec<'_>, tasks: &[TaskProgram]) -> Self {
        let mut barriers: Vec<Barrier> = Vec::new();
        barriers.resize_with(spec.nr_names as usize, Barrier::default);
        let mut unposted = vec![BTreeSet::new(); spec.nr_names as usize];
        for (number, task) in (0..).zip(tasks) {
            for (index, (op, _)) in task.ops.iter().enumerate() {
                match *op {
                    Op::Barrier { name } => drop(barriers[name as usize].tasks.insert(number)),
                    Op::Post { name } => drop(unposted[name as usize].insert((number, index))),
                    _ => {}
                }
            }
        }
        Self { ids: vec![None; spec.nr_ids as usize], barriers, unposted }
    }

    pub fn id(&self, id: u32) -> Option<u64> {
        self.ids[id as usize]
    }

    pub fn set_id(&mut self, id: u32, address: u64) {
        self.ids[id as usize] = Some(address);
    }

    pub fn post(&mut self, name: u32, task: usize, index: usize) {
        self.unposted[name as usize].remove(&(task as u32, index));
    }

    /// `task` has come to the barrier: what it waits for.
    pub fn arrive(&mut self, name: u32, task: usize) -> Wait {
        let barrier = &mut self.barriers[name as usize];
        barrier.arrived.insert(task as u32);
        Wait::Barrier { name, opened: barrier.opened }
    }

    /// Whether what is waited for has come; not for what only processes know.
    pub fn is_met(&mut self, wait: &Wait, has_ended: &impl Fn(u32) -> bool) -> bool {
        match *wait {
            Wait::Id(id) => self.ids[id as usize].is_some(),
            Wait::Posts(name) => self.unposted[name as usize].is_empty(),
            Wait::Barrier { name, opened } => {
                let barrier = &mut self.barriers[name as usize];
                let mut all = barrier.tasks.iter();
                let is_complete = all.all(|&t| barrier.arrived.contains(&t) || has_ended(t));
                if barrier.opened == opened && is_complete {
                    barrier.arrived.clear();
                    barrier.opened += 1;
                }
                barrier.opened != opened
            }
            Wait::End(_) | Wait::LeftMm { .. } => false,
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/waits.rs"]
mod tests;
