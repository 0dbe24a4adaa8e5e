//! The queue in which writers spin for a semaphore (`struct optimistic_spin_queue`): first come,
//! first served, each on a word of its own.
//!
//! | `osq` word | state |
//! |---|---|
//! | 0 | nobody spins |
//! | n + 1 | task n is the last in the queue |
//!
//! DEVIATION: the kernel's node belongs to the CPU and a spinner leaves the queue when its CPU is
//! wanted (`need_resched()`). Here it belongs to the task, and only the first in the queue looks
//! at whether spinning still makes sense. Source: `kernel/locking/osq_lock.c`, v5.1.

use super::{Waiter, Waiters};
use crate::platform::{Fence, Field, Ordering, Platform, TaskId};

const NOBODY: u64 = 0;

fn encode(task: TaskId) -> u64 {
    u64::from(task) + 1
}

fn decode<P: Platform, W: Waiters<P>>(waiters: &W, code: u64) -> &Waiter<P> {
    waiters.waiter((code - 1) as TaskId)
}

/// `osq_lock()`: waits until the current task is the first in the queue.
pub(super) fn osq_lock<P: Platform, W: Waiters<P>>(cpu: &P, waiters: &W, osq: Field<'_, P, u64>) {
    let me = encode(cpu.task());
    let node = waiters.waiter(cpu.task());
    node.osq_locked().write(cpu, 0);
    node.osq_next().write(cpu, NOBODY);
    // Release: the node is initialised before it can be found; Acquire: after the last owner.
    // Both pair with `osq_unlock` and with this exchange in the next task.
    let last = osq.swap(cpu, me, Ordering::AcqRel);
    if last == NOBODY {
        return;
    }
    decode(waiters, last).osq_next().write(cpu, me);
    while node.osq_locked().load(cpu, Ordering::Acquire) == 0 {
        cpu.spin_until(node.osq_locked().word(), |locked| locked != 0);
    }
}

/// `osq_unlock()`: lets the next in the queue go first. Caller is the first.
pub(super) fn osq_unlock<P: Platform, W: Waiters<P>>(cpu: &P, waiters: &W, osq: Field<'_, P, u64>) {
    let me = encode(cpu.task());
    // Release: pairs with the exchange in `osq_lock`.
    if osq.compare_exchange(cpu, me, NOBODY, Ordering::Release).is_ok() {
        return;
    }
    // Somebody is behind, and perhaps about to say so.
    let node = waiters.waiter(cpu.task());
    let mut next = node.osq_next().swap(cpu, NOBODY, Ordering::AcqRel);
    while next == NOBODY {
        cpu.spin_until(node.osq_next().word(), |next| next != NOBODY);
        next = node.osq_next().swap(cpu, NOBODY, Ordering::AcqRel);
    }
    // Release: pairs with the Acquire of the spinning task.
    decode(waiters, next).osq_locked().store(cpu, 1, Ordering::Release);
}

/// `osq_is_locked()`: whether anybody spins.
pub(super) fn osq_is_locked<P: Platform>(cpu: &P, osq: Field<'_, P, u64>) -> bool {
    osq.read(cpu) != NOBODY
}

/// Orders the look at the queue after what came before; see `RwSem::rwsem_wake`.
pub(super) fn order_after_release<P: Platform>(cpu: &P) {
    cpu.fence(Fence::Read);
}
