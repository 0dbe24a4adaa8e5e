//! Reservations of hugetlb mappings, and the rules of their size.

use super::*;
use crate::design::Spf;
use crate::mm::FileKind;
use crate::ops::madvise::Advice;
use crate::ops::mmap::{MapFlags, MmapArgs};
use crate::platform::native::Cpu;
use crate::support::{PAGE, R, RW, World};

const HUGE: u64 = 2 << 20;
const BASE: u64 = 0x4000_0000;

/// A system whose pool has so many pages.
fn pool(pages: u64) -> World<Spf> {
    World::boot_with(|config| config.system.hugetlb_pages = Some(pages))
}

impl World<Spf> {
    fn args(&self, huge: u64, pages: u64, flags: MapFlags) -> MmapArgs<Cpu> {
        let at = self.anonymous(BASE + huge * HUGE, pages * HUGE);
        MmapArgs { flags: MapFlags(flags.0 | MapFlags::FIXED.0 | MapFlags::HUGETLB.0), ..at }
    }
    fn private(&self, huge: u64, pages: u64) -> Result<u64, Errno> {
        let flags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0);
        self.k.sys_mmap(&self.cpu, &self.args(huge, pages, flags))
    }
    fn of_file(&self, huge: u64, pages: u64, file: InodeRef<'_, Cpu>) -> Result<u64, Errno> {
        let args = self.args(huge, pages, MapFlags::SHARED);
        self.k.sys_mmap(&self.cpu, &MmapArgs { file: file.ptr(), ..args })
    }
    fn unmap(&self, address: u64, length: u64) -> Result<(), Errno> {
        self.k.sys_munmap(&self.cpu, address, length)
    }
    fn reserved(&self) -> u64 {
        self.k.hstate.resv_huge_pages.peek()
    }
    fn free(&self) -> u64 {
        self.k.hstate.free_huge_pages.peek()
    }
    /// Ends the task; the pool has all its pages then.
    fn end_with(self, pages: u64) {
        self.k.exit_mm(&self.cpu);
        self.settle();
        assert_eq!(self.k.check_nothing_left(), []);
        assert_eq!((self.free(), self.reserved()), (pages, 0));
    }
}

#[test]
fn a_private_mapping_reserves_its_pages_and_a_fault_uses_one() {
    let w = pool(3);
    w.private(0, 2).unwrap();
    assert_eq!((w.free(), w.reserved()), (3, 2));
    assert_eq!(w.private(4, 2), Err(Errno::Enomem));
    assert_eq!(w.write(BASE + 5 * PAGE, 7), Ok(0));
    assert_eq!((w.free(), w.reserved()), (2, 1));
    w.private(4, 1).unwrap();
    assert_eq!(w.reserved(), 2);
    // What was used is free, what was not is not reserved any more.
    w.unmap(BASE, 2 * HUGE).unwrap();
    assert_eq!((w.free(), w.reserved()), (3, 1));
    w.check();
    w.end_with(3);
}

#[test]
fn the_parts_of_a_mapping_share_its_reservations() {
    let w = pool(4);
    w.private(0, 4).unwrap();
    w.write(BASE + HUGE, 1).unwrap();
    w.unmap(BASE + HUGE, HUGE).unwrap();
    assert_eq!((w.free(), w.reserved()), (4, 3));
    w.k.sys_mprotect(&w.cpu, BASE + 3 * HUGE, HUGE, R).unwrap();
    w.unmap(BASE, HUGE).unwrap();
    assert_eq!(w.reserved(), 2);
    w.unmap(BASE, 4 * HUGE).unwrap();
    assert_eq!(w.reserved(), 0);
    assert_eq!(w.k.resv_maps.live(), 0);
    w.end_with(4);
}

#[test]
fn a_file_has_the_reservations_of_its_shared_mappings() {
    let w = pool(3);
    let file = w.file(0, FileKind::Hugetlb);
    w.of_file(0, 2, file).unwrap();
    w.of_file(4, 2, file).unwrap();
    assert_eq!(w.reserved(), 2);
    assert_eq!(w.of_file(8, 4, file), Err(Errno::Enomem));
    assert_eq!(w.reserved(), 2);
    w.write(BASE, 7).unwrap();
    assert_eq!((w.read(BASE + 4 * HUGE), w.free(), w.reserved()), (Ok(7), 2, 1));
    w.unmap(BASE, 6 * HUGE).unwrap();
    assert_eq!((w.free(), w.reserved()), (2, 1));
    w.check();
    w.k.fput(&w.cpu, file.ptr());
    w.end_with(3);
}

#[test]
fn noreserve_takes_what_nobody_has_reserved() {
    let w = pool(2);
    let flags = MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0 | MapFlags::NORESERVE.0;
    w.k.sys_mmap(&w.cpu, &w.args(0, 4, MapFlags(flags))).unwrap();
    w.private(8, 1).unwrap();
    assert_eq!(w.write(BASE, 1), Ok(0));
    assert!(w.write(BASE + HUGE, 1).is_err());
    assert_eq!(w.write(BASE + 8 * HUGE, 1), Ok(0));
    assert_eq!((w.free(), w.reserved()), (0, 0));
    w.check();
    w.end_with(2);
}

#[test]
fn nothing_cuts_through_a_huge_page() {
    let w = pool(4);
    w.private(0, 2).unwrap();
    w.write(BASE, 1).unwrap();
    let before = w.maps();
    let length = HUGE + PAGE;
    assert_eq!(w.unmap(BASE, length), Err(Errno::Einval));
    assert_eq!(w.k.sys_mprotect(&w.cpu, BASE, length, R), Err(Errno::Einval));
    let advise = |length, advice| w.k.sys_madvise(&w.cpu, BASE, length, advice);
    assert_eq!(advise(length, Advice::Random), Err(Errno::Einval));
    assert_eq!(advise(2 * HUGE, Advice::Dontneed), Err(Errno::Einval));
    assert_eq!(advise(2 * HUGE, Advice::Dodump), Ok(()));
    assert_eq!(w.maps(), before);
    assert_eq!(w.read(BASE), Ok(1));
    w.end_with(4);
}

#[test]
fn addresses_offsets_and_lengths_are_those_of_huge_pages() {
    let w = pool(8);
    let anywhere = |address, length| {
        let flags = MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0 | MapFlags::HUGETLB.0;
        let args = w.anonymous(address, length);
        w.k.sys_mmap(&w.cpu, &MmapArgs { flags: MapFlags(flags), ..args })
    };
    // Below a small mapping, at the next boundary; a hint is rounded down, even to 0.
    let small = w.k.sys_mmap(&w.cpu, &w.anonymous(0, PAGE)).unwrap();
    let huge = anywhere(0, PAGE).unwrap();
    assert!(huge % HUGE == 0 && small - huge < 2 * HUGE, "{huge:#x}");
    assert_eq!(w.unmap(huge, PAGE), Err(Errno::Einval));
    assert_eq!(anywhere(BASE + PAGE, PAGE), Ok(BASE));
    assert_eq!(anywhere(BASE + PAGE, PAGE), Ok(huge - HUGE));
    assert_eq!(anywhere(HUGE - 1, PAGE), Err(Errno::Eperm));
    assert_eq!(anywhere(0, u64::MAX), Err(Errno::Einval));
    assert_eq!(anywhere(0, 1 << 50), Err(Errno::Enomem));

    let file = w.file(8 * HUGE / PAGE, FileKind::Hugetlb);
    let fixed = |shift, offset| MmapArgs {
        address: BASE + 8 * HUGE + shift,
        file: file.ptr(),
        offset,
        ..w.args(8, 1, MapFlags::SHARED)
    };
    let mmap = |args: MmapArgs<Cpu>| w.k.sys_mmap(&w.cpu, &args);
    assert_eq!(mmap(fixed(PAGE, 0)), Err(Errno::Einval));
    assert_eq!(mmap(fixed(0, PAGE)), Err(Errno::Einval));
    assert_eq!(mmap(fixed(0, HUGE)), Ok(BASE + 8 * HUGE));
    let other = w.file(1, FileKind::Regular);
    assert_eq!(mmap(MmapArgs { file: other.ptr(), ..fixed(0, 0) }), Err(Errno::Einval));
    w.check();
    for inode in [file, other] {
        w.k.fput(&w.cpu, inode.ptr());
    }
    w.end_with(8);
}

#[test]
fn what_does_not_fit_the_pool_leaves_a_hole_where_it_should_have_been() {
    let w = pool(1);
    w.map_fixed(BASE, 2 * HUGE, RW);
    assert_eq!(w.private(0, 2), Err(Errno::Enomem));
    assert_eq!(w.maps(), Vec::<String>::new());
    w.check();
    w.end_with(1);
}

#[test]
fn a_protected_page_keeps_its_content() {
    let w = pool(2);
    w.private(0, 2).unwrap();
    w.write(BASE, 7).unwrap();
    w.k.sys_mprotect(&w.cpu, BASE, HUGE, R).unwrap();
    assert!(w.write(BASE, 8).is_err());
    assert_eq!(w.read(BASE), Ok(7));
    w.k.sys_mprotect(&w.cpu, BASE, HUGE, RW).unwrap();
    assert_eq!((w.write(BASE, 8), w.read(BASE)), (Ok(0), Ok(8)));
    w.check();
    w.end_with(2);
}
