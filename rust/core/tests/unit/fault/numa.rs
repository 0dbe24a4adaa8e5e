//! Hinting faults: the page comes back as it was, in both handlers.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::Access;
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
