//! Faulting in without an access. In the pictures a letter is a page.

use super::*;
use crate::design::Spf;
use crate::events::Event;
use crate::mm::FileKind;
use crate::ops::madvise::Advice;
use crate::ops::mmap::MapFlags;
use crate::support::{PAGE, R, RW, World, at, swap_of};

fn count(world: &World<Spf>, event: Event) -> u64 {
    world.k.tasks[0].counters.snapshot()[event as usize]
}

/// Whether each of the pages at `at(0)` can be accessed without a fault.
fn there(world: &World<Spf>, pages: u64, write: bool) -> Vec<bool> {
    (0..pages)
        .map(|page| {
            let before = count(world, Event::Faults);
            let address = at(page).0;
            let done = if write { world.write(address, 1) } else { world.read(address) };
            done.is_ok() && count(world, Event::Faults) == before
        })
        .collect()
}

#[test]
fn populating_goes_over_holes_and_past_what_cannot_be_had() {
    // AA.NRR      N may not be accessed, the rest is read or written
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    world.map_fixed(at(3).0, PAGE, VmFlags::NONE);
    world.map_fixed(at(4).0, 2 * PAGE, R);
    world.k.mm_populate(&world.cpu, at(0).0, 6 * PAGE);
    assert_eq!(count(&world, Event::Pgfault), 4);
    assert_eq!(count(&world, Event::Faults), 0);
    assert_eq!(there(&world, 2, true), [true, true]);
    assert_eq!(there(&world, 6, false), [true, true, false, false, true, true]);
    assert_eq!(
        world.k.mm_populate_all(&world.cpu, at(0).0, 6 * PAGE),
        Err(Errno::Efault),
        "the first error ends it"
    );
    assert_eq!(world.mm().sem_count().peek(), 0);
    world.check();
    world.end();
}

#[test]
fn a_page_that_has_to_be_read_drops_the_semaphore_and_comes_in_the_next_round() {
    let world = World::<Spf>::boot();
    let file = world.k.inode_new(&world.cpu, 4 * PAGE, FileKind::Regular, false);
    let mut args = world.anonymous(at(0).0, 4 * PAGE);
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0 | MapFlags::POPULATE.0);
    args.file = file.ptr();
    args.prot = R;
    world.k.sys_mmap(&world.cpu, &args).expect("room");
    assert_eq!(count(&world, Event::Pgmajfault), 4);
    assert_eq!(count(&world, Event::Pgfault), 8);
    assert_eq!(world.mm().sem_count().peek(), 0);
    assert_eq!(there(&world, 4, false), [true; 4]);
    world.check();
}

#[test]
fn advice_says_what_is_wrong() {
    // AAF.NR      F of a file of one page, and one page more; N nothing, R read-only
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    let file = world.k.inode_new(&world.cpu, PAGE, FileKind::Regular, false);
    let mut args = world.anonymous(at(2).0, 2 * PAGE);
    args.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
    args.file = file.ptr();
    world.k.sys_mmap(&world.cpu, &args).expect("room");
    world.map_fixed(at(5).0, PAGE, VmFlags::NONE);
    world.map_fixed(at(6).0, PAGE, R);
    let (read, write) = (Advice::PopulateRead, Advice::PopulateWrite);
    for (page, pages, advice, expect) in [
        (0, 3, read, Ok(())),
        (0, 3, write, Ok(())),
        (0, 4, read, Err(Errno::Efault)), // beyond the file
        (3, 1, write, Err(Errno::Efault)),
        (4, 1, read, Err(Errno::Enomem)), // a hole
        (5, 1, read, Err(Errno::Einval)),
        (6, 1, read, Ok(())),
        (6, 1, write, Err(Errno::Einval)),
    ] {
        let done = world.k.sys_madvise(&world.cpu, at(page).0, pages * PAGE, advice);
        assert_eq!(done, expect, "{page} {advice:?}");
        assert_eq!(world.mm().sem_count().peek(), 0);
        world.check();
    }
    assert_eq!(there(&world, 3, true), [true; 3]);
}

#[test]
fn without_memory_it_is_enomem_and_nothing_is_lost() {
    let world = World::<Spf>::boot_with(|config| config.system.memory = 24 * PAGE);
    world.map_fixed(at(0).0, 64 * PAGE, RW);
    let done = world.k.sys_madvise(&world.cpu, at(0).0, 64 * PAGE, Advice::PopulateWrite);
    assert_eq!(done, Err(Errno::Enomem));
    assert_eq!(world.k.sys_mlock(&world.cpu, at(0).0, 64 * PAGE, false), Err(Errno::Eagain));
    world.check();
    world.end();
}

#[test]
fn what_there_is_no_memory_to_read_into_ends_it() {
    // Frames for the page of zeroes, some pages of the file, and none after them.
    for advice in [None, Some(Advice::PopulateRead)] {
        let world = World::<Spf>::boot_with(|config| config.system.memory = 12 * PAGE);
        let file = world.k.inode_new(&world.cpu, 16 * PAGE, FileKind::Regular, false);
        let mut args = world.anonymous(at(0).0, 16 * PAGE);
        args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0);
        args.file = file.ptr();
        args.prot = R;
        world.k.sys_mmap(&world.cpu, &args).expect("room");
        let result = match advice {
            None => world.k.mm_populate_all(&world.cpu, at(0).0, 16 * PAGE),
            Some(advice) => world.k.sys_madvise(&world.cpu, at(0).0, 16 * PAGE, advice),
        };
        assert_eq!(result, Err(Errno::Enomem));
        assert_eq!(world.mm().sem_count().peek(), 0);
        world.check();
        world.close(&[file]);
        world.end();
    }
}

#[test]
fn what_was_given_up_counts_again_once_it_is_populated_for_writing() {
    // AAA         given up; the second by mlock, the third by MADV_POPULATE_WRITE called for again
    let world = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(8)));
    world.map_fixed(at(0).0, 3 * PAGE, RW);
    (0..3).for_each(|page| assert_eq!(world.write(at(page).0, 5), Ok(0)));
    let advise = |page: u64, pages: u64, advice| {
        world.k.sys_madvise(&world.cpu, at(page).0, pages * PAGE, advice).unwrap();
    };
    advise(0, 3, Advice::Free);
    world.k.sys_mlock(&world.cpu, at(1).0, PAGE, false).unwrap();
    world.k.sys_munlock(&world.cpu, at(1).0, PAGE).unwrap();
    advise(2, 1, Advice::PopulateRead);
    advise(2, 1, Advice::PopulateWrite);
    advise(0, 3, Advice::Pageout);
    assert_eq!([0, 1, 2].map(|page| world.read(at(page).0)), [Ok(0), Ok(5), Ok(5)]);
    world.check();
    world.end();
}
