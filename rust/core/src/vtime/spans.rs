//! The course of a run as slices on a track for each CPU: what `--perfetto` draws.
//!
//! Tasks write down what they begin and end, and CPUs whom they run, in the order in which it
//! happens on each CPU. In the end that is made into slices that nest on each track: those of a
//! task that is not on its CPU any more, while another one is, end there and begin again.

use std::collections::BTreeMap;

use super::access::Site;
use crate::events::{Course, EVENT_NAMES, Event, Span};
use crate::platform::{CpuId, TaskId};

/// What an entry is; the numbers are those of `SPAN_DTYPE`, where there are no others.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Begin = 0,
    End = 1,
    Point = 2,
    /// A slice goes on that ended because another task had the CPU.
    Again = 3,
    /// It ends because of that, or because nothing is known of what comes after.
    Cut = 4,
    /// The task has its CPU.
    On = 5,
    /// It has left it.
    Off = 6,
}

#[derive(Clone, Copy)]
struct Entry {
    time_ns: u64,
    /// An address, or how many.
    arg: u64,
    /// 1 + the place of the entry that caused this one, or 0.
    cause: u32,
    cpu: CpuId,
    task: TaskId,
    name: u16,
    /// The name of how a slice ended.
    how: u16,
    phase: Phase,
}

/// No name.
const NOTHING: u16 = 0;

/// Texts by number.
struct Names {
    numbers: BTreeMap<String, u16>,
    texts: Vec<String>,
}

impl Names {
    fn new() -> Self {
        let mut names = Self { numbers: BTreeMap::new(), texts: Vec::new() };
        names.number("");
        names
    }

    fn number(&mut self, text: &str) -> u16 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.texts.len() as u16;
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

#[derive(Clone, Default)]
struct TaskState {
    /// When its last speculative attempt began, and the event with which it gave up.
    attempt: u64,
    gave_up: Option<Event>,
}

/// What was written down so far.
pub(super) struct Spans {
    limit: usize,
    entries: Vec<Entry>,
    names: Names,
    tasks: Vec<TaskState>,
    /// By the word of its sequence: where a VMA was last begun to be written.
    writes: BTreeMap<Site, usize>,
}

/// Who does something, and when.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) cpu: CpuId,
    pub(super) task: TaskId,
    pub(super) now: u64,
}

impl Spans {
    pub(super) fn new(limit: usize, nr_tasks: u32) -> Self {
        Self {
            limit,
            entries: Vec::new(),
            names: Names::new(),
            tasks: vec![TaskState::default(); nr_tasks as usize],
            writes: BTreeMap::new(),
        }
    }

    fn push(&mut self, at: Moment, phase: Phase, name: &str, arg: u64) -> Option<&mut Entry> {
        if self.entries.len() == self.limit {
            return None;
        }
        let Moment { cpu, task, now: time_ns } = at;
        let name = self.names.number(name);
        self.entries.push(Entry { time_ns, arg, cause: 0, cpu, task, name, how: NOTHING, phase });
        self.entries.last_mut()
    }

    pub(super) fn enter(&mut self, at: Moment, span: Span) {
        let (name, arg) = match span {
            Span::Operation(name) => (name, 0),
            Span::Fault(address) => ("fault", address),
            Span::Speculative => {
                let task = &mut self.tasks[at.task as usize];
                *task = TaskState { attempt: at.now, gave_up: None };
                ("speculative", 0)
            }
            Span::Classic => ("classic", 0),
        };
        self.begin(at, name, arg);
    }

    pub(super) fn begin(&mut self, at: Moment, name: &str, arg: u64) {
        self.push(at, Phase::Begin, name, arg);
    }

    pub(super) fn leave(&mut self, at: Moment, how: &str) {
        let gave_up = &mut self.tasks[at.task as usize].gave_up;
        // What has an outcome is an attempt.
        let gave_up = if how.is_empty() { None } else { gave_up.take() };
        let how = gave_up.map_or(how, |event| EVENT_NAMES[event as usize]);
        let how = self.names.number(how.trim_start_matches("pagefault:"));
        if let Some(entry) = self.push(at, Phase::End, "", 0) {
            entry.how = how;
        }
    }

    /// The task begins to write a VMA.
    pub(super) fn writes_vma(&mut self, at: Moment, vm_sequence: Site, vm_start: u64) {
        if self.push(at, Phase::Point, "vm_write_begin", vm_start).is_some() {
            self.writes.insert(vm_sequence, self.entries.len() - 1);
        }
    }

    /// A speculative attempt gives up because of the VMA, whose sequence is `sequence` now. It is
    /// the doing of who last began to write it, if that was since the attempt began, or is not
    /// over.
    pub(super) fn gives_up(
        &mut self,
        at: Moment,
        event: Event,
        vm_sequence: Site,
        sequence: u64,
        vm_start: u64,
    ) {
        let task = &mut self.tasks[at.task as usize];
        task.gave_up = Some(event);
        let attempt = task.attempt;
        let cause = self.writes.get(&vm_sequence).copied().filter(|&place| {
            let write = &self.entries[place];
            let others = write.task != at.task;
            others && (write.time_ns >= attempt || !sequence.is_multiple_of(2))
        });
        let name = EVENT_NAMES[event as usize].trim_start_matches("pagefault:");
        if let Some(entry) = self.push(at, Phase::Point, name, vm_start)
            && event == Event::SpfVmaChanged
        {
            entry.cause = cause.map_or(0, |place| place as u32 + 1);
        }
    }

    pub(super) fn gets_cpu(&mut self, at: Moment) {
        self.push(at, Phase::On, "", 0);
    }
    pub(super) fn leaves_cpu(&mut self, at: Moment) {
        self.push(at, Phase::Off, "", 0);
    }

    pub(super) fn finish(&mut self, nr_cpus: u32, elapsed_ns: u64, course: &mut Course) {
        course.is_cut = self.entries.len() == self.limit;
        let last = self.entries.iter().map(|entry| entry.time_ns).max().unwrap_or(0);
        let end = if course.is_cut { last } else { elapsed_ns };
        let idle = self.names.number("idle");
        let mut drawing = Drawing::new(nr_cpus, self.tasks.len(), idle);
        self.entries.iter().for_each(|entry| drawing.take(entry));
        drawing.close(end);
        course.spans = drawing.entries.iter().flat_map(Entry::packed).collect();
        course.span_names = std::mem::take(&mut self.names.texts);
    }
}

impl Entry {
    /// `SPAN_DTYPE` of the package, little-endian.
    fn packed(&self) -> [u8; 33] {
        let mut packed = [0; 33];
        packed[..8].copy_from_slice(&self.time_ns.to_le_bytes());
        packed[8..16].copy_from_slice(&self.arg.to_le_bytes());
        packed[16..20].copy_from_slice(&self.cause.to_le_bytes());
        packed[20..24].copy_from_slice(&self.cpu.to_le_bytes());
        packed[24..28].copy_from_slice(&self.task.to_le_bytes());
        packed[28..30].copy_from_slice(&self.name.to_le_bytes());
        packed[30..32].copy_from_slice(&self.how.to_le_bytes());
        packed[32] = self.phase as u8;
        packed
    }
}

/// One CPU's track.
#[derive(Clone)]
struct Track {
    /// Whose slices are open on it.
    shown: Option<TaskId>,
    idle_since: Option<u64>,
}

/// Makes slices that nest on each CPU.
struct Drawing {
    entries: Vec<Entry>,
    /// Where each entry that was taken is now.
    places: Vec<u32>,
    tracks: Vec<Track>,
    /// For each task what it has begun and not ended.
    open: Vec<Vec<Entry>>,
    idle: u16,
}

impl Drawing {
    fn new(nr_cpus: u32, nr_tasks: usize, idle: u16) -> Self {
        let track = Track { shown: None, idle_since: Some(0) };
        Self {
            entries: Vec::new(),
            places: Vec::new(),
            tracks: vec![track; nr_cpus as usize],
            open: vec![Vec::new(); nr_tasks],
            idle,
        }
    }

    fn take(&mut self, entry: &Entry) {
        match entry.phase {
            Phase::On => self.gets_cpu(entry),
            Phase::Off => self.tracks[entry.cpu as usize].idle_since = Some(entry.time_ns),
            _ => {}
        }
        self.places.push(self.entries.len() as u32);
        let mut entry = *entry;
        let open = &mut self.open[entry.task as usize];
        match entry.phase {
            Phase::On | Phase::Off => return,
            Phase::Begin => open.push(entry),
            Phase::End => {
                let Some(begun) = open.pop() else { return };
                entry.name = begun.name;
            }
            Phase::Point if entry.cause != 0 => {
                entry.cause = self.places[entry.cause as usize - 1] + 1;
            }
            Phase::Point | Phase::Again | Phase::Cut => {}
        }
        self.entries.push(entry);
    }

    fn gets_cpu(&mut self, entry: &Entry) {
        self.end_idle(entry.cpu, entry.time_ns);
        let track = &mut self.tracks[entry.cpu as usize];
        if track.shown == Some(entry.task) {
            return;
        }
        if let Some(before) = track.shown.replace(entry.task) {
            self.cut(before, entry.time_ns);
        }
        let again = self.open[entry.task as usize].iter();
        let again = again.map(|begun| Entry { phase: Phase::Again, ..*begun });
        self.entries.extend(again.map(|begun| Entry { time_ns: entry.time_ns, ..begun }));
    }

    /// Ends all that the task has open.
    fn cut(&mut self, task: TaskId, time_ns: u64) {
        let open = self.open[task as usize].iter().rev();
        let ends = open.map(|begun| Entry { time_ns, arg: 0, phase: Phase::Cut, ..*begun });
        self.entries.extend(ends);
    }

    fn end_idle(&mut self, cpu: CpuId, now: u64) {
        let track = &mut self.tracks[cpu as usize];
        let Some(since) = track.idle_since.take().filter(|&since| since < now) else { return };
        let task = track.shown.unwrap_or(0);
        let entry = |time_ns, phase| {
            let (name, how) = (self.idle, NOTHING);
            Entry { time_ns, arg: 0, cause: 0, cpu, task, name, how, phase }
        };
        let ends = [entry(since, Phase::Begin), entry(now, Phase::End)];
        self.entries.extend(ends);
    }

    fn close(&mut self, end: u64) {
        for cpu in 0..self.tracks.len() as CpuId {
            self.end_idle(cpu, end);
            if let Some(task) = self.tracks[cpu as usize].shown {
                self.cut(task, end);
            }
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/spans.rs"]
mod tests;
