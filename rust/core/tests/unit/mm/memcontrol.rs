use crate::design::Spf;
use crate::mm::{Errno, Signal};
use crate::ops::access::AccessFailure;
use crate::ops::madvise::Advice;
use crate::support::{BASE, PAGE, RW, World, swap_of};

const OOM: Result<u64, AccessFailure> = Err(AccessFailure::Signal(Signal::OOM_KILL));

/// A world whose processes may have so many pages.
fn limited(pages: u64) -> World<Spf> {
    World::boot_with(|config| {
        config.system.memcg = Some(pages * PAGE);
        config.system.swap = Some(swap_of(64));
    })
}

fn usage(w: &World<Spf>) -> u64 {
    w.k.memcg_usage().peek()
}

#[test]
fn beyond_the_limit_a_write_is_out_of_memory_and_leaves_nothing() {
    let w = limited(2);
    w.map_fixed(BASE, 4 * PAGE, RW);
    assert_eq!(w.read(BASE), Ok(0), "the page of zeroes costs nothing");
    assert_eq!((usage(&w), w.write(BASE, 1), w.write(BASE + PAGE, 2)), (0, Ok(0), Ok(0)));
    assert_eq!((usage(&w), w.write(BASE + 2 * PAGE, 3)), (2, OOM));
    let live = w.k.pages.live();
    assert_eq!(w.write(BASE + 2 * PAGE, 3), OOM);
    assert_eq!((usage(&w), w.k.pages.live()), (2, live));
    w.k.sys_munmap(&w.cpu, BASE, PAGE).unwrap();
    assert_eq!((usage(&w), w.write(BASE + 2 * PAGE, 3)), (1, Ok(0)));
    w.check();
    w.end();
}

#[test]
fn what_is_swapped_out_is_charged_again_when_it_is_mapped() {
    let w = limited(1);
    w.map_fixed(BASE, 2 * PAGE, RW);
    assert_eq!(w.write(BASE, 1), Ok(0));
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    assert_eq!((usage(&w), w.write(BASE + PAGE, 2)), (0, Ok(0)));
    assert_eq!(w.read(BASE), OOM);
    assert_eq!(usage(&w), 1);
    w.k.sys_munmap(&w.cpu, BASE + PAGE, PAGE).unwrap();
    assert_eq!((w.read(BASE), usage(&w)), (Ok(1), 1));
    w.check();
    w.end();
}

#[test]
fn a_page_that_moves_takes_its_charge_along() {
    let w = limited(1);
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 1), Ok(0));
    w.k.migrate(&w.cpu, BASE, PAGE, 1).unwrap();
    assert_eq!((usage(&w), w.read(BASE)), (1, Ok(1)));
    w.check();
    w.end();
}

#[test]
fn merged_pages_are_charged_once_and_copies_of_them_again() {
    let w = limited(2);
    w.map_fixed(BASE, 2 * PAGE, RW);
    w.k.sys_madvise(&w.cpu, BASE, 2 * PAGE, Advice::Mergeable).unwrap();
    assert_eq!((w.write(BASE, 5), w.write(BASE + PAGE, 5), usage(&w)), (Ok(0), Ok(0), 2));
    w.k.ksm_scan(&w.cpu, BASE, 2 * PAGE).unwrap();
    assert_eq!(usage(&w), 1);
    w.map_fixed(BASE + 2 * PAGE, PAGE, RW);
    assert_eq!((w.write(BASE + 2 * PAGE, 6), w.write(BASE, 7), usage(&w)), (Ok(0), OOM, 2));
    let unmerged = w.k.sys_madvise(&w.cpu, BASE, 2 * PAGE, Advice::Unmergeable);
    assert_eq!((unmerged, w.read(BASE)), (Err(Errno::Eagain), Ok(5)));
    w.k.sys_munmap(&w.cpu, BASE + 2 * PAGE, PAGE).unwrap();
    assert_eq!((w.write(BASE, 7), w.read(BASE + PAGE), usage(&w)), (Ok(0), Ok(5), 2));
    w.check();
    w.end();
}

#[test]
fn a_huge_page_that_costs_too_much_is_a_small_one() {
    for (pages, charged) in [(1, 1), (511, 1), (512, 512)] {
        let w = World::<Spf>::boot_with(|config| {
            config.system.memcg = Some(pages * PAGE);
            config.system.thp = crate::mm::Thp::Always;
        });
        let huge = 2 << 20;
        w.map_fixed(huge, huge, RW);
        assert_eq!((w.write(huge, 1), usage(&w)), (Ok(0), charged));
        w.check();
        w.end();
    }
}
