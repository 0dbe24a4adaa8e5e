use std::collections::BTreeSet;

use rand_core::SeedableRng;

use super::*;

fn queue(nr_tasks: u32, seed: u64) -> Queue {
    Queue::new(nr_tasks, &mut Pcg64Mcg::seed_from_u64(seed))
}

#[test]
fn the_smallest_clock_goes_first_whatever_the_number_of_tasks() {
    for nr_tasks in [1, 2, 3, 48, 1025] {
        let queue = queue(nr_tasks, 1);
        assert_eq!(queue.pop(), None);
        for task in 0..nr_tasks {
            queue.push(task, u64::from(task * 7919 % nr_tasks) * 10 + 5);
        }
        let mut last = 0;
        for _ in 0..nr_tasks {
            let clock = queue.first_clock();
            assert!(clock >= last);
            last = clock;
            assert!(queue.pop().is_some());
        }
        assert_eq!(queue.pop(), None);
    }
}

#[test]
fn equal_clocks_go_in_an_order_that_only_the_seed_decides() {
    let order = |seed| -> Vec<TaskId> {
        let queue = queue(48, seed);
        (0..48).for_each(|task| queue.push(task, 3));
        std::iter::from_fn(|| queue.pop()).collect()
    };
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    assert_eq!(order(1).into_iter().collect::<BTreeSet<_>>(), (0..48).collect());
}

/// Clocks in any order; as runs have them, shortly after whoever went last; and all over the wheel,
/// beyond it and before it.
#[test]
fn it_agrees_with_a_sorted_set() {
    for (before, after) in [(1 << 14, 1 << 14), (0, 300), (200, 40_000)] {
        let queue = queue(37, 5);
        let mut sorted = BTreeSet::new();
        let mut random = Pcg64Mcg::seed_from_u64(9);
        let mut last = 0;
        for _ in 0..20_000 {
            let number = random.next_u64();
            let task = (number % 37) as TaskId;
            let absent = !sorted.iter().any(|&(_, other)| other == task);
            if number & 1 << 40 != 0 && absent {
                let clock = (last + (number >> 41) % (before + after)).saturating_sub(before);
                queue.push(task, clock);
                sorted.insert((queue.key(task, clock), task));
            } else {
                let first = sorted.pop_first();
                assert_eq!(queue.pop(), first.map(|(_, task)| task));
                last = first.map_or(last, |(key, _)| key >> RANK_BITS);
            }
            assert_eq!(queue.first(), sorted.first().map_or(ABSENT, |&(key, _)| key));
        }
    }
}

#[test]
fn the_latest_clock_comes_last_among_many_tasks() {
    let nr_tasks = 1 << 16;
    let queue = Queue::new(nr_tasks, &mut Pcg64Mcg::seed_from_u64(1));
    queue.push(0, MAX_NS + 1_000_000_000);
    queue.push(nr_tasks - 1, 0);
    assert_eq!(queue.pop(), Some(nr_tasks - 1));
    assert_eq!(queue.first_clock(), MAX_NS + 1_000_000_000);
    assert_eq!(queue.pop(), Some(0));
}
