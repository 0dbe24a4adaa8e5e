//! Fibers of `corosensei`, which knows many processors: a fiber is entered from the root only, and
//! the root is where one hands over to another.

use std::cell::Cell;
use std::ptr::NonNull;

use corosensei::CoroutineResult;

use super::{Body, ColouredStack};

type Inner = corosensei::Coroutine<(), (), (), ColouredStack>;
type Yielder = corosensei::Yielder<(), ()>;

/// The stack of the thread itself.
#[derive(Default)]
pub(super) struct Root {
    /// Whom the fiber that left handed over to.
    next: Cell<Option<NonNull<Fiber>>>,
}

/// A body on a stack of its own.
#[derive(Default)]
pub(super) struct Fiber {
    inner: Cell<Option<Inner>>,
    /// Where the way back is, while the body runs or has left.
    yielder: Cell<Option<NonNull<Yielder>>>,
    stack: Cell<Option<ColouredStack>>,
    body: Cell<Option<Body>>,
}

impl Fiber {
    /// Gets the stack ready for `body`, which runs once the fiber is entered.
    pub(super) fn prepare(&self, stack: ColouredStack, body: Body) {
        self.stack.set(Some(stack));
        self.body.set(Some(body));
    }

    /// The stack of a fiber that has ended, or was never entered.
    pub(super) fn reclaim(&self) -> Option<ColouredStack> {
        drop(self.body.take());
        self.stack.take()
    }

    /// From the root into the fiber. Returns when some fiber leaves to the root.
    ///
    /// # Safety
    /// The fiber was prepared or has left, and has not ended; no fiber of this root has control;
    /// it stays where it is until it is reclaimed. All is on one thread.
    pub(super) unsafe fn enter(&self, root: &Root) {
        self.enter_once();
        while let Some(next) = root.next.take() {
            // SAFETY: Who handed over said that `next` may be entered, and had control until now.
            unsafe { next.as_ref() }.enter_once();
        }
    }

    fn enter_once(&self) {
        let begun = self.inner.take().or_else(|| self.begin());
        let mut inner = begun.expect("not entered after its end");
        match inner.resume(()) {
            CoroutineResult::Yield(()) => self.inner.set(Some(inner)),
            CoroutineResult::Return(()) => self.stack.set(Some(inner.into_stack())),
        }
    }

    fn begin(&self) -> Option<Inner> {
        let body = self.body.take()?;
        let this = NonNull::from(self);
        Some(Inner::with_stack(self.stack.take()?, move |yielder: &Yielder, ()| {
            // SAFETY: The fiber stays where it is (`enter`).
            unsafe { this.as_ref() }.yielder.set(Some(NonNull::from(yielder)));
            body();
        }))
    }

    /// From the fiber, which has control, to the root. Returns when it is entered again.
    ///
    /// # Safety
    /// The fiber has control, and was entered through `root` or from a fiber that was.
    pub(super) unsafe fn leave(&self, _root: &Root) {
        let yielder = self.yielder.get().expect("the body has begun");
        // SAFETY: The pointer was made from the reference that the coroutine's body was called
        // with, and that body has control.
        unsafe { yielder.as_ref() }.suspend(());
    }

    /// From this fiber, which has control, to `other`. Returns when it is entered again.
    ///
    /// # Safety
    /// As for `leave` and, of `other`, as for `enter`.
    pub(super) unsafe fn hand_over(&self, other: &Fiber, root: &Root) {
        root.next.set(Some(NonNull::from(other)));
        // SAFETY: as the caller says.
        unsafe { self.leave(root) };
    }
}
