use super::*;
use crate::design::Spf;
use crate::support::{BASE, PAGE, RW, World, swap_of};

fn written(pages: u64, slots: u64) -> World<Spf> {
    let w = World::boot_with(|config| config.system.swap = Some(swap_of(slots + 1)));
    w.map_fixed(BASE, pages * PAGE, RW);
    (0..pages).for_each(|nth| assert_eq!(w.write(BASE + nth * PAGE, 100 + nth), Ok(0)));
    w
}

fn content(w: &World<Spf>, slot: u32) -> u64 {
    let clusters = &w.k.swap_device().clusters;
    clusters.peek(slot / 64).unwrap().content(slot % 64).get()
}

#[test]
fn a_page_that_was_only_read_since_is_not_written_again() {
    let w = written(1, 4);
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    assert_eq!(w.read(BASE), Ok(100));
    // As if the device had other content by now: nobody writes over it.
    w.k.swap_device().clusters.peek(0).unwrap().content(1).set(55);
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    assert_eq!((w.pte(BASE).swap_slot(), content(&w, 1)), (Some(1), 55));
    assert_eq!(w.read(BASE), Ok(55));
    // A write takes the page out of the swap cache, so it needs a slot and a write again.
    assert_eq!(w.write(BASE, 9), Ok(0));
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    assert_eq!((w.pte(BASE).swap_slot(), content(&w, 2)), (Some(2), 9));
    w.check();
    w.end();
}

#[test]
fn what_there_is_no_slot_for_stays() {
    let w = written(3, 2);
    w.k.swap_out(&w.cpu, BASE, 3 * PAGE, false).unwrap();
    let slots = [0, 1, 2].map(|nth| w.pte(BASE + nth * PAGE).swap_slot());
    assert_eq!(slots, [Some(1), Some(2), None]);
    w.check();
    w.end();
}

#[test]
fn a_page_that_somebody_has_locked_or_refers_to_stays() {
    let w = written(2, 4);
    let pages = [0, 1].map(|nth| w.k.page(&w.cpu, w.pte(BASE + nth * PAGE).pfn()));
    w.k.lock_page(&w.cpu, pages[0]);
    w.k.get_page(&w.cpu, pages[1]);
    w.k.swap_out(&w.cpu, BASE, 2 * PAGE, false).unwrap();
    assert!(w.pte(BASE).is_present());
    // Unmapped, but neither written nor freed.
    assert_eq!(w.pte(BASE + PAGE).swap_slot(), Some(1));
    assert!(w.k.page_test(&w.cpu, pages[1], PG_SWAPCACHE));
    w.k.unlock_page(&w.cpu, pages[0]);
    w.k.put_page(&w.cpu, pages[1]);
    w.check();
    w.k.swap_out(&w.cpu, BASE, 2 * PAGE, false).unwrap();
    assert_eq!([w.read(BASE), w.read(BASE + PAGE)], [Ok(100), Ok(101)]);
    w.check();
    w.end();
}
