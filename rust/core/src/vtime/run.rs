//! The engine: runs a program in virtual time.

use std::rc::Rc;
use std::sync::Arc;

use super::control::Stopped;
use super::cpu::Cpu;
use super::machine::Machine;
use super::queue::MAX_TASKS;
use super::recorder::Recorder;
use super::task::Task;
use super::world::World;
use crate::design::{Classic, Design, Spf, SpfRwlock};
use crate::mm::{Config, Kernel};
use crate::platform::coroutine::{Coroutine, Pause, StackPool, panic_text};
use crate::platform::{Finding, TaskId};
use crate::program::{Handler, Options, Program, ProgramError, Run, RunResult, Watch, run_task};

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub machine: Machine,
    /// How many of its CPUs take part; task n belongs to CPU n modulo this number.
    pub nr_cpus: u32,
    /// Decides between equal clocks, and how long each wake-up takes.
    pub seed: u64,
    /// How far, in nanoseconds, a CPU runs ahead on lines that it holds; 0: strict order.
    pub slack_ns: u64,
    /// An idle CPU is told of no flush, but of one that frees page tables: it looks at the
    /// generation before it runs anything.
    pub lazy_tlb: bool,
    /// The CPUs that take part are those over which the machine's scheduler spreads as many tasks,
    /// in that order ([`Machine::spread`]), not its first ones.
    pub spreading: bool,
}

/// Runs `program` in virtual time. Deterministic: program, handler, config and settings give the
/// same result, bit for bit.
///
/// `Err`: the memory does not even suffice for an empty address space, or no further stack can be
/// mapped.
pub fn run(
    program: &Arc<Program>,
    handler: Handler,
    config: Config,
    settings: &Settings,
    options: &Options,
    watch: &Arc<Watch>,
) -> Result<RunResult, ProgramError> {
    match handler {
        Handler::Classic => run_design::<Classic>(program, config, settings, options, watch),
        Handler::Spf => run_design::<Spf>(program, config, settings, options, watch),
        Handler::SpfRwlock => run_design::<SpfRwlock>(program, config, settings, options, watch),
    }
}

fn run_design<D: Design>(
    program: &Arc<Program>,
    config: Config,
    settings: &Settings,
    options: &Options,
    watch: &Arc<Watch>,
) -> Result<RunResult, ProgramError> {
    let nr_tasks = program.nr_tasks();
    if nr_tasks > MAX_TASKS {
        return Err(ProgramError(format!(
            "{nr_tasks} tasks (allowed in virtual time: up to {MAX_TASKS})"
        )));
    }
    let nr_cpus = settings.nr_cpus;
    let recorder = Recorder::new(options, nr_tasks);
    let world = Rc::new(World::new(settings, nr_tasks, watch, recorder));
    let mut config = Config { nr_cpus, nr_tasks, ..config };
    config.system.cpu_nodes = cpu_nodes(settings, config.system.nodes);
    let kernel = Rc::new(Kernel::<Cpu, D>::new(config));
    world.recorder.name_by(kernel.lines());
    let run = Rc::new(Run::new(program, options, watch));
    let outside = Rc::new(Task::new(run.first_task(), &StackPool::new(), 0));
    let boot_cpu = Cpu::new(run.first_task(), &world, &outside);
    run.boot(&kernel, &boot_cpu)?;
    let elapsed_ns = {
        let (kernel, run) = (Rc::clone(&kernel), Rc::clone(&run));
        let mut tasks = spawn(&world, move |cpu| run_task(&kernel, cpu, &run, &()))?;
        world.at_rest.set(false);
        let elapsed_ns = drive(&world, &mut tasks);
        world.at_rest.set(true);
        world.limit.set(0);
        elapsed_ns
    };
    let course = world.recorder.finish(nr_cpus, elapsed_ns);
    let interrupted = watch.is_stopped();
    let mut finding = world.take_finding();
    if finding.is_none() && !interrupted && run.has_ended() {
        run.shutdown(&kernel, &boot_cpu);
        if options.check {
            finding = kernel.check_nothing_left().into_iter().next();
        }
    }
    Ok(RunResult { finding, interrupted, course, ..run.finish(&kernel, elapsed_ns) })
}

/// The node of each CPU: sockets share the nodes evenly, in order.
fn cpu_nodes(settings: &Settings, nodes: u32) -> Vec<u32> {
    let Settings { ref machine, nr_cpus, spreading, .. } = *settings;
    let node = |nth| machine.place(machine.cpu(nth, spreading)).socket * nodes / machine.sockets;
    (0..nr_cpus).map(node).collect()
}

/// A coroutine for each task, that will run `body` on its CPU.
fn spawn(
    world: &Rc<World>,
    body: impl Fn(&Cpu) + Clone + 'static,
) -> Result<Vec<Coroutine>, ProgramError> {
    let nr_tasks = world.tasks.len() as TaskId;
    (0..nr_tasks)
        .map(|task| {
            let this = world.task(task);
            let cpu = Cpu::new(task, world, this);
            let body = body.clone();
            let whole = move || {
                cpu.take_clock();
                body(&cpu);
                cpu.end();
            };
            Coroutine::new(&this.switch, whole).map_err(|error| {
                ProgramError(format!(
                    "{nr_tasks} tasks: no stack for task {task} ({error}); each takes two maps of \
                     vm.max_map_count"
                ))
            })
        })
        .collect()
}

/// Resumes whoever is first, which hands over to who is then, until nobody is left. Returns the last
/// clock.
fn drive(world: &World, tasks: &mut [Coroutine]) -> u64 {
    while let Some(task) = world.dispatch(world.queue.pop()) {
        match tasks[task.id as usize].resume() {
            Pause::Suspended | Pause::Returned => {}
            Pause::Panicked(payload) if payload.is::<Stopped>() => break,
            Pause::Panicked(payload) => {
                world.report(Finding { invariant: "panic", what: panic_text(&payload) });
                break;
            }
        }
        if world.stopped.get() {
            break;
        }
    }
    let waiting = world.waiting();
    if !world.stopped.get() && !waiting.is_empty() {
        let waiting: Vec<_> = waiting.iter().map(|(t, how)| format!("{t} {how}")).collect();
        let what = format!("nobody can go on: tasks {}", waiting.join(", "));
        world.report(Finding { invariant: "deadlock", what });
    }
    world.tasks.iter().map(|task| task.clock.get()).max().unwrap_or(0)
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/run.rs"]
mod tests;
