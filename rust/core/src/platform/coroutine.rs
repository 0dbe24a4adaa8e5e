//! Coroutines: tasks with stacks of their own that hand control over by themselves, all on one
//! thread. Explore and virtual time run on them.
//!
//! A coroutine suspends itself through its [`Switch`] and is resumed by its owner, or hands over to
//! another one. A panic inside is caught and handed to the owner; a suspended coroutine can be
//! [cancelled], which unwinds its stack. While that goes on the switch [is cut]: whoever implements
//! word operations must then neither suspend nor count, for a switch in the middle of an unwinding
//! corrupts the count of panics. Stacks have a guard page each (two maps of the process; Linux
//! allows 65,530) and are pooled.
//!
//! [cancelled]: Coroutine::cancel
//! [is cut]: Switch::is_cut

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use corosensei::stack::{DefaultStack, Stack, StackPointer};

use self::fiber::{Fiber, Root};

// What switches stacks. RUSTFLAGS='--cfg spfemu_portable' tests the other one here, too.
#[cfg(all(target_arch = "x86_64", unix, not(spfemu_portable)))]
#[path = "coroutine/by_hand.rs"]
mod fiber;
#[cfg(not(all(target_arch = "x86_64", unix, not(spfemu_portable))))]
#[path = "coroutine/portable.rs"]
mod fiber;

/// What a panic carried.
pub type Payload = Box<dyn Any + Send>;

/// What runs on a stack; it catches its panics.
type Body = Box<dyn FnOnce()>;

/// Bytes of a stack: enough for a backtrace inside a panic in a debug build. Only touched pages
/// take memory.
const STACK_BYTES: usize = 256 << 10;

/// A stack whose top is not at a page's end but some cache lines below, another number for each of
/// its neighbours: else the topmost frames of all coroutines, which are touched at each switch,
/// would share a few sets of the host's first-level cache.
struct ColouredStack {
    whole: DefaultStack,
    base: StackPointer,
}

impl ColouredStack {
    /// The `nth` stack of a pool.
    fn new(nth: usize) -> io::Result<Self> {
        const COLOURS: usize = 64;
        const LINE: usize = 64;
        let whole = DefaultStack::new(STACK_BYTES)?;
        let base = whole.base().get() - nth % COLOURS * LINE;
        let base = StackPointer::new(base).expect("no stack is at address 0");
        Ok(Self { whole, base })
    }
}

// SAFETY: (1) What is between `limit` and `base` is part of `whole`, which is mapped while this
// lives, and is at least 252 KiB. (2) Its guard page is the one of `whole`, at the same limit.
// (3) `base` is a multiple of 64 below the end of a page, so it is aligned.
unsafe impl Stack for ColouredStack {
    fn base(&self) -> StackPointer {
        self.base
    }
    fn limit(&self) -> StackPointer {
        self.whole.limit()
    }
    #[cfg(windows)]
    fn teb_fields(&self) -> corosensei::stack::StackTebFields {
        self.whole.teb_fields()
    }
    #[cfg(windows)]
    fn update_teb_fields(&mut self, stack_limit: usize, guaranteed_stack_bytes: usize) {
        self.whole.update_teb_fields(stack_limit, guaranteed_stack_bytes);
    }
}

/// Coroutines that may hand over to each other, and their guarded stacks, given out again once
/// their coroutine has ended.
#[derive(Default)]
pub struct StackPool {
    root: Root,
    /// Whether a coroutine has control now.
    is_running: Cell<bool>,
    /// How the coroutine ended that gave control back last, if it did.
    end: Cell<Option<Result<(), Payload>>>,
    free: RefCell<Vec<ColouredStack>>,
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

    fn take(&self) -> io::Result<ColouredStack> {
        if let Some(stack) = self.free.borrow_mut().pop() {
            return Ok(stack);
        }
        let stack = ColouredStack::new(self.nr_made.get())?;
        self.nr_made.set(self.nr_made.get() + 1);
        Ok(stack)
    }
}

/// Where the coroutine of a switch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is none.
    #[default]
    Free,
    /// It has not begun.
    Ready,
    Suspended,
    Running,
    Ended,
}

/// How the code inside a coroutine suspends it. What each switch looks at is in one cache line of
/// the host.
#[repr(C, align(64))]
pub struct Switch {
    state: Cell<State>,
    is_cut: Cell<bool>,
    pool: Rc<StackPool>,
    fiber: Fiber,
}

/// What a cancelled coroutine unwinds with.
struct Cancelled;

impl Switch {
    /// A switch for coroutines of `pool`.
    pub fn new(pool: &Rc<StackPool>) -> Rc<Self> {
        Rc::new(Self {
            state: Cell::default(),
            is_cut: Cell::new(false),
            fiber: Fiber::default(),
            pool: Rc::clone(pool),
        })
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
        assert!(self.is_running(), "suspended from outside of the coroutine");
        self.state.set(State::Suspended);
        // SAFETY: (1) The fiber has control: the state says so, which is set only between its being
        // entered and its next leaving. (2) It is used on its thread: neither `Switch` nor
        // `Coroutine` is Send or Sync. (3) The root of the pool is the one it was entered through.
        unsafe { self.fiber.leave(&self.pool.root) };
        self.unwind_if_cut();
    }

    /// As [`Switch::suspend`], and resumes the coroutine of `other` at once: whoever resumed this
    /// one gets control when that one, or whom it hands over to, suspends itself or ends.
    ///
    /// Panics if `other` is of another pool, or its coroutine is not suspended.
    #[inline]
    pub fn hand_over(&self, other: &Self) {
        if self.is_cut.get() {
            return;
        }
        assert!(self.is_running(), "suspended from outside of the coroutine");
        assert!(Rc::ptr_eq(&self.pool, &other.pool), "coroutines of two pools");
        assert!(other.can_be_entered(), "resumed while it runs, or after its end");
        self.state.set(State::Suspended);
        other.state.set(State::Running);
        // SAFETY: (1) to (3) as in `suspend`. (4) The other fiber is prepared or has left, and has
        // not ended: its state said so. It is where it was prepared, within an `Rc`, which its
        // coroutine holds (`Coroutine::switch`) until the stack was taken back.
        unsafe { self.fiber.hand_over(&other.fiber, &self.pool.root) };
        self.unwind_if_cut();
    }

    /// Enters the coroutine from outside of any; returns when one gives control back.
    #[inline]
    fn enter(&self) {
        assert!(self.can_be_entered(), "resumed while it runs, or after its end");
        assert!(!self.pool.is_running.replace(true), "resumed from within another coroutine");
        self.state.set(State::Running);
        // SAFETY: (1) No coroutine of the pool has control, as just seen. (2) This one is prepared
        // or has left, and has not ended: its state said so. (3) It stays where it is, see
        // `hand_over`.
        unsafe { self.fiber.enter(&self.pool.root) };
        self.pool.is_running.set(false);
    }

    #[inline(always)]
    fn can_be_entered(&self) -> bool {
        matches!(self.state.get(), State::Ready | State::Suspended)
    }

    #[inline(always)]
    fn unwind_if_cut(&self) {
        if self.is_cut.get() {
            resume_unwind(Box::new(Cancelled));
        }
    }

    /// Whether the coroutine was cancelled: its stack is being unwound.
    #[inline(always)]
    pub fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// Whether the coroutine has control now.
    #[inline(always)]
    pub fn is_running(&self) -> bool {
        self.state.get() == State::Running
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
    switch: Rc<Switch>,
    /// The stack was given back, and the switch may have another coroutine.
    is_over: bool,
}

impl Coroutine {
    /// A coroutine that will run `body` when it is resumed, and suspends through `switch`, which
    /// belongs to it alone until it has ended.
    ///
    /// Errors: no further stack can be mapped (`vm.max_map_count`, two for each stack). Panics
    /// if another coroutine uses `switch`.
    pub fn new(switch: &Rc<Switch>, body: impl FnOnce() + 'static) -> io::Result<Self> {
        assert_eq!(switch.state.get(), State::Free, "one switch for two coroutines");
        let stack = switch.pool.take()?;
        switch.is_cut.set(false);
        switch.state.set(State::Ready);
        let inside = Rc::downgrade(switch);
        let whole = move || {
            let end = catch_unwind(AssertUnwindSafe(body));
            let switch = inside.upgrade().expect("the coroutine holds it until the end");
            switch.pool.end.set(Some(end));
            switch.state.set(State::Ended);
        };
        switch.fiber.prepare(stack, Box::new(whole));
        Ok(Self { switch: Rc::clone(switch), is_over: false })
    }

    /// Runs the body until it suspends, returns or panics; if it hands over, until the one that has
    /// control then does.
    ///
    /// Panics if it has ended.
    #[inline]
    pub fn resume(&mut self) -> Pause {
        assert!(!self.is_over, "resumed after its end");
        self.switch.enter();
        match self.switch.pool.end.take() {
            None => Pause::Suspended,
            Some(end) => {
                self.release_if_ended();
                end.map_or_else(Pause::Panicked, |()| Pause::Returned)
            }
        }
    }

    /// Ends a suspended coroutine: unwinds its stack and gives it back. Does nothing after the
    /// end.
    pub fn cancel(&mut self) {
        match self.switch.state.get() {
            _ if self.is_over => return,
            State::Ready => {
                self.switch.is_cut.set(true);
                self.switch.state.set(State::Ended);
            }
            State::Suspended => {
                self.switch.is_cut.set(true);
                self.switch.enter();
                // What it unwound with.
                drop(self.switch.pool.end.take());
            }
            State::Free | State::Running | State::Ended => {}
        }
        self.release_if_ended();
    }

    /// Whether the body has returned, panicked or been cancelled.
    pub fn has_ended(&self) -> bool {
        self.is_over || self.switch.state.get() == State::Ended
    }

    fn release_if_ended(&mut self) {
        if !self.is_over && self.switch.state.get() == State::Ended {
            self.is_over = true;
            self.switch.state.set(State::Free);
            self.switch.pool.free.borrow_mut().extend(self.switch.fiber.reclaim());
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

#[cfg(test)]
#[path = "../../tests/unit/platform/coroutine.rs"]
mod tests;
