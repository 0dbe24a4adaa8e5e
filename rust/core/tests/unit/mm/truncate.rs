use super::*;
use crate::design::Spf;
use crate::mm::{Errno, Signal, VmFlags};
use crate::ops::access::AccessFailure;
use crate::ops::mmap::MapFlags;
use crate::ops::mremap::{MremapArgs, RemapFlags};
use crate::platform::native::Cpu;
use crate::support::{BASE, PAGE, RW, World, swap_of};

const SIGBUS: Result<u64, AccessFailure> = Err(AccessFailure::Signal(Signal::ADRERR));

/// Maps the first `pages` pages of a file at `address`.
fn map(w: &World<Spf>, file: InodeRef<'_, Cpu>, address: u64, pages: u64, shared: bool) {
    let mut args = w.anonymous(address, pages * PAGE);
    let sharing = if shared { MapFlags::SHARED.0 } else { MapFlags::PRIVATE.0 };
    args.flags = MapFlags(sharing | MapFlags::FIXED.0);
    args.file = file.ptr();
    w.k.sys_mmap(&w.cpu, &args).unwrap();
}

fn truncate(w: &World<Spf>, file: InodeRef<'_, Cpu>, length: u64) -> Result<(), Errno> {
    w.k.sys_ftruncate(&w.cpu, file.ptr(), length)
}

#[test]
fn what_is_cut_off_goes_from_all_mappings_copies_included() {
    for kind in [FileKind::Regular, FileKind::Shmem] {
        let w = World::<Spf>::boot();
        let file = w.file(4, kind);
        let other = BASE + 16 * PAGE;
        map(&w, file, BASE, 4, true);
        map(&w, file, other, 4, false);
        for page in 0..4 {
            assert_eq!(w.write(BASE + page * PAGE, 7 + page), Ok(0));
            assert_eq!(w.write(other + page * PAGE, 70 + page), Ok(0));
        }
        // Page 1 is the last, and half of it is beyond the end.
        truncate(&w, file, PAGE + PAGE / 2).unwrap();
        for (at, first) in [(BASE, 7), (other, 70)] {
            assert_eq!((w.read(at), w.read(at + PAGE)), (Ok(first), Ok(first + 1)));
            assert_eq!((w.read(at + 2 * PAGE), w.write(at + 3 * PAGE, 1)), (SIGBUS, SIGBUS));
        }
        // The copies of pages 0 and 1, and their originals.
        assert_eq!(w.mm().anon_pages().peek() + w.k.tasks[0].rss[1].get() as i64, 2);
        w.check();
        w.close(&[file]);
        w.end();
    }
}

#[test]
fn what_a_file_grows_by_reads_as_nothing() {
    for kind in [FileKind::Regular, FileKind::Shmem] {
        let w = World::<Spf>::boot();
        let file = w.file(2, kind);
        w.k.inode_prepare_for(file, 1 << 30);
        map(&w, file, BASE, 8, true);
        assert_eq!(w.write(BASE + PAGE, 5), Ok(0));
        truncate(&w, file, PAGE).unwrap();
        truncate(&w, file, 1 << 30).unwrap();
        let majors =
            || w.k.tasks[0].counters.snapshot()[crate::events::Event::MajorFaults as usize];
        let before = majors();
        assert_eq!((w.read(BASE + PAGE), w.read(BASE + 7 * PAGE)), (Ok(0), Ok(0)));
        // A hole of a file on disk is read, one of a file in memory is only filled.
        let expect = if kind == FileKind::Regular { 2 } else { 0 };
        assert_eq!(majors() - before, expect);
        assert_eq!(w.read(BASE + 2 * PAGE), Ok(0));
        w.check();
        w.close(&[file]);
        w.end();
    }
}

#[test]
fn a_copy_that_is_in_swap_stays() {
    // 5.1 leaves swap entries; since 5.18 they go.
    let w = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(64)));
    let file = w.file(2, FileKind::Regular);
    map(&w, file, BASE, 2, false);
    assert_eq!(w.write(BASE, 3), Ok(0));
    assert_eq!(w.write(BASE + PAGE, 4), Ok(0));
    w.k.swap_out(&w.cpu, BASE, PAGE, false).unwrap();
    truncate(&w, file, 0).unwrap();
    assert_eq!((w.read(BASE), w.read(BASE + PAGE)), (Ok(3), SIGBUS));
    w.check();
    w.close(&[file]);
    w.end();
}

#[test]
fn a_file_knows_its_mappings_however_they_are_cut_and_moved() {
    let w = World::<Spf>::boot();
    let file = w.file(16, FileKind::Shmem);
    map(&w, file, BASE, 16, true);
    map(&w, file, BASE + 32 * PAGE, 16, true);
    w.check();
    // Two splits, a hole, a merge.
    w.k.sys_mprotect(&w.cpu, BASE + 4 * PAGE, 4 * PAGE, VmFlags::READ).unwrap();
    w.check();
    w.k.sys_munmap(&w.cpu, BASE + 36 * PAGE, 4 * PAGE).unwrap();
    w.check();
    w.k.sys_mprotect(&w.cpu, BASE + 4 * PAGE, 4 * PAGE, RW).unwrap();
    w.check();
    let moved = MremapArgs {
        address: BASE + 2 * PAGE,
        old_length: 6 * PAGE,
        new_length: 6 * PAGE,
        flags: RemapFlags(RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0),
        new_address: BASE + 64 * PAGE,
    };
    (0..16).for_each(|page| assert_eq!(w.write(BASE + page * PAGE, page), Ok(0)));
    w.k.sys_mremap(&w.cpu, moved).unwrap();
    w.check();
    truncate(&w, file, 5 * PAGE).unwrap();
    // Pages 2 to 7 of the file are at 64 now.
    assert_eq!((w.read(BASE + 66 * PAGE), w.read(BASE + 67 * PAGE)), (Ok(4), SIGBUS));
    assert_eq!((w.read(BASE + PAGE), w.read(BASE + 8 * PAGE)), (Ok(1), SIGBUS));
    w.check();
    w.close(&[file]);
    w.end();
}
