//! From the array form to a [`Program`]: everything is checked here, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::decode::Tables;
use super::observe::Unfollowed;
use super::op::Op;
use super::record::Record;
use crate::mm::{FileKind, MAX_FILE_BYTES};
use crate::platform::TaskId;

/// How a task comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the program, as a thread of its first process.
    First,
    Fork,
    Vfork,
    Clone,
}

/// A task as it is given.
#[derive(Clone, Copy, Debug)]
pub struct TaskSpec<'a> {
    pub start: Start,
    /// Packed records of [`super::RECORD_BYTES`] each.
    pub records: &'a [u8],
}

/// A file that the program maps.
#[derive(Clone, Copy, Debug)]
pub struct FileSpec {
    /// Bytes.
    pub length: u64,
    pub kind: FileKind,
    /// Its pages are in the page cache from the beginning.
    pub cached: bool,
}

/// A program as it is given: records, and the sizes of what they index.
#[derive(Clone, Debug)]
pub struct ProgramSpec<'a> {
    pub tasks: Vec<TaskSpec<'a>>,
    pub nr_ids: u32,
    /// Names of barriers and posts.
    pub nr_names: u32,
    pub texts: &'a [String],
    pub files: Vec<FileSpec>,
    /// (task, record) of each `note` whose VMAs are wanted.
    pub note_maps: Vec<(u32, u32)>,
}

/// What is wrong with a program: place, field, value, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramError(pub String);

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProgramError {}

/// What one task does.
#[derive(Debug)]
pub(super) struct TaskProgram {
    pub start: Start,
    pub ops: Vec<Op>,
    pub nr_repeats: u32,
    /// The barriers it names.
    pub barriers: Vec<u32>,
}

/// A program that was checked: running it cannot fail for what it says.
#[derive(Debug)]
pub struct Program {
    pub(super) tasks: Vec<TaskProgram>,
    pub(super) nr_ids: u32,
    /// For each name: how many `post` records it has.
    pub(super) posts: Vec<u64>,
    pub(super) files: Vec<FileSpec>,
    /// The most bytes that each file ever has.
    pub(super) longest: Vec<u64>,
    pub(super) note_maps: BTreeSet<(u32, u32)>,
    pub(super) unfollowed: Unfollowed,
}

impl Program {
    /// Decodes and checks a program.
    pub fn new(spec: &ProgramSpec<'_>) -> Result<Self, ProgramError> {
        let tables = Tables {
            nr_ids: spec.nr_ids,
            nr_names: spec.nr_names,
            nr_tasks: spec.tasks.len() as u32,
            files: &spec.files,
            texts: spec.texts,
        };
        let mut tasks = Vec::with_capacity(spec.tasks.len());
        for (number, task) in spec.tasks.iter().enumerate() {
            let at = |what: String| ProgramError(format!("tasks[{number}]: {what}"));
            tasks.push(decode_task(task, &tables).map_err(at)?);
        }
        check_starts(&tasks).map_err(ProgramError)?;
        let mut posts = vec![0; spec.nr_names as usize];
        let mut longest: Vec<u64> = spec.files.iter().map(|file| file.length).collect();
        for op in tasks.iter().flat_map(|task| &task.ops) {
            match *op {
                Op::Post { name } => posts[name as usize] += 1,
                Op::Truncate { file, length } if length <= MAX_FILE_BYTES => {
                    let longest = &mut longest[file as usize];
                    *longest = length.max(*longest);
                }
                _ => {}
            }
        }
        let unfollowed = Unfollowed::of(tasks.iter().flat_map(|task| &task.ops));
        Ok(Self {
            tasks,
            nr_ids: spec.nr_ids,
            posts,
            files: spec.files.clone(),
            longest,
            note_maps: spec.note_maps.iter().copied().collect(),
            unfollowed,
        })
    }

    /// Number of tasks.
    pub fn nr_tasks(&self) -> u32 {
        self.tasks.len() as u32
    }

    /// The first task that starts with the program.
    pub fn first_task(&self) -> TaskId {
        self.first_tasks().next().expect("checked in check_starts")
    }

    /// The tasks that start with the program.
    pub fn first_tasks(&self) -> impl Iterator<Item = TaskId> {
        let tasks = self.tasks.iter().enumerate();
        tasks.filter(|(_, task)| task.start == Start::First).map(|(task, _)| task as TaskId)
    }

    /// Whether it can move a page to the swap device.
    pub fn swaps_out(&self) -> bool {
        self.tasks.iter().flat_map(|task| &task.ops).any(Op::swaps_out)
    }

    /// How many accesses and other operations a whole run is; `None` if only the clock says.
    pub fn nr_operations(&self, page_size: u64) -> Option<u64> {
        self.tasks.iter().try_fold(0u64, |sum, task| {
            Some(sum.saturating_add(nr_operations_of(task, page_size)?))
        })
    }

    /// The time that the longest task spends in repeats that the clock ends, in nanoseconds.
    pub fn for_ns(&self) -> u64 {
        let of_task = |task: &TaskProgram| {
            let timed = task.ops.iter().map(|op| match op {
                Op::Repeat(repeat) => repeat.for_ns,
                _ => 0,
            });
            timed.fold(0, u64::saturating_add)
        };
        self.tasks.iter().map(of_task).max().unwrap_or(0)
    }
}

fn nr_operations_of(task: &TaskProgram, page_size: u64) -> Option<u64> {
    let mut rounds = vec![1u64];
    let mut sum = 0u64;
    for op in &task.ops {
        let now = *rounds.last()?;
        match op {
            Op::Repeat(repeat) if repeat.count == u64::MAX => return None,
            Op::Repeat(repeat) => rounds.push(now.saturating_mul(repeat.count)),
            Op::End { .. } => drop(rounds.pop()),
            Op::Touch(touch) => {
                sum = sum.saturating_add(now.saturating_mul(touch.nr_accesses(page_size)));
            }
            _ => sum = sum.saturating_add(now),
        }
    }
    Some(sum)
}

fn decode_task(spec: &TaskSpec<'_>, tables: &Tables<'_>) -> Result<TaskProgram, String> {
    let records = Record::read_all(spec.records)?;
    let mut ops = Vec::with_capacity(records.len());
    for (index, record) in records.iter().enumerate() {
        let op = Op::decode(record, tables);
        ops.push(op.map_err(|wrong| format!("record {index}: {wrong}"))?);
    }
    let nr_repeats = match_brackets(&mut ops)?;
    let barriers: BTreeSet<u32> = ops
        .iter()
        .filter_map(|op| match *op {
            Op::Barrier { name } => Some(name),
            _ => None,
        })
        .collect();
    Ok(TaskProgram { start: spec.start, ops, nr_repeats, barriers: barriers.into_iter().collect() })
}

/// Tells each bracket where its partner is; returns how many pairs there are. None is empty: nobody
/// would see how many rounds of nothing have gone by, nor could end them.
fn match_brackets(ops: &mut [Op]) -> Result<u32, String> {
    let mut open: Vec<usize> = Vec::new();
    let mut nr_repeats = 0;
    for index in 0..ops.len() {
        match ops[index] {
            Op::Repeat(ref mut repeat) => {
                repeat.ordinal = nr_repeats;
                nr_repeats += 1;
                open.push(index);
            }
            Op::End { .. } => {
                let start = open
                    .pop()
                    .ok_or_else(|| format!("record {index}: 'end' closes no 'repeat'"))?;
                if start + 1 == index {
                    return Err(format!("record {start}: 'repeat' has no operations"));
                }
                ops[index] = Op::End { repeat: start as u32 };
                if let Op::Repeat(repeat) = &mut ops[start] {
                    repeat.end = index as u32;
                }
            }
            _ => {}
        }
    }
    match open.last() {
        None => Ok(nr_repeats),
        Some(index) => Err(format!("record {index}: 'repeat' is not closed")),
    }
}

/// Each task is started once, by the operation that its `start` names.
fn check_starts(tasks: &[TaskProgram]) -> Result<(), String> {
    if !tasks.iter().any(|task| task.start == Start::First) {
        return Err("no task starts with the program (allowed: at least one)".to_owned());
    }
    let mut started: BTreeMap<TaskId, (usize, usize)> = BTreeMap::new();
    for (number, task) in tasks.iter().enumerate() {
        let mut depth = 0;
        for (index, op) in task.ops.iter().enumerate() {
            let (child, how) = match *op {
                Op::Repeat(_) => {
                    depth += 1;
                    continue;
                }
                Op::End { .. } => {
                    depth -= 1;
                    continue;
                }
                Op::Fork { child, .. } => (child, Start::Fork),
                Op::Vfork { child, .. } => (child, Start::Vfork),
                Op::Clone { child } => (child, Start::Clone),
                _ => continue,
            };
            let once = started.insert(child, (number, index)).is_none() && depth == 0;
            if tasks[child as usize].start != how || !once {
                return Err(format!(
                    "tasks[{number}]: record {index}: field 'aux': value {child} (allowed: a \
                     task that is started so, and only here)"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../tests/unit/program/load.rs"]
mod tests;
