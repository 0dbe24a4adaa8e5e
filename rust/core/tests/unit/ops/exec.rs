use super::*;
use crate::design::{Classic, Spf};
use crate::mm::Mm;
use crate::platform::Ptr;

#[path = "process.rs"]
mod process;
#[path = "turns.rs"]
mod turns;
use process::Processes;
use turns::Cpu;

const A: u64 = 0x1000_0000;

fn a_fresh_address_space<D: Design>() {
    let s = Processes::<D>::new();
    s.map(0, A, 4);
    s.write(0, A, 1);
    s.k.sys_brk(s.cpu(0), 0x1000, None).unwrap();
    let old: Ptr<Mm<Cpu>> = s.mm(0).ptr();
    assert_eq!(s.k.sys_exec(s.cpu(0), Some(0x2000_0000)), Ok(()));
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
    assert_eq!(s.k.sys_exec(s.cpu(1), None), Ok(()));
    assert_eq!((s.mm(0).mm_users().peek(), s.mm(1).mm_users().peek()), (1, 1));
    assert_eq!(s.read(0, A), 2);
    assert!(s.try_read(1, A).is_err());
    s.check();
    s.exit(1);
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
        match s.k.sys_exec(s.cpu(0), None) {
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
    assert_eq!(s.k.sys_exec(s.cpu(0), None), Err(Errno::Enomem));
    s.check();
}
