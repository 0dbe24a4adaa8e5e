//! v11's tree: what differs from v12's.

use crate::design::{Design, Speculative, SpfRwlock};
use crate::mm::{Access, Vaddr};
use crate::ops::access::Handled;
use crate::platform::Platform;
use crate::support::{BASE, PAGE, RW, World};

type Tree = SpfRwlock;

/// A page that was written, of a process with two tasks.
fn written() -> World<Tree> {
    let world = World::<Tree>::boot();
    world.k.sys_clone_vm(&world.cpu, 1);
    world.map_fixed(BASE, 2 * PAGE, RW);
    assert_eq!(world.write(BASE, 7), Ok(0));
    world
}

fn end(world: World<Tree>) {
    world.k.exit_mm(&world.cpu.machine().cpu(1, 1));
    world.end();
}

#[test]
fn a_fault_beside_a_touched_page_is_speculative() {
    let world = written();
    let outcome = world.access(BASE + PAGE, Access::Write, 1);
    assert_eq!((outcome.result, outcome.handled), (Ok(0), Handled::Spf));
    world.check();
    end(world);
}

#[test]
fn nothing_above_the_last_mapping_is_found_and_the_lock_is_free_again() {
    let world = written();
    let find = |address| Tree::find_vma_unlocked(&world.k, &world.cpu, world.mm(), Vaddr(address));
    let below = find(BASE - PAGE).expect("the first that ends above it");
    assert_eq!(below.vm_start().peek(), Vaddr(BASE));
    Tree::put_vma(&world.k, &world.cpu, below);
    assert!(find(BASE + 2 * PAGE).is_none());
    world.check();
    end(world);
}

#[test]
fn the_last_reference_frees_a_vma_at_once_with_no_grace_period() {
    let world = written();
    let vma = Tree::find_vma_unlocked(&world.k, &world.cpu, world.mm(), Vaddr(BASE)).unwrap();
    assert_eq!(vma.vm_ref_count().peek(), 2, "the owner's and ours");
    assert_eq!(world.k.sys_munmap(&world.cpu, BASE, 2 * PAGE), Ok(()));
    assert!(world.cpu.rcu_ready().is_none());
    assert!(world.k.vmas.is_live(vma.ptr()));
    Tree::put_vma(&world.k, &world.cpu, vma);
    assert!(!world.k.vmas.is_live(vma.ptr()));
    end(world);
}
