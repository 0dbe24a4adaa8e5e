//! mprotect. In the pictures a letter is a page: `w` readable and writable, `r` read-only, `n` no
//! access, `.` not mapped.

use crate::design::{Classic, Design, Spf};
use crate::mm::{Errno, FileKind, Pte, Signal, VmFlags};
use crate::ops::access::AccessFailure;
use crate::ops::mmap::MapFlags;
use crate::support::{BASE, PAGE, R, RW, World, at};

const NONE: VmFlags = VmFlags::NONE;

/// One letter for each page, and `|` where one VMA ends and another begins.
fn picture<D: Design>(world: &World<D>) -> String {
    let mut picture = String::new();
    let mut end = BASE;
    for vma in world.k.peek_vmas(world.mm()) {
        let (start, stop) = (vma.vm_start().peek().0, vma.vm_end().peek().0);
        picture.push_str(&".".repeat(((start - end) / PAGE) as usize));
        if start == end && start != BASE {
            picture.push('|');
        }
        let flags = vma.vm_flags().peek();
        let letter = match (flags.has(VmFlags::READ), flags.has(VmFlags::WRITE)) {
            (true, true) => "w",
            (true, false) => "r",
            _ => "n",
        };
        picture.push_str(&letter.repeat(((stop - start) / PAGE) as usize));
        end = stop;
    }
    picture
}

fn mprotect<D: Design>(world: &World<D>, from: u64, to: u64, prot: VmFlags) -> Result<(), Errno> {
    world.k.sys_mprotect(&world.cpu, at(from).0, (to - from) * PAGE, prot)
}

#[test]
fn errors_are_linuxs() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(1).0, 2 * PAGE, RW);
    let table = [
        (at(1).0 + 1, PAGE, Err(Errno::Einval)),
        (at(1).0 + 1, 0, Err(Errno::Einval)), // before the length
        (at(1).0, 0, Ok(())),
        (at(9).0, 0, Ok(())), // nothing there, but nothing is asked
        (at(1).0, u64::MAX, Err(Errno::Enomem)),
        (at(1).0, 0_u64.wrapping_sub(at(1).0), Err(Errno::Enomem)), // ends at 2^64
        (0_u64.wrapping_sub(PAGE), PAGE, Err(Errno::Enomem)),
        (at(9).0, PAGE, Err(Errno::Enomem)),
        (at(0).0, 2 * PAGE, Err(Errno::Enomem)), // begins in a hole: nothing is done
        (at(1).0, 1, Ok(())),                    // one page
    ];
    for (start, length, expect) in table {
        let result = world.k.sys_mprotect(&world.cpu, start, length, R);
        assert_eq!(result, expect, "{start:#x} {length:#x}");
    }
    assert_eq!(picture(&world), ".r|w");
    world.check();
    world.end();
}

#[test]
fn what_may_not_be_is_eacces() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    world.map_fixed(at(1).0, PAGE, R);
    let vma = world.vma_at(at(1).0);
    vma.vm_flags().poke(vma.vm_flags().peek() & !VmFlags::MAYWRITE);
    assert_eq!(mprotect(&world, 1, 2, RW), Err(Errno::Eacces));
    assert_eq!(mprotect(&world, 1, 2, NONE), Ok(()));
    // What comes before it is done.
    assert_eq!(mprotect(&world, 0, 2, VmFlags::WRITE), Err(Errno::Eacces));
    assert!(!world.vma_at(at(0).0).vm_flags().peek().has(R));
    world.check();
}

fn splits_and_merges<D: Design>() {
    let world = World::<D>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    let steps = [
        // from, to, prot, picture
        (2, 4, R, "ww|rr|ww"),
        (2, 4, R, "ww|rr|ww"), // nothing changes
        (3, 4, NONE, "ww|r|n|ww"),
        (2, 3, NONE, "ww|nn|ww"), // case 8
        (2, 3, RW, "www|n|ww"),   // case 5
        (3, 4, RW, "wwwwww"),     // case 6
        (0, 2, R, "rr|wwww"),
        (1, 2, RW, "r|wwwww"), // case 4
        (0, 6, R, "rrrrrr"),   // over two VMAs
        (4, 6, RW, "rrrr|ww"),
        (1, 5, NONE, "r|nnnn|w"), // parts of two VMAs
        (0, 6, RW, "wwwwww"),
    ];
    for (from, to, prot, after) in steps {
        assert_eq!(mprotect(&world, from, to, prot), Ok(()));
        assert_eq!(picture(&world), after, "after {from}..{to}");
        world.check();
    }
    world.end();
}

#[test]
fn ranges_split_and_merge() {
    splits_and_merges::<Spf>();
    splits_and_merges::<Classic>();
}

#[test]
fn a_hole_ends_it_half_way() {
    // ww.ww
    // rrrrr
    // rr.ww
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    world.map_fixed(at(3).0, 2 * PAGE, RW);
    assert_eq!(mprotect(&world, 0, 5, R), Err(Errno::Enomem));
    assert_eq!(picture(&world), "rr.ww");
    // The end in a hole, too.
    assert_eq!(mprotect(&world, 3, 6, R), Err(Errno::Enomem));
    assert_eq!(picture(&world), "rr.rr");
    world.check();
}

#[test]
fn pages_follow_the_protection() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    world.write(at(0).0, 5).expect("writable");
    mprotect(&world, 0, 1, R).expect("mapped");
    assert_eq!(world.read(at(0).0), Ok(5));
    assert_eq!(world.write(at(0).0, 6), Err(AccessFailure::Signal(Signal::ACCERR)));
    mprotect(&world, 0, 1, NONE).expect("mapped");
    assert_eq!(world.read(at(0).0), Err(AccessFailure::Signal(Signal::ACCERR)));
    mprotect(&world, 0, 1, RW).expect("mapped");
    assert_eq!(world.read(at(0).0), Ok(5));
    assert_eq!(world.write(at(0).0, 7), Ok(0));
    assert_eq!(world.read(at(0).0), Ok(7));
    world.check();
    world.end();
}

#[test]
fn dirty_pages_of_a_file_that_was_told_stay_writable() {
    // rw, written, r, rw: the second write takes no fault, for the file knows.
    let world = World::<Spf>::boot();
    let file = world.file(4, FileKind::Regular);
    let mut args = world.anonymous(at(0).0, PAGE);
    (args.file, args.flags) = (file.ptr(), MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0));
    world.k.sys_mmap(&world.cpu, &args).expect("room");
    world.write(at(0).0, 1).expect("writable");
    mprotect(&world, 0, 1, R).expect("mapped");
    mprotect(&world, 0, 1, RW).expect("mapped");
    let vma = world.vma_at(at(0).0);
    assert!(!vma.vm_page_prot().peek().has(Pte::WRITE));
    let faults = || world.k.tasks[0].counters.snapshot()[0];
    let before = faults();
    world.write(at(0).0, 2).expect("writable");
    assert_eq!(faults(), before);
    world.check();
}

#[test]
fn becoming_writable_is_accounted_for_good() {
    // r  made writable and read-only again does not merge with one that never was writable.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, R);
    mprotect(&world, 0, 1, RW).expect("mapped");
    mprotect(&world, 0, 1, R).expect("mapped");
    assert_eq!(picture(&world), "r|r");
    assert!(world.vma_at(at(0).0).vm_flags().peek().has(VmFlags::ACCOUNT));
    assert!(!world.vma_at(at(1).0).vm_flags().peek().has(VmFlags::ACCOUNT));
    world.check();
}

#[test]
fn a_touched_part_does_not_merge_into_an_untouched_one() {
    // www   nothing touched; the middle made read-only, touched, and writable again
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 3 * PAGE, RW);
    mprotect(&world, 1, 2, R).expect("mapped");
    world.read(at(1).0).expect("readable"); // the zero page: no anon_vma
    mprotect(&world, 1, 2, RW).expect("mapped");
    assert_eq!(picture(&world), "www");
    mprotect(&world, 1, 2, R).expect("mapped");
    let middle = world.vma_at(at(1).0);
    world.k.anon_vma_prepare(&world.cpu, middle).expect("memory");
    mprotect(&world, 1, 2, RW).expect("mapped");
    assert_eq!(picture(&world), "w|w|w");
    world.check();
    world.end();
}

#[test]
fn too_many_parts_are_enomem() {
    // wwwwww   the limit is 2
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    world.k.sysctl_max_map_count.poke(2);
    // The middle takes two splits; the first stays.
    assert_eq!(mprotect(&world, 2, 4, R), Err(Errno::Enomem));
    assert_eq!(picture(&world), "ww|wwww");
    assert_eq!(mprotect(&world, 3, 6, R), Err(Errno::Enomem));
    // Whole VMAs and moved boundaries need none.
    assert_eq!(mprotect(&world, 2, 6, R), Ok(()));
    assert_eq!(mprotect(&world, 1, 2, R), Ok(()));
    assert_eq!(picture(&world), "w|rrrrr");
    world.check();
    world.end();
}

#[test]
fn without_memory_for_the_split_nothing_changes() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 3 * PAGE, RW);
    world.write(at(1).0, 3).expect("writable");
    world.k.avcs.fail_after(0);
    assert_eq!(mprotect(&world, 1, 2, R), Err(Errno::Enomem));
    assert_eq!(picture(&world), "www");
    assert_eq!(world.write(at(1).0, 4), Ok(0));
    world.check();
    world.end();
}

#[test]
fn the_vma_is_bumped_once_and_its_neighbour_not() {
    // w.w   mprotect of the first as a whole: flags and PTEs in one write section
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    world.map_fixed(at(2).0, PAGE, RW);
    let (vma, other) = (world.vma_at(at(0).0), world.vma_at(at(2).0));
    let before = (vma.vm_sequence().peek(), other.vm_sequence().peek());
    mprotect(&world, 0, 1, R).expect("mapped");
    assert_eq!((vma.vm_sequence().peek(), other.vm_sequence().peek()), (before.0 + 2, before.1));
    // Nothing to change: no write section.
    mprotect(&world, 0, 1, R).expect("mapped");
    assert_eq!(vma.vm_sequence().peek(), before.0 + 2);
}
