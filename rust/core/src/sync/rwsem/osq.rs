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
//! at whether spinning still makes sense. Nobody leaves from the middle, so there is no `prev`.
//!
//! What 5.1 orders, and what does it here, where read-modify-writes are no full barriers:
//!
//! | 5.1 | here |
//! |---|---|
//! | `xchg` of the end | AcqRel |
//! | `smp_wmb`, then `prev->next` | Release |
//! | `READ_ONCE(node->locked)`, a branch, `cpu_relax` | Acquire, which is more; the branch alone orders no loads |
//! | `cmpxchg_release` of the end | Release; nothing when it fails |
//! | `xchg(&node->next)`, then `next->locked` | AcqRel, then Release |
//!
//! Source: `kernel/locking/osq_lock.c`, v5.1.

use super::{Waiter, Waiters};
use crate::platform::{Field, Ordering, Platform, TaskId};

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
    // Acquire: after the last one in the queue has left; pairs with the Release in `osq_unlock`.
    // Release: whoever links itself behind us does so after `next` is empty; pairs with the
    // Acquire of this exchange in the next task.
    let last = osq.swap(cpu, me, Ordering::AcqRel);
    if last == NOBODY {
        return;
    }
    // Release: `locked` is 0 before the one in front can find us and store 1 there; pairs with
    // the Acquire of the exchange in `osq_unlock`. The exchange above is not enough: a host may
    // let a later store overtake the store half of it.
    decode(waiters, last).osq_next().store(cpu, me, Ordering::Release);
    // Acquire: pairs with the Release in `osq_unlock`.
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
    // Acquire: the next one's node is ready; pairs with the Release store to `next` in `osq_lock`.
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
