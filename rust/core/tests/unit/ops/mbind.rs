//! mbind and set_mempolicy: errors, splitting and merging, and who has the policy afterwards.

use super::*;
use crate::design::{Classic, Spf};
use crate::support::{BASE, PAGE, RW, World, at};
use MpolMode::{Bind, Default, Interleave};

fn mbind<D: Design>(world: &World<D>, from: u64, to: u64, mode: MpolMode) -> Result<(), Errno> {
    world.k.sys_mbind(&world.cpu, at(from).0, (to - from) * PAGE, mode, 1)
}

/// Each VMA: where it begins and ends, in pages, and the mode of its policy.
fn layout<D: Design>(world: &World<D>) -> Vec<(u64, u64, u64)> {
    let page = |address: Vaddr| (address.0 - BASE) / PAGE;
    let vmas = world.k.peek_vmas(world.mm());
    vmas.map(|vma| {
        let policy = world.k.policies.get_opt(&world.cpu, vma.vm_policy().peek());
        let mode = policy.map_or(0, |policy| policy.mode().peek());
        (page(vma.vm_start().peek()), page(vma.vm_end().peek()), mode)
    })
    .collect()
}

#[test]
fn errors_are_linuxs() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(1).0, 2 * PAGE, RW);
    world.map_fixed(at(5).0, PAGE, RW);
    let table = [
        (at(1).0 + 1, PAGE, Bind, 1, Err(Errno::Einval)),
        (at(1).0, 0, Bind, 0, Ok(())),
        (at(1).0, PAGE, Bind, 0, Err(Errno::Einval)),
        (at(1).0, PAGE, Bind, 4, Err(Errno::Einval)), // no node 2
        (at(1).0, u64::MAX, Bind, 1, Ok(())),         // rounds to 0
        (at(1).0, 0_u64.wrapping_sub(PAGE), Bind, 1, Err(Errno::Einval)), // wraps
        (at(9).0, PAGE, Bind, 1, Err(Errno::Efault)),
        (at(0).0, 2 * PAGE, Bind, 1, Err(Errno::Efault)),
        (at(0).0, 2 * PAGE, Default, 1, Err(Errno::Efault)),
        (at(1).0, 5 * PAGE, Bind, 1, Err(Errno::Efault)), // a hole between
        (at(1).0, 5 * PAGE, Default, 1, Ok(())),
        (at(5).0, 9 * PAGE, Bind, 1, Ok(())), // a hole at the end
    ];
    for (start, length, mode, nodes, expect) in table {
        let result = world.k.sys_mbind(&world.cpu, start, length, mode, nodes);
        assert_eq!(result, expect, "{start:#x} {length:#x} {mode:?} {nodes}");
    }
    assert_eq!(layout(&world), [(1, 3, 0), (5, 6, Bind as u64)]);
    world.check();
    world.end();
}

#[test]
fn a_policy_splits_and_merges() {
    let world = World::<Classic>::boot();
    let (bind, spread) = (Bind as u64, Interleave as u64);
    world.map_fixed(at(0).0, 8 * PAGE, RW);
    assert_eq!(mbind(&world, 2, 4, Bind), Ok(()));
    assert_eq!(layout(&world), [(0, 2, 0), (2, 4, bind), (4, 8, 0)]);
    // Again, and of a part: nothing to do.
    assert_eq!(mbind(&world, 3, 4, Bind), Ok(()));
    assert_eq!(mbind(&world, 3, 6, Bind), Ok(()));
    assert_eq!(layout(&world), [(0, 2, 0), (2, 6, bind), (6, 8, 0)]);
    assert_eq!(mbind(&world, 5, 7, Interleave), Ok(()));
    assert_eq!(layout(&world), [(0, 2, 0), (2, 5, bind), (5, 7, spread), (7, 8, 0)]);
    assert_eq!(mbind(&world, 0, 8, Default), Ok(()));
    assert_eq!(layout(&world), [(0, 8, 0)]);
    world.check();
    world.end();
}

#[test]
fn too_many_vmas_is_enomem_and_what_was_done_stays() {
    let world = World::<Spf>::boot_with(|config| config.system.max_map_count = 2);
    world.map_fixed(at(0).0, 8 * PAGE, RW);
    assert_eq!(mbind(&world, 2, 4, Bind), Err(Errno::Enomem));
    assert_eq!(layout(&world), [(0, 2, 0), (2, 8, 0)]);
    world.check();
    world.end();
}

#[test]
fn new_memory_has_no_policy_and_a_copy_has_the_same() {
    let world = World::<Spf>::boot();
    let spread = Interleave as u64;
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    assert_eq!(mbind(&world, 0, 4, Interleave), Ok(()));
    world.map_fixed(at(4).0, 4 * PAGE, RW);
    assert_eq!(layout(&world), [(0, 4, spread), (4, 8, 0)]);
    assert_eq!(world.k.sys_set_mempolicy(&world.cpu, Bind, 1), Ok(()));
    world.k.sys_fork(&world.cpu, 1).expect("memory");
    let child = world.k.task_mm(&world.cpu, &world.k.tasks[1]);
    let policies = world.k.peek_vmas(child).map(|vma| vma.vm_policy().peek());
    let modes = policies.map(|p| world.k.policies.get_opt(&world.cpu, p).map(|p| p.mode().peek()));
    assert_eq!(modes.collect::<Vec<_>>(), [Some(spread), None]);
    // The VMA's and the task's, each twice; the child's go with it.
    assert_eq!(world.k.policies.live(), 4);
    world.k.exit_mm(&world.cpu.machine().cpu(1, 1));
    assert_eq!(world.k.policies.live(), 2);
    world.end();
}

#[test]
fn a_kernel_without_numa_has_neither_call() {
    let world = World::<Spf>::boot_with(|config| config.system.numa = false);
    world.map_fixed(at(0).0, PAGE, RW);
    assert_eq!(mbind(&world, 0, 1, Bind), Err(Errno::Enosys));
    assert_eq!(world.k.sys_set_mempolicy(&world.cpu, Bind, 1), Err(Errno::Enosys));
    world.end();
}
