//! Who writes down what a run does, if it was asked to. Nothing here has a part in the run itself.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::access::Site;
use super::cpu::Cpu;
use super::lock_stat::{LockStat, kernel_name};
use super::spans::{Moment, Spans};
use crate::events::{Course, Event, Span};
use crate::platform::arena::Lines;
use crate::platform::{CpuId, Line, TaskId, Word};
use crate::program::Options;

/// See the module.
pub(super) struct Recorder {
    spans: Option<RefCell<Spans>>,
    locks: Option<RefCell<LockStat>>,
    /// What each line holds, once there is a kernel.
    lines: OnceCell<Arc<Lines>>,
    /// Names of the slices in which a word is waited for.
    waits: RefCell<BTreeMap<Site, Rc<str>>>,
    /// For each task when it asked for a line that it waits for, or has got now.
    asked: Vec<Cell<Option<u64>>>,
    /// For each task the semaphore that it waits for, whatever word tells it to go on.
    wanted: Vec<Cell<Option<Site>>>,
}

impl Recorder {
    pub(super) fn new(options: &Options, nr_tasks: u32) -> Self {
        let Options { spans, lock_stat, .. } = *options;
        Self {
            spans: (spans != 0).then(|| RefCell::new(Spans::new(spans, nr_tasks))),
            locks: lock_stat.then(|| RefCell::new(LockStat::new(nr_tasks))),
            lines: OnceCell::new(),
            waits: RefCell::default(),
            asked: (0..nr_tasks).map(|_| Cell::new(None)).collect(),
            wanted: (0..nr_tasks).map(|_| Cell::new(None)).collect(),
        }
    }

    /// Whether anything is written down.
    pub(super) fn is_on(&self) -> bool {
        self.spans.is_some() || self.locks.is_some()
    }

    /// Words get their names from `lines`.
    pub(super) fn name_by(&self, lines: &Arc<Lines>) {
        self.lines.get_or_init(|| Arc::clone(lines));
    }

    fn spans(&self, write: impl FnOnce(&mut Spans)) {
        if let Some(spans) = &self.spans {
            write(&mut spans.borrow_mut());
        }
    }
    fn locks(&self, count: impl FnOnce(&mut LockStat)) {
        if let Some(locks) = &self.locks {
            count(&mut locks.borrow_mut());
        }
    }

    pub(super) fn enter(&self, at: Moment, span: Span) {
        self.locks(|locks| locks.works(at.task, at.now));
        self.spans(|spans| spans.enter(at, span));
    }
    pub(super) fn leave(&self, at: Moment, how: &str) {
        self.locks(|locks| locks.works(at.task, at.now));
        self.spans(|spans| spans.leave(at, how));
    }

    /// Work that ends at `at` and took `ns`.
    pub(super) fn did(&self, at: Moment, name: &str, ns: u64) {
        self.spans(|spans| {
            spans.begin(Moment { now: at.now - ns, ..at }, name, 0);
            spans.leave(at, "");
        });
    }
    pub(super) fn begin(&self, at: Moment, name: &str, arg: u64) {
        self.spans(|spans| spans.begin(at, name, arg));
    }

    pub(super) fn writes_vma(&self, at: Moment, vm_sequence: Site, vm_start: u64) {
        self.spans(|spans| spans.writes_vma(at, vm_sequence, vm_start));
    }
    pub(super) fn gives_up(
        &self,
        at: Moment,
        event: Event,
        vm_sequence: Site,
        sequence: u64,
        vm_start: u64,
    ) {
        self.spans(|spans| spans.gives_up(at, event, vm_sequence, sequence, vm_start));
    }

    pub(super) fn gets_cpu(&self, cpu: CpuId, task: TaskId, now: u64) {
        self.spans(|spans| spans.gets_cpu(Moment { cpu, task, now }));
    }
    pub(super) fn leaves_cpu(&self, cpu: CpuId, task: TaskId, now: u64) {
        self.spans(|spans| spans.leaves_cpu(Moment { cpu, task, now }));
    }

    pub(super) fn acquired(&self, task: TaskId, lock: Site) {
        self.locks(|locks| locks.acquired(task, lock));
    }
    /// The task asks for a line.
    pub(super) fn asks(&self, task: TaskId, now: u64) {
        self.asked[task as usize].set(Some(now));
    }

    /// The task has the line that `word` is in; `own_ns` it would have taken in any case. It was
    /// here if the task did not ask for it.
    pub(super) fn fetched(&self, at: Moment, word: Site, own_ns: u64) {
        let Some(asked) = self.asked[at.task as usize].take() else { return };
        let ns = (at.now - asked).saturating_sub(own_ns);
        if ns != 0 {
            self.locks(|locks| locks.fetched(word, ns));
        }
    }

    /// The task waits for `lock` now, or for no semaphore any more.
    pub(super) fn waits_for(&self, task: TaskId, lock: Option<Site>) {
        self.wanted[task as usize].set(lock);
    }

    /// The task waits for a change of `word`: what that is a wait for, unless for another task of
    /// the program.
    pub(super) fn begin_wait(&self, at: Moment, word: Site) -> Option<Site> {
        if word.line == Line::FREE.0 {
            return None;
        }
        let lock = self.wanted[at.task as usize].get().unwrap_or(word);
        if self.spans.is_some() {
            let name = self.wait_name(lock);
            self.spans(|spans| spans.begin(at, &name, 0));
        }
        Some(lock)
    }

    fn wait_name(&self, lock: Site) -> Rc<str> {
        let mut names = self.waits.borrow_mut();
        let name = || {
            let lines = self.lines.get();
            let name = lines.map_or("?".to_owned(), |lines| kernel_name(lines, lock));
            format!("wait for {name}").into()
        };
        Rc::clone(names.entry(lock).or_insert_with(name))
    }

    /// It goes on, after `ns`.
    pub(super) fn end_wait(&self, at: Moment, lock: Site, ns: u64) {
        self.locks(|locks| locks.waited(at.task, lock, ns));
        self.spans(|spans| spans.leave(at, ""));
    }

    /// What was written down.
    pub(super) fn finish(&self, nr_cpus: u32, elapsed_ns: u64) -> Course {
        let mut course = Course::default();
        self.spans(|spans| spans.finish(nr_cpus, elapsed_ns, &mut course));
        if let Some(lines) = self.lines.get() {
            self.locks(|locks| locks.finish(lines, &mut course));
        }
        course
    }
}

impl Cpu {
    /// Lets the recorder write something down; the caller has looked whether there is any need to.
    #[cold]
    #[inline(never)]
    pub(super) fn record(&self, write: impl FnOnce(&Recorder, Moment)) {
        if !self.world.at_rest.get() {
            let now = Moment { cpu: self.id, task: self.task, now: self.clock.get() };
            write(&self.world.recorder, now);
        }
    }

    /// Waits for a change of `word`, in `suspended`.
    pub(super) fn wait(&self, word: &Word<Self>, suspended: impl FnOnce()) {
        if !self.world.records {
            return suspended();
        }
        let (begin, mut lock) = (self.clock.get(), None);
        self.record(|recorder, at| lock = recorder.begin_wait(at, word.site()));
        suspended();
        if let Some(lock) = lock {
            self.record(|recorder, at| recorder.end_wait(at, lock, at.now - begin));
        }
    }
}
