//! Who runs when: clocks, waiting tasks, CPUs that several tasks share.
//!
//! Of all tasks that hold a CPU the one with the smallest clock goes next; ties go by a number
//! drawn from the seed. A task that waits has no place in the queue until what it waits for
//! happens at some time, which its clock then jumps to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::interrupts::Handler;
use super::lines::Lines;
use super::machine::Machine;
use super::queue::Queue;
use super::recorder::Recorder;
use super::run::Settings;
use super::spans::Moment;
use super::task::{State, Task};
use super::waiting::Waiters;
use crate::platform::coroutine::StackPool;
use crate::platform::grace::GracePeriods;
use crate::platform::{Finding, RcuCallback, TaskId};
use crate::program::Watch;

/// What a flush of other CPUs' TLBs may have to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Irqs {
    #[default]
    On,
    /// Off: an interrupt waits.
    Off,
    /// The hardware is at a user access: the instruction that flushes waits, too.
    UserAccess,
}

/// One CPU.
#[derive(Default)]
pub(super) struct CpuState {
    /// The task that holds it.
    pub(super) runs: Cell<Option<TaskId>>,
    /// When that task got it.
    runs_since: Cell<u64>,
    /// Tasks that want it, first come first served.
    queue: RefCell<VecDeque<TaskId>>,
    /// When its last task gave it up.
    free_since: Cell<u64>,
    pub(super) irqs: Cell<Irqs>,
    pub(super) handler: Handler,
    /// Tasks that wait until interrupts are on again.
    pub(super) irq_waiters: RefCell<Vec<TaskId>>,
    pub(super) has_irq_waiters: Cell<bool>,
}

impl CpuState {
    /// Whether nobody has it at `now`; who had it last may have been ahead.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        self.runs.get().is_none() && self.free_since.get() <= now
    }

    /// The task that has it, if it had got it at `now`: one that was woken has it from the wake-up
    /// on, and goes on after its latency.
    pub(super) fn worker(&self, now: u64) -> Option<TaskId> {
        self.runs.get().filter(|_| self.runs_since.get() <= now)
    }
}

/// What all CPUs of a run share.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) nr_cpus: u32,
    /// How far a task may run ahead on lines that it holds.
    pub(super) slack_ns: u64,
    /// As in `Settings`.
    pub(super) lazy_tlb: bool,
    /// Where an instruction flushes: there is another one for the CPU's own TLB.
    pub(super) flushes_locally: bool,
    pub(super) tasks: Vec<Rc<Task>>,
    pub(super) cpus: Vec<CpuState>,
    /// The set of CPUs on which a task runs.
    busy: Vec<Cell<u64>>,
    pub(super) lines: Lines,
    pub(super) grace: GracePeriods,
    callbacks: RefCell<VecDeque<(u64, RcuCallback)>>,
    /// Ready tasks on their CPUs, apart from the one that has control; and tasks that pause.
    pub(super) queue: Queue,
    /// Up to here, exclusive, the clock of the task that has control may run ahead on lines that
    /// it holds; 0: each access needs a closer look.
    pub(super) limit: Cell<u64>,
    /// Tasks that spin or sleep, by address of the word.
    pub(super) waiters: RefCell<BTreeMap<usize, Waiters>>,
    /// How many of them have an heir.
    pub(super) nr_heirs: Cell<u32>,
    /// Tasks that spin for as long as this task is on a CPU.
    pub(super) owner_waiters: RefCell<BTreeMap<TaskId, Vec<TaskId>>>,
    pub(super) random: RefCell<Pcg64Mcg>,
    /// Nothing is charged and nobody is switched to: before the first and after the last task.
    pub(super) at_rest: Cell<bool>,
    pub(super) watch: Arc<Watch>,
    finding: RefCell<Option<Finding>>,
    pub(super) stopped: Cell<bool>,
    pub(super) recorder: Recorder,
    /// The recorder is on.
    pub(super) records: bool,
}

impl World {
    pub(super) fn new(
        settings: &Settings,
        nr_tasks: u32,
        watch: &Arc<Watch>,
        recorder: Recorder,
    ) -> Self {
        let &Settings { ref machine, nr_cpus, seed, slack_ns, lazy_tlb, spreading } = settings;
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let pool = StackPool::new();
        let tasks =
            (0..nr_tasks).map(|task| Rc::new(Task::new(task, &pool, task % nr_cpus))).collect();
        let world = Self {
            machine: machine.clone(),
            nr_cpus,
            slack_ns,
            lazy_tlb,
            flushes_locally: machine.arch != "arm64",
            tasks,
            cpus: (0..nr_cpus).map(|_| CpuState::default()).collect(),
            busy: vec![Cell::new(0); nr_cpus.div_ceil(64) as usize],
            lines: Lines::new(machine, nr_cpus, spreading),
            grace: GracePeriods::default(),
            callbacks: RefCell::default(),
            queue: Queue::new(nr_tasks, &mut random),
            limit: Cell::new(0),
            waiters: RefCell::default(),
            nr_heirs: Cell::new(0),
            owner_waiters: RefCell::default(),
            random: RefCell::new(random),
            at_rest: Cell::new(true),
            watch: Arc::clone(watch),
            finding: RefCell::default(),
            stopped: Cell::new(false),
            records: recorder.is_on(),
            recorder,
        };
        for task in 0..nr_tasks {
            world.want_cpu(task);
        }
        world
    }

    /// The CPU of a task.
    #[inline(always)]
    pub(super) fn cpu_of(&self, task: TaskId) -> u32 {
        self.task(task).cpu
    }
    #[inline(always)]
    pub(super) fn task(&self, task: TaskId) -> &Rc<Task> {
        &self.tasks[task as usize]
    }
    pub(super) fn cpu_state(&self, task: TaskId) -> &CpuState {
        &self.cpus[self.cpu_of(task) as usize]
    }

    /// Whether nobody is behind `task` if its clock is `clock`.
    #[inline(always)]
    pub(super) fn is_first(&self, task: TaskId, clock: u64) -> bool {
        self.queue.is_first(task, clock)
    }

    /// The task that has control runs ahead of those in the queue by the slack.
    #[inline(always)]
    pub(super) fn set_limit(&self) {
        self.limit.set(self.queue.first_clock().saturating_add(self.slack_ns));
    }

    /// Puts a task that goes on at its clock into the queue.
    pub(super) fn enqueue(&self, task: TaskId) {
        let clock = self.task(task).clock.get();
        self.queue.push(task, clock);
        self.limit.set(self.limit.get().min(clock.saturating_add(self.slack_ns)));
    }

    /// A ready task gets its CPU, now or when those before it give it up.
    pub(super) fn want_cpu(&self, task: TaskId) {
        let cpu = self.cpu_state(task);
        if cpu.runs.get().is_some() {
            cpu.queue.borrow_mut().push_back(task);
        } else {
            self.give_cpu(cpu, task);
        }
    }

    fn give_cpu(&self, cpu: &CpuState, task: TaskId) {
        cpu.runs.set(Some(task));
        self.set_busy(task, true);
        let this = self.task(task);
        this.clock.set(this.clock.get().max(cpu.free_since.get()));
        cpu.runs_since.set(this.clock.get());
        this.state.set(State::Ready);
        self.recorder.gets_cpu(self.cpu_of(task), task, this.clock.get());
        self.enqueue(task);
    }

    fn set_busy(&self, task: TaskId, is_busy: bool) {
        let cpu = self.cpu_of(task);
        let (word, bit) = (&self.busy[cpu as usize / 64], 1 << (cpu % 64));
        word.set(if is_busy { word.get() | bit } else { word.get() & !bit });
    }

    /// The task that has control gives its CPU up.
    pub(super) fn leave_cpu(&self, task: TaskId) {
        let cpu = self.cpu_state(task);
        cpu.runs.set(None);
        self.set_busy(task, false);
        cpu.free_since.set(self.task(task).clock.get());
        self.recorder.leaves_cpu(self.cpu_of(task), task, self.task(task).clock.get());
        for spinner in self.owner_waiters.borrow_mut().remove(&task).unwrap_or_default() {
            self.resume_spinner(spinner, self.task(task).clock.get());
        }
        let next = cpu.queue.borrow_mut().pop_front();
        if let Some(next) = next {
            self.give_cpu(cpu, next);
        }
    }

    /// Whether the time slice of the task, whose clock is `now`, is over and another wants the CPU:
    /// then it went to the end of the queue, and the caller suspends it.
    #[inline(always)]
    pub(super) fn yields_slice(&self, task: TaskId, now: u64) -> bool {
        let used = now - self.cpu_state(task).runs_since.get();
        used >= self.machine.slice_ns && self.yield_slice(task, now)
    }

    /// Whether there are more tasks than CPUs.
    pub(super) fn shares_cpus(&self) -> bool {
        self.tasks.len() > self.cpus.len()
    }

    /// How long the task may work from `now` on before it is asked whether others want its CPU.
    pub(super) fn slice_left(&self, task: TaskId, now: u64) -> u64 {
        let used = now.saturating_sub(self.cpu_state(task).runs_since.get());
        self.machine.slice_ns - used % self.machine.slice_ns
    }

    #[cold]
    fn yield_slice(&self, task: TaskId, now: u64) -> bool {
        let cpu = self.cpu_state(task);
        if cpu.queue.borrow().is_empty() {
            return false;
        }
        self.task(task).clock.set(now);
        cpu.queue.borrow_mut().push_back(task);
        self.leave_cpu(task);
        true
    }

    /// Whether `task` works on its CPU at `now`.
    pub(super) fn is_on_cpu(&self, task: TaskId, now: u64) -> bool {
        self.cpu_state(task).worker(now) == Some(task)
    }

    /// The task is off its CPU until `until`.
    pub(super) fn pause(&self, task: TaskId, until: u64) {
        self.leave_cpu(task);
        self.task(task).clock.set(until);
        self.task(task).state.set(State::Pauses);
        self.enqueue(task);
    }

    /// A pause is over: the task wants its CPU again. Whether it has to wait for it.
    pub(super) fn after_pause(&self, task: TaskId) -> bool {
        if self.task(task).state.get() != State::Pauses {
            return false;
        }
        let this = self.task(task);
        if self.cpu_state(task).is_idle(this.clock.get()) {
            this.clock.set(this.clock.get() + self.machine.idle_exit_ns);
        }
        this.state.set(State::Ready);
        self.want_cpu(task);
        true
    }

    /// The CPUs on which a task runs.
    pub(super) fn busy_cpus(&self) -> impl Iterator<Item = u32> {
        (0..).zip(&self.busy).flat_map(|(nth, word)| {
            let mut left = word.get();
            std::iter::from_fn(move || {
                let lowest = left.trailing_zeros();
                left &= left.wrapping_sub(1);
                (lowest < 64).then_some(64 * nth + lowest)
            })
        })
    }

    /// Adds to a task's clock what interrupts took from it while others had control. Whether they
    /// took any.
    #[inline(always)]
    pub(super) fn take_stolen(&self, this: &Task) -> bool {
        let stolen = this.stolen_ns.get();
        if stolen != 0 {
            this.stolen_ns.set(0);
            this.clock.set(this.clock.get() + stolen);
            self.record_stolen(this, stolen);
        }
        stolen != 0
    }

    #[cold]
    fn record_stolen(&self, this: &Task, stolen: u64) {
        if self.records && !self.at_rest.get() {
            let at = Moment { cpu: this.cpu, task: this.id, now: this.clock.get() };
            self.recorder.did(at, "flush_tlb_func", stolen);
        }
    }

    /// The task has ended.
    pub(super) fn end(&self, task: TaskId) {
        self.task(task).state.set(State::Ended);
        self.leave_cpu(task);
    }

    pub(super) fn call_rcu(&self, callback: RcuCallback) {
        self.callbacks.borrow_mut().push_back((self.grace.begin(), callback));
    }

    pub(super) fn rcu_ready(&self) -> Option<RcuCallback> {
        let mut callbacks = self.callbacks.borrow_mut();
        let (number, callback) = *callbacks.front()?;
        if !self.grace.has_ended(number) {
            return None;
        }
        callbacks.pop_front();
        Some(callback)
    }

    /// Ends the run with a finding; the first counts.
    pub(super) fn report(&self, finding: Finding) {
        self.finding.borrow_mut().get_or_insert(finding);
        self.stopped.set(true);
    }
    pub(super) fn take_finding(&self) -> Option<Finding> {
        self.finding.take()
    }

    /// Tasks that have not ended, and what they wait for: for the report of a deadlock.
    pub(super) fn waiting(&self) -> Vec<(TaskId, State)> {
        let tasks = self.tasks.iter().enumerate();
        tasks
            .map(|(task, this)| (task as TaskId, this.state.get()))
            .filter(|(_, state)| *state != State::Ended)
            .collect()
    }
}
