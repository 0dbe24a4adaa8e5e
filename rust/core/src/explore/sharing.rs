//! Which preemptions can make a difference.
//!
//! A task that is preempted before an access which no access of the other tasks races with could
//! as well be preempted before its next access: the other tasks' steps in between commute with
//! that one, so the same state is reached with as many preemptions, or fewer. So depth-first
//! search branches only before accesses to words on which there *are* races. Which words these
//! are is learnt: whenever a schedule shows a new one, the search begins again. When a whole
//! search shows none, none exists: the first race outside of the set, in any schedule within the
//! bound, would be the first in a schedule that was run, by moving preemptions as above.
//!
//! Three things make that sound here. Words are told apart by *class* (arena and offset), since
//! which slot an object gets depends on the schedule. Freeing an object conflicts with every
//! access to it. And what happens without an access of its own (leaving a read section, queueing
//! or fetching a callback, freeing) belongs to the access before it, before which the search then
//! branches too, as soon as somebody waits for grace periods or interrupts.
//!
//! Tested against the search without it: `the_reduction_keeps_every_final_state`.

use std::collections::HashMap;
use std::sync::Arc;

use super::races::Races;
use crate::platform::{Line, Lines, TaskId};

/// Words of a line that can be told apart: one every four bytes.
const CLASSES_PER_LINE: u32 = Line::BYTES / 4;

/// Learns on which classes of words there are races.
pub(super) struct Sharing {
    lines: Option<Arc<Lines>>,
    /// Blocks of `lines` that are in `class_of_line`.
    nr_blocks: usize,
    /// The first class of each line, plus one; 0: not known yet.
    class_of_line: Vec<u32>,
    /// The first class of each arena.
    arenas: HashMap<u32, u32>,
    nr_classes: u32,
    races: Races,
    /// By class: as the search uses it, and as learnt meanwhile.
    used: Vec<bool>,
    learnt: Vec<bool>,
    has_grown: bool,
    /// The class of each task's last access.
    last: [u32; 64],
    /// Somebody waits for grace periods or interrupts.
    sections_matter: bool,
}

/// No class: the access was a choice anyway.
const NO_CLASS: u32 = u32::MAX;

impl Sharing {
    pub(super) fn new(nr_tasks: u32, lines: Option<Arc<Lines>>) -> Self {
        Self {
            lines,
            nr_blocks: 0,
            class_of_line: Vec::new(),
            arenas: HashMap::new(),
            nr_classes: 0,
            races: Races::new(nr_tasks),
            used: Vec::new(),
            learnt: Vec::new(),
            has_grown: false,
            last: [NO_CLASS; 64],
            sections_matter: false,
        }
    }

    pub(super) fn begin_schedule(&mut self) {
        self.races.begin_schedule();
        self.last = [NO_CLASS; 64];
    }

    /// Takes over what was learnt; whether that is more than was used.
    pub(super) fn adopt(&mut self) -> bool {
        self.used.clone_from(&self.learnt);
        std::mem::replace(&mut self.has_grown, false)
    }

    /// The class of the word at `site`, and whether a choice before an access to it can make a
    /// difference.
    #[inline]
    pub(super) fn look_up(&mut self, site: u64) -> (u32, bool) {
        let class = self.class(site);
        (class, self.used.get(class as usize).copied().unwrap_or(false))
    }

    /// Notes an access to the word at `site`, of this class.
    #[inline(always)]
    pub(super) fn touch(&mut self, task: TaskId, site: u64, class: u32, writes: bool) {
        self.last[task as usize] = class;
        if self.races.access(task, (site / 4) as usize, writes) {
            self.share(class);
        }
    }

    /// Notes a read that is part of the step before it.
    pub(super) fn observe(&mut self, task: TaskId, site: u64) {
        let class = self.class(site);
        if self.races.access(task, (site / 4) as usize, false) {
            self.share(class);
        }
        if self.learnt[class as usize] {
            self.glue(task);
        }
    }

    /// What `task` does next belongs to its last access, and may be in conflict.
    pub(super) fn glue(&mut self, task: TaskId) {
        let class = self.last[task as usize];
        if class != NO_CLASS {
            self.share(class);
        }
    }

    /// As `glue`, for what only grace periods and interrupts wait for.
    pub(super) fn glue_section(&mut self, task: TaskId) {
        if self.sections_matter {
            self.glue(task);
        }
    }

    /// A section begins: what follows belongs to a choice of its own.
    pub(super) fn begin_section(&mut self, task: TaskId) {
        self.last[task as usize] = NO_CLASS;
    }

    /// Somebody waits for a grace period or for interrupts.
    pub(super) fn wait_for_sections(&mut self) {
        if !std::mem::replace(&mut self.sections_matter, true) {
            self.has_grown = true;
        }
    }

    /// `task` freed the object in `lines` lines from `line` on. Always a choice before: who comes
    /// too late finds the object gone before it can touch it.
    pub(super) fn freed(&mut self, task: TaskId, line: Line, lines: u32) {
        self.glue(task);
        let (mut from, to) = (line.0, line.0 + lines);
        while let Some(line) = self.races.next_touched(from, to) {
            from = line + 1;
            let mut races = self.races.forget(task, line);
            while races != 0 {
                let word = line * CLASSES_PER_LINE + races.trailing_zeros();
                races &= races - 1;
                let class = self.class(u64::from(word) * 4);
                self.share(class);
            }
        }
    }

    fn share(&mut self, class: u32) {
        let shared = &mut self.learnt[class as usize];
        if !*shared {
            *shared = true;
            self.has_grown = true;
        }
    }

    #[inline]
    fn class(&mut self, site: u64) -> u32 {
        let line = (site / 64) as usize;
        match self.class_of_line.get(line) {
            Some(&first) if first != 0 => first - 1 + (site % 64 / 4) as u32,
            _ => self.learn_line(line) + (site % 64 / 4) as u32,
        }
    }

    /// Finds out the first class of a line not seen before.
    #[cold]
    fn learn_line(&mut self, line: usize) -> u32 {
        let blocks = self.lines.as_ref().map(|lines| lines.blocks()).unwrap_or_default();
        for block in blocks.iter().skip(self.nr_blocks) {
            let fresh = self.nr_classes;
            let first = *self.arenas.entry(block.arena).or_insert(fresh);
            if first == fresh {
                self.nr_classes += block.per_object * CLASSES_PER_LINE;
            }
            for nth in 0..block.nr_objects * block.per_object {
                let class = first + nth % block.per_object * CLASSES_PER_LINE;
                self.set_line((block.first.0 + nth) as usize, class);
            }
        }
        self.nr_blocks = blocks.len();
        if self.class_of_line.get(line).is_none_or(|&first| first == 0) {
            self.set_line(line, self.nr_classes);
            self.nr_classes += CLASSES_PER_LINE;
        }
        self.learnt.resize(self.nr_classes as usize, false);
        self.class_of_line[line] - 1
    }

    fn set_line(&mut self, line: usize, class: u32) {
        if line >= self.class_of_line.len() {
            self.class_of_line.resize(line + 1, 0);
        }
        self.class_of_line[line] = class + 1;
    }
}
