//! The litmus under loom: every execution that its memory model and its reduction leave.
//!
//! The writer is the main thread, so that none is spawned that the litmus does not need.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Counter, Ordering as Std};

use loom::model::Builder;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

use crate::litmus::{NR_WORDS, Words, Writer, read, write};

struct Atomics([AtomicU64; NR_WORDS]);

impl Words for Atomics {
    fn load(&self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }
    fn store(&self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Relaxed);
    }
    fn rmb(&self) {
        fence(Ordering::Acquire);
    }
    fn wmb(&self) {
        fence(Ordering::Release);
    }
}

fn litmus(writer: Writer, nr_readers: usize) {
    let words = Arc::new(Atomics(std::array::from_fn(|_| AtomicU64::new(0))));
    let reader = |_| {
        let words = Arc::clone(&words);
        thread::spawn(move || read(&*words))
    };
    let readers: Vec<_> = (0..nr_readers).map(reader).collect();
    write(&*words, writer);
    readers.into_iter().for_each(|reader| reader.join().expect("no reader has panicked"));
}

/// Runs every execution: how many, or none if one panicked.
pub fn all(writer: Writer, nr_readers: usize) -> Option<u64> {
    let executions = Arc::new(Counter::new(0));
    let counted = Arc::clone(&executions);
    let run = || {
        Builder::new().check(move || {
            counted.fetch_add(1, Std::Relaxed);
            litmus(writer, nr_readers);
        });
    };
    catch_unwind(AssertUnwindSafe(run)).ok()?;
    Some(executions.load(Std::Relaxed))
}
