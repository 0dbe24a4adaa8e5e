//! The reader/writer semaphore of Linux 5.1, over words: `mmap_sem`, `anon_vma->root->rwsem`.
//!
//! | `count` | meaning |
//! |---|---|
//! | 0 | free, nobody waits |
//! | n | n tasks read, or are about to find out that they do |
//! | `WAITING_BIAS` | free, and tasks are queued |
//! | n + `WAITING_BIAS` | n read or try to, and tasks are queued; or, for n = 1, one writes |
//! | 1 + 2 `WAITING_BIAS` | one writes, and tasks are queued |
//!
//! | `owner` | meaning |
//! |---|---|
//! | 0 | nobody, or a writer between two steps |
//! | task, no flag | that task writes |
//! | task, both flags | that task was the last to begin reading; it stays until the next writer |
//!
//! A reader that finds a negative count queues up. A writer that finds the count in use takes its
//! bias back, spins while a running writer owns the lock, and then queues up. Whoever releases a
//! count that is negative and inactive wakes the head of the queue: a writer to compete for the
//! lock, or all readers up to the next writer, who are given it. Any writer, queued or not, may
//! take a free lock before the one that was woken; that is not only allowed but needed, for the
//! releasing task leaves the queue alone when a writer spins.
//!
//! Source: `kernel/locking/rwsem-xadd.c` and `rwsem.c`, v5.1, with the fix that the 5.1 stable
//! series took at once: readers are counted before they are told ("Prevent decrement of reader
//! count before increment"). DEVIATION: `wait_lock` is taken with interrupts on, and what the
//! kernel has on the task's stack, in its task_struct and per CPU is one cache line here.

mod osq;
mod slow;
mod spin;
mod waiter;

pub use waiter::{Waiter, Waiters};

use crate::platform::{Field, Ordering, Platform, TaskId};

/// One task that holds or tries to get the lock.
pub const ACTIVE_BIAS: i64 = 1;
/// Tasks are queued; also part of a writer's share.
pub const WAITING_BIAS: i64 = -(1 << 32);
const ACTIVE_READ_BIAS: i64 = ACTIVE_BIAS;
const ACTIVE_WRITE_BIAS: i64 = WAITING_BIAS + ACTIVE_BIAS;
/// The part of the count that says how many are active.
const ACTIVE_MASK: i64 = 0xffff_ffff;

/// `RWSEM_READER_OWNED`
const READER_OWNED: u64 = 1;
/// `RWSEM_ANONYMOUSLY_OWNED`: nobody can tell whether the owner runs.
const ANONYMOUSLY_OWNED: u64 = 2;
/// `owner` while nobody is known to hold the lock.
const NO_OWNER: u64 = 0;
const OWNER_SHIFT: u32 = 2;

/// Whose lock and unlock instructions. They differ where tasks are queued: x86's own
/// `down_write` takes a lock that nobody holds at once, the generic one goes the slow way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastPath {
    /// `arch/x86/include/asm/rwsem.h`
    X86,
    /// `include/asm-generic/rwsem.h`
    Generic,
}

/// What of 5.1's semaphore a study may take away, to see what it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A writer spins while another runs that owns the lock.
    pub spinning: bool,
    /// Any writer may take a free lock before those who wait; without, only the first of these.
    pub stealing: bool,
    /// Readers are given the lock up to the next writer; without, all that wait are, as since 5.2.
    pub reader_groups: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { spinning: true, stealing: true, reader_groups: true }
    }
}

/// A semaphore: the words of it, wherever they live.
pub struct RwSem<'k, P: Platform, W: Waiters<P>> {
    pub count: Field<'k, P, i64>,
    pub wait_head: Field<'k, P, u64>,
    pub wait_tail: Field<'k, P, u64>,
    pub wait_lock: Field<'k, P, u64>,
    pub osq: Field<'k, P, u64>,
    pub owner: Field<'k, P, u64>,
    pub waiters: &'k W,
    pub fast_path: FastPath,
    pub policy: Policy,
}

impl<P: Platform, W: Waiters<P>> Clone for RwSem<'_, P, W> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Platform, W: Waiters<P>> Copy for RwSem<'_, P, W> {}

impl<'k, P: Platform, W: Waiters<P>> RwSem<'k, P, W> {
    /// `down_read()`. Sleeps.
    #[inline(always)]
    pub fn down_read(self, cpu: &P) {
        // Acquire: see what the last writer did; pairs with the Release in `up_write`.
        let before = self.count.fetch_add(cpu, ACTIVE_READ_BIAS, Ordering::Acquire);
        if before + ACTIVE_READ_BIAS <= 0 {
            cpu.waits_for(Some(self.count.word()));
            self.down_read_failed(cpu);
            cpu.waits_for(None);
        }
        cpu.acquired(self.count.word());
        self.set_reader_owned(cpu, cpu.task());
    }

    /// `down_read_trylock()`: whether the lock was taken. Fails while a task is queued.
    #[inline]
    #[must_use = "a lock that was taken must be released"]
    pub fn down_read_trylock(self, cpu: &P) -> bool {
        let mut count = self.count.read(cpu);
        while count >= 0 {
            // Acquire: as in `down_read`.
            let new = count + ACTIVE_READ_BIAS;
            match self.count.compare_exchange(cpu, count, new, Ordering::Acquire) {
                Ok(_) => {
                    cpu.acquired(self.count.word());
                    self.set_reader_owned(cpu, cpu.task());
                    return true;
                }
                Err(seen) => count = seen,
            }
        }
        false
    }

    /// `up_read()`. Caller holds the lock for reading.
    #[inline(always)]
    pub fn up_read(self, cpu: &P) {
        // Release: the next writer sees that our reads are over; pairs with the Acquire of
        // whoever takes the lock.
        let before = self.count.fetch_add(cpu, -ACTIVE_READ_BIAS, Ordering::Release);
        self.check_active(cpu, before);
        let after = before - ACTIVE_READ_BIAS;
        if after < 0 && after & ACTIVE_MASK == 0 {
            self.rwsem_wake(cpu);
        }
    }

    /// `down_write()`. Sleeps.
    #[inline(always)]
    pub fn down_write(self, cpu: &P) {
        // Acquire: see what the last holder did; pairs with the Releases of `up_write` and
        // `up_read`.
        let before = self.count.fetch_add(cpu, ACTIVE_WRITE_BIAS, Ordering::Acquire);
        let taken = match self.fast_path {
            FastPath::X86 => before & ACTIVE_MASK == 0,
            FastPath::Generic => before == 0,
        };
        if !taken {
            cpu.waits_for(Some(self.count.word()));
            self.down_write_failed(cpu);
            cpu.waits_for(None);
        }
        cpu.acquired(self.count.word());
        self.set_owner(cpu);
    }

    /// `up_write()`. Caller holds the lock for writing.
    #[inline(always)]
    pub fn up_write(self, cpu: &P) {
        self.check_owner(cpu);
        self.owner.write(cpu, NO_OWNER);
        // Release: the next holder sees what was written; pairs with the Acquires.
        let before = self.count.fetch_add(cpu, -ACTIVE_WRITE_BIAS, Ordering::Release);
        let after = before - ACTIVE_WRITE_BIAS;
        // Who is active still has yet to fail, and then looks after the queue itself; x86 leaves
        // it to them.
        let leave = self.fast_path == FastPath::X86 && after & ACTIVE_MASK != 0;
        if after < 0 && !leave {
            self.rwsem_wake(cpu);
        }
    }

    /// `downgrade_write()`: from writer to reader, letting other readers in. Caller holds the
    /// lock for writing.
    pub fn downgrade_write(self, cpu: &P) {
        self.check_owner(cpu);
        self.set_reader_owned(cpu, cpu.task());
        // Release: readers let in now see what was written; pairs with the Acquire in
        // `down_read` and with that of `waiting`.
        let before = self.count.fetch_add(cpu, -WAITING_BIAS, Ordering::Release);
        if before - WAITING_BIAS < 0 {
            self.rwsem_downgrade_wake(cpu);
        }
    }

    /// Whether nobody holds the lock or waits for it, as nobody's access: for its destruction.
    pub fn is_free(self) -> bool {
        self.count.peek() == 0 && self.wait_head.peek() == 0 && self.wait_tail.peek() == 0
    }

    /// Whether anybody holds the lock, as nobody's access: for checks.
    pub fn is_locked(self) -> bool {
        self.count.peek() & ACTIVE_MASK != 0
    }

    #[inline(always)]
    fn set_owner(self, cpu: &P) {
        self.owner.write(cpu, encode(cpu.task()));
    }

    #[inline(always)]
    fn set_reader_owned(self, cpu: &P, task: TaskId) {
        self.owner.write(cpu, encode(task) | READER_OWNED | ANONYMOUSLY_OWNED);
    }

    #[inline(always)]
    fn check_owner(self, cpu: &P) {
        if self.owner.peek() != encode(cpu.task()) {
            let what = format!("task {} ends writing, which it does not do", cpu.task());
            cpu.finding("lock-balance", what);
        }
    }

    #[inline(always)]
    fn check_active(self, cpu: &P, before: i64) {
        if before & ACTIVE_MASK == 0 {
            let what = format!("task {} ends reading, which nobody does", cpu.task());
            cpu.finding("lock-balance", what);
        }
    }
}

fn encode(task: TaskId) -> u64 {
    (u64::from(task) + 1) << OWNER_SHIFT
}
fn decode(owner: u64) -> TaskId {
    ((owner >> OWNER_SHIFT) - 1) as TaskId
}

/// Holds the lock for reading; releases it when dropped.
#[must_use = "the lock is released when this is dropped"]
pub struct ReadGuard<'k, 'c, P: Platform, W: Waiters<P>> {
    sem: RwSem<'k, P, W>,
    cpu: &'c P,
}

impl<P: Platform, W: Waiters<P>> Drop for ReadGuard<'_, '_, P, W> {
    fn drop(&mut self) {
        // A task that unwinds leaves the lock as it is: the run is over.
        if !std::thread::panicking() {
            self.sem.up_read(self.cpu);
        }
    }
}

impl<'k, P: Platform, W: Waiters<P>> RwSem<'k, P, W> {
    /// [`RwSem::down_read`], released when the guard is dropped.
    pub fn read<'c>(self, cpu: &'c P) -> ReadGuard<'k, 'c, P, W> {
        self.down_read(cpu);
        ReadGuard { sem: self, cpu }
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/sync/rwsem.rs"]
mod tests;
