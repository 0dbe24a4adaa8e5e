//! The contract between the protocol and what runs it.
//!
//! The fault path and the writers it races with are written once, over [`Platform`]. Three
//! platforms implement it: [`native`] (OS threads), [`crate::explore`] (chosen interleavings) and
//! [`crate::vtime`] (virtual time). `docs/platforms.md` says what each promises and cannot see.
//!
//! A `&P` is *the CPU that executes*, named `cpu`, and is the first argument of everything that
//! touches shared state. There are no thread-locals, no clocks and no randomness but through it.

pub mod arena;
pub(crate) mod cell_vec;
pub mod condition;
pub mod coroutine;
pub mod grace;
mod hazard;
mod injection;
mod mutant;
pub mod native;
pub mod object;
mod quiet;
mod slabs;
pub mod word;

pub use arena::{Arena, Lines, Object, Ptr, Ref};
pub use hazard::Hazard;
pub use mutant::Mutant;
pub use quiet::quietly;
pub use word::{Field, Line, Local, PaddedWord, Value, Word};

use crate::events::{Cost, Event, Span};

/// The number of a CPU, from 0.
pub type CpuId = u32;
/// The number of a task of the program, from 0.
pub type TaskId = u32;

/// Memory ordering of one access. `Consume` is a load whose value is dereferenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordering {
    Relaxed,
    Consume,
    Acquire,
    Release,
    AcqRel,
    SeqCst,
}

/// A stand-alone barrier of the kernel's memory model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// `smp_rmb()`
    Read,
    /// `smp_wmb()`
    Write,
    /// `smp_mb()`
    Full,
}

/// Why a platform stops a run: a broken invariant, found where it breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The invariant's name, as in `docs/protocol.md` (`use-after-free`, `lost-store`, …).
    pub invariant: &'static str,
    /// One sentence of what was seen.
    pub what: String,
}

/// See [`Platform::livelock_faults`].
pub const LIVELOCK_FAULTS: u32 = 1000;

/// One CPU of an emulated machine, as the protocol sees it.
///
/// Implementations: `native::Cpu`, `explore::Cpu`, `vtime::Cpu`. All operations on one word have
/// one total order; across words a platform shows only what the orderings given allow.
pub trait Platform: Sized + 'static {
    /// Where a word lives: nothing on native, a cache line in virtual time, a word number in
    /// explore.
    type Site: Copy + Send + Sync + 'static;
    /// Whether an access re-checks the generation of its object (explore), or only the creation
    /// of a [`Ref`] does.
    const CHECKS_EVERY_ACCESS: bool;
    /// Whether checks can be removed at run time. False folds [`Platform::mutant`] away.
    const MUTABLE: bool;
    /// Whether what only takes time is done, too: pages come to LRU lists, charges from stocks, that
    /// nothing else looks at, so that who needs their locks waits for them; and what is freed goes
    /// back to the CPU that its slab belongs to.
    const KEEPS_LISTS: bool;

    /// Names the place of the word at `offset` bytes in an object that begins at `line`.
    fn site(line: Line, offset: u32) -> Self::Site;

    /// This CPU's number; with more tasks than CPUs several tasks share one.
    fn id(&self) -> CpuId;
    /// The task that runs on this CPU now (the kernel's `current`).
    fn task(&self) -> TaskId;

    fn load(&self, word: &Word<Self>, order: Ordering) -> u64;
    fn store(&self, word: &Word<Self>, value: u64, order: Ordering);
    /// A store to a word that no other CPU can find yet: no charge, no scheduling point, but others
    /// may see what was there before unless something orders it before what lets them find it.
    #[inline(always)]
    fn initialise(&self, word: &Word<Self>, value: u64) {
        word.poke(value);
    }
    fn swap(&self, word: &Word<Self>, value: u64, order: Ordering) -> u64;
    /// `Ok(old)` when the word held `expect` and now holds `new`; `Err(seen)` otherwise.
    fn compare_exchange(
        &self,
        word: &Word<Self>,
        expect: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64>;
    /// Adds (wrapping) and returns the value before.
    fn fetch_add(&self, word: &Word<Self>, add: u64, order: Ordering) -> u64;
    fn fence(&self, fence: Fence);

    /// Busy-waits until `done(value)`; the CPU is never given up. Returns the value seen; the
    /// caller re-checks, for the predicate may already be false again.
    fn spin_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64;
    /// Whether others spin for this word, in an order that who comes later keeps to. False where
    /// the platform has no such order.
    #[inline(always)]
    fn has_waiters(&self, _word: &Word<Self>) -> bool {
        false
    }
    /// As [`Platform::spin_until`], but behind those who spin already, whatever the word holds.
    #[inline(always)]
    fn spin_behind_others(&self, _word: &Word<Self>, _done: impl Fn(u64) -> bool) {}
    /// Sleeps until `done(value)`. Whoever stores the value calls [`Platform::wake`].
    fn sleep_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64;
    /// Wakes whoever sleeps on `word`.
    fn wake(&self, word: &Word<Self>);
    /// Busy-waits while `word` holds `value` and `owner` is on a CPU (optimistic spinning).
    fn spin_on_owner(&self, word: &Word<Self>, value: u64, owner: TaskId);
    /// Whether `task` is on a CPU now, as far as the platform can tell.
    #[inline(always)]
    fn on_cpu(&self, _task: TaskId) -> bool {
        true
    }

    /// Enters an RCU read section; sections nest.
    fn rcu_read_lock(&self);
    fn rcu_read_unlock(&self);
    /// Queues `callback`; after a grace period some CPU gets it from [`Platform::rcu_ready`] at
    /// an operation boundary.
    fn call_rcu(&self, callback: RcuCallback);
    /// Runs `then` once no RCU reader of now is left: at once on platforms where freed memory
    /// is handed out again at once. Nothing may depend on when, or on which thread.
    fn after_readers(&self, then: impl FnOnce() + Send + 'static);
    /// A callback whose grace period has ended, if there is one.
    fn rcu_ready(&self) -> Option<RcuCallback>;
    /// Waits for the grace periods of all callbacks queued so far, unless that takes long: where they
    /// end by themselves. The caller is in no RCU read section.
    #[inline(always)]
    fn expedite_rcu(&self) {}

    /// Disables interrupts on this CPU; an RCU read section too. Sections do not nest.
    fn local_irq_disable(&self);
    fn local_irq_enable(&self);
    /// Interrupts every CPU that `is_target`, except this one, and returns once each has been seen
    /// outside an irq-off section that had begun before. Interrupts must be enabled here.
    fn ipi(&self, is_target: impl Fn(CpuId) -> bool);

    /// The hardware begins to translate an address and to use the translation: an irq-off section
    /// that a flush waits for, however it reaches other CPUs.
    #[inline(always)]
    fn begin_user_access(&self) {
        self.local_irq_disable();
    }
    #[inline(always)]
    fn end_user_access(&self) {
        self.local_irq_enable();
    }
    /// Flushes the TLBs of every CPU that `is_target`, except this one, and returns once none of
    /// them is at a user access that had begun before. By interrupt, which waits for all irq-off
    /// sections, unless the machine is known to have an instruction for it. Only with `freed_tables`
    /// need a CPU that is idle be told; it flushes when a task gets it.
    #[inline(always)]
    fn flush_others(&self, _freed_tables: bool, is_target: impl Fn(CpuId) -> bool) {
        self.ipi(is_target);
    }

    /// Runs `then` while another CPU does nothing with what belongs to it alone; not at all, if it
    /// works on and cannot be kept from that.
    fn while_idle(&self, cpu: CpuId, then: impl FnOnce());
    /// This CPU leaves alone what belongs to it, until [`Platform::works_again`] or for good.
    #[inline(always)]
    fn goes_idle(&self) {}
    #[inline(always)]
    fn works_again(&self) {}

    /// Faults of one access after which it counts as a livelock (C2).
    #[inline(always)]
    fn livelock_faults(&self) -> u32 {
        LIVELOCK_FAULTS
    }
    /// Whether the named check is removed in this run.
    #[inline(always)]
    fn mutant(&self, _which: Mutant) -> bool {
        false
    }
    /// Whether this run lets it happen.
    #[inline(always)]
    fn lets_happen(&self, _hazard: Hazard) -> bool {
        false
    }
    /// Whether it has happened in this run.
    #[inline(always)]
    fn has_met(&self, _hazard: Hazard) -> bool {
        false
    }
    /// Whether this happens here and now, in a run that lets it happen.
    #[inline(always)]
    fn meets(&self, _hazard: Hazard) -> bool {
        false
    }
    /// Whether another CPU is in the middle of an RCU callback, beside a task that is alone.
    #[inline(always)]
    fn callback_runs(&self) -> bool {
        false
    }
    /// Whether a VMA's write section that is begun or ended twice is a finding: not where v12's
    /// writers may meet (B1), nor with a check removed.
    #[inline(always)]
    fn checks_sections(&self) -> bool {
        false
    }
    /// Charges work that is no shared access: clearing a page, entering the kernel.
    #[inline(always)]
    fn charge(&self, _cost: Cost, _times: u64) {}
    /// Lets virtual time pass: on the CPU (`true`) or asleep.
    #[inline(always)]
    fn pass_ns(&self, _ns: u64, _on_cpu: bool) {}
    /// Waits, off the CPU, until a device has done work that takes each of these costs so many times.
    /// Locks stay held.
    #[inline(always)]
    fn wait_for_io(&self, _costs: &[(Cost, u64)]) {}
    /// Nanoseconds since the run began; 0 on platforms without a clock.
    fn now_ns(&self) -> u64;
    /// The word's value as the hardware or a flag of the interrupt path shows it: no charge, no
    /// scheduling point of its own, but seen as a read by whoever looks for conflicts.
    #[inline(always)]
    fn observe(&self, word: &Word<Self>) -> u64 {
        word.peek()
    }
    /// What a person calls the object that `word` is in.
    fn object_of(&self, _word: &Word<Self>) -> String {
        "an object".to_owned()
    }
    /// Told when the object that begins at `line` and takes `lines` lines was freed.
    #[inline(always)]
    fn freed(&self, _line: Line, _lines: u32) {}
    /// Whether this run was ended and the stack is being unwound: guards still release what they
    /// hold, and what they find there is no finding.
    #[inline(always)]
    fn is_cut(&self) -> bool {
        false
    }
    /// A number that orders what happens: what ends at some moment happens before what begins at
    /// the same or a later one.
    #[inline(always)]
    fn moment(&self) -> u64 {
        self.now_ns()
    }
    /// Whether the run is over: what takes long within one operation asks as often as the kernel
    /// asks for SIGKILL.
    #[inline(always)]
    fn fatal_signal_pending(&self) -> bool {
        false
    }
    /// Names the kernel's function that this CPU is in until what is returned is dropped, for
    /// timelines. Never a scheduling point.
    #[inline(always)]
    fn step(&self, function: &'static str) -> Within<'_, Self> {
        Within { cpu: self, before: self.set_function(function) }
    }
    /// Names the function that this CPU is in, and gives the one that it was in.
    #[inline(always)]
    fn set_function(&self, _function: &'static str) -> &'static str {
        ""
    }
    /// Says, for timelines, that a check of the handler was made: its number in `docs/protocol.md`,
    /// whether it `holds`, and what it demands, with the values that it compared.
    #[inline(always)]
    fn check(&self, _number: &'static str, _holds: bool, _what: impl FnOnce() -> String) {}
    /// Says, for timelines, what else is worth telling.
    #[inline(always)]
    fn tell(&self, _what: impl FnOnce() -> String) {}
    /// The next stretch of work begins, inside those that have. Like what follows it is for who
    /// draws the course of a run, or counts what it waits for: never a scheduling point.
    #[inline(always)]
    fn enter(&self, _span: Span) {}
    /// The last one that began ends; `how`, if it is an attempt.
    #[inline(always)]
    fn leave(&self, _how: &'static str) {}
    /// A VMA begins to be written.
    #[inline(always)]
    fn writes_vma(&self, _vm_sequence: &Word<Self>, _vm_start: u64) {}
    /// A speculative attempt gives up at a VMA.
    #[inline(always)]
    fn gives_up(&self, _event: Event, _vm_sequence: &Word<Self>, _vm_start: u64) {}
    /// The lock that this word stands for was taken.
    #[inline(always)]
    fn acquired(&self, _lock: &Word<Self>) {}
    /// Until told otherwise, waiting for any word is waiting for this lock.
    #[inline(always)]
    fn waits_for(&self, _lock: Option<&Word<Self>>) {}
    /// A task has done its operation; whether all are between two operations now, and somebody wants
    /// to know what is so then.
    #[inline(always)]
    fn ends_operation(&self) -> bool {
        false
    }
    /// A task has no more operations, and begins to end.
    #[inline(always)]
    fn begins_end(&self) {}
    /// Between two operations of a task: a chance to share the CPU, and to stop.
    /// False: the run is over (time is up, interrupted, or a finding).
    fn operation_boundary(&self) -> bool;

    /// As [`Platform::operation_boundary`], before an operation that touches [`Line::FREE`] words
    /// only.
    #[inline(always)]
    fn synchronisation_boundary(&self) -> bool {
        self.operation_boundary()
    }

    /// Reports a broken invariant. Does not return: the platform ends the run with the schedule.
    fn finding(&self, invariant: &'static str, what: String) -> !;
}

/// What a grace period was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RcuCallback {
    /// Drop the tree's reference of the VMA with this pointer word. Source: P21.
    PutVma(u64),
    /// Free the page table with this pointer word (`CONFIG_HAVE_RCU_TABLE_FREE`).
    FreeTable { level: u8, table: u64 },
    /// Drop the reference of a VMA that had the policy with this pointer word (C5, cured).
    PutPolicy(u64),
}

impl std::fmt::Display for RcuCallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A pointer word has the slot's number + 1 in its low half.
        let slot = |word: u64| u64::from(word as u32) - 1;
        match *self {
            Self::PutVma(vma) => write!(f, "put_vma vm_area_struct[{}]", slot(vma)),
            Self::PutPolicy(policy) => write!(f, "mpol_put mempolicy[{}]", slot(policy)),
            Self::FreeTable { level, table } => {
                write!(f, "free page table[{}] of level {level}", slot(table))
            }
        }
    }
}

/// While it is there its CPU is in a function of the kernel: [`Platform::step`].
#[must_use]
pub struct Within<'c, P: Platform> {
    cpu: &'c P,
    before: &'static str,
}

impl<P: Platform> Drop for Within<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        self.cpu.set_function(self.before);
    }
}

/// Runs the code between in an RCU read section; leaves it when dropped.
pub struct RcuGuard<'c, P: Platform>(&'c P);

impl<'c, P: Platform> RcuGuard<'c, P> {
    pub fn new(cpu: &'c P) -> Self {
        cpu.rcu_read_lock();
        Self(cpu)
    }
}

impl<P: Platform> Drop for RcuGuard<'_, P> {
    fn drop(&mut self) {
        self.0.rcu_read_unlock();
    }
}
