//! mmap: errors in Linux's order, the place, the flags, files.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::Pte;
use crate::platform::native::Cpu;
use crate::support::{PAGE, R, RW, World, at};

const PRIVATE: u32 = MapFlags::PRIVATE.0;
const SHARED: u32 = MapFlags::SHARED.0;
const ANONYMOUS: u32 = MapFlags::ANONYMOUS.0;
const FIXED: u32 = MapFlags::FIXED.0;
const NOREPLACE: u32 = MapFlags::FIXED_NOREPLACE.0;

/// `TASK_SIZE` and `mmap_base` of x86.
const TASK_SIZE: u64 = 0x7fff_ffff_f000;
const MMAP_BASE: u64 = 0x7fff_f7ff_f000;

fn mmap<D: Design>(
    world: &World<D>,
    address: u64,
    length: u64,
    prot: VmFlags,
    flags: u32,
) -> Result<u64, Errno> {
    let args = MmapArgs { prot, flags: MapFlags(flags), ..world.anonymous(address, length) };
    world.k.sys_mmap(&world.cpu, &args)
}

/// Maps one page of `file` at `offset`.
fn map_file(
    world: &World<Spf>,
    address: u64,
    flags: u32,
    file: Ptr<Inode<Cpu>>,
    offset: u64,
) -> Result<u64, Errno> {
    let flags = MapFlags(flags | if address == 0 { 0 } else { FIXED });
    let args = MmapArgs { flags, file, offset, ..world.anonymous(address, PAGE) };
    world.k.sys_mmap(&world.cpu, &args)
}

#[test]
fn errors_are_linuxs() {
    let anonymous = PRIVATE | ANONYMOUS;
    let fixed = anonymous | FIXED;
    let table: [(u64, u64, u32, Result<u64, Errno>); 18] = [
        // address, length, flags, result
        (0, 0, anonymous, Err(Errno::Einval)),
        (0, u64::MAX, anonymous, Err(Errno::Enomem)), // wraps to 0
        (0, TASK_SIZE + 1, anonymous, Err(Errno::Enomem)),
        (0, TASK_SIZE, anonymous, Err(Errno::Enomem)), // nothing below mmap_min_addr
        (at(0).0 + 1, PAGE, fixed, Err(Errno::Einval)),
        (TASK_SIZE, PAGE, fixed, Err(Errno::Enomem)),
        (TASK_SIZE - PAGE, 2 * PAGE, fixed, Err(Errno::Enomem)),
        (TASK_SIZE - PAGE, PAGE, fixed, Ok(TASK_SIZE - PAGE)),
        (TASK_SIZE + 1, PAGE, fixed, Err(Errno::Enomem)), // before it is seen to be unaligned
        (u64::MAX, PAGE, fixed, Err(Errno::Eperm)), // MAP_FAILED is -1, which is taken for an errno
        (0, PAGE, fixed, Err(Errno::Eperm)),
        (0xf000, PAGE, fixed, Err(Errno::Eperm)),
        (1, PAGE, fixed, Err(Errno::Einval)), // before it is seen to be too low
        (0x10000, PAGE, fixed, Ok(0x10000)),
        (at(0).0, PAGE, ANONYMOUS | FIXED, Err(Errno::Einval)),
        (at(0).0, PAGE, PRIVATE | SHARED | ANONYMOUS | FIXED, Err(Errno::Einval)),
        // The place is looked for before the kind of the mapping is.
        (0, PAGE, ANONYMOUS | FIXED, Err(Errno::Eperm)),
        (0, 0, ANONYMOUS, Err(Errno::Einval)),
    ];
    for (address, length, flags, expect) in table {
        let world = World::<Spf>::boot();
        let result = mmap(&world, address, length, RW, flags);
        assert_eq!(result, expect, "{address:#x} {length:#x} {flags:#x}");
        world.check();
        world.end();
    }
}

#[test]
fn an_unaligned_offset_comes_before_a_length_of_0() {
    let world = World::<Spf>::boot();
    let args = MmapArgs { offset: 1, ..world.anonymous(0, 0) };
    assert_eq!(world.k.sys_mmap(&world.cpu, &args), Err(Errno::Einval));
    let args = MmapArgs { offset: 1, ..world.anonymous(0, u64::MAX) };
    assert_eq!(world.k.sys_mmap(&world.cpu, &args), Err(Errno::Einval));
}

#[test]
fn noreplace_is_fixed_but_spares_what_is_there() {
    let world = World::<Spf>::boot();
    let flags = PRIVATE | ANONYMOUS | NOREPLACE;
    assert_eq!(mmap(&world, at(1).0, 2 * PAGE, RW, flags), Ok(at(1).0));
    for (page, pages) in [(0, 2), (1, 1), (2, 1), (2, 4), (0, 9)] {
        assert_eq!(mmap(&world, at(page).0, pages * PAGE, RW, flags), Err(Errno::Eexist));
    }
    // EEXIST comes before the kind is looked at.
    assert_eq!(mmap(&world, at(1).0, PAGE, RW, ANONYMOUS | NOREPLACE), Err(Errno::Eexist));
    assert_eq!(mmap(&world, at(3).0, PAGE, R, flags), Ok(at(3).0));
    assert_eq!(world.mm().map_count().peek(), 2);
    world.check();
}

#[test]
fn too_many_vmas_is_enomem_only_above_the_limit() {
    // do_mmap tests "more than", so one more than the limit can be had.
    let world = World::<Spf>::boot();
    world.k.sysctl_max_map_count.poke(1);
    world.map_fixed(at(0).0, PAGE, RW);
    world.map_fixed(at(2).0, PAGE, RW);
    assert_eq!(mmap(&world, 0, PAGE, RW, PRIVATE | ANONYMOUS), Err(Errno::Enomem));
    // Before the address is looked at, after the length.
    assert_eq!(mmap(&world, 0, PAGE, RW, PRIVATE | ANONYMOUS | FIXED), Err(Errno::Enomem));
    assert_eq!(mmap(&world, 0, 0, RW, PRIVATE | ANONYMOUS), Err(Errno::Einval));
}

fn chooses_from_the_top<D: Design>() {
    // … .aab | mmap_base    a chunk goes right below the one before, and merges with it
    let world = World::<D>::boot();
    let flags = PRIVATE | ANONYMOUS;
    assert_eq!(mmap(&world, 0, PAGE, RW, flags), Ok(MMAP_BASE - PAGE));
    assert_eq!(mmap(&world, 0, 2 * PAGE, RW, flags), Ok(MMAP_BASE - 3 * PAGE));
    assert_eq!(world.maps(), ["7ffff7ffc000-7ffff7fff000 rw-p 00000000"]);
    // A hole is taken by what fits, the rest goes below.
    world.k.sys_munmap(&world.cpu, MMAP_BASE - 2 * PAGE, PAGE).expect("mapped");
    assert_eq!(mmap(&world, 0, 2 * PAGE, RW, flags), Ok(MMAP_BASE - 5 * PAGE));
    assert_eq!(mmap(&world, 0, PAGE, RW, flags), Ok(MMAP_BASE - 2 * PAGE));
    assert_eq!(world.maps(), ["7ffff7ffa000-7ffff7fff000 rw-p 00000000"]);
    world.check();
    world.end();
}

#[test]
fn the_highest_gap_is_chosen() {
    chooses_from_the_top::<Spf>();
    chooses_from_the_top::<Classic>();
}

#[test]
fn hints_are_taken_when_free() {
    let world = World::<Spf>::boot();
    let flags = PRIVATE | ANONYMOUS;
    world.map_fixed(at(8).0, 2 * PAGE, RW);
    let top = MMAP_BASE - 2 * PAGE;
    let table = [
        (at(4).0, at(4).0),
        (at(4).0 + 5, at(4).0), // rounded down
        (1, top),               // rounded down to none
        (PAGE, 0x10000),        // raised to mmap_min_addr
        (0xffff, 0x10000),      // the same
        (at(6).0, at(6).0),     // ends where another begins
        (at(7).0, top),         // not free: from the top
        (TASK_SIZE - 2 * PAGE, TASK_SIZE - 2 * PAGE),
        (TASK_SIZE - PAGE, top), // does not fit
        (u64::MAX, top),
    ];
    for (hint, expect) in table {
        assert_eq!(mmap(&world, hint, 2 * PAGE, RW, flags), Ok(expect), "{hint:#x}");
        world.k.sys_munmap(&world.cpu, expect, 2 * PAGE).expect("mapped");
    }
    world.check();
}

#[test]
fn when_nothing_is_free_below_mmap_base_it_is_looked_for_from_a_third_up() {
    // low | a third … all taken … mmap_base | 1 MiB | task_size
    const TASK_SIZE: u64 = 64 << 20;
    const MMAP_BASE: u64 = 63 << 20;
    let world = World::<Spf>::boot_with(|config| {
        (config.arch.task_size, config.arch.mmap_base) = (TASK_SIZE, MMAP_BASE);
    });
    let flags = PRIVATE | ANONYMOUS;
    world.map_fixed(0x10000, MMAP_BASE - 0x10000, RW);
    assert_eq!(mmap(&world, 0, PAGE, RW, flags), Ok(MMAP_BASE));
    assert_eq!(mmap(&world, 0, TASK_SIZE - MMAP_BASE, RW, flags), Err(Errno::Enomem));
    assert_eq!(mmap(&world, 0, TASK_SIZE - MMAP_BASE - PAGE, RW, flags), Ok(MMAP_BASE + PAGE));
    assert_eq!(mmap(&world, 0, PAGE, RW, flags), Err(Errno::Enomem));
    world.check();
    world.end();
}

#[test]
fn fixed_replaces_what_is_there() {
    // PPPPPP
    //   rr      read-only, fixed
    // PPrrPP    and the pages are gone
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    world.write(at(2).0, 7).expect("writable");
    world.write(at(4).0, 8).expect("writable");
    world.map_fixed(at(2).0, 2 * PAGE, R);
    assert_eq!(
        world.maps(),
        [
            "10000000-10002000 rw-p 00000000",
            "10002000-10004000 r--p 00000000",
            "10004000-10006000 rw-p 00000000",
        ]
    );
    assert_eq!(world.read(at(2).0), Ok(0));
    assert_eq!(world.read(at(4).0), Ok(8));
    world.check();
    world.end();
}

#[test]
fn fixed_that_cannot_unmap_is_enomem_and_changes_nothing() {
    // Cutting a hole needs one VMA more than the limit allows.
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 6 * PAGE, RW);
    world.k.sysctl_max_map_count.poke(1);
    let cut = mmap(&world, at(2).0, PAGE, R, PRIVATE | ANONYMOUS | FIXED);
    assert_eq!(cut, Err(Errno::Enomem));
    assert_eq!(world.maps(), ["10000000-10006000 rw-p 00000000"]);
    world.check();
}

#[test]
fn a_mapping_beside_a_touched_one_is_touched_too() {
    // What ebizzy's counters hang on: the next chunk has the anon_vma of the one before.
    let world = World::<Spf>::boot();
    let first = mmap(&world, 0, PAGE, RW, PRIVATE | ANONYMOUS).expect("room");
    world.write(first, 1).expect("writable");
    let second = mmap(&world, 0, PAGE, RW, PRIVATE | ANONYMOUS).expect("room");
    assert!(!world.vma_at(second).anon_vma().peek().is_null());
    assert_eq!(world.vma_at(second).vm_start().peek(), Vaddr(second));
    assert_eq!(world.vma_at(second).vm_end().peek(), Vaddr(first + PAGE));
    world.check();
    world.end();
}

#[test]
fn accounting_and_noreserve_keep_neighbours_apart() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, PAGE, RW);
    world.map_fixed(at(1).0, PAGE, R);
    let noreserve = PRIVATE | ANONYMOUS | FIXED | MapFlags::NORESERVE.0;
    mmap(&world, at(2).0, PAGE, RW, noreserve).expect("room");
    let flags = |page| world.vma_at(at(page).0).vm_flags().peek();
    assert!(flags(0).has(VmFlags::ACCOUNT));
    assert!(!flags(1).has(VmFlags::ACCOUNT));
    assert!(!flags(2).has(VmFlags::ACCOUNT) && flags(2).has(VmFlags::NORESERVE));
    // Made writable, the middle one merges with the first, not with the one that reserves not.
    world.k.sys_mprotect(&world.cpu, at(1).0, PAGE, RW).expect("mapped");
    assert_eq!(
        world.maps(),
        ["10000000-10002000 rw-p 00000000", "10002000-10003000 rw-p 00000000"]
    );
    world.check();
}

#[test]
fn shared_anonymous_memory_is_a_file_of_its_own() {
    let world = World::<Spf>::boot();
    let flags = SHARED | ANONYMOUS | FIXED;
    mmap(&world, at(0).0, 2 * PAGE, RW, flags).expect("room");
    mmap(&world, at(2).0, 2 * PAGE, RW, flags).expect("room");
    assert_eq!(
        world.maps(),
        ["10000000-10002000 rw-s 00000000", "10002000-10004000 rw-s 00000000"]
    );
    let (one, other) = (world.vma_at(at(0).0), world.vma_at(at(2).0));
    assert_ne!(one.vm_file().peek(), other.vm_file().peek());
    assert_eq!(one.vm_ops().peek(), VmOps::Shmem as u64);
    assert_eq!(world.write(at(3).0, 5), Ok(0));
    assert_eq!(world.read(at(3).0), Ok(5));
    assert_eq!(world.k.inodes.live(), 2);
    world.k.sys_munmap(&world.cpu, at(0).0, 4 * PAGE).expect("mapped");
    assert_eq!(world.k.inodes.live(), 0, "closed at once");
    world.check();
    world.end();
}

#[test]
fn dev_zero_is_anonymous_when_private_and_shmem_when_shared() {
    let world = World::<Spf>::boot();
    let zero = world.file(16, FileKind::DevZero).ptr();
    let map = |page, flags, offset| {
        map_file(&world, at(page).0, flags, zero, offset * PAGE).expect("room");
        world.vma_at(at(page).0)
    };
    let private = map(0, PRIVATE, 0);
    assert!(world.k.vma_is_anonymous(&world.cpu, private));
    assert_eq!(private.vm_file().peek(), zero);
    // It merges by file and offset, as a file does.
    assert_eq!(map(1, PRIVATE, 1).ptr(), private.ptr());
    assert_ne!(map(2, PRIVATE, 0).ptr(), private.ptr());
    let shared = map(8, SHARED, 0);
    assert_eq!(shared.vm_ops().peek(), VmOps::Shmem as u64);
    assert_ne!(shared.vm_file().peek(), zero);
    assert_eq!(world.k.inodes.get(&world.cpu, zero).count().peek(), 3);
    world.check();
}

#[test]
fn mappings_of_a_file_merge_where_their_offsets_follow() {
    let world = World::<Spf>::boot();
    let file = world.file(16, FileKind::Regular).ptr();
    for (page, offset) in [(0, 4), (1, 5), (2, 7)] {
        map_file(&world, at(page).0, PRIVATE, file, offset * PAGE).expect("room");
    }
    assert_eq!(
        world.maps(),
        ["10000000-10002000 rw-p 00004000", "10002000-10003000 rw-p 00007000"]
    );
    assert_eq!(world.k.inodes.get(&world.cpu, file).count().peek(), 3);
    world.check();
}

#[test]
fn private_and_shared_is_for_files_and_refuses_younger_flags() {
    // MAP_SHARED_VALIDATE is 3; MAP_FIXED_NOREPLACE came later.
    let world = World::<Spf>::boot();
    for kind in [FileKind::Regular, FileKind::Shmem, FileKind::DevZero] {
        let file = world.file(1, kind).ptr();
        let both = PRIVATE | SHARED;
        assert_eq!(map_file(&world, at(0).0, both | FIXED, file, 0), Ok(at(0).0));
        assert!(world.vma_at(at(0).0).vm_flags().peek().has(VmFlags::SHARED), "{kind:?}");
        let at = at(1).0;
        assert_eq!(map_file(&world, at, both | NOREPLACE, file, 0), Err(Errno::Eopnotsupp));
        assert_eq!(map_file(&world, at, FIXED, file, 0), Err(Errno::Einval));
    }
    world.check();
}

#[test]
fn a_file_ends_before_2_to_the_63() {
    let world = World::<Spf>::boot();
    let last = (1 << 63) - PAGE;
    let table = [
        (FileKind::Regular, last - PAGE, true),
        (FileKind::Regular, last, false), // its last byte would be 2^63 - 1, the size 2^63
        (FileKind::Shmem, 1 << 63, false),
        (FileKind::DevZero, 1 << 63, true),
        (FileKind::DevZero, 0_u64.wrapping_sub(2 * PAGE), true),
        (FileKind::DevZero, 0_u64.wrapping_sub(PAGE), false),
    ];
    for (kind, offset, ok) in table {
        let file = world.file(1, kind).ptr();
        let result = map_file(&world, 0, SHARED, file, offset).map(drop);
        let expect = if ok { Ok(()) } else { Err(Errno::Eoverflow) };
        assert_eq!(result, expect, "{kind:?} at {offset:#x}");
    }
    // Before the kind of the mapping is looked at.
    let file = world.file(1, FileKind::Regular).ptr();
    assert_eq!(map_file(&world, 0, 0, file, last), Err(Errno::Eoverflow));
}

#[test]
fn new_vmas_have_the_protection_of_their_flags_and_an_even_count() {
    let world = World::<Spf>::boot();
    mmap(&world, at(0).0, PAGE, RW, SHARED | ANONYMOUS | FIXED).expect("room");
    let shared = world.vma_at(at(0).0);
    assert!(shared.vm_page_prot().peek().has(Pte::WRITE));
    assert_eq!(shared.vm_sequence().peek(), 2, "the tail of mmap_region is a write section");
    world.map_fixed(at(1).0, PAGE, RW);
    let private = world.vma_at(at(1).0);
    assert!(!private.vm_page_prot().peek().has(Pte::WRITE));
    assert_eq!(private.vm_pgoff().peek(), at(1).0 / PAGE);
    assert_eq!(world.mm().total_vm().peek(), 2);
}
