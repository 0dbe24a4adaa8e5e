//! What can happen besides interleaving, in toys. Their tasks begin with an access, as operations do:
//! before that nothing is chosen.

use std::collections::BTreeSet;

use super::tests::{POINTER, Run, Toy, dfs, explore, put_things, random_task, task};
use super::*;
use crate::platform::{Hazard, Platform, RcuCallback, Value};

fn options(preemptions: u32, reduce: bool, hazards: &[Hazard]) -> ExploreOptions {
    ExploreOptions { hazards: hazards.iter().copied().collect(), ..dfs(preemptions, reduce) }
}

fn softirq() -> Box<Run> {
    task(|cpu, shared| cpu.run_ksoftirqd(|| put_things(cpu, shared)))
}

/// What the tasks saw, and the words: where in the arena a thing is depends on what was freed before.
fn finals(toy: &Toy) -> BTreeSet<(Vec<u64>, Vec<u64>)> {
    let finals = toy.finals.borrow().clone();
    let is_there = |(seen, mut words): (Vec<u64>, Vec<u64>)| {
        words[POINTER] = words[POINTER].min(1);
        (seen, words)
    };
    finals.into_iter().map(is_there).collect()
}

/// What the tasks saw in any schedule.
fn seen(toy: &Toy) -> BTreeSet<Vec<u64>> {
    toy.finals.borrow().iter().map(|(seen, _)| seen.clone()).collect()
}

#[test]
fn what_is_not_asked_for_never_happens() {
    let fails = || {
        let fails = |cpu: &Cpu, shared: &super::tests::Shared| {
            shared.load(cpu, 7);
            let fails = cpu.meets(Hazard::FailedAllocation);
            let lost = cpu.meets(Hazard::TlbEviction);
            shared.see(0, 1 + u64::from(fails) + 2 * u64::from(lost));
        };
        Toy::new(vec![task(fails)])
    };
    for reduce in [false, true] {
        for (hazards, expected) in [
            (&[][..], BTreeSet::from([1])),
            (&[Hazard::FailedAllocation], BTreeSet::from([1, 2])),
            (&[Hazard::TlbEviction], BTreeSet::from([1, 3])),
            (&[Hazard::TlbEviction, Hazard::FailedAllocation], BTreeSet::from([1, 2, 3, 4])),
        ] {
            let toy = fails();
            assert!(explore(&toy, options(9, reduce, hazards)).complete);
            assert_eq!(seen(&toy).iter().map(|seen| seen[0]).collect::<BTreeSet<_>>(), expected);
        }
    }
}

#[test]
fn each_counts_as_a_preemption() {
    let five = |cpu: &Cpu, shared: &super::tests::Shared| {
        shared.load(cpu, 7);
        (0..5).for_each(|_| _ = cpu.meets(Hazard::FailedAllocation));
    };
    for reduce in [false, true] {
        // 1 + 5, and 5 choose 2; the reduction runs those of smaller bounds first.
        let counts = if reduce { [1, 7, 23, 112] } else { [1, 6, 16, 32] };
        for (preemptions, schedules) in [0, 1, 2, 5].into_iter().zip(counts) {
            let toy = Toy::new(vec![task(five)]);
            let report = explore(&toy, options(preemptions, reduce, &[Hazard::FailedAllocation]));
            assert_eq!((report.schedules, report.complete), (schedules, true));
        }
    }
}

/// One task lets go of something, and looks later in the same operation whether it was put.
fn letting_go() -> Vec<Box<Run>> {
    let owner = task(|cpu, shared| {
        shared.load(cpu, 7);
        cpu.call_rcu(RcuCallback::PutVma(1));
        shared.see(0, 1 + shared.load(cpu, 0));
    });
    vec![owner]
}

/// Says that it was put.
fn putting() -> Box<Run> {
    task(|cpu, shared| {
        cpu.run_ksoftirqd(|| {
            while cpu.rcu_ready().is_some() {
                shared.store(cpu, 0, 1);
            }
        });
    })
}

#[test]
fn a_grace_period_ends_in_the_middle_of_an_operation_only_with_a_softirq() {
    for reduce in [false, true] {
        let without = Toy::new(letting_go());
        explore(&without, options(9, reduce, &[]));
        assert_eq!(seen(&without).len(), 1);
        let with = Toy::new(letting_go().into_iter().chain([putting()]).collect());
        let report = explore(&with, options(1, reduce, &[Hazard::Softirq]));
        assert!(report.complete && report.violations.is_empty(), "{:?}", report.violations);
        let seen: BTreeSet<u64> = seen(&with).iter().map(|seen| seen[0]).collect();
        assert_eq!(seen, BTreeSet::from([1, 2]));
    }
}

#[test]
fn a_softirq_waits_for_readers() {
    let reader = || {
        task(|cpu, shared| {
            cpu.rcu_read_lock();
            let thing = shared.things.alloc();
            cpu.call_rcu(RcuCallback::PutVma(thing.ptr().to_word()));
            // Who uses it after it was freed is found out.
            (0..2).for_each(|_| thing.value().write(cpu, 1));
            cpu.rcu_read_unlock();
        })
    };
    for reduce in [false, true] {
        let toy = Toy::new(vec![reader(), reader(), softirq()]);
        let report = explore(&toy, options(2, reduce, &[Hazard::Softirq]));
        assert!(report.complete && report.violations.is_empty(), "{:?}", report.violations);
    }
}

#[test]
fn a_deadlock_is_one_beside_an_idle_softirq() {
    let waits = task(|cpu, shared| _ = cpu.spin_until(&shared.words[0], |value| value == 1));
    let toy = Toy::new(vec![waits, softirq()]);
    let report = explore(&toy, options(2, true, &[Hazard::Softirq]));
    assert_eq!(report.violations[0].invariant, "deadlock");
    assert_eq!(report.violations[0].what, "nobody can go on: task 0 spins");
}

#[test]
fn the_reduction_keeps_every_final_state_of_random_programs_with_hazards() {
    let hazards = [Hazard::FailedAllocation, Hazard::Softirq];
    let mut nr_left_out = 0;
    for seed in 0..60 {
        let unlucky = |seed: u64| {
            let random = random_task(seed);
            task(move |cpu, shared| {
                shared.load(cpu, 7);
                if cpu.meets(Hazard::FailedAllocation) {
                    shared.store(cpu, seed as usize % 2, 9);
                }
                random(cpu, shared);
                if cpu.meets(Hazard::FailedAllocation) {
                    shared.load(cpu, 0);
                }
            })
        };
        let toy = || Toy::new(vec![unlucky(seed * 2), unlucky(seed * 2 + 1), softirq()]);
        for preemptions in 0..3 {
            let (whole, reduced) = (toy(), toy());
            let all = explore(&whole, options(preemptions, false, &hazards));
            let some = explore(&reduced, options(preemptions, true, &hazards));
            let place = format!("seed {seed}, {preemptions} preemptions");
            assert!(all.complete && some.complete, "{place}");
            assert_eq!(finals(&whole), finals(&reduced), "{place}");
            assert_eq!(all.violations.is_empty(), some.violations.is_empty(), "{place}");
            nr_left_out += all.schedules.saturating_sub(some.schedules);
        }
    }
    assert!(nr_left_out > 1000, "{nr_left_out}");
}
