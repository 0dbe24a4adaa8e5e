//! The litmus under shuttle.
//!
//! The writer is the main thread, so that none is spawned that the litmus does not need.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicU64, Ordering, fence};
use shuttle::{Config, FailurePersistence, Runner, thread};

use crate::litmus::{NR_WORDS, Words, Writer, read, write};

/// What it takes for any order, it treats as sequentially consistent; so nothing weaker is asked for.
const ORDER: Ordering = Ordering::SeqCst;

struct Atomics([AtomicU64; NR_WORDS]);

impl Words for Atomics {
    fn load(&self, word: usize) -> u64 {
        self.0[word].load(ORDER)
    }
    fn store(&self, word: usize, value: u64) {
        self.0[word].store(value, ORDER);
    }
    fn rmb(&self) {
        fence(ORDER);
    }
    fn wmb(&self) {
        fence(ORDER);
    }
}

fn litmus(writer: Writer, nr_readers: usize) {
    let words = Arc::new(Atomics([const { AtomicU64::new(0) }; NR_WORDS]));
    let reader = |_| {
        let words = Arc::clone(&words);
        thread::spawn(move || read(&*words))
    };
    let readers: Vec<_> = (0..nr_readers).map(reader).collect();
    write(&*words, writer);
    readers.into_iter().for_each(|reader| reader.join().expect("no reader has panicked"));
}

/// Runs as many executions as the scheduler wants: how many, or none if one panicked.
fn check(scheduler: impl Scheduler + 'static, writer: Writer, nr_readers: usize) -> Option<u64> {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::None;
    let runner = Runner::new(scheduler, config);
    let run = || runner.run(move || litmus(writer, nr_readers)) as u64;
    catch_unwind(AssertUnwindSafe(run)).ok()
}

/// As `shuttle::check_random`, of a given seed.
pub fn random(writer: Writer, nr_readers: usize, schedules: usize) -> Option<u64> {
    check(RandomScheduler::new_from_seed(1, schedules), writer, nr_readers)
}

/// As `shuttle::check_pct`, of a given seed.
pub fn pct(writer: Writer, nr_readers: usize, schedules: usize, depth: usize) -> Option<u64> {
    check(PctScheduler::new_from_seed(1, depth, schedules), writer, nr_readers)
}

/// As `shuttle::check_dfs`: every schedule.
pub fn all(writer: Writer, nr_readers: usize) -> Option<u64> {
    check(DfsScheduler::new(None, false), writer, nr_readers)
}
