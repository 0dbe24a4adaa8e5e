//! Drawn schedules: the same whoever runs them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::tests::*;
use super::*;
use crate::platform::Platform;

const SEARCHES: [Search; 3] =
    [Search::Random { seed: 5 }, Search::Pct { seed: 5, depth: 3 }, Search::Coverage { seed: 5 }];

/// Three tasks that break something in one random schedule of ten, of fifty, and of three hundred;
/// the latter `pct` may never find.
fn racing() -> Rc<Toy> {
    let run = |cpu: &Cpu, shared: &Shared| {
        for _ in 0..2 {
            let seen = shared.load(cpu, 0);
            shared.store(cpu, 0, (3 * seen + u64::from(cpu.id())) % 16);
        }
    };
    Toy::with_check((0..3).map(|_| task(run)).collect(), |shared| match shared.words()[0].peek() {
        4 => Some("four"),
        7 => Some("seven"),
        9 => Some("nine"),
        _ => None,
    })
}

/// What so many threads find, and how many explorers they had.
fn found_by(workers: u32, options: &ExploreOptions) -> (ExploreReport, u32) {
    let (watch, nr_made) = (Arc::default(), AtomicU32::new(0));
    let options = ExploreOptions { workers, ..options.clone() };
    let make = || {
        nr_made.fetch_add(1, Ordering::Relaxed);
        Explorer::new(racing(), options.clone(), &watch)
    };
    let report = make().unwrap().explore_with(&|| make().ok());
    (report, nr_made.into_inner())
}

#[test]
fn any_number_of_threads_finds_the_same_in_the_same_order() {
    for search in SEARCHES {
        let options = ExploreOptions {
            search,
            max_schedules: Some(1500),
            races: true,
            ..ExploreOptions::default()
        };
        let (alone, nr_made) = found_by(1, &options);
        assert_eq!((alone.schedules, nr_made), (1500, 1));
        assert!(alone.violations.len() >= 2);
        for workers in [2, 3, 8] {
            assert_eq!(found_by(workers, &options), (alone.clone(), workers));
        }
    }
}

#[test]
fn who_has_found_enough_has_run_what_one_thread_would_have() {
    for search in SEARCHES {
        for max_violations in [1, 2] {
            let options = ExploreOptions {
                search: search.clone(),
                max_violations,
                races: true,
                ..ExploreOptions::default()
            };
            let (alone, _) = found_by(1, &options);
            assert_eq!(alone.violations.len(), max_violations);
            for workers in [2, 8] {
                assert_eq!(found_by(workers, &options).0, alone);
            }
        }
    }
}

#[test]
fn what_is_learned_counts_from_the_next_round_on() {
    // The second schedule knows how long the first was; the third knows nothing of the second.
    let options = ExploreOptions {
        search: Search::Coverage { seed: 1 },
        max_schedules: Some(257),
        ..ExploreOptions::default()
    };
    let mut explorer = Explorer::new(racing(), options, &Arc::default()).unwrap();
    let in_rounds = explorer.explore();
    let mut lessons = Lessons::default();
    let mut steps = 0;
    for nth in 0..257 {
        explorer.next_schedule(nth, &lessons);
        let schedule = explorer.run_schedule();
        steps += schedule.steps;
        if nth == 0 {
            lessons.learn(&schedule);
        }
    }
    assert_eq!(in_rounds.steps, steps);
    assert_eq!((lessons.corpus.len(), lessons.longest > 4), (1, true));
}

#[test]
fn few_schedules_are_not_worth_a_thread() {
    for (schedules, made) in [(1, 1), (127, 1), (128, 2), (192, 3), (1 << 20, 8)] {
        let only_one = ExploreOptions {
            search: Search::Random { seed: 5 },
            max_schedules: Some(schedules),
            max_violations: if schedules > 1000 { 3 } else { 9 },
            ..ExploreOptions::default()
        };
        assert_eq!(found_by(8, &only_one).1, made, "{schedules} schedules");
    }
}

#[test]
fn a_panic_on_another_thread_comes_out() {
    let watch = Arc::default();
    let here = thread::current().id();
    let make = || {
        // Not of the subject's tasks, whose panics are findings.
        let options =
            ExploreOptions { search: SEARCHES[0].clone(), workers: 2, ..ExploreOptions::default() };
        assert_eq!(thread::current().id(), here, "on another thread");
        Explorer::new(Toy::new(vec![task(increment), task(increment)]), options, &watch)
    };
    let mut first = make().unwrap();
    let caught = catch_unwind(AssertUnwindSafe(|| first.explore_with(&|| make().ok())));
    let panic = caught.expect_err("endless but for that");
    assert!(panic.downcast_ref::<String>().unwrap().contains("on another thread"));
}

#[test]
fn all_threads_end_when_told_to() {
    let watch = Arc::<Watch>::default();
    let make = || {
        let options =
            ExploreOptions { search: SEARCHES[1].clone(), workers: 3, ..ExploreOptions::default() };
        Explorer::new(racing(), ExploreOptions { max_violations: 9, ..options }, &watch).ok()
    };
    let report = thread::scope(|scope| {
        scope.spawn(|| {
            while watch.schedules.load(Ordering::Relaxed) < 500 {
                thread::yield_now();
            }
            watch.stop();
        });
        make().unwrap().explore_with(&make)
    });
    assert!(report.schedules >= 500 && !report.complete);
}
