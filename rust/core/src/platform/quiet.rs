//! Panics that somebody catches and reports: their messages stay out of stderr.

use std::cell::Cell;
use std::panic::{set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// How many [`quietly`] this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// One [`quietly`].
struct Quiet;

impl Drop for Quiet {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Runs something whose panics on this thread are findings, shown with their schedules: the usual
/// hook, which prints a message and a backtrace, is not called for them.
pub fn quietly<R>(run: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if DEPTH.get() == 0 {
                usual(panic);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let _quiet = Quiet;
    run()
}
