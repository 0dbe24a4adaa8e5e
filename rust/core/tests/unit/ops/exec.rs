use super::*;
use crate::design::{Classic, Spf};
use crate::mm::Mm;
use crate::ops::process::Processes;
use crate::ops::turns::Cpu;
use crate::platform::Ptr;

const A: u64 = 0x1000_0000;
const NO_MEMORY: ExecFailure = ExecFailure::Errno(Errno::Enomem);
const TOO_BIG: ExecFailure = ExecFailure::Errno(Errno::E2big);

/// An exec with no other tasks to end.
fn exec<D: Design>(s: &Processes<D>, task: u32, brk_start: Option<u64>) -> Result<(), ExecFailure> {
    exec_with(s, task, ExecArgs { brk_start, ..ExecArgs::default() })
}

fn exec_with<D: Design>(s: &Processes<D>, task: u32, args: ExecArgs) -> Result<(), ExecFailure> {
    s.k.sys_exec(s.cpu(task), args, || Ok::<_, ()>(())).unwrap()
}

fn a_fresh_address_space<D: Design>() {
    let s = Processes::<D>::new();
    s.map(0, A, 4);
    s.write(0, A, 1);
    s.k.sys_brk(s.cpu(0), 0x1000, None).unwrap();
    let old: Ptr<Mm<Cpu>> = s.mm(0).ptr();
    assert_eq!(exec(&s, 0, Some(0x2000_0000)), Ok(()));
    s.check();
    assert!(!s.k.mms.is_live(old));
    assert_eq!((s.maps(0).len(), s.k.mms.live(), s.mm(0).mm_users().peek()), (0, 1, 1));
    assert!(s.try_read(0, A).is_err());
    assert_eq!(s.k.sys_brk(s.cpu(0), 0x1000, None), Ok(0x2000_1000));
    s.map(0, A, 4);
    assert_eq!(s.read(0, A), 0, "nothing of the old one is found, in no cache");
    s.exit(0);
    s.check_nothing_left();
}

#[test]
fn exec_leaves_everything_behind() {
    a_fresh_address_space::<Spf>();
    a_fresh_address_space::<Classic>();
}

#[test]
fn a_vfork_child_leaves_the_shared_address_space() {
    let s = Processes::<Spf>::new();
    s.map(0, A, 4);
    s.write(0, A, 1);
    s.k.sys_clone_vm(s.cpu(0), 1);
    s.write(1, A, 2);
    assert_eq!(exec(&s, 1, None), Ok(()));
    assert_eq!((s.mm(0).mm_users().peek(), s.mm(1).mm_users().peek()), (1, 1));
    assert_eq!(s.read(0, A), 2);
    assert!(s.try_read(1, A).is_err());
    s.check();
    s.exit(1);
    s.exit(0);
    s.check_nothing_left();
}

#[test]
fn the_other_tasks_end_once_the_new_address_space_is_there() {
    let s = Processes::<Spf>::new();
    s.k.sys_clone_vm(s.cpu(0), 1);
    s.k.mms.fail_after(0);
    let never = || -> Result<(), ()> { panic!("ended the others for nothing") };
    assert_eq!(s.k.sys_exec(s.cpu(0), ExecArgs::default(), never), Ok(Err(NO_MEMORY)));
    let end_other = || {
        s.exit(1);
        Ok::<_, ()>(())
    };
    assert_eq!(s.k.sys_exec(s.cpu(0), ExecArgs::default(), end_other), Ok(Ok(())));
    s.check();
    assert_eq!(s.k.mms.live(), 1);
}

#[test]
fn a_task_that_is_ended_while_it_execs_keeps_the_old_address_space_until_it_exits() {
    let s = Processes::<Spf>::new();
    let old = s.mm(0).ptr();
    assert_eq!(s.k.sys_exec(s.cpu(0), ExecArgs::default(), || Err("killed")), Err("killed"));
    assert_eq!((s.mm(0).ptr(), s.k.mms.live()), (old, 1));
    s.check();
    s.exit(0);
    s.check_nothing_left();
}

#[test]
fn without_memory_the_old_address_space_stays() {
    let mut failures = 0;
    for frames in 2.. {
        let s = Processes::<Spf>::on("x86", frames << 12);
        s.map(0, A, 1);
        if s.try_write(0, A, 1).is_err() {
            continue;
        }
        let live = s.k.pages.live();
        match exec(&s, 0, None) {
            Ok(()) => break,
            Err(failure) => assert_eq!(failure, NO_MEMORY),
        }
        failures += 1;
        assert_eq!((s.read(0, A), s.k.pages.live(), s.k.mms.live()), (1, live, 1));
        s.check();
        s.exit(0);
        s.check_nothing_left();
    }
    assert_eq!(failures, 1, "only the top page table is allocated");
    let s = Processes::<Spf>::new();
    s.k.mms.fail_after(0);
    assert_eq!(exec(&s, 0, None), Err(NO_MEMORY));
    s.check();
}

const TOP: u64 = (1 << 47) - 4096;
const PAGE: u64 = 4096;
const HUGE: u64 = 2 << 20;

fn stack(stack: u64, stack_shift: u64) -> ExecArgs {
    ExecArgs { brk_start: None, stack, stack_shift }
}

/// The start of the only VMA, and its end.
fn bounds<D: Design>(s: &Processes<D>, task: u32) -> (u64, u64) {
    let vma = s.k.vmas.get(s.cpu(task), s.mm(task).mmap().peek());
    assert!(vma.vm_next().peek().is_null());
    (vma.vm_start().peek().0, vma.vm_end().peek().0)
}

/// exec with so many bytes, and where the pages are afterwards, as numbers from the stack's end.
fn pages_of_a_stack<D: Design>(args: ExecArgs) -> (u64, Vec<u64>) {
    let s = Processes::<D>::new();
    s.map(0, A, 4);
    assert_eq!(exec_with(&s, 0, args), Ok(()));
    s.check();
    let (start, end) = bounds(&s, 0);
    assert_eq!(end, TOP - args.stack_shift);
    let mapped: Vec<u64> =
        (1..=(end - start) / PAGE).filter(|page| s.is_mapped(0, end - page * PAGE)).collect();
    let vma = s.k.vmas.get(s.cpu(0), s.mm(0).mmap().peek());
    assert_eq!(vma.vm_flags().peek(), VM_STACK_FLAGS);
    assert_eq!(s.mm(0).total_vm().peek(), (end - start) / PAGE);
    s.write(0, start - 1, 7); // it grows
    assert_eq!(s.read(0, end - PAGE), 0);
    s.check();
    s.exit(0);
    s.check_nothing_left();
    ((end - start) / PAGE, mapped)
}

#[test]
fn arguments_lie_below_a_null_pointer_and_have_128k_to_grow_into() {
    for shift in [0, PAGE, 17 * PAGE, HUGE, 511 * PAGE, 3 * HUGE + PAGE, MAX_SHIFT] {
        for (bytes, pages) in [(1, 1), (PAGE - 8, 1), (PAGE - 7, 2), (128 << 10, 33)] {
            let found = pages_of_a_stack::<Spf>(stack(bytes, shift));
            assert_eq!(found, (pages + 32, (1..=pages).collect()), "{bytes} {shift:#x}");
            assert_eq!(pages_of_a_stack::<Classic>(stack(bytes, shift)), found);
        }
    }
}
const MAX_SHIFT: u64 = 16 << 30;

#[test]
fn a_shift_is_cut_to_whole_pages() {
    let s = Processes::<Spf>::new();
    assert_eq!(exec_with(&s, 0, stack(1, 2 * PAGE + 1)), Ok(()));
    assert_eq!(bounds(&s, 0).1, TOP - 2 * PAGE, "PAGE_ALIGN() of where it is to end");
}

#[test]
fn the_stack_that_moves_covers_both_places_and_is_no_place_for_huge_pages() {
    let s = Processes::<Spf>::new();
    let watch = |k: &Kernel<Cpu, Spf>| k.mm_of(0).map(|mm| k.maps(mm));
    let seen = s.watch(watch, || assert_eq!(exec_with(&s, 0, stack(1, 3 * PAGE)), Ok(())));
    let moving = seen.into_iter().find(|(step, _)| *step == "move_page_tables").unwrap().1.unwrap();
    let both = format!("{:08x}-{TOP:08x} rw-p ", TOP - 4 * PAGE);
    assert!(moving.len() == 1 && moving[0].starts_with(&both), "{moving:?}");
    let flags = VM_STACK_FLAGS | VmFlags::HUGEPAGE;
    assert!(s.k.transparent_hugepage_enabled(flags));
    assert!(!s.k.transparent_hugepage_enabled(flags | VM_STACK_INCOMPLETE_SETUP));
}

#[test]
fn more_than_a_quarter_of_the_limit_or_128k_is_too_much() {
    for (limit, most) in [(8 << 20, 2 << 20), (64 << 20, 6 << 20), (64 << 10, (64 << 10) - 8)] {
        let s = Processes::<Spf>::with_stack_limit(limit);
        let live = s.k.mms.live();
        assert_eq!(exec_with(&s, 0, stack(most + 1, 0)), Err(TOO_BIG));
        assert_eq!(s.k.mms.live(), live);
        assert_eq!(exec_with(&s, 0, stack(most, PAGE)), Ok(()));
        s.check();
    }
}

/// Task 1 execs with `args`, for every number of frames until that succeeds, while task 0 keeps the
/// old address space. Returns how often there was too little for its pages, and for its move.
fn with_little_memory(args: ExecArgs) -> (u32, u32) {
    let (mut too_big, mut killed) = (0, 0);
    for frames in 2.. {
        let s = Processes::<Spf>::on("x86", frames << 12);
        s.k.sys_clone_vm(s.cpu(0), 1);
        s.map(0, A, 1);
        if s.try_write(0, A, 1).is_err() {
            continue;
        }
        let live = s.k.pages.live();
        let result = exec_with(&s, 1, args);
        if result.is_ok() {
            return (too_big, killed);
        }
        let stayed = s.mm(1).ptr() == s.mm(0).ptr();
        assert_eq!(stayed, result != Err(ExecFailure::Killed));
        killed += u32::from(!stayed);
        too_big += u32::from(result == Err(TOO_BIG));
        s.exit(1);
        assert_eq!((s.read(0, A), s.k.pages.live()), (1, live));
        s.check();
        s.exit(0);
        s.check_nothing_left();
    }
    unreachable!("some memory is enough")
}

#[test]
fn without_memory_for_its_pages_it_is_e2big_and_for_its_move_the_task_is_killed() {
    // From two page tables to two others.
    let (too_big, killed) = with_little_memory(stack(3 * PAGE, (1 << 30) - PAGE));
    assert!(too_big > 3 && killed > 1, "{too_big} {killed}");
    // Whole tables move, to places that overlap, before memory ends: nothing is lost.
    let (too_big, killed) = with_little_memory(stack((2 << 20) - PAGE, 511 * PAGE));
    assert!(too_big > 500, "{too_big} {killed}");
}

#[test]
fn whole_tables_that_moved_before_memory_ended_go_with_the_task() {
    for frames in 1500..1560 {
        let s = Processes::<Spf>::with_stack_limit_and(32 << 20, frames << 12);
        let _ = exec_with(&s, 0, stack((6 << 20) - 2 * PAGE, HUGE));
        s.exit(0);
        s.check_nothing_left();
    }
}

#[test]
fn a_small_user_space_has_little_room() {
    let room = |task_size: u64, bytes, shift| {
        let s = Processes::<Spf>::with_task_size(task_size);
        let result = exec_with(&s, 0, stack(bytes, shift));
        s.exit(0);
        s.check_nothing_left();
        result
    };
    assert_eq!(room(1 << 20, 1, 0), Ok(()));
    // 128 KiB lower it would begin below 0: that wraps, and is nothing to grow to.
    assert_eq!(room(1 << 20, 1, (1 << 20) - 0x12000), Ok(()));
    // There it would begin below vm.mmap_min_addr.
    assert_eq!(room(1 << 20, 1, (1 << 20) - 0x22000), Err(ExecFailure::Killed));
    assert_eq!(room(1 << 20, 1, (1 << 20) - 0x10000), Err(ExecFailure::Killed));
    assert_eq!(room(1 << 20, 1, 1 << 21), Err(ExecFailure::Killed));
    assert_eq!(room(0x12000, 128 << 10, 0), Err(TOO_BIG));
}
