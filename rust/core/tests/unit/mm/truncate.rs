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

const WORD: u64 = 0x1122_3344_5566_7788;

/// The `kept` lowest bytes of [`WORD`].
fn low(kept: u64) -> u64 {
    if kept < 8 { WORD & ((1 << (8 * kept)) - 1) } else { WORD }
}

#[test]
fn the_rest_of_the_page_that_a_file_ends_in_is_cleared() {
    for kind in [FileKind::Regular, FileKind::Shmem] {
        for kept in 1..=9 {
            let w = World::<Spf>::boot();
            let file = w.file(3, kind);
            map(&w, file, BASE, 3, true);
            map(&w, file, BASE + 16 * PAGE, 3, false);
            (0..3).for_each(|page| assert_eq!(w.write(BASE + page * PAGE, WORD), Ok(0)));
            truncate(&w, file, PAGE + kept).unwrap();
            assert_eq!((w.read(BASE), w.read(BASE + PAGE)), (Ok(WORD), Ok(low(kept))));
            assert_eq!(w.read(BASE + 17 * PAGE), Ok(low(kept)));
            truncate(&w, file, 3 * PAGE).unwrap();
            assert_eq!(w.read(BASE + PAGE), Ok(low(kept)));
            w.check();
            w.close(&[file]);
            w.end();
        }
    }
}

#[test]
fn what_was_stored_beyond_the_end_goes_when_a_file_on_disk_grows() {
    for (kind, same, longer) in
        [(FileKind::Regular, low(3), low(3)), (FileKind::Shmem, low(3), WORD)]
    {
        for (length, expect) in [(3, same), (5, longer), (PAGE, longer), (5 * PAGE + 1, longer)] {
            let w = World::<Spf>::boot();
            let file = w.file(1, kind);
            w.k.inode_prepare_for(file, 8 * PAGE);
            map(&w, file, BASE, 1, true);
            truncate(&w, file, 3).unwrap();
            assert_eq!(w.write(BASE, WORD), Ok(0));
            truncate(&w, file, length).unwrap();
            assert_eq!(w.read(BASE), Ok(expect), "{kind:?}, length {length}");
            w.check();
            w.close(&[file]);
            w.end();
        }
    }
}

#[test]
fn a_page_in_swap_comes_back_to_have_its_rest_cleared() {
    // Whether that shows in its word or not; and only the page that the file ends in.
    for (length, majors) in [(PAGE + 3, 1), (PAGE + 100, 1), (2 * PAGE, 2)] {
        let w = World::<Spf>::boot();
        let file = w.k.inode_new(&w.cpu, 3 * PAGE, FileKind::Shmem, false);
        map(&w, file, BASE, 3, true);
        truncate(&w, file, length).unwrap();
        assert_eq!((w.read(BASE), w.read(BASE + PAGE)), (Ok(0), Ok(0)));
        let counters = w.k.tasks[0].counters.snapshot();
        assert_eq!(counters[crate::events::Event::MajorFaults as usize], majors);
        w.check();
        w.close(&[file]);
        w.end();
    }
}
