//! Faults on transparent huge pages, and what the writers do with those.

use super::*;
use crate::arch::Arch;
use crate::design::Spf;
use crate::events::Event;
use crate::mm::{PG_MLOCKED, Thp, Vaddr, VmFlags};
use crate::ops::madvise::Advice;
use crate::platform::native::Cpu;
use crate::support::{R, RW, World};

/// The huge page of x86, and where the pictures begin: at the start of one.
const HUGE: u64 = 2 << 20;
const BASE: u64 = 0x4000_0000;
const PAGE: u64 = 4096;

/// A system with `memory` bytes and a mapping of `huge` huge pages where they are wanted.
fn mapped(memory: u64, huge: u64) -> World<Spf> {
    let w = World::boot_with(|config| config.system.memory = memory);
    w.map_fixed(BASE, huge * HUGE, RW);
    w.k.sys_madvise(&w.cpu, BASE, huge * HUGE, Advice::Hugepage).expect("advice");
    w
}

impl World<Spf> {
    fn pmd(&self, address: u64) -> PmdVal<Cpu> {
        let pmd = self.k.walk_pmd(&self.cpu, self.mm(), Vaddr(address));
        pmd.map_or(PmdVal::NONE, |pmd| pmd.read(&self.cpu))
    }
    fn is_huge(&self, address: u64) -> bool {
        self.pmd(address).is_huge()
    }
    fn leaf(&self, address: u64) -> Pte {
        self.k.leaf_of(self.pmd(address))
    }
    fn anon_pages(&self) -> i64 {
        self.k.sync_mm_rss(&self.cpu, self.mm());
        self.mm().anon_pages().peek()
    }
    fn faults(&self) -> u64 {
        self.k.tasks[0].counters.snapshot()[Event::Faults as usize]
    }
    fn dontneed(&self, address: u64, length: u64) {
        self.k.sys_madvise(&self.cpu, address, length, Advice::Dontneed).expect("dontneed");
    }
}

const MEMORY: u64 = 1 << 30;

#[test]
fn the_first_write_maps_a_huge_page() {
    let w = mapped(MEMORY, 2);
    assert_eq!(w.write(BASE + 5 * PAGE, 7), Ok(0));
    assert!(w.is_huge(BASE) && !w.is_huge(BASE + HUGE));
    assert_eq!(w.read(BASE + 5 * PAGE), Ok(7));
    assert_eq!(w.read(BASE + 6 * PAGE), Ok(0));
    assert_eq!(w.write(BASE + 511 * PAGE, 8), Ok(0));
    assert_eq!((w.faults(), w.anon_pages()), (1, 512));
    w.check();
    w.end();
}

#[test]
fn the_first_read_maps_the_huge_page_of_zeroes_and_a_write_replaces_it() {
    let w = mapped(MEMORY, 1);
    assert_eq!(w.read(BASE), Ok(0));
    assert!(w.leaf(BASE).has(Pte::SPECIAL) && w.anon_pages() == 0);
    // Unlike for a small page.
    assert!(!w.vma_at(BASE).anon_vma().peek().is_null());
    assert_eq!(w.write(BASE + PAGE, 3), Ok(0));
    assert!(!w.leaf(BASE).has(Pte::SPECIAL) && w.anon_pages() == 512);
    assert_eq!((w.read(BASE), w.read(BASE + PAGE), w.faults()), (Ok(0), Ok(3), 2));
    w.check();
    w.end();
}

#[test]
fn a_huge_page_is_only_where_it_fits_and_is_wanted() {
    // Not where the VMA does not reach, nor without the advice, nor against it.
    let w = World::<Spf>::boot();
    w.map_fixed(BASE + PAGE, 2 * HUGE, RW);
    w.k.sys_madvise(&w.cpu, BASE + PAGE, 2 * HUGE, Advice::Hugepage).unwrap();
    w.map_fixed(BASE + 4 * HUGE, HUGE, RW);
    for address in [BASE + PAGE, BASE + HUGE, BASE + 2 * HUGE, BASE + 4 * HUGE] {
        w.write(address, 1).unwrap();
    }
    let huge = [0, 1, 2, 4].map(|nth| w.is_huge(BASE + nth * HUGE));
    assert_eq!(huge, [false, true, false, false]);
    w.check();
    w.end();
}

#[test]
fn the_setting_decides_without_advice() {
    for (thp, advice, huge) in [
        (Thp::Never, Advice::Hugepage, false),
        (Thp::Madvise, Advice::Normal, false),
        (Thp::Always, Advice::Normal, true),
        (Thp::Always, Advice::Nohugepage, false),
    ] {
        let w = World::<Spf>::boot_with(|config| config.system.thp = thp);
        w.map_fixed(BASE, HUGE, RW);
        w.k.sys_madvise(&w.cpu, BASE, HUGE, advice).unwrap();
        w.write(BASE, 1).unwrap();
        assert_eq!(w.is_huge(BASE), huge, "{thp:?} {advice:?}");
        w.end();
    }
}

#[test]
fn what_drops_a_part_splits_and_what_drops_all_does_not() {
    let w = mapped(MEMORY, 2);
    w.write(BASE + PAGE, 1).unwrap();
    w.write(BASE + HUGE + PAGE, 2).unwrap();
    w.dontneed(BASE, PAGE);
    w.dontneed(BASE + HUGE, HUGE);
    assert!(!w.is_huge(BASE) && w.pmd(BASE + HUGE).is_none());
    assert_eq!(w.anon_pages(), 511);
    assert_eq!((w.read(BASE + PAGE), w.read(BASE + HUGE + PAGE)), (Ok(1), Ok(0)));
    w.check();
    w.end();
}

#[test]
fn a_boundary_within_a_huge_page_splits_it() {
    // [.......|...r...]  mprotect of the second half
    let w = mapped(MEMORY, 1);
    w.write(BASE, 1).unwrap();
    w.write(BASE + HUGE - PAGE, 2).unwrap();
    w.k.sys_mprotect(&w.cpu, BASE + HUGE / 2, HUGE / 2, R).unwrap();
    assert!(!w.is_huge(BASE));
    assert_eq!(w.write(BASE, 3), Ok(0));
    assert!(w.write(BASE + HUGE - PAGE, 4).is_err());
    assert_eq!(w.read(BASE + HUGE - PAGE), Ok(2));
    assert_eq!(w.faults(), 2);
    w.check();
    w.k.sys_munmap(&w.cpu, BASE + PAGE, HUGE).unwrap();
    assert_eq!(w.read(BASE), Ok(3));
    w.check();
    w.end();
}

#[test]
fn mprotect_of_all_of_it_keeps_it_huge() {
    let w = mapped(MEMORY, 1);
    w.write(BASE, 1).unwrap();
    w.k.sys_mprotect(&w.cpu, BASE, HUGE, R).unwrap();
    assert!(w.is_huge(BASE) && !w.leaf(BASE).has(Pte::WRITE));
    w.k.sys_mprotect(&w.cpu, BASE, HUGE, VmFlags::NONE).unwrap();
    assert!(w.is_huge(BASE) && w.read(BASE).is_err());
    w.k.sys_mprotect(&w.cpu, BASE, HUGE, RW).unwrap();
    // Made writable where it is, for nobody else maps it.
    let before = w.leaf(BASE).pfn();
    assert_eq!((w.write(BASE, 2), w.leaf(BASE).pfn()), (Ok(0), before));
    w.check();
    w.end();
}

#[test]
fn a_split_of_the_huge_zero_page_leaves_zero_pages() {
    let w = mapped(MEMORY, 1);
    w.read(BASE).unwrap();
    w.dontneed(BASE, PAGE);
    assert!(!w.is_huge(BASE));
    assert_eq!((w.read(BASE + PAGE), w.write(BASE + PAGE, 1)), (Ok(0), Ok(0)));
    assert_eq!((w.faults(), w.anon_pages()), (2, 1));
    w.check();
    w.end();
}

#[test]
fn without_room_for_a_huge_page_small_ones_do() {
    // 2 MiB have no aligned 2 MiB to spare beside the zero page.
    let w = mapped(HUGE, 1);
    w.write(BASE, 1).unwrap();
    assert!(!w.is_huge(BASE) && w.anon_pages() == 1);
    w.dontneed(BASE, HUGE);
    w.read(BASE).unwrap();
    w.check();
    w.end();
}

#[test]
fn frames_come_together_again() {
    // All of memory in small pages, all given back: then a huge page can be had.
    let w = World::<Spf>::boot_with(|config| config.system.memory = 4 * HUGE);
    w.map_fixed(BASE, 2 * HUGE, RW);
    let touched = (0..1024).take_while(|page| w.write(BASE + page * PAGE, 1).is_ok()).count();
    assert!(touched > 900);
    w.k.sys_munmap(&w.cpu, BASE, 2 * HUGE).unwrap();
    w.settle();
    w.map_fixed(BASE, HUGE, RW);
    w.k.sys_madvise(&w.cpu, BASE, HUGE, Advice::Hugepage).unwrap();
    w.write(BASE, 1).unwrap();
    assert!(w.is_huge(BASE));
    w.check();
    w.end();
}

/// Task 0 has a huge page, and forked task 1.
fn forked(memory: u64) -> World<Spf> {
    let w = mapped(memory, 1);
    for page in 0..512 {
        w.write(BASE + page * PAGE, page).unwrap();
    }
    w.k.sys_fork(&w.cpu, 1).expect("fork");
    w
}

fn end_child(w: &World<Spf>) {
    let machine = crate::platform::native::Machine::new(2);
    let cpu = machine.cpu(1, 1);
    w.k.exit_mm(&cpu);
}

#[test]
fn after_fork_a_write_copies_the_huge_page() {
    let w = forked(MEMORY);
    let shared = w.leaf(BASE).pfn();
    assert!(!w.leaf(BASE).has(Pte::WRITE));
    assert_eq!(w.write(BASE + PAGE, 77), Ok(0));
    assert!(w.is_huge(BASE) && w.leaf(BASE).pfn() != shared);
    assert_eq!((w.read(BASE + PAGE), w.read(BASE + 2 * PAGE)), (Ok(77), Ok(2)));
    assert_eq!(w.k.page(&w.cpu, shared + 1).content().peek(), 1);
    w.check();
    end_child(&w);
    w.end();
}

#[test]
fn without_room_for_another_huge_page_small_ones_are_copied() {
    // Two huge pages' worth of frames are left, but none in a row, when the second is wanted.
    let w = forked(4 * HUGE);
    let taken: Vec<_> =
        (0..).map_while(|_| w.k.alloc_compound_page(&w.cpu, w.k.on_node(0))).collect();
    assert!(taken.len() < 3);
    let before = w.faults();
    let wrote = w.write(BASE + PAGE, 77);
    for page in taken {
        w.k.put_page(&w.cpu, page);
    }
    assert_eq!((wrote, w.faults() - before), (Ok(0), 1));
    assert!(!w.is_huge(BASE));
    assert_eq!((w.read(BASE + PAGE), w.read(BASE + 2 * PAGE)), (Ok(77), Ok(2)));
    w.check();
    end_child(&w);
    w.end();
}

#[test]
fn a_part_is_reused_only_when_no_part_is_shared() {
    // The child keeps its huge mapping; the parent's is split, and each write copies.
    let w = forked(MEMORY);
    w.dontneed(BASE, PAGE);
    let head = w.k.page(&w.cpu, {
        let table = w.pmd(BASE).table().expect("split");
        w.k.pte_offset_map(&w.cpu, table, Vaddr(BASE + PAGE)).pte().peek().pfn() - 1
    });
    assert_eq!((head.compound_mapcount().peek(), head.refcount().peek()), (1, 512));
    w.write(BASE + PAGE, 77).unwrap();
    assert_eq!(head.refcount().peek(), 511);
    w.check();
    end_child(&w);
    // Now nobody else has any of it.
    w.write(BASE + 2 * PAGE, 78).unwrap();
    assert_eq!(head.refcount().peek(), 510);
    w.check();
    w.end();
}

#[test]
fn every_arch_has_its_own_size() {
    let sizes: Vec<_> = Arch::builtin()
        .into_iter()
        .map(|arch| {
            let name = arch.name.clone();
            let w = World::<Spf>::boot_with(|config| config.arch = arch.clone());
            let size = w.k.pmd_size();
            w.map_fixed(size, size, RW);
            w.k.sys_madvise(&w.cpu, size, size, Advice::Hugepage).unwrap();
            w.write(size, 1).unwrap();
            let huge = w.is_huge(size);
            w.check();
            w.end();
            (name, if huge { size >> 20 } else { 0 })
        })
        .collect();
    let expect = [
        ("x86", 2),
        ("x86-5level", 2),
        ("powerpc", 16),
        ("powerpc-4k", 0),
        ("arm64", 2),
        ("arm64-64k", 512),
    ];
    assert_eq!(sizes, expect.map(|(name, size)| (name.to_owned(), size)));
}

#[test]
fn what_a_copy_leaves_to_the_child_stays_marked_as_locked_as_in_5_1() {
    let w = mapped(MEMORY, 1);
    w.write(BASE, 1).unwrap();
    w.k.sys_mlock(&w.cpu, BASE, HUGE, false).expect("mapped");
    w.k.sys_fork(&w.cpu, 1).expect("fork");
    let shared = w.k.page(&w.cpu, w.leaf(BASE).pfn());
    assert_eq!(w.write(BASE, 2), Ok(0));
    assert!(w.is_huge(BASE));
    assert_ne!(shared.flags().peek() & PG_MLOCKED, 0);
    w.check();
    end_child(&w);
    w.end();
}
