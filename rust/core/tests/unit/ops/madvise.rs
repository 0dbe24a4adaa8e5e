//! madvise: flags that split and merge, and dropping pages.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::FileKind;
use crate::ops::mmap::MapFlags;
use crate::support::{BASE, PAGE, PRIVATE_RW, R, RW, World, at};

const ALL: [Advice; 16] = [
    Advice::Dontneed,
    Advice::Free,
    Advice::Willneed,
    Advice::Cold,
    Advice::Pageout,
    Advice::Normal,
    Advice::Random,
    Advice::Sequential,
    Advice::Hugepage,
    Advice::Nohugepage,
    Advice::Dontfork,
    Advice::Dofork,
    Advice::Wipeonfork,
    Advice::Keeponfork,
    Advice::Dontdump,
    Advice::Dodump,
];

fn madvise<D: Design>(world: &World<D>, from: u64, to: u64, advice: Advice) -> Result<(), Errno> {
    world.k.sys_madvise(&world.cpu, at(from).0, (to - from) * PAGE, advice)
}

/// Where VMAs begin and end, in pages.
fn layout<D: Design>(world: &World<D>) -> Vec<(u64, u64)> {
    let page = |address: Vaddr| (address.0 - BASE) / PAGE;
    let vmas = world.k.peek_vmas(world.mm());
    vmas.map(|vma| (page(vma.vm_start().peek()), page(vma.vm_end().peek()))).collect()
}

#[test]
fn errors_are_linuxs_for_every_advice() {
    for advice in ALL {
        let world = World::<Spf>::boot();
        world.map_fixed(at(1).0, 2 * PAGE, RW);
        let table = [
            (at(1).0 + 1, PAGE, Err(Errno::Einval)),
            (at(1).0 + 1, 0, Err(Errno::Einval)),
            (at(1).0, 0, Ok(())),
            (at(9).0, 0, Ok(())),
            (at(1).0, u64::MAX, Err(Errno::Einval)), // rounds to 0
            (at(1).0, 0_u64.wrapping_sub(PAGE), Err(Errno::Einval)), // wraps
            (at(9).0, PAGE, Err(Errno::Enomem)),
            (at(0).0, PAGE, Err(Errno::Enomem)),
            (at(1).0, 1, Ok(())),
        ];
        for (start, length, expect) in table {
            let result = world.k.sys_madvise(&world.cpu, start, length, advice);
            assert_eq!(result, expect, "{advice:?} {start:#x} {length:#x}");
        }
        world.check();
        world.end();
    }
}

#[test]
fn flags_that_each_advice_sets_and_clears() {
    use VmFlags as F;
    let read_ahead = F::RAND_READ | F::SEQ_READ;
    let table = [
        (Advice::Normal, read_ahead, F::NONE),
        (Advice::Random, F::SEQ_READ, F::RAND_READ),
        (Advice::Sequential, F::RAND_READ, F::SEQ_READ),
        (Advice::Hugepage, F::NOHUGEPAGE, F::HUGEPAGE),
        (Advice::Nohugepage, F::HUGEPAGE, F::NOHUGEPAGE),
        (Advice::Dontfork, F::NONE, F::DONTCOPY),
        (Advice::Dofork, F::DONTCOPY, F::NONE),
        (Advice::Wipeonfork, F::NONE, F::WIPEONFORK),
        (Advice::Keeponfork, F::WIPEONFORK, F::NONE),
        (Advice::Dontdump, F::NONE, F::DONTDUMP),
        (Advice::Dodump, F::DONTDUMP, F::NONE),
    ];
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    let vma = world.vma_at(at(0).0);
    let all = PRIVATE_RW | read_ahead | F::HUGEPAGE | F::NOHUGEPAGE | F::DONTCOPY;
    for before in [PRIVATE_RW, all | F::WIPEONFORK | F::DONTDUMP] {
        for (advice, clears, sets) in table {
            vma.vm_flags().poke(before);
            madvise(&world, 0, 1, advice).expect("mapped");
            assert_eq!(vma.vm_flags().peek(), before & !clears | sets, "{advice:?}");
        }
    }
    assert_eq!(vma.vm_sequence().peek() % 2, 0);
}

fn advised_ranges_split_and_merge<D: Design>() {
    let world = World::<D>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    let steps = [
        (2, 4, Advice::Dontfork, vec![(0, 2), (2, 4), (4, 6)]),
        (2, 4, Advice::Dontfork, vec![(0, 2), (2, 4), (4, 6)]),
        // The second one is reached already when the first has merged with it: no hole.
        (0, 4, Advice::Dontfork, vec![(0, 4), (4, 6)]),
        (0, 2, Advice::Dofork, vec![(0, 2), (2, 4), (4, 6)]),
        (4, 5, Advice::Dontfork, vec![(0, 2), (2, 5), (5, 6)]), // case 5
        (2, 3, Advice::Dofork, vec![(0, 3), (3, 5), (5, 6)]),   // case 5, of the middle one
        (3, 5, Advice::Dofork, vec![(0, 6)]),                   // case 6
        (0, 6, Advice::Random, vec![(0, 6)]),
    ];
    for (from, to, advice, after) in steps {
        assert_eq!(madvise(&world, from, to, advice), Ok(()));
        assert_eq!(layout(&world), after, "{advice:?} {from}..{to}");
        world.check();
    }
    world.end();
}

#[test]
fn ranges_split_and_merge() {
    advised_ranges_split_and_merge::<Spf>();
    advised_ranges_split_and_merge::<Classic>();
}

#[test]
fn holes_are_skipped_and_told_at_the_end() {
    // ww.ww.   advised as a whole
    for advice in [Advice::Dontfork, Advice::Dontneed] {
        let world = World::<Spf>::boot();
        world.map_fixed(at(0).0, 2 * PAGE, RW);
        world.map_fixed(at(3).0, 2 * PAGE, RW);
        for page in [0, 1, 3, 4] {
            world.write(at(page).0, 1).expect("writable");
        }
        assert_eq!(madvise(&world, 0, 6, advice), Err(Errno::Enomem));
        if advice == Advice::Dontneed {
            assert!([0, 1, 3, 4].iter().all(|&page| world.read(at(page).0) == Ok(0)));
        } else {
            let flags = [0, 3].map(|page| world.vma_at(at(page).0).vm_flags().peek());
            assert!(flags.iter().all(|flags| flags.has(VmFlags::DONTCOPY)));
        }
        world.check();
        world.end();
    }
}

#[test]
fn an_error_ends_it_before_what_comes_after() {
    // ws.   the second is shared and cannot be wiped at fork
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    let mut shared = world.anonymous(at(1).0, PAGE);
    shared.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0);
    world.k.sys_mmap(&world.cpu, &shared).expect("room");
    // EINVAL, not the ENOMEM of the hole.
    assert_eq!(madvise(&world, 0, 3, Advice::Wipeonfork), Err(Errno::Einval));
    assert!(world.vma_at(at(0).0).vm_flags().peek().has(VmFlags::WIPEONFORK));
    world.check();
}

#[test]
fn wiping_at_fork_is_for_private_anonymous_memory() {
    let world = World::<Spf>::boot();
    for (page, kind) in [(0, FileKind::Regular), (2, FileKind::DevZero)] {
        let mut args = world.anonymous(at(page).0, PAGE);
        args.file = world.file(4, kind).ptr();
        args.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
        world.k.sys_mmap(&world.cpu, &args).expect("room");
        let wipe = madvise(&world, page, page + 1, Advice::Wipeonfork);
        assert_eq!(wipe, Err(Errno::Einval), "{kind:?}");
    }
}

#[test]
fn special_and_locked_mappings_refuse_some_advice() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    let vma = world.vma_at(at(0).0);
    vma.vm_flags().poke(PRIVATE_RW | VmFlags::DONTEXPAND);
    assert_eq!(madvise(&world, 0, 1, Advice::Dodump), Err(Errno::Einval));
    assert_eq!(madvise(&world, 0, 1, Advice::Dontdump), Ok(()));
    for refusing in [VmFlags::LOCKED, VmFlags::HUGETLB, VmFlags::PFNMAP] {
        vma.vm_flags().poke(PRIVATE_RW | refusing);
        assert_eq!(madvise(&world, 0, 1, Advice::Dontneed), Err(Errno::Einval));
    }
}

#[test]
fn dontneed_zeroes_private_memory_and_keeps_the_file() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 3 * PAGE, RW);
    for page in 0..3 {
        world.write(at(page).0, 10 + page).expect("writable");
    }
    let file = world.file(4, FileKind::Shmem);
    let mut args = world.anonymous(at(8).0, PAGE);
    (args.file, args.flags) = (file.ptr(), MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0));
    world.k.sys_mmap(&world.cpu, &args).expect("room");
    world.write(at(8).0, 99).expect("writable");
    madvise(&world, 1, 2, Advice::Dontneed).expect("mapped");
    madvise(&world, 8, 9, Advice::Dontneed).expect("mapped");
    let read = |page| world.read(at(page).0);
    assert_eq!([read(0), read(1), read(2), read(8)], [Ok(10), Ok(0), Ok(12), Ok(99)]);
    assert_eq!(layout(&world), [(0, 3), (8, 9)], "no VMA is split");
    world.check();
}

#[test]
fn too_many_parts_are_enomem_and_too_little_memory_is_eagain() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    world.write(at(0).0, 1).expect("writable");
    world.k.avcs.fail_after(0);
    assert_eq!(madvise(&world, 2, 4, Advice::Dontfork), Err(Errno::Eagain));
    assert_eq!(layout(&world), [(0, 6)]);
    world.k.sysctl_max_map_count.poke(2);
    assert_eq!(madvise(&world, 2, 4, Advice::Dontfork), Err(Errno::Enomem));
    assert_eq!(layout(&world), [(0, 2), (2, 6)], "the first split stays");
    world.check();
    world.end();
}

#[test]
fn dontneed_holds_the_semaphore_for_reading_only() {
    // Another task reads meanwhile: DONTNEED goes on, a flag advice would wait for ever.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, R);
    let other = world.cpu.machine().cpu(1, 1);
    world.k.mmap_sem(world.mm()).down_read(&other);
    assert_eq!(madvise(&world, 0, 1, Advice::Dontneed), Ok(()));
    world.k.mmap_sem(world.mm()).up_read(&other);
    assert_eq!(madvise(&world, 0, 1, Advice::Dontfork), Ok(()));
    world.check();
}
