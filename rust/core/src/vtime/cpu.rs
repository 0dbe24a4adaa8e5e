//! `vtime::Cpu`: a CPU whose every access takes time.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;

use super::line_queue::Asked;
use super::queue::MAX_NS;
use super::recorder::Recorder;
use super::spans::Moment;
use super::world::{State, World};
use crate::events::{Cost, Event, Span};
use crate::platform::coroutine::Switch;
use crate::platform::grace::Reader;
use crate::platform::{CpuId, Fence, Finding, Line, Ordering, Platform, RcuCallback, TaskId, Word};

/// Where a word is: its line, and how many bytes from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    pub(super) line: u32,
    pub(super) offset: u32,
}

/// A task on its CPU.
pub struct Cpu {
    task: TaskId,
    id: CpuId,
    world: Rc<World>,
    switch: Rc<Switch>,
    reader: Reader,
    /// The task's clock while it has control; `world` has it otherwise.
    clock: Cell<u64>,
    /// The task went on when the word at this address changed, and has so many accesses for its
    /// turn; then the next who waits may go on.
    turn: Cell<Option<(usize, u32)>>,
    /// The world's recorder is on.
    records: bool,
}

/// What a turn is: the look at the word after the wait was one; taking the lock is another.
const TURN_ACCESSES: u32 = 2;

const TOO_LATE: &str =
    "virtual time: beyond 2^46 ns (allowed: compute and sleep up to there in all)";

/// What a run that was ended unwinds with.
pub(super) struct Stopped;

/// What an access does to its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Load,
    Store,
    /// A locked read-modify-write.
    Atomic,
}

fn address(word: &Word<Cpu>) -> usize {
    std::ptr::from_ref(word) as usize
}

impl Cpu {
    pub(super) fn new(task: TaskId, world: &Rc<World>, switch: &Rc<Switch>) -> Self {
        Self {
            task,
            id: world.cpu_of(task),
            world: Rc::clone(world),
            switch: Rc::clone(switch),
            reader: Reader::default(),
            clock: Cell::new(0),
            turn: Cell::new(None),
            records: world.recorder.is_on(),
        }
    }

    /// Lets the recorder write something down; the caller has looked whether there is any need to.
    #[cold]
    #[inline(never)]
    fn record(&self, write: impl FnOnce(&Recorder, Moment)) {
        if !self.world.at_rest.get() {
            let now = Moment { cpu: self.id, task: self.task, now: self.clock.get() };
            write(&self.world.recorder, now);
        }
    }

    /// Waits for a change of `word`, in `suspended`.
    fn wait(&self, word: &Word<Self>, suspended: impl FnOnce()) {
        if !self.records {
            return suspended();
        }
        let (begin, mut lock) = (self.clock.get(), None);
        self.record(|recorder, at| lock = recorder.begin_wait(at, word.site()));
        suspended();
        if let Some(lock) = lock {
            self.record(|recorder, at| recorder.end_wait(at, lock, at.now - begin));
        }
    }

    /// Whether accesses count: not before the first task, nor while a stack is unwound.
    #[inline(always)]
    fn counts(&self) -> bool {
        !self.world.at_rest.get() && !self.switch.is_cut() && !std::thread::panicking()
    }

    #[inline(always)]
    fn advance(&self, ns: u64) {
        self.clock.set(self.clock.get() + ns);
    }

    /// Gives control away; the clock may have moved when it is back.
    fn suspend(&self) {
        self.world.task(self.task).clock.set(self.clock.get());
        self.suspend_asleep();
    }

    /// As `suspend`, when the clock was handed over before and may have been moved since.
    fn suspend_asleep(&self) {
        self.give_control_away();
        self.take_clock();
    }

    /// Whoever is first goes on.
    fn give_control_away(&self) {
        match self.world.queue.pop() {
            Some(next) if next == self.task => {}
            Some(next) => self.switch.hand_over(&self.world.task(next).switch),
            None => self.switch.suspend(),
        }
    }

    /// After a suspension: the clock, and what interrupts took meanwhile. Whether they took any.
    #[inline(always)]
    pub(super) fn take_clock(&self) -> bool {
        let this = self.world.task(self.task);
        let stolen = this.stolen_ns.take();
        self.clock.set(this.clock.get() + stolen);
        if stolen != 0 && self.records {
            self.record(|recorder, at| recorder.did(at, "flush_tlb_func", stolen));
        }
        if self.turn.get().is_none() {
            self.world.set_limit();
        } else {
            self.world.limit.set(0);
        }
        stolen != 0
    }

    /// Waits until no other task is behind this one by more than `slack`.
    #[inline(always)]
    fn sync(&self, slack: u64) {
        let world = &*self.world;
        while !world.is_first(self.task, self.clock.get().saturating_sub(slack)) {
            let next = world.queue_behind_first(self.task, self.clock.get());
            self.switch.hand_over(&world.task(next).switch);
            // It has control, so it is first, unless that moved its clock.
            if !self.take_clock() {
                return;
            }
        }
    }

    /// What comes before an access: the line is brought here, and the clock pays for it. Whether
    /// somebody spins on a word of the line.
    #[inline(always)]
    fn access(&self, word: &Word<Self>, kind: Kind) -> bool {
        let world = &*self.world;
        let site = word.site();
        let atomic_ns = if kind == Kind::Atomic { world.machine.atomic_ns } else { 0 };
        let clock = self.clock.get() + atomic_ns;
        if clock < world.limit.get()
            && world.lines.hits_unwatched(site.line, self.id, kind != Kind::Load)
        {
            self.clock.set(clock + world.machine.line_ns[0]);
            return false;
        }
        self.access_slowly(site, kind)
    }

    /// Counts an access of the turn, if the task has one. Whether it has none.
    #[inline(always)]
    fn in_no_turn(&self) -> bool {
        match self.turn.get() {
            None => return true,
            Some((_, 0)) => self.end_turn(),
            Some((address, left)) => self.turn.set(Some((address, left - 1))),
        }
        false
    }

    /// Whoever waits for the same word may go on now.
    fn end_turn(&self) {
        if let Some((address, _)) = self.turn.take() {
            self.world.set_limit();
            self.world.pass_on(address, self.clock.get());
        }
    }

    /// An access that others must not see too early, or that is of no line, or before which there
    /// is something to do: they go first, or the line has to come.
    #[inline(never)]
    fn access_slowly(&self, site: Site, kind: Kind) -> bool {
        let (world, line) = (&*self.world, site.line);
        let is_free = line == Line::FREE.0;
        if !self.counts() {
            return is_free;
        }
        let in_no_turn = self.in_no_turn();
        if is_free {
            // What one task of the program tells another is still told in order of time.
            self.sync(0);
            return true;
        }
        if kind == Kind::Atomic {
            self.advance(world.machine.atomic_ns);
        }
        if !in_no_turn || self.clock.get() >= world.limit.get() {
            self.sync(world.slack_ns);
        }
        let writes = kind != Kind::Load;
        if let Some(watched) = world.lines.hit(line, self.id, writes) {
            self.advance(world.machine.line_ns[0]);
            return watched;
        }
        // Strict order among those who leave their cache.
        self.sync(0);
        // Meanwhile another task of this CPU may have brought the line.
        if let Some(watched) = world.lines.hit(line, self.id, writes) {
            self.advance(world.machine.line_ns[0]);
            return watched;
        }
        let asked = self.clock.get();
        match world.lines.ask(line, self.task, self.id, writes, asked) {
            Asked::Has(at) => self.clock.set(at),
            Asked::Waits(when) => self.wait_for_line(line, when),
        }
        if self.records {
            let ns = (self.clock.get() - asked).saturating_sub(world.machine.line_ns[0]);
            self.record(|recorder, _| recorder.fetched(site, ns));
        }
        world.lines.is_watched(line)
    }

    /// Waits until the line is here; the first who waits also decides who gets it.
    #[inline(never)]
    fn wait_for_line(&self, line: u32, when: Option<u64>) {
        self.world.wait_for_line(self.task, line, when);
        loop {
            self.give_control_away();
            let is_waiting = self.world.task(self.task).state.get() == State::WaitsForLine(line);
            if !is_waiting || !self.counts() || self.world.serve_line(self.task, line) {
                break;
            }
        }
        self.take_clock();
    }

    /// The task has ended.
    pub(super) fn end(&self) {
        self.end_turn();
        self.world.task(self.task).clock.set(self.clock.get());
        self.world.end(self.task);
    }

    fn begin_turn(&self, word: &Word<Self>) {
        self.turn.set(Some((address(word), TURN_ACCESSES)));
        self.world.limit.set(0);
    }

    /// What comes after a store to a watched line: whoever spins on the word sees it.
    #[cold]
    fn stored(&self, word: &Word<Self>) {
        self.world.stored(address(word), word.peek(), self.clock.get());
    }

    /// Ends the run from inside a coroutine.
    fn unwind(&self) -> ! {
        resume_unwind(Box::new(Stopped))
    }
}

impl Platform for Cpu {
    type Site = Site;
    const CHECKS_EVERY_ACCESS: bool = false;
    const MUTABLE: bool = false;

    fn site(line: Line, offset: u32) -> Self::Site {
        if line == Line::FREE {
            return Site { line: Line::FREE.0, offset: 0 };
        }
        Site { line: line.0 + offset / Line::BYTES, offset: offset % Line::BYTES }
    }

    #[inline(always)]
    fn id(&self) -> CpuId {
        self.id
    }
    #[inline(always)]
    fn task(&self) -> TaskId {
        self.task
    }

    #[inline(always)]
    fn load(&self, word: &Word<Self>, _order: Ordering) -> u64 {
        self.access(word, Kind::Load);
        word.peek()
    }
    #[inline(always)]
    fn store(&self, word: &Word<Self>, value: u64, _order: Ordering) {
        let watched = self.access(word, Kind::Store);
        word.poke(value);
        if watched {
            self.stored(word);
        }
    }
    #[inline(always)]
    fn swap(&self, word: &Word<Self>, value: u64, _order: Ordering) -> u64 {
        let watched = self.access(word, Kind::Atomic);
        let old = word.peek();
        word.poke(value);
        if watched {
            self.stored(word);
        }
        old
    }
    #[inline(always)]
    fn compare_exchange(
        &self,
        word: &Word<Self>,
        expect: u64,
        new: u64,
        _order: Ordering,
    ) -> Result<u64, u64> {
        // A failed one takes the line all the same.
        let watched = self.access(word, Kind::Atomic);
        let old = word.peek();
        if old != expect {
            return Err(old);
        }
        word.poke(new);
        if watched {
            self.stored(word);
        }
        Ok(old)
    }
    #[inline(always)]
    fn fetch_add(&self, word: &Word<Self>, add: u64, _order: Ordering) -> u64 {
        let watched = self.access(word, Kind::Atomic);
        let old = word.peek();
        word.poke(old.wrapping_add(add));
        if watched {
            self.stored(word);
        }
        old
    }
    /// One order of all accesses: nothing to add.
    #[inline(always)]
    fn fence(&self, _fence: Fence) {}

    fn spin_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        let condition = &self.world.task(self.task).condition;
        loop {
            let value = self.load(word, Ordering::Acquire);
            if done(value) || !self.counts() {
                return value;
            }
            self.end_turn();
            condition.during(&done, || {
                self.world.spin(self.task, address(word), word.site().line, value);
                self.wait(word, || self.suspend());
            });
            self.begin_turn(word);
        }
    }

    fn sleep_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        loop {
            let value = self.load(word, Ordering::Acquire);
            if done(value) || !self.counts() {
                return value;
            }
            self.end_turn();
            self.world.task(self.task).clock.set(self.clock.get());
            self.wait(word, || {
                self.world.sleep(self.task, address(word));
                self.suspend_asleep();
            });
        }
    }

    fn wake(&self, word: &Word<Self>) {
        if self.counts() {
            let woken = self.world.wake(address(word), self.clock.get());
            self.advance(woken * self.world.machine.waker_ns);
        }
    }

    fn spin_on_owner(&self, word: &Word<Self>, value: u64, owner: TaskId) {
        let condition = &self.world.task(self.task).condition;
        while self.load(word, Ordering::Relaxed) == value
            && self.counts()
            && self.world.is_on_cpu(owner)
        {
            self.end_turn();
            condition.during(&|now| now != value, || {
                self.world.spin(self.task, address(word), word.site().line, value);
                self.world.spin_while_runs(self.task, owner);
                self.wait(word, || self.suspend());
            });
            self.begin_turn(word);
        }
    }

    fn on_cpu(&self, task: TaskId) -> bool {
        self.world.is_on_cpu(task)
    }

    #[inline(always)]
    fn rcu_read_lock(&self) {
        self.world.grace.enter(&self.reader);
    }
    #[inline(always)]
    fn rcu_read_unlock(&self) {
        if !self.switch.is_cut() {
            self.world.grace.leave(&self.reader);
        }
    }
    fn call_rcu(&self, callback: RcuCallback) {
        self.world.call_rcu(callback);
    }
    fn after_readers(&self, then: impl FnOnce() + Send + 'static) {
        then();
    }
    fn while_idle(&self, _cpu: CpuId, then: impl FnOnce()) {
        // One CPU works at a time, and what belongs to it alone is never in between at an access.
        then();
    }
    fn rcu_ready(&self) -> Option<RcuCallback> {
        self.world.rcu_ready()
    }

    #[inline(always)]
    fn local_irq_disable(&self) {
        self.world.cpus[self.id as usize].irqs_off.set(true);
        self.rcu_read_lock();
    }
    #[inline(always)]
    fn local_irq_enable(&self) {
        self.rcu_read_unlock();
        self.world.irqs_on(self.id, self.clock.get());
    }

    fn ipi(&self, is_target: impl Fn(CpuId) -> bool) {
        if !self.counts() {
            return;
        }
        self.sync(0);
        let machine = &self.world.machine;
        if self.records {
            self.record(|recorder, at| recorder.begin(at, "flush_tlb_others", 0));
        }
        self.advance(machine.ipi_base_ns);
        let is_target = |&cpu: &CpuId| cpu != self.id && is_target(cpu);
        let targets: Vec<CpuId> = if self.world.lazy_tlb {
            self.world.busy_cpus().filter(is_target).collect()
        } else {
            (0..self.world.nr_cpus).filter(is_target).collect()
        };
        targets.iter().for_each(|&cpu| self.world.interrupt(cpu));
        self.advance(machine.ipi_target_ns * targets.len() as u64);
        // They answer side by side, each once its interrupts are on; a later section does not
        // hold back what was sent before it.
        self.world.task(self.task).clock.set(self.clock.get());
        if self.world.wait_for_irqs(self.task, &targets) {
            self.suspend();
        }
        if !targets.is_empty() {
            self.advance(machine.ipi_handler_ns);
        }
        self.leave("");
    }

    #[inline(always)]
    fn charge(&self, cost: Cost, times: u64) {
        if self.counts() {
            let ns = self.world.machine.cost(cost) * times;
            self.advance(ns);
            if matches!(cost, Cost::ClearPage | Cost::CopyPage) && self.records {
                let name = if cost == Cost::ClearPage { "clear_page" } else { "copy_page" };
                self.record(|recorder, at| recorder.did(at, name, ns));
            }
        }
    }
    fn pass_ns(&self, ns: u64, on_cpu: bool) {
        if !self.counts() {
            return;
        }
        self.end_turn();
        if ns > MAX_NS - self.clock.get().min(MAX_NS) {
            self.world.watch.refuse(TOO_LATE.into());
            return;
        }
        if on_cpu {
            self.advance(ns);
            return;
        }
        self.world.task(self.task).clock.set(self.clock.get());
        self.world.pause(self.task, self.clock.get() + ns);
        self.give_control_away();
        if self.world.after_pause(self.task) {
            self.give_control_away();
        }
        self.take_clock();
    }
    fn wait_for_io(&self, cost: Cost, times: u64) {
        self.pass_ns(self.world.machine.cost(cost) * times, false);
    }
    #[inline]
    fn now_ns(&self) -> u64 {
        self.clock.get()
    }
    fn fatal_signal_pending(&self) -> bool {
        self.world.watch.is_stopped()
    }

    #[inline(always)]
    fn enter(&self, span: Span) {
        if self.records {
            self.record(|recorder, at| recorder.enter(at, span));
        }
    }
    #[inline(always)]
    fn leave(&self, how: &'static str) {
        if self.records {
            self.record(|recorder, at| recorder.leave(at, how));
        }
    }
    fn writes_vma(&self, vm_sequence: &Word<Self>, vm_start: u64) {
        if self.records {
            self.record(|recorder, at| recorder.writes_vma(at, vm_sequence.site(), vm_start));
        }
    }
    fn gives_up(&self, event: Event, vm_sequence: &Word<Self>, vm_start: u64) {
        if self.records {
            let (site, sequence) = (vm_sequence.site(), vm_sequence.peek());
            self.record(|recorder, at| recorder.gives_up(at, event, site, sequence, vm_start));
        }
    }
    #[inline(always)]
    fn acquired(&self, lock: &Word<Self>) {
        if self.records {
            self.record(|recorder, at| recorder.acquired(at.task, lock.site()));
        }
    }
    fn waits_for(&self, lock: Option<&Word<Self>>) {
        if self.records {
            self.record(|recorder, at| recorder.waits_for(at.task, lock.map(Word::site)));
        }
    }

    fn operation_boundary(&self) -> bool {
        if self.world.watch.is_stopped() {
            self.world.stopped.set(true);
        }
        if self.world.stopped.get() {
            return false;
        }
        if self.counts() {
            // No operation is free, so that a loop of those that charge nothing ends.
            self.advance(1);
            if self.world.yields_slice(self.task, self.clock.get()) {
                self.suspend();
            }
        }
        true
    }

    fn is_cut(&self) -> bool {
        self.switch.is_cut() || std::thread::panicking()
    }

    #[cold]
    fn finding(&self, invariant: &'static str, what: String) -> ! {
        self.world.report(Finding { invariant, what });
        self.unwind()
    }
}
