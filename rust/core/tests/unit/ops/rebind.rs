//! rebind: errors, whose policies follow the cpuset, and what the cpuset says of memory afterwards.

use super::*;
use crate::design::Spf;
use crate::mm::MpolMode::{self, Bind, Interleave, Preferred};
use crate::support::{BASE, PAGE, R, RW, World, at};

/// Page `n` has the policy `n`, and so has the task the last one.
fn boot_with_policies(policies: &[(MpolMode, u64)]) -> World<Spf> {
    let world = World::boot_with(|config| config.system.nodes = 4);
    for (page, &(mode, nodes)) in (0..).zip(policies) {
        world.map_fixed(at(page).0, PAGE, RW);
        world.k.sys_mbind(&world.cpu, at(page).0, PAGE, mode, nodes).unwrap();
        world.k.sys_set_mempolicy(&world.cpu, mode, nodes).unwrap();
    }
    world
}

/// The nodes of the policies of the VMAs, in order.
fn nodes_of(world: &World<Spf>) -> Vec<u64> {
    let policies = world.k.peek_vmas(world.mm()).map(|vma| vma.vm_policy().peek());
    policies.map(|policy| world.k.policies.get(&world.cpu, policy).nodes().peek()).collect()
}

#[test]
fn errors_are_linuxs() {
    let world = boot_with_policies(&[(Bind, 0b0001)]);
    assert_eq!(world.k.rebind(&world.cpu, 0), Err(Errno::Enospc));
    assert_eq!(world.k.rebind(&world.cpu, 0b1_0001), Err(Errno::Einval));
    assert_eq!(world.k.mems_allowed(&world.cpu), 0b1111);
    assert_eq!(nodes_of(&world), [0b0001]);
    world.end();
    let without = World::<Spf>::boot_with(|config| config.system.numa = false);
    assert_eq!(without.k.rebind(&without.cpu, 1), Err(Errno::Enosys));
    without.end();
}

#[test]
fn nodes_go_by_their_places_in_the_cpuset() {
    let policies =
        [(Bind, 0b0001), (Interleave, 0b0110), (Preferred, 0b1000), (MpolMode::Local, 0)];
    let world = boot_with_policies(&policies);
    assert_eq!(world.k.rebind(&world.cpu, 0b1100), Ok(()));
    assert_eq!(nodes_of(&world), [0b0100, 0b1100, 0b1000, 0]);
    world.k.peek_vmas(world.mm()).for_each(|vma| assert_eq!(vma.vm_sequence().peek() % 2, 0));
    // Of the cpuset that masks were noted with, the noted mask alone is left: 5.1's mistake.
    assert_eq!(world.k.rebind(&world.cpu, 0b0011), Ok(()));
    assert_eq!(nodes_of(&world), [0b0001, 0b0011, 0b0010, 0]);
    assert_eq!(world.k.rebind(&world.cpu, 0b0010), Ok(()));
    assert_eq!(world.k.rebind(&world.cpu, 0b1001), Ok(()));
    assert_eq!(nodes_of(&world), [0b0001, 0b0001, 0b0001, 0]);
    world.check();
    world.end();
}

#[test]
fn a_mask_that_followed_once_has_forgotten_its_cpuset() {
    let world = boot_with_policies(&[(Bind, 0b0010), (Preferred, 0b0010)]);
    for (cpuset, expect) in [
        (0b1100, [0b1000, 0b1000]),
        // Nothing new, so nobody looks.
        (0b1100, [0b1000, 0b1000]),
        // Node 3 was the second of its cpuset, but is the first of what is noted.
        (0b0011, [0b0001, 0b0010]),
    ] {
        assert_eq!(world.k.rebind(&world.cpu, cpuset), Ok(()));
        assert_eq!(nodes_of(&world), expect, "{cpuset:#b}");
    }
    world.end();
}

#[test]
fn mappings_whose_policies_became_the_same_merge_when_somebody_looks() {
    let world = boot_with_policies(&[(Bind, 0b0001), (Bind, 0b0010)]);
    assert_eq!(world.k.rebind(&world.cpu, 0b1000), Ok(()));
    assert_eq!(nodes_of(&world), [0b1000, 0b1000]);
    world.k.sys_mprotect(&world.cpu, BASE, 2 * PAGE, R).unwrap();
    assert_eq!(nodes_of(&world), [0b1000]);
    world.check();
    world.end();
}

#[test]
fn a_cpuset_is_the_tasks_and_a_childs_from_the_beginning() {
    let world = boot_with_policies(&[(Bind, 0b0001)]);
    let task_nodes = |task: usize| {
        let policy = world.k.tasks[task].mempolicy.get();
        world.k.policies.get(&world.cpu, crate::platform::Value::from_word(policy)).nodes().peek()
    };
    world.k.sys_clone_vm(&world.cpu, 1);
    assert_eq!(world.k.rebind(&world.cpu, 0b0100), Ok(()));
    assert_eq!([task_nodes(0), task_nodes(1)], [0b0100, 0b0001]);
    let child = world.cpu.machine().cpu(1, 1);
    assert_eq!([world.k.mems_allowed(&world.cpu), world.k.mems_allowed(&child)], [0b0100, 0b1111]);
    world.k.exit_mm(&child);
    world.k.sys_clone_vm(&world.cpu, 1);
    assert_eq!(world.k.mems_allowed(&child), 0b0100);
    assert_eq!(task_nodes(1), 0b0100);
    world.k.exit_mm(&child);
    world.end();
}

#[test]
fn the_cpuset_says_what_policies_may_name_and_where_pages_may_go() {
    let world = boot_with_policies(&[(Bind, 0b0001)]);
    let (k, cpu) = (&world.k, &world.cpu);
    assert_eq!(k.rebind(cpu, 0b1100), Ok(()));
    assert_eq!(k.sys_mbind(cpu, BASE, PAGE, Bind, 0b0011), Err(Errno::Einval));
    assert_eq!(k.sys_mbind(cpu, BASE, PAGE, Bind, 0b0110), Ok(()));
    assert_eq!(nodes_of(&world), [0b0100]);
    assert_eq!(k.sys_set_mempolicy(cpu, Preferred, 0b0001), Err(Errno::Einval));
    assert_eq!(k.migrate(cpu, BASE, PAGE, 1), Err(Errno::Eacces));
    assert_eq!(k.migrate(cpu, BASE, PAGE, 4), Err(Errno::Enodev));
    assert_eq!(k.migrate(cpu, BASE, PAGE, 2), Ok(()));
    world.end();
}
