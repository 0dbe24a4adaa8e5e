//! Accesses beyond user space, arch by arch.

use super::*;
use crate::design::Spf;
use crate::events::Event;
use crate::mm::Access;
use crate::ops::access::{AccessOutcome, Handled};
use crate::support::World;

fn world(arch: &str) -> World<Spf> {
    World::boot_with(|config| {
        config.arch = Arch::builtin().into_iter().find(|a| a.name == arch).expect("a profile");
    })
}

/// What the access came to, and the faults counted.
fn read(world: &World<Spf>, address: u64, user: bool) -> (AccessOutcome, u64) {
    let faults = || world.k.current(&world.cpu).counters.snapshot()[Event::Faults as usize];
    let before = faults();
    let outcome = world.k.user_access(&world.cpu, address, Access::Read, 0, user);
    (outcome, faults() - before)
}

#[test]
fn each_arch_counts_and_signals_what_is_beyond_user_space_as_linux_does() {
    // x86:     user | 47 bits: kernel's guard page | not canonical ... | kernel
    // powerpc: user | no segment ... | c: linear | d: vmalloc | e: - | f: vmemmap
    let cases: &[(&str, u64, Signal, u64)] = &[
        ("x86", (1 << 47) - 4097, Signal::MAPERR, 1),
        ("x86", (1 << 47) - 4096, Signal::MAPERR, 0),
        ("x86", (1 << 47) - 1, Signal::MAPERR, 0),
        ("x86", 1 << 47, Signal::KERNEL, 0),
        ("x86", 0xffff_7fff_ffff_ffff, Signal::KERNEL, 0),
        ("x86", 0xffff_8000_0000_0000, Signal::MAPERR, 0),
        ("x86", u64::MAX, Signal::MAPERR, 0),
        ("x86-5level", 1 << 47, Signal::MAPERR, 1),
        ("x86-5level", (1 << 56) - 4097, Signal::MAPERR, 1),
        ("x86-5level", (1 << 56) - 4096, Signal::MAPERR, 0),
        ("x86-5level", 1 << 56, Signal::KERNEL, 0),
        ("x86-5level", 0xff00_0000_0000_0000, Signal::MAPERR, 0),
        ("arm64", (1 << 48) - 1, Signal::MAPERR, 1),
        ("arm64", 1 << 48, Signal::MAPERR, 0),
        ("arm64-64k", u64::MAX, Signal::MAPERR, 0),
        ("powerpc", (1 << 47) - 1, Signal::MAPERR, 1),
        ("powerpc", 1 << 47, Signal::BNDERR, 0),
        ("powerpc", 0xbfff_ffff_ffff_ffff, Signal::BNDERR, 0),
        ("powerpc", 0xc000_0000_0000_0000, Signal::MAPERR, 1),
        ("powerpc", 0xc001_ffff_ffff_ffff, Signal::MAPERR, 1),
        ("powerpc", 0xc002_0000_0000_0000, Signal::BNDERR, 0),
        ("powerpc-4k", 0xc000_4000_0000_0000, Signal::BNDERR, 0),
        ("powerpc", 0xd000_0000_0000_0000, Signal::MAPERR, 1),
        ("powerpc", 0xe000_0000_0000_0000, Signal::BNDERR, 0),
        ("powerpc", 0xf000_0000_0000_0000, Signal::MAPERR, 1),
        ("powerpc", u64::MAX, Signal::BNDERR, 0),
    ];
    for &(arch, address, signal, faults) in cases {
        let (outcome, counted) = read(&world(arch), address, true);
        assert_eq!(outcome.result, Err(AccessFailure::Signal(signal)), "{arch} {address:#x}");
        assert_eq!(counted, faults, "{arch} {address:#x}");
        let handled = if faults == 0 { Handled::None } else { Handled::Classic };
        assert_eq!(outcome.handled, handled, "{arch} {address:#x}");
    }
}

#[test]
fn the_kernel_does_not_even_try_beyond_user_space() {
    // access_ok() comes first; below its limit there is a fault, with nothing mapped.
    let cases = [
        ("x86", 1 << 47, 0),
        ("x86-5level", 1 << 47, 1),
        ("arm64", u64::MAX, 0),
        ("powerpc", 0xc000_0000_0000_0000, 0),
    ];
    for (arch, address, faults) in cases {
        let (outcome, counted) = read(&world(arch), address, false);
        assert_eq!(outcome.result, Err(AccessFailure::Efault), "{arch} {address:#x}");
        assert_eq!(counted, faults, "{arch} {address:#x}");
    }
}
