//! munmap. In the pictures a letter is a page and names the VMA that it is in, `u` a page that is
//! unmapped.

use crate::design::{Classic, Design, Spf};
use crate::mm::{Choice, Errno, FileKind, Variants};
use crate::ops::access::AccessFailure;
use crate::platform::{Platform, RcuGuard};
use crate::support::{PAGE, R, RW, World, at};

const TASK_SIZE: u64 = 0x7fff_ffff_f000;

#[test]
fn errors_are_linuxs() {
    let world = World::<Spf>::boot();
    let table = [
        (at(0).0, 0, Err(Errno::Einval)),
        (at(0).0 + 1, PAGE, Err(Errno::Einval)),
        (TASK_SIZE + PAGE, PAGE, Err(Errno::Einval)),
        (TASK_SIZE, PAGE, Err(Errno::Einval)),
        (TASK_SIZE, 0, Err(Errno::Einval)),
        (TASK_SIZE - PAGE, PAGE + 1, Err(Errno::Einval)),
        (PAGE, u64::MAX, Err(Errno::Einval)),
        (TASK_SIZE - PAGE, PAGE, Ok(())), // nothing there is no error
        (0, TASK_SIZE, Ok(())),
        (at(0).0, 1, Ok(())),
    ];
    for (start, length, expect) in table {
        let result = world.k.sys_munmap(&world.cpu, start, length);
        assert_eq!(result, expect, "{start:#x} {length:#x}");
    }
    world.check();
    world.end();
}

fn unmaps<D: Design>(from: u64, to: u64, after: &[&str]) {
    // Before: AAAA.BBCC   A writable, B read-only, C writable; every page is touched
    let world = World::<D>::boot();
    for (page, pages, prot) in [(0, 4, RW), (5, 2, R), (7, 2, RW)] {
        world.map_fixed(at(page).0, pages * PAGE, prot);
    }
    for page in [0, 1, 2, 3, 7, 8] {
        world.write(at(page).0, 100 + page).expect("writable");
    }
    world.k.sys_munmap(&world.cpu, at(from).0, (to - from) * PAGE).expect("a good range");
    assert_eq!(world.maps(), after, "{from}..{to}");
    for page in [0, 1, 2, 3, 7, 8] {
        let gone = (from..to).contains(&page);
        let expect = if gone {
            Err(AccessFailure::Signal(crate::mm::Signal::MAPERR))
        } else {
            Ok(100 + page)
        };
        assert_eq!(world.read(at(page).0), expect, "page {page} after {from}..{to}");
    }
    world.check();
    world.end();
}

fn unmaps_ranges<D: Design>() {
    let (a, b, c) = (
        "10000000-10004000 rw-p 00000000",
        "10005000-10007000 r--p 00000000",
        "10007000-10009000 rw-p 00000000",
    );
    // AAAA.BBCC
    unmaps::<D>(0, 4, &[b, c]); // uuuu
    unmaps::<D>(0, 2, &["10002000-10004000 rw-p 00000000", b, c]); // uu
    unmaps::<D>(2, 5, &["10000000-10002000 rw-p 00000000", b, c]); //   uuu
    unmaps::<D>(
        1,
        3,
        &["10000000-10001000 rw-p 00000000", "10003000-10004000 rw-p 00000000", b, c],
    ); //                                                             uu
    unmaps::<D>(4, 5, &[a, b, c]); //                                    u
    unmaps::<D>(3, 8, &["10000000-10003000 rw-p 00000000", "10008000-10009000 rw-p 00000000"]); //                                                               uuuuu
    unmaps::<D>(5, 7, &[a, c]); //                                        uu
    unmaps::<D>(6, 20, &[a, "10005000-10006000 r--p 00000000"]); //        uuu…
    unmaps::<D>(0, 9, &[]); //                                       uuuuuuuuu
}

#[test]
fn any_part_of_any_vmas_can_go() {
    unmaps_ranges::<Spf>();
    unmaps_ranges::<Classic>();
}

#[test]
fn brackets_of_v12_leave_the_counts_even_too() {
    for downgrade in [false, true] {
        let world = World::<Spf>::boot_with(|config| {
            config.variants = Variants::all(Choice::V12);
            config.system.downgrade = downgrade;
        });
        world.map_fixed(at(0).0, 4 * PAGE, RW);
        world.write(at(1).0, 1).expect("writable");
        world.k.sys_munmap(&world.cpu, at(1).0, PAGE).expect("mapped");
        world.check();
        world.end();
    }
}

#[test]
fn page_tables_go_with_the_last_vma_that_needs_them() {
    //  A……|……B……    A and B in one page table
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    world.map_fixed(at(100).0, PAGE, RW);
    world.write(at(0).0, 1).expect("writable");
    world.write(at(100).0, 2).expect("writable");
    let tables = world.mm().pgtables().peek();
    world.k.sys_munmap(&world.cpu, at(0).0, PAGE).expect("mapped");
    assert_eq!(world.mm().pgtables().peek(), tables);
    assert_eq!(world.read(at(100).0), Ok(2));
    world.k.sys_munmap(&world.cpu, at(100).0, PAGE).expect("mapped");
    assert_eq!(world.mm().pgtables().peek(), 0);
    world.check();
    world.end();
}

#[test]
fn a_hole_needs_room_for_one_vma_more_but_nothing_else_does() {
    // AAAA  B      the limit is 2, there are 2
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.map_fixed(at(6).0, PAGE, RW);
    world.k.sysctl_max_map_count.poke(2);
    let munmap = |page, pages| world.k.sys_munmap(&world.cpu, at(page).0, pages * PAGE);
    assert_eq!(munmap(1, 1), Err(Errno::Enomem));
    assert_eq!(munmap(3, 1), Ok(())); // a tail
    assert_eq!(munmap(0, 1), Ok(())); // a head
    assert_eq!(
        world.maps(),
        ["10001000-10003000 rw-p 00000000", "10006000-10007000 rw-p 00000000"]
    );
    // From the middle of one to the end of another: one split more, for a moment.
    assert_eq!(munmap(2, 5), Ok(()));
    assert_eq!(world.maps(), ["10001000-10002000 rw-p 00000000"]);
    world.check();
    world.end();
}

#[test]
fn without_memory_to_split_nothing_is_unmapped() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.write(at(1).0, 3).expect("writable");
    for split in 0..2 {
        world.k.avcs.fail_after(split);
        assert_eq!(world.k.sys_munmap(&world.cpu, at(1).0, PAGE), Err(Errno::Enomem));
        assert_eq!(world.read(at(1).0), Ok(3));
        world.check();
    }
    world.end();
}

#[test]
fn a_detached_vma_is_even_and_empty_and_lives_as_long_as_a_reader_needs() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    world.write(at(0).0, 1).expect("writable");
    let vma = world.vma_at(at(0).0);
    let sequence = vma.vm_sequence().peek();
    let reader = RcuGuard::new(&world.cpu);
    world.k.sys_munmap(&world.cpu, at(0).0, PAGE).expect("mapped");
    assert!(world.k.vma_node_empty(&world.cpu, vma));
    // Once: free_pgtables, around unlink_anon_vmas.
    assert_eq!(vma.vm_sequence().peek(), sequence + 2);
    assert_eq!(vma.vm_ref_count().peek(), 1, "the owner's is gone, the tree's not yet");
    drop(reader);
    world.settle();
    assert_eq!(world.k.vmas.live(), 0);
    world.end();
}

#[test]
fn the_semaphore_is_free_afterwards_however_it_was_held() {
    for downgrade in [false, true] {
        let world = World::<Spf>::boot_with(|config| config.system.downgrade = downgrade);
        world.map_fixed(at(0).0, PAGE, RW);
        assert_eq!(world.k.sys_munmap(&world.cpu, at(0).0, PAGE), Ok(()));
        assert_eq!(world.k.sys_munmap(&world.cpu, at(0).0, PAGE), Ok(()));
        assert_eq!(world.k.sys_munmap(&world.cpu, 1, PAGE), Err(Errno::Einval));
        assert_eq!(world.mm().sem_count().peek(), 0);
        assert!(world.cpu.operation_boundary());
        world.check();
        world.end();
    }
}

#[test]
fn the_file_is_closed_when_munmap_returns() {
    // A29
    let world = World::<Spf>::boot();
    let file = world.file(4, FileKind::Regular);
    let mut args = world.anonymous(0, 2 * PAGE);
    args.file = file.ptr();
    let address = world.k.sys_mmap(&world.cpu, &args).expect("room");
    world.k.sys_munmap(&world.cpu, address, PAGE).expect("mapped");
    assert_eq!(file.count().peek(), 2, "one piece is left");
    let reader = RcuGuard::new(&world.cpu);
    let vma = world.vma_at(address + PAGE);
    world.k.sys_munmap(&world.cpu, address + PAGE, PAGE).expect("mapped");
    assert_eq!(file.count().peek(), 1, "although a reader is still there");
    assert!(vma.vm_file().peek().is_null(), "who would still look at it");
    drop(reader);
    world.check();
}

#[test]
fn what_is_mapped_is_counted() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    world.k.sys_munmap(&world.cpu, at(2).0, PAGE).expect("mapped");
    assert_eq!(world.mm().total_vm().peek(), 5);
    assert_eq!(world.mm().map_count().peek(), 2);
    world.k.sys_munmap(&world.cpu, 0, TASK_SIZE).expect("mapped");
    assert_eq!(world.mm().total_vm().peek(), 0);
    assert_eq!(world.mm().map_count().peek(), 0);
    world.end();
}
