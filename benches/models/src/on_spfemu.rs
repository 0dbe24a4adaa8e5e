//! The litmus under spfemu's explorer.

use std::rc::Rc;
use std::sync::Arc;

use spfemu_core::explore::{Cpu, ExploreOptions, Explorer, MemoryModel, Search, Subject};
use spfemu_core::platform::{Fence, Field, Finding, Lines, Ordering, Platform, Word};
use spfemu_core::program::Watch;
use spfemu_core::sync::seqcount::{
    raw_read_seqcount, raw_write_seqcount_begin, raw_write_seqcount_end, read_seqcount_retry,
};

use crate::litmus::{NR_WORDS, SEQUENCE, Words, Writer, read, write};

/// Task 0 is the writer, all others are readers.
struct Litmus {
    words: [Word<Cpu>; NR_WORDS],
    writer: Writer,
    nr_readers: usize,
}

/// The words, as one CPU accesses them.
struct OnCpu<'a> {
    cpu: &'a Cpu,
    words: &'a [Word<Cpu>; NR_WORDS],
}

impl<'a> OnCpu<'a> {
    fn sequence(&self) -> Field<'a, Cpu, u64> {
        Field::permanent(&self.words[SEQUENCE])
    }
}

impl Words for OnCpu<'_> {
    fn load(&self, word: usize) -> u64 {
        self.cpu.load(&self.words[word], Ordering::Relaxed)
    }
    fn store(&self, word: usize, value: u64) {
        self.cpu.store(&self.words[word], value, Ordering::Relaxed);
    }
    fn rmb(&self) {
        self.cpu.fence(Fence::Read);
    }
    fn wmb(&self) {
        self.cpu.fence(Fence::Write);
    }
    fn read_begin(&self) -> u64 {
        raw_read_seqcount(self.cpu, self.sequence())
    }
    fn read_retry(&self, start: u64) -> bool {
        read_seqcount_retry(self.cpu, self.sequence(), start)
    }
    fn write_begin(&self) {
        raw_write_seqcount_begin(self.cpu, self.sequence());
    }
    fn write_end(&self) {
        raw_write_seqcount_end(self.cpu, self.sequence());
    }
}

impl Subject for Litmus {
    fn nr_tasks(&self) -> u32 {
        1 + self.nr_readers as u32
    }
    /// Tokens are not kept.
    fn fingerprint(&self) -> u64 {
        0
    }
    fn lines(&self) -> Option<Arc<Lines>> {
        None
    }
    fn reset(&self, _cpus: &[Rc<Cpu>]) {
        self.words.iter().for_each(|word| word.poke(0));
    }
    fn run_task(&self, cpu: &Cpu) {
        let words = OnCpu { cpu, words: &self.words };
        if cpu.task() == 0 { write(&words, self.writer) } else { read(&words) }
    }
    fn check(&self, _cpus: &[Rc<Cpu>]) -> Vec<Finding> {
        Vec::new()
    }
}

/// Runs as many schedules as there are, or as `options` allow: how many, or none if one panicked.
fn explore(options: ExploreOptions, writer: Writer, nr_readers: usize) -> Option<u64> {
    let lines = Lines::default();
    let words = std::array::from_fn(|_| Word::new(lines.take(1), 0));
    let subject = Rc::new(Litmus { words, writer, nr_readers });
    let options = ExploreOptions { max_violations: 1, ..options };
    let mut explorer = Explorer::new(subject, options, &Arc::<Watch>::default()).expect("fits");
    let report = explorer.explore();
    report.violations.is_empty().then_some(report.schedules)
}

pub fn random(writer: Writer, nr_readers: usize, schedules: usize) -> Option<u64> {
    some(Search::Random { seed: 1 }, writer, nr_readers, schedules)
}

pub fn pct(writer: Writer, nr_readers: usize, schedules: usize, depth: usize) -> Option<u64> {
    some(Search::Pct { seed: 1, depth: depth as u32 }, writer, nr_readers, schedules)
}

fn some(search: Search, writer: Writer, nr_readers: usize, schedules: usize) -> Option<u64> {
    let max_schedules = Some(schedules as u64);
    let options = ExploreOptions { search, max_schedules, ..ExploreOptions::default() };
    explore(options, writer, nr_readers)
}

/// Every schedule, of those that lead to the same only one if it is to `reduce`.
pub fn all(
    writer: Writer,
    nr_readers: usize,
    reduce: bool,
    memory_model: MemoryModel,
) -> Option<u64> {
    let search = Search::Dfs { preemptions: None, reduce };
    let options = ExploreOptions { search, memory_model, ..ExploreOptions::default() };
    explore(options, writer, nr_readers)
}
