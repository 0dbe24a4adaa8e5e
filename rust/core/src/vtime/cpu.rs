//! `vtime::Cpu`: a CPU whose every access takes time.

use std::cell::Cell;
use std::rc::Rc;

use super::access::{Kind, Site};
use super::queue::MAX_NS;
use super::task::Task;
use super::world::{Irqs, World};
use crate::events::{Cost, Event, Span};
use crate::platform::grace::Reader;
use crate::platform::{CpuId, Fence, Finding, Line, Ordering, Platform, RcuCallback, TaskId, Word};

/// A task on its CPU.
pub struct Cpu {
    pub(super) task: TaskId,
    pub(super) id: CpuId,
    pub(super) world: Rc<World>,
    pub(super) this: Rc<Task>,
    reader: Reader,
    /// The task's clock while it has control; `world` has it otherwise.
    pub(super) clock: Cell<u64>,
    /// A line that can be read without leaving the cache, and that nobody watches, until control is
    /// given away; `NO_LINE`: none is known.
    pub(super) at_hand: Cell<u32>,
    /// The task went on when the word at this address changed, and has so many accesses for its
    /// turn; then the next who waits may go on.
    pub(super) turn: Cell<Option<(usize, u32)>>,
}

/// No word is in this line.
pub(super) const NO_LINE: u32 = u32::MAX;

const TOO_LATE: &str =
    "virtual time: beyond 2^46 ns (allowed: all that a task does and waits for up to there)";

pub(super) fn address(word: &Word<Cpu>) -> usize {
    std::ptr::from_ref(word) as usize
}

impl Cpu {
    /// The CPU of a task of `world`; `this` is where what the task does is told.
    pub(super) fn new(task: TaskId, world: &Rc<World>, this: &Rc<Task>) -> Self {
        Self {
            task,
            id: world.cpu_of(task),
            world: Rc::clone(world),
            this: Rc::clone(this),
            reader: Reader::default(),
            clock: Cell::new(0),
            at_hand: Cell::new(NO_LINE),
            turn: Cell::new(None),
        }
    }

    /// What comes after a store to a watched line: whoever spins on the word sees it.
    #[cold]
    pub(super) fn stored(&self, word: &Word<Self>) {
        self.world.stored(address(word), word.peek(), self.clock.get());
    }
}

impl Platform for Cpu {
    type Site = Site;
    const CHECKS_EVERY_ACCESS: bool = false;
    const MUTABLE: bool = false;
    const KEEPS_LISTS: bool = true;

    fn site(line: Line, offset: u32) -> Self::Site {
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

    // What follows is called from everywhere: as calls, which keep the rest small enough for the
    // host's instruction cache, whose misses were what most of a run took.
    #[inline(never)]
    fn load(&self, word: &Word<Self>, _order: Ordering) -> u64 {
        if self.hits_at_hand(word) || self.hits(word, Kind::Load) {
            word.peek()
        } else {
            self.load_slowly(word)
        }
    }
    #[inline(never)]
    fn store(&self, word: &Word<Self>, value: u64, _order: Ordering) {
        if self.hits(word, Kind::Store) {
            word.poke(value);
        } else {
            self.store_slowly(word, value);
        }
    }
    #[inline(never)]
    fn swap(&self, word: &Word<Self>, value: u64, _order: Ordering) -> u64 {
        let watched = self.access(word, Kind::Atomic);
        let old = word.peek();
        word.poke(value);
        if watched {
            self.stored(word);
        }
        old
    }
    #[inline(never)]
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
    #[inline(never)]
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
        loop {
            // Who had its turn and lost to one that does not wait is the first again.
            let again = self.turn.get().is_some_and(|(at, _)| at == address(word));
            let value = self.load(word, Ordering::Acquire);
            if done(value) || !self.counts() {
                return value;
            }
            self.spin(word, value, &done, again);
        }
    }

    fn has_waiters(&self, word: &Word<Self>) -> bool {
        if !self.counts() {
            return false;
        }
        // Who came before waits by now.
        if self.clock.get() >= self.world.limit.get() {
            self.sync();
        }
        self.world.has_waiters(address(word), word.site().line)
    }
    fn spin_behind_others(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) {
        self.load(word, Ordering::Relaxed);
        // They may be gone now.
        if self.has_waiters(word) {
            self.spin(word, word.peek(), &done, false);
        }
    }

    fn sleep_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        loop {
            let value = self.load(word, Ordering::Acquire);
            if done(value) || !self.counts() {
                return value;
            }
            self.end_turn();
            self.this.clock.set(self.clock.get());
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
        while self.load(word, Ordering::Relaxed) == value
            && self.counts()
            && self.world.is_on_cpu(owner, self.clock.get())
        {
            self.world.spin_while_runs(self.task, owner);
            self.spin(word, value, &|now| now != value, false);
            self.world.spins_no_more(self.task, owner);
        }
    }

    fn on_cpu(&self, task: TaskId) -> bool {
        self.world.is_on_cpu(task, self.clock.get())
    }

    #[inline(always)]
    fn rcu_read_lock(&self) {
        self.world.grace.enter(&self.reader);
    }
    #[inline(always)]
    fn rcu_read_unlock(&self) {
        if !self.this.switch.is_cut() {
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
        self.world.cpus[self.id as usize].irqs.set(Irqs::Off);
        self.rcu_read_lock();
    }
    #[inline(always)]
    fn local_irq_enable(&self) {
        self.rcu_read_unlock();
        self.world.irqs_on(self.id, self.clock.get());
    }

    fn ipi(&self, is_target: impl Fn(CpuId) -> bool) {
        self.interrupt_others(false, is_target);
    }

    #[inline(always)]
    fn begin_user_access(&self) {
        self.local_irq_disable();
        self.world.cpus[self.id as usize].irqs.set(Irqs::UserAccess);
    }
    fn flush_others(&self, freed_tables: bool, is_target: impl Fn(CpuId) -> bool) {
        if !self.world.machine.broadcast_flush {
            self.interrupt_others(self.world.lazy_tlb && !freed_tables, is_target);
        } else if self.counts() {
            self.broadcast_flush(is_target);
        }
    }

    #[inline(always)]
    fn charge(&self, cost: Cost, times: u64) {
        // Where nothing counts, nobody looks at the clock.
        let ns = self.world.machine.cost(cost) * times;
        self.advance(ns);
        if matches!(cost, Cost::ClearPage | Cost::CopyPage) && self.world.records {
            let name = if cost == Cost::ClearPage { "clear_page" } else { "copy_page" };
            self.record(|recorder, at| recorder.did(at, name, ns));
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
            self.work(ns);
            return;
        }
        self.this.clock.set(self.clock.get());
        self.world.pause(self.task, self.clock.get() + ns);
        self.give_control_away();
        if self.world.after_pause(self.task) {
            self.give_control_away();
        }
        self.take_clock();
    }
    fn wait_for_io(&self, costs: &[(Cost, u64)]) {
        let ns = costs.iter().map(|&(cost, times)| self.world.machine.cost(cost) * times).sum();
        if ns != 0 {
            self.pass_ns(ns, false);
        }
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
        if self.world.records {
            self.record(|recorder, at| recorder.enter(at, span));
        }
    }
    #[inline(always)]
    fn leave(&self, how: &'static str) {
        if self.world.records {
            self.record(|recorder, at| recorder.leave(at, how));
        }
    }
    fn writes_vma(&self, vm_sequence: &Word<Self>, vm_start: u64) {
        if self.world.records {
            self.record(|recorder, at| recorder.writes_vma(at, vm_sequence.site(), vm_start));
        }
    }
    fn gives_up(&self, event: Event, vm_sequence: &Word<Self>, vm_start: u64) {
        if self.world.records {
            let (site, sequence) = (vm_sequence.site(), vm_sequence.peek());
            self.record(|recorder, at| recorder.gives_up(at, event, site, sequence, vm_start));
        }
    }
    #[inline(always)]
    fn acquired(&self, lock: &Word<Self>) {
        if self.world.records {
            self.record(|recorder, at| recorder.acquired(at.task, lock.site()));
        }
    }
    fn waits_for(&self, lock: Option<&Word<Self>>) {
        if self.world.records {
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
            if self.clock.get() > MAX_NS {
                self.world.watch.refuse(TOO_LATE.into());
            }
            if self.world.yields_slice(self.task, self.clock.get()) {
                self.end_turn();
                self.suspend();
            }
        }
        true
    }

    fn is_cut(&self) -> bool {
        self.this.switch.is_cut() || std::thread::panicking()
    }

    #[cold]
    fn finding(&self, invariant: &'static str, what: String) -> ! {
        self.world.report(Finding { invariant, what });
        self.unwind()
    }
}
