//! Hinting faults: the page comes back as it was, in both handlers.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{Access, MpolMode};
use crate::ops::access::Handled;
use crate::support::{BASE, PAGE, R, RW, World};

fn comes_back<D: Design>(handled: Handled) {
    let world = World::<D>::boot();
    world.k.sys_clone_vm(&world.cpu, 1);
    world.map_fixed(BASE, 2 * PAGE, RW);
    assert_eq!(world.write(BASE, 7), Ok(0));
    assert_eq!(world.write(BASE + PAGE, 8), Ok(0));
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, 2 * PAGE), Ok(()));
    let read = world.access(BASE, Access::Read, 0);
    assert_eq!((read.result, read.handled), (Ok(7), handled));
    let written = world.access(BASE + PAGE, Access::Write, 9);
    assert_eq!((written.result, written.handled), (Ok(0), handled));
    for address in [BASE, BASE + PAGE] {
        assert!(world.pte(address).has(Pte::PRESENT));
        assert!(world.pte(address).has(Pte::WRITE), "no second fault");
    }
    world.check();
    world.k.exit_mm(&world.cpu.machine().cpu(1, 1));
    world.end();
}

#[test]
fn a_hinted_page_comes_back_as_it_was() {
    comes_back::<Spf>(Handled::Spf);
    comes_back::<Classic>(Handled::Classic);
}

#[test]
fn mprotect_takes_the_hint_and_the_permission_away() {
    let world = World::<Spf>::boot();
    world.k.sys_clone_vm(&world.cpu, 1);
    world.map_fixed(BASE, PAGE, RW);
    assert_eq!(world.write(BASE, 7), Ok(0));
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, PAGE), Ok(()));
    assert_eq!(world.k.sys_mprotect(&world.cpu, BASE, PAGE, R), Ok(()));
    assert!(!world.pte(BASE).has(Pte::PROTNONE | Pte::WRITE));
    assert_eq!(world.access(BASE, Access::Read, 0).handled, Handled::None);
    world.check();
    world.k.exit_mm(&world.cpu.machine().cpu(1, 1));
    world.end();
}

/// The node of the page at `BASE`, which CPU 0 wrote, after a hinting fault of CPU 1, and who
/// handled that.
fn node_after_a_fault_of_the_other_cpu<D: Design>(
    prepare: impl FnOnce(&World<D>),
) -> (u32, Handled) {
    let world = World::<D>::boot();
    world.k.sys_clone_vm(&world.cpu, 1);
    world.map_fixed(BASE, PAGE, RW);
    assert_eq!(world.write(BASE, 7), Ok(0));
    let node =
        |world: &World<D>| world.k.page_to_nid(world.k.page(&world.cpu, world.pte(BASE).pfn()));
    assert_eq!(node(&world), 0);
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, PAGE), Ok(()));
    prepare(&world);
    let other = world.cpu.machine().cpu(1, 1);
    let read = world.k.user_access(&other, BASE, Access::Read, 0, true);
    assert_eq!(read.result, Ok(7));
    let found = node(&world);
    assert_eq!(world.write(BASE, 8), Ok(0));
    assert_eq!(world.read(BASE), Ok(8));
    world.check();
    world.k.exit_mm(&other);
    world.end();
    (found, read.handled)
}

#[test]
fn a_page_follows_the_cpu_that_uses_it() {
    assert_eq!(node_after_a_fault_of_the_other_cpu::<Spf>(|_| ()), (1, Handled::Spf));
    assert_eq!(node_after_a_fault_of_the_other_cpu::<Classic>(|_| ()), (1, Handled::Classic));
}

#[test]
fn a_page_that_a_policy_has_placed_stays() {
    let bind = |world: &World<Spf>| {
        world.k.sys_mbind(&world.cpu, BASE, PAGE, MpolMode::Bind, 0b01).unwrap();
    };
    assert_eq!(node_after_a_fault_of_the_other_cpu(bind), (0, Handled::Spf));
}

#[test]
fn a_page_does_not_leave_the_cpuset() {
    let cpuset = |world: &World<Spf>| world.k.tasks[1].mems_allowed.set(0b01);
    assert_eq!(node_after_a_fault_of_the_other_cpu(cpuset), (0, Handled::Spf));
}

#[test]
fn a_page_that_somebody_has_locked_stays() {
    let lock = |world: &World<Spf>| {
        let page = world.k.page(&world.cpu, world.pte(BASE).pfn());
        assert!(world.k.trylock_page(&world.cpu, page));
        let other = world.cpu.machine().cpu(1, 1);
        assert_eq!(world.k.user_access(&other, BASE, Access::Read, 0, true).result, Ok(7));
        assert_eq!(world.pte(BASE).pfn(), page.slot_index());
        world.k.unlock_page(&world.cpu, page);
    };
    // It was looked at, so it is in its place for now.
    assert_eq!(node_after_a_fault_of_the_other_cpu(lock), (0, Handled::None));
}

#[test]
fn a_page_that_two_nodes_use_goes_where_it_is_used_twice() {
    // Tasks 0 (node 0), 1 and 2 (node 1).
    let world = World::<Spf>::boot_with(|config| (config.nr_cpus, config.nr_tasks) = (4, 3));
    world.k.sys_clone_vm(&world.cpu, 1);
    world.k.sys_clone_vm(&world.cpu, 2);
    world.map_fixed(BASE, PAGE, RW);
    assert_eq!(world.write(BASE, 7), Ok(0));
    let cpus = [
        world.cpu.machine().cpu(0, 0),
        world.cpu.machine().cpu(2, 1),
        world.cpu.machine().cpu(3, 2),
    ];
    let node_after = |task: usize| {
        assert_eq!(world.k.numa_scan(&world.cpu, BASE, PAGE), Ok(()));
        assert_eq!(world.k.user_access(&cpus[task], BASE, Access::Read, 0, true).result, Ok(7));
        world.k.page_to_nid(world.k.page(&world.cpu, world.pte(BASE).pfn()))
    };
    let nodes = [0, 1, 2, 0, 1, 1].map(node_after);
    // The first comer, a stranger, its neighbour, a stranger twice, who then has been here before.
    assert_eq!(nodes, [0, 0, 1, 1, 1, 1]);
    world.check();
    cpus[1..].iter().for_each(|cpu| world.k.exit_mm(cpu));
    world.end();
}

#[test]
fn nobody_can_tell_from_a_pte_that_its_page_has_moved() {
    let mut before = Pte::EMPTY;
    let hint = |world: &World<Spf>| before = world.pte(BASE);
    let after = move_and_look(hint);
    let frame = |pte: Pte| Pte::new(pte.pfn(), Pte::EMPTY).0;
    assert_ne!(after.pfn(), before.pfn());
    assert_eq!(after.0 - frame(after), before.0 - frame(before));
}

/// The PTE of a page that was written, after a hinting fault of the other CPU has moved it.
fn move_and_look(first: impl FnOnce(&World<Spf>)) -> Pte {
    let world = World::<Spf>::boot();
    world.k.sys_clone_vm(&world.cpu, 1);
    world.map_fixed(BASE, PAGE, RW);
    assert_eq!(world.write(BASE, 7), Ok(0));
    first(&world);
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, PAGE), Ok(()));
    let other = world.cpu.machine().cpu(1, 1);
    assert_eq!(world.k.user_access(&other, BASE, Access::Read, 0, true).result, Ok(7));
    let pte = world.pte(BASE);
    world.check();
    world.k.exit_mm(&other);
    world.end();
    pte
}

#[test]
fn a_page_that_a_child_shares_stays_and_keeps_the_childs_hint() {
    let world = World::<Spf>::boot_with(|config| config.nr_tasks = 3);
    world.k.sys_clone_vm(&world.cpu, 2);
    world.map_fixed(BASE, PAGE, RW);
    assert_eq!(world.write(BASE, 7), Ok(0));
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, PAGE), Ok(()));
    world.k.sys_fork(&world.cpu, 1).unwrap();
    let child = world.cpu.machine().cpu(1, 1);
    assert_eq!(world.k.user_access(&child, BASE, Access::Read, 0, true).result, Ok(7));
    assert!(world.pte(BASE).has(Pte::PROTNONE));
    world.check();
    world.k.exit_mm(&child);
    world.k.exit_mm(&world.cpu.machine().cpu(1, 2));
    world.end();
}
