//! The mark of locked pages; `tests/unit/ops/mlock.rs` has the system calls.

use super::*;
use crate::design::Spf;
use crate::mm::{Thp, VmFlags};
use crate::support::{PAGE, RW, World, at};

#[test]
fn more_pages_than_one_batch_and_gaps_between_them_are_unmarked() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 64 * PAGE, RW);
    for page in (0..64).filter(|page| page % 3 != 0) {
        world.write(at(page).0, page).expect("writable");
    }
    world.k.sys_mlock(&world.cpu, at(0).0, 64 * PAGE, true).expect("mapped");
    let marked = || {
        let pages = (0..world.k.pages.used()).filter_map(|pfn| world.k.pages.peek(pfn));
        pages.filter(|page| page.flags().peek() & PG_MLOCKED != 0).count()
    };
    assert_eq!(marked(), 42);
    world.k.sys_munlock(&world.cpu, at(0).0, 64 * PAGE).expect("mapped");
    assert_eq!(marked(), 0);
    world.check();
    world.end();
}

#[test]
fn only_the_store_of_the_flags_is_bracketed() {
    let world = World::<Spf>::boot();
    world.map_fixed(at(0).0, 2 * PAGE, RW);
    world.k.sys_mlock(&world.cpu, at(0).0, 2 * PAGE, false).expect("mapped");
    let vma = world.vma_at(at(0).0);
    let before = vma.vm_sequence().peek();
    world.k.munlock_vma_pages_range(&world.cpu, vma, at(0), at(2));
    assert_eq!(vma.vm_sequence().peek(), before + 2);
    assert!(!vma.vm_flags().peek().has(VmFlags::LOCKED));
}

/// A system with huge pages wherever they fit, and one huge page's memory at `HUGE`.
fn huge() -> World<Spf> {
    let world = World::<Spf>::boot_with(|config| config.system.thp = Thp::Always);
    world.map_fixed(HUGE, HUGE_SIZE, RW);
    world
}
const HUGE: u64 = 0x4000_0000;
const HUGE_SIZE: u64 = 2 << 20;

fn marked(world: &World<Spf>) -> usize {
    let pages = (0..world.k.pages.used()).filter_map(|pfn| world.k.pages.peek(pfn));
    pages.filter(|page| page.flags().peek() & PG_MLOCKED != 0).count()
}

#[test]
fn a_huge_page_is_marked_as_one_until_it_is_split() {
    for first in [false, true] {
        let world = huge();
        if first {
            world.write(HUGE, 1).expect("writable");
        }
        world.k.sys_mlock(&world.cpu, HUGE, HUGE_SIZE, false).expect("mapped");
        assert_eq!(marked(&world), 1, "the head");
        world.check();
        world.k.sys_munlock(&world.cpu, HUGE, HUGE_SIZE).expect("mapped");
        assert_eq!(marked(&world), 0);
        world.k.sys_mlock(&world.cpu, HUGE, HUGE_SIZE, false).expect("mapped");
        world.k.sys_munlock(&world.cpu, HUGE, PAGE).expect("mapped");
        assert_eq!(marked(&world), 0, "what PTEs map of a huge page is not marked");
        world.check();
        world.end();
    }
}

#[test]
fn populating_a_huge_page_is_one_fault() {
    let world = huge();
    world.k.mm_populate(&world.cpu, HUGE, HUGE_SIZE);
    let counters = world.k.tasks[0].counters.snapshot();
    assert_eq!(counters[crate::events::Event::Pgfault as usize], 1);
    world.check();
    world.end();
}
