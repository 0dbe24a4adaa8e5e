//! The native engine: a thread for each task.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::Duration;

use super::history;
use super::interpret::{Starter, run_task};
use super::load::{Program, ProgramError};
use super::result::{Handler, Options, RunResult, Watch};
use super::run::{Run, lock};
use crate::design::{Classic, Design, Spf, SpfRwlock};
use crate::mm::{Config, Kernel};
use crate::platform::native::{Cpu, Machine, catch};
use crate::platform::{Finding, TaskId};

/// How often the run is asked whether it was told to end.
const WATCH_INTERVAL: Duration = Duration::from_millis(5);
/// Bytes of a task's stack: the kernel's own are 16 KiB, but Rust's debug frames are large.
const STACK_SIZE: usize = 1 << 20;

/// Runs `program` with real threads and waits for it to end.
///
/// Each task has a CPU of its own: the numbers of CPUs and tasks in `config` are not used.
/// `Err`: the memory does not even suffice for an empty address space.
pub fn run(
    program: &Arc<Program>,
    handler: Handler,
    config: Config,
    options: &Options,
    watch: &Arc<Watch>,
) -> Result<RunResult, ProgramError> {
    match handler {
        Handler::Classic => run_design::<Classic>(program, config, options, watch),
        Handler::Spf => run_design::<Spf>(program, config, options, watch),
        Handler::SpfRwlock => run_design::<SpfRwlock>(program, config, options, watch),
    }
}

fn run_design<D: Design>(
    program: &Arc<Program>,
    config: Config,
    options: &Options,
    watch: &Arc<Watch>,
) -> Result<RunResult, ProgramError> {
    let nr_tasks = program.nr_tasks();
    let machine = Machine::with_pace(nr_tasks, options.pace);
    let kernel = Kernel::<Cpu, D>::new(Config { nr_cpus: nr_tasks, nr_tasks, ..config });
    let run = Run::new(program, options, watch);
    let first = run.first_task();
    let booted = catch(&machine, || run.boot(&kernel, &machine.cpu(first, first)));
    let booted = booted.transpose()?;
    let started = machine.now_ns();
    if booted.is_some() {
        run_threads(program, &machine, &kernel, &run);
    }
    let elapsed_ns = machine.now_ns() - started;
    let interrupted = watch.is_stopped();
    if !interrupted && !machine.is_stopped() && run.has_ended() {
        shut_down(&machine, &kernel, &run);
    }
    if options.history && !machine.is_stopped() {
        let seen = history::check(&run.take_history(), kernel.config.arch.exec_only);
        seen.into_iter().for_each(|finding| machine.report(finding));
    }
    let finding = machine.finding();
    Ok(RunResult { finding, interrupted, ..run.finish(&kernel, elapsed_ns) })
}

/// How many tasks run, for whoever waits until none does.
#[derive(Default)]
struct Gate {
    nr_running: Mutex<u32>,
    all_ended: Condvar,
}

impl Gate {
    /// Waits until no task runs; ends the run when it is told to.
    fn wait(&self, machine: &Machine, watch: &Watch) {
        let mut nr_running = lock(&self.nr_running);
        while *nr_running > 0 {
            let waited = self.all_ended.wait_timeout(nr_running, WATCH_INTERVAL);
            nr_running = waited.unwrap_or_else(PoisonError::into_inner).0;
            if watch.is_stopped() && !machine.is_stopped() {
                machine.stop();
            }
        }
    }

    fn leave(&self) {
        let mut nr_running = lock(&self.nr_running);
        *nr_running -= 1;
        if *nr_running == 0 {
            self.all_ended.notify_all();
        }
    }
}

/// What starts the threads of a run.
struct Threads<'scope, 'env, D: Design> {
    scope: &'scope Scope<'scope, 'env>,
    machine: &'env Arc<Machine>,
    kernel: &'env Kernel<Cpu, D>,
    run: &'env Run<Cpu>,
    gate: &'env Gate,
}

impl<D: Design> Clone for Threads<'_, '_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Design> Copy for Threads<'_, '_, D> {}

impl<D: Design> Threads<'_, '_, D> {
    fn spawn(self, task: TaskId) {
        *lock(&self.gate.nr_running) += 1;
        let body = move || {
            catch(self.machine, || {
                let cpu = self.machine.cpu(task, task);
                run_task(self.kernel, &cpu, self.run, &self);
            });
            self.gate.leave();
        };
        let thread = thread::Builder::new().stack_size(STACK_SIZE);
        if let Err(error) = thread.spawn_scoped(self.scope, body) {
            let what = format!("the thread of task {task} cannot be started: {error}");
            self.machine.report(Finding { invariant: "panic", what });
            self.gate.leave();
        }
    }
}

impl<D: Design> Starter<Cpu> for Threads<'_, '_, D> {
    fn start(&self, _cpu: &Cpu, child: TaskId) {
        self.spawn(child);
    }
}

fn run_threads<'env, D: Design>(
    program: &Arc<Program>,
    machine: &'env Arc<Machine>,
    kernel: &'env Kernel<Cpu, D>,
    run: &'env Run<Cpu>,
) {
    let gate = Gate::default();
    thread::scope(|scope| {
        let threads = Threads { scope, machine, kernel, run, gate: &gate };
        for task in program.first_tasks() {
            threads.spawn(task);
        }
        gate.wait(machine, &run.watch);
    });
}

/// Takes the system down, and checks what is left of it.
fn shut_down<D: Design>(machine: &Arc<Machine>, kernel: &Kernel<Cpu, D>, run: &Run<Cpu>) {
    catch(machine, || {
        let first = run.first_task();
        let cpu = machine.cpu(first, first);
        run.shutdown(kernel, &cpu);
        cpu.rcu_barrier();
        kernel.run_rcu_callbacks(&cpu);
        if run.options.check
            && let Some(finding) = kernel.check_nothing_left().into_iter().next()
        {
            machine.report(finding);
        }
    });
}

#[cfg(test)]
#[path = "../../tests/unit/program/native.rs"]
mod tests;
