//! Work that goes on without the GIL, while this thread looks after signals and progress.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;

use crate::error::Error;

/// How often signals and progress are looked after.
const TICK: Duration = Duration::from_millis(10);

/// Does `work` on a thread of its own. Meanwhile `look` is called now and then, with the GIL; if
/// it or a signal handler raises, `stop` is called, and what was raised comes out when the work
/// has ended. What the work has come to by then goes to `cut`, which may add it to what was raised.
pub fn watched<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
    stop: impl Fn(),
    mut look: impl FnMut(Python<'_>) -> PyResult<()>,
    cut: impl FnOnce(Python<'_>, &PyErr, T),
) -> PyResult<T> {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        // A lock only because what is used without the GIL must be shareable.
        let is_done = Mutex::new(is_done);
        let wait = || is_done.lock().expect("only this thread waits").recv_timeout(TICK);
        let engine = scope.spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            done.send(result).ok();
        });
        loop {
            match py.detach(wait) {
                Ok(Ok(result)) => return result.map_err(|error| error.into_py(py)),
                Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                    let what = "the engine panicked; see standard error".to_owned();
                    return Err(Error::Engine(what).into_py(py));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(raised) = py.check_signals().and_then(|()| look(py)) {
                stop();
                py.detach(|| engine.join()).ok();
                if let Ok(Ok(Ok(result))) = py.detach(wait) {
                    cut(py, &raised, result);
                }
                return Err(raised);
            }
        }
    })
}
