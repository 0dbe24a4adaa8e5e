//! One call runs one program. The GIL is released; signals and progress are looked after meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use numpy::{IntoPyArray, PyArray1};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spfemu_core::events::EVENT_NAMES;
use spfemu_core::explore::{self, Explanation, WhichFault};
use spfemu_core::mm::{System, Variants};
use spfemu_core::program::{Handler, Last, Options, RunResult, Watch, native};
use spfemu_core::sync::rwsem::Policy;
use spfemu_core::vtime::{self, Machine, Settings};

use crate::error::Error;
use crate::input::{self, Given};
use crate::watch::watched;

#[derive(Deserialize)]
struct OptionsText {
    seed: u64,
    cpus: Option<u32>,
    /// The JSON text of a machine.
    machine: Option<String>,
    pace: bool,
    record: bool,
    max_outcomes: u64,
    trace: bool,
    proc: bool,
    #[serde(default)]
    spans: bool,
    #[serde(default)]
    lock_stat: bool,
    #[serde(default)]
    variants: BTreeMap<String, String>,
    #[serde(default)]
    note_maps: Vec<(u32, u32)>,
    #[serde(default)]
    tick_slack_ns: Option<u64>,
    /// The number of the fault to explain, 0 for the last; only on explore.
    #[serde(default)]
    explain: Option<u64>,
    #[serde(flatten)]
    mechanisms: Mechanisms,
    tree: String,
}

/// What of the kernel, and of the CPUs, a run may do without.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(default)]
struct Mechanisms {
    /// munmap downgrades `mmap_sem`, as since 4.20.
    downgrade: bool,
    merging: bool,
    stealing: bool,
    spinning: bool,
    reader_groups: bool,
    lazy_tlb: bool,
    /// Not a mechanism to do without: tasks are packed unless this is set.
    spreading: bool,
}

impl Default for Mechanisms {
    fn default() -> Self {
        let System { downgrade, merging, rwsem, .. } = System::default();
        let Policy { spinning, stealing, reader_groups } = rwsem;
        let (lazy_tlb, spreading) = (true, false);
        Self { downgrade, merging, stealing, spinning, reader_groups, lazy_tlb, spreading }
    }
}

type Array<'py> = Bound<'py, PyArray1<u8>>;

/// A text, the outcomes, the trace, and the spans.
type Arrays<'py> = (String, Array<'py>, Array<'py>, Array<'py>);

/// Runs a program on an engine of the core.
///
/// Source: ours. `engine` is "native", "vtime" or "explore" (one schedule); `handler` "spf" or "classic"; `arch` the JSON of
/// a profile; `tasks` one array of bytes a task (records of the array form); `meta` and `options`
/// JSON texts; `progress` is called with 0 to 1, or None.
///
/// Returns a JSON text (`elapsed_ns`, `counters`, `maps`, `proc`, `note_maps`, `rounds`, `noted_ns`, `stuck`,
/// `trace_written`, `span_names`, `spans_cut`, `lock_stat`, `settings`; with the option `explain` an `explanation`), the outcomes, dtype uint8,
/// shape (outcomes * 98,), what the tracepoints recorded, dtype uint8, shape (entries * 42,), and
/// the course of the run, dtype uint8, shape (entries * 33,).
///
/// Raises ProgramError, ProfileError or EngineError for what cannot run, InvariantViolation for a
/// broken invariant, and whatever a signal handler raises.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
pub fn run<'py>(
    py: Python<'py>,
    engine: &str,
    handler: &str,
    arch: &str,
    tasks: Vec<PyBuffer<u8>>,
    meta: &str,
    options: &str,
    progress: Option<Py<PyAny>>,
) -> PyResult<Arrays<'py>> {
    let job = Job::new(engine, handler, arch, options).map_err(|error| error.into_py(py))?;
    let given = input::program(py, &tasks, meta, job.options.note_maps.clone())?;
    let (result, explanation) = job.watched(py, &given, progress.as_ref())?;
    if let Some(finding) = result.finding {
        let error = Error::Invariant { invariant: finding.invariant, what: finding.what };
        return Err(error.into_py(py));
    }
    let settings = job.settings_text(given.program.nr_tasks());
    let mut summary = summary(&given.task_names, &result, settings);
    if job.options.explain.is_some() {
        summary["explanation"] = serde_json::from_str(&explanation.to_json()).expect("our own");
    }
    let arrays = [result.outcomes, result.trace, result.course.spans];
    let [outcomes, trace, spans] = arrays.map(|bytes| bytes.into_pyarray(py));
    Ok((summary.to_string(), outcomes, trace, spans))
}

/// A run that was checked.
struct Job {
    engine: Engine,
    handler: Handler,
    arch: spfemu_core::arch::Arch,
    variants: Variants,
    options: OptionsText,
}

enum Engine {
    Native,
    Vtime(Box<Machine>),
    Explore,
}

/// How far a CPU may run ahead in virtual time unless told otherwise, in nanoseconds.
const SLACK_NS: u64 = 200;

/// What fits into the trace buffer.
const TRACE_ENTRIES: usize = 1 << 22;

/// How many entries of the course of a run are kept.
const SPANS: usize = 1 << 20;

impl Job {
    fn new(engine: &str, handler: &str, arch: &str, options: &str) -> Result<Self, Error> {
        let options: OptionsText = serde_json::from_str(options)
            .map_err(|wrong| Error::Engine(format!("options: {wrong}")))?;
        let arch = input::arch(arch)?;
        let engine = match engine {
            "native" => Engine::Native,
            "vtime" => Engine::Vtime(Box::new(input::machine(
                options.machine.as_deref(),
                &arch,
                options.cpus,
            )?)),
            "explore" => Engine::Explore,
            other => {
                let what = format!("engine '{other}' (allowed: native, vtime, explore)");
                return Err(Error::Engine(what));
            }
        };
        let variants = input::variants(Variants::outside_explore(), &options.variants)?;
        let handler = self::handler(handler, &options.tree)?;
        Ok(Self { engine, handler, arch, variants, options })
    }

    fn execute(
        &self,
        given: &Given,
        watch: &Arc<Watch>,
    ) -> Result<(RunResult, Explanation), Error> {
        let trace_entries = if self.options.trace { TRACE_ENTRIES } else { 0 };
        let Mechanisms { downgrade, merging, stealing, spinning, reader_groups, .. } =
            self.options.mechanisms;
        let rwsem = Policy { spinning, stealing, reader_groups };
        let given_system = given.system.clone();
        let system = System { trace_entries, downgrade, merging, rwsem, ..given_system };
        let config = input::config(self.arch.clone(), system, self.variants.clone());
        let OptionsText { record, max_outcomes, pace, .. } = self.options;
        let last = if self.options.proc { Last::ProcText } else { Last::Maps };
        let (spans, lock_stat) =
            (if self.options.spans { SPANS } else { 0 }, self.options.lock_stat);
        let options =
            Options { record, max_outcomes, pace, last, spans, lock_stat, ..Options::default() };
        let bare = |result| (result, Explanation::default());
        let result = match &self.engine {
            Engine::Native => {
                native::run(&given.program, self.handler, config, &options, watch).map(bare)
            }
            Engine::Vtime(machine) => {
                let settings = self.settings(machine, given.program.nr_tasks());
                vtime::run(&given.program, self.handler, config, &settings, &options, watch)
                    .map(bare)
            }
            Engine::Explore => {
                let OptionsText { seed, explain, .. } = self.options;
                let which = explain.map(|number| match number {
                    0 => WhichFault::Last,
                    number => WhichFault::Number(number),
                });
                explore::explain(
                    &given.program,
                    self.handler,
                    &config,
                    seed,
                    &options,
                    which,
                    watch,
                )
            }
        };
        let result = result.map_err(|wrong| Error::Program(wrong.0))?;
        match watch.refusal() {
            Some(why) => Err(Error::Engine(why)),
            None => Ok(result),
        }
    }

    fn settings(&self, machine: &Machine, nr_tasks: u32) -> Settings {
        Settings {
            machine: machine.clone(),
            nr_cpus: self.options.cpus.unwrap_or_else(|| machine.nr_cpus().min(nr_tasks)),
            seed: self.options.seed,
            slack_ns: self.options.tick_slack_ns.unwrap_or(SLACK_NS),
            lazy_tlb: self.options.mechanisms.lazy_tlb,
            spreading: self.options.mechanisms.spreading,
        }
    }

    /// Runs on a thread of its own; this one looks after signals and progress.
    fn watched(
        &self,
        py: Python<'_>,
        given: &Given,
        progress: Option<&Py<PyAny>>,
    ) -> PyResult<(RunResult, Explanation)> {
        let watch = Arc::new(Watch::default());
        let total = given.program.nr_operations(1 << self.arch.page_shift);
        let look = |py: Python<'_>| match progress {
            Some(progress) => {
                let operations = watch.operations.load(Ordering::Relaxed) as f64;
                // Nobody knows how many there will be in a given time.
                let share = total.map_or(0.0, |total| (operations / total.max(1) as f64).min(1.0));
                progress.call1(py, (share,)).map(drop)
            }
            None => Ok(()),
        };
        watched(py, || self.execute(given, &watch), || watch.stop(), look, |_, _, _| ())
    }

    fn settings_text(&self, nr_tasks: u32) -> Value {
        let mut settings = match &self.engine {
            Engine::Explore => json!({"machine": null, "cpus": nr_tasks}),
            Engine::Native => json!({"machine": null, "cpus": nr_tasks, "pace": self.options.pace}),
            Engine::Vtime(machine) => {
                let settings = self.settings(machine, nr_tasks);
                let mut text = json!({"machine": machine.name, "cpus": settings.nr_cpus,
                                      "tick_slack_ns": settings.slack_ns});
                let mechanisms = json!(self.options.mechanisms);
                if let (Value::Object(text), Value::Object(more)) = (&mut text, mechanisms) {
                    text.extend(more);
                }
                text
            }
        };
        if self.handler != Handler::Classic {
            settings["tree"] = json!(self.options.tree);
        }
        settings
    }
}

/// What of a result is no array.
pub fn summary(task_names: &[String], result: &RunResult, settings: Value) -> Value {
    let name = |task: u32| task_names[task as usize].clone();
    let counters: serde_json::Map<String, Value> = EVENT_NAMES
        .iter()
        .zip(result.counters)
        .map(|(name, count)| ((*name).to_owned(), count.into()))
        .collect();
    let maps: serde_json::Map<String, Value> =
        result.maps.iter().map(|(task, maps)| (name(*task), json!(maps))).collect();
    let proc: serde_json::Map<String, Value> = result
        .proc
        .iter()
        .map(|(task, text)| (name(*task), json!({"smaps": text.smaps, "status": text.status})))
        .collect();
    let note_maps: Vec<Value> = result
        .note_maps
        .iter()
        .map(|note| {
            json!({"task": note.task, "index": note.index, "round": note.round, "maps": note.maps})
        })
        .collect();
    let locks = result.course.locks.iter().map(|lock| {
        json!({"name": lock.name, "acquisitions": lock.acquisitions,
               "contended": lock.contended, "wait_ns": lock.wait_ns,
               "fetches": lock.fetches, "fetch_ns": lock.fetch_ns})
    });
    let locks: Vec<Value> = locks.collect();
    json!({
        "elapsed_ns": result.elapsed_ns,
        "counters": counters,
        "maps": maps,
        "proc": proc,
        "note_maps": note_maps,
        "rounds": result.rounds,
        "noted_ns": result.noted_ns,
        "trace_written": result.trace_written,
        "span_names": result.course.span_names,
        "spans_cut": result.course.is_cut,
        "lock_stat": {"task_ns": result.course.task_ns, "locks": locks},
        "stuck": result.stuck.iter().map(|&task| name(task)).collect::<Vec<_>>(),
        "settings": settings,
    })
}

/// The handler: "spf", on the tree "rcu" or "rwlock"; or "classic", which has one tree only.
pub fn handler(text: &str, tree: &str) -> Result<Handler, Error> {
    match (text, tree) {
        ("spf", "rcu") => Ok(Handler::Spf),
        ("spf", "rwlock") => Ok(Handler::SpfRwlock),
        ("classic", "rcu") => Ok(Handler::Classic),
        ("classic", "rwlock") => {
            Err(Error::Engine("tree rwlock: handler classic (allowed: spf)".to_owned()))
        }
        ("spf" | "classic", other) => {
            Err(Error::Engine(format!("tree '{other}' (allowed: rcu, rwlock)")))
        }
        (other, _) => Err(Error::Engine(format!("handler '{other}' (allowed: spf, classic)"))),
    }
}
