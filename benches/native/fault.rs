//! Bars 1 and 2: what one speculative fault costs, against the floor and against its twin.

use std::hint::black_box;

use spfemu_core::design::Spf;
use spfemu_core::mm::Vaddr;
use spfemu_core::platform::native::Cpu;

use crate::callgrind;
use crate::figures::{against_bar, figure};
use crate::floor::Floor;
use crate::layout::{self, NR_VMAS};
use crate::measure::{interleaved, ns_each, skipped};
use crate::process::{Process, WRITE};
use crate::twin::{self, Twin};

const ROUNDS: usize = 3000;

/// "Native, uncontended speculative fault of an anonymous page: at most 4×, aim 2×, of the floor."
/// The twin's time is there to be seen; its bar is about instructions.
pub fn times() {
    println!("\none speculative fault, nobody else there");
    let addresses = layout::all_pages();
    let nr_pages = addresses.len();
    let floor = Floor::new(1);
    let floor_cpu = floor.cpu(0, nr_pages);
    let twin = Twin::new(nr_pages);
    let twin_cpu = twin.cpu();
    let process = Process::<Spf>::new(2);
    let cpu = process.cpu(0);

    let mut of_floor = || {
        floor.reset(&floor_cpu, &addresses);
        ns_each(nr_pages, || {
            let changed = addresses.iter().filter(|&&at| floor.fault(&floor_cpu, at)).count();
            assert_eq!(changed, 0);
        })
    };
    let mut of_twin = || {
        let time = ns_each(nr_pages, || by_hand(&twin, &twin_cpu, &addresses));
        twin.reset(&twin_cpu, &addresses);
        time
    };
    let mut of_core = || {
        process.reset(&cpu, 0..NR_VMAS);
        ns_each(nr_pages, || in_core(&process, &cpu, &addresses))
    };
    let [floor_ns, twin_ns, core_ns] =
        interleaved(ROUNDS, [&mut of_floor, &mut of_twin, &mut of_core]);
    figure("the floor", floor_ns, "ns");
    figure("the fault written by hand", twin_ns, "ns");
    figure("the fault", core_ns, "ns");
    let ratio = core_ns / floor_ns;
    let measured = format!("{ratio:.2}x ({core_ns:.1} ns, floor {floor_ns:.1} ns)");
    against_bar("speculative fault / floor", measured, "<= 4x, aim 2x", ratio <= 4.0);
}

/// "The abstraction is free on native: within 10 % of the instructions of a twin."
pub fn instructions() {
    println!("\ninstructions of one speculative fault, by callgrind");
    let what = "instructions of a fault / twin";
    let counted = |function, which| callgrind::count(function, &["--counted", which]);
    match counted("in_core", "core").and_then(|core| Ok((core, counted("by_hand", "twin")?))) {
        Ok((core, twin)) => {
            let nr_faults = layout::all_pages().len() as f64;
            let (core, twin) = (core as f64 / nr_faults, twin as f64 / nr_faults);
            figure("the fault written by hand", twin, "");
            figure("the fault", core, "");
            let ratio = core / twin;
            let measured = format!("{ratio:.3} ({core:.0} against {twin:.0})");
            against_bar(what, measured, "<= 1.10", ratio <= 1.1);
        }
        Err(why) => skipped(what, "<= 1.10", &why),
    }
}

/// What callgrind watches: the second time, so that nothing is done for the first time.
pub fn counted(which: &str) {
    let addresses = layout::all_pages();
    if which == "twin" {
        let twin = Twin::new(addresses.len());
        let cpu = twin.cpu();
        addresses.iter().for_each(|&address| assert!(twin.fault(&cpu, address, black_box(WRITE))));
        twin.reset(&cpu, &addresses);
        by_hand(&twin, &cpu, &addresses);
    } else {
        let process = Process::<Spf>::new(2);
        let cpu = process.cpu(0);
        addresses.iter().for_each(|&address| assert!(process.fault(&cpu, address)));
        process.reset(&cpu, 0..NR_VMAS);
        in_core(&process, &cpu, &addresses);
    }
}

// What kind of fault it is comes from outside: else the compiler would make a copy for writes alone.

#[inline(never)]
fn by_hand(twin: &Twin, cpu: &twin::Cpu<'_>, addresses: &[u64]) {
    let code = black_box(WRITE);
    let is_speculative = |&&address: &&u64| twin.fault(cpu, address, code);
    assert_eq!(addresses.iter().filter(is_speculative).count(), addresses.len());
}

#[inline(never)]
fn in_core(process: &Process<Spf>, cpu: &Cpu, addresses: &[u64]) {
    let code = black_box(WRITE);
    let is_speculative =
        |&&at: &&u64| process.kernel.do_page_fault(cpu, Vaddr(at), code).speculative;
    assert_eq!(addresses.iter().filter(is_speculative).count(), addresses.len());
}
