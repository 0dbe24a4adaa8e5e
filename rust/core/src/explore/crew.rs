//! Threads that share the work of one exploration.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::explorer::Explorer;
use crate::platform::quietly;

/// Makes one more explorer of what the first explores, on the thread that uses it, which is not the
/// first's. None: there is no memory for another, which others do without.
pub(super) type Make<'m, S> = dyn Fn() -> Option<Explorer<S>> + Sync + 'm;

/// What the threads have in common.
pub(super) struct Board<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

pub(super) struct State<T> {
    pub(super) work: T,
    /// Nothing more is to be done.
    pub(super) is_over: bool,
    /// Of a helper; it comes out where the work ends.
    panic: Option<Box<dyn Any + Send>>,
}

/// Lets all others end, whatever became of this thread.
struct Over<'b, T>(&'b Board<T>);

impl<T> Drop for Over<'_, T> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.tell();
    }
}

impl<T: Send> Board<T> {
    pub(super) fn new(work: T) -> Self {
        let state = State { work, is_over: false, panic: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Does `lead` here. It may call so many others, each of which does `help` on a thread of its
    /// own until it is over. It is when `lead` has ended, or when one of the others panics: that
    /// comes out here.
    pub(super) fn with_helpers<R>(
        &self,
        help: &(dyn Fn() + Sync),
        lead: impl FnOnce(&dyn Fn(u32)) -> R,
    ) -> R {
        let result = thread::scope(|scope| {
            let _over = Over(self);
            let call = |nr_helpers| {
                for _ in 0..nr_helpers {
                    let body = || self.keep_panic(help);
                    // As with memory: those that there are do it all.
                    thread::Builder::new().spawn_scoped(scope, body).ok();
                }
            };
            lead(&call)
        });
        if let Some(panic) = self.lock().panic.take() {
            resume_unwind(panic);
        }
        result
    }

    fn keep_panic(&self, help: &(dyn Fn() + Sync)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| quietly(help))) {
            let _over = Over(self);
            self.lock().panic.get_or_insert(panic);
        }
    }
}

impl<T> Board<T> {
    pub(super) fn into_work(self) -> T {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).work
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all that wait.
    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    /// Waits until somebody tells.
    pub(super) fn wait<'s>(&self, state: MutexGuard<'s, State<T>>) -> MutexGuard<'s, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}
