//! The reduction against all schedules: the same orders of conflicting steps, each once.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::*;
use super::*;
use crate::explore::Violation;
use crate::platform::Platform;

/// For each task, for each of its steps, how many of each other's come before.
type Order = Vec<Vec<u32>>;

/// A search of more is not compared.
const MAX_SCHEDULES: u64 = 20_000;

/// What a search comes to.
#[derive(Debug, Default)]
struct Found {
    schedules: u64,
    redundant: u64,
    /// How often each order was run.
    orders: BTreeMap<Order, u32>,
    finals: BTreeSet<(Vec<u64>, Vec<u64>)>,
    kinds: BTreeSet<String>,
}

/// Everything, or nothing if that takes too many schedules.
fn search(toy: &Rc<Toy>, preemptions: Option<u32>, reduce: bool) -> Option<Found> {
    let search = Search::Dfs { preemptions, reduce };
    let options = ExploreOptions { search, ..ExploreOptions::default() };
    let mut explorer = Explorer::new(Rc::clone(toy), options, &Arc::default()).unwrap();
    explorer.machine.observes.set(true);
    // So that a step is the same in each schedule.
    explorer.machine.keeps_together.set(false);
    let mut found = Found::default();
    let lessons = Lessons::default();
    while explorer.next_schedule(found.schedules + found.redundant, &lessons) {
        let schedule = explorer.run_schedule();
        if reduce && explorer.machine.dpor.borrow().is_redundant() {
            found.redundant += 1;
            continue;
        }
        found.schedules += 1;
        if found.schedules == MAX_SCHEDULES {
            return None;
        }
        let kind = |finding: &Finding| Violation::kind(finding.invariant, &finding.what);
        if schedule.findings.is_empty() {
            explorer.machine.dpor.borrow_mut().races.close();
            let order = explorer.machine.dpor.borrow().races.order();
            *found.orders.entry(order).or_default() += 1;
        }
        found.kinds.extend(schedule.findings.iter().map(kind));
    }
    assert!(explorer.is_complete());
    found.finals = toy.finals.take();
    Some(found)
}

/// `nr_tasks` tasks that each store so often to words of their own, and so often to a common one.
fn stores(nr_tasks: usize, own: u64, common: u64) -> Rc<Toy> {
    let run = move |cpu: &Cpu, shared: &Shared| {
        (0..own).for_each(|_| shared.store(cpu, 1 + cpu.id() as usize, 1));
        (0..common).for_each(|_| shared.store(cpu, 0, u64::from(cpu.id())));
    };
    Toy::new((0..nr_tasks).map(|_| task(run)).collect())
}

#[test]
fn counts_without_a_bound_are_those_of_the_orders() {
    for (nr_tasks, own, common, all, orders) in [
        // C(2n, n) schedules. Nothing in conflict: one order.
        (2, 3, 0, 20, 1),
        (3, 2, 0, 90, 1),
        // All in conflict: each schedule is an order.
        (2, 0, 3, 20, 20),
        (3, 0, 2, 90, 90),
        // C(10, 5), and the orders of the common stores alone: C(4, 2), C(6, 3).
        (2, 3, 2, 252, 6),
        (2, 2, 3, 252, 20),
        // 9! / 3!^3, and 3!.
        (3, 2, 1, 1680, 6),
    ] {
        let place = format!("{nr_tasks} tasks, {own} and {common} stores");
        let plain = search(&stores(nr_tasks, own, common), None, false).unwrap();
        assert_eq!((plain.schedules, plain.orders.len()), (all, orders), "{place}");
        let reduced = search(&stores(nr_tasks, own, common), None, true).unwrap();
        assert_eq!((reduced.schedules, reduced.redundant), (orders as u64, 0), "{place}");
        assert_eq!(reduced.orders.len(), orders, "{place}");
    }
}

#[test]
fn readers_of_a_word_that_one_writes_have_an_order_for_each_place_of_the_write() {
    // Each of n reads comes before the write or after: 2^n. Among each other they are not ordered.
    for nr_readers in 1..5 {
        let reader = |cpu: &Cpu, shared: &Shared| {
            shared.load(cpu, 0);
        };
        let mut tasks: Vec<_> = (0..nr_readers).map(|_| task(reader)).collect();
        tasks.push(task(|cpu, shared| shared.store(cpu, 0, 1)));
        let found = search(&Toy::new(tasks), None, true).unwrap();
        assert_eq!((found.schedules, found.orders.len()), (1 << nr_readers, 1 << nr_readers));
    }
}

/// Whether the search with the reduction covers what the one without does.
fn compare(place: &str, toy: impl Fn() -> Rc<Toy>) -> (u64, u64) {
    let mut numbers = (0, 0);
    for bound in [Some(0), Some(1), Some(2), None] {
        let Some(all) = search(&toy(), bound, false) else { continue };
        let some = search(&toy(), bound, true).expect("fewer schedules than without");
        let place = format!("{place}, at most {bound:?} preemptions");
        assert_eq!(all.finals, some.finals, "{place}");
        assert_eq!(all.kinds, some.kinds, "{place}");
        for order in all.orders.keys() {
            assert!(some.orders.contains_key(order), "{place}: {order:?}");
        }
        if bound.is_none() {
            assert_eq!(all.orders.len(), some.orders.len(), "{place}");
            if let Some((order, times)) = some.orders.iter().find(|(_, times)| **times > 1) {
                panic!("{place}: {times} times {order:?}");
            }
        }
        numbers = (numbers.0 + all.schedules, numbers.1 + some.schedules + some.redundant);
    }
    numbers
}

#[test]
fn the_reduction_keeps_every_order_within_the_bound() {
    for nth in 0..assorted().len() {
        let name = assorted()[nth].0;
        compare(name, || Rc::clone(&assorted()[nth].1));
    }
}

#[test]
fn the_reduction_keeps_every_order_of_random_programs() {
    let seeds = if std::env::var_os("SPFEMU_DEEP").is_some() { 3000 } else { 60 };
    let (mut all, mut some) = (0, 0);
    for seed in 0..seeds {
        let nr_tasks = 2 + seed % 2;
        let toy = || Toy::new((0..nr_tasks).map(|nth| random_task(seed * 4 + nth)).collect());
        let numbers = compare(&format!("seed {seed}"), toy);
        all += numbers.0;
        some += numbers.1;
    }
    assert!(some * 3 < all, "{some} of {all}");
}
