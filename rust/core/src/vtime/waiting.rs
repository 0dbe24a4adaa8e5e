//! Who waits, and who lets them go on: words that are spun or slept on, interrupts that are off.

use std::cell::RefMut;
use std::collections::{BTreeMap, VecDeque};

use rand_core::Rng;

use super::machine::Machine;
use super::task::State;
use super::world::{CpuState, Irqs, World};
use crate::platform::TaskId;

/// Who waits for a word.
#[derive(Default)]
pub(super) struct Waiters {
    /// First come, first served.
    tasks: VecDeque<TaskId>,
    /// What the word holds, as far as those who spin know.
    value: u64,
    /// One who waited goes on now, and nobody who comes later goes before it.
    has_heir: bool,
}

impl Waiters {
    fn is_done(&self) -> bool {
        self.tasks.is_empty() && !self.has_heir
    }
}

impl World {
    /// The task busy-waits, on its CPU, until its condition holds of the word at `address`, which
    /// holds `value` now: behind all who do so or, `again`, before them.
    pub(super) fn spin(&self, task: TaskId, address: usize, line: u32, value: u64, again: bool) {
        self.task(task).state.set(State::Spins { address, line });
        self.lines.watch(line);
        let mut waiters = self.waiters.borrow_mut();
        let waiters = waiters.entry(address).or_default();
        if again {
            waiters.tasks.push_front(task);
        } else {
            waiters.tasks.push_back(task);
        }
        waiters.value = value;
    }

    /// Whether somebody waits for the word at `address`, in that line, or goes on just now.
    #[inline(always)]
    pub(super) fn has_waiters(&self, address: usize, line: u32) -> bool {
        (self.nr_heirs.get() != 0 || self.lines.is_watched(line)) && self.waits(address)
    }

    #[inline(never)]
    fn waits(&self, address: usize) -> bool {
        let waiters = self.waiters.borrow();
        waiters.get(&address).is_some_and(|waiting| waiting.has_heir || !waiting.tasks.is_empty())
    }

    /// The task also stops spinning when `owner` leaves its CPU.
    pub(super) fn spin_while_runs(&self, task: TaskId, owner: TaskId) {
        self.owner_waiters.borrow_mut().entry(owner).or_default().push(task);
    }

    /// The task has stopped spinning.
    pub(super) fn spins_no_more(&self, task: TaskId, owner: TaskId) {
        let mut waiters = self.owner_waiters.borrow_mut();
        if let Some(spinners) = waiters.get_mut(&owner) {
            spinners.retain(|&spinner| spinner != task);
            if spinners.is_empty() {
                waiters.remove(&owner);
            }
        }
    }

    /// The task sleeps until it is woken from the word at `address`.
    pub(super) fn sleep(&self, task: TaskId, address: usize) {
        self.task(task).state.set(State::Sleeps(address));
        self.waiters.borrow_mut().entry(address).or_default().tasks.push_back(task);
        self.leave_cpu(task);
    }

    /// `value` was stored in the word at `address` at `now`: the first who spins for it goes on.
    /// The others see it once that one has had its turn ([`World::pass_on`]): as in the kernel's
    /// queued spin lock, a release is not a race of all who wait.
    pub(super) fn stored(&self, address: usize, value: u64, now: u64) {
        let mut waiters = self.waiters.borrow_mut();
        let Some(waiting) = waiters.get_mut(&address) else { return };
        waiting.value = value;
        self.choose_heir(waiters, address, now);
    }

    /// A task that went on because of the word at `address` has had its turn: the next may.
    pub(super) fn pass_on(&self, address: usize, now: u64) {
        let mut waiters = self.waiters.borrow_mut();
        let Some(waiting) = waiters.get_mut(&address) else { return };
        self.set_heir(waiting, false);
        self.choose_heir(waiters, address, now);
    }

    fn set_heir(&self, waiting: &mut Waiters, has_heir: bool) {
        let before = u32::from(std::mem::replace(&mut waiting.has_heir, has_heir));
        self.nr_heirs.set(self.nr_heirs.get() + u32::from(has_heir) - before);
    }

    fn first_satisfied(&self, tasks: &VecDeque<TaskId>, value: u64) -> Option<usize> {
        tasks.iter().position(|&task| {
            let task = self.task(task);
            matches!(task.state.get(), State::Spins { .. }) && task.condition.holds(value)
        })
    }

    /// Lets the first who spins for what the word at `address` holds now go on, if there is one.
    fn choose_heir(
        &self,
        mut waiters: RefMut<'_, BTreeMap<usize, Waiters>>,
        address: usize,
        now: u64,
    ) {
        let waiting = waiters.get_mut(&address).expect("somebody waits there");
        let place = self.first_satisfied(&waiting.tasks, waiting.value);
        let heir = place.and_then(|place| waiting.tasks.remove(place));
        if heir.is_some() {
            self.set_heir(waiting, true);
        } else if waiting.is_done() {
            waiters.remove(&address);
        }
        drop(waiters);
        if let Some(heir) = heir {
            self.go_on(heir, now);
        }
    }

    /// The owner of a semaphore left its CPU: a spinner goes on, if it still spins.
    pub(super) fn resume_spinner(&self, task: TaskId, now: u64) {
        let State::Spins { address, .. } = self.task(task).state.get() else { return };
        if let Some(waiting) = self.waiters.borrow_mut().get_mut(&address) {
            waiting.tasks.retain(|&other| other != task);
        }
        self.go_on(task, now);
    }

    /// A task that waited on its CPU is ready at `now`, or later if its clock is, or the CPU
    /// handles an interrupt then.
    fn go_on(&self, task: TaskId, now: u64) {
        let this = self.task(task);
        if let State::Spins { line, .. } = this.state.get() {
            self.lines.unwatch(line);
        }
        this.clock.set(this.clock.get().max(now));
        self.end_wait(this);
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
        if waiting.is_done() {
            waiters.remove(&address);
        }
        drop(waiters);
        for (nth, &task) in sleepers.iter().enumerate() {
            let woken = now + (nth as u64 + 1) * self.machine.waker_ns;
            let this = self.task(task);
            let latency = self.wakeup_ns(self.cpu_state(task).is_idle(woken));
            this.clock.set(this.clock.get().max(woken + latency));
            this.state.set(State::Ready);
            self.want_cpu(task);
        }
        sleepers.len() as u64
    }

    /// The latency of one wake-up, of a CPU that is idle or at work.
    fn wakeup_ns(&self, is_idle: bool) -> u64 {
        let Machine { wakeup_ns, wakeup_jitter, idle_exit_ns, .. } = self.machine;
        let spread = wakeup_ns * wakeup_jitter / 100;
        let least = wakeup_ns - spread;
        let latency = least + self.random.borrow_mut().next_u64() % (2 * spread + 1);
        if is_idle { latency } else { latency.saturating_sub(idle_exit_ns) }
    }

    /// The task waits until those of `cpus` whose interrupts are off have enabled them. Whether
    /// there are any.
    pub(super) fn wait_for_irqs(&self, task: TaskId, cpus: &[u32]) -> bool {
        let cpus = cpus.iter().map(|&cpu| &self.cpus[cpu as usize]);
        let mut nr_off = 0;
        for cpu in cpus.filter(|cpu| cpu.irqs.get() != Irqs::On) {
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
        cpu.irqs.set(Irqs::On);
        if cpu.has_irq_waiters.replace(false) {
            self.answer_irqs(cpu, now);
        }
    }

    #[cold]
    fn answer_irqs(&self, cpu: &CpuState, now: u64) {
        self.handle_pending(cpu, now);
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
}
