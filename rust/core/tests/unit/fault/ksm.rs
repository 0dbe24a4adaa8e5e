//! Faults that make merged pages separate.

use super::*;
use crate::design::Spf;
use crate::mm::Pte;
use crate::ops::madvise::Advice;
use crate::support::{BASE, PAGE, R, RW, World};

#[test]
fn memory_that_is_read_only_gets_its_own_page_too() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, 2 * PAGE, RW);
    for address in [BASE, BASE + PAGE] {
        assert_eq!(w.write(address, 5), Ok(0));
    }
    w.k.sys_madvise(&w.cpu, BASE, 2 * PAGE, Advice::Mergeable).unwrap();
    w.k.sys_mprotect(&w.cpu, BASE, 2 * PAGE, R).unwrap();
    w.k.ksm_scan(&w.cpu, BASE, 2 * PAGE).unwrap();
    assert_eq!(w.pte(BASE).pfn(), w.pte(BASE + PAGE).pfn());
    let (vma, at) = (w.vma_at(BASE), Vaddr(BASE));
    w.k.break_ksm(&w.cpu, w.mm(), vma, at).unwrap();
    assert_ne!(w.pte(BASE).pfn(), w.pte(BASE + PAGE).pfn());
    assert!(!w.pte(BASE).has(Pte::WRITE));
    // It is the last one, yet whoever asks gets a new one.
    let left = w.pte(BASE + PAGE).pfn();
    w.k.break_ksm(&w.cpu, w.mm(), vma, Vaddr(BASE + PAGE)).unwrap();
    assert_ne!(w.pte(BASE + PAGE).pfn(), left);
    let after = w.pte(BASE + PAGE);
    w.k.break_ksm(&w.cpu, w.mm(), vma, Vaddr(BASE + PAGE)).unwrap();
    assert_eq!(w.pte(BASE + PAGE), after, "nothing to do");
    w.check();
    w.end();
}
