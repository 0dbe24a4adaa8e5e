//! What a suspended coroutine waits for.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;

type Test = dyn Fn(u64) -> bool;

/// The condition that a suspended coroutine waits for, kept where others can test it although it
/// lives on the coroutine's stack.
#[derive(Default)]
pub struct Condition {
    test: Cell<Option<NonNull<Test>>>,
}

impl Condition {
    /// Lets others test `condition` while `wait` runs.
    pub fn during<R>(&self, condition: &dyn Fn(u64) -> bool, wait: impl FnOnce() -> R) -> R {
        let short: NonNull<dyn Fn(u64) -> bool + '_> = NonNull::from(condition);
        // SAFETY: (1) Only the lifetime changes, so the layout is the same. (2) The pointer is
        // removed before the borrow of `condition` ends: `Clear` does so when this function
        // returns or unwinds, and a coroutine that is suspended inside `wait` keeps its stack,
        // and this borrow with it, until it is resumed or unwound; leaking it leaks the stack.
        let long = unsafe {
            std::mem::transmute::<NonNull<dyn Fn(u64) -> bool + '_>, NonNull<Test>>(short)
        };
        self.test.set(Some(long));
        let _clear = Clear(&self.test);
        wait()
    }

    /// What the condition says of `value`; false if nobody waits.
    #[inline]
    pub fn holds(&self, value: u64) -> bool {
        // SAFETY: (1) The pointer is good, see `during`. (2) It was made from a shared reference
        // and only shared references are made from it. (3) `Condition` is not Sync, so this is
        // the thread of the coroutine that waits.
        self.test.get().is_some_and(|test| unsafe { test.as_ref() }(value))
    }
}

/// Removes the pointer on the way out.
struct Clear<'c>(&'c Cell<Option<NonNull<Test>>>);

impl Drop for Clear<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/platform/condition.rs"]
mod tests;
