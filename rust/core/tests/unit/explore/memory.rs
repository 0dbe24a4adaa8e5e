//! Litmus tests: every schedule, with every choice that the model leaves.
//!
//! The verdicts are those of x86-TSO (S. Owens, S. Sarkar, P. Sewell, "A better x86 memory model",
//! 2009), of ARMv8 (C. Pulte et al., "Simplifying ARM concurrency", 2018) and of POWER (S. Sarkar et
//! al., "Understanding POWER multiprocessors", 2011; L. Maranget et al., "A tutorial introduction to
//! the ARM and POWER relaxed memory models", 2012; J. Alglave et al., "Herding cats", 2014), with
//! the kernel's barriers as each architecture has them: `smp_rmb()` and `smp_wmb()` are nothing on
//! x86, `dmb ishld` and `dmb ishst` on arm64, `lwsync` on POWER; `smp_mb()` is `mfence`, `dmb ish`,
//! `sync`; acquire and release are `ldar` and `stlr` on arm64, `lwsync` behind and in front on POWER.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What is published of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Never,
    Seen,
    /// The architecture allows it, and the model leaves it out (the head of `memory.rs`).
    LeftOut,
}
use Verdict::{LeftOut, Never, Seen};

struct Litmus {
    name: &'static str,
    /// A task a line: `Wx1` stores, `Rx` loads, `Xx1` exchanges, each with `.rel`, `.acq` or `.dep`;
    /// `rmb`, `wmb`, `mb`.
    tasks: &'static [&'static str],
    /// What the loads see, task by task, …
    loads: &'static [u64],
    /// … and what is in memory in the end.
    finals: &'static [(char, u64)],
    /// On x86, arm64 and POWER; in order it is never seen.
    verdicts: [Verdict; 3],
}

const fn litmus(
    name: &'static str,
    tasks: &'static [&'static str],
    loads: &'static [u64],
    finals: &'static [(char, u64)],
    verdicts: [Verdict; 3],
) -> Litmus {
    Litmus { name, tasks, loads, finals, verdicts }
}

const NEVER: [Verdict; 3] = [Never; 3];

#[rustfmt::skip]
const TESTS: [Litmus; 44] = [
    litmus("SB", &["Wx1 Ry", "Wy1 Rx"], &[0, 0], &[], [Seen, Seen, Seen]),
    litmus("SB+wmbs", &["Wx1 wmb Ry", "Wy1 wmb Rx"], &[0, 0], &[], [Seen, Seen, Seen]),
    litmus("SB+mb+po", &["Wx1 mb Ry", "Wy1 Rx"], &[0, 0], &[], [Seen, Seen, Seen]),
    litmus("SB+mbs", &["Wx1 mb Ry", "Wy1 mb Rx"], &[0, 0], &[], NEVER),
    litmus("SB+rel+acq", &["Wx1.rel Ry.acq", "Wy1.rel Rx.acq"], &[0, 0], &[], [Seen, Never, Seen]),
    litmus("SB+rmws", &["Xx1 Ry", "Xy1 Rx"], &[0, 0, 0, 0], &[], [Never, Seen, Seen]),
    litmus("MP", &["Wx1 Wy1", "Ry Rx"], &[1, 0], &[], [Never, Seen, Seen]),
    litmus("MP+wmb+po", &["Wx1 wmb Wy1", "Ry Rx"], &[1, 0], &[], [Never, Seen, Seen]),
    litmus("MP+po+rmb", &["Wx1 Wy1", "Ry rmb Rx"], &[1, 0], &[], [Never, Seen, Seen]),
    litmus("MP+po+dep", &["Wx1 Wy1", "Ry.dep Rx"], &[1, 0], &[], [Never, Seen, Seen]),
    litmus("MP+rel+po", &["Wx1 Wy1.rel", "Ry Rx"], &[1, 0], &[], [Never, Seen, Seen]),
    litmus("MP+po+acq", &["Wx1 Wy1", "Ry.acq Rx"], &[1, 0], &[], [Never, Seen, Seen]),
    litmus("MP+wmb+rmb", &["Wx1 wmb Wy1", "Ry rmb Rx"], &[1, 0], &[], NEVER),
    litmus("MP+wmb+dep", &["Wx1 wmb Wy1", "Ry.dep Rx"], &[1, 0], &[], NEVER),
    litmus("MP+rel+acq", &["Wx1 Wy1.rel", "Ry.acq Rx"], &[1, 0], &[], NEVER),
    litmus("MP+mbs", &["Wx1 mb Wy1", "Ry mb Rx"], &[1, 0], &[], NEVER),
    litmus("MP+wmb+acq of another", &["Wx1 wmb Wy1", "Ry Rz.acq Rx"], &[1, 0, 0], &[], [Never, Seen, Never]),
    litmus("LB", &["Rx Wy1", "Ry Wx1"], &[1, 1], &[], [Never, LeftOut, LeftOut]),
    litmus("LB+mbs", &["Rx mb Wy1", "Ry mb Wx1"], &[1, 1], &[], NEVER),
    litmus("LB+acqs", &["Rx.acq Wy1", "Ry.acq Wx1"], &[1, 1], &[], NEVER),
    litmus("S", &["Wx2 Wy1", "Ry Wx1"], &[1], &[('x', 2)], [Never, Seen, Seen]),
    litmus("S+wmb+po", &["Wx2 wmb Wy1", "Ry Wx1"], &[1], &[('x', 2)], [Never, LeftOut, Seen]),
    litmus("S+po+acq", &["Wx2 Wy1", "Ry.acq Wx1"], &[1], &[('x', 2)], [Never, Seen, Seen]),
    litmus("S+wmb+acq", &["Wx2 wmb Wy1", "Ry.acq Wx1"], &[1], &[('x', 2)], NEVER),
    litmus("S+mbs", &["Wx2 mb Wy1", "Ry mb Wx1"], &[1], &[('x', 2)], NEVER),
    litmus("R", &["Wx1 Wy1", "Wy2 Rx"], &[0], &[('y', 2)], [Seen, Seen, Seen]),
    litmus("R+wmb+po", &["Wx1 wmb Wy1", "Wy2 Rx"], &[0], &[('y', 2)], [Seen, Seen, Seen]),
    litmus("R+wmb+mb", &["Wx1 wmb Wy1", "Wy2 mb Rx"], &[0], &[('y', 2)], [Never, Never, Seen]),
    litmus("R+mbs", &["Wx1 mb Wy1", "Wy2 mb Rx"], &[0], &[('y', 2)], NEVER),
    litmus("2+2W", &["Wx1 Wy2", "Wy1 Wx2"], &[], &[('x', 1), ('y', 1)], [Never, Seen, Seen]),
    litmus("2+2W+wmb+po", &["Wx1 wmb Wy2", "Wy1 Wx2"], &[], &[('x', 1), ('y', 1)], [Never, Seen, Seen]),
    litmus("2+2W+wmbs", &["Wx1 wmb Wy2", "Wy1 wmb Wx2"], &[], &[('x', 1), ('y', 1)], NEVER),
    litmus("WRC", &["Wx1", "Rx Wy1", "Ry Rx"], &[1, 1, 0], &[], [Never, Seen, Seen]),
    litmus("WRC+deps", &["Wx1", "Rx.dep Wy1", "Ry.dep Rx"], &[1, 1, 0], &[], [Never, Never, Seen]),
    litmus("WRC+rel+acq", &["Wx1", "Rx Wy1.rel", "Ry.acq Rx"], &[1, 1, 0], &[], NEVER),
    litmus("WRC+mb+dep", &["Wx1", "Rx mb Wy1", "Ry.dep Rx"], &[1, 1, 0], &[], NEVER),
    litmus("IRIW", &["Wx1", "Wy1", "Rx Ry", "Ry Rx"], &[1, 0, 1, 0], &[], [Never, Seen, Seen]),
    litmus("IRIW+deps", &["Wx1", "Wy1", "Rx.dep Ry", "Ry.dep Rx"], &[1, 0, 1, 0], &[], [Never, Never, Seen]),
    litmus("IRIW+rmbs", &["Wx1", "Wy1", "Rx rmb Ry", "Ry rmb Rx"], &[1, 0, 1, 0], &[], [Never, Never, Seen]),
    litmus("IRIW+mbs", &["Wx1", "Wy1", "Rx mb Ry", "Ry mb Rx"], &[1, 0, 1, 0], &[], NEVER),
    litmus("RWC+mbs", &["Wx1", "Rx mb Ry", "Wy1 mb Rx"], &[1, 0, 0], &[], NEVER),
    litmus("ISA2+rels+acqs", &["Wx1 Wy1.rel", "Ry.acq Wz1.rel", "Rz.acq Rx"], &[1, 1, 0], &[], NEVER),
    litmus("Z6.3+wmbs+dep", &["Wx1 wmb Wy1", "Wy2 wmb Wz1", "Rz.dep Rx"], &[1, 0], &[('y', 2)], [Never, Never, Seen]),
    litmus("CoRR", &["Wx1", "Rx Rx"], &[1, 0], &[], NEVER),
];

/// One word only: coherence, which all have.
#[rustfmt::skip]
const COHERENCE: [Litmus; 5] = [
    litmus("CoRR2", &["Wx1", "Wx2", "Rx Rx", "Rx Rx"], &[1, 2, 2, 1], &[], NEVER),
    litmus("CoWW", &["Wx1 Wx2"], &[], &[('x', 1)], NEVER),
    litmus("CoWR", &["Wx1 Rx", "Wx2"], &[2], &[('x', 1)], NEVER),
    litmus("CoRW", &["Rx Wx1", "Wx2"], &[2], &[('x', 2)], NEVER),
    litmus("CoRW own", &["Rx Wx1"], &[1], &[], NEVER),
];

fn key(name: char) -> Key {
    (8 * u64::from(name), 0)
}

/// One instruction.
#[derive(Clone, Copy)]
enum Step {
    Load(Key, Ordering),
    Store(Key, u64, Ordering),
    Exchange(Key, u64, Ordering),
    Fence(Fence),
}

fn parse(text: &str) -> Step {
    let (text, suffix) = text.split_once('.').unwrap_or((text, ""));
    let order = match suffix {
        "" => Ordering::Relaxed,
        "rel" => Ordering::Release,
        "acq" => Ordering::Acquire,
        "dep" => Ordering::Consume,
        other => panic!("{other}"),
    };
    let word = || key(char::from(text.as_bytes()[1]));
    let value = || text[2..].parse().expect("a value");
    match text {
        "rmb" => Step::Fence(Fence::Read),
        "wmb" => Step::Fence(Fence::Write),
        "mb" => Step::Fence(Fence::Full),
        _ if text.starts_with('R') => Step::Load(word(), order),
        _ if text.starts_with('W') => Step::Store(word(), value(), order),
        _ if text.starts_with('X') => Step::Exchange(word(), value(), order),
        other => panic!("{other}"),
    }
}

/// A run so far.
#[derive(Clone)]
struct Run {
    memory: Memory,
    words: BTreeMap<Key, u64>,
    done: Vec<usize>,
    loads: Vec<Vec<u64>>,
}

impl Run {
    /// Executes the next step of a task with the answer `choice`. How many answers there are.
    fn step(&mut self, task: usize, step: Step, choice: usize) -> usize {
        let mut choices = 1;
        let cpu = task as CpuId;
        let mut choose = |nr: usize, _: bool| {
            choices = nr;
            choice
        };
        self.done[task] += 1;
        match step {
            Step::Fence(fence) => self.memory.fence(cpu, fence),
            Step::Load(word, order) => {
                let now = *self.words.entry(word).or_default();
                let seen = self.memory.load(cpu, word, now, order, &mut choose);
                self.loads[task].push(seen);
            }
            Step::Store(word, value, order) => {
                let now = self.words.entry(word).or_default();
                *now = self.memory.store(cpu, word, *now, value, order, &mut choose);
            }
            Step::Exchange(word, value, order) => {
                let now = self.words.entry(word).or_default();
                self.memory.exchange(cpu, word, *now, Some(value), order);
                self.loads[task].push(std::mem::replace(now, value));
            }
        }
        choices
    }
}

/// What the loads saw, and the words.
type Outcome = (Vec<u64>, BTreeMap<Key, u64>);

fn outcomes(model: Model, test: &Litmus, asks_always: bool) -> BTreeSet<Outcome> {
    let tasks: Vec<Vec<Step>> =
        test.tasks.iter().map(|task| task.split_whitespace().map(parse).collect()).collect();
    let run = Run {
        memory: Memory { asks_always, ..Memory::new(model, tasks.len()) },
        words: BTreeMap::new(),
        done: vec![0; tasks.len()],
        loads: vec![Vec::new(); tasks.len()],
    };
    let mut found = BTreeSet::new();
    explore(&tasks, &run, &mut found);
    found
}

fn explore(tasks: &[Vec<Step>], run: &Run, found: &mut BTreeSet<Outcome>) {
    let mut has_ended = true;
    for (task, steps) in tasks.iter().enumerate() {
        let Some(&step) = steps.get(run.done[task]) else { continue };
        has_ended = false;
        let mut choice = 0;
        loop {
            let mut next = run.clone();
            let choices = next.step(task, step, choice);
            explore(tasks, &next, found);
            choice += 1;
            if choice >= choices {
                break;
            }
        }
    }
    if has_ended {
        found.insert((run.loads.concat(), run.words.clone()));
    }
}

fn is_seen(model: Model, test: &Litmus) -> bool {
    outcomes(model, test, false).iter().any(|(loads, words)| {
        loads == test.loads && test.finals.iter().all(|&(word, value)| words[&key(word)] == value)
    })
}

#[test]
fn litmus_tests_come_out_as_published() {
    let mut wrong = Vec::new();
    for test in TESTS.iter().chain(&COHERENCE) {
        if is_seen(Model::Sc, test) {
            wrong.push(format!("{} is seen in order", test.name));
        }
        let models = [Model::Tso, Model::Armv8, Model::Power];
        for (model, verdict) in models.into_iter().zip(test.verdicts) {
            if is_seen(model, test) != (verdict == Seen) {
                wrong.push(format!("{} on {model:?} is not {verdict:?}", test.name));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_weaker_model_allows_what_a_stronger_one_does() {
    for test in TESTS.iter().chain(&COHERENCE) {
        let order = outcomes(Model::Sc, test, false);
        for model in [Model::Tso, Model::Armv8, Model::Power] {
            let found = outcomes(model, test, false);
            assert!(order.is_subset(&found), "{} on {model:?}", test.name);
        }
    }
}

#[test]
fn asking_where_nothing_happened_since_adds_no_outcome() {
    for test in TESTS.iter().chain(&COHERENCE) {
        for model in [Model::Tso, Model::Armv8, Model::Power] {
            let place = format!("{} on {model:?}", test.name);
            assert_eq!(outcomes(model, test, false), outcomes(model, test, true), "{place}");
        }
    }
}

#[test]
fn what_is_written_behind_its_back_is_seen_by_all() {
    for model in [Model::Tso, Model::Armv8, Model::Power] {
        let mut memory = Memory::new(model, 2);
        memory.store(0, key('x'), 0, 1, Ordering::Relaxed, &mut |nr, _| nr - 1);
        // Made anew: 7. A load has no other choice.
        let seen = memory.load(1, key('x'), 7, Ordering::Relaxed, &mut |nr, _| {
            assert_eq!(nr, 1);
            0
        });
        assert_eq!(seen, 7);
    }
}
