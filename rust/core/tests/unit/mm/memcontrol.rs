use crate::design::Spf;
use crate::mm::{Errno, Signal};
use crate::ops::access::AccessFailure;
use crate::ops::madvise::Advice;
use crate::ops::process::Processes;
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

/// How often the counter was taken since this was last asked, and what is charged.
fn counter(p: &Processes<Spf>) -> (u64, u64) {
    (p.cpu(0).taken(&p.k.memcg.usage), p.k.memcg.usage.peek())
}

#[test]
fn where_time_counts_a_cpu_takes_the_counter_for_32_pages() {
    // Goal: MEMCG_CHARGE_BATCH of 5.1 is 32. The first page takes the counter, and leaves 31 in
    // stock.
    let p = Processes::<Spf>::new();
    p.map(0, BASE, 128);
    let touch = |page: u64| p.write(0, BASE + page * PAGE, 1);
    (0..32).for_each(touch);
    assert_eq!(counter(&p), (1, 32));
    touch(32);
    assert_eq!(counter(&p), (1, 33));
    (33..128).for_each(touch);
    assert_eq!(counter(&p), (2, 128));
    // uncharge_list: once for each batch of the gather, of 8 and of 120 pages. The stock stays.
    assert_eq!(p.k.sys_munmap(p.cpu(0), BASE, 128 * PAGE), Ok(()));
    assert_eq!(counter(&p), (2, 0));
    p.check();
}

#[test]
fn where_time_counts_a_huge_page_leaves_the_stock_alone() {
    let p = Processes::<Spf>::with_huge_pages();
    let huge = 2 << 20;
    p.map(0, BASE, 32);
    p.map(0, huge, 512);
    p.write(0, BASE, 1);
    p.write(0, huge, 1);
    assert_eq!(counter(&p), (2, 513));
    (1..32).for_each(|page| p.write(0, BASE + page * PAGE, 1));
    assert_eq!(counter(&p), (0, 544));
    p.exit(0);
    // The huge page, and 8 and 24 small ones; or it is in one of their batches, but alone.
    assert_eq!(counter(&p), (3, 0));
    p.check_nothing_left();
}

#[test]
fn where_time_counts_the_limit_is_the_same() {
    let p = Processes::<Spf>::with_memcg(3 * PAGE);
    p.map(0, BASE, 8);
    (0..3).for_each(|page| p.write(0, BASE + page * PAGE, 1));
    assert_eq!(p.try_write(0, BASE + 3 * PAGE, 1), OOM);
    assert_eq!(counter(&p), (2, 3));
    assert_eq!(p.k.sys_munmap(p.cpu(0), BASE, PAGE), Ok(()));
    p.write(0, BASE + 3 * PAGE, 1);
    assert_eq!((counter(&p).1, p.try_write(0, BASE + 4 * PAGE, 1)), (3, OOM));
    p.check();
}
