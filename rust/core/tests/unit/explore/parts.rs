//! A bounded search in parts: the same schedules as in one, and the same report.

use std::collections::BTreeMap;

use super::tests::*;
use super::*;
use crate::explore::dpor::Part;

fn bounded(preemptions: u32, memory_model: Model) -> ExploreOptions {
    let search = Search::Dfs { preemptions: Some(preemptions), reduce: true };
    ExploreOptions { search, memory_model, ..ExploreOptions::default() }
}

/// Each schedule of a search: its choices and whether it is redundant, by its rank.
type Schedules = BTreeMap<Vec<u32>, (Vec<(u64, u32)>, bool)>;

fn note(explorer: &mut Explorer<Toy>, schedules: &mut Schedules) -> Vec<u32> {
    let schedule = explorer.run_schedule();
    let rank = explorer.machine.dpor.borrow().rank();
    let choices = schedule.deviations.iter().map(|one| (one.point, one.rank)).collect();
    let before = schedules.insert(rank.clone(), (choices, schedule.is_redundant));
    assert!(before.is_none(), "run twice: {rank:?}");
    rank
}

/// The schedules of one pass, in the order of their ranks as one search must have come to them.
fn in_one(toy: &Rc<Toy>, options: &ExploreOptions, preemptions: u32) -> Schedules {
    let mut explorer = Explorer::new(Rc::clone(toy), options.clone(), &Arc::default()).unwrap();
    explorer.machine.dpor.borrow_mut().begin(&Part::whole(preemptions));
    let (mut schedules, mut last) = (Schedules::new(), None);
    while explorer.next_schedule(0, &Lessons::default()) {
        let rank = Some(note(&mut explorer, &mut schedules));
        assert!(last < rank, "{last:?} before {rank:?}");
        last = rank;
    }
    schedules
}

/// The schedules of one pass, by explorers that take turns as `turns` says, each of which gives away
/// what it can.
fn in_parts(
    toy: &Rc<Toy>,
    options: &ExploreOptions,
    preemptions: u32,
    mut turns: u64,
) -> Schedules {
    let make = || Explorer::new(Rc::clone(toy), options.clone(), &Arc::default()).unwrap();
    let mut next = |below: usize| {
        turns = turns.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (turns >> 33) as usize % below
    };
    let mut schedules = Schedules::new();
    let mut left = vec![Part::whole(preemptions)];
    let mut idle: Vec<_> = (0..3).map(|_| make()).collect();
    let mut busy: Vec<Explorer<Toy>> = Vec::new();
    loop {
        while !left.is_empty() && !idle.is_empty() {
            let explorer = idle.pop().expect("just seen");
            let part = left.swap_remove(next(left.len()));
            explorer.machine.dpor.borrow_mut().begin(&part);
            busy.push(explorer);
        }
        if busy.is_empty() {
            return schedules;
        }
        let turn = next(busy.len());
        if !busy[turn].next_schedule(0, &Lessons::default()) {
            idle.push(busy.swap_remove(turn));
            continue;
        }
        note(&mut busy[turn], &mut schedules);
        let dpor = &busy[turn].machine.dpor;
        left.extend(dpor.borrow_mut().opened());
        if next(3) == 0 {
            left.extend(dpor.borrow_mut().give_away());
        }
    }
}

fn compare(place: &str, toy: &Rc<Toy>, model: Model) -> usize {
    let mut nr_schedules = 0;
    for preemptions in 0..4 {
        let options = bounded(preemptions, model);
        let one = in_one(toy, &options, preemptions);
        nr_schedules += one.len();
        if one.len() > 3000 {
            break;
        }
        for turns in 1..4 {
            let parts = in_parts(toy, &options, preemptions, turns);
            assert_eq!(one, parts, "{place}, {model:?}, {preemptions} preemptions");
        }
    }
    nr_schedules
}

#[test]
fn in_parts_the_same_schedules_are_run_as_in_one_each_once() {
    for (name, toy) in assorted() {
        for model in Model::ALL {
            compare(name, &toy, model);
        }
    }
}

#[test]
fn in_parts_the_same_schedules_of_random_programs_are_run() {
    let seeds = if std::env::var_os("SPFEMU_DEEP").is_some() { 1000 } else { 40 };
    let mut nr_schedules = 0;
    for seed in 0..seeds {
        let nr_tasks = 2 + seed % 2;
        let toy = Toy::new((0..nr_tasks).map(|nth| random_task(seed * 4 + nth)).collect());
        let model = Model::ALL[(seed / 2 % 4) as usize];
        nr_schedules += compare(&format!("seed {seed}"), &toy, model);
    }
    assert!(nr_schedules > 1000, "{nr_schedules}");
}

/// Two tasks that lose increments, and a third that reads.
fn breaking() -> Rc<Toy> {
    let run = |cpu: &Cpu, shared: &Shared| {
        for _ in 0..3 {
            increment(cpu, shared);
        }
    };
    let reader = |cpu: &Cpu, shared: &Shared| {
        shared.see(0, shared.load(cpu, 0));
    };
    Toy::with_check(vec![task(run), task(run), task(reader)], |shared| {
        match shared.words()[0].peek() {
            3 => Some("three"),
            4 => Some("four"),
            5 => Some("five"),
            _ => None,
        }
    })
}

fn found_by(workers: u32, options: &ExploreOptions) -> ExploreReport {
    let watch = Arc::default();
    let options = ExploreOptions { workers, ..options.clone() };
    let make = || Explorer::new(breaking(), options.clone(), &watch);
    make().unwrap().explore_with(&|| make().ok())
}

#[test]
fn any_number_of_threads_reports_what_one_does() {
    for model in Model::ALL {
        let alone = found_by(1, &bounded(3, model));
        assert_eq!((alone.violations.len(), alone.complete), (3, true), "{model:?}");
        for workers in [2, 3, 8] {
            assert_eq!(found_by(workers, &bounded(3, model)), alone);
        }
    }
}

#[test]
fn who_has_found_enough_reports_what_one_thread_would_have() {
    for max_violations in 1..4 {
        let options = ExploreOptions { max_violations, ..bounded(3, Model::Sc) };
        let alone = found_by(1, &options);
        assert_eq!((alone.violations.len(), alone.complete), (max_violations, false));
        assert_eq!(found_by(3, &options), alone);
    }
}

#[test]
fn a_search_with_another_bound_has_one_thread() {
    let watch = Arc::default();
    let unbounded = Search::Dfs { preemptions: None, reduce: true };
    let whole = Search::Dfs { preemptions: Some(1), reduce: false };
    for options in [
        ExploreOptions { search: unbounded, ..ExploreOptions::default() },
        ExploreOptions { search: whole, ..ExploreOptions::default() },
        ExploreOptions { max_schedules: Some(500), ..bounded(3, Model::Sc) },
    ] {
        let options = ExploreOptions { workers: 8, ..options };
        let mut first = Explorer::new(breaking(), options, &watch).unwrap();
        let report = first.explore_with(&|| panic!("another"));
        assert!(report.schedules > 10);
    }
}
