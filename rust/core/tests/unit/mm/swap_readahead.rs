use super::*;
use crate::design::Spf;
use crate::mm::SwapConfig;
use crate::support::{BASE, PAGE, R, RW, World, swap_of};

#[test]
fn the_window_follows_what_was_of_use() {
    // Two and a half used pages ask for a power of two; none at all only goes on in a row.
    for (hits, pages) in [(1, 4), (2, 4), (3, 8), (4, 8), (6, 8), (7, 16)] {
        assert_eq!(window(100, 7, hits, 32, 0), pages, "{hits} hits");
    }
    for (this, pages) in [(101, 2), (99, 2), (100, 1), (102, 1)] {
        assert_eq!(window(100, this, 0, 32, 0), pages, "after 100 comes {this}");
    }
    assert_eq!(window(100, 7, 30, 8, 0), 8); // vm.page-cluster
    assert_eq!(window(100, 7, 0, 8, 8), 4); // half of the last one at least
}

struct Case {
    w: World<Spf>,
}

impl Case {
    /// 24 pages, all swapped out: page n is in slot n + 1.
    fn new(change: impl FnOnce(&mut SwapConfig)) -> Self {
        let mut swap = swap_of(100);
        change(&mut swap);
        let w = World::boot_with(|config| config.system.swap = Some(swap));
        w.map_fixed(BASE, 24 * PAGE, RW);
        (0..24).for_each(|nth| assert_eq!(w.write(BASE + nth * PAGE, 100 + nth), Ok(0)));
        w.k.swap_out(&w.cpu, BASE, 24 * PAGE, false).unwrap();
        Self { w }
    }

    /// Reads page `nth`; returns which slots came into the swap cache, as page numbers.
    fn brings_in(&self, nth: u64) -> Vec<u32> {
        let before = self.cached();
        assert_eq!(self.w.read(BASE + nth * PAGE), Ok(100 + nth));
        self.cached().into_iter().filter(|page| !before.contains(page)).collect()
    }

    fn cached(&self) -> Vec<u32> {
        (0..24).filter(|page| self.w.k.is_in_swap_cache(&self.w.cpu, page + 1)).collect()
    }

    fn end(self) {
        self.w.check();
        self.w.end();
    }
}

#[test]
fn around_an_address_it_looks_both_ways_and_then_on_in_the_same_direction() {
    let case = Case::new(|_| {});
    // Eight at first: three before, four after.
    assert_eq!(case.brings_in(10), [7, 8, 9, 10, 11, 12, 13, 14]);
    // A hit each; nothing is read.
    assert_eq!(case.brings_in(11), []);
    assert_eq!(case.brings_in(14), []);
    // The next one: forwards, by as much as two hits ask for, and half of eight.
    assert_eq!(case.brings_in(15), [15, 16, 17, 18]);
    // Far away, with no hit since: half of four.
    assert_eq!(case.brings_in(1), [1, 2]);
    // The one before: backwards.
    assert_eq!(case.brings_in(0), [0]);
    case.end();
}

#[test]
fn around_an_address_it_keeps_to_the_vma_and_its_page_table() {
    let case = Case::new(|_| {});
    case.w.k.sys_mprotect(&case.w.cpu, BASE, 10 * PAGE, R).unwrap();
    assert_eq!(case.brings_in(10), [10, 11, 12, 13, 14]);
    case.end();
}

#[test]
fn around_a_slot_it_takes_the_aligned_window_whoever_it_is_for() {
    let case = Case::new(|swap| swap.vma_ra_enabled = false);
    // Page 10 is in slot 11: slots 8 to 15.
    assert_eq!(case.brings_in(10), [7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(case.brings_in(12), []);
    // One hit: four slots, 20 to 23.
    assert_eq!(case.brings_in(20), [19, 20, 21, 22]);
    // No hit: half of four.
    assert_eq!(case.brings_in(0), [0]); // slot 0 is the header
    case.end();
}

#[test]
fn page_cluster_and_the_device_bound_it() {
    let case = Case::new(|_| {});
    case.w.k.sysctl_page_cluster.poke(1);
    assert_eq!(case.brings_in(10), [10, 11]);
    case.w.k.sysctl_page_cluster.poke(0);
    assert_eq!(case.brings_in(20), [20]);
    case.end();
    for (readahead, expected) in [(1, vec![10]), (3, vec![10, 11]), (4, vec![9, 10, 11, 12])] {
        let case = Case::new(|swap| swap.readahead = readahead);
        assert_eq!(case.brings_in(10), expected, "readahead {readahead}");
        case.end();
    }
}
