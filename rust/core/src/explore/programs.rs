//! Programs under the explorer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::MemoryModel;
use super::attribution::Case;
use super::cpu::Cpu;
use super::explainer::{Explanation, WhichFault};
use super::explorer::{Explorer, Subject, name_of_task};
use super::hazards::Hazards;
use super::options::{ExploreOptions, Search};
use super::report::ExploreReport;
use super::token::fingerprint;
use crate::design::{Classic, Design, Spf, SpfRwlock};
use crate::mm::{Config, Kernel, Variant};
use crate::platform::{Finding, Hazard, LIVELOCK_FAULTS, Lines, Platform, quietly};
use crate::program::history;
use crate::program::{
    Handler, Last, Options, Program, ProgramError, Run, RunResult, Watch, run_task,
};

/// A program on a kernel of design `D`.
struct ProgramSubject<D: Design> {
    kernel: Kernel<Cpu, D>,
    program: Arc<Program>,
    options: Options,
    watch: Arc<Watch>,
    run: RefCell<Option<Rc<Run<Cpu>>>>,
    fingerprint: u64,
    task_names: Vec<String>,
}

impl<D: Design> ProgramSubject<D> {
    fn new(
        program: &Arc<Program>,
        config: &Config,
        options: Options,
        watch: &Arc<Watch>,
        fingerprint: u64,
        hazards: Hazards,
        lines: Lines,
    ) -> Self {
        // The softirq is one beside those of the program.
        let nr_tasks = program.nr_tasks() + u32::from(hazards.has(Hazard::Softirq));
        let config = Config { nr_cpus: nr_tasks, nr_tasks, ..config.clone() };
        Self {
            kernel: Kernel::with_lines(config, lines),
            program: Arc::clone(program),
            options,
            watch: Arc::clone(watch),
            run: RefCell::default(),
            fingerprint,
            task_names: Vec::new(),
        }
    }

    fn run(&self) -> Rc<Run<Cpu>> {
        Rc::clone(self.run.borrow().as_ref().expect("a schedule has begun"))
    }
}

impl<D: Design> Subject for ProgramSubject<D> {
    fn nr_tasks(&self) -> u32 {
        self.kernel.config.nr_tasks
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn lines(&self) -> Option<Arc<Lines>> {
        Some(Arc::clone(self.kernel.lines()))
    }

    fn reset(&self, cpus: &[Rc<Cpu>]) {
        self.kernel.reset();
        let run = Run::new(&self.program, &self.options, &self.watch);
        let booted = run.boot(&self.kernel, &cpus[run.first_task() as usize]);
        booted.expect("booted before with the same memory");
        *self.run.borrow_mut() = Some(Rc::new(run));
    }

    fn run_task(&self, cpu: &Cpu) {
        if cpu.task() == self.program.nr_tasks() {
            let _step = cpu.step("run_ksoftirqd");
            cpu.run_ksoftirqd(|| self.kernel.run_rcu_callbacks(cpu));
        } else {
            run_task(&self.kernel, cpu, &self.run(), &());
        }
    }

    fn check(&self, cpus: &[Rc<Cpu>]) -> Vec<Finding> {
        let run = self.run();
        if !run.has_ended() {
            let stuck: Vec<_> =
                run.stuck().iter().map(|&task| name_of_task(&self.task_names, task)).collect();
            let what = format!("these wait for ever: {}", stuck.join(", "));
            return vec![Finding { invariant: "stuck", what }];
        }
        run.shutdown(&self.kernel, &cpus[run.first_task() as usize]);
        let mut findings = self.kernel.check_nothing_left();
        if self.options.history {
            findings.extend(history::check(&run.take_history(), self.kernel.config.arch.exec_only));
        }
        findings
    }
}

/// Explores the interleavings of a program's tasks. `watch` has the number of schedules so far.
///
/// Errors: more than 64 tasks, a `repeat` without an end, too little memory to boot, a token that
/// does not fit. Determinism: all arguments and the version.
pub fn explore(
    program: &Arc<Program>,
    handler: Handler,
    config: &Config,
    options: &ExploreOptions,
    watch: &Arc<Watch>,
) -> Result<ExploreReport, ProgramError> {
    if program.nr_operations(config.arch.page_size()).is_none() {
        let why = "key 'max_count': missing (needed on explore, which has no clock)";
        return Err(ProgramError(why.to_owned()));
    }
    let explored = || match handler {
        Handler::Classic => explore_design::<Classic>(program, config, options, watch),
        Handler::Spf => explore_design::<Spf>(program, config, options, watch),
        Handler::SpfRwlock => explore_design::<SpfRwlock>(program, config, options, watch),
    };
    // A panic of the protocol is a finding. Who replays it sees the backtrace.
    if matches!(options.search, Search::Replay(_)) { explored() } else { quietly(explored) }
}

fn explore_design<D: Design>(
    program: &Arc<Program>,
    config: &Config,
    options: &ExploreOptions,
    watch: &Arc<Watch>,
) -> Result<ExploreReport, ProgramError> {
    let case = |config: &Config, options: &ExploreOptions| {
        // Threads tell each other what steps have touched.
        let lines = Lines::default();
        let make = || explorer::<D>(program, config, options, watch, lines.beside());
        Ok(make()?.explore_with(&|| make().ok()))
    };
    let mut report = case(config, options)?;
    let known = Case { config, options, explore: &case };
    for violation in &mut report.violations {
        violation.entry = known.entry_of(violation)?;
    }
    Ok(report)
}

fn explorer<D: Design>(
    program: &Arc<Program>,
    config: &Config,
    options: &ExploreOptions,
    watch: &Arc<Watch>,
    lines: Lines,
) -> Result<Explorer<ProgramSubject<D>>, ProgramError> {
    // A setting that is not given leaves the tokens as they were before there was one.
    let absent = ["x86_memory_protection_keys: None, ", "cpu_nodes: [], "];
    let config_text =
        absent.iter().fold(format!("{config:?}"), |text, setting| text.replace(setting, ""));
    let mut of = format!("{} {program:?} {config_text} {:?}", D::NAME, options.mutants);
    if options.memory_model != MemoryModel::Sc {
        of += options.memory_model.name();
    }
    if !options.hazards.is_empty() {
        of += &options.hazards.names();
    }
    let fingerprint = fingerprint(of.as_bytes());
    let run = Options {
        record: false,
        last: Last::Nothing,
        check_before_exit: true,
        history: true,
        ..Options::default()
    };
    let task_names = options.task_names.clone();
    let hazards = options.hazards;
    let subject =
        ProgramSubject::<D>::new(program, config, run, watch, fingerprint, hazards, lines);
    let subject = ProgramSubject { task_names, ..subject };
    boot_once(&subject)?;
    let explorer = Explorer::new(Rc::new(subject), options.clone(), watch).map_err(ProgramError)?;
    let are_exclusive = !config.variants.v12(Variant::B1) && options.mutants.is_empty();
    explorer.check_sections(are_exclusive);
    Ok(explorer)
}

/// Whether there is memory to boot, tried once.
fn boot_once<D: Design>(subject: &ProgramSubject<D>) -> Result<(), ProgramError> {
    let run = Run::new(&subject.program, &subject.options, &subject.watch);
    let cpu = Cpu::at_rest(run.first_task(), subject.nr_tasks());
    run.boot(&subject.kernel, &cpu)
}

/// Runs one schedule of a program and gives its result as other engines do: 0 as `seed` is the
/// schedule in which each task goes on until it waits or ends, any other draws one.
///
/// There is no clock, so `elapsed_ns` is 0. Errors and determinism as in [`explore`]; a program
/// without an end runs until `watch` ends it.
pub fn run_once(
    program: &Arc<Program>,
    handler: Handler,
    config: &Config,
    seed: u64,
    options: &Options,
    watch: &Arc<Watch>,
) -> Result<RunResult, ProgramError> {
    Ok(explain(program, handler, config, seed, options, None, watch)?.0)
}

/// As [`run_once`], and what one fault of that run did.
pub fn explain(
    program: &Arc<Program>,
    handler: Handler,
    config: &Config,
    seed: u64,
    options: &Options,
    which: Option<WhichFault>,
    watch: &Arc<Watch>,
) -> Result<(RunResult, Explanation), ProgramError> {
    let run = match handler {
        Handler::Classic => run_once_design::<Classic>,
        Handler::Spf => run_once_design::<Spf>,
        Handler::SpfRwlock => run_once_design::<SpfRwlock>,
    };
    run(program, config, seed, options, which, watch)
}

fn run_once_design<D: Design>(
    program: &Arc<Program>,
    config: &Config,
    seed: u64,
    options: &Options,
    which: Option<WhichFault>,
    watch: &Arc<Watch>,
) -> Result<(RunResult, Explanation), ProgramError> {
    let (none, lines) = (Hazards::default(), Lines::default());
    let subject = ProgramSubject::<D>::new(program, config, options.clone(), watch, 0, none, lines);
    boot_once(&subject)?;
    let subject = Rc::new(subject);
    let search = if seed == 0 { Search::Again(Vec::new()) } else { Search::Random { seed } };
    let explore = ExploreOptions {
        search,
        max_steps: u64::MAX,
        livelock_faults: LIVELOCK_FAULTS,
        ..ExploreOptions::default()
    };
    let mut explorer = Explorer::new(Rc::clone(&subject), explore, watch).map_err(ProgramError)?;
    let (finding, explanation) = explorer.run_one(which);
    let finding = finding.filter(|finding| finding.invariant != "stuck");
    let result = subject.run().finish(&subject.kernel, 0);
    Ok((RunResult { finding, interrupted: watch.is_stopped(), ..result }, explanation))
}

#[cfg(test)]
#[path = "../../tests/unit/explore/programs.rs"]
mod tests;

#[cfg(test)]
#[path = "../../tests/unit/explore/huge_pages.rs"]
mod huge_pages;
