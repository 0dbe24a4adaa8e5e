//! userfaultfd: which VMAs are registered, and how a missing page comes.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{FileKind, Pte};
use crate::ops::mmap::MapFlags;
use crate::ops::mremap::{MremapArgs, RemapFlags};
use crate::support::{BASE, PAGE, R, RW, World, at};

/// A letter for each page from `BASE`: `u` registered, `-` not, `.` nothing there.
fn picture<D: Design>(world: &World<D>, pages: usize) -> String {
    let mut picture = vec!['.'; pages];
    for vma in world.k.peek_vmas(world.mm()) {
        let letter = if vma.vm_flags().peek().has(VmFlags::UFFD_MISSING) { 'u' } else { '-' };
        let page = |address: Vaddr| (address.0 - BASE) as usize / PAGE as usize;
        picture[page(vma.vm_start().peek())..page(vma.vm_end().peek())].fill(letter);
    }
    picture.into_iter().collect()
}

fn register<D: Design>(world: &World<D>, from: u64, to: u64) -> Result<(), Errno> {
    world.k.userfaultfd_change(&world.cpu, at(from).0, (to - from) * PAGE, true)
}

fn unregister<D: Design>(world: &World<D>, from: u64, to: u64) -> Result<(), Errno> {
    world.k.userfaultfd_change(&world.cpu, at(from).0, (to - from) * PAGE, false)
}

#[test]
fn errors_are_linuxs() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(1).0, 2 * PAGE, RW);
    let file = world.file(9, FileKind::Regular);
    let mut args = world.anonymous(at(5).0, PAGE);
    args.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
    args.file = file.ptr();
    world.k.sys_mmap(&world.cpu, &args).unwrap();
    let task_size = world.k.config.arch.task_size;
    let table = [
        (at(1).0 + 1, PAGE, Err(Errno::Einval)),
        (at(1).0, 1, Err(Errno::Einval)),
        (at(1).0, 0, Err(Errno::Einval)),
        (at(1).0, 0_u64.wrapping_sub(PAGE), Err(Errno::Einval)),
        (0, PAGE, Err(Errno::Einval)),
        (task_size, PAGE, Err(Errno::Einval)),
        (at(3).0, PAGE, Err(Errno::Einval)), // nothing begins before its end
        (at(6).0, PAGE, Err(Errno::Enomem)), // nothing is above
        (at(1).0, 9 * PAGE, Err(Errno::Einval)), // a file among them
        (at(0).0, 4 * PAGE, Ok(())),         // holes around
    ];
    for (start, length, expect) in table {
        let result = world.k.userfaultfd_change(&world.cpu, start, length, false);
        assert_eq!(result, expect, "{start:#x} {length:#x}");
        let result = world.k.userfaultfd_change(&world.cpu, start, length, true);
        assert_eq!(result, expect, "{start:#x} {length:#x}");
    }
    assert_eq!(picture(&world, 7), ".uu..-.");
    world.check();
    world.close(&[file]);
    world.end();
}

#[test]
fn ranges_split_and_merge() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    world.map_fixed(at(7).0, 2 * PAGE, RW);
    for (from, to, on, expect) in [
        (1, 3, true, "-uu---.--"),
        (1, 3, true, "-uu---.--"), // again: nothing
        (4, 8, true, "-uu-uu.u-"),
        (2, 5, true, "-uuuuu.u-"),
        (0, 9, false, "------.--"),
        (0, 9, false, "------.--"),
    ] {
        let change = if on { register } else { unregister };
        assert_eq!(change(&world, from, to), Ok(()));
        assert_eq!(picture(&world, 9), expect);
        world.check();
    }
    assert_eq!(world.mm().map_count().peek(), 2, "merged again");
    world.end();
}

#[test]
fn a_vma_is_odd_while_its_flags_change() {
    // The bracket: two for each change, on the VMA that is left.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    let before = world.vma_at(at(0).0).vm_sequence().peek();
    register(&world, 0, 2).unwrap();
    assert_eq!(world.vma_at(at(0).0).vm_sequence().peek(), before + 2);
    world.end();
}

#[test]
fn the_limit_on_vmas_ends_it_half_way() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.k.sysctl_max_map_count.poke(2);
    assert_eq!(register(&world, 1, 3), Err(Errno::Enomem));
    // The first cut was made; nothing is registered.
    assert_eq!((picture(&world, 4), world.mm().map_count().peek()), ("----".to_owned(), 2));
    world.check();
    world.end();
}

fn pages_come<D: Design>() {
    let world = World::<D>::boot();
    world.map_fixed(at(0).0, 4 * PAGE, RW);
    world.map_fixed(at(4).0, PAGE, R);
    register(&world, 0, 5).unwrap();
    // Writable and dirty from the start if the VMA is writable; a second access does not fault.
    assert_eq!(world.read(at(0).0), Ok(0));
    assert!(world.pte(at(0).0).has(Pte::WRITE) && world.pte(at(0).0).has(Pte::DIRTY));
    assert_eq!(world.write(at(1).0, 7), Ok(0));
    assert_eq!(world.read(at(1).0), Ok(7));
    assert_eq!(world.read(at(4).0), Ok(0));
    assert!(!world.pte(at(4).0).has(Pte::WRITE) && !world.pte(at(4).0).has(Pte::DIRTY));
    world.check();
    world.end();
}

#[test]
fn missing_pages_come_as_pages_of_their_own() {
    pages_come::<Spf>();
    pages_come::<Classic>();
}

#[test]
fn a_page_that_cannot_be_brought_is_a_sigbus() {
    // One frame short: the page of the fault itself can be had, and is given back.
    let frames = |count: u64| {
        let world = World::<Spf>::boot_with(|config| config.system.memory = count * PAGE);
        world.map_fixed(at(0).0, PAGE, RW);
        register(&world, 0, 1).unwrap();
        let read = world.read(at(0).0);
        world.check();
        world.end();
        read
    };
    // The page of zeroes, four tables, and the page.
    assert_eq!(frames(6), Ok(0));
    let refused = frames(5);
    assert_eq!(refused, Err(crate::ops::access::AccessFailure::Signal(crate::mm::Signal::ADRERR)));
}

#[test]
fn what_moves_or_is_a_childs_is_not_registered() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    register(&world, 0, 2).unwrap();
    world.write(at(0).0, 1).unwrap();
    world.k.sys_fork(&world.cpu, 1).expect("memory");
    let child = world.k.mm_of(1).expect("forked");
    for vma in world.k.peek_vmas(child) {
        assert!(!vma.vm_flags().peek().has(VmFlags::UFFD_MISSING));
        assert_eq!(vma.vm_sequence().peek() % 2, 0);
    }
    let args = MremapArgs {
        address: at(0).0,
        old_length: 2 * PAGE,
        new_length: 2 * PAGE,
        flags: RemapFlags(RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0),
        new_address: at(4).0,
    };
    assert_eq!(world.k.sys_mremap(&world.cpu, args), Ok(at(4).0));
    assert_eq!(picture(&world, 6), "....--");
    let other = world.cpu.machine().cpu(1, 1);
    world.k.exit_mm(&other);
    world.check();
    world.end();
}

#[test]
fn shared_memory_gets_its_page_into_the_page_cache_and_a_private_mapping_does_not() {
    let world = World::<Spf>::boot();
    let file = world.file(0, FileKind::Shmem);
    world.k.inode_prepare_for(file, PAGE);
    world.k.setattr_size(&world.cpu, file, PAGE);
    for (page, sharing) in [(0, MapFlags::PRIVATE), (1, MapFlags::SHARED)] {
        let mut args = world.anonymous(at(page).0, PAGE);
        args.flags = MapFlags(sharing.0 | MapFlags::FIXED.0);
        args.file = file.ptr();
        world.k.sys_mmap(&world.cpu, &args).unwrap();
    }
    register(&world, 0, 2).unwrap();
    assert_eq!(world.read(at(0).0), Ok(0));
    assert!(world.k.find_get_page(&world.cpu, file, 0).is_none());
    assert_eq!(world.write(at(1).0, 7), Ok(0));
    let page = world.k.find_get_page(&world.cpu, file, 0).expect("brought");
    assert_eq!((page.slot_index(), page.content().peek()), (world.pte(at(1).0).pfn(), 7));
    world.k.put_page(&world.cpu, page);
    assert_eq!(world.read(at(0).0), Ok(0));
    world.check();
    world.close(&[file]);
    world.end();
}

#[test]
fn nothing_cuts_through_a_huge_page_of_hugetlb() {
    let world = World::<Spf>::boot();
    let huge = world.k.pmd_size();
    let start = BASE.next_multiple_of(huge);
    let mut args = world.anonymous(start, huge);
    args.flags = MapFlags(args.flags.0 | MapFlags::HUGETLB.0);
    world.k.sys_mmap(&world.cpu, &args).unwrap();
    let change =
        |start, length, missing| world.k.userfaultfd_change(&world.cpu, start, length, missing);
    assert_eq!(change(start, PAGE, true), Err(Errno::Einval));
    assert_eq!(change(start - PAGE, huge + PAGE, true), Err(Errno::Einval));
    assert_eq!(change(start, PAGE, false), Ok(()), "it is not registered");
    assert_eq!(change(start, huge + PAGE, true), Ok(()));
    assert_eq!(world.write(start + PAGE, 3), Ok(0));
    // Unregistering takes what comes before, and then cannot cut.
    world.map_fixed(start - 2 * PAGE, 2 * PAGE, RW);
    assert_eq!(change(start - 2 * PAGE, 2 * PAGE, true), Ok(()));
    assert_eq!(change(start - PAGE, 2 * PAGE, false), Err(Errno::Einval));
    let flags = |at| world.vma_at(at).vm_flags().peek().has(VmFlags::UFFD_MISSING);
    assert_eq!([start - 2 * PAGE, start - PAGE, start].map(flags), [true, false, true]);
    assert_eq!(world.read(start + PAGE), Ok(3));
    world.check();
    world.end();
}

#[test]
fn what_was_brought_is_young() {
    // A private page, and one of shared memory, which nobody has accessed.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    let mut args = world.anonymous(at(2).0, PAGE);
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0);
    world.k.sys_mmap(&world.cpu, &args).unwrap();
    register(&world, 0, 3).unwrap();
    world.k.mm_populate(&world.cpu, at(0).0, 3 * PAGE);
    assert_eq!([0, 2].map(|page| world.pte(at(page).0).has(Pte::YOUNG)), [true, true]);
    world.check();
    world.end();
}
