//! Locks and counts: ordinary code over words, written once for all platforms.
//!
//! Contention costs what the accesses here cost; no primitive is known to a platform.
//! `docs/locking.md` has the table of which ordering pairs with which.

pub mod mutex;
pub mod refcount;
pub mod rwlock;
pub mod rwsem;
pub mod seqcount;
pub mod seqlock;
pub mod spinlock;

#[cfg(test)]
#[path = "../../tests/unit/sync/stage.rs"]
pub(crate) mod stage;
