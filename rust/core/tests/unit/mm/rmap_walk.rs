use super::*;
use crate::design::Spf;
use crate::mm::PG_MLOCKED;
use crate::ops::process::Processes;
use crate::support::swap_of;

const A: u64 = 0x1000_0000;

/// The page that `task` has at `A`, with a reference; and its anon_vma, with one too.
fn held<'s>(
    s: &'s Processes<Spf>,
    task: u32,
) -> (PageRef<'s, crate::ops::turns::Cpu>, AnonVmaRef<'s, crate::ops::turns::Cpu>) {
    let cpu = s.cpu(task);
    let pmd = s.k.walk_pmd(cpu, s.mm(task), Vaddr(A)).unwrap();
    let slot = s.k.pte_offset_map_lock(cpu, pmd.read(cpu).table().unwrap(), Vaddr(A));
    let page = s.k.page(cpu, slot.pte().peek().pfn());
    s.k.get_page(cpu, page);
    let anon_vma = s.k.page_get_anon_vma(cpu, page).expect("an anon_vma");
    spin_unlock(cpu, slot.ptl());
    (page, anon_vma)
}

/// Three generations that share one page, each with VMAs of its own.
fn family() -> Processes<Spf> {
    let s = Processes::<Spf>::swapping(swap_of(10));
    s.map(0, A, 2);
    s.write(0, A, 7);
    s.fork(0, 1);
    s.fork(1, 2);
    s
}

#[test]
fn a_page_is_unmapped_from_every_address_space_that_has_it() {
    let s = family();
    let cpu = s.cpu(1);
    let (page, anon_vma) = held(&s, 1);
    s.k.lock_page(cpu, page);
    assert!(s.k.add_to_swap(cpu, page));
    assert_eq!(page.mapcount().peek(), 3);
    assert!(s.k.try_to_unmap(cpu, page, anon_vma, Unmap::Reclaim { only_unused: false }));
    assert_eq!((page.mapcount().peek(), s.k.swap_count(cpu, 1)), (0, 3));
    for task in 0..3 {
        s.k.sync_mm_rss(s.cpu(task), s.mm(task));
        let mm = s.mm(task);
        assert_eq!((mm.anon_pages().peek(), mm.swap_entries().peek()), (0, 1), "task {task}");
    }
    s.k.unlock_page(cpu, page);
    s.k.put_page(cpu, page);
    s.k.put_anon_vma(cpu, anon_vma);
    s.check();
    assert_eq!([s.read(2, A), s.read(0, A), s.read(1, A)], [7, 7, 7]);
    (0..3).for_each(|task| s.exit(task));
    s.check_nothing_left();
}

#[test]
fn a_locked_mapping_keeps_its_page_for_all() {
    let s = family();
    let cpu = s.cpu(0);
    // Locked on fault: it could be written to only after a copy, so the page does not say so yet.
    s.k.sys_mlock(s.cpu(1), A, 4096, true).unwrap();
    let (page, anon_vma) = held(&s, 1);
    assert!(!s.k.page_test(cpu, page, PG_MLOCKED));
    for _ in 0..2 {
        s.k.swap_out(cpu, A, 4096, false).unwrap();
        assert_eq!(page.mapcount().peek(), 3);
        assert!(s.k.page_test(cpu, page, PG_MLOCKED), "now it does");
    }
    s.k.sys_munlock(s.cpu(1), A, 4096).unwrap();
    assert!(!s.k.page_test(cpu, page, PG_MLOCKED));
    s.k.put_page(cpu, page);
    s.k.put_anon_vma(cpu, anon_vma);
    s.k.swap_out(cpu, A, 4096, false).unwrap();
    assert_eq!(s.k.swap_count(cpu, 1), 3, "the first slot: none was given before");
    s.check();
    assert_eq!([s.read(0, A), s.read(1, A), s.read(2, A)], [7, 7, 7]);
    (0..3).for_each(|task| s.exit(task));
    s.check_nothing_left();
}

#[test]
fn an_anon_vma_that_reclaim_holds_outlives_its_vmas() {
    let s = family();
    let cpu = s.cpu(0);
    let (page, anon_vma) = held(&s, 2);
    (0..3).for_each(|task| s.exit(task));
    s.k.lock_page(cpu, page);
    assert!(s.k.try_to_unmap(cpu, page, anon_vma, Unmap::Reclaim { only_unused: false }));
    s.k.unlock_page(cpu, page);
    s.k.put_page(cpu, page);
    assert_eq!(s.k.check_nothing_left().len(), 1);
    s.k.put_anon_vma(cpu, anon_vma);
    s.check_nothing_left();
}
