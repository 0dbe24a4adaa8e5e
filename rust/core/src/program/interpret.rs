//! The interpreter: what one task does, on whatever platform.

use std::fmt;
use std::sync::atomic::Ordering;

use super::op::{Op, Repeat};
use super::record::{OUTCOME_BYTES, Outcome};
use super::result::{Last, Options};
use super::run::{Run, TaskEnd};
use super::sync::Stop;
use crate::design::Design;
use crate::events::{NR_EVENTS, Span};
use crate::mm::{Kernel, MmRef};
use crate::platform::{Hazard, Platform, TaskId};

/// Operations between two reports of progress.
const PROGRESS_STEP: u64 = 256;

/// What brings a task to life when a fork, vfork or clone has made it. Its start was announced
/// already: a platform whose tasks all exist from the beginning, in [`run_task`], needs nothing.
pub trait Starter<P: Platform> {
    fn start(&self, cpu: &P, child: TaskId);
}

impl<P: Platform> Starter<P> for () {
    fn start(&self, _cpu: &P, _child: TaskId) {}
}

/// Runs the current task of `cpu`: waits until it is started, then executes its operations.
///
/// Returns when it has ended, waits for ever, was never started, or the run is over.
pub fn run_task<P: Platform, D: Design>(
    k: &Kernel<P, D>,
    cpu: &P,
    run: &Run<P>,
    starter: &impl Starter<P>,
) {
    if run.sync.await_start(cpu).is_err() {
        return;
    }
    let task = &run.program.tasks[cpu.task() as usize];
    let mut runner = TaskRun {
        k,
        cpu,
        run,
        starter,
        ops: &task.ops,
        index: 0,
        frames: Vec::new(),
        begun: vec![0; task.nr_repeats as usize],
        end: TaskEnd::default(),
        unreported: 0,
        begin: 0,
    };
    let stop = runner.run();
    runner.report_progress();
    run.set_end(cpu.task(), std::mem::take(&mut runner.end));
    match stop {
        Stop::Exit | Stop::Killed | Stop::Sigkill => runner.exit(),
        // Nobody looks at this address space again but for its maps.
        Stop::Stuck | Stop::NeverStarted | Stop::Over => {}
    }
}

/// A `repeat` that is being executed.
struct Frame {
    repeat: Repeat,
    /// Rounds still allowed.
    left: u64,
    /// No round begins at this time or later.
    deadline: u64,
}

/// A task at work.
pub(super) struct TaskRun<'r, P: Platform, D: Design, S> {
    pub k: &'r Kernel<P, D>,
    pub cpu: &'r P,
    pub run: &'r Run<P>,
    pub starter: &'r S,
    pub(super) ops: &'r [Op],
    /// The operation that is next, or is being executed.
    pub index: usize,
    frames: Vec<Frame>,
    /// For each repeat of the task: rounds begun, over all times that it ran.
    begun: Vec<u64>,
    pub end: TaskEnd,
    /// Operations not yet added to the run's progress.
    unreported: u64,
    /// When the current operation or access began, for the history.
    pub begin: u64,
}

impl<P: Platform, D: Design, S: Starter<P>> TaskRun<'_, P, D, S> {
    fn run(&mut self) -> Stop {
        loop {
            let Some(&op) = self.ops.get(self.index) else { return Stop::Exit };
            let next = match op {
                Op::Repeat(repeat) => Ok(self.begin_repeat(repeat)),
                Op::End { repeat } => Ok(self.end_round(repeat as usize)),
                _ => self.execute(&op).map(|()| self.index + 1),
            };
            match next {
                Ok(next) => self.index = next,
                Err(stop) => return stop,
            }
        }
    }

    /// Enters a repeat; returns the index of what is next.
    fn begin_repeat(&mut self, repeat: Repeat) -> usize {
        let deadline = match repeat.for_ns {
            0 => u64::MAX,
            for_ns => self.cpu.now_ns().saturating_add(for_ns),
        };
        self.frames.push(Frame { repeat, left: repeat.count, deadline });
        self.next_round()
    }

    /// A round of the innermost repeat, which begins at `start`, is done.
    fn end_round(&mut self, start: usize) -> usize {
        let Op::Repeat(repeat) = self.ops[start] else { unreachable!("matched when loaded") };
        self.end.rounds += u64::from(repeat.for_ns > 0);
        self.index = start;
        self.next_round()
    }

    /// Begins a round of the innermost repeat, whose index is `self.index`, or leaves it.
    fn next_round(&mut self) -> usize {
        let now = self.cpu.now_ns();
        let frame = self.frames.last_mut().expect("inside a repeat");
        if frame.left == 0 || now >= frame.deadline {
            let end = frame.repeat.end as usize;
            self.frames.pop();
            return end + 1;
        }
        frame.left -= 1;
        self.begun[frame.repeat.ordinal as usize] += 1;
        self.index + 1
    }

    /// How often the current operation ran before: each round runs it once.
    pub fn round(&self) -> u64 {
        match self.frames.last() {
            Some(frame) => self.begun[frame.repeat.ordinal as usize] - 1,
            None => 0,
        }
    }

    fn execute(&mut self, op: &Op) -> Result<(), Stop> {
        // An operation begins when it need not wait for its address any more.
        let base = match op.awaited_id() {
            Some(id) => self.run.sync.id(self.cpu, id)?,
            None => 0,
        };
        let resolved;
        let op = match op.second_id() {
            None => op,
            Some(id) => {
                resolved = op.with_second(self.run.sync.id(self.cpu, id)?);
                &resolved
            }
        };
        if op.is_synchronisation() {
            self.boundary(P::synchronisation_boundary)?;
        } else {
            self.operation_boundary()?;
        }
        if self.cpu.lets_happen(Hazard::TlbRefill) {
            self.look_ahead();
        }
        let _step = self.cpu.step(op.name());
        self.cpu.enter(Span::Operation(op.name()));
        let done = match op {
            Op::Access(access) => {
                self.access(access, base);
                Ok(())
            }
            Op::Touch(touch) => self.touch(touch, base),
            _ => self.system_call(op, base),
        };
        self.cpu.leave("");
        self.check_between_operations();
        done
    }

    /// The task is in the middle of nothing: what must hold when nobody is?
    fn check_between_operations(&self) {
        if self.cpu.ends_operation()
            && let Some(finding) = self.k.check_between_operations()
        {
            self.cpu.finding(finding.invariant, finding.what);
        }
    }

    /// Between two operations, and two accesses of a `touch`: what waited for a grace period runs
    /// here.
    pub fn operation_boundary(&self) -> Result<(), Stop> {
        self.boundary(P::operation_boundary)?;
        self.k.run_rcu_callbacks(self.cpu);
        Ok(())
    }

    /// Where the run, or another task's exec, ends the current one.
    fn boundary(&self, goes_on: impl FnOnce(&P) -> bool) -> Result<(), Stop> {
        self.check_between_operations();
        if !goes_on(self.cpu) {
            return Err(Stop::Over);
        }
        if self.run.sync.is_killed(self.cpu) { Err(Stop::Killed) } else { Ok(()) }
    }

    /// The counters of the current task, if outcomes are kept.
    #[inline]
    pub fn counters(&self) -> Option<[u64; NR_EVENTS]> {
        self.run.options.record.then(|| self.k.current(self.cpu).counters.snapshot())
    }

    /// Keeps an outcome of the current operation, which began when the counters were `before`.
    #[inline]
    pub fn record(&mut self, op: &Op, before: Option<[u64; NR_EVENTS]>, outcome: Outcome) {
        self.unreported += 1;
        if self.unreported == PROGRESS_STEP {
            self.report_progress();
        }
        let Some((before, after)) = before.zip(self.counters()) else { return };
        let outcome = Outcome {
            task: self.cpu.task(),
            index: self.index as u32,
            round: self.round(),
            op: op.code(),
            counters: std::array::from_fn(|event| (after[event] - before[event]) as u32),
            ..outcome
        };
        if self.end.outcomes.try_reserve(OUTCOME_BYTES).is_err() {
            self.run.watch.refuse("no memory for more outcomes".into());
            return;
        }
        outcome.write(&mut self.end.outcomes);
    }

    fn report_progress(&mut self) {
        let done = std::mem::take(&mut self.unreported);
        let before = self.run.watch.operations.fetch_add(done, Ordering::Relaxed);
        self.check_nr_outcomes(before + done, format_args!(""));
    }

    /// Refuses the run if it keeps more outcomes than it may; returns whether it may. `whose`: what
    /// is said before that.
    pub fn check_nr_outcomes(&self, outcomes: u64, whose: fmt::Arguments<'_>) -> bool {
        let Options { record, max_outcomes, .. } = self.run.options;
        let may = !record || outcomes <= max_outcomes;
        if !may {
            let what = format!(
                "{whose}more than {max_outcomes} outcomes to keep (allowed: {max_outcomes}, by \
                 max_outcomes; none are kept with record=False, or by 'spfemu stat' without --by)"
            );
            self.run.watch.refuse(what);
        }
        may
    }

    /// Ends the task: the last of a process leaves its maps, the last of an mm frees it.
    fn exit(&self) {
        self.cpu.begins_end();
        let _step = self.cpu.step("do_exit");
        let is_alone = self.run.sync.nobody_else_runs() && !self.cpu.callback_runs();
        if self.run.options.check_before_exit && is_alone {
            // Before any grace period ends: what was unmapped is closed already.
            let open = self.k.check_files_closed().next();
            self.k.run_rcu_callbacks(self.cpu);
            if let Some(finding) = open.or_else(|| self.k.check_at_rest().into_iter().next()) {
                self.cpu.finding(finding.invariant, finding.what);
            }
        }
        if self.run.sync.leave(self.cpu) && self.run.options.last != Last::Nothing {
            let last = self.at_rest(|mm| self.run.options.last.of(self.k, mm));
            self.run.sync.set_last(self.cpu, last);
        }
        self.cpu.enter(Span::Operation("exit_mm"));
        self.k.exit_mm(self.cpu);
        self.cpu.leave("");
        self.k.run_rcu_callbacks(self.cpu);
        self.run.sync.ended(self.cpu);
    }

    /// The VMAs of the current address space, as /proc/PID/maps shows them.
    pub fn maps(&self) -> Vec<String> {
        self.at_rest(|mm| self.k.maps(mm))
    }

    /// Looks at the current address space while nothing changes its VMAs.
    fn at_rest<T>(&self, look: impl FnOnce(MmRef<'_, P>) -> T) -> T {
        let mm = self.k.current_mm(self.cpu);
        // With nobody else there, nothing can change, and no time need pass.
        let shared = mm.mm_users().peek() > 1;
        let guard = shared.then(|| self.k.mmap_sem(mm).read(self.cpu));
        let found = look(mm);
        drop(guard);
        found
    }
}
