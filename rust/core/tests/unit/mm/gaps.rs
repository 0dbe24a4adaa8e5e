//! The address choice. In the pictures a letter is a page of a VMA, `.` a free one; limits are in
//! pages from the left.

use super::*;
use crate::design::Spf;
use crate::mm::Vaddr;
use crate::support::{PAGE, World};

/// A world with the VMAs of the picture, from page 1 on (page 0 is in no picture).
fn world(picture: &str) -> World<Spf> {
    let world = World::boot_with(|config| config.system.mmap_min_addr = PAGE);
    for (page, letter) in (1..).zip(picture.chars()) {
        if letter != '.' {
            let vma = world.k.vm_area_alloc(&world.cpu, world.mm());
            vma.vm_start().poke(Vaddr(page * PAGE));
            vma.vm_end().poke(Vaddr((page + 1) * PAGE));
            world.k.insert_vm_struct(&world.cpu, world.mm(), vma);
        }
    }
    world
}

fn info(length: u64, low: u64, high: u64) -> UnmappedAreaInfo {
    UnmappedAreaInfo { length: length * PAGE, low_limit: low * PAGE, high_limit: high * PAGE }
}

/// The page chosen from above, and from below.
fn choices(picture: &str, length: u64, low: u64, high: u64) -> [Option<u64>; 2] {
    let world = world(picture);
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    let info = info(length, low, high);
    let top = k.unmapped_area_topdown(cpu, mm, info);
    let bottom = k.unmapped_area(cpu, mm, info);
    [top.map(|address| address / PAGE), bottom.map(|address| address / PAGE)]
}

#[test]
fn an_empty_address_space_gives_its_ends() {
    assert_eq!(choices("", 3, 2, 20), [Some(17), Some(2)]);
    assert_eq!(choices("", 18, 2, 20), [Some(2), Some(2)]);
    assert_eq!(choices("", 19, 2, 20), [None, None]);
}

#[test]
fn a_gap_must_be_long_enough_within_the_limits() {
    //                 1234567890123456
    assert_eq!(choices("..A...B....CC", 3, 1, 14), [Some(9), Some(4)]);
    assert_eq!(choices("..A...B....CC", 4, 1, 14), [Some(8), Some(8)]);
    assert_eq!(choices("..A...B....CC", 5, 1, 14), [None, None]);
    // The limits cut the gaps.
    assert_eq!(choices("..A...B....CC", 3, 5, 11), [Some(8), Some(8)]);
    assert_eq!(choices("..A...B....CC", 2, 5, 7), [Some(5), Some(5)]);
    assert_eq!(choices("..A...B....CC", 3, 5, 10), [None, None]);
}

#[test]
fn the_place_above_all_vmas_counts() {
    assert_eq!(choices("AAAA", 2, 1, 20), [Some(18), Some(5)]);
    assert_eq!(choices("AAAA", 15, 1, 20), [Some(5), Some(5)]);
    // Exactly to the limit, and one less.
    assert_eq!(choices("AAAA", 2, 1, 7), [Some(5), Some(5)]);
    assert_eq!(choices("AAAA", 2, 1, 6), [None, None]);
}

#[test]
fn limits_that_leave_no_room_or_overflow_are_refused() {
    let world = world("A");
    let (k, cpu, mm) = (&world.k, &world.cpu, world.mm());
    for info in [info(4, 1, 3), info(1, 9, 9), info(2, 9, 10)] {
        assert_eq!(k.unmapped_area_topdown(cpu, mm, info), None);
        assert_eq!(k.unmapped_area(cpu, mm, info), None);
    }
}
