//! The litmus, once for all explorers: a writer changes two words under a sequence count, readers
//! read both and give up if they met the writer.

pub const NR_WORDS: usize = 3;
/// The sequence count, …
pub const SEQUENCE: usize = 0;
/// … and the two words that belong together.
const DATA: [usize; 2] = [1, 2];

/// How the writer goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Right,
    /// Broken: the count is still even while it writes.
    WithoutBegin,
    /// Broken where memory is weak.
    WithoutBarriers,
}

/// Three words under an explorer: accesses without an order of their own, and the kernel's barriers
/// for reads and for writes.
///
/// The sequence count is that of `rust/core/src/sync/seqcount.rs`, access by access: its increments
/// are a load and a store.
pub trait Words {
    fn load(&self, word: usize) -> u64;
    fn store(&self, word: usize, value: u64);
    fn rmb(&self);
    fn wmb(&self);

    fn read_begin(&self) -> u64 {
        let sequence = self.load(SEQUENCE);
        self.rmb();
        sequence
    }

    fn read_retry(&self, start: u64) -> bool {
        self.rmb();
        self.load(SEQUENCE) != start
    }

    fn write_begin(&self) {
        self.increment();
        self.wmb();
    }

    fn write_end(&self) {
        self.wmb();
        self.increment();
    }

    fn increment(&self) {
        let sequence = self.load(SEQUENCE);
        self.store(SEQUENCE, sequence + 1);
    }
}

/// Six accesses, four if it is [`Writer::WithoutBegin`].
pub fn write(words: &impl Words, writer: Writer) {
    match writer {
        Writer::Right => words.write_begin(),
        Writer::WithoutBegin => {}
        Writer::WithoutBarriers => words.increment(),
    }
    for word in DATA {
        words.store(word, 1);
    }
    match writer {
        Writer::WithoutBarriers => words.increment(),
        Writer::Right | Writer::WithoutBegin => words.write_end(),
    }
}

/// Four accesses. Panics if it took what does not belong together.
pub fn read(words: &impl Words) {
    let sequence = words.read_begin();
    let [one, other] = DATA.map(|word| words.load(word));
    let is_even = sequence.is_multiple_of(2);
    if !words.read_retry(sequence) && is_even {
        assert_eq!(one, other, "the two words are of different writes");
    }
}
