//! What the CPUs of one native machine share.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering as Std};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_epoch::Collector;
use crossbeam_utils::CachePadded;

use super::Cpu;
use super::activity::Activity;
use super::sleep::Sleepers;
use crate::platform::{CpuId, Finding, RcuCallback, TaskId};

/// One machine of OS threads: its RCU, its interrupts, its sleepers, and how its run ends.
pub struct Machine {
    pub(super) collector: Collector,
    /// For each CPU: odd while it is in a section with interrupts off.
    pub(super) interrupts: Box<[Arc<CachePadded<AtomicU64>>]>,
    /// For each CPU: whether it works.
    pub(super) activity: Box<[CachePadded<Activity>]>,
    pub(super) sleepers: Sleepers,
    pub(super) callbacks: Arc<Callbacks>,
    /// Whether `compute` and `sleep` take the time they say.
    pace: bool,
    started: Instant,
    /// How often somebody asked when it is.
    moments: AtomicU64,
    stopped: AtomicBool,
    /// The first broken invariant.
    finding: Mutex<Option<Finding>>,
    /// For tasks that sleep for a time.
    alarm: (Mutex<()>, Condvar),
}

impl Machine {
    /// A machine of `nr_cpus` CPUs on which the program's own pauses take no time.
    pub fn new(nr_cpus: u32) -> Arc<Self> {
        Self::with_pace(nr_cpus, false)
    }

    /// As [`Machine::new`]; with `pace`, pauses take the time that the program says.
    pub fn with_pace(nr_cpus: u32, pace: bool) -> Arc<Self> {
        Arc::new(Self {
            collector: Collector::new(),
            interrupts: (0..nr_cpus).map(|_| Arc::default()).collect(),
            activity: (0..nr_cpus).map(|_| CachePadded::default()).collect(),
            sleepers: Sleepers::new(),
            callbacks: Arc::default(),
            pace,
            started: Instant::now(),
            moments: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            finding: Mutex::new(None),
            alarm: (Mutex::new(()), Condvar::new()),
        })
    }

    /// The CPU `id`, running `task`, for the calling thread. One thread at a time may have it.
    pub fn cpu(self: &Arc<Self>, id: CpuId, task: TaskId) -> Cpu {
        Cpu::new(self, id, task)
    }

    /// Ends the run: tasks stop at their next operation boundary, or where they wait.
    pub fn stop(&self) {
        // SeqCst: a sleeper either sees this or is in its bucket when it is woken below.
        self.stopped.store(true, Std::SeqCst);
        self.sleepers.wake_all();
        drop(lock(&self.alarm.0));
        self.alarm.1.notify_all();
    }

    /// Whether the run has ended.
    #[inline(always)]
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Std::Relaxed)
    }

    /// Records a broken invariant, if it is the first, and ends the run.
    pub fn report(&self, finding: Finding) {
        lock(&self.finding).get_or_insert(finding);
        self.stop();
    }

    /// The broken invariant that ended the run, if one did.
    pub fn finding(&self) -> Option<Finding> {
        lock(&self.finding).clone()
    }

    /// Nanoseconds since the machine was made.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number above all that were given before. A clock would not do: it may be read before
    /// a store of this CPU is seen by others, and give two CPUs the same time.
    pub(super) fn moment(&self) -> u64 {
        // SeqCst, a locked operation: the caller's stores before are seen by whoever gets a later
        // number, and its loads after come after; pairs with itself.
        self.moments.fetch_add(1, Std::SeqCst)
    }

    pub(super) fn paced(&self) -> bool {
        self.pace
    }

    pub(super) fn sleep_unless_stopped(&self, time: Duration) {
        let awake = lock(&self.alarm.0);
        let wait = self.alarm.1.wait_timeout_while(awake, time, |()| !self.is_stopped());
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Callbacks on their way through a grace period, and those that are through.
#[derive(Default)]
pub(super) struct Callbacks {
    /// Queued and not ready yet.
    waiting: CachePadded<AtomicUsize>,
    /// How many are in `ready`, so that the usual "none" costs one load.
    nr_ready: CachePadded<AtomicUsize>,
    ready: Mutex<VecDeque<RcuCallback>>,
}

impl Callbacks {
    pub(super) fn begin(&self) {
        self.waiting.fetch_add(1, Std::Relaxed);
    }

    /// The grace period of `callback` is over. Runs on any thread, at any time.
    pub(super) fn end(&self, callback: RcuCallback) {
        let mut ready = lock(&self.ready);
        ready.push_back(callback);
        self.nr_ready.store(ready.len(), Std::Relaxed);
        // Release: who sees that nothing waits finds the callback; pairs with `outstanding`.
        self.waiting.fetch_sub(1, Std::Release);
    }

    #[inline]
    pub(super) fn ready(&self) -> Option<RcuCallback> {
        if self.nr_ready.load(Std::Relaxed) == 0 {
            return None;
        }
        let mut ready = lock(&self.ready);
        let callback = ready.pop_front();
        self.nr_ready.store(ready.len(), Std::Relaxed);
        callback
    }

    pub(super) fn outstanding(&self) -> bool {
        // Acquire: pairs with the Release in `end`.
        self.waiting.load(Std::Acquire) > 0
    }
}

/// What a thread unwinds with when the run has ended: not a panic.
pub(super) struct Stopped;

/// Runs `task`. `None`: the run ended first, by [`Machine::stop`], by a finding, or by a panic
/// in `task`, which becomes the finding `panic`.
pub fn catch<R>(machine: &Machine, task: impl FnOnce() -> R) -> Option<R> {
    // Unwind safety: after a panic the run has ended, and what it worked on is not looked at
    // again but for reports, which read words.
    match catch_unwind(AssertUnwindSafe(task)) {
        Ok(result) => Some(result),
        Err(payload) if payload.is::<Stopped>() => None,
        Err(payload) => {
            machine.report(Finding { invariant: "panic", what: text_of(payload.as_ref()) });
            None
        }
    }
}

/// What a panic says.
fn text_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}

/// Locks, whatever happened to the last holder: these mutexes guard single values.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
