use super::*;
use crate::design::{Classic, Spf};
use crate::mm::Mm;
use crate::ops::process::Processes;
use crate::ops::turns::Cpu;
use crate::platform::Ptr;

const A: u64 = 0x1000_0000;

/// An exec with no other tasks to end.
fn exec<D: Design>(s: &Processes<D>, task: u32, brk_start: Option<u64>) -> Result<(), Errno> {
    s.k.sys_exec(s.cpu(task), brk_start, || Ok::<_, ()>(())).unwrap()
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
    assert_eq!(s.k.sys_exec(s.cpu(0), None, never), Ok(Err(Errno::Enomem)));
    let end_other = || {
        s.exit(1);
        Ok::<_, ()>(())
    };
    assert_eq!(s.k.sys_exec(s.cpu(0), None, end_other), Ok(Ok(())));
    s.check();
    assert_eq!(s.k.mms.live(), 1);
}

#[test]
fn a_task_that_is_ended_while_it_execs_keeps_the_old_address_space_until_it_exits() {
    let s = Processes::<Spf>::new();
    let old = s.mm(0).ptr();
    assert_eq!(s.k.sys_exec(s.cpu(0), None, || Err("killed")), Err("killed"));
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
            Err(errno) => assert_eq!(errno, Errno::Enomem),
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
    assert_eq!(exec(&s, 0, None), Err(Errno::Enomem));
    s.check();
}
