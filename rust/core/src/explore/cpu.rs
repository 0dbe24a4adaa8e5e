//! `explore::Cpu`: a CPU that asks before each access who goes next.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;

use super::machine::{Machine, Phase, Wait, bit};
use super::mutants::{MUTANTS, MutantInfo};
use super::strategy::Dfs;
use super::timeline::{Access, Step};
use super::token::TaskSet;
use super::touch::Thing;
use crate::platform::coroutine::{StackPool, Switch};
use crate::platform::grace::Reader;
use crate::platform::{
    CpuId, Fence, Finding, Line, Mutant, Ordering, Platform, RcuCallback, TaskId, Value, Word,
};

/// One CPU of an explored system. Each task has a CPU of its own, with its number.
pub struct Cpu {
    task: TaskId,
    machine: Rc<Machine>,
    switch: Rc<Switch>,
    reader: Reader,
    /// This task was chosen while it did not stand before an access: the next is granted, unless
    /// another task became runnable since (`Machine::arrivals`).
    grant: Cell<u64>,
    /// An operation has begun, and nothing of it was seen yet.
    has_begun: Cell<bool>,
    function: Cell<&'static str>,
}

/// No access is granted.
const NO_GRANT: u64 = u64::MAX;

/// The CPUs of a set, for timelines.
fn cpus_of(set: TaskSet) -> String {
    let cpus: Vec<_> =
        (0..TaskSet::BITS).filter(|cpu| set & (1 << cpu) != 0).map(|cpu| cpu.to_string()).collect();
    match cpus.len() {
        0 => "no CPU".to_owned(),
        1 => format!("CPU {}", cpus[0]),
        _ => format!("CPUs {}", cpus.join(", ")),
    }
}

/// What a finding at rest unwinds with.
pub(super) struct AtRest(pub(super) Finding);

/// A word's number: the bytes before it, all lines laid out one after another.
type Site = u64;

/// The line of a word, and its bytes into it.
fn place(site: Site) -> (Line, u32) {
    let bytes = u64::from(Line::BYTES);
    (Line((site / bytes) as u32), (site % bytes) as u32)
}

fn is_free(site: Site) -> bool {
    site < u64::from(Line::BYTES)
}

/// Words are told apart by where they are in the host, for two may share a place in the kernel.
fn address(word: &Word<Cpu>) -> usize {
    std::ptr::from_ref(word) as usize
}

impl Cpu {
    pub(super) fn new(task: TaskId, machine: &Rc<Machine>, switch: Rc<Switch>) -> Self {
        Self {
            task,
            machine: Rc::clone(machine),
            switch,
            reader: Reader::default(),
            grant: Cell::new(NO_GRANT),
            has_begun: Cell::new(false),
            function: Cell::new(""),
        }
    }

    /// A CPU of a system at rest, on which nothing is ever scheduled.
    pub(super) fn at_rest(task: TaskId, nr_tasks: u32) -> Self {
        let machine = Machine::new(nr_tasks, None, Box::new(Dfs::new(0)), &Arc::default());
        let machine = Rc::new(machine);
        Self::new(task, &machine, Switch::new(&StackPool::new()))
    }

    pub(super) fn switch(&self) -> &Rc<Switch> {
        &self.switch
    }

    /// Prepares for the next schedule.
    pub(super) fn reset(&self) {
        self.reader.reset();
        self.grant.set(NO_GRANT);
        self.has_begun.set(false);
        self.function.set("");
    }

    /// The task has ended: others go on, and the coroutine waits for the next schedule.
    pub(super) fn end_of_task(&self) {
        if self.reader.is_open() {
            self.finding("rcu-balance", "a task ended inside a read section".to_owned());
        }
        self.machine.ended(self.task);
        self.switch.suspend();
    }

    /// Whether word operations have an effect: not while the stack is unwound, because the
    /// schedule was ended or because of a panic. A switch then would corrupt the count of panics.
    #[inline(always)]
    fn is_live(&self) -> bool {
        !self.switch.is_cut() && !std::thread::panicking()
    }

    /// What comes before an access; false: the access must have no effect. `writes` is asked once
    /// the task goes on.
    #[inline(always)]
    fn before_access(&self, word: &Word<Self>, writes: impl Fn() -> bool) -> bool {
        let site = word.site();
        if is_free(site) {
            self.machine.touch(Thing::Program, writes());
            return self.is_live();
        }
        if self.machine.is_alone() && self.machine.count_step() {
            self.grant.set(NO_GRANT);
            return true;
        }
        let goes_on = self.before_shared_access(site, &writes);
        if goes_on == Some(false) && self.machine.notes() {
            self.machine.dpor.borrow_mut().races.touch(site, writes());
        }
        goes_on.is_some()
    }

    /// As `before_access`, usually; whether the access was noted, unless it must have no effect.
    #[inline]
    fn before_shared_access(&self, site: Site, writes: impl Fn() -> bool) -> Option<bool> {
        let machine = &*self.machine;
        if machine.phase.get() != Phase::Running
            || std::thread::panicking()
            || !machine.count_step()
        {
            return self.before_any_access().then_some(false);
        }
        if self.grant.replace(NO_GRANT) == machine.arrivals() {
            return Some(false);
        }
        if machine.notes() && machine.reduces.get() {
            let next = machine.decide_on_access(self.task, site, writes());
            if next == self.task {
                return Some(true);
            }
            machine.hand_over(next);
            self.switch.suspend();
        } else if !machine.passes() {
            self.choice();
        }
        Some(false)
    }

    #[cold]
    fn before_any_access(&self) -> bool {
        if !self.is_live() {
            return false;
        }
        let machine = &*self.machine;
        if machine.phase.get() == Phase::AtRest {
            return true;
        }
        if !machine.count_last_step() {
            self.switch.suspend();
        }
        self.choice();
        machine.set_alarm();
        true
    }

    /// Notes an access of the step that runs.
    #[inline(always)]
    fn touch(&self, word: &Word<Self>, writes: bool) {
        if self.machine.notes() && !is_free(word.site()) {
            self.machine.dpor.borrow_mut().races.touch(word.site(), writes);
        }
    }

    /// An operation begins; the schedule may end instead.
    fn count_operation(&self) {
        if self.machine.phase.get() != Phase::AtRest && !self.machine.count_operation() {
            self.switch.suspend();
        }
    }

    /// A scheduling point: returns when this task goes on.
    #[inline]
    fn choice(&self) {
        self.choice_by(|machine| machine.decide(self.task));
    }

    fn choice_by(&self, decide: impl FnOnce(&Machine) -> TaskId) {
        let machine = &*self.machine;
        if self.grant.replace(NO_GRANT) == machine.arrivals() {
            return;
        }
        if machine.phase.get() == Phase::Starting {
            self.switch.suspend();
            return;
        }
        if machine.is_idle() {
            self.event(|| "looks at words that do not change".to_owned());
            machine.block(self.task, Wait::Change, None);
            self.switch.suspend();
            return;
        }
        let next = decide(machine);
        if next != self.task {
            machine.hand_over(next);
            self.switch.suspend();
        }
    }

    /// A scheduling point that is part of the access that follows.
    fn choice_before_next(&self, decide: impl FnOnce(&Machine) -> TaskId) {
        if self.machine.phase.get() != Phase::AtRest {
            self.choice_by(decide);
            self.grant.set(self.machine.arrivals());
        }
    }

    /// Waits, and returns when this task goes on.
    fn block(&self, wait: Wait, word: Option<&Word<Self>>) {
        let on_line = word.map(|word| if is_free(word.site()) { Line::FREE } else { Line(1) });
        if self.machine.phase.get() == Phase::AtRest {
            self.finding("deadlock", "a wait at rest, when nobody else runs".to_owned());
        }
        self.machine.block(self.task, wait, on_line);
        self.switch.suspend();
        if on_line == Some(Line::FREE) {
            self.grant.set(self.machine.arrivals());
        }
    }

    #[inline(always)]
    fn after_write(&self, word: &Word<Self>, before: u64, after: u64) {
        self.machine.written(address(word), before, after);
    }

    #[inline(always)]
    fn record(&self, access: Access, word: &Word<Self>, before: u64, after: u64) {
        if self.is_recording() && !is_free(word.site()) {
            self.push_access(access, word.site(), before, after);
        }
    }

    /// Only what happens when two tasks can run is worth telling.
    #[inline(always)]
    fn is_recording(&self) -> bool {
        self.machine.is_recording.get() && self.machine.is_concurrent()
    }

    #[inline(always)]
    fn event(&self, what: impl FnOnce() -> String) {
        self.tell(Access::Event, what);
    }

    #[inline(always)]
    fn tell(&self, kind: Access, what: impl FnOnce() -> String) {
        if self.is_recording() {
            self.push_step(kind, what(), [0; 2], Default::default());
        }
    }

    #[cold]
    fn push_access(&self, access: Access, site: Site, before: u64, after: u64) {
        let (line, offset) = place(site);
        let text = |word| match &self.machine.lines {
            Some(lines) => lines.text_of(line, offset, word),
            None => u64::text(word),
        };
        let texts = [text(before), text(after)];
        self.push_step(access, self.name_of(site), [before, after], texts);
    }

    #[cold]
    fn push_step(&self, access: Access, what: String, values: [u64; 2], texts: [String; 2]) {
        let (cpu, function, [before, after]) = (self.task, self.function.get(), values);
        let step = Step { cpu, function, access, what, before, after, texts };
        self.machine.timeline.borrow_mut().push(step);
    }

    fn name_of(&self, site: Site) -> String {
        let (line, offset) = place(site);
        match &self.machine.lines {
            Some(lines) => lines.name_of(line, offset),
            None => format!("line {} +{offset:#x}", line.0),
        }
    }

    /// A read section begins: a choice now, and none before its first access.
    fn begin_section(&self) {
        self.choice_before_next(|machine| machine.decide(self.task));
        self.machine.touch(Thing::Sections, false);
    }

    fn end_section(&self) {
        if self.machine.grace.leave(&self.reader) {
            self.machine.touch(Thing::Sections, false);
        }
    }

    fn irqs_are_off(&self) -> bool {
        self.machine.irqs_off.get() & bit(self.task) != 0
    }
}

impl Platform for Cpu {
    type Site = Site;
    const CHECKS_EVERY_ACCESS: bool = true;
    const MUTABLE: bool = true;

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
    fn load(&self, word: &Word<Self>, _order: Ordering) -> u64 {
        self.before_access(word, || false);
        let value = word.peek();
        self.record(Access::Load, word, value, value);
        value
    }

    #[inline]
    fn store(&self, word: &Word<Self>, value: u64, _order: Ordering) {
        if self.before_access(word, || true) {
            let before = word.peek();
            word.poke(value);
            self.record(Access::Store, word, before, value);
            self.after_write(word, before, value);
        }
    }

    #[inline]
    fn swap(&self, word: &Word<Self>, value: u64, _order: Ordering) -> u64 {
        let has_effect = self.before_access(word, || true);
        let before = word.peek();
        if has_effect {
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
        _order: Ordering,
    ) -> Result<u64, u64> {
        if !self.before_access(word, || word.peek() == expect) {
            // So that a guard's loop ends.
            return Ok(expect);
        }
        let before = word.peek();
        if before != expect {
            self.record(Access::FailedExchange, word, before, before);
            return Err(before);
        }
        word.poke(new);
        self.record(Access::Exchange, word, before, new);
        self.after_write(word, before, new);
        Ok(before)
    }

    #[inline]
    fn fetch_add(&self, word: &Word<Self>, add: u64, _order: Ordering) -> u64 {
        let has_effect = self.before_access(word, || true);
        let before = word.peek();
        if has_effect {
            let after = before.wrapping_add(add);
            word.poke(after);
            self.record(Access::Add, word, before, after);
            self.after_write(word, before, after);
        }
        before
    }

    fn fence(&self, _fence: Fence) {}

    fn spin_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        self.before_access(word, || false);
        let condition = &self.machine.tasks[self.task as usize].condition;
        while self.is_live() && !done(word.peek()) {
            self.event(|| format!("spins on {}", self.name_of(word.site())));
            condition.during(&done, || self.block(Wait::Spin(address(word)), Some(word)));
            self.machine.make_runnable(self.task);
            self.touch(word, false);
        }
        let value = word.peek();
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
        let value = word.peek();
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
            self.machine.touch(Thing::Sections, true);
            self.machine.touch(Thing::Callbacks, true);
            self.event(|| format!("call_rcu: {callback}"));
            let number = self.machine.grace.begin();
            self.machine.callbacks.borrow_mut().push_back((number, callback));
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
        if !self.is_live() {
            return None;
        }
        self.machine.touch(Thing::Callbacks, false);
        let mut callbacks = self.machine.callbacks.borrow_mut();
        let &(number, callback) = callbacks.front()?;
        self.machine.touch(Thing::Sections, true);
        if !self.machine.grace.has_ended(number) {
            return None;
        }
        callbacks.pop_front();
        drop(callbacks);
        self.machine.touch(Thing::Callbacks, true);
        self.event(|| format!("after the grace period: {callback}"));
        Some(callback)
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
        let targets = (0..self.machine.nr_tasks).filter(|&cpu| is_target(cpu));
        let set = targets.fold(0, |set, target| set | bit(target)) & !bit(self.task);
        for target in (0..self.machine.nr_tasks).filter(|&task| set & bit(task) != 0) {
            self.machine.touch(Thing::Interrupts(target), true);
        }
        let waits_for = set & self.machine.irqs_off.get();
        self.event(|| format!("interrupts {}", cpus_of(set)));
        if waits_for != 0 {
            self.block(Wait::Interrupt(waits_for), None);
        }
    }

    fn livelock_faults(&self) -> u32 {
        self.machine.livelock_faults.get()
    }

    #[inline(always)]
    fn mutant(&self, which: Mutant) -> bool {
        let is_removed = self.machine.mutants.get() & (1 << which as u8) != 0;
        if is_removed {
            self.tell(Access::Mutant, || {
                let MutantInfo { entry, removed, .. } = MUTANTS[which as usize];
                format!("{entry}: without {removed}")
            });
        }
        is_removed
    }

    fn observe(&self, word: &Word<Self>) -> u64 {
        let value = word.peek();
        if self.machine.is_alone() || !self.is_live() {
            return value;
        }
        self.touch(word, false);
        self.record(Access::Observe, word, value, value);
        value
    }

    fn object_of(&self, word: &Word<Self>) -> String {
        let name = self.name_of(word.site());
        name.split_once('.').map_or(name.clone(), |(object, _)| object.to_owned())
    }

    fn freed(&self, line: Line, lines: u32) {
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
        if self.machine.notes() && !self.has_begun.replace(false) {
            self.machine.touch(Thing::Operation(self.task), true);
            for task in (0..self.machine.nr_tasks).filter(|&task| task != self.task) {
                self.machine.touch(Thing::Task(task), false);
            }
        }
        1 + self.machine.steps.get()
    }

    #[inline(always)]
    fn step(&self, name: &'static str) {
        self.function.set(name);
    }

    /// A scheduling point: an operation begins no sooner than its first access.
    fn operation_boundary(&self) -> bool {
        if self.is_live() {
            self.count_operation();
            self.function.set("");
            self.choice_before_next(|machine| machine.decide_between_operations(self.task));
            self.has_begun.set(true);
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
        self.tell(Access::Finding, || format!("{}: {}", finding.invariant, finding.what));
        self.machine.touch(Thing::Freed, true);
        self.machine.halt(self.task, finding);
        self.switch.suspend();
        unreachable!("a schedule that has ended is never resumed, only unwound")
    }
}
