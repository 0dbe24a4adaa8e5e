//! Moving PTEs, and whole tables, between addresses.

use super::*;
use crate::design::Spf;
use crate::mm::{Choice, Variants};
use crate::ops::madvise::Advice;
use crate::ops::mremap::{MremapArgs, RemapFlags};
use crate::support::{PAGE, RW, World};

const PMD: u64 = 2 << 20;
const OLD: u64 = 0x4000_0000;
const NEW: u64 = 0x8000_0000;

fn remap(world: &World<Spf>, old: u64, new: u64, length: u64) {
    let flags = RemapFlags(RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0);
    let args = MremapArgs {
        address: old,
        old_length: length,
        new_length: length,
        flags,
        new_address: new,
    };
    assert_eq!(world.k.sys_mremap(&world.cpu, args), Ok(new));
}

/// The table that maps an address.
fn table_of(world: &World<Spf>, address: u64) -> Option<Ptr<Table<crate::platform::native::Cpu>>> {
    let pmd = world.k.walk_pmd(&world.cpu, world.mm(), Vaddr(address))?;
    pmd.read(&world.cpu).table()
}

fn boot(have_move_pmd: Option<bool>, choice: Choice) -> World<Spf> {
    World::boot_with(|config| {
        config.system.have_move_pmd = have_move_pmd;
        config.variants = Variants::all(choice);
    })
}

#[test]
fn a_whole_table_moves_as_it_is() {
    for choice in [Choice::V12, Choice::Fixed] {
        let world = boot(None, choice); // x86 has it
        world.map_fixed(OLD, PMD, RW);
        world.write(OLD + 7 * PAGE, 7).expect("writable");
        let table = table_of(&world, OLD);
        remap(&world, OLD, NEW, PMD);
        assert_eq!(table_of(&world, NEW), table);
        assert_eq!(table_of(&world, OLD), None);
        assert_eq!(world.read(NEW + 7 * PAGE), Ok(7));
        world.check();
        world.end();
    }
}

#[test]
fn a_part_or_a_place_askew_moves_page_by_page() {
    for (old, new, length) in [
        (OLD, NEW, PMD - PAGE),
        (OLD + PAGE, NEW + PAGE, PMD - PAGE),
        (OLD, NEW + PAGE, PMD),
        (OLD + PAGE, NEW, PMD),
    ] {
        let world = boot(None, Choice::Fixed);
        world.map_fixed(OLD, 2 * PMD, RW);
        let table = {
            world.write(old, 1).expect("writable");
            table_of(&world, old)
        };
        remap(&world, old, new, length);
        assert_ne!(table_of(&world, new), table);
        assert_eq!(world.read(new), Ok(1));
        world.check();
        world.end();
    }
}

#[test]
fn without_the_option_a_whole_table_moves_page_by_page() {
    let world = boot(Some(false), Choice::Fixed);
    world.map_fixed(OLD, PMD, RW);
    world.write(OLD, 1).expect("writable");
    let table = table_of(&world, OLD);
    remap(&world, OLD, NEW, PMD);
    assert_ne!(table_of(&world, NEW), table);
    assert_eq!(table_of(&world, OLD), None, "unmapped with all that it mapped");
    assert_eq!(world.read(NEW), Ok(1));
    world.end();
}

#[test]
fn several_tables_at_both_places_each_page_once() {
    // The tables' edges are met at different pages at both places, so one old table fills two.
    let world = boot(None, Choice::Fixed);
    let pages = [0u64, 1, 300, 511, 512, 700, 1022, 1023];
    world.map_fixed(OLD + PAGE, 2 * PMD, RW);
    for page in pages {
        world.write(OLD + (page + 1) * PAGE, page).expect("writable");
    }
    remap(&world, OLD + PAGE, NEW + 200 * PAGE, 2 * PMD);
    for page in pages {
        assert_eq!(world.read(NEW + (page + 200) * PAGE), Ok(page));
    }
    world.check();
    world.end();
}

#[test]
fn young_dirty_and_writable_move_along() {
    let world = boot(None, Choice::Fixed);
    world.map_fixed(OLD, PAGE, RW);
    world.write(OLD, 1).expect("writable");
    let pte = |address| {
        let table = table_of(&world, address).expect("a table");
        world.k.pte_offset_map(&world.cpu, table, Vaddr(address)).pte().peek()
    };
    let before = pte(OLD);
    remap(&world, OLD, NEW, PAGE);
    assert_eq!(pte(NEW), before);
    assert!(before.has(Pte::DIRTY) && before.has(Pte::YOUNG) && before.has(Pte::WRITE));
    world.end();
}

/// A huge page at `OLD`, with content in pages 0 and 300.
fn with_huge_page(have_move_pmd: Option<bool>, length: u64) -> World<Spf> {
    let world = boot(have_move_pmd, Choice::Fixed);
    world.map_fixed(OLD, length, RW);
    world.k.sys_madvise(&world.cpu, OLD, length, Advice::Hugepage).expect("advice");
    world.write(OLD, 1).expect("writable");
    world.write(OLD + 300 * PAGE, 2).expect("writable");
    assert!(is_huge(&world, OLD));
    world
}

fn is_huge(world: &World<Spf>, address: u64) -> bool {
    let pmd = world.k.walk_pmd(&world.cpu, world.mm(), Vaddr(address));
    pmd.is_some_and(|pmd| pmd.read(&world.cpu).is_huge())
}

#[test]
fn a_huge_page_moves_as_one() {
    // To an entry of the same table, and of another.
    for new in [OLD + 4 * PMD, NEW] {
        for have_move_pmd in [None, Some(false)] {
            let world = with_huge_page(have_move_pmd, PMD);
            remap(&world, OLD, new, PMD);
            assert!(is_huge(&world, new) && !is_huge(&world, OLD));
            assert_eq!((world.read(new), world.read(new + 300 * PAGE)), (Ok(1), Ok(2)));
            world.check();
            world.end();
        }
    }
}

#[test]
fn a_huge_page_that_cannot_move_as_one_is_split() {
    for (old, new, length) in [
        (OLD, NEW, PMD - PAGE),
        (OLD + PAGE, NEW + PAGE, PMD - PAGE),
        (OLD, NEW + PAGE, PMD),
        (OLD + 200 * PAGE, NEW, 2 * PMD),
    ] {
        let world = with_huge_page(None, 3 * PMD);
        remap(&world, old, new, length);
        assert!(!is_huge(&world, new) && !is_huge(&world, new + PMD));
        assert_eq!(world.read(OLD + 300 * PAGE - old + new), Ok(2));
        world.check();
        world.end();
    }
}

#[test]
fn the_huge_page_of_zeroes_moves_too() {
    for (new, huge) in [(NEW, true), (NEW + PAGE, false)] {
        let world = boot(None, Choice::Fixed);
        world.map_fixed(OLD, PMD, RW);
        world.k.sys_madvise(&world.cpu, OLD, PMD, Advice::Hugepage).expect("advice");
        assert_eq!(world.read(OLD), Ok(0));
        remap(&world, OLD, new, PMD);
        assert_eq!((is_huge(&world, new), world.read(new)), (huge, Ok(0)));
        world.check();
        world.end();
    }
}
