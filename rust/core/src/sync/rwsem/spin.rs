//! How a writer spins while another writer runs, rather than sleep.

use super::osq::{osq_lock, osq_unlock};
use super::{ACTIVE_WRITE_BIAS, ANONYMOUSLY_OWNED, NO_OWNER, RwSem, WAITING_BIAS, Waiters, decode};
use crate::platform::{Fence, Ordering, Platform};

impl<P: Platform, W: Waiters<P>> RwSem<'_, P, W> {
    /// `rwsem_try_write_lock_unqueued()`: for who spins.
    fn try_write_lock_unqueued(self, cpu: &P) -> Result<(), i64> {
        let mut count = self.count.read(cpu);
        while count == 0 || (count == WAITING_BIAS && self.policy.stealing) {
            let new = count + ACTIVE_WRITE_BIAS;
            // Acquire: as in `down_write`.
            match self.count.compare_exchange(cpu, count, new, Ordering::Acquire) {
                Ok(_) => {
                    self.set_owner(cpu);
                    return Ok(());
                }
                Err(seen) => count = seen,
            }
        }
        Err(count)
    }

    /// `rwsem_optimistic_spin()`: whether the lock was taken while spinning.
    pub(super) fn optimistic_spin(self, cpu: &P) -> bool {
        if !self.policy.spinning || !self.can_spin_on_owner(cpu) {
            return false;
        }
        osq_lock(cpu, self.waiters, self.osq);
        let mut taken = false;
        while self.spin_on_owner(cpu) {
            match self.try_write_lock_unqueued(cpu) {
                Ok(()) => {
                    taken = true;
                    break;
                }
                // The first in the queue may sleep, having seen us active: to queue up wakes it.
                Err(WAITING_BIAS) if !self.policy.stealing => break,
                // An owner that is about to show up or to leave. DEVIATION: the kernel watches
                // `owner` too; the count is what changes when a writer leaves, and a reader that
                // shows up is seen one change later.
                Err(count) if self.owner.read(cpu) == NO_OWNER => {
                    cpu.spin_until(self.count.word(), |now| now as i64 != count);
                }
                Err(_) => {}
            }
        }
        osq_unlock(cpu, self.waiters, self.osq);
        if !taken {
            // mb: we are no spinner before we look at the count for the last time; pairs with
            // `rwsem_wake`. In the kernel it comes with adding the queue's bias to the count,
            // which does not happen if others are queued.
            cpu.fence(Fence::Full);
        }
        taken
    }

    /// `rwsem_can_spin_on_owner()`
    fn can_spin_on_owner(self, cpu: &P) -> bool {
        let owner = self.owner.read(cpu);
        owner & ANONYMOUSLY_OWNED == 0 && (owner == NO_OWNER || cpu.on_cpu(decode(owner)))
    }

    /// `rwsem_spin_on_owner()`: waits while a running writer owns the lock; whether spinning
    /// still makes sense.
    fn spin_on_owner(self, cpu: &P) -> bool {
        let owner = self.owner.read(cpu);
        if owner & ANONYMOUSLY_OWNED != 0 {
            return false;
        }
        if owner == NO_OWNER {
            return true;
        }
        cpu.spin_on_owner(self.owner.word(), owner, decode(owner));
        let now = self.owner.read(cpu);
        // The same owner: it no longer runs.
        now != owner && now & ANONYMOUSLY_OWNED == 0
    }
}
