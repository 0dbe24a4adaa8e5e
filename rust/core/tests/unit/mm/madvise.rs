//! Advice about pages: what free, cold, pageout and willneed leave behind.

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{Errno, FileKind};
use crate::ops::madvise::Advice;
use crate::ops::mmap::MapFlags;
use crate::ops::process::Processes;
use crate::support::{BASE, PAGE, RW, World, at, swap_of};

/// Pages with 100, 101, … and a swap device.
fn written<D: Design>(pages: u64) -> World<D> {
    let w = World::boot_with(|config| config.system.swap = Some(swap_of(100)));
    w.map_fixed(BASE, pages * PAGE, RW);
    (0..pages).for_each(|nth| assert_eq!(w.write(BASE + nth * PAGE, 100 + nth), Ok(0)));
    w
}

fn advise<D: Design>(w: &World<D>, from: u64, pages: u64, advice: Advice) {
    w.k.sys_madvise(&w.cpu, at(from).0, pages * PAGE, advice).unwrap();
    w.check();
}

fn swap_out<D: Design>(w: &World<D>, from: u64, pages: u64) {
    w.k.swap_out(&w.cpu, at(from).0, pages * PAGE, false).unwrap();
    w.check();
}

fn free_keeps_until_reclaim<D: Design>() {
    let w = written::<D>(3);
    advise(&w, 0, 3, Advice::Free);
    // Nothing has come yet: whoever reads finds what was there, without a fault.
    assert_eq!(w.read(at(0).0), Ok(100));
    // A write takes the page back.
    assert_eq!(w.write(at(1).0, 7), Ok(0));
    let frames = w.k.pages.live();
    swap_out(&w, 0, 3);
    assert_eq!(w.k.pages.live(), frames - 2);
    assert!(w.pte(at(0).0).is_none() && w.pte(at(2).0).is_none());
    assert_eq!([0, 1, 2].map(|page| w.read(at(page).0)), [Ok(0), Ok(7), Ok(0)]);
    // What was taken back counts as before.
    swap_out(&w, 1, 1);
    assert_eq!((w.pte(at(1).0).swap_slot(), w.read(at(1).0)), (Some(1), Ok(7)));
    w.check();
    w.end();
}

#[test]
fn what_is_given_up_stays_until_reclaim_unless_it_is_written_to() {
    free_keeps_until_reclaim::<Spf>();
    free_keeps_until_reclaim::<Classic>();
}

#[test]
fn giving_up_what_is_in_swap_frees_the_slots_at_once() {
    let w = written::<Spf>(2);
    swap_out(&w, 0, 1);
    w.k.swap_out(&w.cpu, at(1).0, PAGE, true).unwrap();
    advise(&w, 0, 2, Advice::Free);
    assert!(w.pte(at(0).0).is_none() && w.pte(at(1).0).is_none());
    assert_eq!([w.read(at(0).0), w.read(at(1).0)], [Ok(0), Ok(0)]);
    w.end();
}

#[test]
fn a_page_in_the_swap_cache_leaves_it_when_it_is_given_up() {
    let w = written::<Spf>(1);
    swap_out(&w, 0, 1);
    assert_eq!(w.read(at(0).0), Ok(100));
    assert!(w.k.page_in_swap_cache(&w.cpu, w.k.page(&w.cpu, w.pte(at(0).0).pfn())));
    advise(&w, 0, 1, Advice::Free);
    let page = w.k.page(&w.cpu, w.pte(at(0).0).pfn());
    assert_eq!(page.flags().peek() & (PG_SWAPCACHE | PG_SWAPBACKED | PG_DIRTY), 0);
    swap_out(&w, 0, 1);
    assert_eq!(w.read(at(0).0), Ok(0));
    w.end();
}

#[test]
fn only_private_anonymous_memory_can_be_given_up() {
    let w = written::<Spf>(1);
    let file = w.file(2, FileKind::Regular);
    let mut args = w.anonymous(at(1).0, PAGE);
    args.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
    args.file = file.ptr();
    w.k.sys_mmap(&w.cpu, &args).unwrap();
    args = w.anonymous(at(2).0, PAGE);
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0);
    w.k.sys_mmap(&w.cpu, &args).unwrap();
    for page in [1, 2] {
        let result = w.k.sys_madvise(&w.cpu, at(page).0, PAGE, Advice::Free);
        assert_eq!(result, Err(Errno::Einval));
        // The others take any memory.
        for advice in [Advice::Cold, Advice::Pageout, Advice::Willneed] {
            advise(&w, page, 1, advice);
        }
    }
    w.k.files_release(&w.cpu, &[file.ptr()]);
    w.end();
}

#[test]
fn no_advice_about_pages_but_willneed_is_for_locked_memory() {
    let w = written::<Spf>(1);
    w.k.sys_mlock(&w.cpu, BASE, PAGE, false).unwrap();
    for advice in [Advice::Dontneed, Advice::Free, Advice::Cold, Advice::Pageout] {
        let result = w.k.sys_madvise(&w.cpu, BASE, PAGE, advice);
        assert_eq!(result, Err(Errno::Einval), "{advice:?}");
    }
    advise(&w, 0, 1, Advice::Willneed);
    w.end();
}

#[test]
fn pageout_reclaims_what_nobody_else_uses() {
    let w = written::<Spf>(3);
    advise(&w, 1, 2, Advice::Pageout);
    let slots = [0, 1, 2].map(|page| w.pte(at(page).0).swap_slot());
    assert_eq!(slots, [None, Some(1), Some(2)]);
    assert_eq!(w.read(at(2).0), Ok(102));
    w.check();
    w.end();
}

#[test]
fn pageout_leaves_what_another_process_has_used_and_takes_it_the_next_time() {
    let s = Processes::<Spf>::swapping(swap_of(10));
    s.map(0, BASE, 1);
    s.write(0, BASE, 7);
    s.fork(0, 1);
    assert_eq!(s.read(1, BASE), 7);
    let pageout = || s.k.sys_madvise(s.cpu(0), BASE, PAGE, Advice::Pageout).unwrap();
    pageout();
    assert!(s.is_mapped(0, BASE) && s.is_mapped(1, BASE));
    s.check();
    // The first try has made the other's PTE old.
    pageout();
    assert_eq!(s.k.swap_count(s.cpu(0), 1), 2);
    s.check();
    assert_eq!([s.read(0, BASE), s.read(1, BASE)], [7, 7]);
    (0..2).for_each(|task| s.exit(task));
    s.check_nothing_left();
}

#[test]
fn cold_pages_are_mapped_and_old_until_they_are_used() {
    let w = written::<Spf>(1);
    advise(&w, 0, 1, Advice::Cold);
    assert!(w.pte(BASE).is_present() && !w.pte(BASE).has(Pte::YOUNG));
    // No translation of before hides that it is used.
    assert_eq!(w.read(BASE), Ok(100));
    assert!(w.pte(BASE).has(Pte::YOUNG));
    w.end();
}

#[test]
fn willneed_brings_pages_back_into_the_swap_cache() {
    let w = written::<Spf>(3);
    swap_out(&w, 0, 3);
    advise(&w, 0, 2, Advice::Willneed);
    let cached = |page| w.k.is_in_swap_cache(&w.cpu, w.pte(at(page).0).swap_slot().unwrap());
    assert_eq!([0, 1, 2].map(cached), [true, true, false]);
    assert_eq!(w.read(at(1).0), Ok(101));
    w.check();
    w.end();
}

#[test]
fn willneed_reads_a_file_as_far_as_it_goes() {
    let w = World::<Spf>::boot();
    let file = w.k.inode_new(&w.cpu, 3 * PAGE, FileKind::Regular, false);
    let mut args = w.anonymous(BASE, 8 * PAGE);
    args.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
    args.file = file.ptr();
    w.k.sys_mmap(&w.cpu, &args).unwrap();
    let frames = w.k.pages.live();
    advise(&w, 1, 7, Advice::Willneed);
    assert_eq!(w.k.pages.live(), frames + 2);
    advise(&w, 0, 8, Advice::Willneed);
    assert_eq!(w.k.pages.live(), frames + 3);
    w.k.files_release(&w.cpu, &[file.ptr()]);
    w.end();
}
