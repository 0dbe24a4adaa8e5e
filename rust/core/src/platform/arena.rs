//! Arenas: objects that are named by index and generation and never given back to the allocator
//! while the system lives, as with `SLAB_TYPESAFE_BY_RCU`. A stale pointer is a finding on every
//! platform, never undefined behaviour.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering as Std};
use std::sync::{Arc, Mutex, PoisonError};

use super::injection::Injection;
use super::slabs::FreeSlots;
use super::{Hazard, Line, Platform, Value};

/// A kind of object made of words.
pub trait Object: Sized + Send + Sync {
    type P: Platform;
    /// The kernel's name of the struct.
    const NAME: &'static str;
    /// Makes an object at `line`. `shape` is what the arena was made with (table entries).
    fn new(line: Line, shape: u32) -> Self;
    /// Cache lines that one object takes.
    fn lines(shape: u32) -> u32;
    /// Sets every word to 0.
    fn clear(&self);
    /// The name of the word at `offset` bytes, for timelines.
    fn field_name(offset: u32) -> String;
    /// What `word` says at `offset` bytes, for timelines. `arena` is what the object is called.
    fn field_text(arena: &str, offset: u32, word: u64) -> String;
}

/// A pointer: index and generation in one word; 0 is NULL.
pub struct Ptr<T>(u64, PhantomData<fn() -> T>);

impl<T> Ptr<T> {
    pub const NULL: Self = Self(0, PhantomData);

    fn new(index: u32, generation: u64) -> Self {
        Self((generation << 32) | u64::from(index + 1), PhantomData)
    }
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
    /// The slot's number in its arena. Panics on NULL.
    #[inline(always)]
    pub fn index(self) -> u32 {
        assert!(self.0 != 0, "index of a NULL pointer");
        self.0 as u32 - 1
    }
    #[inline(always)]
    fn generation(self) -> u64 {
        self.0 >> 32
    }
}

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ptr<T> {}
impl<T> PartialEq for Ptr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Ptr<T> {}
impl<T> fmt::Debug for Ptr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_null() {
            return f.write_str("NULL");
        }
        write!(f, "{}#{}", self.index(), self.generation())
    }
}
impl<T: Object> Value for Ptr<T> {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self.0
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        Self(word, PhantomData)
    }
    fn text(word: u64) -> String {
        let ptr = Self::from_word(word);
        if ptr.is_null() { "NULL".to_owned() } else { format!("{}[{}]", T::NAME, ptr.index()) }
    }
}

/// A place for one object. The generation is odd while the object lives.
pub struct Slot<T> {
    generation: AtomicU64,
    index: u32,
    /// The first of the object's cache lines.
    line: Line,
    object: T,
}

/// A live object: what a kernel pointer is after it was dereferenced.
pub struct Ref<'k, T> {
    slot: &'k Slot<T>,
    ptr: Ptr<T>,
}

impl<T> Clone for Ref<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ref<'_, T> {}
impl<T> PartialEq for Ref<'_, T> {
    /// The same object, as two equal kernel pointers.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.slot, other.slot) && self.ptr == other.ptr
    }
}

impl<'k, T> Ref<'k, T> {
    #[inline(always)]
    pub fn ptr(self) -> Ptr<T> {
        self.ptr
    }
    #[inline(always)]
    pub fn slot_index(self) -> u32 {
        self.slot.index
    }
    #[inline(always)]
    pub fn object(self) -> &'k T {
        &self.slot.object
    }
    /// Where the generation is, and what it must be, for [`super::Field`].
    #[inline(always)]
    pub fn stamp(self) -> (&'k AtomicU64, u64) {
        (&self.slot.generation, self.ptr.generation())
    }
}

/// Neighbouring objects of one kind: what a line number stands for.
#[derive(Clone, Copy)]
pub struct Block {
    /// Which arena of the system, from 0.
    pub arena: u32,
    /// The kernel's name of the struct.
    pub name: &'static str,
    pub first: Line,
    /// Cache lines of one object.
    pub per_object: u32,
    pub nr_objects: u32,
    /// The slot number of the first object.
    pub base: u32,
    /// See [`Object::field_name`].
    pub field_name: fn(u32) -> String,
    /// See [`Object::field_text`].
    pub field_text: fn(&str, u32, u64) -> String,
}

/// Where the blocks of systems that are made the same way are: as that of a number that was made
/// first, whichever system it was of.
#[derive(Default)]
struct Places {
    taken: u32,
    /// By arena and first slot.
    firsts: BTreeMap<(u32, u32), Line>,
}

/// Gives out cache lines, in order of creation, and knows what each holds.
#[derive(Default)]
pub struct Lines {
    places: Arc<Mutex<Places>>,
    nr_arenas: AtomicU32,
    /// In order of their lines.
    blocks: Mutex<Vec<Block>>,
}

impl Lines {
    /// `count` fresh lines without a name; line 0 is [`Line::FREE`].
    pub fn take(&self, count: u32) -> Line {
        let arena = self.nr_arenas.fetch_add(1, Std::Relaxed);
        self.place_of((arena, 0), count)
    }

    /// Lines of another system, which gives its words the same lines if it is made the same way.
    pub fn beside(&self) -> Self {
        Self { places: Arc::clone(&self.places), ..Self::default() }
    }

    fn place_of(&self, block: (u32, u32), count: u32) -> Line {
        let Places { taken, firsts } = &mut *self.places.lock().expect("no panic while held");
        *firsts.entry(block).or_insert_with(|| {
            let first = Line(*taken + 1);
            *taken += count;
            first
        })
    }

    /// Lines for words that are in no arena: `nr_objects` of a kind, one line each.
    pub fn take_named(
        &self,
        name: &'static str,
        nr_objects: u32,
        field_name: fn(u32) -> String,
    ) -> Line {
        let arena = self.nr_arenas.fetch_add(1, Std::Relaxed);
        let first = Line::FREE;
        self.take_block(Block {
            arena,
            name,
            first,
            per_object: 1,
            nr_objects,
            base: 0,
            field_name,
            field_text: |_, _, word| u64::text(word),
        })
    }

    /// Lines for a block of objects; fills in `first`.
    fn take_block(&self, block: Block) -> Line {
        let mut blocks = self.blocks.lock().expect("no panic while held");
        let count = block.nr_objects * block.per_object;
        let first = self.place_of((block.arena, block.base), count);
        let place = blocks.partition_point(|other| other.first < first);
        blocks.insert(place, Block { first, ..block });
        first
    }

    /// How many blocks there are: they only become more.
    pub fn nr_blocks(&self) -> usize {
        self.blocks.lock().expect("no panic while held").len()
    }

    /// All blocks, by their first line.
    pub fn blocks(&self) -> Vec<Block> {
        self.blocks.lock().expect("no panic while held").clone()
    }

    /// The object that has the word at `offset` bytes from the beginning of `line`: its block,
    /// its number there, and how many bytes into the object the word is.
    fn find(&self, line: Line, offset: u32) -> Option<(Block, u32, u32)> {
        let blocks = self.blocks.lock().expect("no panic while held");
        let nth = blocks.partition_point(|block| block.first <= line);
        let block = nth.checked_sub(1).map(|nth| blocks[nth])?;
        let object = (line.0 - block.first.0) / block.per_object;
        let start = block.first.0 + object * block.per_object;
        let found = (block, object, (line.0 - start) * Line::BYTES + offset);
        (object < block.nr_objects).then_some(found)
    }

    /// What a person calls the word at `offset` bytes from the beginning of `line`.
    pub fn name_of(&self, line: Line, offset: u32) -> String {
        match self.find(line, offset) {
            Some((block, object, offset)) => {
                let field = (block.field_name)(offset);
                format!("{}[{}].{field}", block.name, block.base + object)
            }
            None => format!("line {} +{offset:#x}", line.0),
        }
    }

    /// What all objects of its kind have in common of a word, so many bytes behind the beginning
    /// of line 0: their arena, and where the word is in them.
    pub fn class_of(&self, byte: u64) -> (u32, u32) {
        let (line, offset) = (byte / u64::from(Line::BYTES), byte % u64::from(Line::BYTES));
        let found = self.find(Line(line as u32), offset as u32);
        found.map_or((u32::MAX, byte as u32), |(block, _, offset)| (block.arena, offset))
    }

    /// The kernel's names of the struct that has that word, and of the word in it.
    pub fn field_of(&self, line: Line, offset: u32) -> Option<(&'static str, String)> {
        let (block, _, offset) = self.find(line, offset)?;
        Some((block.name, (block.field_name)(offset)))
    }

    /// What that word says when it holds `word`.
    pub fn text_of(&self, line: Line, offset: u32, word: u64) -> String {
        match self.find(line, offset) {
            Some((block, _, offset)) => (block.field_text)(block.name, offset, word),
            None => u64::text(word),
        }
    }
}

/// Slots of the first chunk that is made, a power of two.
const FIRST_CHUNK: u32 = 64;
/// Chunk `n` has 2^n slots.
const NR_CHUNKS: usize = u32::BITS as usize;

/// Slots of one type. Chunks double in size and stay where they are.
pub struct Arena<T: Object> {
    /// The first slot of each chunk that was made; NULL of another.
    chunks: [AtomicPtr<Slot<T>>; NR_CHUNKS],
    /// Held by who makes a chunk.
    making: Mutex<()>,
    shape: u32,
    name: &'static str,
    /// Which arena of the system this is.
    number: u32,
    lines: Arc<Lines>,
    /// Slots handed out at least once since the last reset.
    used: AtomicU32,
    /// See [`Arena::fail_after`].
    injection: Injection,
    free: Arc<Mutex<FreeSlots>>,
}

impl<T: Object> Arena<T> {
    pub fn new(lines: &Arc<Lines>, shape: u32) -> Self {
        Self::with_name(lines, shape, T::NAME)
    }

    /// An arena whose objects are not called what their type is.
    pub fn with_name(lines: &Arc<Lines>, shape: u32, name: &'static str) -> Self {
        Self {
            chunks: [const { AtomicPtr::new(ptr::null_mut()) }; NR_CHUNKS],
            making: Mutex::default(),
            shape,
            name,
            number: lines.nr_arenas.fetch_add(1, Std::Relaxed),
            lines: Arc::clone(lines),
            used: AtomicU32::new(0),
            injection: Injection::default(),
            free: Arc::default(),
        }
    }

    /// The slots of chunk `nth`, if it was made.
    fn chunk(&self, nth: usize) -> Option<&[Slot<T>]> {
        // Acquire: pairs with the Release in `make_chunk`.
        let first = self.chunks[nth].load(Std::Acquire);
        // SAFETY: (1) A pointer that is not NULL is that of 2^nth slots, all made, in one
        // allocation (`make_chunk`). (2) They stay there, and only shared references to them exist,
        // until the arena is dropped.
        (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first, 1 << nth) })
    }

    /// The slot at a [`place`], if its chunk was made. Each access goes through here.
    #[inline(always)]
    fn slot_in(&self, (chunk, offset): (usize, usize)) -> Option<&Slot<T>> {
        debug_assert!(offset >> chunk == 0);
        // Acquire: as in `chunk`.
        let first = self.chunks[chunk].load(Std::Acquire);
        // SAFETY: (1) and (2) as in `chunk`. (3) `place` gives an offset below 2^chunk.
        (!first.is_null()).then(|| unsafe { &*first.add(offset) })
    }

    /// A slot that was handed out before.
    #[inline(always)]
    fn slot(&self, index: u32) -> &Slot<T> {
        match self.slot_in(place(index)) {
            Some(slot) => slot,
            None => never_used(self.name, index),
        }
    }

    /// Any slot that may be handed out; with the first of a chunk the chunk is made.
    #[inline(always)]
    fn slot_to_use(&self, index: u32) -> &Slot<T> {
        let place = place(index);
        match self.slot_in(place) {
            Some(slot) => slot,
            None => &self.make_chunk(place.0)[place.1],
        }
    }

    /// Makes chunk `chunk`, unless another CPU was first.
    #[cold]
    fn make_chunk(&self, chunk: usize) -> &[Slot<T>] {
        // Who panicked with it, for want of memory, left nothing half done.
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slots) = self.chunk(chunk) {
            return slots;
        }
        let nr_slots = 1 << chunk;
        let first_index = nr_slots - FIRST_CHUNK;
        let per_object = T::lines(self.shape);
        let Line(first) = self.lines.take_block(Block {
            arena: self.number,
            name: self.name,
            first: Line::FREE,
            per_object,
            nr_objects: nr_slots,
            base: first_index,
            field_name: T::field_name,
            field_text: T::field_text,
        });
        let slot = |i| {
            let line = Line(first + i * per_object);
            let object = T::new(line, self.shape);
            Slot { generation: AtomicU64::new(0), index: first_index + i, line, object }
        };
        let mut slots = Vec::new();
        if slots.try_reserve_exact(nr_slots as usize).is_err() {
            panic!("no memory for {nr_slots} more of {}", self.name);
        }
        slots.extend((0..nr_slots).map(slot));
        let first = Box::into_raw(slots.into_boxed_slice()).cast();
        // Release: who sees the pointer sees the slots; pairs with the Acquire in `chunk`.
        self.chunks[chunk].store(first, Std::Release);
        self.chunk(chunk).expect("just made")
    }

    /// Allocates a zeroed object.
    pub fn alloc(&self) -> Ref<'_, T> {
        let reused = self.free.lock().expect("no panic while held").take();
        let index = reused.unwrap_or_else(|| self.used.fetch_add(1, Std::Relaxed));
        self.alloc_at(index)
    }

    /// As [`Arena::alloc`], of a slab: where time counts, one that this CPU had first.
    pub fn alloc_on(&self, cpu: &T::P) -> Ref<'_, T> {
        if !T::P::KEEPS_LISTS {
            return self.alloc();
        }
        let mut free = self.free.lock().expect("no panic while held");
        let index = free.take_of(cpu.id()).unwrap_or_else(|| {
            let fresh = self.used.fetch_add(1, Std::Relaxed);
            free.settle(fresh, cpu.id());
            fresh
        });
        drop(free);
        self.alloc_at(index)
    }

    /// As [`Arena::alloc_on`], for callers with an error path: `None` where a failure is injected.
    pub fn try_alloc_on(&self, cpu: &T::P) -> Option<Ref<'_, T>> {
        let fails = self.injection.strikes() || cpu.meets(Hazard::FailedAllocation);
        if fails { None } else { Some(self.alloc_on(cpu)) }
    }
    /// Makes one [`Arena::try_alloc_on`] fail, after `successes` more.
    pub fn fail_after(&self, successes: u32) {
        self.injection.fail_after(successes);
    }

    /// Brings the free slot `index` to life, zeroed. For owners that keep their own free lists.
    #[inline(always)]
    pub fn alloc_at(&self, index: u32) -> Ref<'_, T> {
        let slot = self.slot_to_use(index);
        slot.object.clear();
        let generation = slot.generation.load(Std::Relaxed) + 1;
        if generation.is_multiple_of(2) {
            allocated_twice(self.name, index);
        }
        slot.generation.store(generation, Std::Release);
        Ref { slot, ptr: Ptr::new(index, generation) }
    }

    /// The live object that `ptr` names. A stale pointer is a finding; NULL panics.
    #[inline(always)]
    pub fn get(&self, cpu: &T::P, ptr: Ptr<T>) -> Ref<'_, T> {
        let slot = self.slot((ptr.0 as u32).wrapping_sub(1));
        let generation = slot.generation.load(Std::Relaxed);
        if generation != ptr.generation() && !cpu.is_cut() {
            stale(cpu, self.name, ptr.index(), ptr.generation(), generation);
        }
        Ref { slot, ptr }
    }

    /// As [`Arena::get`], or `None` for NULL.
    #[inline(always)]
    pub fn get_opt(&self, cpu: &T::P, ptr: Ptr<T>) -> Option<Ref<'_, T>> {
        if ptr.is_null() { None } else { Some(self.get(cpu, ptr)) }
    }

    /// The object in slot `index` if it lives: for inspection at rest.
    pub fn peek(&self, index: u32) -> Option<Ref<'_, T>> {
        if index >= self.used.load(Std::Relaxed) {
            return None;
        }
        let slot = self.slot_to_use(index);
        let generation = slot.generation.load(Std::Relaxed);
        (generation % 2 == 1).then_some(Ref { slot, ptr: Ptr::new(index, generation) })
    }

    /// The object now in slot `index`, which must live: for owners that know it does.
    #[inline(always)]
    pub fn at(&self, cpu: &T::P, index: u32) -> Ref<'_, T> {
        let slot = self.slot(index);
        let generation = slot.generation.load(Std::Relaxed);
        if generation.is_multiple_of(2) && !cpu.is_cut() {
            stale(cpu, self.name, index, generation, generation);
        }
        Ref { slot, ptr: Ptr::new(index, generation) }
    }

    /// What is in slot `index`, dead or alive.
    #[inline(always)]
    pub fn in_slot(&self, index: u32) -> &T {
        &self.slot(index).object
    }

    /// Whether `ptr` still names a live object.
    #[inline(always)]
    pub fn is_live(&self, ptr: Ptr<T>) -> bool {
        self.slot(ptr.index()).generation.load(Std::Relaxed) == ptr.generation()
    }

    /// Ends the object's life without giving the slot back (see [`Arena::alloc_at`]).
    pub fn kill(&self, cpu: &T::P, object: Ref<'_, T>) {
        let expect = object.ptr.generation();
        // A pointer has room for 32 bits of it: a frame can come back that often in one run.
        let end = (expect + 1) & u64::from(u32::MAX);
        if cpu.is_cut() {
            return;
        }
        let was = object.slot.generation.swap(end, Std::Release);
        if was != expect {
            stale(cpu, self.name, object.slot_index(), expect, was);
        }
        cpu.freed(object.slot.line, T::lines(self.shape));
    }

    /// Frees the object; its slot is handed out again once no RCU reader can still look at it
    /// (native), or at once (explore and virtual time, where that is the harder case).
    pub fn free(&self, cpu: &T::P, object: Ref<'_, T>) {
        self.kill(cpu, object);
        let free = Arc::clone(&self.free);
        let index = object.slot_index();
        cpu.after_readers(move || free.lock().expect("no panic while held").put(index));
    }

    /// The slots below `used`, but for those that were never made.
    fn slots(&self, used: u32) -> impl Iterator<Item = &Slot<T>> {
        let below_used = move |nth: usize| {
            let first_index = (1u32 << nth) - FIRST_CHUNK;
            let nr_used = used.checked_sub(first_index).filter(|&nr_used| nr_used != 0)? as usize;
            let slots = self.chunk(nth).unwrap_or(&[]);
            Some(&slots[..nr_used.min(slots.len())])
        };
        (FIRST_CHUNK.ilog2() as usize..NR_CHUNKS).map_while(below_used).flatten()
    }

    /// The objects that live now, by their slots: for inspection at rest.
    pub fn peek_all(&self) -> impl Iterator<Item = Ref<'_, T>> {
        self.slots(self.used()).filter_map(|slot| {
            let generation = slot.generation.load(Std::Relaxed);
            (generation % 2 == 1).then_some(Ref { slot, ptr: Ptr::new(slot.index, generation) })
        })
    }

    /// How many objects live now: for leak checks at rest.
    pub fn live(&self) -> u32 {
        self.peek_all().count() as u32
    }

    /// What the cache lines of the system hold.
    pub fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }

    /// How many slots were ever used: the bound for [`Arena::peek`].
    pub fn used(&self) -> u32 {
        self.used.load(Std::Relaxed)
    }

    /// Marks `index` as used, for owners that keep their own free lists.
    pub fn cover(&self, index: u32) {
        self.used.fetch_max(index + 1, Std::Relaxed);
    }

    /// Forgets all objects, as if freshly made: for the next schedule.
    pub fn reset(&self) {
        let used = self.used.swap(0, Std::Relaxed);
        self.slots(used).for_each(|slot| slot.generation.store(0, Std::Relaxed));
        self.injection.reset();
        self.free.lock().expect("no panic while held").clear();
    }
}

impl<T: Object> Drop for Arena<T> {
    fn drop(&mut self) {
        for (nth, chunk) in self.chunks.iter_mut().enumerate() {
            let first = *chunk.get_mut();
            if !first.is_null() {
                let slots = ptr::slice_from_raw_parts_mut(first, 1 << nth);
                // SAFETY: (1) It came out of a box of so many slots (`make_chunk`). (2) Nobody
                // has a reference into it, for those borrow the arena; and nobody drops it again.
                drop(unsafe { Box::from_raw(slots) });
            }
        }
    }
}

/// The chunk that slot `index` is in, and its place there, which is within the chunk: of the number
/// the highest bit says which chunk, the others which place. Each access goes through here: the
/// chunk's number needs no bounds check, and that of `NULL - 1` is one that is never made.
#[inline(always)]
fn place(index: u32) -> (usize, usize) {
    let biased = index.wrapping_add(FIRST_CHUNK);
    let chunk = (biased | 1).ilog2();
    (chunk as usize, (biased & !(1 << chunk)) as usize)
}

#[cold]
fn allocated_twice(name: &str, index: u32) -> ! {
    panic!("{name} {index} is allocated twice");
}

#[cold]
fn never_used(name: &str, index: u32) -> ! {
    assert!(index != u32::MAX, "a NULL {name} is dereferenced");
    panic!("{name} {index} was never allocated");
}

#[cold]
fn stale<P: Platform>(cpu: &P, name: &str, index: u32, expect: u64, now: u64) -> ! {
    super::word::stale(cpu, &format!("{name}[{index}]"), expect, now)
}

#[cfg(test)]
#[path = "../../tests/unit/platform/arena.rs"]
mod tests;
