//! One run of a program on one kernel: what its tasks share, and what comes of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ProgramError;
use super::history::Event;
use super::load::Program;
use super::result::{Last, NoteMaps, Options, RunResult, Watch};
use super::sync::ProgramSync;
use crate::design::Design;
use crate::events::{Course, NR_EVENTS, TraceEntry};
use crate::mm::{Inode, Kernel, Mm, ProcText};
use crate::platform::{Local, Platform, Ptr, TaskId, Value};

/// What one task leaves behind.
#[derive(Default)]
pub(super) struct TaskEnd {
    pub outcomes: Vec<u8>,
    /// Finished rounds of its `for_ns` repeats.
    pub rounds: u64,
    /// When its first `note` and its last were.
    pub noted_ns: Option<(u64, u64)>,
    pub history: Vec<Event>,
}

/// One run of a program. Tasks share it.
pub struct Run<P: Platform> {
    pub(super) program: Arc<Program>,
    pub(super) options: Options,
    pub(super) watch: Arc<Watch>,
    pub(super) sync: ProgramSync<P>,
    /// The inode of each file.
    files: Vec<Local>,
    ends: Vec<Mutex<TaskEnd>>,
    pub(super) note_maps: Mutex<Vec<NoteMaps>>,
    /// The address spaces that the history names, by number.
    pub(super) mms: Mutex<Vec<u64>>,
}

impl<P: Platform> Run<P> {
    /// A run in which nothing has happened yet.
    pub fn new(program: &Arc<Program>, options: &Options, watch: &Arc<Watch>) -> Self {
        Self {
            program: Arc::clone(program),
            options: options.clone(),
            watch: Arc::clone(watch),
            sync: ProgramSync::new(program),
            files: program.files.iter().map(|_| Local::default()).collect(),
            ends: program.tasks.iter().map(|_| Mutex::default()).collect(),
            note_maps: Mutex::default(),
            mms: Mutex::default(),
        }
    }

    /// The task on whose CPU [`Run::boot`] and [`Run::shutdown`] run.
    pub fn first_task(&self) -> TaskId {
        self.program.first_task()
    }

    /// Makes the files and the first address space, and starts the tasks that start with the
    /// program. Before any task runs. `Err`: there is no memory for that.
    pub fn boot<D: Design>(&self, k: &Kernel<P, D>, cpu: &P) -> Result<(), ProgramError> {
        let files = self.program.files.iter().zip(&self.program.longest);
        for ((file, &longest), inode) in files.zip(&self.files) {
            let made = k.inode_new(cpu, file.length, file.kind, file.cached);
            k.inode_prepare_for(made, longest);
            inode.set(made.ptr().to_word());
        }
        let first: Vec<TaskId> = self.program.first_tasks().collect();
        k.start_process(cpu, &first).map_err(|_no_memory| {
            let (memory, arch) = (k.config.system.memory, &k.config.arch.name);
            ProgramError(format!(
                "key 'memory': value {memory} (allowed on arch {arch}: room for a page table and the zero \
                 page at least)"
            ))
        })?;
        self.sync.start_first(cpu, &first);
        Ok(())
    }

    /// Closes the files and runs what waits for a grace period. After every task has ended; the
    /// system is at rest then, apart from grace periods that have not ended.
    pub fn shutdown<D: Design>(&self, k: &Kernel<P, D>, cpu: &P) {
        let files: Vec<Ptr<Inode<P>>> =
            self.files.iter().map(|inode| Ptr::from_word(inode.get())).collect();
        k.files_release(cpu, &files);
        k.run_rcu_callbacks(cpu);
    }

    /// Whether every task that was started has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.sync.process_ends().iter().all(|process| process.live.is_none())
    }

    /// What the program saw, for [`super::history::check`]: with [`Options::history`], once, after
    /// every task has returned from `run_task`.
    pub fn take_history(&self) -> Vec<Event> {
        self.ends.iter().flat_map(|end| std::mem::take(&mut lock(end).history)).collect()
    }

    /// The tasks that wait for ever.
    pub fn stuck(&self) -> Vec<TaskId> {
        self.sync.stuck()
    }

    /// What came of it. After every task has returned from `run_task`.
    pub fn finish<D: Design>(&self, k: &Kernel<P, D>, elapsed_ns: u64) -> RunResult {
        let mut counters = [0u64; NR_EVENTS];
        for task in &k.tasks {
            for (sum, count) in counters.iter_mut().zip(task.counters.snapshot()) {
                *sum += count;
            }
        }
        let ends: Vec<TaskEnd> =
            self.ends.iter().map(|end| std::mem::take(&mut *lock(end))).collect();
        let rounds = ends.iter().map(|end| end.rounds).collect();
        let noted_ns = ends.iter().map(|end| end.noted_ns).collect();
        let outcomes = self.all_outcomes(ends);
        let mut note_maps = std::mem::take(&mut *lock(&self.note_maps));
        note_maps.sort_by_key(|note| (note.task, note.index, note.round));
        let (trace, trace_written) = k.trace.take();
        let last = self.last_texts(k);
        RunResult {
            counters,
            outcomes,
            maps: last.iter().map(|(task, text)| (*task, text.maps.clone())).collect(),
            proc: if self.options.last == Last::ProcText { last } else { Vec::new() },
            note_maps,
            rounds,
            noted_ns,
            stuck: self.sync.stuck(),
            elapsed_ns,
            trace: trace.iter().flat_map(TraceEntry::packed).collect(),
            trace_written,
            course: Course::default(),
            finding: None,
            interrupted: false,
        }
    }

    /// The outcomes of all tasks; none of a run that was ended, which nobody will look at.
    fn all_outcomes(&self, ends: Vec<TaskEnd>) -> Vec<u8> {
        if self.watch.is_stopped() {
            return Vec::new();
        }
        // The first task's are not copied.
        let mut ends = ends.into_iter();
        let mut outcomes = ends.next().map(|end| end.outcomes).unwrap_or_default();
        let length = ends.as_slice().iter().map(|end| end.outcomes.len()).sum();
        if outcomes.try_reserve_exact(length).is_err() {
            self.watch.refuse("no memory for the outcomes of all tasks".into());
            return Vec::new();
        }
        ends.for_each(|end| outcomes.extend_from_slice(&end.outcomes));
        outcomes
    }

    /// What /proc/PID says of each process: when its last task began to end, or now.
    fn last_texts<D: Design>(&self, k: &Kernel<P, D>) -> Vec<(TaskId, ProcText)> {
        let ends = self.sync.process_ends().into_iter();
        let texts = ends.map(|end| {
            let mm = end.live.and_then(|task| {
                let mm = Ptr::<Mm<P>>::from_word(k.tasks[task as usize].mm.get());
                if mm.is_null() { None } else { k.mms.peek(mm.index()) }
            });
            (end.first, mm.map_or(end.last, |mm| self.options.last.of(k, mm)))
        });
        texts.collect()
    }

    pub(super) fn file(&self, number: Option<u32>) -> Ptr<Inode<P>> {
        number.map_or(Ptr::NULL, |number| Ptr::from_word(self.files[number as usize].get()))
    }

    pub(super) fn set_end(&self, task: TaskId, end: TaskEnd) {
        *lock(&self.ends[task as usize]) = end;
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
