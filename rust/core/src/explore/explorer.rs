//! Runs schedule after schedule of one subject.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::coverage::Coverage;
use super::cpu::{AtRest, Cpu};
use super::crew::Make;
use super::dpor::Dpor;
use super::explainer::{Explanation, WhichFault};
use super::lessons::Lessons;
use super::machine::{End, MAX_TASKS, Machine};
use super::memory::{Memory, Model};
use super::options::{ExploreOptions, Search};
use super::report::ExploreReport;
use super::strategy::{Dfs, Guided, Pct, Random, Replay, Strategy};
use super::tally::Tally;
use super::token::{Deviation, Token, fingerprint};
use super::touch::Pair;
use crate::platform::coroutine::{Coroutine, Pause, StackPool, Switch, panic_text};
use crate::platform::{Finding, Lines, TaskId};
use crate::program::Watch;

/// What is explored: tasks over shared words.
pub trait Subject: 'static {
    fn nr_tasks(&self) -> u32;
    /// A hash of all that the choices of a schedule depend on.
    fn fingerprint(&self) -> u64;
    /// Who can name the words.
    fn lines(&self) -> Option<Arc<Lines>>;
    /// Back to the beginning, whatever ran before. `cpus` are those of the tasks.
    fn reset(&self, cpus: &[Rc<Cpu>]);
    /// Runs the task of `cpu` to its end.
    fn run_task(&self, cpu: &Cpu);
    /// What is broken when all tasks have ended.
    fn check(&self, cpus: &[Rc<Cpu>]) -> Vec<Finding>;
}

/// What findings call a task, of those that have names.
pub(super) fn name_of_task(names: &[String], task: TaskId) -> String {
    names.get(task as usize).cloned().unwrap_or_else(|| format!("task {task}"))
}

/// One schedule that was run.
#[derive(Clone)]
pub(super) struct Schedule {
    pub(super) end: End,
    pub(super) findings: Vec<Finding>,
    pub(super) deviations: Vec<Deviation>,
    pub(super) preemptions: u32,
    pub(super) steps: u64,
    /// How many points it had.
    pub(super) points: u64,
    /// The kinds of racing accesses, if they are observed.
    pub(super) pairs: Vec<u64>,
    /// It leads to what another one does.
    pub(super) is_redundant: bool,
}

/// A subject with its CPUs.
pub struct Explorer<S: Subject> {
    pub(super) subject: Rc<S>,
    pub(super) machine: Rc<Machine>,
    cpus: Vec<Rc<Cpu>>,
    coroutines: Vec<Coroutine>,
    pub(super) options: ExploreOptions,
    pub(super) watch: Arc<Watch>,
}

impl<S: Subject> Explorer<S> {
    /// Errors: too many tasks, a token that does not fit, no memory for stacks.
    pub fn new(
        subject: Rc<S>,
        options: ExploreOptions,
        watch: &Arc<Watch>,
    ) -> Result<Self, String> {
        let nr_tasks = subject.nr_tasks();
        if !(1..=MAX_TASKS).contains(&nr_tasks) {
            return Err(format!("tasks: {nr_tasks} (explore allows 1 to {MAX_TASKS})"));
        }
        let strategy = make_strategy(&options.search, subject.fingerprint())?;
        let machine = Rc::new(Machine::new(nr_tasks, subject.lines(), strategy, watch));
        let mutants = options.mutants.iter().fold(0, |set, &mutant| set | 1 << mutant as u8);
        machine.mutants.set(mutants);
        machine.hazards.set(options.hazards);
        machine.livelock_faults.set(options.livelock_faults);
        machine.memory.replace(Memory::new(options.memory_model, nr_tasks as usize));
        machine.is_weak.set(options.memory_model != Model::Sc);
        if let Search::Dfs { preemptions, reduce: true } = options.search {
            machine.reduces.set(true);
            machine.dpor.replace(Dpor::new(nr_tasks, preemptions));
        }
        let by_coverage = matches!(options.search, Search::Coverage { .. });
        machine.observes.set(by_coverage || options.races);
        let pool = StackPool::new();
        let cpus: Vec<_> = (0..nr_tasks)
            .map(|task| Rc::new(Cpu::new(task, &machine, Switch::new(&pool))))
            .collect();
        let (coroutines, watch) = (Vec::new(), Arc::clone(watch));
        let mut explorer = Self { subject, machine, cpus, coroutines, options, watch };
        explorer.make_coroutines().map_err(|error| format!("tasks: no stack: {error}"))?;
        Ok(explorer)
    }

    /// See [`crate::platform::Platform::checks_sections`].
    pub(crate) fn check_sections(&self, checks: bool) {
        self.machine.checks_sections.set(checks);
    }

    fn make_coroutines(&mut self) -> io::Result<()> {
        self.coroutines.clear();
        for cpu in &self.cpus {
            let subject = Rc::clone(&self.subject);
            let mine = Rc::clone(cpu);
            let made = Coroutine::new(cpu.switch(), move || {
                // The same coroutine serves all schedules that run to their end.
                loop {
                    subject.run_task(&mine);
                    mine.end_of_task();
                }
            })?;
            self.coroutines.push(made);
        }
        Ok(())
    }

    /// Runs one schedule, and says what broke, and what one of its faults did.
    pub(super) fn run_one(&mut self, which: Option<WhichFault>) -> (Option<Finding>, Explanation) {
        self.next_schedule(0, &Lessons::default());
        if let Some(which) = which {
            self.machine.explainer.begin(which, self.machine.nr_tasks);
        }
        let finding = self.run_schedule().findings.into_iter().next();
        let steps = self.machine.timeline.take();
        (finding, Explanation { steps, ..self.machine.explainer.take() })
    }

    /// Runs schedules until none is left, or until told to end.
    pub fn explore(&mut self) -> ExploreReport {
        self.explore_with(&|| None)
    }

    /// As `explore`, with other threads for which `make` makes explorers.
    pub(super) fn explore_with(&mut self, make: &Make<'_, S>) -> ExploreReport {
        match self.options.search {
            Search::Random { .. } | Search::Pct { .. } | Search::Coverage { .. } => {
                self.explore_drawn(make)
            }
            Search::Dfs { preemptions: Some(bound), reduce: true } if self.is_shared() => {
                self.explore_in_parts(bound, make)
            }
            _ => self.explore_in_turn(),
        }
    }

    /// Whether a search that ends at its own bounds only has several threads.
    fn is_shared(&self) -> bool {
        let ExploreOptions { workers, max_schedules, only, .. } = &self.options;
        *workers > 1 && max_schedules.is_none() && only.is_none()
    }

    /// Runs one schedule after the other, as each says which is the next.
    pub(super) fn explore_in_turn(&mut self) -> ExploreReport {
        let mut tally = Tally::default();
        let (lessons, mut nth) = (Lessons::default(), 0);
        let limit = self.options.max_schedules.unwrap_or(u64::MAX);
        while tally.report.schedules < limit
            && !self.watch.is_stopped()
            && self.next_schedule(nth, &lessons)
        {
            let schedule = self.run_schedule();
            if schedule.end == End::Interrupted || self.count(&schedule, &mut tally) {
                break;
            }
            nth += 1;
        }
        let mut report = tally.report;
        report.complete = self.is_complete() && report.too_long == 0 && !self.watch.is_stopped();
        report
    }

    /// Prepares schedule `nth`, after what those before have taught; false if there is none.
    pub(super) fn next_schedule(&self, nth: u64, lessons: &Lessons) -> bool {
        if self.machine.reduces.get() {
            self.machine.dpor.borrow_mut().next_schedule()
        } else {
            self.machine.strategy.borrow_mut().next_schedule(nth, lessons)
        }
    }

    fn is_complete(&self) -> bool {
        if self.machine.reduces.get() {
            self.machine.dpor.borrow().is_complete()
        } else {
            self.machine.strategy.borrow().is_complete()
        }
    }

    /// The kinds of accesses that raced in the schedule that ran.
    fn raced(&self) -> Vec<u64> {
        let races = &mut self.machine.dpor.borrow_mut().races;
        let pairs = races.pairs.take().unwrap_or_default();
        let class = |pair: &Pair| {
            let word = match (pair.site(), &self.machine.lines) {
                (Some(site), Some(lines)) => lines.class_of(site),
                (site, _) => (u32::MAX, site.unwrap_or_default() as u32),
            };
            fingerprint(format!("{word:?} {:?} {}", pair.tasks, pair.writes).as_bytes())
        };
        pairs.iter().map(class).collect()
    }

    /// Does something with another strategy, and without the reduction.
    pub(super) fn with_strategy<R>(
        &mut self,
        strategy: Box<dyn Strategy>,
        then: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let usual = self.machine.strategy.replace(strategy);
        let reduces = self.machine.reduces.replace(false);
        let observes = self.machine.observes.replace(false);
        let result = then(self);
        self.machine.observes.set(observes);
        self.machine.reduces.set(reduces);
        self.machine.strategy.replace(usual);
        result
    }

    /// Runs the schedule that the strategy chooses.
    pub(super) fn run_schedule(&mut self) -> Schedule {
        self.cpus.iter().for_each(|cpu| cpu.reset());
        self.machine.rest();
        self.subject.reset(&self.cpus);
        self.machine.begin(self.options.max_steps);
        for task in 0..self.cpus.len() {
            self.resume(task);
            if self.machine.end.borrow().is_some() {
                break;
            }
        }
        self.machine.start();
        while let Some(task) = self.machine.take_next() {
            self.resume(task as usize);
        }
        let end = self.machine.end.take().expect("nobody goes on only at the end");
        let reduces = self.machine.reduces.get();
        if reduces {
            self.machine.dpor.borrow_mut().end_step();
        }
        self.machine.come_to_rest();
        let findings = self.findings(&end);
        if end != End::Finished || !findings.is_empty() {
            // Some are suspended in the middle of their work, or have panicked.
            self.make_coroutines().expect("the stacks of those that were cancelled");
        }
        Schedule {
            end,
            findings,
            deviations: self.machine.deviations.take(),
            preemptions: self.machine.preemptions(),
            steps: self.machine.steps.get(),
            points: self.machine.points(),
            pairs: if self.machine.observes.get() { self.raced() } else { Vec::new() },
            is_redundant: reduces && self.machine.dpor.borrow().is_redundant(),
        }
    }

    fn resume(&mut self, task: usize) {
        match self.coroutines[task].resume() {
            Pause::Suspended => {}
            Pause::Returned => unreachable!("the body of a task's coroutine is a loop"),
            Pause::Panicked(payload) => {
                let name = name_of_task(&self.options.task_names, task as TaskId);
                let what = format!("{name}: {}", panic_text(&payload));
                self.machine.halt(task as TaskId, Finding { invariant: "panic", what });
            }
        }
    }

    fn findings(&self, end: &End) -> Vec<Finding> {
        match end {
            End::Finished => self.check(),
            End::TooLong | End::Interrupted => Vec::new(),
            End::Broken(finding) => vec![finding.clone()],
            End::Stuck => {
                let waiting: Vec<_> = (0..self.machine.nr_tasks)
                    .filter(|&task| self.machine.waits_for_others(task))
                    .map(|task| name_of_task(&self.options.task_names, task))
                    .collect();
                let what = format!("these wait for ever: {}", waiting.join(", "));
                vec![Finding { invariant: "stuck", what }]
            }
        }
    }

    /// The subject's own checks; what is found while they look is a finding too.
    fn check(&self) -> Vec<Finding> {
        catch_unwind(AssertUnwindSafe(|| self.subject.check(&self.cpus))).unwrap_or_else(
            |payload| match payload.downcast::<AtRest>() {
                Ok(finding) => vec![finding.0],
                Err(panic) => resume_unwind(panic),
            },
        )
    }
}

fn make_strategy(search: &Search, fingerprint: u64) -> Result<Box<dyn Strategy>, String> {
    Ok(match search {
        Search::Dfs { preemptions, .. } => Box::new(Dfs::new(preemptions.unwrap_or(u32::MAX))),
        Search::Random { seed } => Box::new(Random::new(*seed)),
        Search::Pct { seed, depth } => Box::new(Pct::new(*seed, *depth)),
        Search::Coverage { seed } => Box::new(Coverage::new(*seed)),
        Search::Guided { choices } => Box::new(Guided::new(choices.clone())),
        Search::Replay(token) => {
            Box::new(Replay::new(Token::from_text(token, fingerprint)?.deviations))
        }
        Search::Again(deviations) => Box::new(Replay::new(deviations.clone())),
    })
}

#[cfg(test)]
#[path = "../../tests/unit/explore/explorer.rs"]
mod tests;

#[cfg(test)]
#[path = "../../tests/unit/explore/dpor.rs"]
mod dpor_tests;

#[cfg(test)]
#[path = "../../tests/unit/explore/hazards.rs"]
mod hazard_tests;

#[cfg(test)]
#[path = "../../tests/unit/explore/weak.rs"]
mod weak_tests;

#[cfg(test)]
#[path = "../../tests/unit/explore/rounds.rs"]
mod rounds_tests;

#[cfg(test)]
#[path = "../../tests/unit/explore/parts.rs"]
mod parts_tests;
