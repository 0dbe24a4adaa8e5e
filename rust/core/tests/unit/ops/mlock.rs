//! mlock and munlock.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{Errno, FileKind, PG_MLOCKED};
use crate::ops::access::AccessFailure;
use crate::ops::madvise::Advice;
use crate::ops::mmap::MapFlags;
use crate::support::{PAGE, R, RW, World, at};

fn mlock<D: Design>(world: &World<D>, page: u64, pages: u64) -> Result<(), Errno> {
    world.k.sys_mlock(&world.cpu, at(page).0, pages * PAGE, false)
}
fn munlock<D: Design>(world: &World<D>, page: u64, pages: u64) -> Result<(), Errno> {
    world.k.sys_munlock(&world.cpu, at(page).0, pages * PAGE)
}

#[test]
fn errors_are_linuxs() {
    // AAAA.N      A may be read and written, N nothing
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.map_fixed(at(5).0, PAGE, VmFlags::NONE);
    let (k, cpu) = (&world.k, &world.cpu);
    let here = at(0).0;
    for (start, length, expect) in [
        (here, 0, Ok(())),
        (here, 4 * PAGE, Ok(())),
        (here + 100, 4 * PAGE - 100, Ok(())),
        (here + 1, 4 * PAGE, Err(Errno::Enomem)), // five pages
        (here, u64::MAX, Ok(())),                 // rounds up to 0
        (here, u64::MAX - 2 * PAGE, Err(Errno::Einval)),
        (here - PAGE, 2 * PAGE, Err(Errno::Enomem)),
        (at(4).0, PAGE, Err(Errno::Enomem)),
    ] {
        assert_eq!(k.sys_mlock(cpu, start, length, false), expect, "{start:#x} {length:#x}");
        assert_eq!(k.sys_munlock(cpu, start, length), expect, "{start:#x} {length:#x}");
        world.check();
    }
    for onfault in [false, true] {
        assert_eq!(k.sys_mlock(cpu, at(5).0, PAGE, onfault), Err(Errno::Enomem));
        assert!(world.vma_at(at(5).0).vm_flags().peek().has(VmFlags::LOCKED), "all the same");
        assert_eq!(k.sys_munlock(cpu, at(5).0, PAGE), Ok(()));
    }
    world.end();
}

fn locks<D: Design>() {
    // AAAAAAAA  →  AABBBCCC  →  AAAAAAAA
    let world = World::<D>::boot();
    world.map_fixed(at(0).0, 8 * PAGE, RW);
    world.write(at(7).0, 7).expect("writable"); // an anon_vma, so that all merges again
    assert_eq!(mlock(&world, 2, 3), Ok(()));
    assert_eq!((world.maps().len(), world.mm().locked_vm().peek()), (3, 3));
    world.check();
    assert_eq!(munlock(&world, 0, 8), Ok(()));
    assert_eq!((world.maps().len(), world.mm().locked_vm().peek()), (1, 0));
    world.check();
    world.end();
}

#[test]
fn a_lock_splits_counts_and_its_end_merges() {
    locks::<Spf>();
    locks::<Classic>();
}

#[test]
fn pages_are_brought_in_and_marked_and_the_marks_go() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.write(at(3).0, 7).expect("writable");
    assert_eq!(mlock(&world, 0, 4), Ok(()));
    assert_eq!(marked(&world, 4), [true; 4]);
    assert_eq!(munlock(&world, 1, 2), Ok(()));
    assert_eq!(marked(&world, 4), [true, false, false, true]);
    world.k.sys_munmap(&world.cpu, at(0).0, PAGE).expect("mapped");
    assert_eq!(world.mm().locked_vm().peek(), 1);
    world.check();
    world.end(); // the last lock goes with the address space
}

/// Which of the pages at `at(0)` have `PG_mlocked`.
fn marked<D: Design>(world: &World<D>, pages: u64) -> Vec<bool> {
    let page_of = |page| {
        let pmd = world.k.walk_pmd(&world.cpu, world.mm(), at(page)).expect("tables");
        let table = pmd.read(&world.cpu).table().expect("a table");
        let slot = world.k.pte_offset_map(&world.cpu, table, at(page));
        world.k.page(&world.cpu, slot.pte().peek().pfn())
    };
    (0..pages).map(|page| page_of(page).flags().peek() & PG_MLOCKED != 0).collect()
}

#[test]
fn on_fault_only_what_is_there_is_marked_until_more_comes() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 3 * PAGE, RW);
    world.write(at(0).0, 7).expect("writable");
    world.k.sys_mlock(&world.cpu, at(0).0, 3 * PAGE, true).expect("mapped");
    world.k.sync_mm_rss(&world.cpu, world.mm());
    assert_eq!(world.mm().anon_pages().peek(), 1, "nothing was brought in");
    world.write(at(1).0, 7).expect("writable");
    world.read(at(2).0).expect("readable"); // the zero page, which nobody locks
    assert_eq!(marked(&world, 3), [true, true, false]);
    world.check();
    world.end();
}

#[test]
fn locked_memory_is_not_dropped_and_mprotect_copies_at_once() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, R);
    assert_eq!(mlock(&world, 0, 2), Ok(()));
    let drop = world.k.sys_madvise(&world.cpu, at(0).0, PAGE, Advice::Dontneed);
    assert_eq!(drop, Err(Errno::Einval));
    assert_eq!(marked(&world, 2), [false, false]); // the zero page
    world.k.sys_mprotect(&world.cpu, at(0).0, 2 * PAGE, RW).expect("mapped");
    assert_eq!(marked(&world, 2), [true, true]);
    assert_eq!(world.write(at(1).0, 3), Ok(0));
    world.check();
    world.end();
}

#[test]
fn the_page_that_a_locked_vma_copies_is_its_no_more() {
    // A child maps the page, too; the parent writes: its copy is locked, the old page is not.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    assert_eq!(mlock(&world, 0, 1), Ok(()));
    world.k.sys_fork(&world.cpu, 1).expect("memory");
    world.write(at(0).0, 5).expect("writable");
    assert_eq!(marked(&world, 1), [true]);
    world.check(); // the child's page would be marked in no locked VMA
}

#[test]
fn what_another_process_has_locked_as_well_stays_marked() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    world.write(at(0).0, 5).expect("writable");
    world.k.sys_mprotect(&world.cpu, at(0).0, PAGE, R).expect("mapped"); // nobody copies
    world.k.sys_fork(&world.cpu, 1).expect("memory");
    assert_eq!(mlock(&world, 0, 1), Ok(()));
    let parents = world.k.tasks[0].mm.get();
    let run_in = |mm| {
        world.k.tasks[0].mm.set(mm);
        world.k.vmacache_flush(&world.cpu);
    };
    run_in(world.k.tasks[1].mm.get());
    assert_eq!(mlock(&world, 0, 1), Ok(()));
    assert_eq!(munlock(&world, 0, 1), Ok(()));
    assert_eq!(marked(&world, 1), [true], "the parent's lock");
    run_in(parents);
    assert_eq!(munlock(&world, 0, 1), Ok(()));
    assert_eq!(marked(&world, 1), [false]);
    world.check();
}

#[test]
fn a_files_pages_are_marked_while_it_is_locked() {
    let world = World::<Spf>::boot();
    let file = world.file(4, FileKind::Regular);
    let mut args = world.anonymous(at(0).0, 2 * PAGE);
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0 | MapFlags::LOCKED.0);
    args.file = file.ptr();
    world.k.sys_mmap(&world.cpu, &args).expect("room");
    assert_eq!(marked(&world, 2), [true, true]);
    assert_eq!(munlock(&world, 0, 2), Ok(()));
    assert_eq!(marked(&world, 2), [false, false]);
    world.check();
}

#[test]
fn the_end_of_a_hole_locks_but_brings_nothing_in() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    assert_eq!(mlock(&world, 0, 2), Err(Errno::Enomem));
    assert_eq!(world.mm().locked_vm().peek(), 1);
    assert!(world.k.walk_pmd(&world.cpu, world.mm(), at(0)).is_none(), "no page table");
    assert!(!matches!(world.write(at(0).0, 1), Err(AccessFailure::Livelock)));
    world.check();
    world.end();
}
