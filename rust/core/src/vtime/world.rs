//! Who runs when: clocks, waiting tasks, CPUs that several tasks share.
//!
//! Of all tasks that hold a CPU the one with the smallest clock goes next; ties go by a number
//! drawn from the seed. A task that waits has no place in the queue until what it waits for
//! happens at some time, which its clock then jumps to.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::line_queue::Served;
use super::lines::Lines;
use super::machine::Machine;
use super::queue::Queue;
use super::recorder::Recorder;
use crate::platform::condition::Condition;
use crate::platform::coroutine::{StackPool, Switch};
use crate::platform::grace::GracePeriods;
use crate::platform::{Finding, RcuCallback, TaskId};
use crate::program::Watch;

/// What a task does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// On its CPU, or in the queue of its CPU.
    Ready,
    /// Busy-waits on its CPU for the word at this address, in this line, to change.
    Spins {
        address: usize,
        line: u32,
    },
    /// Waits, off its CPU, to be woken from the word at this address.
    Sleeps(usize),
    /// On its CPU, which waits for this cache line.
    WaitsForLine(u32),
    /// On its CPU, for so many CPUs to enable interrupts.
    WaitsForIrqs(u32),
    /// Off its CPU until its clock.
    Pauses,
    Ended,
}

/// Without addresses of the host: they differ from run to run.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "is ready",
            Self::Spins { .. } => "spins on a word",
            Self::Sleeps(_) => "sleeps on a word",
            Self::WaitsForLine(_) => "waits for a cache line",
            Self::WaitsForIrqs(_) => "waits for an interrupt",
            Self::Pauses => "pauses",
            Self::Ended => "has ended",
        })
    }
}

/// One task.
#[repr(align(64))]
pub(super) struct Task {
    /// How its coroutine gets and gives control.
    pub(super) switch: Rc<Switch>,
    pub(super) clock: Cell<u64>,
    /// What interrupts took from the task while others had control, to be added to its clock.
    pub(super) stolen_ns: Cell<u64>,
    pub(super) state: Cell<State>,
    /// What it spins for.
    pub(super) condition: Condition,
    /// When it got its CPU.
    on_cpu_since: Cell<u64>,
}

/// One CPU.
#[derive(Default)]
pub(super) struct CpuState {
    /// The task that holds it.
    runs: Cell<Option<TaskId>>,
    /// Tasks that want it, first come first served.
    queue: RefCell<VecDeque<TaskId>>,
    /// When its last task gave it up.
    free_since: Cell<u64>,
    pub(super) irqs_off: Cell<bool>,
    /// Tasks that wait until interrupts are on again.
    irq_waiters: RefCell<Vec<TaskId>>,
    has_irq_waiters: Cell<bool>,
}

/// Who waits for a word.
#[derive(Default)]
struct Waiters {
    /// First come, first served.
    tasks: VecDeque<TaskId>,
    /// What the word holds, as far as those who spin know.
    value: u64,
}

/// What all CPUs of a run share.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) nr_cpus: u32,
    /// How far a task may run ahead on lines that it holds.
    pub(super) slack_ns: u64,
    /// As in `Settings`.
    pub(super) lazy_tlb: bool,
    pub(super) tasks: Vec<Task>,
    pub(super) cpus: Vec<CpuState>,
    /// The set of CPUs on which a task runs.
    busy: Vec<Cell<u64>>,
    pub(super) lines: Lines,
    /// Who has just got a line: kept for its memory.
    served: RefCell<Vec<Served>>,
    pub(super) grace: GracePeriods,
    callbacks: RefCell<VecDeque<(u64, RcuCallback)>>,
    /// Ready tasks on their CPUs, apart from the one that has control; and tasks that pause.
    pub(super) queue: Queue,
    /// Up to here, exclusive, the clock of the task that has control may run ahead on lines that
    /// it holds; 0: each access needs a closer look.
    pub(super) limit: Cell<u64>,
    /// Tasks that spin or sleep, by address of the word.
    waiters: RefCell<BTreeMap<usize, Waiters>>,
    /// Tasks that spin for as long as this task is on a CPU.
    owner_waiters: RefCell<BTreeMap<TaskId, Vec<TaskId>>>,
    random: RefCell<Pcg64Mcg>,
    /// Nothing is charged and nobody is switched to: before the first and after the last task.
    pub(super) at_rest: Cell<bool>,
    pub(super) watch: Arc<Watch>,
    finding: RefCell<Option<Finding>>,
    pub(super) stopped: Cell<bool>,
    pub(super) recorder: Recorder,
}

impl World {
    pub(super) fn new(
        machine: &Machine,
        nr_cpus: u32,
        nr_tasks: u32,
        seed: u64,
        slack_ns: u64,
        watch: &Arc<Watch>,
        recorder: Recorder,
    ) -> Self {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let pool = StackPool::new();
        let tasks = (0..nr_tasks)
            .map(|_| Task {
                switch: Switch::new(&pool),
                clock: Cell::new(0),
                stolen_ns: Cell::new(0),
                state: Cell::new(State::Ready),
                condition: Condition::default(),
                on_cpu_since: Cell::new(0),
            })
            .collect();
        let world = Self {
            machine: machine.clone(),
            nr_cpus,
            slack_ns,
            lazy_tlb: true,
            tasks,
            cpus: (0..nr_cpus).map(|_| CpuState::default()).collect(),
            busy: vec![Cell::new(0); nr_cpus.div_ceil(64) as usize],
            lines: Lines::new(machine, nr_cpus),
            served: RefCell::default(),
            grace: GracePeriods::default(),
            callbacks: RefCell::default(),
            queue: Queue::new(nr_tasks, &mut random),
            limit: Cell::new(0),
            waiters: RefCell::default(),
            owner_waiters: RefCell::default(),
            random: RefCell::new(random),
            at_rest: Cell::new(true),
            watch: Arc::clone(watch),
            finding: RefCell::default(),
            stopped: Cell::new(false),
            recorder,
        };
        for task in 0..nr_tasks {
            world.want_cpu(task);
        }
        world
    }

    /// The CPU of a task: it never moves.
    #[inline(always)]
    pub(super) fn cpu_of(&self, task: TaskId) -> u32 {
        task % self.nr_cpus
    }
    #[inline(always)]
    pub(super) fn task(&self, task: TaskId) -> &Task {
        &self.tasks[task as usize]
    }
    pub(super) fn cpu_state(&self, task: TaskId) -> &CpuState {
        &self.cpus[self.cpu_of(task) as usize]
    }

    /// Whether nobody is behind `task` if its clock is `clock`.
    #[inline(always)]
    pub(super) fn is_first(&self, task: TaskId, clock: u64) -> bool {
        self.queue.key(task, clock) < self.queue.first()
    }

    /// The task that has control runs ahead of those in the queue by the slack.
    #[inline(always)]
    pub(super) fn set_limit(&self) {
        self.limit.set(self.queue.first_clock().saturating_add(self.slack_ns));
    }

    /// Puts a task that goes on at its clock into the queue.
    fn enqueue(&self, task: TaskId) {
        let clock = self.task(task).clock.get();
        self.queue.push(task, clock);
        self.limit.set(self.limit.get().min(clock.saturating_add(self.slack_ns)));
    }

    /// The task that has control goes on at `clock`, after the first in the queue, which has to be
    /// before it, and which is returned.
    #[inline(always)]
    pub(super) fn queue_behind_first(&self, task: TaskId, clock: u64) -> TaskId {
        self.task(task).clock.set(clock);
        self.queue.replace_first(task, clock)
    }

    /// A ready task gets its CPU, now or when those before it give it up.
    fn want_cpu(&self, task: TaskId) {
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
        this.on_cpu_since.set(this.clock.get());
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
    fn leave_cpu(&self, task: TaskId) {
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
        let used = now - self.task(task).on_cpu_since.get();
        used >= self.machine.slice_ns && self.yield_slice(task, now)
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

    /// The task busy-waits, on its CPU, until its condition holds of the word at `address`, which
    /// holds `value` now.
    pub(super) fn spin(&self, task: TaskId, address: usize, line: u32, value: u64) {
        self.task(task).state.set(State::Spins { address, line });
        self.lines.watch(line);
        let mut waiters = self.waiters.borrow_mut();
        let waiters = waiters.entry(address).or_default();
        waiters.tasks.push_back(task);
        waiters.value = value;
    }

    /// The task also stops spinning when `owner` leaves its CPU.
    pub(super) fn spin_while_runs(&self, task: TaskId, owner: TaskId) {
        self.owner_waiters.borrow_mut().entry(owner).or_default().push(task);
    }

    /// Whether `task` holds its CPU.
    pub(super) fn is_on_cpu(&self, task: TaskId) -> bool {
        self.cpu_state(task).runs.get() == Some(task)
    }

    /// The task sleeps until it is woken from the word at `address`.
    pub(super) fn sleep(&self, task: TaskId, address: usize) {
        self.task(task).state.set(State::Sleeps(address));
        self.waiters.borrow_mut().entry(address).or_default().tasks.push_back(task);
        self.leave_cpu(task);
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
        self.task(task).state.set(State::Ready);
        self.want_cpu(task);
        true
    }

    /// `value` was stored in the word at `address` at `now`: the first who spins for it goes on.
    /// The others see it once that one has had its turn ([`World::pass_on`]): as in the kernel's
    /// queued spin lock, a release is not a race of all who wait.
    pub(super) fn stored(&self, address: usize, value: u64, now: u64) {
        let mut waiters = self.waiters.borrow_mut();
        let Some(waiting) = waiters.get_mut(&address) else { return };
        waiting.value = value;
        let next = self.first_satisfied(&waiting.tasks, value);
        self.take_waiter(waiters, address, next, now);
    }

    /// A task that went on because of the word at `address` has had its turn: the next may.
    pub(super) fn pass_on(&self, address: usize, now: u64) {
        let waiters = self.waiters.borrow_mut();
        let Some(waiting) = waiters.get(&address) else { return };
        let next = self.first_satisfied(&waiting.tasks, waiting.value);
        self.take_waiter(waiters, address, next, now);
    }

    fn first_satisfied(&self, tasks: &VecDeque<TaskId>, value: u64) -> Option<usize> {
        tasks.iter().position(|&task| {
            let task = self.task(task);
            matches!(task.state.get(), State::Spins { .. }) && task.condition.holds(value)
        })
    }

    /// Lets the task at `place` of those that wait for the word at `address` go on.
    fn take_waiter(
        &self,
        mut waiters: RefMut<'_, BTreeMap<usize, Waiters>>,
        address: usize,
        place: Option<usize>,
        now: u64,
    ) {
        let Some(place) = place else { return };
        let waiting = waiters.get_mut(&address).expect("somebody waits there");
        let task = waiting.tasks.remove(place).expect("a place among them");
        if waiting.tasks.is_empty() {
            waiters.remove(&address);
        }
        drop(waiters);
        self.go_on(task, now);
    }

    /// The owner of a semaphore left its CPU: a spinner goes on, if it still spins.
    fn resume_spinner(&self, task: TaskId, now: u64) {
        let State::Spins { address, .. } = self.task(task).state.get() else { return };
        if let Some(waiting) = self.waiters.borrow_mut().get_mut(&address) {
            waiting.tasks.retain(|&other| other != task);
        }
        self.go_on(task, now);
    }

    /// A task that waited on its CPU is ready at `now`, or later if its clock is.
    fn go_on(&self, task: TaskId, now: u64) {
        let this = self.task(task);
        if let State::Spins { line, .. } = this.state.get() {
            self.lines.unwatch(line);
        }
        this.clock.set(this.clock.get().max(now));
        this.state.set(State::Ready);
        self.enqueue(task);
    }

    /// Wakes who sleeps on the word at `address`; returns how many, for the waker's cost.
    pub(super) fn wake(&self, address: usize, now: u64) -> u64 {
        let sleeps = |task: &TaskId| self.task(*task).state.get() == State::Sleeps(address);
        let mut waiters = self.waiters.borrow_mut();
        let Some(waiting) = waiters.get_mut(&address) else { return 0 };
        let sleepers: Vec<TaskId> = waiting.tasks.iter().copied().filter(sleeps).collect();
        waiting.tasks.retain(|task| !sleeps(task));
        if waiting.tasks.is_empty() {
            waiters.remove(&address);
        }
        drop(waiters);
        for (nth, &task) in sleepers.iter().enumerate() {
            let woken = now + (nth as u64 + 1) * self.machine.waker_ns;
            let this = self.task(task);
            this.clock.set(this.clock.get().max(woken + self.wakeup_ns()));
            this.state.set(State::Ready);
            self.want_cpu(task);
        }
        sleepers.len() as u64
    }

    /// The latency of one wake-up.
    fn wakeup_ns(&self) -> u64 {
        let Machine { wakeup_ns, wakeup_jitter, .. } = self.machine;
        let spread = wakeup_ns * wakeup_jitter / 100;
        let least = wakeup_ns - spread;
        least + self.random.borrow_mut().next_u64() % (2 * spread + 1)
    }

    /// The task waits for a cache line; `when`: it is the first to do so, and is to call
    /// [`World::serve_line`] then.
    pub(super) fn wait_for_line(&self, task: TaskId, line: u32, when: Option<u64>) {
        self.task(task).state.set(State::WaitsForLine(line));
        if let Some(when) = when {
            self.task(task).clock.set(when);
            self.enqueue(task);
        }
    }

    /// The time has come to give the line to one of those who wait, of whom `task` is the first.
    /// Whether it got it.
    pub(super) fn serve_line(&self, task: TaskId, line: u32) -> bool {
        let mut served = self.served.borrow_mut();
        let next = self.lines.serve(line, self.task(task).clock.get(), &mut served);
        let mut got_it = false;
        for one in served.drain(..) {
            let this = self.task(one.task);
            this.clock.set(one.at);
            this.state.set(State::Ready);
            if one.task == task {
                got_it = true;
            } else {
                self.enqueue(one.task);
            }
        }
        if let Some(next) = next {
            self.task(next.task).clock.set(next.at);
            self.enqueue(next.task);
        }
        got_it
    }

    /// The task waits until those of `cpus` whose interrupts are off have enabled them. Whether
    /// there are any.
    pub(super) fn wait_for_irqs(&self, task: TaskId, cpus: &[u32]) -> bool {
        let cpus = cpus.iter().map(|&cpu| &self.cpus[cpu as usize]);
        let mut nr_off = 0;
        for cpu in cpus.filter(|cpu| cpu.irqs_off.get()) {
            cpu.irq_waiters.borrow_mut().push(task);
            cpu.has_irq_waiters.set(true);
            nr_off += 1;
        }
        if nr_off != 0 {
            self.task(task).state.set(State::WaitsForIrqs(nr_off));
        }
        nr_off != 0
    }

    /// Interrupts of this CPU are on again at `now`.
    #[inline(always)]
    pub(super) fn irqs_on(&self, cpu: u32, now: u64) {
        let cpu = &self.cpus[cpu as usize];
        cpu.irqs_off.set(false);
        if cpu.has_irq_waiters.replace(false) {
            self.answer_irqs(cpu, now);
        }
    }

    #[cold]
    fn answer_irqs(&self, cpu: &CpuState, now: u64) {
        for task in cpu.irq_waiters.take() {
            let this = self.task(task);
            match this.state.get() {
                State::WaitsForIrqs(left) if left > 1 => {
                    this.clock.set(this.clock.get().max(now));
                    this.state.set(State::WaitsForIrqs(left - 1));
                }
                _ => self.go_on(task, now),
            }
        }
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

    /// The handler of an interrupt takes its time from the task that runs on `cpu`.
    pub(super) fn interrupt(&self, cpu: u32) {
        let Some(task) = self.cpus[cpu as usize].runs.get() else { return };
        let stolen = &self.task(task).stolen_ns;
        stolen.set(stolen.get() + self.machine.ipi_handler_ns);
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
