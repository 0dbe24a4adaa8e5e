//! The reduction under weak memory, against all schedules with all choices of stores.

use std::collections::BTreeSet;

use super::tests::*;
use super::*;
use crate::platform::{Fence, Ordering, Platform};

type Finals = BTreeSet<(Vec<u64>, Vec<u64>)>;

/// A search of more is not compared.
const MAX_SCHEDULES: u64 = 50_000;

/// A few accesses of two or three common words, in one of all orders that there are.
fn random_accesses(seed: u64, nr_accesses: u64) -> Box<Run> {
    task(move |cpu, shared| {
        let mut state = seed;
        let mut next = |below: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % below
        };
        let mut seen = 0u64;
        for nth in 0..nr_accesses {
            let word = &shared.words()[next(3) as usize % 3];
            let value = 1 + nth + 10 * u64::from(cpu.id());
            match next(12) {
                0..3 => seen = 31 * seen + cpu.load(word, Ordering::Relaxed),
                3 => seen = 31 * seen + cpu.load(word, Ordering::Acquire),
                4 => seen = 31 * seen + cpu.load(word, Ordering::Consume),
                5..8 => cpu.store(word, value, Ordering::Relaxed),
                8 => cpu.store(word, value, Ordering::Release),
                9 => seen = 31 * seen + cpu.swap(word, value, Ordering::AcqRel),
                10 => cpu.fence(if next(2) == 0 { Fence::Read } else { Fence::Write }),
                _ => cpu.fence(Fence::Full),
            }
        }
        shared.see(cpu.id() as usize, seen);
    })
}

/// What all schedules lead to, and how many those are; nothing if they are too many.
fn finals(
    toy: &Rc<Toy>,
    memory_model: Model,
    preemptions: Option<u32>,
    reduce: bool,
    asks_always: bool,
) -> Option<(Finals, u64)> {
    let search = Search::Dfs { preemptions, reduce };
    let max_schedules = Some(MAX_SCHEDULES);
    let options =
        ExploreOptions { search, memory_model, max_schedules, ..ExploreOptions::default() };
    let mut explorer = Explorer::new(Rc::clone(toy), options, &Arc::default()).unwrap();
    explorer.machine.memory.borrow_mut().asks_always = asks_always;
    let report = explorer.explore();
    report.complete.then(|| (toy.finals.take(), report.schedules + report.redundant))
}

/// Compares a random program; how many schedules there were without the reduction, and with it.
fn compare(model: Model, seed: u64) -> (u64, u64) {
    let nr_tasks = 2 + seed % 3;
    let nr_accesses = [0, 0, 5, 3, 2][nr_tasks as usize];
    let toy = || {
        let task = |nth| random_accesses(seed * 4 + nth, nr_accesses);
        Toy::new((0..nr_tasks).map(task).collect())
    };
    let place = format!("{model:?}, seed {seed}");
    let within = |bound| finals(&toy(), model, bound, true, false).expect("fewer than all").0;
    for bound in [1, 2] {
        let Some((all, _)) = finals(&toy(), model, Some(bound), false, false) else { continue };
        assert!(within(Some(bound)).is_subset(&all), "{place}, {bound}");
        // Whether an older store is a choice can depend on steps without a conflict.
        assert!(all.is_subset(&within(Some(bound + 1))), "{place}, {bound}");
    }
    let Some((all, nr_all)) = finals(&toy(), model, None, false, false) else { return (0, 0) };
    let (some, nr_some) = finals(&toy(), model, None, true, false).expect("fewer than all");
    assert_eq!(all, some, "{place}");
    if let Some((asked, _)) = finals(&toy(), model, None, false, true) {
        assert_eq!(asked, all, "{place}: asked always");
    }
    (nr_all, nr_some)
}

/// What all schedules of these tasks lead to on arm64, without the reduction and with it.
fn both(tasks: impl Fn() -> Vec<Box<Run>>) -> [Finals; 2] {
    [false, true].map(|reduce| {
        finals(&Toy::new(tasks()), Model::Armv8, None, reduce, false).expect("not too many").0
    })
}

#[test]
fn what_a_full_barrier_makes_visible_at_one_time_could_be_seen_one_by_one() {
    // The words n, s, z.
    // 0:  Wn  Ws                   Wz  mb
    // 1:           Rs.acq 1  Rn 0
    let tasks = || -> Vec<Box<Run>> {
        let writer = task(|cpu, shared| {
            for word in &shared.words()[..3] {
                cpu.store(word, 1, Ordering::Relaxed);
            }
            cpu.fence(Fence::Full);
        });
        let reader = task(|cpu, shared| {
            let words = shared.words();
            let seen = cpu.load(&words[1], Ordering::Acquire);
            shared.see(1, 10 * seen + cpu.load(&words[0], Ordering::Relaxed));
        });
        vec![writer, reader]
    };
    let [all, some] = both(tasks);
    assert!(all.iter().any(|(seen, _)| seen[1] == 10));
    assert_eq!(all, some);
}

#[test]
fn what_a_read_makes_visible_at_one_time_could_be_seen_one_by_one() {
    // The words n, s, x.
    // 0:  Wn  Ws  Wx.rel
    // 1:                                   Rx 1
    // 2:                   Rs.acq 1  Rn 0
    let tasks = || -> Vec<Box<Run>> {
        let writer = task(|cpu, shared| {
            let words = shared.words();
            cpu.store(&words[0], 1, Ordering::Relaxed);
            cpu.store(&words[1], 1, Ordering::Relaxed);
            cpu.store(&words[2], 1, Ordering::Release);
        });
        let first = task(|cpu, shared| {
            let words = shared.words();
            shared.see(1, cpu.load(&words[2], Ordering::Relaxed));
        });
        let second = task(|cpu, shared| {
            let words = shared.words();
            let seen = cpu.load(&words[1], Ordering::Acquire);
            shared.see(2, 10 * seen + cpu.load(&words[0], Ordering::Relaxed));
        });
        vec![writer, first, second]
    };
    let [all, some] = both(tasks);
    assert!(all.iter().any(|(seen, _)| seen[1..3] == [1, 10]));
    assert_eq!(all, some);
}

#[test]
fn the_reduction_keeps_what_random_accesses_lead_to_in_weak_memory() {
    let seeds = if std::env::var_os("SPFEMU_DEEP").is_some() { 3000 } else { 24 };
    for model in [Model::Tso, Model::Armv8, Model::Power] {
        let (mut all, mut some) = (0, 0);
        for seed in 0..seeds {
            let numbers = compare(model, seed);
            all += numbers.0;
            some += numbers.1;
        }
        assert!(some * 3 < all, "{model:?}: {some} of {all}");
    }
}
