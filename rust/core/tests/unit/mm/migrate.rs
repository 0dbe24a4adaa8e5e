//! Page migration: what moves, what is left of it, and who waits.

use super::*;
use crate::design::Spf;
use crate::mm::{Pte, Rss};
use crate::ops::process::Processes;
use crate::support::{BASE, PAGE, R, RW, World, at, swap_of};

fn written(pages: u64) -> World<Spf> {
    let w = World::boot_with(|config| config.system.swap = Some(swap_of(100)));
    w.map_fixed(BASE, pages * PAGE, RW);
    (0..pages).for_each(|nth| assert_eq!(w.write(at(nth).0, 100 + nth), Ok(0)));
    w
}

fn page(w: &World<Spf>, nth: u64) -> PageRef<'_, crate::platform::native::Cpu> {
    w.k.page(&w.cpu, w.pte(at(nth).0).pfn())
}

#[test]
fn a_page_moves_with_its_content_and_no_translation_is_left() {
    let w = written(2);
    let (before, frames) = (w.pte(BASE), w.k.pages.live());
    w.k.migrate(&w.cpu, BASE, PAGE, 1).unwrap();
    let after = w.pte(BASE);
    assert_ne!(before.pfn(), after.pfn());
    assert_eq!((w.k.pages.live(), after.has(Pte::WRITE)), (frames, true));
    // Old and clean; the page itself is dirty.
    assert!(!after.has(Pte::YOUNG | Pte::DIRTY) && w.k.page_test(&w.cpu, page(&w, 0), PG_DIRTY));
    w.check();
    assert_eq!(w.write(BASE, 7), Ok(0));
    assert_eq!([w.read(BASE), w.read(at(1).0)], [Ok(7), Ok(101)]);
    w.k.sync_mm_rss(&w.cpu, w.mm());
    assert_eq!(w.k.current(&w.cpu).rss[Rss::Anon as usize].get(), 0);
    w.check();
    w.end();
}

#[test]
fn a_page_moves_for_all_who_map_it_and_stays_shared() {
    let s = Processes::<Spf>::new();
    s.map(0, BASE, 1);
    s.write(0, BASE, 7);
    s.fork(0, 1);
    s.k.migrate(s.cpu(1), BASE, PAGE, 0).unwrap();
    s.check();
    s.write(1, BASE, 8);
    assert_eq!([s.read(0, BASE), s.read(1, BASE)], [7, 8]);
    (0..2).for_each(|task| s.exit(task));
    s.check_nothing_left();
}

#[test]
fn a_page_in_the_swap_cache_takes_its_place_there_along() {
    let w = written(1);
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    assert_eq!(w.read(BASE), Ok(100));
    w.k.migrate(&w.cpu, BASE, PAGE, 1).unwrap();
    assert!(w.k.page_test(&w.cpu, page(&w, 0), PG_SWAPCACHE));
    w.check();
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    assert_eq!((w.pte(BASE).swap_slot(), w.read(BASE)), (Some(1), Ok(100)));
    w.check();
    w.end();
}

#[test]
fn what_somebody_refers_to_is_put_back_where_it_was() {
    let w = written(1);
    let held = page(&w, 0);
    w.k.get_page(&w.cpu, held);
    let before = w.pte(BASE);
    w.k.migrate(&w.cpu, BASE, PAGE, 1).unwrap();
    assert_eq!((w.pte(BASE).pfn(), w.pte(BASE).has(Pte::WRITE)), (before.pfn(), true));
    w.k.put_page(&w.cpu, held);
    w.check();
    assert_eq!(w.read(BASE), Ok(100));
    w.end();
}

/// An entry in the place of the PTE, as if the page were on its way.
fn on_its_way(w: &World<Spf>) {
    let pmd = w.k.walk_pmd(&w.cpu, w.mm(), at(0)).unwrap();
    let table = pmd.read(&w.cpu).table().unwrap();
    let slot = w.k.pte_offset_map(&w.cpu, table, at(0));
    let family = w.k.page_get_anon_vma(&w.cpu, page(w, 0)).expect("an anon_vma");
    let moving = page(w, 0);
    w.k.lock_page(&w.cpu, moving);
    assert!(w.k.try_to_unmap(&w.cpu, moving, family, Unmap::Migration { keep: Pte::EMPTY }));
    assert_eq!(slot.pte().peek(), Pte::migration(moving.slot_index(), true));
    w.k.put_anon_vma(&w.cpu, family);
}

#[test]
fn an_entry_that_mprotect_met_comes_back_read_only() {
    let w = written(1);
    let moving = page(&w, 0);
    w.k.get_page(&w.cpu, moving);
    on_its_way(&w);
    w.k.sys_mprotect(&w.cpu, BASE, PAGE, R).unwrap();
    assert_eq!(w.pte(BASE), Pte::migration(moving.slot_index(), false));
    let family = w.k.anon_vmas.get(&w.cpu, w.vma_at(BASE).anon_vma().peek());
    w.k.remove_migration_ptes(&w.cpu, moving, moving, family);
    w.k.unlock_page(&w.cpu, moving);
    w.k.put_page(&w.cpu, moving);
    assert_eq!((w.write(BASE, 1).is_err(), w.read(BASE)), (true, Ok(100)));
    w.check();
    w.end();
}

#[test]
fn an_entry_that_is_unmapped_is_no_longer_counted() {
    let w = written(1);
    let moving = page(&w, 0);
    w.k.get_page(&w.cpu, moving);
    on_its_way(&w);
    w.k.sys_munmap(&w.cpu, BASE, PAGE).unwrap();
    w.k.unlock_page(&w.cpu, moving);
    w.k.put_page(&w.cpu, moving);
    w.check();
    w.end();
}
