//! `explore::Cpu`: a CPU that asks before each access who goes next.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::machine::{Machine, Phase, Wait, bit};
use super::strategy::Dfs;
use super::timeline::{Access, Step};
use super::token::{TaskSet, tasks_of};
use super::touch::Thing;
use crate::platform::coroutine::{StackPool, Switch};
use crate::platform::grace::Reader;
use crate::platform::{CpuId, Fence, Finding, Line, Platform, TaskId, Value, Word};

/// One CPU of an explored system. Each task has a CPU of its own, with its number.
pub struct Cpu {
    pub(super) task: TaskId,
    pub(super) machine: Rc<Machine>,
    pub(super) switch: Rc<Switch>,
    pub(super) reader: Reader,
    /// This task was chosen while it did not stand before an access: the next is granted, unless
    /// another task became runnable since (`Machine::arrivals`).
    pub(super) grant: Cell<u64>,
    /// An operation has begun, and nothing of it was seen yet.
    pub(super) has_begun: Cell<bool>,
    pub(super) function: Cell<&'static str>,
}

/// No access is granted.
pub(super) const NO_GRANT: u64 = u64::MAX;

/// The CPUs of a set, for timelines.
pub(super) fn cpus_of(set: TaskSet) -> String {
    let cpus: Vec<_> = tasks_of(set).map(|cpu| cpu.to_string()).collect();
    match cpus.len() {
        0 => "no CPU".to_owned(),
        1 => format!("CPU {}", cpus[0]),
        _ => format!("CPUs {}", cpus.join(", ")),
    }
}

/// What a finding at rest unwinds with.
pub(super) struct AtRest(pub(super) Finding);

/// A word's number: the bytes before it, all lines laid out one after another.
pub(super) type Site = u64;

/// The line of a word, and its bytes into it.
fn place(site: Site) -> (Line, u32) {
    let bytes = u64::from(Line::BYTES);
    (Line((site / bytes) as u32), (site % bytes) as u32)
}

pub(super) fn is_free(site: Site) -> bool {
    site < u64::from(Line::BYTES)
}

/// Words are told apart by where they are in the host, for two may share a place in the kernel.
pub(super) fn address(word: &Word<Cpu>) -> usize {
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
    pub(super) fn is_live(&self) -> bool {
        !self.switch.is_cut() && !std::thread::panicking()
    }

    /// What comes before an access; false: the access must have no effect. `writes` is asked once
    /// the task goes on.
    #[inline(always)]
    pub(super) fn before_access(&self, word: &Word<Self>, writes: impl Fn() -> bool) -> bool {
        let site = word.site();
        if is_free(site) {
            // What tasks of the program tell each other orders all that they do.
            self.fence(Fence::Full);
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
    pub(super) fn touch(&self, word: &Word<Self>, writes: bool) {
        if self.machine.notes() && !is_free(word.site()) {
            self.machine.dpor.borrow_mut().races.touch(word.site(), writes);
        }
    }

    /// Interrupts these CPUs; returns when each that has interrupts off has them on again.
    pub(super) fn interrupt(&self, is_target: impl Fn(CpuId) -> bool) {
        let targets = (0..self.machine.nr_tasks).filter(|&cpu| is_target(cpu));
        let set = targets.fold(0, |set, target| set | bit(target)) & !bit(self.task);
        for target in tasks_of(set) {
            self.machine.touch(Thing::Interrupts(target), true);
        }
        let waits_for = set & self.machine.irqs_off.get();
        // Whoever is interrupted, or waited for, has done all that came before.
        self.full_fences_of(set | bit(self.task));
        self.event(|| format!("interrupts {}", cpus_of(set)));
        if waits_for != 0 {
            self.block(Wait::Interrupt(waits_for), None);
            self.full_fences_of(waits_for | bit(self.task));
        }
    }

    /// An operation begins; the schedule may end instead.
    pub(super) fn count_operation(&self) {
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
    pub(super) fn choice_before_next(&self, decide: impl FnOnce(&Machine) -> TaskId) {
        if self.machine.phase.get() != Phase::AtRest {
            self.choice_by(decide);
            self.grant.set(self.machine.arrivals());
        }
    }

    /// Waits, and returns when this task goes on.
    pub(super) fn block(&self, wait: Wait, word: Option<&Word<Self>>) {
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
    pub(super) fn after_write(&self, word: &Word<Self>, before: u64, after: u64) {
        self.machine.written(address(word), before, after);
    }

    #[inline(always)]
    pub(super) fn record(&self, access: Access, word: &Word<Self>, before: u64, after: u64) {
        if self.is_recording() && !is_free(word.site()) {
            self.push_access(access, word.site(), before, after);
        }
    }

    /// Only what happens when two tasks can run is worth telling.
    #[inline(always)]
    pub(super) fn is_recording(&self) -> bool {
        self.machine.is_recording.get()
            && (self.machine.is_concurrent()
                || self.machine.records_all.get()
                || self.machine.explainer.is_on())
    }

    #[inline(always)]
    pub(super) fn event(&self, what: impl FnOnce() -> String) {
        self.record_event(Access::Event, what);
    }

    #[inline(always)]
    pub(super) fn record_event(&self, kind: Access, what: impl FnOnce() -> String) {
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

    pub(super) fn name_of(&self, site: Site) -> String {
        let (line, offset) = place(site);
        match &self.machine.lines {
            Some(lines) => lines.name_of(line, offset),
            None => format!("line {} +{offset:#x}", line.0),
        }
    }

    /// A read section begins: a choice now, and none before its first access.
    pub(super) fn begin_section(&self) {
        self.choice_before_next(|machine| machine.decide(self.task));
        self.machine.touch(Thing::Sections, false);
    }

    pub(super) fn end_section(&self) {
        if self.machine.grace.leave(&self.reader) {
            self.machine.touch(Thing::Sections, false);
            self.machine.look_for_callbacks();
        }
    }

    pub(super) fn irqs_are_off(&self) -> bool {
        self.machine.irqs_off.get() & bit(self.task) != 0
    }
}
