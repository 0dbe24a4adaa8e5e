//! Small programs, each explored completely.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::*;
use crate::explore::Step;
use crate::object;
use crate::platform::{Arena, Field, Line, Ordering, Platform, Ptr, RcuCallback, Value, Word};
use crate::sync::spinlock::{spin_lock, spin_trylock, spin_unlock};

/// The word that holds a pointer to a thing.
pub(super) const POINTER: usize = 5;

pub(super) type Run = dyn Fn(&Cpu, &Shared);

object! {
    /// Something to free.
    pub struct Thing of Word = "thing", 64 {
        value: u64 = 0x00,
        other: u64 = 0x08,
    }
}

/// The words of a toy, and what its tasks remember.
pub(super) struct Shared {
    lines: Arc<Lines>,
    pub(super) words: Vec<Word<Cpu>>,
    free: Word<Cpu>,
    pub(super) things: Arena<Thing<Cpu>>,
    seen: RefCell<Vec<u64>>,
}

pub(super) struct Toy {
    shared: Shared,
    tasks: Vec<Box<Run>>,
    /// Every final state: what was seen and the words.
    pub(super) finals: RefCell<BTreeSet<(Vec<u64>, Vec<u64>)>>,
    wrong: fn(&Shared) -> Option<&'static str>,
}

impl Toy {
    pub(super) fn new(tasks: Vec<Box<Run>>) -> Rc<Self> {
        Self::with_check(tasks, |_| None)
    }

    pub(super) fn with_check(
        tasks: Vec<Box<Run>>,
        wrong: fn(&Shared) -> Option<&'static str>,
    ) -> Rc<Self> {
        let lines = Arc::new(Lines::default());
        let shared = Shared {
            words: (0..8).map(|_| Word::new(lines.take(1), 0)).collect(),
            free: Word::new(Line::FREE, 0),
            things: Arena::new(&lines, 0),
            seen: RefCell::default(),
            lines,
        };
        Rc::new(Self { shared, tasks, finals: RefCell::default(), wrong })
    }
}

impl Subject for Toy {
    fn nr_tasks(&self) -> u32 {
        self.tasks.len() as u32
    }
    fn fingerprint(&self) -> u64 {
        42
    }
    fn lines(&self) -> Option<Arc<Lines>> {
        Some(Arc::clone(&self.shared.lines))
    }
    fn reset(&self, _cpus: &[Rc<Cpu>]) {
        self.shared.words.iter().for_each(|word| word.poke(0));
        self.shared.free.poke(0);
        self.shared.things.reset();
        *self.shared.seen.borrow_mut() = vec![0; 8];
    }
    fn run_task(&self, cpu: &Cpu) {
        self.tasks[cpu.task() as usize](cpu, &self.shared);
    }
    fn check(&self, cpus: &[Rc<Cpu>]) -> Vec<Finding> {
        while cpus[0].rcu_ready().is_some() {}
        let mut words: Vec<_> = self.shared.words.iter().map(Word::peek).collect();
        // Which slot an object got is no matter; whether it lives is.
        let ptr = Ptr::<Thing<Cpu>>::from_word(words[POINTER]);
        if !ptr.is_null() {
            words[POINTER] = 1 + u64::from(self.shared.things.is_live(ptr));
        }
        self.finals.borrow_mut().insert((self.shared.seen.borrow().clone(), words));
        (self.wrong)(&self.shared)
            .map(|what| Finding { invariant: "toy", what: what.to_owned() })
            .into_iter()
            .collect()
    }
}

impl Shared {
    pub(super) fn load(&self, cpu: &Cpu, word: usize) -> u64 {
        cpu.load(&self.words[word], Ordering::Relaxed)
    }
    pub(super) fn store(&self, cpu: &Cpu, word: usize, value: u64) {
        cpu.store(&self.words[word], value, Ordering::Relaxed);
    }
    pub(super) fn words(&self) -> &[Word<Cpu>] {
        &self.words
    }
    pub(super) fn see(&self, place: usize, value: u64) {
        self.seen.borrow_mut()[place] = value;
    }
    fn field(&self, word: usize) -> Field<'_, Cpu, u64> {
        Field::permanent(&self.words[word])
    }
}

pub(super) fn task(run: impl Fn(&Cpu, &Shared) + 'static) -> Box<Run> {
    Box::new(run)
}

pub(super) fn dfs(preemptions: u32, reduce: bool) -> ExploreOptions {
    ExploreOptions {
        search: Search::Dfs { preemptions: Some(preemptions), reduce },
        ..ExploreOptions::default()
    }
}

pub(super) fn explore(toy: &Rc<Toy>, options: ExploreOptions) -> ExploreReport {
    Explorer::new(Rc::clone(toy), options, &Arc::default()).unwrap().explore()
}

/// `nr_tasks` tasks that store to the same word `nr_stores` times.
fn storing(nr_tasks: usize, nr_stores: u64) -> Rc<Toy> {
    let store = move |cpu: &Cpu, shared: &Shared| {
        (0..nr_stores).for_each(|_| shared.store(cpu, 0, u64::from(cpu.id())));
    };
    Toy::new((0..nr_tasks).map(|_| task(store)).collect())
}

#[test]
fn two_tasks_of_two_steps_have_six_schedules() {
    // No preemption: aabb bbaa. One: abba baab. Two: abab baba.
    for (preemptions, schedules) in [(0, 2), (1, 4), (2, 6), (9, 6)] {
        let report = explore(&storing(2, 2), dfs(preemptions, false));
        assert_eq!((report.schedules, report.complete), (schedules, true), "{preemptions}");
        assert_eq!(report.steps, schedules * 4);
    }
}

#[test]
fn counts_of_schedules_agree_with_counting_by_hand() {
    // Two tasks of n steps and r runs in all, the first task first: the first has ceil(r/2) of
    // the runs and the second floor(r/2), so C(n-1, ceil-1) * C(n-1, floor-1); twice that, for
    // either may be first. A schedule of r runs has r - 2 preemptions.
    // n = 3: r = 2, 3, 4, 5, 6 give 2, 4, 8, 4, 2.
    for (preemptions, schedules) in [(0, 2), (1, 6), (2, 14), (3, 18), (4, 20), (9, 20)] {
        assert_eq!(explore(&storing(2, 3), dfs(preemptions, false)).schedules, schedules);
    }
    // Three tasks of one step: 3!. Of two steps: 6! / (2! 2! 2!).
    assert_eq!(explore(&storing(3, 1), dfs(0, false)).schedules, 6);
    assert_eq!(explore(&storing(3, 2), dfs(9, false)).schedules, 90);
    // A task that does nothing adds no schedule.
    assert_eq!(explore(&storing(2, 0), dfs(9, false)).schedules, 1);
}

#[test]
fn store_buffering_is_not_seen_under_sequential_consistency() {
    let toy = Toy::new(vec![
        task(|cpu, shared| {
            shared.store(cpu, 0, 1);
            shared.see(0, shared.load(cpu, 1));
        }),
        task(|cpu, shared| {
            shared.store(cpu, 1, 1);
            shared.see(1, shared.load(cpu, 0));
        }),
    ]);
    assert_eq!(explore(&toy, dfs(9, false)).schedules, 6);
    let seen: BTreeSet<_> =
        toy.finals.borrow().iter().map(|(seen, _)| (seen[0], seen[1])).collect();
    assert_eq!(seen, BTreeSet::from([(0, 1), (1, 0), (1, 1)]));
}

#[test]
fn a_message_is_passed_with_its_content() {
    let toy = Toy::new(vec![
        task(|cpu, shared| {
            shared.store(cpu, 0, 7);
            shared.store(cpu, 1, 1);
        }),
        task(|cpu, shared| {
            shared.see(0, shared.load(cpu, 1));
            shared.see(1, shared.load(cpu, 0));
        }),
    ]);
    explore(&toy, dfs(9, false));
    let seen: BTreeSet<_> =
        toy.finals.borrow().iter().map(|(seen, _)| (seen[0], seen[1])).collect();
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, 7), (1, 7)]));
}

pub(super) fn increment(cpu: &Cpu, shared: &Shared) {
    let value = shared.load(cpu, 0);
    shared.store(cpu, 0, value + 1);
}

fn increment_locked(cpu: &Cpu, shared: &Shared) {
    spin_lock(cpu, shared.field(1));
    increment(cpu, shared);
    spin_unlock(cpu, shared.field(1));
}

fn not_two(shared: &Shared) -> Option<&'static str> {
    (shared.words[0].peek() != 2).then_some("an increment was lost")
}

#[test]
fn a_lost_increment_is_found_and_its_token_replays() {
    let toy = Toy::with_check(vec![task(increment), task(increment)], not_two);
    for options in [
        dfs(2, false),
        dfs(2, true),
        ExploreOptions { search: Search::Random { seed: 3 }, ..dfs(2, false) },
        ExploreOptions { search: Search::Pct { seed: 3, depth: 2 }, ..dfs(2, false) },
    ] {
        let report = explore(&toy, ExploreOptions { max_schedules: Some(1000), ..options });
        assert_eq!(report.violations.len(), 1);
        let violation = &report.violations[0];
        assert_eq!(violation.invariant, "toy");
        let texts: Vec<_> = violation.timeline.iter().map(Step::to_text).collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        let replay = ExploreOptions {
            search: Search::Replay(violation.token.clone()),
            ..ExploreOptions::default()
        };
        let again = explore(&toy, replay);
        assert_eq!(again.schedules, 1);
        assert_eq!(again.violations, report.violations);
    }
}

#[test]
fn a_lock_keeps_every_increment() {
    let toy = Toy::with_check(vec![task(increment_locked), task(increment_locked)], not_two);
    let report = explore(&toy, dfs(9, false));
    assert!(report.complete && report.violations.is_empty(), "{report:?}");
    let three = vec![task(increment_locked), task(increment_locked), task(increment_locked)];
    let report = explore(&Toy::new(three), dfs(2, true));
    assert!(report.complete && report.violations.is_empty(), "{report:?}");
}

#[test]
fn locks_taken_in_two_orders_deadlock() {
    let both = |first: usize, second: usize| {
        task(move |cpu, shared| {
            spin_lock(cpu, shared.field(first));
            spin_lock(cpu, shared.field(second));
            spin_unlock(cpu, shared.field(second));
            spin_unlock(cpu, shared.field(first));
        })
    };
    for reduce in [false, true] {
        let report = explore(&Toy::new(vec![both(0, 1), both(1, 0)]), dfs(1, reduce));
        assert_eq!(report.violations.len(), 1);
        assert_eq!(report.violations[0].invariant, "deadlock");
        assert_eq!(report.violations[0].what, "nobody can go on: task 0 spins, task 1 spins");
        assert!(report.complete);
    }
}

#[test]
fn a_lock_taken_with_interrupts_off_deadlocks_with_an_interrupt() {
    // A9: the holder sends an interrupt and waits; the other spins with interrupts off.
    let holder = task(|cpu, shared| {
        spin_lock(cpu, shared.field(0));
        cpu.ipi(|_| true);
        spin_unlock(cpu, shared.field(0));
    });
    let spinning = task(|cpu, shared| {
        cpu.local_irq_disable();
        spin_lock(cpu, shared.field(0));
        spin_unlock(cpu, shared.field(0));
        cpu.local_irq_enable();
    });
    let trying = task(|cpu, shared| {
        loop {
            cpu.local_irq_disable();
            if spin_trylock(cpu, shared.field(0)) {
                break;
            }
            cpu.local_irq_enable();
            cpu.spin_until(&shared.words[0], |held| held == 0);
        }
        spin_unlock(cpu, shared.field(0));
        cpu.local_irq_enable();
    });
    let clone = task(|cpu, shared| {
        spin_lock(cpu, shared.field(0));
        cpu.ipi(|_| true);
        spin_unlock(cpu, shared.field(0));
    });
    let report = explore(&Toy::new(vec![holder, spinning]), dfs(2, true));
    assert_eq!(report.violations[0].invariant, "deadlock");
    assert!(report.violations[0].what.contains("waits for the interrupts of CPU 1"));
    let report = explore(&Toy::new(vec![clone, trying]), dfs(3, true));
    assert!(report.complete && report.violations.is_empty(), "{report:?}");
}

#[test]
fn an_interrupt_waits_for_the_section_it_finds_and_for_no_later_one() {
    // The second store comes after every section that could have begun before the first.
    for reduce in [false, true] {
        let reader = task(|cpu, shared| {
            cpu.local_irq_disable();
            shared.see(0, shared.load(cpu, 0));
            shared.see(1, shared.load(cpu, 1));
            cpu.local_irq_enable();
        });
        let writer = task(|cpu, shared| {
            shared.store(cpu, 0, 1);
            cpu.ipi(|cpu| cpu == 0);
            shared.store(cpu, 1, 1);
        });
        let toy = Toy::new(vec![reader, writer]);
        let report = explore(&toy, dfs(9, reduce));
        assert!(report.complete && report.violations.is_empty(), "{report:?}");
        let seen: BTreeSet<_> =
            toy.finals.borrow().iter().map(|(seen, _)| (seen[0], seen[1])).collect();
        // Never (0, 1): that section began before the interrupt and saw what came after it.
        assert_eq!(seen, BTreeSet::from([(0, 0), (1, 0), (1, 1)]), "reduce {reduce}");
    }
}

#[test]
fn nobody_wakes_a_sleeper_that_waits_for_the_program() {
    let sleeper = task(|cpu, shared| {
        cpu.sleep_until(&shared.free, |value| value == 1);
    });
    let waker = |wakes: bool| {
        task(move |cpu, shared| {
            shared.store(cpu, 0, 1);
            cpu.store(&shared.free, 1, Ordering::Relaxed);
            if wakes {
                cpu.wake(&shared.free);
            }
        })
    };
    let sleeper_again = task(|cpu, shared| {
        cpu.sleep_until(&shared.free, |value| value == 1);
    });
    let report = explore(&Toy::new(vec![sleeper, waker(true)]), dfs(9, false));
    assert_eq!((report.schedules, report.violations.len()), (1, 0));
    let report = explore(&Toy::new(vec![sleeper_again, waker(false)]), dfs(9, false));
    assert_eq!(report.violations[0].invariant, "stuck");
    assert_eq!(report.violations[0].what, "these wait for ever: task 0");
}

#[test]
fn a_lost_wake_up_in_the_kernel_is_a_deadlock() {
    let sleeper = task(|cpu, shared| {
        cpu.sleep_until(&shared.words[0], |value| value == 1);
    });
    let waker = task(|cpu, shared| {
        // Too early: the store comes after.
        cpu.wake(&shared.words[0]);
        shared.store(cpu, 0, 1);
    });
    let report = explore(&Toy::new(vec![sleeper, waker]), dfs(2, true));
    assert_eq!(report.violations[0].what, "nobody can go on: task 0 sleeps");
}

#[test]
fn a_loop_that_watches_a_word_lets_the_others_go_on() {
    let watcher = task(|cpu, shared| while shared.load(cpu, 0) == 0 {});
    let setter = task(|cpu, shared| shared.store(cpu, 0, 1));
    let report = explore(&Toy::new(vec![watcher, setter]), dfs(0, false));
    assert!(report.complete && report.violations.is_empty(), "{report:?}");
}

#[test]
fn an_endless_schedule_is_cut_and_the_search_is_not_complete() {
    let endless = task(|cpu, shared| {
        loop {
            let value = shared.load(cpu, 0);
            shared.store(cpu, 0, value + 1);
        }
    });
    let options = ExploreOptions { max_steps: 100, ..dfs(0, false) };
    let report = explore(&Toy::new(vec![endless]), options);
    assert_eq!((report.schedules, report.too_long, report.complete), (1, 1, false));
}

#[test]
fn a_panic_is_a_finding_and_its_guards_do_not_switch() {
    struct StoresWhenDropped<'a>(&'a Cpu, &'a Shared);
    impl Drop for StoresWhenDropped<'_> {
        fn drop(&mut self) {
            self.1.store(self.0, 1, 1);
            assert!(self.0.is_cut());
        }
    }
    let panicking = task(|cpu, shared| {
        let _guard = StoresWhenDropped(cpu, shared);
        shared.store(cpu, 0, 1);
        std::panic::resume_unwind(Box::new("an assertion"));
    });
    let other = task(|cpu, shared| {
        let _guard = StoresWhenDropped(cpu, shared);
        shared.load(cpu, 0);
        shared.load(cpu, 1);
        std::mem::forget(_guard);
    });
    let report = explore(&Toy::new(vec![panicking, other]), dfs(9, false));
    assert_eq!(report.violations.len(), 1);
    assert_eq!(report.violations[0].invariant, "panic");
    assert_eq!(report.violations[0].what, "task 0: an assertion");
    assert!(report.complete);
    assert!(!std::thread::panicking());
}

/// Runs the callbacks that are ready.
pub(super) fn put_things(cpu: &Cpu, shared: &Shared) {
    while let Some(RcuCallback::PutVma(word)) = cpu.rcu_ready() {
        shared.things.free(cpu, shared.things.get(cpu, Ptr::from_word(word)));
    }
}

/// One task frees a thing that the other still reads.
fn freeing(defer: bool) -> Rc<Toy> {
    let owner = task(move |cpu, shared| {
        let thing = shared.things.alloc();
        thing.value().write(cpu, 5);
        // Published.
        shared.store(cpu, POINTER, thing.ptr().to_word());
        // And taken back.
        shared.store(cpu, POINTER, 0);
        if defer {
            cpu.call_rcu(RcuCallback::PutVma(thing.ptr().to_word()));
        } else {
            shared.things.free(cpu, thing);
        }
    });
    let reader = task(|cpu, shared| {
        cpu.rcu_read_lock();
        let ptr = Ptr::<Thing<Cpu>>::from_word(shared.load(cpu, POINTER));
        if !ptr.is_null() {
            let thing = shared.things.get(cpu, ptr);
            shared.see(0, thing.value().read(cpu));
            shared.see(1, 1 + thing.other().read(cpu));
        }
        cpu.rcu_read_unlock();
    });
    // Runs callbacks between two operations, and has a word of its own to look at.
    let janitor = task(|cpu, shared| {
        for _ in 0..2 {
            cpu.operation_boundary();
            put_things(cpu, shared);
            shared.load(cpu, 3);
        }
    });
    Toy::new(vec![owner, reader, janitor])
}

#[test]
fn freeing_at_once_is_a_use_after_free_and_after_a_grace_period_it_is_not() {
    for reduce in [false, true] {
        let report = explore(&freeing(false), dfs(2, reduce));
        assert_eq!(report.violations[0].invariant, "use-after-free", "{:?}", report.violations);
        assert!(report.complete);
        let toy = freeing(true);
        let report = explore(&toy, dfs(3, reduce));
        assert!(report.complete && report.violations.is_empty(), "{:?}", report.violations);
        // The reader saw the thing in some schedule, and nothing in another.
        let seen: BTreeSet<_> = toy.finals.borrow().iter().map(|(seen, _)| seen[0]).collect();
        assert_eq!(seen, BTreeSet::from([0, 5]));
    }
}

#[test]
fn words_are_named_in_timelines() {
    let report = explore(&freeing(false), dfs(2, true));
    let texts: Vec<_> = report.violations[0].timeline.iter().map(Step::to_text).collect();
    assert!(texts.iter().any(|text| text.contains("store thing[0].value 0x0 -> 0x5")), "{texts:?}");
    assert!(texts.last().unwrap().contains("use-after-free"), "{texts:?}");
}

#[test]
fn sleeping_in_a_read_section_is_a_finding() {
    let sleeper = task(|cpu, shared| {
        cpu.rcu_read_lock();
        cpu.sleep_until(&shared.words[0], |value| value == 0);
    });
    let report = explore(&Toy::new(vec![sleeper]), dfs(2, true));
    assert_eq!(report.violations[0].invariant, "sleep-in-atomic");
}

/// Programs on which the search with and without reduction must agree.
pub(super) fn assorted() -> Vec<(&'static str, Rc<Toy>)> {
    let private_then_shared = |cpu: &Cpu, shared: &Shared| {
        for _ in 0..2 {
            let mine = 2 + cpu.id() as usize;
            shared.store(cpu, mine, 1 + shared.load(cpu, mine));
            increment(cpu, shared);
            shared.load(cpu, 7);
        }
    };
    let locked_sum = |cpu: &Cpu, shared: &Shared| {
        shared.load(cpu, 2 + cpu.id() as usize);
        spin_lock(cpu, shared.field(1));
        let value = shared.load(cpu, 0);
        shared.store(cpu, 0, 2 * value + u64::from(cpu.id()));
        spin_unlock(cpu, shared.field(1));
        shared.see(cpu.id() as usize, value);
    };
    let sequence_writer = |cpu: &Cpu, shared: &Shared| {
        for value in 1..3 {
            shared.store(cpu, 0, 2 * value - 1);
            shared.store(cpu, 1, value);
            shared.store(cpu, 2, value);
            shared.store(cpu, 0, 2 * value);
        }
    };
    let sequence_reader = |cpu: &Cpu, shared: &Shared| {
        shared.load(cpu, 6);
        let before = shared.load(cpu, 0);
        let (x, y) = (shared.load(cpu, 1), shared.load(cpu, 2));
        let stable = shared.load(cpu, 0) == before && before.is_multiple_of(2);
        shared.see(0, if stable { 100 + 10 * x + y } else { 1 });
    };
    vec![
        ("private", Toy::new(vec![task(private_then_shared), task(private_then_shared)])),
        ("locked", Toy::new(vec![task(locked_sum), task(locked_sum), task(locked_sum)])),
        ("sequence", Toy::new(vec![task(sequence_writer), task(sequence_reader)])),
        ("freeing", freeing(false)),
        ("deferred", freeing(true)),
    ]
}

#[test]
fn the_reduction_keeps_every_final_state() {
    for preemptions in 0..4 {
        let reduced = assorted();
        for ((name, whole), (_, reduced)) in assorted().into_iter().zip(reduced) {
            let all = explore(&whole, dfs(preemptions, false));
            let some = explore(&reduced, dfs(preemptions, true));
            let place = format!("{name}, {preemptions} preemptions");
            assert!(all.complete && some.complete, "{place}");
            assert_eq!(*whole.finals.borrow(), *reduced.finals.borrow(), "{place}");
            let kinds = |report: &ExploreReport| -> BTreeSet<String> {
                report.violations.iter().map(|found| found.invariant.clone()).collect()
            };
            assert_eq!(kinds(&all), kinds(&some), "{place}");
        }
    }
}

#[test]
fn the_reduction_leaves_schedules_out() {
    let with = |reduce| explore(&assorted()[0].1, dfs(3, reduce)).schedules;
    assert!(with(true) * 4 < with(false), "{} of {}", with(true), with(false));
}

/// A task of random steps; what it reads goes into what was seen.
pub(super) fn random_task(seed: u64) -> Box<Run> {
    task(move |cpu, shared| {
        let mut state = seed;
        let mut next = |below: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % below
        };
        let me = cpu.id() as usize;
        let mut seen = 0u64;
        for _ in 0..3 {
            let word = [0, 1, 2 + me, 7][next(4) as usize];
            match next(8) {
                0 | 1 => seen = 7 * seen + shared.load(cpu, word),
                2 => shared.store(cpu, word, seen + 1 + me as u64),
                3 => {
                    cpu.local_irq_disable();
                    seen = 7 * seen + cpu.observe(&shared.words[0]);
                    seen = 7 * seen + shared.load(cpu, 1);
                    cpu.local_irq_enable();
                }
                4 => {
                    shared.store(cpu, 0, seen + 1);
                    cpu.ipi(|_| true);
                    shared.store(cpu, 1, seen + 1);
                }
                5 => {
                    spin_lock(cpu, shared.field(6));
                    seen = 7 * seen + shared.load(cpu, word);
                    spin_unlock(cpu, shared.field(6));
                }
                6 => {
                    let thing = shared.things.alloc();
                    thing.value().write(cpu, seen + 1);
                    shared.store(cpu, POINTER, thing.ptr().to_word());
                    shared.store(cpu, word, 1);
                    if next(2) == 0 {
                        shared.things.free(cpu, thing);
                    } else {
                        cpu.call_rcu(RcuCallback::PutVma(thing.ptr().to_word()));
                    }
                }
                _ => {
                    cpu.operation_boundary();
                    while let Some(RcuCallback::PutVma(word)) = cpu.rcu_ready() {
                        seen += 1000;
                        shared.things.free(cpu, shared.things.get(cpu, Ptr::from_word(word)));
                    }
                    cpu.rcu_read_lock();
                    let ptr = Ptr::<Thing<Cpu>>::from_word(shared.load(cpu, POINTER));
                    if !ptr.is_null() {
                        seen = 7 * seen + shared.things.get(cpu, ptr).value().read(cpu);
                    }
                    cpu.rcu_read_unlock();
                }
            }
            shared.see(me, seen);
        }
    })
}

#[test]
fn the_reduction_keeps_every_final_state_of_random_programs() {
    let mut nr_left_out = 0;
    for seed in 0..150 {
        let nr_tasks = 2 + seed % 2;
        let toy = || Toy::new((0..nr_tasks).map(|nth| random_task(seed * 4 + nth)).collect());
        for preemptions in 0..3 {
            let (whole, reduced) = (toy(), toy());
            let all = explore(&whole, dfs(preemptions, false));
            let some = explore(&reduced, dfs(preemptions, true));
            let place = format!("seed {seed}, {preemptions} preemptions");
            assert!(all.complete && some.complete, "{place}");
            assert_eq!(*whole.finals.borrow(), *reduced.finals.borrow(), "{place}");
            assert_eq!(all.violations.is_empty(), some.violations.is_empty(), "{place}");
            nr_left_out += all.schedules.saturating_sub(some.schedules);
        }
    }
    assert!(nr_left_out > 1000, "{nr_left_out}");
}
