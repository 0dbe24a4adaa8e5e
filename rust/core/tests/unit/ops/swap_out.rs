use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{FileKind, Rss};
use crate::ops::mmap::MapFlags;
use crate::ops::process::Processes;
use crate::support::{BASE, PAGE, R, RW, World, swap_of};

fn round_trip<D: Design>() {
    let w = World::<D>::boot_with(|config| config.system.swap = Some(swap_of(100)));
    w.map_fixed(BASE, 8 * PAGE, RW);
    (0..4).for_each(|nth| assert_eq!(w.write(BASE + nth * PAGE, 100 + nth), Ok(0)));
    assert_eq!(w.read(BASE + 5 * PAGE), Ok(0));
    let frames = w.k.pages.live();
    w.k.swap_out(&w.cpu, BASE, 8 * PAGE, false).unwrap();
    assert_eq!(w.k.pages.live(), frames - 4);
    w.k.sync_mm_rss(&w.cpu, w.mm());
    assert_eq!((w.mm().anon_pages().peek(), w.mm().swap_entries().peek()), (0, 4));
    // The zero page has no struct page that could go.
    assert!(w.pte(BASE + 5 * PAGE).is_present());
    w.check();
    let read: Vec<_> = (0..6).map(|nth| w.read(BASE + nth * PAGE)).collect();
    assert_eq!(read, [Ok(100), Ok(101), Ok(102), Ok(103), Ok(0), Ok(0)]);
    assert_eq!(w.k.current(&w.cpu).rss[Rss::Swap as usize].get() as i64, -4);
    w.check();
    w.end();
}

#[test]
fn what_goes_out_comes_back_as_it_was() {
    round_trip::<Spf>();
    round_trip::<Classic>();
}

#[test]
fn pages_that_stay_in_the_cache_are_written_and_keep_their_frames() {
    let w = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(100)));
    w.map_fixed(BASE, 2 * PAGE, RW);
    assert_eq!(w.write(BASE, 7), Ok(0));
    let frames = w.k.pages.live();
    w.k.swap_out(&w.cpu, BASE, 2 * PAGE, true).unwrap();
    assert_eq!((w.k.pages.live(), w.pte(BASE).swap_slot()), (frames, Some(1)));
    w.check();
    // The same again without the cache: nothing is mapped, and the page goes.
    w.k.swap_out(&w.cpu, BASE, 2 * PAGE, false).unwrap();
    assert_eq!(w.k.pages.live(), frames - 1);
    assert_eq!(w.read(BASE), Ok(7));
    w.check();
    w.end();
}

#[test]
fn only_a_range_that_is_not_aligned_is_refused() {
    let w = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(100)));
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 7), Ok(0));
    let out = |start, length| w.k.swap_out(&w.cpu, start, length, false);
    assert_eq!(out(BASE + 1, PAGE), Err(Errno::Einval));
    assert_eq!(out(BASE, 0), Ok(()));
    assert_eq!(out(BASE - PAGE, PAGE), Ok(()));
    assert_eq!(out(u64::MAX - PAGE + 1, u64::MAX), Ok(()));
    assert!(w.pte(BASE).is_present());
    assert_eq!(out(0, u64::MAX), Ok(()));
    assert!(!w.pte(BASE).is_present());
    assert_eq!(out(BASE, 1), Ok(()));
    w.check();
    w.end();
}

#[test]
fn pages_of_files_and_of_shared_memory_stay() {
    let w = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(100)));
    let file = w.file(2, FileKind::Regular);
    let mut args = w.anonymous(BASE, 2 * PAGE);
    args.flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0);
    args.file = file.ptr();
    assert_eq!(w.k.sys_mmap(&w.cpu, &args), Ok(BASE));
    args = w.anonymous(BASE + 2 * PAGE, PAGE);
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0);
    assert_eq!(w.k.sys_mmap(&w.cpu, &args), Ok(BASE + 2 * PAGE));
    (0..3).for_each(|nth| assert_eq!(w.read(BASE + nth * PAGE), Ok(0)));
    // A private copy is anonymous memory.
    assert_eq!(w.write(BASE, 7), Ok(0));
    w.k.swap_out(&w.cpu, BASE, 3 * PAGE, false).unwrap();
    let present = [0, 1, 2].map(|nth| w.pte(BASE + nth * PAGE).is_present());
    assert_eq!(present, [false, true, true]);
    assert_eq!(w.read(BASE), Ok(7));
    w.check();
    w.k.files_release(&w.cpu, &[file.ptr()]);
    w.end();
}

#[test]
fn without_a_device_everything_stays() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 7), Ok(0));
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    assert!(w.pte(BASE).is_present());
    w.end();
}

#[test]
fn unmapping_gives_slots_and_cached_pages_back() {
    let w = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(3)));
    w.map_fixed(BASE, 2 * PAGE, RW);
    for round in 0..4 {
        (0..2).for_each(|nth| assert_eq!(w.write(BASE + nth * PAGE, round), Ok(0)));
        w.k.swap_out(&w.cpu, BASE, PAGE, true).unwrap();
        w.k.swap_out(&w.cpu, BASE + PAGE, PAGE, false).unwrap();
        w.k.sys_madvise(&w.cpu, BASE, 2 * PAGE, crate::ops::madvise::Advice::Dontneed).unwrap();
        w.check();
        assert_eq!([w.read(BASE), w.read(BASE + PAGE)], [Ok(0), Ok(0)]);
    }
    w.end();
}

#[test]
fn mprotect_leaves_swap_entries_alone_and_the_swap_in_follows_it() {
    let w = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(100)));
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 7), Ok(0));
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    let entry = w.pte(BASE);
    w.k.sys_mprotect(&w.cpu, BASE, PAGE, R).unwrap();
    assert_eq!(w.pte(BASE), entry);
    assert!(w.write(BASE, 8).is_err());
    assert_eq!(w.read(BASE), Ok(7));
    w.check();
    w.end();
}

#[test]
fn a_child_shares_what_is_in_swap_until_one_of_both_writes() {
    let s = Processes::<Spf>::swapping(swap_of(10));
    s.map(0, BASE, 2);
    s.write(0, BASE, 7);
    s.write(0, BASE + PAGE, 8);
    s.k.swap_out(s.cpu(0), BASE, 2 * PAGE, false).unwrap();
    s.fork(0, 1);
    assert_eq!(s.k.swap_count(s.cpu(0), 1), 2);
    s.check();
    s.write(1, BASE, 70);
    assert_eq!([s.read(0, BASE), s.read(1, BASE)], [7, 70]);
    s.check();
    // The parent ends with an entry of its own left, and the child still has the other.
    s.exit(0);
    s.check();
    assert_eq!([s.read(1, BASE), s.read(1, BASE + PAGE)], [70, 8]);
    s.exit(1);
    s.check_nothing_left();
}
