//! Words: everything that another CPU can see is one of these.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering as Std};

use crossbeam_utils::CachePadded;

use super::{Ordering, Platform};

/// The first cache line of an object, counted over all objects of a system. Lines are numbers
/// given out in order of creation, never host addresses, so that runs are reproducible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(pub u32);

impl Line {
    /// Words of the program's own synchronisation: free of charge, and no choice of the explorer's.
    pub const FREE: Line = Line(0);
    /// Where in [`Line::FREE`] a word is whose changes need not be seen in order of time, only soon.
    pub const SOON: u32 = 8;
    /// Bytes in a cache line, of all machines: POWER8's have 128.
    pub const BYTES: u32 = 64;
}

/// A 64-bit word that several CPUs access through their platform.
pub struct Word<P: Platform> {
    pub(crate) value: AtomicU64,
    pub(crate) site: P::Site,
}

/// A word that has a cache line of the host to itself.
pub type PaddedWord<P> = CachePadded<Word<P>>;

impl<P: Platform> Word<P> {
    /// A word that holds 0, at `offset` bytes in the object that begins at `line`.
    pub fn new(line: Line, offset: u32) -> Self {
        Self { value: AtomicU64::new(0), site: P::site(line, offset) }
    }

    /// The value, as nobody's access: for initialisation, quiescent checks and reports.
    #[inline(always)]
    pub fn peek(&self) -> u64 {
        self.value.load(Std::Relaxed)
    }

    /// Sets the value, as nobody's access: for objects that no other CPU can reach yet.
    #[inline(always)]
    pub fn poke(&self, value: u64) {
        self.value.store(value, Std::Relaxed);
    }

    /// Where the word lives.
    #[inline(always)]
    pub fn site(&self) -> P::Site {
        self.site
    }
}

/// A word of one CPU or one task that no other looks at while it runs: no charge, no scheduling
/// point. (Atomic only so that a system can be inspected from another thread at rest.)
#[derive(Default)]
pub struct Local(AtomicU64);

impl Local {
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Std::Relaxed)
    }
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.store(value, Std::Relaxed);
    }
    #[inline(always)]
    pub fn add(&self, value: u64) {
        self.set(self.get().wrapping_add(value));
    }
}

/// Reports the use of an object that was freed.
#[cold]
pub(super) fn stale<P: Platform>(cpu: &P, object: &str, expect: u64, now: u64) -> ! {
    let state = if now.is_multiple_of(2) { "freed" } else { "used again" };
    cpu.finding(
        "use-after-free",
        format!("{object} of generation {expect} was {state} (now {now})"),
    )
}

/// What fits in a word.
pub trait Value: Copy {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Self;
    /// What a timeline says of a word that holds one.
    fn text(word: u64) -> String {
        format!("{word:#x}")
    }
}

impl Value for u64 {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        word
    }
}

impl Value for i64 {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self as u64
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        word as i64
    }
}

impl Value for u32 {
    #[inline(always)]
    fn to_word(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        word as u32
    }
}

impl Value for bool {
    #[inline(always)]
    fn to_word(self) -> u64 {
        u64::from(self)
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        word != 0
    }
}

/// One field of a live object: a word, its type, and (in explore) the generation it must have.
///
/// `read` and `write` are the kernel's `READ_ONCE` and `WRITE_ONCE`.
pub struct Field<'k, P: Platform, T> {
    word: &'k Word<P>,
    /// The object's generation word and the generation expected there.
    owner: Option<(&'k AtomicU64, u64)>,
    kind: PhantomData<T>,
}

impl<P: Platform, T> Clone for Field<'_, P, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Platform, T> Copy for Field<'_, P, T> {}

impl<'k, P: Platform, T: Value> Field<'k, P, T> {
    #[inline(always)]
    pub(crate) fn new(word: &'k Word<P>, generation: &'k AtomicU64, expect: u64) -> Self {
        let owner = if P::CHECKS_EVERY_ACCESS { Some((generation, expect)) } else { None };
        Self { word, owner, kind: PhantomData }
    }

    /// A field of an object that is never freed while the system lives.
    #[inline(always)]
    pub fn permanent(word: &'k Word<P>) -> Self {
        Self { word, owner: None, kind: PhantomData }
    }

    /// The word itself, for waiting and for locks.
    #[inline(always)]
    pub fn word(self) -> &'k Word<P> {
        self.word
    }

    /// Reports an access to an object freed meanwhile. Called after the access, so that the
    /// scheduling point before it has passed.
    #[inline(always)]
    fn alive(self, cpu: &P) {
        if P::CHECKS_EVERY_ACCESS
            && let Some((generation, expect)) = self.owner
        {
            let now = generation.load(Std::Relaxed);
            if now != expect && !cpu.is_cut() {
                stale(cpu, &cpu.object_of(self.word), expect, now);
            }
        }
    }

    #[inline(always)]
    pub fn load(self, cpu: &P, order: Ordering) -> T {
        let value = cpu.load(self.word, order);
        self.alive(cpu);
        T::from_word(value)
    }
    /// `READ_ONCE`: single-copy atomic, no ordering.
    #[inline(always)]
    pub fn read(self, cpu: &P) -> T {
        self.load(cpu, Ordering::Relaxed)
    }
    #[inline(always)]
    pub fn store(self, cpu: &P, value: T, order: Ordering) {
        cpu.store(self.word, value.to_word(), order);
        self.alive(cpu);
    }
    /// `WRITE_ONCE`: single-copy atomic, no ordering.
    #[inline(always)]
    pub fn write(self, cpu: &P, value: T) {
        self.store(cpu, value, Ordering::Relaxed);
    }
    /// See [`Platform::initialise`].
    #[inline(always)]
    pub fn initialise(self, cpu: &P, value: T) {
        cpu.initialise(self.word, value.to_word());
    }
    #[inline(always)]
    pub fn swap(self, cpu: &P, value: T, order: Ordering) -> T {
        let old = cpu.swap(self.word, value.to_word(), order);
        self.alive(cpu);
        T::from_word(old)
    }
    #[inline(always)]
    pub fn compare_exchange(self, cpu: &P, expect: T, new: T, order: Ordering) -> Result<T, T> {
        let result = cpu.compare_exchange(self.word, expect.to_word(), new.to_word(), order);
        self.alive(cpu);
        result.map(T::from_word).map_err(T::from_word)
    }
    /// Adds (wrapping; subtract by adding the negative) and returns the value before.
    #[inline(always)]
    pub fn fetch_add(self, cpu: &P, add: i64, order: Ordering) -> T {
        let old = cpu.fetch_add(self.word, add as u64, order);
        self.alive(cpu);
        T::from_word(old)
    }
    /// The value, not as an access of the protocol (see [`Platform::observe`]).
    #[inline(always)]
    pub fn observe(self, cpu: &P) -> T {
        T::from_word(cpu.observe(self.word))
    }
    /// The value as nobody's access (see [`Word::peek`]).
    #[inline(always)]
    pub fn peek(self) -> T {
        T::from_word(self.word.peek())
    }
    /// Sets the value before anybody else can reach the object (see [`Word::poke`]).
    #[inline(always)]
    pub fn poke(self, value: T) {
        self.word.poke(value.to_word());
    }
}
