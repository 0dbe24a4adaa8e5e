use super::*;
use crate::arch::Family;
use crate::design::Spf;
use crate::mm::Pte;
use crate::support::{BASE, PAGE, RW, World};

#[test]
fn other_numbers_are_refused() {
    let w = World::<Spf>::boot();
    for what in [0, 6, u64::MAX] {
        assert_eq!(w.k.clear_refs(&w.cpu, what), Err(Errno::Einval));
    }
    for what in 1..=5 {
        assert_eq!(w.k.clear_refs(&w.cpu, what), Ok(()));
    }
    w.check();
    w.end();
}

#[test]
fn arm64_does_not_track_writes() {
    let w = World::<Spf>::boot_with(|config| config.arch.family = Family::Arm64);
    w.map_fixed(BASE, PAGE, RW);
    assert_eq!(w.write(BASE, 1), Ok(0));
    w.k.clear_refs(&w.cpu, 4).unwrap();
    assert!(w.pte(BASE).has(Pte::WRITE));
    w.check();
    w.end();
}
