//! Reader-writer spin locks: v11's `mm->mm_rb_lock`. The queued rwlock of v5.1.
//!
//! | bits of the count | state |
//! |---|---|
//! | 0 to 7 | a writer is inside |
//! | 8 | a writer waits: readers that come now queue behind it |
//! | 9 and up | readers: inside, or about to see that they must queue |
//!
//! It is fair: whoever cannot go in at once takes `wait_lock`, and the first in that queue is the
//! next to get in, reader or writer. Every reader adds to the count and takes off again, so its
//! line goes from CPU to CPU though nobody waits: that is why v12 has RCU instead.
//!
//! Source: `kernel/locking/qrwlock.c`, `include/asm-generic/qrwlock.h`, v5.1. All readers here
//! have no interrupt behind them, so the short cut for readers in interrupts is left out.

use super::spinlock::{spin_lock, spin_unlock};
use crate::platform::{Field, Ordering, Platform};

/// `_QW_LOCKED`: the writer's byte.
const WRITER: u64 = 0xff;
/// `_QW_WAITING`
const WAITING: u64 = 0x100;
/// `_QR_BIAS`: one reader.
const READER: u64 = 0x200;

/// A lock: its count and the lock of its queue.
pub struct RwLock<'k, P: Platform> {
    pub cnts: Field<'k, P, u64>,
    pub wait_lock: Field<'k, P, u64>,
}

fn has_no_writer(count: u64) -> bool {
    count & WRITER == 0
}

impl<P: Platform> RwLock<'_, P> {
    /// `read_lock()`
    #[inline]
    pub fn read_lock(&self, cpu: &P) {
        // Acquire: see what the last writer wrote; pairs with the Release in `write_unlock`.
        let before = self.cnts.fetch_add(cpu, READER as i64, Ordering::Acquire);
        if before & (WRITER | WAITING) != 0 {
            cpu.waits_for(Some(self.cnts.word()));
            self.read_lock_slowpath(cpu);
            cpu.waits_for(None);
        }
        cpu.acquired(self.cnts.word());
    }

    /// `queued_read_lock_slowpath()`: waits behind those who queue already, then for the writer.
    #[cold]
    fn read_lock_slowpath(&self, cpu: &P) {
        self.cnts.fetch_add(cpu, -(READER as i64), Ordering::Relaxed);
        spin_lock(cpu, self.wait_lock);
        // From here on no writer gets in before this reader is out again.
        self.cnts.fetch_add(cpu, READER as i64, Ordering::Relaxed);
        // Acquire, as in `read_lock`: spinning is.
        cpu.spin_until(self.cnts.word(), has_no_writer);
        spin_unlock(cpu, self.wait_lock);
    }

    /// `read_unlock()`. Caller is a reader.
    #[inline]
    pub fn read_unlock(&self, cpu: &P) {
        // Release: what was read under the lock was read before the next writer writes; pairs
        // with the Acquire in `write_lock`.
        let before = self.cnts.fetch_add(cpu, -(READER as i64), Ordering::Release);
        if before < READER {
            cpu.finding("lock-balance", "a rwlock is released that nobody reads".to_owned());
        }
    }

    /// `write_lock()`
    #[inline]
    pub fn write_lock(&self, cpu: &P) {
        // Acquire: pairs with the Releases in `read_unlock` and `write_unlock`.
        if self.cnts.compare_exchange(cpu, 0, WRITER, Ordering::Acquire).is_err() {
            cpu.waits_for(Some(self.cnts.word()));
            self.write_lock_slowpath(cpu);
            cpu.waits_for(None);
        }
        cpu.acquired(self.cnts.word());
    }

    /// `queued_write_lock_slowpath()`: at the head of the queue, waits until readers are out.
    #[cold]
    fn write_lock_slowpath(&self, cpu: &P) {
        spin_lock(cpu, self.wait_lock);
        // Acquire: as in `write_lock`.
        let is_free = self.cnts.read(cpu) == 0
            && self.cnts.compare_exchange(cpu, 0, WRITER, Ordering::Acquire).is_ok();
        if !is_free {
            self.cnts.fetch_add(cpu, WAITING as i64, Ordering::Relaxed);
            loop {
                cpu.spin_until(self.cnts.word(), |count| count == WAITING);
                // Acquire: as in `write_lock`. It fails when a reader has come and is about to
                // queue.
                if self.cnts.compare_exchange(cpu, WAITING, WRITER, Ordering::Acquire).is_ok() {
                    break;
                }
            }
        }
        spin_unlock(cpu, self.wait_lock);
    }

    /// `write_unlock()`. Caller is the writer.
    ///
    /// DEVIATION: the kernel stores 0 in the writer's byte alone; a word here is stored as a
    /// whole, so it is an atomic operation.
    #[inline]
    pub fn write_unlock(&self, cpu: &P) {
        if self.cnts.peek() & WRITER != WRITER {
            cpu.finding("lock-balance", "a rwlock is released that nobody writes".to_owned());
        }
        // Release: whoever gets in next sees what was written under the lock; pairs with the
        // Acquires in `read_lock` and `write_lock`.
        self.cnts.fetch_add(cpu, -(WRITER as i64), Ordering::Release);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/sync/rwlock.rs"]
mod tests;
