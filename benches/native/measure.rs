//! How figures are taken: interleaved rounds, and medians.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::figures::{conclude, median};
use crate::os;

/// Runs every contestant once a round, one after the other, and returns the median of what each
/// measured: whatever slows the machine down for a while slows all of them.
pub fn interleaved<const N: usize>(
    rounds: usize,
    mut contestants: [&mut dyn FnMut() -> f64; N],
) -> [f64; N] {
    let mut seen = [const { Vec::new() }; N];
    for _ in 0..rounds {
        for (figures, contestant) in seen.iter_mut().zip(&mut contestants) {
            figures.push(contestant());
        }
    }
    seen.map(median)
}

/// Nanoseconds that each of `count` units of `work` took.
pub fn ns_each(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Nanoseconds that `work` took, and what it returned; `None` when the thread had to leave its CPU
/// meanwhile, as happens on a busy machine.
pub fn undisturbed<R>(work: impl FnOnce() -> R) -> Option<(f64, R)> {
    let on_cpu = os::thread_time_ns();
    let start = Instant::now();
    let result = work();
    let ns = start.elapsed().as_nanos() as f64;
    let on_cpu = (os::thread_time_ns() - on_cpu) as f64;
    (on_cpu >= 0.9 * ns).then_some((ns, result))
}

/// Lets threads begin together, again and again. Nobody sleeps here: waking up would take longer
/// than what is timed.
struct StartLine {
    nr_threads: u32,
    arrived: AtomicU32,
}

impl StartLine {
    fn wait(&self) {
        let before = self.arrived.fetch_add(1, Ordering::SeqCst);
        let all = before - before % self.nr_threads + self.nr_threads;
        while self.arrived.load(Ordering::SeqCst) < all {
            std::hint::spin_loop();
        }
    }
}

/// Times that each thread does its work in one round.
const PASSES: usize = 12;

/// One thread for each of `0..nr_threads`, on a CPU of its own, makes something with `new`, and then
/// a few times does `prepare` alone and `work` while all others work. `work` returns how many units
/// it did. Returns the units of all threads in a microsecond of work, while none had to leave its
/// CPU.
pub fn rate_together<T>(
    nr_threads: u32,
    new: impl Fn(u32) -> T + Sync,
    prepare: impl Fn(&T) + Sync,
    work: impl Fn(&T) -> usize + Sync,
) -> f64 {
    let start_line = StartLine { nr_threads, arrived: AtomicU32::new(0) };
    let thread = &|number| {
        os::run_on_cpu(number as usize);
        let mine = new(number);
        let pass = |_| {
            start_line.wait();
            // Once more than what is timed, for who waited for a CPU has cold caches. Whoever leaves
            // it again before the end makes the others wait, and then nothing counts.
            let timed = undisturbed(|| {
                prepare(&mine);
                work(&mine);
                prepare(&mine);
                start_line.wait();
                let start = Instant::now();
                let units = work(&mine);
                units as f64 * 1e3 / start.elapsed().as_nanos() as f64
            });
            timed.map(|(_, rate)| rate)
        };
        (0..PASSES).map(pass).collect::<Vec<Option<f64>>>()
    };
    loop {
        let rates: Vec<Vec<Option<f64>>> = std::thread::scope(|scope| {
            let start = |number| scope.spawn(move || thread(number));
            let threads: Vec<_> = (0..nr_threads).map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let of_all = |pass: usize| rates.iter().map(|rates| rates[pass]).sum::<Option<f64>>();
        let together: Vec<f64> = (0..PASSES).filter_map(of_all).collect();
        if !together.is_empty() {
            return median(together);
        }
    }
}

/// As [`crate::figures::against_bar`], for what this machine cannot measure.
pub fn skipped(what: &str, bar: &str, why: &str) {
    conclude(what, why, bar, "skipped");
}
