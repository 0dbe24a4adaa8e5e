//! How often the lock is taken, counted by hand from the text of `mm/swap.c` of 5.1.

use super::*;
use crate::design::Spf;
use crate::ops::process::Processes;
use crate::ops::turns::Cpu;
use crate::support::{BASE, PAGE, swap_of};

/// How often the locks of both nodes were taken since this was last asked.
fn sections(p: &Processes<Spf>) -> u64 {
    let nodes = p.k.pgdats.peek_all();
    nodes.map(|pgdat| p.cpu(0).taken(pgdat.lru_lock().word())).sum()
}

/// Pages on the lists, by the lists and by the pages.
fn on_lists(p: &Processes<Spf>) -> u64 {
    let listed = p.k.pgdats.peek_all().map(|pgdat| pgdat.lru_zone_size().peek()).sum();
    let flagged = p.k.pages.peek_all().filter(|page| page.flags().peek() & PG_LRU != 0);
    let counted: i64 = flagged.map(|page| p.k.hpage_nr_pages(page)).sum();
    assert_eq!(listed, counted as u64);
    listed
}

fn touch(p: &Processes<Spf>, pages: std::ops::Range<u64>) {
    pages.for_each(|page| p.write(0, BASE + page * PAGE, 1));
}

fn page_on<'p>(p: &'p Processes<Spf>, node: u32) -> PageRef<'p, Cpu> {
    let page = p.k.alloc_page_at(p.cpu(0), p.k.on_node(node)).unwrap();
    p.k.lru_cache_add(p.cpu(0), page);
    page
}

#[test]
fn fifteen_pages_come_to_their_list_in_one_section() {
    let p = Processes::new();
    p.map(0, BASE, 64);
    touch(&p, 0..14);
    assert_eq!((sections(&p), on_lists(&p)), (0, 0));
    touch(&p, 14..15);
    assert_eq!((sections(&p), on_lists(&p)), (1, 15));
    touch(&p, 15..44);
    assert_eq!((sections(&p), on_lists(&p)), (1, 30));
    // exit_mmap drains 14, and frees 44 of which all are on the list: 8, then 32 + 4.
    p.exit(0);
    assert_eq!((sections(&p), on_lists(&p)), (1 + 1 + 2, 0));
    p.check_nothing_left();
}

#[test]
fn a_record_of_128_pages_takes_the_lock_14_times() {
    // Goal: what a chunk of ebizzy does. 128 = 8 * 15 + 8 come in 8 pagevecs, and with
    // lru_add_drain(). They go in two batches, of MMU_GATHER_BUNDLE (8), and of 120: in sections of
    // SWAP_CLUSTER_MAX (32), so 32 + 32 + 32 + 24.
    let p = Processes::new();
    p.map(0, BASE, 128);
    touch(&p, 0..128);
    assert_eq!((sections(&p), on_lists(&p)), (8, 120));
    assert_eq!(p.k.sys_munmap(p.cpu(0), BASE, 128 * PAGE), Ok(()));
    assert_eq!((sections(&p), on_lists(&p)), (1 + 1 + 4, 0));
    p.check();
}

#[test]
fn another_node_is_another_section() {
    let p = Processes::new();
    let by_turns: Vec<_> = (0..15).map(|nth| page_on(&p, nth % 2)).collect();
    assert_eq!((sections(&p), on_lists(&p)), (15, 15));
    let in_a_row: Vec<_> = (0..15).map(|nth| page_on(&p, u32::from(nth >= 8))).collect();
    assert_eq!((sections(&p), on_lists(&p)), (2, 30));
    let all = |pages: &[PageRef<'_, Cpu>]| -> Vec<_> { pages.iter().map(|p| p.ptr()).collect() };
    p.k.release_pages(p.cpu(0), &all(&in_a_row));
    assert_eq!((sections(&p), on_lists(&p)), (2, 15));
    p.k.release_pages(p.cpu(0), &all(&by_turns));
    assert_eq!((sections(&p), on_lists(&p)), (15, 0));
    p.check();
}

#[test]
fn who_has_another_reference_stays_on_the_list() {
    let p = Processes::new();
    let pages: Vec<_> = (0..15).map(|_| page_on(&p, 0)).collect();
    p.k.get_page(p.cpu(0), pages[7]);
    sections(&p);
    let all: Vec<_> = pages.iter().map(|page| page.ptr()).collect();
    p.k.release_pages(p.cpu(0), &all);
    assert_eq!((sections(&p), on_lists(&p)), (1, 1));
    // __page_cache_release
    p.k.put_page(p.cpu(0), pages[7]);
    assert_eq!((sections(&p), on_lists(&p)), (1, 0));
    p.check();
}

#[test]
fn a_page_that_is_freed_first_comes_to_no_list() {
    let p = Processes::new();
    let gone = page_on(&p, 0);
    p.k.put_page(p.cpu(0), gone);
    p.k.lru_add_drain(p.cpu(0));
    assert_eq!((sections(&p), on_lists(&p)), (0, 0));
    // Its frame is somebody else's now.
    let gone = page_on(&p, 0);
    p.k.put_page(p.cpu(0), gone);
    let other = page_on(&p, 0);
    assert_eq!(other.slot_index(), gone.slot_index());
    p.k.lru_add_drain(p.cpu(0));
    assert_eq!((sections(&p), on_lists(&p)), (1, 1));
    p.k.put_page(p.cpu(0), other);
    p.check();
}

#[test]
fn what_another_cpu_collects_it_keeps() {
    let p = Processes::new();
    p.k.sys_clone_vm(p.cpu(0), 1);
    p.map(0, BASE, 2);
    p.write(1, BASE, 1);
    p.write(0, BASE + PAGE, 1);
    // CPU 0 drains its own page, which then goes; that of CPU 1 goes as it is.
    assert_eq!(p.k.sys_munmap(p.cpu(0), BASE, 2 * PAGE), Ok(()));
    assert_eq!((sections(&p), on_lists(&p)), (1 + 1, 0));
    p.exit(1);
    p.check();
}

#[test]
fn a_huge_page_does_not_wait_for_others() {
    let p = Processes::<Spf>::with_huge_pages();
    let huge = 2 << 20;
    p.map(0, huge, 1024);
    p.map(0, BASE, 1);
    touch(&p, 0..1);
    p.write(0, huge, 1);
    assert_eq!((sections(&p), on_lists(&p)), (1, 513));
    p.write(0, 2 * huge, 1);
    assert_eq!((sections(&p), on_lists(&p)), (1, 1025));
    // __put_compound_page: each in a section of its own.
    assert_eq!(p.k.sys_munmap(p.cpu(0), huge, 1024 * PAGE), Ok(()));
    assert_eq!((sections(&p), on_lists(&p)), (2, 1));
    p.check();
}

#[test]
fn pages_that_are_read_from_swap_come_to_the_list_again() {
    let p = Processes::<Spf>::swapping(swap_of(64));
    p.map(0, BASE, 15);
    touch(&p, 0..15);
    assert_eq!(on_lists(&p), 15);
    p.k.swap_out(p.cpu(0), BASE, 15 * PAGE, false).unwrap();
    assert_eq!(on_lists(&p), 0);
    (0..15).for_each(|page| assert_eq!(p.read(0, BASE + page * PAGE), 1));
    p.k.lru_add_drain(p.cpu(0));
    assert_eq!(on_lists(&p), 15);
    p.check();
}
