//! VMAs that grow down.

use std::sync::Barrier;

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{Signal, System};
use crate::ops::access::AccessFailure;
use crate::ops::mmap::MapFlags;
use crate::ops::mremap::{MremapArgs, RemapFlags};
use crate::support::{BASE, PAGE, R, RW, World, at};

const MAPERR: Result<(), AccessFailure> = Err(AccessFailure::Signal(Signal::MAPERR));

/// Maps a stack of so many pages, with further flags.
fn stack<D: Design>(world: &World<D>, address: u64, pages: u64, flags: u32) {
    let mut args = world.anonymous(address, pages * PAGE);
    args.flags.0 |= MapFlags::FIXED.0 | MapFlags::GROWSDOWN.0 | flags;
    assert_eq!(world.k.sys_mmap(&world.cpu, &args), Ok(address));
}

fn write<D: Design>(world: &World<D>, address: u64) -> Result<(), AccessFailure> {
    world.write(address, 1).map(drop)
}

fn grows<D: Design>() {
    //  .....SS  →  ..SSSSS
    let world = World::<D>::boot();
    stack(&world, at(5).0, 2, MapFlags::LOCKED.0);
    let vma = world.vma_at(at(5).0);
    let bumped = vma.vm_sequence().peek() + if D::LINKED_REFS == 1 { 0 } else { 2 };
    assert_eq!(write(&world, at(2).0 + 9), Ok(()));
    assert_eq!(world.picture(7, &[('S', vma)]), "..SSSSS");
    assert_eq!(vma.vm_pgoff().peek(), at(2).0 / PAGE);
    assert_eq!(vma.vm_sequence().peek(), bumped);
    let mm = world.mm();
    assert_eq!((mm.total_vm().peek(), mm.locked_vm().peek()), (5, 5));
    assert_eq!(world.read(at(3).0), Ok(0), "a locked stack grows without being populated");
    world.check();
    world.end();
}

#[test]
fn a_stack_grows_to_the_page_of_a_fault() {
    grows::<Spf>();
    grows::<Classic>();
}

#[test]
fn a_stack_keeps_its_distance_from_what_can_be_accessed() {
    let gap = STACK_GUARD_PAGES;
    for (prot, flags, lowest) in [
        (R, 0, 1 + gap),
        (VmFlags::NONE, 0, 1),
        (RW, MapFlags::GROWSDOWN.0, 1), // another stack
    ] {
        //  P....SS
        let world = World::<Spf>::boot();
        let mut args = world.anonymous(BASE, PAGE);
        args.flags.0 |= MapFlags::FIXED.0 | flags;
        args.prot = prot;
        world.k.sys_mmap(&world.cpu, &args).expect("room");
        stack(&world, at(gap + 10).0, 2, 0);
        if lowest > 1 {
            assert_eq!(write(&world, at(lowest - 1).0), MAPERR);
            let vma = world.vma_at(at(gap + 10).0);
            assert_eq!(vma.vm_start().peek(), at(gap + 10));
            assert!(vma.anon_vma().peek().is_null(), "too near, before anything else");
        }
        assert_eq!(write(&world, at(lowest).0), Ok(()));
        world.check();
        world.end();
    }
}

#[test]
fn a_stack_is_limited() {
    let system = |world: &mut crate::mm::Config| {
        world.system = System { stack_limit: 4 * PAGE + 1, ..System::default() };
    };
    let world = World::<Spf>::boot_with(system);
    stack(&world, at(8).0, 2, 0);
    assert_eq!(write(&world, at(5).0), MAPERR);
    assert!(!world.vma_at(at(8).0).anon_vma().peek().is_null(), "for the lock, even so");
    assert_eq!(write(&world, at(6).0), Ok(()));
    assert_eq!(write(&world, at(5).0), MAPERR);
    world.check();
    world.end();
}

#[test]
fn a_stack_grows_neither_below_the_lowest_address_nor_before_its_object() {
    let world = World::<Spf>::boot();
    stack(&world, 17 * PAGE, 1, 0); // vm.mmap_min_addr is 16 pages
    assert_eq!(write(&world, 15 * PAGE), MAPERR);
    assert_eq!(write(&world, 16 * PAGE), Ok(()));
    // Moved up, its first page is still page 16 of what it maps.
    let args = MremapArgs {
        address: 16 * PAGE,
        old_length: 2 * PAGE,
        new_length: 2 * PAGE,
        flags: RemapFlags(RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0),
        new_address: BASE,
    };
    assert_eq!(world.k.sys_mremap(&world.cpu, args), Ok(BASE));
    assert_eq!(write(&world, BASE - 17 * PAGE), MAPERR);
    assert_eq!(write(&world, BASE - 16 * PAGE), Ok(()));
    assert_eq!(world.vma_at(BASE).vm_pgoff().peek(), 0);
    world.check();
    world.end();
}

#[test]
fn nothing_else_grows() {
    let world = World::<Spf>::boot();
    world.map_fixed(BASE, PAGE, RW);
    assert_eq!(write(&world, BASE - PAGE), MAPERR);
    assert_eq!(write(&world, BASE - 1), MAPERR);
    world.end();
}

/// Two threads expand the same stack, further and further: pages stay where rmap looks for them.
#[test]
fn two_who_expand_a_stack_at_once_agree() {
    const ROUNDS: u64 = 200;
    let world = World::<Spf>::boot_with(|config| {
        config.system.stack_limit = 1 << 30;
    });
    let top = BASE + 4 * ROUNDS * PAGE;
    stack(&world, top, 1, 0);
    world.k.sys_clone_vm(&world.cpu, 1);
    let (machine, barrier) = (world.cpu.machine().clone(), Barrier::new(2));
    std::thread::scope(|threads| {
        for task in 0..2 {
            let (k, machine, barrier) = (&world.k, &machine, &barrier);
            threads.spawn(move || {
                let cpu = machine.cpu(task, task);
                barrier.wait();
                for round in 1..ROUNDS {
                    let address = top - (2 * round + u64::from(task)) * PAGE;
                    let outcome = k.user_access(&cpu, address, crate::mm::Access::Write, 1, true);
                    assert!(outcome.result.is_ok());
                }
            });
        }
    });
    world.check();
}
