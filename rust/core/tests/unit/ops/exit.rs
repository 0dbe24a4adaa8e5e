use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{FileKind, VmFlags};
use crate::ops::mmap::MapFlags;
use crate::ops::process::{Processes, RW};

const A: u64 = 0x1000_0000;

#[test]
fn an_empty_process_ends() {
    let s = Processes::<Spf>::new();
    s.exit(0);
    s.check_nothing_left();
    assert!(s.k.mm_of(0).is_none());
}

fn ends_with_everything<D: Design>(arch: &str) {
    let s = Processes::<D>::on(arch, 1 << 30);
    let cpu = s.cpu(0);
    let file = s.k.inode_new(cpu, 1 << 20, FileKind::Regular, true);
    let zero = s.k.inode_new(cpu, 0, FileKind::DevZero, true);
    let size = s.page_size();
    s.map(0, A, 9);
    s.map(0, A + 64 * size, 9);
    s.map_file(0, A + 128 * size, 9, MapFlags::PRIVATE, file.ptr());
    s.map_file(0, A + 192 * size, 9, MapFlags::SHARED, file.ptr());
    s.map_file(0, A + 256 * size, 9, MapFlags::PRIVATE, zero.ptr());
    s.map_file(0, A + 320 * size, 9, MapFlags::SHARED, zero.ptr());
    s.map_file(0, A + 384 * size, 9, MapFlags::SHARED, Ptr::NULL);
    for nth in 0..7 {
        for page in 0..9 {
            let address = A + (64 * nth + page) * size;
            s.read(0, address);
            s.write(0, address, nth);
        }
    }
    s.k.sys_mprotect(cpu, A + 3 * size, 3 * size, VmFlags::NONE).unwrap();
    s.k.sys_mprotect(cpu, A + 130 * size, 3 * size, RW).unwrap();
    s.check();
    s.exit(0);
    s.check();
    assert_eq!((file.count().peek(), zero.count().peek(), s.k.inodes.live()), (1, 1, 2));
    s.k.files_release(cpu, &[file.ptr(), zero.ptr()]);
    s.check_nothing_left();
    assert_eq!(s.k.pages.live(), 1, "the page of zeroes");
}

#[test]
fn nothing_of_a_process_is_left() {
    for arch in ["x86", "x86-5level", "powerpc", "powerpc-4k", "arm64", "arm64-64k"] {
        ends_with_everything::<Spf>(arch);
        ends_with_everything::<Classic>(arch);
    }
}

#[test]
fn the_last_thread_takes_the_address_space_down() {
    let s = Processes::<Spf>::idle("x86", 1 << 30);
    s.k.start_process(s.cpu(0), &[0, 1, 2]).unwrap();
    s.map(1, A, 8);
    // More faults than a task keeps to itself, and fewer: both must reach the mm.
    (0..8).for_each(|page| s.write(page as u32 % 3, A + (page << 12), page));
    for task in [1, 0, 2] {
        assert!(s.k.mms.live() == 1);
        s.exit(task);
        s.check();
    }
    s.check_nothing_left();
}

#[test]
fn linked_vmas_go_without_a_grace_period() {
    // Goal: no callback at exit, though every VMA is still in the tree.
    let s = Processes::<Spf>::new();
    (0..20).for_each(|nth| s.map(0, A + nth * 0x10_0000, 2));
    s.exit(0);
    assert!(s.cpu(0).rcu_ready().is_none());
    assert_eq!(s.k.vmas.live(), 0);
}

#[test]
fn what_munmap_left_to_a_grace_period_goes_after_exit() {
    let s = Processes::<Spf>::new();
    s.map(0, A, 8);
    s.write(0, A, 1);
    s.k.sys_munmap(s.cpu(0), A, 8 << 12).unwrap();
    s.exit(0);
    assert_eq!((s.k.vmas.live(), s.k.mms.live()), (1, 0));
    s.check_nothing_left();
}
