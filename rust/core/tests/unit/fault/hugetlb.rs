//! Faults in hugetlb mappings, and their copies.

use super::*;
use crate::design::Spf;
use crate::events::Event;
use crate::mm::{Access, FileKind, Signal, Vaddr};
use crate::ops::access::AccessFailure;
use crate::ops::mmap::{MapFlags, MmapArgs};
use crate::platform::Ptr;
use crate::platform::native::{Cpu, Machine};
use crate::support::{PAGE, World};

const HUGE: u64 = 2 << 20;
const BASE: u64 = 0x4000_0000;
const PRIVATE: MapFlags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0);
const SHARED: MapFlags = MapFlags(MapFlags::SHARED.0 | MapFlags::ANONYMOUS.0);

impl World<Spf> {
    /// Maps `pages` huge pages, and with `file` those of the file.
    fn map_huge(&self, huge: u64, pages: u64, flags: MapFlags, file: Option<InodeRef<'_, Cpu>>) {
        let args = MmapArgs {
            flags: MapFlags(flags.0 | MapFlags::FIXED.0 | MapFlags::HUGETLB.0),
            file: file.map_or(Ptr::NULL, |file| file.ptr()),
            ..self.anonymous(BASE + huge * HUGE, pages * HUGE)
        };
        self.k.sys_mmap(&self.cpu, &args).expect("room and pages");
    }
    fn leaf_at(&self, address: u64) -> Pte {
        let pmd = self.k.walk_pmd(&self.cpu, self.mm(), Vaddr(address)).expect("a PMD");
        self.k.leaf_of(pmd.read(&self.cpu))
    }
    fn fault_count(&self) -> u64 {
        self.k.tasks[0].counters.snapshot()[Event::Faults as usize]
    }
}

/// A process with one private page written to, and its child on a CPU of its own.
fn with_child(pool: u64, flags: MapFlags) -> (World<Spf>, Cpu) {
    let w = World::<Spf>::boot_with(|config| config.system.hugetlb_pages = Some(pool));
    w.map_huge(0, 2, flags, None);
    w.write(BASE, 7).unwrap();
    w.k.sys_fork(&w.cpu, 1).expect("fork");
    (w, Machine::new(2).cpu(1, 1))
}

fn end(w: World<Spf>, child: &Cpu) {
    w.check();
    w.k.exit_mm(child);
    w.end();
}

fn child_access(w: &World<Spf>, child: &Cpu, address: u64, access: Access) -> Result<u64, u8> {
    let outcome = w.k.user_access(child, address, access, 9, true);
    outcome.result.map_err(|failure| match failure {
        AccessFailure::Signal(signal) => signal.number,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_page_is_one_fault_whether_read_or_written_first() {
    let w = World::<Spf>::boot();
    w.map_huge(0, 2, PRIVATE, None);
    assert_eq!((w.read(BASE + PAGE), w.write(BASE + HUGE + PAGE, 3)), (Ok(0), Ok(0)));
    assert_eq!(w.fault_count(), 2);
    assert!(!w.leaf_at(BASE).has(Pte::WRITE) && w.leaf_at(BASE + HUGE).has(Pte::WRITE));
    // The page is this mapping's alone: no copy.
    let pfn = w.leaf_at(BASE).pfn();
    assert_eq!(w.write(BASE + 2 * PAGE, 5), Ok(0));
    assert_eq!((w.leaf_at(BASE).pfn(), w.fault_count()), (pfn, 3));
    assert_eq!((w.read(BASE + 2 * PAGE), w.read(BASE + HUGE + PAGE)), (Ok(5), Ok(3)));
    w.check();
    w.end();
}

#[test]
fn a_private_mapping_of_a_file_reads_its_page_and_copies_it_to_write() {
    let w = World::<Spf>::boot();
    let file = w.file(HUGE / PAGE, FileKind::Hugetlb);
    w.map_huge(0, 1, MapFlags::SHARED, Some(file));
    w.map_huge(2, 1, MapFlags::PRIVATE, Some(file));
    w.write(BASE, 7).unwrap();
    assert_eq!(w.read(BASE + 2 * HUGE), Ok(7));
    assert_eq!(w.leaf_at(BASE).pfn(), w.leaf_at(BASE + 2 * HUGE).pfn());
    w.write(BASE + 2 * HUGE, 8).unwrap();
    assert_eq!((w.read(BASE), w.read(BASE + 2 * HUGE)), (Ok(7), Ok(8)));
    w.check();
    w.k.fput(&w.cpu, file.ptr());
    w.end();
}

#[test]
fn beyond_the_file_is_nothing_until_a_writable_mapping_makes_it_longer() {
    let w = World::<Spf>::boot();
    let file = w.file(HUGE / PAGE, FileKind::Hugetlb);
    let args = MmapArgs {
        prot: VmFlags::READ,
        flags: MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0),
        file: file.ptr(),
        ..w.anonymous(BASE, 2 * HUGE)
    };
    w.k.sys_mmap(&w.cpu, &args).unwrap();
    assert_eq!(w.read(BASE), Ok(0));
    assert!(matches!(w.read(BASE + HUGE), Err(AccessFailure::Signal(Signal { number: 7, .. }))));
    w.map_huge(2, 2, MapFlags::SHARED, Some(file));
    assert_eq!(w.read(BASE + HUGE), Ok(0));
    w.check();
    w.k.fput(&w.cpu, file.ptr());
    w.end();
}

#[test]
fn after_fork_the_first_to_write_copies_and_the_last_keeps_the_page() {
    let (w, child) = with_child(4, PRIVATE);
    let shared = w.leaf_at(BASE).pfn();
    assert!(!w.leaf_at(BASE).has(Pte::WRITE));
    assert_eq!((w.write(BASE, 8), w.read(BASE + PAGE)), (Ok(0), Ok(0)));
    assert_ne!(w.leaf_at(BASE).pfn(), shared);
    assert_eq!(child_access(&w, &child, BASE, Access::Read), Ok(7));
    let before = w.k.tasks[1].counters.snapshot()[Event::Faults as usize];
    assert_eq!(child_access(&w, &child, BASE, Access::Write), Ok(0));
    assert_eq!(w.k.tasks[1].counters.snapshot()[Event::Faults as usize], before + 1);
    assert_eq!(w.k.page(&w.cpu, shared).content().peek(), 9);
    assert_eq!(w.read(BASE), Ok(8));
    end(w, &child);
}

#[test]
fn shared_pages_are_written_to_by_all() {
    let (w, child) = with_child(2, SHARED);
    assert_eq!(child_access(&w, &child, BASE, Access::Write), Ok(0));
    assert_eq!(w.read(BASE), Ok(9));
    assert_eq!(child_access(&w, &child, BASE + HUGE, Access::Write), Ok(0));
    assert_eq!(w.read(BASE + HUGE), Ok(9));
    end(w, &child);
}

#[test]
fn a_parent_that_finds_no_page_takes_its_childs() {
    // Two pages, both promised to the parent; it must not use the promise of the second.
    let (w, child) = with_child(2, PRIVATE);
    assert_eq!((w.write(BASE, 8), w.read(BASE)), (Ok(0), Ok(8)));
    for address in [BASE, BASE + HUGE] {
        for access in [Access::Read, Access::Write] {
            assert_eq!(child_access(&w, &child, address, access), Err(7));
        }
    }
    assert_eq!(w.write(BASE + HUGE, 1), Ok(0));
    end(w, &child);
}

#[test]
fn a_child_that_finds_no_page_gets_a_signal() {
    let (w, child) = with_child(2, PRIVATE);
    assert_eq!(child_access(&w, &child, BASE, Access::Read), Ok(7));
    assert_eq!(child_access(&w, &child, BASE, Access::Write), Err(7));
    assert_eq!(child_access(&w, &child, BASE, Access::Read), Ok(7));
    assert_eq!(child_access(&w, &child, BASE + HUGE, Access::Write), Err(7));
    end(w, &child);
}
