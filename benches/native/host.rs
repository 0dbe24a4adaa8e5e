//! Bar 3: the native engine against the kernel that it runs on.

use spfemu_core::design::Spf;
use spfemu_core::ops::access::Handled;

use crate::figures::{against_bar, figure};
use crate::layout::{self, NR_VMAS};
use crate::measure::{interleaved, rate_together};
use crate::os::{self, Area};
use crate::process::Process;

const ROUNDS: usize = 60;

/// "At least 20x the host kernel's own minor-fault rate, same thread count and access pattern":
/// each thread writes one word of each page of its own anonymous memory, which has its page tables
/// and had its pages taken away by MADV_DONTNEED. The main thread exists beside them, in both.
pub fn against_the_host() {
    println!("\nfirst writes to pages, against the host's kernel");
    for nr_threads in 1..=os::nr_cpus().min(2) as u32 {
        let areas: Vec<Area> = (0..nr_threads).map(|_| Area::new(NR_PAGES)).collect();
        // The main thread is a task, too.
        let process = Process::<Spf>::new(nr_threads + 1);
        let [host, core] = interleaved(
            ROUNDS,
            [&mut || host_rate(&areas), &mut || core_rate(&process, nr_threads)],
        );
        let threads = if nr_threads == 1 { "one thread" } else { "two threads" };
        let ns = |rate: f64| 1e3 * f64::from(nr_threads) / rate;
        figure(&format!("the host, {threads}"), host, "million/s");
        figure(&format!("native, {threads}"), core, "million/s");
        let ratio = core / host;
        let measured = format!("{ratio:.1}x ({:.0} ns a write, host {:.0} ns)", ns(core), ns(host));
        against_bar(&format!("native / host, {threads}"), measured, ">= 20x", ratio >= 20.0);
    }
}

const NR_PAGES: usize = NR_VMAS / 2 * (layout::PAGES_PER_VMA as usize - 1);

fn host_rate(areas: &[Area]) -> f64 {
    rate_together(
        areas.len() as u32,
        |number| &areas[number as usize],
        |area| area.take_pages_away(),
        |area| {
            area.write_each_page();
            NR_PAGES
        },
    )
}

fn core_rate(process: &Process<Spf>, nr_threads: u32) -> f64 {
    rate_together(
        nr_threads,
        |number| {
            let vmas = layout::half(number);
            let addresses: Vec<u64> = vmas.clone().flat_map(layout::pages).collect();
            (process.cpu(number), vmas, addresses)
        },
        |(cpu, vmas, _)| process.reset(cpu, vmas.clone()),
        |(cpu, _, addresses)| {
            let by_spf = |&&address: &&u64| process.write(cpu, address) == Handled::Spf;
            assert_eq!(addresses.iter().filter(by_spf).count(), NR_PAGES);
            NR_PAGES
        },
    )
}
