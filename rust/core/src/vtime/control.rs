//! Who has control, and what time it is for whoever has.

use std::panic::resume_unwind;

use super::cpu::{Cpu, NO_LINE, address};
use super::machine::Machine;
use super::task::{State, Task};
use super::world::Irqs;
use crate::platform::{CpuId, Platform, Word};

/// What a turn is: the look at the word after the wait was one; taking the lock is another.
const TURN_ACCESSES: u32 = 2;

/// What a run that was ended unwinds with.
pub(super) struct Stopped;

impl Cpu {
    /// Whether accesses count: not before the first task, nor while a stack is unwound.
    #[inline(always)]
    pub(super) fn counts(&self) -> bool {
        !self.world.at_rest.get() && !self.this.switch.is_cut() && !std::thread::panicking()
    }

    #[inline(always)]
    pub(super) fn advance(&self, ns: u64) {
        self.clock.set(self.clock.get() + ns);
    }

    /// Gives control away; the clock may have moved when it is back.
    pub(super) fn suspend(&self) {
        self.this.clock.set(self.clock.get());
        self.suspend_asleep();
    }

    /// As `suspend`, when the clock was handed over before and may have been moved since.
    pub(super) fn suspend_asleep(&self) {
        self.give_control_away();
        self.take_clock();
    }

    /// Whoever is first goes on.
    pub(super) fn give_control_away(&self) {
        self.give_control_to(self.world.dispatch(self.world.queue.pop()));
    }

    #[inline(always)]
    fn give_control_to(&self, next: Option<&Task>) {
        match next {
            Some(next) if next.id == self.task => {}
            Some(next) => self.this.switch.hand_over(&next.switch),
            None => self.this.switch.suspend(),
        }
    }

    /// After a suspension: the clock, and what interrupts took meanwhile. Whether they took any.
    #[inline(always)]
    pub(super) fn take_clock(&self) -> bool {
        self.at_hand.set(NO_LINE);
        let has_stolen = self.world.take_stolen(&self.this);
        self.clock.set(self.this.clock.get());
        if self.turn.get().is_none() {
            self.world.set_limit();
        } else {
            self.world.limit.set(0);
        }
        has_stolen
    }

    /// Waits until no other task is behind this one.
    #[inline(always)]
    pub(super) fn sync(&self) {
        let world = &*self.world;
        while !world.is_first(self.task, self.clock.get()) {
            self.let_others_go_first();
            // It has control, so it is first, unless that moved its clock.
            if !self.take_clock() {
                return;
            }
        }
    }

    /// Gives control to those behind this task, of whom there is one.
    #[inline(always)]
    pub(super) fn let_others_go_first(&self) {
        let clock = self.clock.get();
        self.this.clock.set(clock);
        let next = self.world.queue.replace_first(self.task, clock);
        self.give_control_to(self.world.dispatch(Some(next)));
    }

    /// Interrupts other CPUs, and waits for them; with `lazy` none that is idle, or was woken and
    /// does not work yet.
    pub(super) fn interrupt_others(&self, lazy: bool, is_target: impl Fn(CpuId) -> bool) {
        if !self.counts() {
            return;
        }
        self.end_turn();
        self.sync();
        let world = &*self.world;
        let now = self.clock.get();
        let is_target = |&cpu: &CpuId| {
            cpu != self.id
                && (!lazy || world.cpus[cpu as usize].worker(now).is_some())
                && is_target(cpu)
        };
        let targets: Vec<CpuId> = if lazy {
            world.busy_cpus().filter(is_target).collect()
        } else {
            (0..world.nr_cpus).filter(is_target).collect()
        };
        if targets.is_empty() {
            return;
        }
        if world.records {
            self.record(|recorder, at| recorder.begin(at, "flush_tlb_others", 0));
        }
        let Machine { ipi_base_ns, ipi_target_ns, ipi_handler_ns, .. } = world.machine;
        self.advance(ipi_base_ns + ipi_target_ns * targets.len() as u64);
        // They answer side by side, after what they were interrupted for before, each once its
        // interrupts are on; a later section does not hold back what was sent before it.
        let sent = self.clock.get();
        let answers = targets.iter().map(|&cpu| world.interrupt(cpu, now, sent));
        let answered = answers.max().expect("a target");
        self.this.clock.set(sent);
        if world.wait_for_irqs(self.task, &targets) {
            self.suspend();
            self.advance(ipi_handler_ns);
        }
        self.wait_for_answers(answered);
        self.leave("");
    }

    /// Waits until the last of those that were interrupted is done.
    fn wait_for_answers(&self, answered: u64) {
        if self.clock.get() >= answered {
            return;
        }
        self.clock.set(answered);
        self.this.state.set(State::WaitsForAnswers);
        self.sync();
        self.this.state.set(State::Ready);
        self.this.clock.set(self.clock.get());
        self.world.end_wait(&self.this);
        self.take_clock();
    }

    /// Flushes TLBs of other CPUs by an instruction: the barrier after it waits for user accesses
    /// under way, and for nothing that software does meanwhile.
    pub(super) fn broadcast_flush(&self, is_target: impl Fn(CpuId) -> bool) {
        let world = &*self.world;
        self.end_turn();
        self.sync();
        // On powerpc the flush is one of this CPU's own TLB if no other has the address space.
        if world.flushes_locally && !(0..world.nr_cpus).any(|cpu| cpu != self.id && is_target(cpu))
        {
            return;
        }
        if world.records {
            self.record(|recorder, at| recorder.begin(at, "flush_tlb_others", 0));
        }
        self.advance(world.machine.ipi_base_ns);
        let accesses = |cpu: &CpuId| world.cpus[*cpu as usize].irqs.get() == Irqs::UserAccess;
        let is_target = |cpu: &CpuId| *cpu != self.id && accesses(cpu) && is_target(*cpu);
        let targets: Vec<CpuId> = world.busy_cpus().filter(is_target).collect();
        self.this.clock.set(self.clock.get());
        if world.wait_for_irqs(self.task, &targets) {
            self.suspend();
        }
        self.leave("");
    }

    /// Counts an access of the turn, if the task has one. Whether it has none.
    #[inline(always)]
    pub(super) fn in_no_turn(&self) -> bool {
        match self.turn.get() {
            None => return true,
            Some((_, 0)) => self.end_turn(),
            Some((address, left)) => self.turn.set(Some((address, left - 1))),
        }
        false
    }

    /// Whoever waits for the same word may go on now.
    pub(super) fn end_turn(&self) {
        if let Some((address, _)) = self.turn.take() {
            self.world.set_limit();
            self.world.pass_on(address, self.clock.get());
        }
    }

    /// The task has ended.
    pub(super) fn end(&self) {
        self.end_turn();
        self.this.clock.set(self.clock.get());
        self.world.end(self.task);
    }

    pub(super) fn begin_turn(&self, word: &Word<Self>) {
        self.turn.set(Some((address(word), TURN_ACCESSES)));
        self.world.limit.set(0);
    }

    /// Waits on its CPU, behind those who do so or, `again`, before them, until `done` holds of the
    /// word, which holds `value`, and this task has its turn.
    pub(super) fn spin(
        &self,
        word: &Word<Self>,
        value: u64,
        done: &dyn Fn(u64) -> bool,
        again: bool,
    ) {
        self.end_turn();
        self.this.condition.during(done, || {
            self.world.spin(self.task, address(word), word.site().line, value, again);
            self.wait(word, || self.suspend());
        });
        self.begin_turn(word);
    }

    /// Works for `ns`, but for slices of other tasks that want the CPU.
    pub(super) fn work(&self, ns: u64) {
        let world = &*self.world;
        let mut left = ns;
        while world.shares_cpus() {
            let step = left.min(world.slice_left(self.task, self.clock.get()));
            self.advance(step);
            left -= step;
            if left == 0 {
                return;
            }
            if world.watch.is_stopped() {
                return;
            }
            // Who wants the CPU by now, and is behind, asks for it first.
            self.sync();
            if world.yields_slice(self.task, self.clock.get()) {
                self.suspend();
            }
        }
        self.advance(left);
    }

    /// Ends the run from inside a coroutine.
    pub(super) fn unwind(&self) -> ! {
        resume_unwind(Box::new(Stopped))
    }
}
