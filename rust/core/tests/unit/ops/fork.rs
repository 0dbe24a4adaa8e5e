use std::collections::BTreeMap;

use super::*;
use crate::design::{Classic, Spf};
use crate::mm::{Access, FileKind};
use crate::ops::madvise::Advice;
use crate::ops::mmap::MapFlags;
use crate::ops::process::{Processes, RW, TASKS};
use crate::ops::turns::Cpu;
use crate::platform::native;

const A: u64 = 0x1000_0000;
const ARCHES: [&str; 6] = ["x86", "x86-5level", "powerpc", "powerpc-4k", "arm64", "arm64-64k"];

fn copy_on_write_on<D: Design>(arch: &str) {
    let s = Processes::<D>::on(arch, 1 << 30);
    let page = |nth: u64| A + nth * s.page_size();
    s.map(0, A, 8);
    for nth in 0..4 {
        s.write(0, page(nth), 100 + nth);
    }
    s.fork(0, 1);
    s.write(0, page(0), 200);
    s.write(1, page(1), 301);
    s.write(1, page(5), 305);
    let of = |task| (0..6).map(|nth| s.read(task, page(nth))).collect::<Vec<_>>();
    assert_eq!(of(0), [200, 101, 102, 103, 0, 0]);
    assert_eq!(of(1), [100, 301, 102, 103, 0, 305]);
    s.check();
    s.exit(0);
    assert_eq!(of(1), [100, 301, 102, 103, 0, 305]);
    s.check();
    s.exit(1);
    s.check_nothing_left();
}

#[test]
fn copy_on_write_keeps_the_processes_apart() {
    for arch in ARCHES {
        copy_on_write_on::<Spf>(arch);
        copy_on_write_on::<Classic>(arch);
    }
}

#[test]
fn the_child_has_the_parents_mappings_and_heap() {
    let s = Processes::<Spf>::new();
    s.map(0, A, 4);
    s.map(0, A + (8 << 12), 4);
    s.k.sys_brk(s.cpu(0), 0x3000, None).unwrap();
    s.fork(0, 1);
    assert_eq!(s.maps(1), s.maps(0));
    assert_eq!(s.maps(0).len(), 3);
    let (parent, child) = (s.mm(0), s.mm(1));
    assert_eq!(child.total_vm().peek(), 11);
    assert_eq!(child.brk().peek(), parent.brk().peek());
    assert_eq!(child.start_brk().peek(), parent.start_brk().peek());
    assert_eq!(child.mm_users().peek(), 1);
    assert_eq!(s.k.sys_brk(s.cpu(1), 0x1000, None), Ok(parent.brk().peek().0 + 0x1000));
    s.check();
}

#[test]
fn a_vma_marked_dontfork_is_not_copied() {
    // 0    4    8    12      the middle is dontfork
    // | rw | rw | rw |
    let s = Processes::<Spf>::new();
    s.map(0, A, 12);
    for nth in 0..12 {
        s.write(0, A + (nth << 12), nth);
    }
    s.k.sys_madvise(s.cpu(0), A + (4 << 12), 4 << 12, Advice::Dontfork).unwrap();
    s.fork(0, 1);
    assert_eq!(s.maps(0).len(), 3);
    assert_eq!(s.maps(1), [s.maps(0)[0].clone(), s.maps(0)[2].clone()]);
    assert_eq!(s.mm(1).total_vm().peek(), 8);
    assert!(s.try_read(1, A + (5 << 12)).is_err());
    assert_eq!(s.read(1, A + (9 << 12)), 9);
    s.check();
    s.exit(0);
    s.exit(1);
    s.check_nothing_left();
}

#[test]
fn a_vma_marked_wipeonfork_is_empty_and_has_an_anon_vma_of_its_own() {
    let s = Processes::<Spf>::new();
    s.map(0, A, 4);
    s.write(0, A, 7);
    s.k.sys_madvise(s.cpu(0), A, 4 << 12, Advice::Wipeonfork).unwrap();
    s.fork(0, 1);
    assert_eq!(s.mm(1).pgtables().peek(), 0, "no page table was copied");
    let vma = s.k.find_vma(s.cpu(1), s.mm(1), crate::mm::Vaddr(A)).unwrap();
    let parents = s.k.find_vma(s.cpu(0), s.mm(0), crate::mm::Vaddr(A)).unwrap();
    assert!(!vma.anon_vma().peek().is_null());
    assert_ne!(vma.anon_vma().peek(), parents.anon_vma().peek());
    assert_eq!((s.read(1, A), s.read(0, A)), (0, 7));
    s.check();
    s.exit(1);
    s.exit(0);
    s.check_nothing_left();
}

#[test]
fn a_wiped_vma_shares_the_anon_vma_of_the_parents_neighbour() {
    // Goal: 5.1 looks for a neighbour through the parent's list pointers. What that decides for
    // the child: its halves can merge again, though they came through a fork.
    //   0          4          8
    //   | rw wiped | r wiped  |     one anon_vma, singular
    let s = Processes::<Spf>::new();
    s.map(0, A, 8);
    s.write(0, A, 7);
    s.k.sys_madvise(s.cpu(0), A, 8 << 12, Advice::Wipeonfork).unwrap();
    s.k.sys_mprotect(s.cpu(0), A + (4 << 12), 4 << 12, VmFlags::READ).unwrap();
    s.fork(0, 1);
    s.k.sys_mprotect(s.cpu(1), A + (4 << 12), 4 << 12, RW).unwrap();
    assert_eq!((s.maps(0).len(), s.maps(1).len()), (2, 1));
    s.check();
    s.exit(0);
    s.write(1, A, 8);
    s.exit(1);
    s.check_nothing_left();
}

#[test]
fn page_tables_are_copied_only_where_the_child_could_not_fault_them_in() {
    let s = Processes::<Spf>::new();
    let cpu = s.cpu(0);
    let file = s.k.inode_new(cpu, 64 << 12, FileKind::Regular, true);
    let [zero, read, written, shared] = [0, 1, 2, 3].map(|nth| A + nth * (4 << 21));
    s.map(0, zero, 4);
    s.map_file(0, read, 4, MapFlags::PRIVATE, file.ptr());
    s.map_file(0, written, 4, MapFlags::PRIVATE, file.ptr());
    s.map_file(0, shared, 4, MapFlags::SHARED, file.ptr());
    for address in [zero, read, written, shared] {
        s.read(0, address);
    }
    s.write(0, written + (1 << 12), 5);
    s.write(0, shared, 6);
    s.fork(0, 1);
    let mapped = |address| (0..4).map(|nth| s.is_mapped(1, address + (nth << 12))).collect();
    let nothing: Vec<bool> = vec![false; 4];
    assert_eq!(mapped(zero), nothing, "the zero page alone gives no anon_vma");
    assert_eq!(mapped(read), nothing);
    assert_eq!(mapped(shared), nothing);
    let all: Vec<bool> = mapped(written);
    assert_eq!(all, [true; 4], "pages of the file too");
    assert_eq!((s.read(1, written), s.read(1, written + (1 << 12)), s.read(1, shared)), (6, 5, 6));
    assert_eq!(file.count().peek(), 7, "open, and three mappings in each");
    s.check();
    s.exit(0);
    s.exit(1);
    s.k.files_release(cpu, &[file.ptr()]);
    s.check_nothing_left();
    assert_eq!(s.k.pages.live(), 1, "the page of zeroes");
}

#[test]
fn a_sparse_mapping_costs_what_is_in_it() {
    // Goal: 16 TiB with a page at each side of the edges of every level. Walking all of it entry
    // by entry would take minutes.
    let s = Processes::<Spf>::new();
    s.map(0, 1 << 40, 16 << 28);
    let mut pages = vec![1 << 40, (17 << 40) - 4096];
    for edge in [12, 21, 30, 39, 40].map(|shift| (5 << 40) + (1u64 << shift)) {
        pages.extend([edge - 4096, edge]);
    }
    for (value, &page) in pages.iter().enumerate() {
        s.write(0, page, value as u64);
    }
    s.fork(0, 1);
    for (value, &page) in pages.iter().enumerate() {
        assert!(s.is_mapped(1, page));
        assert_eq!(s.read(1, page), value as u64);
    }
    assert_eq!(s.mm(1).pgtables().peek(), s.mm(0).pgtables().peek());
    s.k.sys_mprotect(s.cpu(0), 1 << 40, 16 << 40, VmFlags::READ).unwrap();
    s.check();
    s.k.sys_munmap(s.cpu(0), 1 << 40, 16 << 40).unwrap();
    s.check();
    s.exit(0);
    s.exit(1);
    s.check_nothing_left();
}

#[test]
fn what_two_processes_share_stays_shared() {
    let s = Processes::<Classic>::new();
    s.map_file(0, A, 4, MapFlags::SHARED, Ptr::NULL);
    s.write(0, A, 1);
    s.fork(0, 1);
    s.write(1, A + (1 << 12), 2);
    s.write(0, A, 3);
    assert_eq!((s.read(1, A), s.read(0, A + (1 << 12))), (3, 2));
    s.exit(0);
    assert_eq!(s.read(1, A), 3);
    s.exit(1);
    s.check_nothing_left();
    assert_eq!(s.k.pages.live(), 1, "shared anonymous memory goes with its last mapping");
}

#[test]
fn clone_and_vfork_share_the_address_space() {
    let s = Processes::<Spf>::new();
    s.map(0, A, 4);
    s.k.sys_clone_vm(s.cpu(0), 1);
    s.k.sys_clone_vm(s.cpu(1), 2);
    assert_eq!(s.mm(0).mm_users().peek(), 3);
    s.write(1, A, 9);
    assert_eq!(s.read(2, A), 9);
    s.exit(0);
    s.exit(2);
    assert_eq!(s.read(1, A), 9);
    s.check();
    s.exit(1);
    s.check_nothing_left();
}

#[test]
fn every_copied_vma_is_odd_from_its_copy_to_the_flush() {
    // Goal: P18's brackets, at the two steps that matter. VMA 1 is dontfork, VMA 3 wipeonfork.
    let s = Processes::<Spf>::new();
    for nth in 0..5 {
        s.map(0, A + nth * 0x10_0000, 2);
        s.write(0, A + nth * 0x10_0000, nth);
    }
    s.k.sys_madvise(s.cpu(0), A + 0x10_0000, 0x2000, Advice::Dontfork).unwrap();
    s.k.sys_madvise(s.cpu(0), A + 0x30_0000, 0x2000, Advice::Wipeonfork).unwrap();
    let odd = |k: &Kernel<Cpu, Spf>| -> Vec<bool> {
        let vmas = k.peek_vmas(k.mm_of(0).unwrap());
        vmas.map(|vma| vma.vm_sequence().peek() % 2 == 1).collect()
    };
    let seen = s.watch(odd, || s.fork(0, 1));
    let steps: Vec<_> = seen
        .iter()
        .filter(|(step, _)| matches!(*step, "copy_page_range" | "flush_tlb_mm"))
        .map(|(step, odd)| (*step, odd.as_slice()))
        .collect();
    assert_eq!(
        steps,
        [
            ("copy_page_range", &[true, false, false, false, false][..]),
            ("copy_page_range", &[true, false, true, false, false]),
            ("copy_page_range", &[true, false, true, false, true]),
            ("flush_tlb_mm", &[true, false, true, false, true]),
        ]
    );
    assert_eq!(odd(&s.k), [false; 5]);
    s.check();
}

/// Three VMAs with written pages in different page tables, a file and a wiped VMA.
fn prepare<D: Design>(s: &Processes<D>) -> Option<()> {
    let cpu = s.cpu(0);
    let file = s.k.inode_new(cpu, 64 << 12, FileKind::Regular, false);
    s.map(0, A, 4);
    s.map(0, A + (1 << 30), 4);
    s.map_file(0, A + (2 << 30), 4, MapFlags::PRIVATE, file.ptr());
    // The mapping has its own reference.
    s.k.fput(cpu, file.ptr());
    s.map(0, A + (3 << 30), 4);
    for nth in 0..4 {
        s.try_write(0, A + (nth << 30), nth).ok()?;
    }
    s.k.sys_madvise(cpu, A + (3 << 30), 4 << 12, Advice::Wipeonfork).unwrap();
    Some(())
}

fn sequences<D: Design>(s: &Processes<D>) -> Vec<u64> {
    s.k.peek_vmas(s.mm(0)).map(|vma| vma.vm_sequence().peek() % 2).collect()
}

fn fork_without_memory<D: Design>() {
    let mut failures = 0;
    for frames in 1.. {
        let s = Processes::<D>::idle("x86", frames << 12);
        if s.k.start_process(s.cpu(0), &[0]).is_err() || prepare(&s).is_none() {
            continue;
        }
        let live = (s.k.pages.live(), s.k.avcs.live(), s.k.anon_vmas.live(), s.k.vmas.live());
        let result = s.k.sys_fork(s.cpu(0), 1);
        assert_eq!(sequences(&s), [0; 4]);
        s.check();
        if result.is_ok() {
            s.exit(1);
            s.exit(0);
            s.check_nothing_left();
            break;
        }
        failures += 1;
        assert_eq!(result, Err(Errno::Enomem));
        assert!(s.k.mm_of(1).is_none());
        let now = (s.k.pages.live(), s.k.avcs.live(), s.k.anon_vmas.live(), s.k.vmas.live());
        assert_eq!(now, live);
        assert_eq!(s.k.inodes.peek(0).unwrap().count().peek(), 1);
        s.exit(0);
        s.check_nothing_left();
    }
    // PGD; PUD; three times PMD and PTE table.
    assert_eq!(failures, 8);
}

#[test]
fn a_fork_that_runs_out_of_frames_leaves_nothing() {
    fork_without_memory::<Spf>();
    fork_without_memory::<Classic>();
}

#[test]
fn a_fork_that_runs_out_of_slab_leaves_nothing() {
    let s = Processes::<Spf>::new();
    prepare(&s).unwrap();
    type Inject = fn(&Kernel<Cpu, Spf>, u32);
    let injections: [(Inject, u32); 3] = [
        (|k, nth| k.mms.fail_after(nth), 1),
        // An anon_vma for each of the four VMAs.
        (|k, nth| k.anon_vmas.fail_after(nth), 4),
        // Two chains for each, one for the wiped one.
        (|k, nth| k.avcs.fail_after(nth), 7),
    ];
    for (inject, allocations) in injections {
        for nth in 0..allocations {
            inject(&s.k, nth);
            assert_eq!(s.k.sys_fork(s.cpu(0), 1), Err(Errno::Enomem));
            assert_eq!(sequences(&s), [0; 4]);
            s.check();
            assert_eq!(s.k.mms.live(), 1);
            assert_eq!((s.k.vmas.live(), s.k.avcs.live(), s.k.anon_vmas.live()), (4, 4, 4));
        }
    }
    s.fork(0, 1);
    s.exit(0);
    s.exit(1);
    s.check_nothing_left();
}

#[test]
fn any_family_of_processes_behaves_as_a_flat_map() {
    for (seed, arch) in ARCHES.iter().enumerate() {
        family::<Spf>(arch, seed as u64);
        family::<Classic>(arch, seed as u64 + 100);
    }
}

/// Random writes, forks, unmaps, wipes and exits of up to eight processes, against a map from
/// process and page to value. Private anonymous memory and a private file.
fn family<D: Design>(arch: &str, seed: u64) {
    const PAGES: u64 = 24;
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let s = Processes::<D>::on(arch, 1 << 30);
    let page = |nth: u64| A + nth * s.page_size();
    let file = s.k.inode_new(s.cpu(0), 1 << 20, FileKind::Regular, true);
    s.map(0, A, PAGES / 2);
    s.map_file(0, page(PAGES / 2), PAGES / 2, MapFlags::PRIVATE, file.ptr());
    let mut model: BTreeMap<u32, BTreeMap<u64, u64>> = BTreeMap::new();
    model.insert(0, (0..PAGES).map(|nth| (nth, 0)).collect());
    for step in 1..600 {
        let running: Vec<u32> = model.keys().copied().collect();
        let Some(&task) = running.get(random(running.len().max(1) as u64) as usize) else { break };
        let free = (0..TASKS).find(|task| !model.contains_key(task));
        let nth = random(PAGES);
        let memory = model.get_mut(&task).unwrap();
        match (random(16), free) {
            (0, Some(child)) => {
                s.fork(task, child);
                let copy = memory.clone();
                model.insert(child, copy);
            }
            (1, _) if running.len() > 1 => {
                s.exit(task);
                model.remove(&task);
            }
            (2, _) => {
                let until = (nth + 1 + random(3)).min(PAGES);
                let length = page(until) - page(nth);
                s.k.sys_munmap(s.cpu(task), page(nth), length).unwrap();
                (nth..until).for_each(|nth| _ = memory.remove(&nth));
            }
            (3, _) => {
                let dropped =
                    s.k.sys_madvise(s.cpu(task), page(nth), s.page_size(), Advice::Dontneed);
                assert_eq!(dropped.is_ok(), memory.contains_key(&nth));
                memory.entry(nth).and_modify(|value| *value = 0);
            }
            (4, _) => {
                // Splits, and merges again where it can.
                let prot = s.k.sys_mprotect(s.cpu(task), page(nth), s.page_size(), VmFlags::READ);
                assert_eq!(prot.is_ok(), memory.contains_key(&nth));
                if prot.is_ok() {
                    assert!(s.try_write(task, page(nth), 1).is_err());
                    s.k.sys_mprotect(s.cpu(task), page(nth), s.page_size(), RW).unwrap();
                }
            }
            (5..12, _) => {
                let written = s.try_write(task, page(nth), step);
                assert_eq!(written.is_ok(), memory.contains_key(&nth));
                memory.entry(nth).and_modify(|value| *value = step);
            }
            _ => assert_eq!(s.try_read(task, page(nth)).ok(), memory.get(&nth).copied()),
        }
        if step % 50 == 0 {
            s.check();
        }
    }
    for (&task, memory) in &model {
        for nth in 0..PAGES {
            assert_eq!(s.try_read(task, page(nth)).ok(), memory.get(&nth).copied());
        }
        s.exit(task);
        s.check();
    }
    s.k.files_release(s.cpu(0), &[file.ptr()]);
    s.check_nothing_left();
    assert_eq!(s.k.pages.live(), 1, "{arch}");
}

#[test]
fn a_parent_that_writes_while_it_forks_loses_nothing() {
    // Goal: with real threads. The parent forks 100 children in turn while another of its
    // threads counts up; each child sees a count that is not above, and the last stays.
    const ROUNDS: u32 = 100;
    for spf in [true, false] {
        if spf { count_and_fork::<Spf>(ROUNDS) } else { count_and_fork::<Classic>(ROUNDS) }
    }
}

fn count_and_fork<D: Design>(rounds: u32) {
    use std::sync::atomic::{AtomicBool, Ordering};
    let config = Processes::<D>::idle("x86", 1 << 30).k.config.clone();
    let k: Kernel<native::Cpu, D> = Kernel::new(config);
    let machine = native::Machine::new(TASKS);
    let boot = machine.cpu(0, 0);
    k.start_process(&boot, &[0, 1]).unwrap();
    k.sys_brk(&boot, 0x1000, Some(A)).unwrap();
    drop(boot);
    let access = |cpu: &native::Cpu, access, value| k.user_access(cpu, A, access, value, true);
    let read = |cpu: &native::Cpu| access(cpu, Access::Read, 0).result.unwrap();
    let done = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let counter = scope.spawn(|| {
            let cpu = machine.cpu(1, 1);
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                count += 1;
                access(&cpu, Access::Write, count).result.unwrap();
                assert_eq!(read(&cpu), count, "a store was lost");
            }
            count
        });
        scope.spawn(|| {
            let (cpu, child) = (machine.cpu(0, 0), machine.cpu(2, 2));
            let mut last = 0;
            for _ in 0..rounds {
                k.sys_fork(&cpu, 2).unwrap();
                let seen = read(&child);
                assert!(last <= seen && seen <= read(&cpu));
                assert_eq!(read(&child), seen, "the child's page changed");
                last = seen;
                k.exit_mm(&child);
            }
            done.store(true, Ordering::Relaxed);
        });
        counter.join().unwrap()
    });
    let (first, second) = (machine.cpu(0, 0), machine.cpu(1, 1));
    assert_eq!(read(&first), count);
    k.exit_mm(&first);
    k.exit_mm(&second);
    assert_eq!(machine.finding(), None);
    assert_eq!(k.check_nothing_left(), []);
}
