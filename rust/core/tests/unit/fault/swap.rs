use super::*;
use crate::design::Spf;
use crate::events::EVENT_NAMES;
use crate::mm::{Access, Choice, Config, Rss, SwapConfig};
use crate::ops::access::{AccessFailure, Handled};
use crate::support::{BASE, PAGE, RW, World, swap_of};

/// A process that counts as having two threads, so that it speculates.
fn process(change: impl FnOnce(&mut Config)) -> World<Spf> {
    let w = World::boot_with(|config| {
        config.system.swap = Some(swap_of(100));
        change(config);
    });
    w.mm().mm_users().poke(2);
    w
}

fn normal() -> World<Spf> {
    process(|_| {})
}
fn synchronous() -> World<Spf> {
    process(|config| config.system.swap = Some(SwapConfig { synchronous: true, ..swap_of(100) }))
}

/// Pages 0 to 7, written and swapped out.
fn swapped_out(w: &World<Spf>, keep_cache: bool) {
    w.map_fixed(BASE, 8 * PAGE, RW);
    (0..8).for_each(|nth| assert_eq!(w.write(BASE + nth * PAGE, 100 + nth), Ok(0)));
    w.k.swap_out(&w.cpu, BASE, 8 * PAGE, keep_cache).unwrap();
}

fn end(w: World<Spf>) {
    w.check();
    w.mm().mm_users().poke(1);
    w.end();
}

/// Who handled an access, and what it added to the counters.
fn counted(w: &World<Spf>, address: u64, access: Access) -> (Handled, Vec<(&'static str, u64)>) {
    let counters = &w.k.current(&w.cpu).counters;
    let before = counters.snapshot();
    let outcome = w.access(address, access, 9);
    assert!(outcome.result.is_ok());
    let added = counters.snapshot().into_iter().zip(before).map(|(after, before)| after - before);
    let named = EVENT_NAMES.into_iter().zip(added).filter(|(_, added)| *added != 0);
    (outcome.handled, named.collect())
}

#[test]
fn a_page_that_must_be_read_is_left_to_the_classic_handler() {
    let w = normal();
    swapped_out(&w, false);
    // It begins the read, drops mmap_sem, waits, and comes back: two rounds, one major fault.
    let major = vec![("faults", 1), ("major-faults", 1), ("pgfault", 2), ("pgmajfault", 1)];
    assert_eq!(counted(&w, BASE + 4 * PAGE, Access::Read), (Handled::Classic, major));
    // Its neighbours came with it.
    let minor = vec![("faults", 1), ("minor-faults", 1), ("spf", 1), ("speculative_pgfault", 1)];
    assert_eq!(counted(&w, BASE + 5 * PAGE, Access::Read), (Handled::Spf, minor));
    end(w);
}

#[test]
fn a_read_of_one_page_alone_is_waited_for_with_mmap_sem_held() {
    let w = normal();
    swapped_out(&w, false);
    w.k.sysctl_page_cluster.poke(0);
    let major = vec![("faults", 1), ("major-faults", 1), ("pgfault", 1), ("pgmajfault", 1)];
    assert_eq!(counted(&w, BASE, Access::Write), (Handled::Classic, major));
    end(w);
}

#[test]
fn a_page_in_the_swap_cache_is_speculative_and_writable_at_once() {
    let w = normal();
    swapped_out(&w, true);
    let minor = vec![("faults", 1), ("minor-faults", 1), ("spf", 1), ("speculative_pgfault", 1)];
    assert_eq!(counted(&w, BASE, Access::Write), (Handled::Spf, minor.clone()));
    assert!(w.pte(BASE).has(Pte::WRITE));
    assert_eq!(w.k.swap_count(&w.cpu, 1), 0);
    // Read first, the write is another fault, and takes the page out of the swap cache.
    assert_eq!(counted(&w, BASE + PAGE, Access::Read), (Handled::Spf, minor.clone()));
    let page = w.k.page(&w.cpu, w.pte(BASE + PAGE).pfn());
    assert!(w.k.page_test(&w.cpu, page, PG_SWAPCACHE));
    assert_eq!(counted(&w, BASE + PAGE, Access::Write), (Handled::Spf, minor));
    assert!(!w.k.page_test(&w.cpu, page, PG_SWAPCACHE));
    end(w);
}

#[test]
fn a_synchronous_device_is_read_speculatively_and_counts_as_minor() {
    let w = synchronous();
    swapped_out(&w, false);
    let minor = vec![
        ("faults", 1),
        ("minor-faults", 1),
        ("spf", 1),
        ("speculative_pgfault", 1),
        ("pgmajfault", 1),
    ];
    assert_eq!(counted(&w, BASE, Access::Read), (Handled::Spf, minor.clone()));
    assert_eq!(counted(&w, BASE + PAGE, Access::Write), (Handled::Spf, minor));
    assert_eq!([w.read(BASE), w.read(BASE + PAGE)], [Ok(100), Ok(9)]);
    end(w);
}

#[test]
fn a_slot_that_two_name_goes_through_the_cache() {
    let w = synchronous();
    swapped_out(&w, false);
    // As if another process had it, too.
    w.k.swap_duplicate(&w.cpu, 1);
    let major = vec![("faults", 1), ("major-faults", 1), ("pgfault", 1), ("pgmajfault", 1)];
    assert_eq!(counted(&w, BASE, Access::Read), (Handled::Classic, major));
    w.k.swap_free(&w.cpu, 1);
    end(w);
}

#[test]
fn without_a_frame_the_fault_fails_and_the_page_stays_out() {
    let w = process(|config| config.system.memory = 64 * PAGE);
    swapped_out(&w, false);
    let mut taken = Vec::new();
    while let Some(page) = w.k.alloc_page(&w.cpu) {
        taken.push(page);
    }
    let killed = Err(AccessFailure::Signal(crate::mm::Signal::OOM_KILL));
    assert_eq!(w.read(BASE), killed);
    assert_eq!(w.pte(BASE).swap_slot(), Some(1));
    taken.into_iter().for_each(|page| w.k.put_page(&w.cpu, page));
    assert_eq!(w.read(BASE), Ok(100));
    end(w);
}

#[test]
fn resident_and_swapped_pages_are_counted() {
    let w = normal();
    swapped_out(&w, false);
    let rss = |which: Rss| {
        w.k.sync_mm_rss(&w.cpu, w.mm());
        match which {
            Rss::Anon => w.mm().anon_pages().peek(),
            _ => w.mm().swap_entries().peek(),
        }
    };
    assert_eq!((rss(Rss::Anon), rss(Rss::Swap)), (0, 8));
    assert_eq!(w.read(BASE), Ok(100));
    assert_eq!((rss(Rss::Anon), rss(Rss::Swap)), (1, 7));
    end(w);
}

#[test]
fn with_the_slot_marked_two_swap_ins_past_the_cache_come_to_the_same() {
    for choice in [Choice::V12, Choice::Fixed] {
        let w = process(|config| {
            config.system.swap = Some(SwapConfig { synchronous: true, ..swap_of(100) });
            config.variants.set(Variant::L2, choice);
        });
        swapped_out(&w, false);
        assert_eq!(w.read(BASE), Ok(100));
        assert_eq!(w.write(BASE + PAGE, 7), Ok(0));
        end(w);
    }
}
