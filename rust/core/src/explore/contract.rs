//! What a CPU of the explorer does for each operation of the platform.

use std::panic::resume_unwind;

use super::cpu::{AtRest, Cpu, NO_GRANT, Site, address, is_free};
use super::machine::{Wait, bit};
use super::mutants::without;
use super::timeline::Access;
use super::touch::Thing;
use crate::events::{EVENT_NAMES, Event, Span};
use crate::platform::{
    CpuId, Fence, Finding, Hazard, Line, Mutant, Ordering, Platform, RcuCallback, TaskId, Word,
};

impl Platform for Cpu {
    type Site = Site;
    const CHECKS_EVERY_ACCESS: bool = true;
    const MUTABLE: bool = true;
    const KEEPS_LISTS: bool = false;

    fn site(line: Line, offset: u32) -> Site {
        u64::from(line.0) * u64::from(Line::BYTES) + u64::from(offset)
    }

    #[inline(always)]
    fn id(&self) -> CpuId {
        self.task
    }
    #[inline(always)]
    fn task(&self) -> TaskId {
        self.task
    }

    #[inline]
    fn load(&self, word: &Word<Self>, order: Ordering) -> u64 {
        self.before_access(word, || false);
        let value = self.seen(word, order);
        self.record(Access::Load, word, value, value);
        value
    }

    #[inline]
    fn store(&self, word: &Word<Self>, value: u64, order: Ordering) {
        if self.before_access(word, || true) {
            let before = word.peek();
            let after = self.after_store(word, value, order);
            word.poke(after);
            self.record(Access::Store, word, before, value);
            self.after_write(word, before, after);
        }
    }

    #[inline]
    fn initialise(&self, word: &Word<Self>, value: u64) {
        self.initialises(word, value);
        word.poke(value);
    }

    #[inline]
    fn swap(&self, word: &Word<Self>, value: u64, order: Ordering) -> u64 {
        let has_effect = self.before_access(word, || true);
        let before = word.peek();
        if has_effect {
            self.exchanges(word, before, Some(value), order);
            word.poke(value);
            self.record(Access::Swap, word, before, value);
            self.after_write(word, before, value);
        }
        before
    }

    #[inline]
    fn compare_exchange(
        &self,
        word: &Word<Self>,
        expect: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        if !self.before_access(word, || word.peek() == expect) {
            // So that a guard's loop ends.
            return Ok(expect);
        }
        let before = word.peek();
        if before != expect {
            self.exchanges(word, before, None, order);
            self.record(Access::FailedExchange, word, before, before);
            return Err(before);
        }
        self.exchanges(word, before, Some(new), order);
        word.poke(new);
        self.record(Access::Exchange, word, before, new);
        self.after_write(word, before, new);
        Ok(before)
    }

    #[inline]
    fn fetch_add(&self, word: &Word<Self>, add: u64, order: Ordering) -> u64 {
        let has_effect = self.before_access(word, || true);
        let before = word.peek();
        if has_effect {
            let after = before.wrapping_add(add);
            self.exchanges(word, before, Some(after), order);
            word.poke(after);
            self.record(Access::Add, word, before, after);
            self.after_write(word, before, after);
        }
        before
    }

    #[inline]
    fn fence(&self, fence: Fence) {
        self.fence_of(self.task, fence);
    }

    fn spin_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        self.before_access(word, || false);
        let condition = &self.machine.tasks[self.task as usize].condition;
        while self.is_live() && !done(word.peek()) {
            self.event(|| format!("spins on {}", self.name_of(word.site())));
            condition.during(&done, || self.block(Wait::Spin(address(word)), Some(word)));
            self.machine.make_runnable(self.task);
            self.touch(word, false);
        }
        let value = self.seen_at_last(word);
        self.record(Access::Load, word, value, value);
        value
    }

    fn sleep_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        if self.is_live() && self.reader.is_open() {
            let place = self.name_of(word.site());
            self.finding("sleep-in-atomic", format!("sleeps on {place} in a read section"));
        }
        if !is_free(word.site()) {
            self.before_access(word, || false);
        }
        let condition = &self.machine.tasks[self.task as usize].condition;
        while self.is_live() && !done(word.peek()) {
            self.event(|| format!("sleeps on {}", self.name_of(word.site())));
            condition.during(&done, || self.block(Wait::Sleep(address(word)), Some(word)));
            self.touch(word, false);
        }
        let value = self.seen_at_last(word);
        self.record(Access::Load, word, value, value);
        value
    }

    fn wake(&self, word: &Word<Self>) {
        if self.is_live() {
            self.touch(word, true);
            self.machine.wake(self.task, address(word), word.peek());
        }
    }

    fn spin_on_owner(&self, word: &Word<Self>, value: u64, owner: TaskId) {
        self.before_access(word, || false);
        self.machine.touch(Thing::OnCpu(owner), false);
        if self.is_live() && word.peek() == value && self.machine.on_cpu(owner) {
            self.event(|| format!("spins while task {owner} owns {}", self.name_of(word.site())));
            self.block(Wait::Owner { word: address(word), value, owner }, Some(word));
            self.touch(word, false);
        }
    }

    fn on_cpu(&self, task: TaskId) -> bool {
        self.machine.touch(Thing::OnCpu(task), false);
        self.machine.on_cpu(task)
    }

    fn rcu_read_lock(&self) {
        if self.is_live() {
            if !self.reader.is_open() {
                self.begin_section();
            }
            self.machine.grace.enter(&self.reader);
        }
    }

    fn rcu_read_unlock(&self) {
        if self.is_live() {
            self.end_section();
        }
    }

    fn call_rcu(&self, callback: RcuCallback) {
        if self.is_live() {
            self.queue_callback(callback);
        }
    }

    fn after_readers(&self, then: impl FnOnce() + Send + 'static) {
        then();
    }
    fn while_idle(&self, _cpu: CpuId, then: impl FnOnce()) {
        // One CPU works at a time, and what belongs to it alone is never in between at an access.
        then();
    }

    fn rcu_ready(&self) -> Option<RcuCallback> {
        if self.is_live() { self.take_callback() } else { None }
    }

    fn local_irq_disable(&self) {
        if !self.is_live() {
            return;
        }
        if self.irqs_are_off() {
            self.finding("irq-balance", "interrupts are disabled twice".to_owned());
        }
        if !self.reader.is_open() {
            self.begin_section();
        }
        self.machine.touch(Thing::Interrupts(self.task), false);
        self.machine.irqs_off.set(self.machine.irqs_off.get() | bit(self.task));
        self.machine.grace.enter(&self.reader);
        self.event(|| "interrupts off".to_owned());
    }

    fn local_irq_enable(&self) {
        if !self.is_live() {
            return;
        }
        if !self.irqs_are_off() {
            self.finding("irq-balance", "interrupts are enabled twice".to_owned());
        }
        self.event(|| "interrupts on".to_owned());
        self.machine.touch(Thing::Interrupts(self.task), false);
        self.machine.irqs_on(self.task);
        self.end_section();
    }

    fn ipi(&self, is_target: impl Fn(CpuId) -> bool) {
        if !self.is_live() {
            return;
        }
        if self.irqs_are_off() {
            self.finding("irq-balance", "an interrupt is sent with interrupts off".to_owned());
        }
        self.choice_before_next(|machine| machine.decide(self.task));
        self.grant.set(NO_GRANT);
        self.interrupt(is_target);
    }

    fn livelock_faults(&self) -> u32 {
        self.machine.livelock_faults.get()
    }

    #[inline(always)]
    fn mutant(&self, which: Mutant) -> bool {
        let is_removed = self.machine.mutants.get() & (1 << which as u8) != 0;
        if is_removed {
            self.record_event(Access::Mutant, || without(which));
        }
        is_removed
    }

    fn checks_sections(&self) -> bool {
        self.machine.checks_sections.get()
    }

    #[inline(always)]
    fn lets_happen(&self, hazard: Hazard) -> bool {
        self.machine.hazards.get().has(hazard)
    }
    fn has_met(&self, hazard: Hazard) -> bool {
        self.machine.met.get().has(hazard)
    }
    #[inline(always)]
    fn meets(&self, hazard: Hazard) -> bool {
        self.lets_happen(hazard) && self.meets_now(hazard)
    }

    fn ends_operation(&self) -> bool {
        self.machine.at_work.ends(self.task) && self.is_live()
    }

    fn begins_end(&self) {
        self.machine.at_work.begins(self.task);
    }

    fn callback_runs(&self) -> bool {
        self.softirq_runs()
    }

    fn observe(&self, word: &Word<Self>) -> u64 {
        let value = word.peek();
        if self.machine.is_alone() || !self.is_live() {
            return value;
        }
        self.touch(word, false);
        self.observes(word);
        self.record(Access::Observe, word, value, value);
        value
    }

    fn object_of(&self, word: &Word<Self>) -> String {
        let name = self.name_of(word.site());
        name.split_once('.').map_or(name.clone(), |(object, _)| object.to_owned())
    }

    fn freed(&self, line: Line, lines: u32) {
        if self.machine.is_weak.get() {
            let first = Self::site(line, 0);
            let numbers = first..first + u64::from(lines * Line::BYTES);
            self.machine.memory.borrow_mut().forget(numbers);
        }
        if self.machine.notes() {
            self.machine.dpor.borrow_mut().races.freed(line, lines);
        }
    }

    fn is_cut(&self) -> bool {
        !self.is_live()
    }

    fn now_ns(&self) -> u64 {
        0
    }

    /// Accesses so far, and one for the state that was there before.
    ///
    /// Who looks a second time in an operation is at its end, before or after which others begin;
    /// or ends himself, and looks whether others have.
    fn moment(&self) -> u64 {
        // The oracles take an operation's accesses for being done between its ends.
        self.fence(Fence::Full);
        if self.machine.notes() && !self.has_begun.replace(false) {
            self.machine.touch(Thing::Operation(self.task), true);
            for task in (0..self.machine.nr_tasks).filter(|&task| task != self.task) {
                self.machine.touch(Thing::Task(task), false);
            }
        }
        1 + self.machine.steps.get()
    }

    #[inline(always)]
    fn set_function(&self, function: &'static str) -> &'static str {
        self.function.replace(function)
    }

    #[inline(always)]
    fn check(&self, number: &'static str, holds: bool, what: impl FnOnce() -> String) {
        let kind = if holds { Access::Passed } else { Access::Failed };
        self.record_event(kind, || format!("{number}: {}", what()));
    }

    #[inline(always)]
    fn tell(&self, what: impl FnOnce() -> String) {
        self.event(what);
    }

    fn gives_up(&self, event: Event, _vm_sequence: &Word<Self>, _vm_start: u64) {
        self.event(|| format!("trace {}", EVENT_NAMES[event as usize]));
    }

    fn enter(&self, span: Span) {
        self.machine.explainer.enter(&self.machine, self.task, span);
    }

    fn leave(&self, _how: &'static str) {
        self.machine.explainer.leave(&self.machine, self.task);
    }

    /// A scheduling point: an operation begins no sooner than its first access.
    fn operation_boundary(&self) -> bool {
        if self.is_live() {
            self.count_operation();
            self.function.set("");
            self.choice_before_next(|machine| machine.decide_between_operations(self.task));
            self.has_begun.set(true);
            self.machine.at_work.begins(self.task);
            for task in (0..self.machine.nr_tasks).filter(|&task| task != self.task) {
                self.machine.touch(Thing::Operation(task), false);
            }
        }
        true
    }

    /// No scheduling point: the order of such operations is nobody's business.
    fn synchronisation_boundary(&self) -> bool {
        if self.is_live() {
            self.count_operation();
        }
        true
    }

    fn finding(&self, invariant: &'static str, what: String) -> ! {
        let finding = Finding { invariant, what };
        if !self.switch.is_running() || !self.is_live() {
            resume_unwind(Box::new(AtRest(finding)));
        }
        self.record_event(Access::Finding, || format!("{}: {}", finding.invariant, finding.what));
        self.machine.touch(Thing::Freed, true);
        self.machine.halt(self.task, finding);
        self.switch.suspend();
        unreachable!("a schedule that has ended is never resumed, only unwound")
    }
}
