//! Collapsing small pages, and what is not collapsed.

use super::*;
use crate::design::Spf;
use crate::ops::madvise::Advice;
use crate::support::{PAGE, R, RW, World};

const HUGE: u64 = 2 << 20;
const BASE: u64 = 0x4000_0000;

/// A range that wants huge pages, with small ones at `pages`, each with its number as content.
fn with_small_pages(pages: &[u64]) -> World<Spf> {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, 2 * HUGE, RW);
    for &page in pages {
        w.write(BASE + page * PAGE, page).expect("writable");
    }
    w.k.sys_madvise(&w.cpu, BASE, 2 * HUGE, Advice::Hugepage).expect("advice");
    w
}

impl World<Spf> {
    fn collapse(&self, address: u64) -> Result<(), Errno> {
        let result = self.k.collapse(&self.cpu, address);
        self.check();
        result
    }
    fn has_huge_page(&self, address: u64) -> bool {
        let pmd = self.k.walk_pmd(&self.cpu, self.mm(), Vaddr(address));
        pmd.is_some_and(|pmd| pmd.read(&self.cpu).is_huge())
    }
    fn resident(&self) -> i64 {
        self.k.sync_mm_rss(&self.cpu, self.mm());
        self.mm().anon_pages().peek()
    }
}

#[test]
fn small_pages_become_a_huge_one_with_their_content() {
    let w = with_small_pages(&[1, 2, 300, 511]);
    w.read(BASE + 4 * PAGE).expect("the page of zeroes");
    let sequence = w.vma_at(BASE).vm_sequence().peek();
    assert_eq!(w.collapse(BASE + 17 * PAGE), Ok(()));
    assert!(w.has_huge_page(BASE) && w.resident() == 512);
    for (page, value) in [(1, 1), (2, 2), (300, 300), (511, 511), (4, 0), (7, 0)] {
        assert_eq!(w.read(BASE + page * PAGE), Ok(value));
    }
    assert_eq!(w.vma_at(BASE).vm_sequence().peek(), sequence + 2);
    // Once more: nothing to do.
    assert_eq!(w.collapse(BASE), Ok(()));
    w.end();
}

#[test]
fn what_does_not_want_or_cannot_have_a_huge_page_is_refused() {
    let w = with_small_pages(&[1]);
    // Nothing mapped there, nothing touched there, no advice, not all in one VMA.
    assert_eq!(w.collapse(BASE - HUGE), Err(Errno::Einval));
    assert_eq!(w.collapse(BASE + HUGE), Err(Errno::Einval));
    w.k.sys_madvise(&w.cpu, BASE, HUGE, Advice::Nohugepage).unwrap();
    assert_eq!(w.collapse(BASE), Err(Errno::Einval));
    w.k.sys_madvise(&w.cpu, BASE, HUGE, Advice::Hugepage).unwrap();
    w.k.sys_mprotect(&w.cpu, BASE + PAGE, PAGE, R).unwrap();
    assert_eq!(w.collapse(BASE), Err(Errno::Einval));
    w.end();
}

#[test]
fn only_zeroes_and_only_read_only_pages_are_refused() {
    let w = with_small_pages(&[1]);
    w.k.sys_madvise(&w.cpu, BASE, HUGE, Advice::Dontneed).unwrap();
    w.read(BASE).unwrap();
    assert_eq!(w.collapse(BASE), Err(Errno::Einval));
    w.write(BASE, 1).unwrap();
    w.k.sys_mprotect(&w.cpu, BASE, 2 * HUGE, R).unwrap();
    w.k.sys_mprotect(&w.cpu, BASE, 2 * HUGE, RW).unwrap();
    assert_eq!(w.collapse(BASE), Err(Errno::Einval));
    w.write(BASE, 1).unwrap();
    assert_eq!(w.collapse(BASE), Ok(()));
    w.end();
}

#[test]
fn a_huge_page_that_was_split_stays_so() {
    let w = with_small_pages(&[]);
    w.write(BASE, 1).unwrap();
    assert!(w.has_huge_page(BASE));
    w.k.sys_madvise(&w.cpu, BASE + PAGE, PAGE, Advice::Dontneed).unwrap();
    assert_eq!(w.collapse(BASE), Err(Errno::Einval));
    w.end();
}

#[test]
fn pages_that_others_have_make_it_try_again_later() {
    let w = with_small_pages(&[1, 2, 3]);
    w.k.sys_fork(&w.cpu, 1).expect("fork");
    w.write(BASE + PAGE, 1).expect("a copy of its own");
    assert_eq!(w.collapse(BASE), Err(Errno::Eagain));
    let child = crate::platform::native::Machine::new(2).cpu(1, 1);
    w.k.exit_mm(&child);
    assert_eq!(w.collapse(BASE), Ok(()));
    w.end();
}

#[test]
fn a_page_that_is_locked_meanwhile_puts_everything_back() {
    // The look at the pages sees nothing wrong; when they are to be taken, one is in use.
    let w = with_small_pages(&[1, 2, 3]);
    let haddr = Vaddr(BASE);
    let pmd = w.k.walk_pmd(&w.cpu, w.mm(), haddr).expect("walked");
    let table = pmd.read(&w.cpu).table().expect("small pages");
    let third = w.k.pte_offset_map(&w.cpu, table, Vaddr(BASE + 3 * PAGE)).pte().peek();
    let page = w.k.page(&w.cpu, third.pfn());
    w.k.get_page(&w.cpu, page);
    assert_eq!(w.k.collapse_huge_page(&w.cpu, w.mm(), haddr, pmd), Err(Errno::Eagain));
    w.k.put_page(&w.cpu, page);
    w.check();
    assert_eq!((w.read(BASE + PAGE), w.resident()), (Ok(1), 3));
    assert_eq!(w.collapse(BASE), Ok(()));
    w.end();
}

#[test]
fn without_frames_in_a_row_there_is_no_memory() {
    let w = World::<Spf>::boot_with(|config| config.system.memory = HUGE);
    w.map_fixed(BASE, HUGE, RW);
    w.write(BASE, 1).unwrap();
    w.k.sys_madvise(&w.cpu, BASE, HUGE, Advice::Hugepage).unwrap();
    assert_eq!(w.collapse(BASE), Err(Errno::Enomem));
    w.end();
}
