//! OS threads: `std` atomics, `crossbeam-epoch` as RCU.
//!
//! Every task has a thread and a CPU of its own, so that what belongs to a CPU has one user. An
//! access is one machine instruction; nothing is recorded. A broken invariant ends the thread by
//! unwinding, and then all others where they next wait or end an operation.

mod activity;
mod machine;
mod pin;
mod sleep;

pub use machine::{Machine, catch};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Std, fence};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use self::activity::Activity;
use self::machine::Stopped;
use self::pin::KeptPin;
use super::{CpuId, Fence, Finding, Line, Ordering, Platform, RcuCallback, TaskId, Word};

/// Turns of a busy loop before the thread gives up its core.
const SPINS: u32 = 64;
/// Turns in which a CPU that is about to wait does.
const IDLE_TURNS: u32 = SPINS + 256;
/// Turns in which grace periods come to their end, if nobody is held up.
const EXPEDITE_TURNS: u32 = 4096;
/// Turns before the owner of a semaphore counts as not running.
const OWNER_SPINS: u32 = 512;

/// A CPU of a [`Machine`]: made and used on one thread.
pub struct Cpu {
    id: CpuId,
    task: TaskId,
    /// This CPU's word of `machine.interrupts`.
    interrupts: Arc<CachePadded<AtomicU64>>,
    readers: KeptPin,
    machine: Arc<Machine>,
}

impl Cpu {
    pub(super) fn new(machine: &Arc<Machine>, id: CpuId, task: TaskId) -> Self {
        let cpu = Self {
            id,
            task,
            interrupts: Arc::clone(&machine.interrupts[id as usize]),
            readers: KeptPin::new(&machine.collector),
            machine: Arc::clone(machine),
        };
        cpu.works_again();
        cpu
    }

    /// The machine that this is a CPU of.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// `rcu_barrier()`: waits until every callback queued so far is ready, or the run has ended.
    /// Caller is in no RCU read section, and the machine's other CPUs are gone or asleep.
    pub fn rcu_barrier(&self) {
        let mut turns = 0;
        while self.machine.callbacks.outstanding() && !self.machine.is_stopped() {
            self.readers.flush();
            self.relax(&mut turns);
        }
    }

    /// One turn of a busy loop.
    #[inline]
    fn relax(&self, turns: &mut u32) {
        *turns += 1;
        if *turns < SPINS {
            std::hint::spin_loop();
        } else {
            self.readers.unpin();
            self.unwind_if_stopped();
            std::thread::yield_now();
        }
    }

    fn unwind_if_stopped(&self) {
        // A thread that unwinds already gives its locks up, at most.
        if self.machine.is_stopped() && !std::thread::panicking() {
            std::panic::resume_unwind(Box::new(Stopped));
        }
    }

    /// This CPU's word of `machine.activity`.
    #[inline]
    fn activity(&self) -> &Activity {
        &self.machine.activity[self.id as usize]
    }

    /// Busy for `ns`, as with `--pace`.
    fn spin_for(&self, ns: u64) {
        let end = self.now_ns().saturating_add(ns);
        while self.now_ns() < end && !self.machine.is_stopped() {
            std::hint::spin_loop();
        }
    }

    /// Next value of this CPU's interrupt sequence: odd while interrupts are off.
    #[inline(always)]
    fn next_irq_sequence(&self, order: Std) {
        // Relaxed: only this CPU stores here.
        let sequence = self.interrupts.load(Std::Relaxed);
        self.interrupts.store(sequence + 1, order);
    }

    #[inline(always)]
    fn has_interrupts_off(&self) -> bool {
        self.interrupts.load(Std::Relaxed) % 2 == 1
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        // Only a thread that unwinds can be here with interrupts off.
        if self.has_interrupts_off() {
            self.next_irq_sequence(Std::Release);
        }
        self.goes_idle();
    }
}

fn load_order(order: Ordering) -> Std {
    match order {
        Ordering::Relaxed => Std::Relaxed,
        // Rust has no consume; acquire is what it is promoted to.
        Ordering::Consume | Ordering::Acquire => Std::Acquire,
        Ordering::SeqCst => Std::SeqCst,
        Ordering::Release | Ordering::AcqRel => panic!("a load that releases"),
    }
}

fn store_order(order: Ordering) -> Std {
    match order {
        Ordering::Relaxed => Std::Relaxed,
        Ordering::Release => Std::Release,
        Ordering::SeqCst => Std::SeqCst,
        Ordering::Consume | Ordering::Acquire | Ordering::AcqRel => panic!("a store that acquires"),
    }
}

fn rmw_order(order: Ordering) -> Std {
    match order {
        Ordering::Relaxed => Std::Relaxed,
        Ordering::Consume | Ordering::Acquire => Std::Acquire,
        Ordering::Release => Std::Release,
        Ordering::AcqRel => Std::AcqRel,
        Ordering::SeqCst => Std::SeqCst,
    }
}

/// What a compare-exchange that fails orders.
fn failure_order(order: Ordering) -> Std {
    match order {
        Ordering::Relaxed | Ordering::Release => Std::Relaxed,
        Ordering::Consume | Ordering::Acquire | Ordering::AcqRel => Std::Acquire,
        Ordering::SeqCst => Std::SeqCst,
    }
}

impl Platform for Cpu {
    type Site = ();
    const CHECKS_EVERY_ACCESS: bool = false;
    const MUTABLE: bool = false;
    const KEEPS_LISTS: bool = false;

    fn site(_line: Line, _offset: u32) -> Self::Site {}

    #[inline(always)]
    fn id(&self) -> CpuId {
        self.id
    }
    #[inline(always)]
    fn task(&self) -> TaskId {
        self.task
    }

    #[inline(always)]
    fn load(&self, word: &Word<Self>, order: Ordering) -> u64 {
        word.value.load(load_order(order))
    }
    #[inline(always)]
    fn store(&self, word: &Word<Self>, value: u64, order: Ordering) {
        word.value.store(value, store_order(order));
    }
    #[inline(always)]
    fn swap(&self, word: &Word<Self>, value: u64, order: Ordering) -> u64 {
        word.value.swap(value, rmw_order(order))
    }
    #[inline(always)]
    fn compare_exchange(
        &self,
        word: &Word<Self>,
        expect: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        word.value.compare_exchange(expect, new, rmw_order(order), failure_order(order))
    }
    #[inline(always)]
    fn fetch_add(&self, word: &Word<Self>, add: u64, order: Ordering) -> u64 {
        word.value.fetch_add(add, rmw_order(order))
    }
    #[inline(always)]
    fn fence(&self, which: Fence) {
        match which {
            Fence::Read => fence(Std::Acquire),
            Fence::Write => fence(Std::Release),
            Fence::Full => fence(Std::SeqCst),
        }
    }

    #[inline]
    fn spin_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        let mut turns = 0;
        loop {
            let value = word.value.load(Std::Acquire);
            if done(value) {
                return value;
            }
            self.relax(&mut turns);
        }
    }

    fn sleep_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        for _ in 0..SPINS {
            let value = word.value.load(Std::Acquire);
            if done(value) {
                return value;
            }
            std::hint::spin_loop();
        }
        self.goes_idle();
        let value = self.machine.sleepers.sleep_until(&word.value, done, &self.machine);
        self.works_again();
        value.unwrap_or_else(|| std::panic::resume_unwind(Box::new(Stopped)))
    }

    fn wake(&self, word: &Word<Self>) {
        self.machine.sleepers.wake(&word.value);
    }

    fn spin_on_owner(&self, word: &Word<Self>, value: u64, _owner: TaskId) {
        for _ in 0..OWNER_SPINS {
            if word.value.load(Std::Acquire) != value {
                return;
            }
            std::hint::spin_loop();
        }
    }

    #[inline(always)]
    fn rcu_read_lock(&self) {
        self.readers.enter();
    }
    #[inline(always)]
    fn rcu_read_unlock(&self) {
        self.readers.leave();
    }

    fn call_rcu(&self, callback: RcuCallback) {
        let callbacks = Arc::clone(&self.machine.callbacks);
        callbacks.begin();
        self.readers.defer(move || callbacks.end(callback));
    }
    fn after_readers(&self, then: impl FnOnce() + Send + 'static) {
        self.readers.defer(then);
    }
    #[inline]
    fn rcu_ready(&self) -> Option<RcuCallback> {
        self.machine.callbacks.ready()
    }
    fn expedite_rcu(&self) {
        let mut turns = 0;
        // Another task may be in a section for as long as its thread has no core.
        while self.machine.callbacks.outstanding() && turns < EXPEDITE_TURNS {
            self.readers.flush();
            self.relax(&mut turns);
        }
    }

    #[inline(always)]
    fn local_irq_disable(&self) {
        debug_assert!(!self.has_interrupts_off(), "irq-off sections do not nest");
        self.readers.enter();
        // Relaxed, but before a full fence: either `ipi` sees the odd sequence, or what follows
        // here sees what was stored before that `ipi`. Pairs with its fence.
        self.next_irq_sequence(Std::Relaxed);
        fence(Std::SeqCst);
    }
    #[inline(always)]
    fn local_irq_enable(&self) {
        debug_assert!(self.has_interrupts_off(), "interrupts are on already");
        // Release: what was done in the section happens before `ipi` returns; pairs with its
        // Acquire.
        self.next_irq_sequence(Std::Release);
        self.readers.leave();
    }
    fn ipi(&self, is_target: impl Fn(CpuId) -> bool) {
        debug_assert!(!self.has_interrupts_off(), "an IPI with interrupts off");
        // Pairs with the fence in `local_irq_disable`.
        fence(Std::SeqCst);
        for (target, interrupts) in self.machine.interrupts.iter().enumerate() {
            if target == self.id as usize || !is_target(target as CpuId) {
                continue;
            }
            // Acquire: pairs with the Release in `local_irq_enable`.
            let seen = interrupts.load(Std::Acquire);
            let mut turns = 0;
            while seen % 2 == 1 && interrupts.load(Std::Acquire) == seen {
                self.relax(&mut turns);
            }
        }
    }
    fn while_idle(&self, cpu: CpuId, then: impl FnOnce()) {
        let activity = &self.machine.activity[cpu as usize];
        let mut turns = 0;
        let kept = loop {
            match activity.keep_idle() {
                Some(kept) => break kept,
                None if turns == IDLE_TURNS => return,
                None => self.relax(&mut turns),
            }
        };
        then();
        drop(kept);
    }
    fn goes_idle(&self) {
        // Nobody shall wait for the grace periods of one who waits, nor for a pin.
        self.readers.hand_on();
        self.activity().ends();
    }
    fn works_again(&self) {
        let mut turns = 0;
        while !self.activity().begins() {
            self.relax(&mut turns);
        }
    }

    fn pass_ns(&self, ns: u64, on_cpu: bool) {
        if !self.machine.paced() {
            return;
        }
        self.readers.unpin();
        if on_cpu {
            self.spin_for(ns);
        } else {
            self.machine.sleep_unless_stopped(Duration::from_nanos(ns));
        }
    }
    #[inline]
    fn now_ns(&self) -> u64 {
        self.machine.now_ns()
    }
    fn moment(&self) -> u64 {
        self.machine.moment()
    }
    #[inline(always)]
    fn fatal_signal_pending(&self) -> bool {
        self.machine.is_stopped()
    }
    #[inline(always)]
    fn operation_boundary(&self) -> bool {
        self.readers.repin();
        !self.machine.is_stopped()
    }

    #[cold]
    fn finding(&self, invariant: &'static str, what: String) -> ! {
        self.machine.report(Finding { invariant, what });
        std::panic::resume_unwind(Box::new(Stopped))
    }
}

#[cfg(test)]
#[path = "../../tests/unit/platform/native.rs"]
mod tests;
