//! What tasks waited for, by the kernel's name of it: locks, and words whose cache line was
//! elsewhere.

use std::collections::BTreeMap;

use super::access::Site;
use crate::events::{Course, LockCount};
use crate::platform::arena::Lines;
use crate::platform::{Line, TaskId};

#[derive(Default)]
struct Counts {
    acquisitions: u64,
    contended: u64,
    wait_ns: u64,
    fetches: u64,
    fetch_ns: u64,
}

/// The counts of a run.
pub(super) struct LockStat {
    words: BTreeMap<Site, Counts>,
    tasks: Vec<TaskTime>,
}

#[derive(Clone, Default)]
struct TaskTime {
    first: Option<u64>,
    last: u64,
    /// The lock that the task waited for last, until it has it.
    wanted: Option<Site>,
}

impl LockStat {
    pub(super) fn new(nr_tasks: u32) -> Self {
        Self { words: BTreeMap::new(), tasks: vec![TaskTime::default(); nr_tasks as usize] }
    }

    fn at(&mut self, word: Site) -> &mut Counts {
        self.words.entry(word).or_default()
    }

    /// The task is at work at `now`.
    pub(super) fn works(&mut self, task: TaskId, now: u64) {
        let time = &mut self.tasks[task as usize];
        time.first.get_or_insert(now);
        time.last = now;
    }

    pub(super) fn acquired(&mut self, task: TaskId, lock: Site) {
        self.at(lock).acquisitions += 1;
        self.tasks[task as usize].wanted.take_if(|wanted| *wanted == lock);
    }

    /// However often a task sleeps or spins before it has a lock, it is one contention.
    pub(super) fn waited(&mut self, task: TaskId, lock: Site, ns: u64) {
        let again = self.tasks[task as usize].wanted.replace(lock) == Some(lock);
        let counts = self.at(lock);
        counts.contended += u64::from(!again);
        counts.wait_ns += ns;
    }

    pub(super) fn fetched(&mut self, word: Site, ns: u64) {
        let counts = self.at(word);
        counts.fetches += 1;
        counts.fetch_ns += ns;
    }

    pub(super) fn finish(&self, lines: &Lines, course: &mut Course) {
        let mut named: BTreeMap<String, LockCount> = BTreeMap::new();
        for (&word, counts) in &self.words {
            let sum = named.entry(kernel_name(lines, word)).or_default();
            sum.acquisitions += counts.acquisitions;
            sum.contended += counts.contended;
            sum.wait_ns += counts.wait_ns;
            sum.fetches += counts.fetches;
            sum.fetch_ns += counts.fetch_ns;
        }
        let count = |(name, sum)| LockCount { name, ..sum };
        course.locks = named.into_iter().map(count).collect();
        let times = self.tasks.iter();
        course.task_ns = times.map(|time| time.last - time.first.unwrap_or(time.last)).sum();
    }
}

/// Semaphores that are in an object, by the beginning of their fields' names, and what the kernel
/// calls them.
const SEMAPHORES: [(&str, &str, &str); 4] = [
    ("mm_struct", "sem_", "mmap_sem"),
    ("anon_vma", "sem_", "anon_vma->rwsem"),
    ("inode", "i_mmap_sem_", "i_mmap_rwsem"),
    ("inode", "sem_", "inode->i_rwsem"),
];

/// What else has a name of its own; the rest is called by object and field.
const NAMES: [(&str, &str, &str); 9] = [
    ("mm_struct", "mm_seq", "mm_seq"),
    ("mm_struct", "mm_seq_lock", "mm_seq.lock"),
    ("mm_struct", "mm_rb_lock", "mm_rb_lock"),
    ("mm_struct", "mm_rb_lock_wait", "mm_rb_lock.wait_lock"),
    ("mm_struct", "page_table_lock", "page_table_lock"),
    ("vm_area_struct", "vm_sequence", "vm_sequence"),
    ("vm_area_struct", "vm_ref_count", "vm_ref_count"),
    ("inode", "i_pages_lock", "i_pages.xa_lock"),
    ("pglist_data", "lru_lock", "lru_lock"),
];

const OBJECTS: [(&str, &str); 3] =
    [("mm_struct", "mm"), ("vm_area_struct", "vma"), ("pglist_data", "lruvec")];

/// What the kernel calls a word, whatever object of its kind it is in.
pub(super) fn kernel_name(lines: &Lines, word: Site) -> String {
    let Some((object, field)) = lines.field_of(Line(word.line), word.offset) else {
        return "?".to_owned();
    };
    if field == "ptl" {
        return field;
    }
    if let Some((.., name)) = NAMES.iter().find(|(o, f, _)| (*o, *f) == (object, field.as_str())) {
        return (*name).to_owned();
    }
    for (of, prefix, name) in SEMAPHORES {
        if object == of
            && let Some(part) = field.strip_prefix(prefix)
        {
            return if part == "count" { name.to_owned() } else { format!("{name}.{part}") };
        }
    }
    let known = OBJECTS.iter().find(|(name, _)| *name == object);
    format!("{}->{field}", known.map_or(object, |(_, short)| short))
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/lock_stat.rs"]
mod tests;
