//! ksmd at work: equal pages become one, and come apart when somebody writes.

use super::*;
use crate::design::{Classic, Spf};
use crate::events::Event;
use crate::mm::{Pte, VmFlags};
use crate::ops::access::Handled;
use crate::ops::madvise::Advice;
use crate::support::{BASE, PAGE, R, RW, World};

const PAGES: u64 = 4;

/// Four pages with these contents, which may be merged, in a process of two tasks.
fn mergeable<D: Design>(contents: [u64; PAGES as usize]) -> World<D> {
    let w = World::<D>::boot();
    w.k.sys_clone_vm(&w.cpu, 1);
    w.map_fixed(BASE, PAGES * PAGE, RW);
    for (address, content) in addresses().zip(contents) {
        assert_eq!(w.write(address, content), Ok(0));
    }
    w.k.sys_madvise(&w.cpu, BASE, PAGES * PAGE, Advice::Mergeable).unwrap();
    w
}

fn addresses() -> impl Iterator<Item = u64> {
    (0..PAGES).map(|page| BASE + page * PAGE)
}

fn scan<D: Design>(w: &World<D>) {
    w.k.ksm_scan(&w.cpu, BASE, PAGES * PAGE).unwrap();
}

/// A letter for each page: the same one for the same frame.
fn shared<D: Design>(w: &World<D>) -> String {
    let frames: Vec<_> = addresses().map(|address| w.pte(address).pfn()).collect();
    let letter =
        |frame| (b'a' + frames.iter().position(|other| other == frame).unwrap() as u8) as char;
    frames.iter().map(letter).collect()
}

fn end<D: Design>(w: World<D>) {
    w.check();
    w.k.exit_mm(&w.cpu.machine().cpu(1, 1));
    w.end();
}

#[test]
fn equal_pages_become_one_that_nobody_may_write_to() {
    let w = mergeable::<Spf>([5, 5, 6, 5]);
    let before = w.k.pages.live();
    scan(&w);
    assert_eq!(shared(&w), "aaca");
    assert_eq!(w.k.pages.live(), before - 2);
    assert!([0, 1, 3].iter().all(|page| !w.pte(BASE + page * PAGE).has(Pte::WRITE | Pte::DIRTY)));
    assert!(w.pte(BASE + 2 * PAGE).has(Pte::WRITE), "it was looked at, and left");
    assert_eq!(addresses().map(|at| w.read(at).unwrap()).collect::<Vec<_>>(), [5, 5, 6, 5]);
    // The next scan finds it in the stable tree.
    assert_eq!(w.write(BASE + 2 * PAGE, 5), Ok(0));
    scan(&w);
    assert_eq!(shared(&w), "aaaa");
    end(w);
}

fn a_write_separates<D: Design>(handled: Handled) {
    let w = mergeable::<D>([5, 5, 6, 7]);
    scan(&w);
    let merged = w.pte(BASE).pfn();
    let copied = w.access(BASE, crate::mm::Access::Write, 8);
    assert_eq!((copied.result, copied.handled), (Ok(0), handled));
    assert_eq!(shared(&w), "abcd");
    // Nobody else has it now.
    let reused = w.access(BASE + PAGE, crate::mm::Access::Write, 9);
    assert_eq!((reused.result, reused.handled), (Ok(0), handled));
    assert_eq!(w.pte(BASE + PAGE).pfn(), merged);
    assert_eq!((w.read(BASE), w.read(BASE + PAGE)), (Ok(8), Ok(9)));
    // It is an ordinary page again.
    assert_eq!(w.k.ksm.nr_stable(), 0);
    w.k.migrate(&w.cpu, BASE + PAGE, PAGE, 0).unwrap();
    assert_ne!(w.pte(BASE + PAGE).pfn(), merged);
    end(w);
}

#[test]
fn a_write_to_a_merged_page_copies_and_the_last_one_reuses() {
    a_write_separates::<Spf>(Handled::Spf);
    a_write_separates::<Classic>(Handled::Classic);
}

#[test]
fn only_what_is_advised_and_suits_is_merged() {
    // Its second page has no advice, its last page is not in the range; then it is, and is locked.
    let w = mergeable::<Spf>([5, 5, 5, 5]);
    w.k.sys_madvise(&w.cpu, BASE + PAGE, PAGE, Advice::Unmergeable).unwrap();
    w.k.ksm_scan(&w.cpu, BASE, 3 * PAGE).unwrap();
    assert_eq!(shared(&w), "abad");
    w.k.sys_mprotect(&w.cpu, BASE + 3 * PAGE, PAGE, R).unwrap();
    w.k.sys_mlock(&w.cpu, BASE + 3 * PAGE, PAGE, false).unwrap();
    scan(&w);
    assert_eq!(shared(&w), "abaa");
    w.check();
    w.k.sys_munlock(&w.cpu, BASE + 3 * PAGE, PAGE).unwrap();
    end(w);
}

#[test]
fn bad_arguments() {
    let w = mergeable::<Spf>([5, 5, 5, 5]);
    assert_eq!(w.k.ksm_scan(&w.cpu, BASE + 1, PAGE), Err(Errno::Einval));
    assert_eq!(w.k.ksm_scan(&w.cpu, BASE, 0), Ok(()));
    assert_eq!(w.k.ksm_scan(&w.cpu, u64::MAX - PAGE + 1, u64::MAX), Ok(()));
    assert_eq!(shared(&w), "abcd");
    assert_eq!(w.k.ksm_scan(&w.cpu, 0, u64::MAX), Ok(()));
    assert_eq!(shared(&w), "aaaa");
    end(w);
}

#[test]
fn what_a_child_shares_stays_its_own() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, PAGES * PAGE, RW);
    addresses().for_each(|address| assert_eq!(w.write(address, 5), Ok(0)));
    w.k.sys_madvise(&w.cpu, BASE, PAGES * PAGE, Advice::Mergeable).unwrap();
    w.k.sys_fork(&w.cpu, 1).unwrap();
    scan(&w);
    assert_eq!(shared(&w), "aaaa");
    // The child has the flag from its parent, and its pages join the parent's.
    let child = w.cpu.machine().cpu(1, 1);
    w.k.ksm_scan(&child, BASE, PAGES * PAGE).unwrap();
    let merged = w.k.page(&w.cpu, w.pte(BASE).pfn());
    assert_eq!(merged.mapcount().peek(), 2 * PAGES);
    assert_eq!(w.k.user_access(&child, BASE, crate::mm::Access::Write, 6, true).result, Ok(0));
    assert_eq!(w.read(BASE), Ok(5));
    end(w);
}

#[test]
fn merged_pages_stay_in_memory_and_where_they_are() {
    let w =
        World::<Spf>::boot_with(|config| config.system.swap = Some(crate::support::swap_of(64)));
    w.k.sys_clone_vm(&w.cpu, 1);
    w.map_fixed(BASE, PAGES * PAGE, RW);
    addresses().for_each(|address| assert_eq!(w.write(address, 5), Ok(0)));
    w.k.sys_madvise(&w.cpu, BASE, PAGES * PAGE, Advice::Mergeable).unwrap();
    // What is in the swap cache is not merged.
    w.k.swap_out(&w.cpu, BASE, PAGE, true).unwrap();
    assert_eq!(w.read(BASE), Ok(5));
    scan(&w);
    assert_eq!(shared(&w), "abbb");
    let before = w.pte(BASE + PAGE);
    w.k.swap_out(&w.cpu, BASE + PAGE, 3 * PAGE, false).unwrap();
    w.k.migrate(&w.cpu, BASE + PAGE, 3 * PAGE, 1).unwrap();
    w.k.numa_scan(&w.cpu, BASE + PAGE, 3 * PAGE).unwrap();
    let advise = |advice| w.k.sys_madvise(&w.cpu, BASE + PAGE, 3 * PAGE, advice).unwrap();
    advise(Advice::Free); // others have it
    assert_eq!(w.pte(BASE + PAGE), before);
    advise(Advice::Cold);
    assert_eq!(w.pte(BASE + PAGE), before.without(Pte::YOUNG));
    advise(Advice::Pageout);
    assert_eq!(w.pte(BASE + PAGE), before.without(Pte::YOUNG));
    end(w);
}

#[test]
fn no_longer_mergeable_means_separate_and_costs_memory() {
    let w = mergeable::<Spf>([5, 5, 5, 6]);
    scan(&w);
    let before = w.k.tasks[0].counters.snapshot()[Event::Pgfault as usize];
    w.k.sys_madvise(&w.cpu, BASE, PAGES * PAGE, Advice::Unmergeable).unwrap();
    assert_eq!(w.k.tasks[0].counters.snapshot()[Event::Pgfault as usize], before + 3);
    assert_eq!(shared(&w), "abcd");
    assert!(!w.vma_at(BASE).vm_flags().peek().has(VmFlags::MERGEABLE));
    assert_eq!(w.k.ksm.nr_stable(), 0);
    end(w);
}

#[test]
fn without_memory_unmerging_is_to_be_tried_again() {
    let w = World::<Spf>::boot_with(|config| config.system.memory = 64 * PAGE);
    w.map_fixed(BASE, PAGES * PAGE, RW);
    addresses().for_each(|address| assert_eq!(w.write(address, 5), Ok(0)));
    w.k.sys_madvise(&w.cpu, BASE, PAGES * PAGE, Advice::Mergeable).unwrap();
    scan(&w);
    let hoard: Vec<_> = std::iter::from_fn(|| w.k.alloc_page(&w.cpu)).collect();
    let advised = w.k.sys_madvise(&w.cpu, BASE, PAGES * PAGE, Advice::Unmergeable);
    let moved = w.k.sys_mremap(
        &w.cpu,
        crate::ops::mremap::MremapArgs {
            address: BASE,
            old_length: PAGES * PAGE,
            new_length: PAGES * PAGE,
            flags: crate::ops::mremap::RemapFlags(3),
            new_address: BASE + 16 * PAGE,
        },
    );
    hoard.into_iter().for_each(|page| w.k.put_page(&w.cpu, page));
    assert_eq!((advised, moved), (Err(Errno::Eagain), Err(Errno::Enomem)));
    assert!(w.vma_at(BASE).vm_flags().peek().has(VmFlags::MERGEABLE));
    assert_eq!(shared(&w), "aaaa");
    w.check();
    w.end();
}

#[test]
fn what_moves_is_separate_and_may_be_merged_again() {
    let w = mergeable::<Spf>([5, 5, 5, 5]);
    scan(&w);
    let to = BASE + 16 * PAGE;
    let moved = w.k.sys_mremap(
        &w.cpu,
        crate::ops::mremap::MremapArgs {
            address: BASE,
            old_length: 2 * PAGE,
            new_length: 2 * PAGE,
            flags: crate::ops::mremap::RemapFlags(3),
            new_address: to,
        },
    );
    assert_eq!(moved, Ok(to));
    assert_ne!(w.pte(to).pfn(), w.pte(to + PAGE).pfn());
    assert_eq!(w.pte(BASE + 2 * PAGE).pfn(), w.pte(BASE + 3 * PAGE).pfn());
    w.k.ksm_scan(&w.cpu, 0, u64::MAX).unwrap();
    assert_eq!(w.pte(to).pfn(), w.pte(BASE + 2 * PAGE).pfn());
    end(w);
}

#[test]
fn advice_is_passed_over_where_nothing_can_be_merged() {
    let w = World::<Spf>::boot();
    let mut shared = w.anonymous(BASE, PAGE);
    shared.flags.0 = shared.flags.0 & !crate::ops::mmap::MapFlags::PRIVATE.0
        | crate::ops::mmap::MapFlags::SHARED.0
        | crate::ops::mmap::MapFlags::FIXED.0;
    w.k.sys_mmap(&w.cpu, &shared).unwrap();
    w.k.sys_madvise(&w.cpu, BASE, PAGE, Advice::Mergeable).unwrap();
    assert!(!w.vma_at(BASE).vm_flags().peek().has(VmFlags::MERGEABLE));
    w.check();
    w.end();
}
