//! Coroutines: tasks with stacks of their own that hand control over by themselves, all on one
//! thread. Explore and virtual time run on them.
//!
//! A coroutine suspends itself through its [`Switch`] and is resumed by its owner. A panic inside
//! is caught and handed to the owner; a suspended coroutine can be [cancelled], which unwinds its
//! stack. While that goes on the switch [is cut]: whoever implements word operations must then
//! neither suspend nor count, for a switch in the middle of an unwinding corrupts the count of
//! panics. Stacks have a guard page each (two maps of the process; Linux allows 65,530) and are
//! pooled.
//!
//! [cancelled]: Coroutine::cancel
//! [is cut]: Switch::is_cut

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::rc::Rc;

use corosensei::CoroutineResult;
use corosensei::stack::DefaultStack;

type Inner = corosensei::Coroutine<(), (), Result<(), Payload>, DefaultStack>;
type Yielder = corosensei::Yielder<(), ()>;

/// What a panic carried.
pub type Payload = Box<dyn Any + Send>;

/// Bytes of a stack: enough for a backtrace inside a panic in a debug build. Only touched pages
/// take memory.
const STACK_BYTES: usize = 256 << 10;

/// Guarded stacks, given out again once their coroutine has ended.
#[derive(Default)]
pub struct StackPool {
    free: RefCell<Vec<DefaultStack>>,
    nr_made: Cell<usize>,
}

impl StackPool {
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// How many stacks were ever mapped.
    pub fn nr_made(&self) -> usize {
        self.nr_made.get()
    }

    fn take(&self) -> io::Result<DefaultStack> {
        if let Some(stack) = self.free.borrow_mut().pop() {
            return Ok(stack);
        }
        let stack = DefaultStack::new(STACK_BYTES)?;
        self.nr_made.set(self.nr_made.get() + 1);
        Ok(stack)
    }

    fn give_back(&self, stack: DefaultStack) {
        self.free.borrow_mut().push(stack);
    }
}

/// How the code inside a coroutine suspends it.
#[derive(Default)]
pub struct Switch {
    /// Where the coroutine's way back is, while its body runs or is suspended.
    yielder: Cell<Option<NonNull<Yielder>>>,
    /// Whether a coroutine that has not ended uses this switch.
    is_taken: Cell<bool>,
    /// Whether the coroutine has control now.
    is_running: Cell<bool>,
    is_cut: Cell<bool>,
}

impl Switch {
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Gives control back to whoever resumed the coroutine, and returns when it is resumed.
    ///
    /// Does nothing once the switch is cut. Unwinds if the coroutine is cancelled meanwhile.
    /// Panics outside of the running coroutine.
    #[inline]
    pub fn suspend(&self) {
        if self.is_cut.get() {
            return;
        }
        assert!(self.is_running.get(), "suspended from outside of the coroutine");
        let yielder = self.yielder.get().expect("the body of a running coroutine has begun");
        // SAFETY: (1) The pointer was made from the reference that the coroutine's body was
        // called with, which is good as long as the body runs, and is removed when the body
        // ends, unwinding included (`Body`). (2) It belongs to the coroutine that runs: a switch
        // serves one at a time (`is_taken`), and `is_running` is set only between a resumption
        // and the next suspension of it. (3) It is used on the thread of the coroutine: neither
        // `Switch` nor `Coroutine` is Send or Sync.
        unsafe { yielder.as_ref() }.suspend(());
    }

    /// Whether the coroutine was cancelled: its stack is being unwound.
    #[inline(always)]
    pub fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// Whether the coroutine has control now.
    #[inline(always)]
    pub fn is_running(&self) -> bool {
        self.is_running.get()
    }
}

/// Clears the way back when the body ends.
struct Body<'s>(&'s Switch);

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.0.yielder.set(None);
    }
}

/// Why a coroutine gave control back.
#[derive(Debug)]
pub enum Pause {
    Suspended,
    Returned,
    Panicked(Payload),
}

/// A coroutine. Dropping a suspended one cancels it.
pub struct Coroutine {
    /// `None` once the stack was given back.
    inner: Option<Inner>,
    switch: Rc<Switch>,
    pool: Rc<StackPool>,
}

impl Coroutine {
    /// A coroutine that will run `body` when it is resumed, and suspends through `switch`, which
    /// belongs to it alone until it has ended.
    ///
    /// Errors: no further stack can be mapped (`vm.max_map_count`, two for each stack). Panics
    /// if another coroutine uses `switch`.
    pub fn new(
        pool: &Rc<StackPool>,
        switch: &Rc<Switch>,
        body: impl FnOnce() + 'static,
    ) -> io::Result<Self> {
        let stack = pool.take()?;
        assert!(!switch.is_taken.replace(true), "one switch for two coroutines");
        let inside = Rc::clone(switch);
        switch.is_cut.set(false);
        let inner = Inner::with_stack(stack, move |yielder: &Yielder, ()| {
            inside.yielder.set(Some(NonNull::from(yielder)));
            let _clear = Body(&inside);
            catch_unwind(AssertUnwindSafe(body))
        });
        Ok(Self { inner: Some(inner), switch: Rc::clone(switch), pool: Rc::clone(pool) })
    }

    /// Runs the body until it suspends, returns or panics.
    ///
    /// Panics if it has ended.
    #[inline]
    pub fn resume(&mut self) -> Pause {
        let inner = self.inner.as_mut().expect("resumed after its end");
        self.switch.is_running.set(true);
        let result = inner.resume(());
        self.switch.is_running.set(false);
        match result {
            CoroutineResult::Yield(()) => Pause::Suspended,
            CoroutineResult::Return(result) => {
                self.release_stack();
                match result {
                    Ok(()) => Pause::Returned,
                    Err(payload) => Pause::Panicked(payload),
                }
            }
        }
    }

    /// Ends a suspended coroutine: unwinds its stack and gives it back. Does nothing after the
    /// end.
    pub fn cancel(&mut self) {
        let Some(inner) = self.inner.as_mut() else { return };
        self.switch.is_cut.set(true);
        self.switch.is_running.set(true);
        // What unwinds comes to an end in `catch_unwind` above, or in corosensei's own.
        inner.force_unwind();
        self.switch.is_running.set(false);
        self.release_stack();
    }

    /// Whether the body has returned, panicked or been cancelled.
    pub fn has_ended(&self) -> bool {
        self.inner.is_none()
    }

    fn release_stack(&mut self) {
        if let Some(inner) = self.inner.take() {
            self.pool.give_back(inner.into_stack());
            self.switch.is_taken.set(false);
        }
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The text of a panic, for reports.
pub fn panic_text(payload: &Payload) -> String {
    payload
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

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
#[path = "../../tests/unit/platform/coroutine.rs"]
mod tests;
