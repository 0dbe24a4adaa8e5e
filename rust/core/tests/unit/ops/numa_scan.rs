//! Which PTEs a scan makes protnone.

use super::*;
use crate::design::Spf;
use crate::mm::{MpolMode, Pte};
use crate::support::{BASE, PAGE, RW, World};

/// A world whose address space has two users, with four pages written to.
fn world() -> World<Spf> {
    let world = World::<Spf>::boot();
    world.k.sys_clone_vm(&world.cpu, 1);
    world.map_fixed(BASE, 4 * PAGE, RW);
    (0..4).for_each(|page| assert_eq!(world.write(BASE + page * PAGE, page), Ok(0)));
    world
}

fn end(world: World<Spf>) {
    world.check();
    world.k.exit_mm(&world.cpu.machine().cpu(1, 1));
    world.end();
}

#[test]
fn pages_of_the_range_are_hinted_and_keep_that_they_may_be_written() {
    let world = world();
    assert_eq!(world.k.numa_scan(&world.cpu, BASE + PAGE, 2 * PAGE), Ok(()));
    for page in 0..4 {
        let pte = world.pte(BASE + page * PAGE);
        assert_eq!(pte.has(Pte::PROTNONE), (1..3).contains(&page), "{page}");
        assert!(pte.has(Pte::WRITE));
    }
    end(world);
}

#[test]
fn what_has_a_policy_or_one_user_stays() {
    let world = world();
    assert_eq!(world.k.sys_mbind(&world.cpu, BASE, PAGE, MpolMode::Bind, 1), Ok(()));
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, 2 * PAGE), Ok(()));
    let hinted = |page| world.pte(BASE + page * PAGE).has(Pte::PROTNONE);
    assert_eq!([hinted(0), hinted(1)], [false, true]);
    world.k.exit_mm(&world.cpu.machine().cpu(1, 1));
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, 4 * PAGE), Ok(()));
    assert!(!hinted(2));
    world.check();
    world.end();
}

#[test]
fn bad_arguments() {
    let world = world();
    assert_eq!(world.k.numa_scan(&world.cpu, BASE + 1, PAGE), Err(Errno::Einval));
    assert_eq!(world.k.numa_scan(&world.cpu, BASE, u64::MAX), Ok(()));
    assert_eq!(world.k.numa_scan(&world.cpu, u64::MAX - PAGE + 1, u64::MAX), Ok(()));
    end(world);
    let without = World::<Spf>::boot_with(|config| config.system.numa = false);
    assert_eq!(without.k.numa_scan(&without.cpu, BASE, PAGE), Err(Errno::Enosys));
    without.end();
}
