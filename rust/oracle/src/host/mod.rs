//! One run on a host whose kernel we know how to drive.

mod access;
mod calls;
mod child;
mod counters;
mod decode;
mod ends;
mod files;
mod island;
mod op;
mod procfs;
mod sys;
mod tasks;
mod tracer;
mod waits;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use spfemu_core::program::{ProgramSpec, RunResult, Watch};

use self::child::Image;
use self::files::Files;
use self::op::{Op, RangeCall, TaskProgram};
use self::sys::Pid;
use self::tasks::{Host, Run};
use self::tracer::{Fail, STOP, Tracer};
use crate::{Error, HostRun, Settings};

/// How often the run is asked whether it was told to end.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);

/// Runs a program on the host's kernel and waits for it to end. Whatever happens, no process is
/// left.
pub fn run(spec: &ProgramSpec<'_>, settings: &Settings, watch: &Watch) -> Result<HostRun, Error> {
    let programs = decode::tasks(spec).map_err(Error::Program)?;
    let island = island::place(&literal_ranges(&programs));
    let started = Instant::now();
    let result = run_in(spec, &programs, island, settings, watch);
    let elapsed_ns = started.elapsed().as_nanos() as u64;
    match result {
        Ok(run) => Ok(HostRun { result: RunResult { elapsed_ns, ..run.result }, ..run }),
        Err(Fail::Over) if watch.is_stopped() => {
            let result = RunResult { elapsed_ns, interrupted: true, ..RunResult::default() };
            Ok(HostRun { result, counting: settings.counting, island, turns: Vec::new() })
        }
        Err(Fail::Over) => {
            let seconds = settings.timeout.as_secs_f64();
            Err(Error::Host(format!("the program had not ended after {seconds} s and was killed")))
        }
        Err(Fail::Refused(what)) => Err(Error::Program(what)),
        Err(Fail::Host(what)) => Err(Error::Host(what)),
    }
}

/// Runs it in processes whose page of ours lies at `island`.
fn run_in(
    spec: &ProgramSpec<'_>,
    programs: &[TaskProgram],
    island: u64,
    settings: &Settings,
    watch: &Watch,
) -> Result<HostRun, Fail> {
    let max_memory = match settings.max_memory {
        Some(most) => most,
        None => procfs::available().map_err(Fail::of("/proc/meminfo"))? / 2,
    };
    let (files, image, sentinel) = start(spec, island)?;
    let mut tracer = Tracer::new(sentinel, island);
    let over = AtomicBool::new(false);
    let mut live = Vec::new();
    let result = tracer.check_start().and_then(|()| {
        watched(sentinel, settings.timeout, watch, &over, || {
            let tracer = &mut tracer;
            let host =
                Host { tracer, files: &files, image: &image, over: &over, watch, max_memory };
            let mut run = Run::new(spec, programs, host, settings.counting);
            let result = run.run();
            live = run.live_processes();
            result.map(|()| run.finish()).map_err(|fail| run.placed(fail))
        })
    });
    tracer.kill_all(live);
    result
}

fn start(spec: &ProgramSpec<'_>, island: u64) -> Result<(Files, Image, Pid), Fail> {
    let files = Files::new(&spec.files)?;
    let image = Image::new(island).map_err(Fail::of("memfd_create"))?;
    let mut kept = files.fds();
    kept.push(image.fd());
    let sentinel = child::start(&image, &kept)
        .map_err(Fail::of("a traced child process cannot be started here (ptrace, execveat)"))?;
    Ok((files, image, sentinel))
}

/// Does `work` while another thread looks at the clock and at `watch`; when time is up, or the run
/// was told to end, it sets `over` and wakes whoever waits for a child.
fn watched<T>(
    sentinel: Pid,
    timeout: Duration,
    watch: &Watch,
    over: &AtomicBool,
    work: impl FnOnce() -> T,
) -> T {
    let done = (Mutex::new(false), Condvar::new());
    let deadline = Instant::now().checked_add(timeout);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut is_done = done.0.lock().unwrap_or_else(PoisonError::into_inner);
            while !*is_done {
                let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if (is_late || watch.is_stopped()) && !over.swap(true, Ordering::Relaxed) {
                    // It is reaped only after this thread has ended.
                    sys::kill(sentinel, STOP);
                }
                let waited = done.1.wait_timeout(is_done, WATCH_INTERVAL);
                is_done = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        });
        // Also if the work panics, or the thread above would wait for ever.
        let _done = Done(&done);
        work()
    })
}

/// Tells the watching thread that the work is done.
struct Done<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Done<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

/// The ranges that operations name by numbers, which our page should keep out of. Calls that can be
/// made in two parts around it do not count.
fn literal_ranges(programs: &[TaskProgram]) -> Vec<(u64, u64)> {
    let ops = programs.iter().flat_map(|task| &task.ops);
    let found = ops.filter_map(|(op, _)| match *op {
        Op::Mmap(mmap) => Some((mmap.hint?, mmap.length)),
        Op::Range(RangeCall::Munmap | RangeCall::Mprotect(_) | RangeCall::Madvise(_), _) => None,
        Op::Range(_, range) => Some((range.at, range.length)),
        Op::Touch(touch) => Some((touch.range.at, touch.range.length)),
        Op::Access { at, .. } => Some((at, 1)),
        _ => None,
    });
    let numbers = found.filter(|(at, _)| at.id.is_none());
    numbers.map(|(at, length)| (at.offset as u64, length)).collect()
}
