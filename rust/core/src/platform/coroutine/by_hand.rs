//! Fibers by hand: six instructions each way, and from one to another without a detour over the
//! thread's own stack. x86-64 with the System V calling convention.

use std::arch::{asm, naked_asm};
use std::cell::Cell;
use std::ptr;

use corosensei::stack::Stack;

use super::{Body, ColouredStack};

/// A stack that does not run: where its top is, below which its registers are.
struct Context(Cell<*mut u64>);

impl Default for Context {
    fn default() -> Self {
        Self(Cell::new(ptr::null_mut()))
    }
}

/// The stack of the thread itself.
#[derive(Default)]
pub(super) struct Root(Context);

/// A body on a stack of its own.
#[derive(Default)]
#[repr(C)]
pub(super) struct Fiber {
    context: Context,
    /// Where the end of the body leads.
    root: Cell<*const Root>,
    body: Cell<Option<Body>>,
    stack: Cell<Option<ColouredStack>>,
}

impl Fiber {
    /// Gets the stack ready for `body`, which runs once the fiber is entered.
    pub(super) fn prepare(&self, stack: ColouredStack, body: Body) {
        // What `switch` takes from a stack: where to go on, rbx, rbp.
        let begin = start as *const () as u64;
        let frame = [begin, ptr::from_ref(self) as u64, 0];
        let top = stack.base().get() as *mut [u64; 3];
        // SAFETY: (1) The three words are within the stack, for that is larger, and nothing else
        // is on it: the fiber that had it before has ended. (2) They are aligned, as `base` is.
        let frame_at = unsafe {
            let frame_at = top.sub(1);
            frame_at.write(frame);
            frame_at
        };
        self.context.0.set(frame_at.cast());
        self.body.set(Some(body));
        self.stack.set(Some(stack));
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
    #[inline(always)]
    pub(super) unsafe fn enter(&self, root: &Root) {
        self.root.set(root);
        // SAFETY: `self` was saved by `prepare` or by `switch`, and its stack is not running.
        unsafe { switch(&root.0, &self.context) };
    }

    /// From the fiber, which has control, to the root. Returns when it is entered again.
    ///
    /// # Safety
    /// The fiber has control, and was entered through `root` or from a fiber that was.
    #[inline(always)]
    pub(super) unsafe fn leave(&self, root: &Root) {
        // SAFETY: The root was saved when the first fiber was entered, and is not running.
        unsafe { switch(&self.context, &root.0) };
    }

    /// From this fiber, which has control, to `other`. Returns when it is entered again.
    ///
    /// # Safety
    /// As for `leave` and, of `other`, as for `enter`.
    #[inline(always)]
    pub(super) unsafe fn hand_over(&self, other: &Fiber, root: &Root) {
        other.root.set(root);
        // SAFETY: `other` was saved by `prepare` or by `switch`, and its stack is not running.
        unsafe { switch(&self.context, &other.context) };
    }
}

/// Saves the running stack in `from`, and goes on where `to` was saved.
///
/// # Safety
/// `to` was saved here, or is as `Fiber::prepare` leaves it, and was not gone on with since; its
/// stack is still there. Whatever the code there uses is of this thread.
#[inline(always)]
unsafe fn switch(from: &Context, to: &Context) {
    // SAFETY: (1) Every register that the calling convention knows is saved or said to be
    // overwritten: rbx and rbp, which cannot be named, are on the stack. The control words of the
    // floating-point units stay as they are, for nobody changes them. (2) Pushing is allowed, as
    // `nostack` is not given. (3) Both ends jump, rather than call and return, so that the
    // processor's stack of return addresses stays as good as it may.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "push rbp",
            "push rbx",
            "push rax",
            "mov [rdi], rsp",
            "mov rsp, [rsi]",
            "pop rax",
            "pop rbx",
            "pop rbp",
            "jmp rax",
            "2:",
            inout("rdi") from.0.as_ptr() => _,
            inout("rsi") to.0.as_ptr() => _,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
}

/// The first instructions on a stack. Nothing is above them, which a backtrace should know.
///
/// # Safety
/// Only `switch` may go here, with a stack that `Fiber::prepare` made: rbx is the fiber.
#[unsafe(naked)]
unsafe extern "sysv64" fn start() -> ! {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        "mov rdi, rbx",
        "call {run}",
        "ud2",
        ".cfi_endproc",
        run = sym run,
    )
}

/// Runs the body of the fiber, which catches its panics, and leaves for ever.
extern "sysv64" fn run(fiber: *const Fiber) -> ! {
    // SAFETY: `prepare` put the pointer there; the fiber stays where it is (`enter`).
    let fiber = unsafe { &*fiber };
    let body = fiber.body.take().expect("a fiber begins once");
    body();
    // SAFETY: `enter` or `hand_over` set the root, which waits, and lives as long as it has fibers.
    let root = unsafe { &*fiber.root.get() };
    // SAFETY: this fiber has control.
    unsafe { fiber.leave(root) };
    unreachable!("entered after its end");
}
