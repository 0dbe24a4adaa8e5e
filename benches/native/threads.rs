//! Bars 4 and 5: two threads in different VMAs, and a thread beside one that maps and unmaps.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;
use spfemu_core::design::{Classic, Design, Spf};
use spfemu_core::ops::access::Handled;
use spfemu_core::ops::mmap::MapFlags;

use crate::figures::{against_bar, figure, median};
use crate::floor::Floor;
use crate::layout::{self, NR_VMAS, PAGE};
use crate::measure::{interleaved, rate_together, skipped, undisturbed};
use crate::os;
use crate::process::Process;

const ROUNDS: usize = 200;
const CHURN_ROUNDS: usize = 60;
/// Times that all pages are faulted in, in one round beside a churner.
const PASSES: usize = 20;

/// "Two threads in different VMAs: their speed-up over one thread at least 0.95 of the floor's own
/// two-thread speed-up." Where two CPUs are threads of one core, neither is twice as fast, and less
/// so what keeps the core busier by itself: two threads of two processes, which share nothing, show
/// how fast two could be.
pub fn two_threads() {
    println!("\ntwo threads in different VMAs and page tables of one process");
    let what = "two threads: speed-up / floor's";
    if os::nr_cpus() < 2 {
        return skipped(what, ">= 0.95", "one CPU");
    }
    let floor = Floor::new(2);
    let (one, other) = (Process::<Spf>::new(2), Process::<Spf>::new(2));
    let [floor_1, floor_2, core_1, core_2, apart_2] = interleaved(
        ROUNDS,
        [
            &mut || floor_rate(&floor, 1),
            &mut || floor_rate(&floor, 2),
            &mut || core_rate(&[&one]),
            &mut || core_rate(&[&one, &one]),
            &mut || core_rate(&[&one, &other]),
        ],
    );
    figure("the floor, one thread", floor_1, "million/s");
    figure("the floor, two threads", floor_2, "million/s");
    figure("the fault, one thread", core_1, "million/s");
    figure("the fault, two threads", core_2, "million/s");
    figure("the fault, two threads of two processes", apart_2, "million/s");
    let (floor, core, apart) = (floor_2 / floor_1, core_2 / core_1, apart_2 / core_1);
    let ratio = core / floor;
    let measured = format!("{ratio:.2} ({core:.2}x; floor {floor:.2}x, two processes {apart:.2}x)");
    against_bar(what, measured, ">= 0.95", ratio >= 0.95);
}

fn floor_rate(floor: &Floor, nr_threads: u32) -> f64 {
    rate_together(
        nr_threads,
        |number| {
            let addresses: Vec<u64> = layout::half(number).flat_map(layout::pages).collect();
            (floor.cpu(number as usize, addresses.len()), addresses)
        },
        |(cpu, addresses)| floor.reset(cpu, addresses),
        |(cpu, addresses)| {
            let changed = addresses.iter().filter(|&&address| floor.fault(cpu, address)).count();
            assert_eq!(changed, 0);
            addresses.len()
        },
    )
}

/// A thread for each of `processes`, which may be the same.
fn core_rate(processes: &[&Process<Spf>]) -> f64 {
    rate_together(
        processes.len() as u32,
        |number| {
            let addresses: Vec<u64> = layout::half(number).flat_map(layout::pages).collect();
            let process = processes[number as usize];
            (process, process.cpu(number), layout::half(number), addresses)
        },
        |(process, cpu, vmas, _)| process.reset(cpu, vmas.clone()),
        |(process, cpu, _, addresses)| {
            let speculative = addresses.iter().filter(|&&at| process.fault(cpu, at)).count();
            assert_eq!(speculative, addresses.len());
            addresses.len()
        },
    )
}

/// "Beside a mmap/munmap churner a speculative faulter keeps at least 70 % of its undisturbed rate,
/// and the report shows what classic keeps." What a churner in another process leaves shows how
/// much of the loss is the host's: two threads of one core, or a busy machine.
pub fn beside_a_churner() {
    println!("\na thread that writes pages, beside one that maps and unmaps 64 KiB without end");
    let what = "kept beside a churner";
    if os::nr_cpus() < 2 {
        return skipped(what, ">= 0.70", "one CPU");
    }
    let (spf, classic) = (Process::<Spf>::new(2), Process::<Classic>::new(2));
    let elsewhere = Process::<Spf>::new(2);
    let last = Cell::new(Round::default());
    let [spf_alone, spf_beside, spf_elsewhere, classic_alone, classic_beside] = interleaved(
        CHURN_ROUNDS,
        [
            &mut || beside(&spf, None::<&Process<Spf>>).rate,
            &mut || {
                last.set(beside(&spf, Some(&spf)));
                last.get().rate
            },
            &mut || beside(&spf, Some(&elsewhere)).rate,
            &mut || beside(&classic, None::<&Process<Classic>>).rate,
            &mut || beside(&classic, Some(&classic)).rate,
        ],
    );
    figure("spf, alone", spf_alone, "million/s");
    figure("spf, beside a churner in another process", spf_elsewhere, "million/s");
    figure("spf, beside a churner", spf_beside, "million/s");
    figure("    of these, speculative", 100.0 * last.get().speculative, "%");
    figure("    the churner's mappings", last.get().churned, "million/s");
    figure("classic, alone", classic_alone, "million/s");
    figure("classic, beside a churner", classic_beside, "million/s");
    let (spf, classic) = (spf_beside / spf_alone, classic_beside / classic_alone);
    let measured = format!("{spf:.2} (classic {classic:.2})");
    against_bar(what, measured, ">= 0.70", spf >= 0.7);
}

/// What a thread saw that wrote pages.
#[derive(Clone, Copy, Default)]
struct Round {
    /// Pages in a microsecond.
    rate: f64,
    /// Share of the writes whose fault was speculative.
    speculative: f64,
    /// Mappings that the other thread made and took away in a microsecond.
    churned: f64,
}

/// All pages written once.
struct Pass {
    ns: f64,
    speculative: usize,
    /// As in [`Round`].
    churned: f64,
}

/// Task 0 of `process` writes all pages again and again, while task 1 of the other process, if one
/// is given, churns. Only the writes are timed, not how the pages are taken away again.
fn beside<D: Design, E: Design>(process: &Process<D>, churner: Option<&Process<E>>) -> Round {
    let is_over = CachePadded::new(AtomicBool::new(false));
    let nr_churned = CachePadded::new(AtomicU64::new(0));
    let mut passes = thread::scope(|scope| {
        if let Some(churner) = churner {
            scope.spawn(|| churn(churner, &is_over, &nr_churned));
        }
        let faulter = scope.spawn(|| {
            let counts = |pass: &Pass| churner.is_none() || pass.churned > 0.0;
            let passes = write_all_pages(process, &nr_churned).filter(counts).take(PASSES);
            let passes = passes.collect::<Vec<Pass>>();
            is_over.store(true, Ordering::Relaxed);
            passes
        });
        faulter.join().expect("no panic")
    });
    // On a busy machine the churner does not run all the time; while it does not, nobody is
    // disturbed by it.
    let most = passes.iter().map(|pass| pass.churned).fold(0.0, f64::max);
    passes.retain(|pass| pass.churned >= most / 2.0);
    let speculative: usize = passes.iter().map(|pass| pass.speculative).sum();
    let nr_writes = passes.len() * layout::all_pages().len();
    let ns = median(passes.iter().map(|pass| pass.ns).collect());
    Round {
        rate: layout::all_pages().len() as f64 * 1e3 / ns,
        speculative: speculative as f64 / nr_writes as f64,
        churned: median(passes.iter().map(|pass| pass.churned).collect()),
    }
}

/// Task 0 of `process` writes all pages, and again.
fn write_all_pages<D: Design>(
    process: &Process<D>,
    nr_churned: &AtomicU64,
) -> impl Iterator<Item = Pass> {
    os::run_on_cpu(0);
    let addresses = layout::all_pages();
    let cpu = process.cpu(0);
    std::iter::repeat_with(move || {
        process.reset(&cpu, 0..NR_VMAS);
        let churned = nr_churned.load(Ordering::Relaxed);
        let by_spf = |&&address: &&u64| process.write(&cpu, address) == Handled::Spf;
        let (ns, speculative) = undisturbed(|| addresses.iter().filter(by_spf).count())?;
        let churned = nr_churned.load(Ordering::Relaxed) - churned;
        Some(Pass { ns, speculative, churned: churned as f64 * 1e3 / ns })
    })
    .flatten()
}

/// Task 1 of `process` maps and unmaps until all is over.
fn churn<D: Design>(process: &Process<D>, is_over: &AtomicBool, nr_churned: &AtomicU64) {
    os::run_on_cpu(1);
    let cpu = process.cpu(1);
    while !is_over.load(Ordering::Relaxed) {
        let address = process.mmap(&cpu, 0, 16 * PAGE, MapFlags::default());
        process.between_operations(&cpu);
        process.kernel.sys_munmap(&cpu, address, 16 * PAGE).expect("mapped");
        process.between_operations(&cpu);
        nr_churned.fetch_add(1, Ordering::Relaxed);
    }
}
