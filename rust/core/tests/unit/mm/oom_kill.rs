use super::*;
use crate::design::Spf;
use crate::mm::{FileKind, Signal};
use crate::ops::access::AccessFailure;
use crate::ops::mmap::MapFlags;
use crate::support::{BASE, PAGE, R, RW, World, swap_of};

const SIGBUS: Result<u64, AccessFailure> = Err(AccessFailure::Signal(Signal::ADRERR));

#[test]
fn private_memory_goes_and_no_zeroes_come_in_its_place() {
    let w = World::<Spf>::boot_with(|config| config.system.swap = Some(swap_of(64)));
    let file = w.file(32, FileKind::Regular);
    w.map_fixed(BASE, 3 * PAGE, RW);
    assert_eq!((w.write(BASE, 1), w.write(BASE + PAGE, 2)), (Ok(0), Ok(0)));
    w.k.swap_out(&w.cpu, BASE + PAGE, PAGE, false).unwrap();
    let mut args = w.anonymous(BASE + 64 * PAGE, 32 * PAGE);
    args.file = file.ptr();
    args.flags = MapFlags(MapFlags::SHARED.0 | MapFlags::FIXED.0);
    w.k.sys_mmap(&w.cpu, &args).unwrap();
    assert_eq!(w.write(BASE + 64 * PAGE, 3), Ok(0));
    w.k.oom_reap(&w.cpu);
    for page in 0..3 {
        assert_eq!((w.read(BASE + page * PAGE), w.write(BASE + page * PAGE, 1)), (SIGBUS, SIGBUS));
    }
    assert_eq!(w.read(BASE + 64 * PAGE), Ok(3));
    assert_eq!(w.read(BASE + 65 * PAGE), Ok(0), "shared memory was not lost");
    w.check();
    w.close(&[file]);
    w.end();
}

#[test]
fn locked_memory_stays() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, 2 * PAGE, RW);
    assert_eq!(w.write(BASE, 1), Ok(0));
    w.k.sys_mlock(&w.cpu, BASE, PAGE, false).unwrap();
    w.k.oom_reap(&w.cpu);
    assert_eq!((w.read(BASE), w.read(BASE + PAGE)), (Ok(1), SIGBUS));
    w.check();
    w.end();
}

#[test]
fn beside_a_writer_there_is_nothing_to_be_had_and_it_is_not_tried_again() {
    let w = World::<Spf>::boot();
    w.map_fixed(BASE, PAGE, R);
    assert_eq!(w.read(BASE), Ok(0));
    let sem = w.k.mmap_sem(w.mm());
    sem.down_write(&w.cpu);
    w.k.oom_reap(&w.cpu);
    sem.up_write(&w.cpu);
    assert_eq!(w.mm().flags().peek(), MMF_OOM_SKIP);
    w.k.oom_reap(&w.cpu);
    assert_eq!(w.mm().flags().peek(), MMF_OOM_SKIP);
    w.check();
    w.end();
}
