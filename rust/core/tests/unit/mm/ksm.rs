//! The stable tree, and what keeps a page from being merged.

use super::*;
use crate::design::Spf;
use crate::ops::madvise::Advice;
use crate::support::{BASE, PAGE, RW, World};

/// Two equal pages that may be merged.
fn world() -> World<Spf> {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, 2 * PAGE, RW);
    for address in [BASE, BASE + PAGE] {
        assert_eq!(w.write(address, 5), Ok(0));
    }
    w.k.sys_madvise(&w.cpu, BASE, 2 * PAGE, Advice::Mergeable).unwrap();
    w
}

#[test]
fn a_page_that_somebody_holds_keeps_its_pte() {
    let w = world();
    let before = w.pte(BASE);
    let page = w.k.page(&w.cpu, before.pfn());
    w.k.get_page(&w.cpu, page);
    w.k.get_page(&w.cpu, page); // the scan's own
    assert!(!w.k.try_to_merge_one_page(&w.cpu, w.vma_at(BASE), Vaddr(BASE), page, None));
    assert_eq!(w.pte(BASE), before);
    w.k.put_page(&w.cpu, page);
    assert!(w.k.try_to_merge_one_page(&w.cpu, w.vma_at(BASE), Vaddr(BASE), page, None));
    w.k.put_page(&w.cpu, page);
    assert_eq!(w.pte(BASE), before.without(Pte::WRITE | Pte::DIRTY));
    w.check();
    w.end();
}

#[test]
fn a_page_that_is_locked_or_elsewhere_or_changed_is_not_merged() {
    let w = world();
    let (vma, [one, other]) = (w.vma_at(BASE), [BASE, BASE + PAGE]);
    let page = |at| w.k.page(&w.cpu, w.pte(at).pfn());
    let (page, kpage) = (page(one), page(other));
    [page, kpage].iter().for_each(|&page| w.k.get_page(&w.cpu, page));
    let merge = |at, page, kpage| w.k.try_to_merge_one_page(&w.cpu, vma, Vaddr(at), page, kpage);
    assert!(w.k.trylock_page(&w.cpu, page));
    assert!(!merge(one, page, None), "locked");
    w.k.unlock_page(&w.cpu, page);
    assert!(!merge(other, page, None), "not mapped there");
    assert!(merge(other, kpage, None));
    assert!(!merge(other, kpage, None), "it is one already");
    w.k.put_page(&w.cpu, page);
    assert_eq!(w.write(one, 6), Ok(0));
    w.k.get_page(&w.cpu, page);
    assert!(!merge(one, page, Some(kpage)), "not the same any more");
    [page, kpage].iter().for_each(|&page| w.k.put_page(&w.cpu, page));
    assert_eq!((w.read(one), w.read(other)), (Ok(6), Ok(5)));
    w.check();
    w.end();
}

#[test]
fn the_stable_tree_forgets_what_goes() {
    let w = world();
    assert!(w.k.stable_tree_search(&w.cpu, 5).is_none());
    w.k.ksm_scan(&w.cpu, BASE, 2 * PAGE).unwrap();
    let found = w.k.stable_tree_search(&w.cpu, 5).expect("merged");
    assert_eq!(found.slot_index(), w.pte(BASE).pfn());
    w.k.put_page(&w.cpu, found);
    w.k.sys_munmap(&w.cpu, BASE, 2 * PAGE).unwrap();
    assert!(w.k.stable_tree_search(&w.cpu, 5).is_none());
    assert_eq!(w.k.ksm.nr_stable(), 0);
    w.end();
}
