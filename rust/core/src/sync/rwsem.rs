//! The reader/writer semaphore of Linux 5.1.

use crate::platform::{Line, Platform, Word};

/// What a sleeper on a semaphore's wait list is (`struct rwsem_waiter`): one for each task.
pub struct Waiter<P: Platform> {
    pub(crate) next: Word<P>,
    pub(crate) prev: Word<P>,
    pub(crate) kind: Word<P>,
    pub(crate) waiting: Word<P>,
}

impl<P: Platform> Waiter<P> {
    pub fn new(line: Line) -> Self {
        Self {
            next: Word::new(line, 0),
            prev: Word::new(line, 8),
            kind: Word::new(line, 16),
            waiting: Word::new(line, 24),
        }
    }
    pub fn reset(&self) {
        for word in [&self.next, &self.prev, &self.kind, &self.waiting] {
            word.poke(0);
        }
    }
}
