use super::*;
use crate::design::Spf;
use crate::platform::native::catch;
use crate::support::{BASE, PAGE, RW, World, swap_of};

fn booted(pages: u64) -> World<Spf> {
    World::boot_with(|config| config.system.swap = Some(swap_of(pages)))
}

#[test]
fn slots_are_given_one_after_another_and_come_back() {
    // Slot 0 is the header.
    let w = booted(5);
    let take = || w.k.get_swap_page(&w.cpu);
    assert_eq!([take(), take()], [Some(1), Some(2)]);
    w.k.put_swap_page(&w.cpu, 1);
    assert_eq!([take(), take(), take(), take()], [Some(3), Some(4), Some(1), None]);
    for slot in 1..5 {
        w.k.put_swap_page(&w.cpu, slot);
    }
    w.end();
}

#[test]
fn a_device_of_one_page_has_no_slot() {
    let w = booted(1);
    assert_eq!(w.k.get_swap_page(&w.cpu), None);
    w.end();
}

#[test]
fn a_slot_is_free_when_neither_ptes_nor_the_cache_have_it() {
    let w = booted(3);
    let slot = w.k.get_swap_page(&w.cpu).unwrap();
    w.k.swap_duplicate(&w.cpu, slot);
    w.k.swap_duplicate(&w.cpu, slot);
    w.k.put_swap_page(&w.cpu, slot);
    assert_eq!(w.k.swap_count(&w.cpu, slot), 2);
    w.k.swap_free(&w.cpu, slot);
    assert!(w.k.slot_is_used(&w.cpu, slot));
    w.k.swap_free(&w.cpu, slot);
    assert!(!w.k.slot_is_used(&w.cpu, slot));
    w.end();
}

#[test]
fn only_one_may_bring_a_slot_into_the_cache() {
    let w = booted(3);
    let slot = w.k.get_swap_page(&w.cpu).unwrap();
    assert_eq!(w.k.swapcache_prepare(&w.cpu, slot), Err(NoCache::Exists));
    w.k.swap_duplicate(&w.cpu, slot);
    w.k.put_swap_page(&w.cpu, slot);
    assert_eq!(w.k.swapcache_prepare(&w.cpu, slot), Ok(()));
    assert_eq!(w.k.swapcache_prepare(&w.cpu, slot), Err(NoCache::Exists));
    w.k.swap_free(&w.cpu, slot);
    w.k.put_swap_page(&w.cpu, slot);
    assert_eq!(w.k.swapcache_prepare(&w.cpu, slot), Err(NoCache::Obsolete));
    w.end();
}

#[test]
fn freeing_a_free_slot_is_a_finding() {
    let w = booted(3);
    let slot = w.k.get_swap_page(&w.cpu).unwrap();
    w.k.put_swap_page(&w.cpu, slot);
    let machine = w.cpu.machine();
    assert_eq!(catch(machine, || w.k.swap_free(&w.cpu, slot)), None);
    assert_eq!(machine.finding().unwrap().what, "slot 1 is used with count 0x0");
}

#[test]
fn when_half_is_used_what_only_the_cache_has_makes_room() {
    // Four slots: 1 and 2 hold pages that were read again, 3 a page that is out.
    let w = booted(5);
    w.map_fixed(BASE, 4 * PAGE, RW);
    let page = |nth: u64| BASE + nth * PAGE;
    (0..4).for_each(|nth| assert_eq!(w.write(page(nth), 10 + nth), Ok(0)));
    w.k.swap_out(&w.cpu, BASE, 2 * PAGE, false).unwrap();
    assert_eq!([w.read(page(0)), w.read(page(1))], [Ok(10), Ok(11)]);
    // Both slots are still theirs: less than half was in use.
    w.k.swap_out(&w.cpu, page(2), PAGE, false).unwrap();
    assert_eq!(w.pte(page(2)).swap_slot(), Some(3));
    w.k.swap_out(&w.cpu, page(3), PAGE, false).unwrap();
    assert_eq!(w.pte(page(3)).swap_slot(), Some(4));
    // No slot is free, so none is looked for, although two could be.
    assert_eq!(w.k.get_swap_page(&w.cpu), None);
    // With one free again, the first that the search meets is one of those two.
    assert_eq!(w.k.sys_munmap(&w.cpu, page(3), PAGE), Ok(()));
    assert_eq!(w.k.get_swap_page(&w.cpu), Some(1));
    assert!(w.pte(page(0)).is_present());
    w.k.put_swap_page(&w.cpu, 1);
    w.check();
    w.end();
}
