use std::collections::BTreeSet;

use super::*;

/// A schedule of three points, at each of which tasks 0 and 1 can go on.
fn three_choices(strategy: &mut Coverage) -> Vec<TaskId> {
    let mut current = 0;
    (0..3)
        .map(|nth| {
            let point = Point { nth, runnable: 0b11, current, can_go_on: true, is_free: false };
            current = strategy.choose(&point);
            current
        })
        .collect()
}

/// The choices of `tasks` that differ from the default.
fn deviations(tasks: &[TaskId]) -> Vec<Deviation> {
    let before = std::iter::once(&0).chain(tasks);
    let differ = (0..).zip(before.zip(tasks)).filter(|(_, (before, task))| before != task);
    differ.map(|(point, (_, &rank))| Deviation { point, rank }).collect()
}

#[test]
fn what_had_something_new_is_mutated_and_what_had_not_is_forgotten() {
    let (mut coverage, mut lessons) = (Coverage::new(0), Lessons::default());
    for (pairs, kept) in [(&[1, 2][..], 1), (&[2, 1], 1), (&[], 1), (&[2, 3], 2)] {
        lessons.learn_from(&[Deviation { point: 1, rank: 1 }], 3, pairs);
        assert_eq!(lessons.corpus.len(), kept);
    }
    let plans: BTreeSet<_> = (0..100)
        .map(|nth| {
            coverage.next_schedule(nth, &lessons);
            coverage.plan.iter().map(|planned| planned.point).collect::<Vec<_>>()
        })
        .collect();
    // Drawn ones, the entry without its choice or with it moved, and with others.
    assert!(plans.contains(&vec![]) && plans.contains(&vec![2]) && plans.len() > 10, "{plans:?}");
}

#[test]
fn every_schedule_is_come_to_and_depends_on_the_seed_alone() {
    let run = |seed| {
        let (mut coverage, mut lessons) = (Coverage::new(seed), Lessons::default());
        let schedules: Vec<_> = (0..400)
            .map(|nth| {
                coverage.next_schedule(nth, &lessons);
                let tasks = three_choices(&mut coverage);
                lessons.learn_from(&deviations(&tasks), 3, &[u64::from(tasks[1])]);
                tasks
            })
            .collect();
        schedules
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    assert_eq!(run(1).into_iter().collect::<BTreeSet<_>>().len(), 8);
}
