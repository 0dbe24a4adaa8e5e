//! The slow ways: queueing up, sleeping, and waking.

use super::osq::osq_is_locked;
use super::waiter::{RUNNING, WAITING_FOR_READ, WAITING_FOR_WRITE, decode_link, encode_link};
use super::{
    ACTIVE_MASK, ACTIVE_READ_BIAS, ACTIVE_WRITE_BIAS, RwSem, WAITING_BIAS, Waiter, Waiters,
};
use crate::platform::{Fence, Ordering, Platform, TaskId};
use crate::sync::spinlock::{spin_lock, spin_trylock, spin_unlock};

/// Whom `mark_wake` may wake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WakeType {
    /// Whatever is at the head of the queue.
    Any,
    /// Readers only.
    Readers,
    /// Readers only, and the caller reads already.
    ReadOwned,
}

/// Who is to be woken once `wait_lock` is released (`struct wake_q_head`).
enum WakeQ {
    Nobody,
    /// A writer, who will compete for the lock.
    Writer(TaskId),
    /// Readers, who have the lock.
    Readers(Vec<TaskId>),
}

impl<P: Platform, W: Waiters<P>> RwSem<'_, P, W> {
    /// The slow way of `down_read`: the count is negative, and we are in it.
    #[cold]
    pub(super) fn down_read_failed(self, cpu: &P) {
        let waiter = self.waiters.waiter(cpu.task());
        waiter.kind().write(cpu, WAITING_FOR_READ);
        waiter.waiting().write(cpu, 1);
        let mut wake_q = WakeQ::Nobody;
        let mut adjustment = -ACTIVE_READ_BIAS;
        spin_lock(cpu, self.wait_lock);
        if self.list_empty(cpu) {
            // The writer has gone meanwhile, and nobody else waits: we are counted already.
            // Acquire: as in `down_read`.
            if self.count.load(cpu, Ordering::Acquire) >= 0 {
                spin_unlock(cpu, self.wait_lock);
                waiter.waiting().write(cpu, 0);
                return;
            }
            adjustment += WAITING_BIAS;
        }
        self.list_add_tail(cpu, waiter);
        // From here on we wait, and are no longer trying.
        let before = self.count.fetch_add(cpu, adjustment, Ordering::AcqRel);
        let count = before + adjustment;
        // Nobody is active: wake the head. Only readers are, and nobody else is queued: join.
        let first = adjustment != -ACTIVE_READ_BIAS;
        if count == WAITING_BIAS || (count > WAITING_BIAS && first) {
            wake_q = self.mark_wake(cpu, WakeType::Any);
        }
        spin_unlock(cpu, self.wait_lock);
        self.wake_up_q(cpu, wake_q);
        // Acquire: see what the writer did before we were given the lock; pairs with the Release
        // in `mark_wake`.
        while waiter.waiting().load(cpu, Ordering::Acquire) != 0 {
            cpu.sleep_until(waiter.waiting().word(), |waiting| waiting == 0);
        }
    }

    /// The slow way of `down_write`: somebody is active, and our bias is in the count.
    #[cold]
    pub(super) fn down_write_failed(self, cpu: &P) {
        self.count.fetch_add(cpu, -ACTIVE_WRITE_BIAS, Ordering::AcqRel);
        if self.optimistic_spin(cpu) {
            return;
        }
        let waiter = self.waiters.waiter(cpu.task());
        waiter.kind().write(cpu, WAITING_FOR_WRITE);
        spin_lock(cpu, self.wait_lock);
        let waiting = !self.list_empty(cpu);
        self.list_add_tail(cpu, waiter);
        let mut count;
        if waiting {
            count = self.count.read(cpu);
            // No writer is active, so readers are, or nobody: readers before us may go on. The
            // first in the queue may have seen us active and gone to sleep: without stealing it
            // alone can take the lock.
            let wake_type = match self.policy.stealing {
                false if count & ACTIVE_MASK == 0 => Some(WakeType::Any),
                _ => (count > WAITING_BIAS).then_some(WakeType::Readers),
            };
            if let Some(wake_type) = wake_type {
                let wake_q = self.mark_wake(cpu, wake_type);
                self.wake_up_q(cpu, wake_q);
            }
        } else {
            count = self.count.fetch_add(cpu, WAITING_BIAS, Ordering::AcqRel) + WAITING_BIAS;
        }
        waiter.prepare_to_sleep(cpu);
        while !self.try_write_lock(cpu, count) {
            spin_unlock(cpu, self.wait_lock);
            count = self.sleep_while_active(cpu, waiter);
            spin_lock(cpu, self.wait_lock);
        }
        waiter.state().write(cpu, RUNNING);
        self.list_del(cpu, waiter);
        spin_unlock(cpu, self.wait_lock);
    }

    /// Sleeps until woken and nobody is active; returns the count.
    fn sleep_while_active(self, cpu: &P, waiter: &Waiter<P>) -> i64 {
        loop {
            cpu.sleep_until(waiter.state().word(), |state| state == RUNNING);
            waiter.prepare_to_sleep(cpu);
            let count = self.count.read(cpu);
            if count & ACTIVE_MASK == 0 {
                return count;
            }
        }
    }

    /// `rwsem_try_write_lock()`. Caller holds `wait_lock` and is queued.
    fn try_write_lock(self, cpu: &P, count: i64) -> bool {
        if count != WAITING_BIAS {
            return false;
        }
        let is_first = || self.wait_head.read(cpu) == encode_link(cpu.task());
        if !self.policy.stealing && !is_first() {
            return false;
        }
        let alone = self.wait_head.read(cpu) == self.wait_tail.read(cpu);
        let new = if alone { ACTIVE_WRITE_BIAS } else { ACTIVE_WRITE_BIAS + WAITING_BIAS };
        // Acquire: as in `down_write`.
        let taken = self.count.compare_exchange(cpu, WAITING_BIAS, new, Ordering::Acquire).is_ok();
        if taken {
            self.set_owner(cpu);
        }
        taken
    }

    /// `rwsem_wake()`: the lock was released, and tasks are queued.
    #[cold]
    pub(super) fn rwsem_wake(self, cpu: &P) {
        // mb: the count is released before the spinners are looked at; pairs with the one in
        // `optimistic_spin`. Either we see that a spinner has left, or it sees the lock free.
        // DEVIATION: rmb in the kernel, where x86's release of the count is a full barrier.
        cpu.fence(Fence::Full);
        if self.policy.stealing && osq_is_locked(cpu, self.osq) {
            // A writer spins and will take the lock; so only help if that is free of charge.
            // rmb: the spinner is seen before `wait_lock`.
            cpu.fence(Fence::Read);
            if !spin_trylock(cpu, self.wait_lock) {
                return;
            }
        } else {
            spin_lock(cpu, self.wait_lock);
        }
        self.wake_head(cpu, WakeType::Any);
    }

    /// `rwsem_downgrade_wake()`
    #[cold]
    pub(super) fn rwsem_downgrade_wake(self, cpu: &P) {
        spin_lock(cpu, self.wait_lock);
        self.wake_head(cpu, WakeType::ReadOwned);
    }

    /// Wakes whom `wake_type` allows and releases `wait_lock`, which the caller holds.
    fn wake_head(self, cpu: &P, wake_type: WakeType) {
        let mut wake_q = WakeQ::Nobody;
        if !self.list_empty(cpu) {
            wake_q = self.mark_wake(cpu, wake_type);
        }
        spin_unlock(cpu, self.wait_lock);
        self.wake_up_q(cpu, wake_q);
    }

    /// `__rwsem_mark_wake()`: decides who is woken, and gives readers the lock. Caller holds
    /// `wait_lock`; the queue is not empty.
    fn mark_wake(self, cpu: &P, wake_type: WakeType) -> WakeQ {
        let head = decode_link(self.wait_head.read(cpu));
        if self.waiters.waiter(head).kind().read(cpu) == WAITING_FOR_WRITE {
            return match wake_type {
                WakeType::Any => WakeQ::Writer(head),
                WakeType::Readers | WakeType::ReadOwned => WakeQ::Nobody,
            };
        }
        // One share before the readers are counted, so that a writer cannot come between.
        let mut granted = 0;
        if wake_type != WakeType::ReadOwned {
            if !self.grant_first_reader(cpu) {
                return WakeQ::Nobody;
            }
            granted = ACTIVE_READ_BIAS;
            // An early sign for those who spin.
            self.set_reader_owned(cpu, head);
        }
        let readers = if self.policy.reader_groups {
            self.cut_readers(cpu)
        } else {
            self.cut_all_readers(cpu)
        };
        let mut adjustment = readers.len() as i64 * ACTIVE_READ_BIAS - granted;
        if self.list_empty(cpu) {
            adjustment -= WAITING_BIAS;
        }
        if adjustment != 0 {
            self.count.fetch_add(cpu, adjustment, Ordering::AcqRel);
        }
        for &reader in &readers {
            // Release: all of the above before the reader goes on; pairs with the Acquire in
            // `down_read_failed`.
            self.waiters.waiter(reader).waiting().store(cpu, 0, Ordering::Release);
        }
        WakeQ::Readers(readers)
    }

    /// Adds one reader to the count unless a writer stole the lock.
    fn grant_first_reader(self, cpu: &P) -> bool {
        loop {
            let before = self.count.fetch_add(cpu, ACTIVE_READ_BIAS, Ordering::AcqRel);
            if before >= WAITING_BIAS {
                return true;
            }
            let undone = self.count.fetch_add(cpu, -ACTIVE_READ_BIAS, Ordering::AcqRel);
            if undone - ACTIVE_READ_BIAS < WAITING_BIAS {
                return false;
            }
            // The thief has left meanwhile, and has seen us active: it woke nobody.
        }
    }

    /// `wake_up_q()`: a task that is awake already is not harmed.
    fn wake_up_q(self, cpu: &P, wake_q: WakeQ) {
        match wake_q {
            WakeQ::Nobody => {}
            WakeQ::Writer(task) => {
                let state = self.waiters.waiter(task).state();
                // AcqRel: pairs with the same in `prepare_to_sleep`, so that either the writer
                // is woken or it sees the count that we were called for.
                state.swap(cpu, RUNNING, Ordering::AcqRel);
                cpu.wake(state.word());
            }
            WakeQ::Readers(readers) => {
                for task in readers {
                    cpu.wake(self.waiters.waiter(task).waiting().word());
                }
            }
        }
    }
}
