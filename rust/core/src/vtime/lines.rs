//! Where cache lines are: held by one CPU for writing, or by several for reading.

use std::cell::RefCell;

use super::line_queue::LineQueue;
use super::machine::{Distance, Machine, NR_DISTANCES, Place, Spot};
use crate::platform::Line;
use crate::platform::cell_vec::CellVec;

/// Who holds a line, in one word, for each access looks at it: nobody (0), the CPU of this number
/// + 1, or, with `SHARED`, the set of CPUs that begins at this number in `sets`; and `WATCHED`.
pub(super) type Holder = u32;

const NOBODY: Holder = 0;
pub(super) const SHARED: Holder = 1 << 31;
/// Somebody spins on a word of the line.
pub(super) const WATCHED: Holder = 1 << 30;

/// What only a transfer needs to know of a line.
#[derive(Clone, Copy, Default)]
pub(super) struct Traffic {
    /// Until when whoever got the line last has it to itself: it may be on its way till then, or
    /// is used for what comes right after.
    pub(super) busy_until: u64,
    /// Who waits for the line: the number of a queue, + 1; 0: nobody.
    pub(super) queue: u32,
}

/// All lines of a system.
pub(super) struct Lines {
    /// By line. Who holds one is looked at again and again, so that is by itself, and small.
    pub(super) holders: CellVec<Holder>,
    pub(super) traffic: CellVec<Traffic>,
    /// How many tasks spin on words of each line.
    spinners: CellVec<u32>,
    /// Sets of CPUs, `set_words` words each, and one that has the sockets of its CPUs, as
    /// `socket_bit` folds them; `free` are those not in use.
    sets: CellVec<u64>,
    free: RefCell<Vec<u32>>,
    set_words: usize,
    /// No two sockets share a bit.
    sockets_are_told_apart: bool,
    /// For each CPU where it is.
    places: Vec<Place>,
    pub(super) spots: Vec<Spot>,
    pub(super) line_ns: [u64; NR_DISTANCES],
    /// As in [`Machine`].
    fetches_pairs: bool,
    /// What an access right after the first takes, which finds the line still here.
    pub(super) hold_ns: u64,
    /// How often a nearer one may be served before the one that waits longest.
    pub(super) near_first: u32,
    pub(super) queues: RefCell<Vec<LineQueue>>,
    pub(super) free_queues: RefCell<Vec<u32>>,
    /// Sockets have several dies; else to be in a CPU's socket is to be on its die.
    has_dies: bool,
    /// For each core, die and socket the set of its CPUs, but for words without any.
    cores: Vec<Box<[SetWord]>>,
    dies: Vec<Box<[SetWord]>>,
    sockets: Vec<Box<[SetWord]>>,
}

/// The word at a place of a set.
#[derive(Clone, Copy)]
struct SetWord {
    place: u32,
    word: u64,
}

/// What stands for the socket of a CPU in the last word of a set.
#[inline(always)]
fn socket_bit(place: Place) -> u64 {
    1 << (place.socket % u64::BITS)
}

/// Adds the next CPU to a set.
fn add_cpu(set: &mut Vec<SetWord>, cpu: u32) {
    let (place, bit) = (cpu / u64::BITS, 1 << (cpu % u64::BITS));
    match set.iter_mut().find(|word| word.place == place) {
        Some(SetWord { word, .. }) => *word |= bit,
        None => set.push(SetWord { place, word: bit }),
    }
}

impl Lines {
    /// Lines of so many CPUs of a machine: its first ones, or those that `spreads` says tasks are
    /// spread over.
    pub(super) fn new(machine: &Machine, nr_cpus: u32, spreads: bool) -> Self {
        let cpu = |nth| machine.cpu(nth, spreads);
        let set_words = nr_cpus.div_ceil(64) as usize;
        let places: Vec<Place> = (0..nr_cpus).map(|nth| machine.place(cpu(nth))).collect();
        let sets_by = |group: fn(&Place) -> u32| {
            let mut sets: Vec<Vec<SetWord>> = Vec::new();
            for (cpu, place) in (0..).zip(&places) {
                let group = group(place) as usize;
                sets.resize(sets.len().max(group + 1), Vec::new());
                add_cpu(&mut sets[group], cpu);
            }
            sets.into_iter().map(Vec::into_boxed_slice).collect()
        };
        Self {
            holders: CellVec::new(),
            traffic: CellVec::new(),
            spinners: CellVec::new(),
            sets: CellVec::new(),
            free: RefCell::default(),
            set_words,
            sockets_are_told_apart: machine.sockets <= u64::BITS,
            line_ns: machine.line_ns,
            fetches_pairs: machine.adjacent_line_prefetch,
            hold_ns: machine.atomic_ns + 2 * machine.line_ns[Distance::Own as usize],
            near_first: machine.near_first(),
            queues: RefCell::default(),
            free_queues: RefCell::default(),
            has_dies: machine.dies_per_socket > 1,
            cores: sets_by(|place| place.core),
            dies: sets_by(|place| place.die),
            sockets: sets_by(|place| place.socket),
            spots: (0..nr_cpus).map(|nth| machine.spot(cpu(nth))).collect(),
            places,
        }
    }

    /// Whether `cpu` can read (or write) the line without leaving its own cache, and nobody spins
    /// on a word of it: the usual case of [`Lines::hit`].
    #[inline(always)]
    pub(super) fn hits_unwatched(&self, line: u32, cpu: u32, writes: bool) -> bool {
        let Some(holder) = self.holders.get(line as usize) else { return false };
        if writes || holder & SHARED == 0 {
            holder == cpu + 1
        } else {
            holder & WATCHED == 0 && self.in_set(holder, cpu)
        }
    }

    /// If `cpu` can read (or write) the line without leaving its own cache: whether somebody
    /// spins on a word of it.
    #[inline(always)]
    pub(super) fn hit(&self, line: u32, cpu: u32, writes: bool) -> Option<bool> {
        let holder = self.holders.get(line as usize)?;
        let unwatched = holder & !WATCHED;
        let hit = unwatched == cpu + 1
            || (!writes && unwatched & SHARED != 0 && self.in_set(unwatched, cpu));
        hit.then_some(holder & WATCHED != 0)
    }

    /// Whether the set that a shared line's `holder` names has `cpu`.
    #[inline(always)]
    fn in_set(&self, holder: Holder, cpu: u32) -> bool {
        let word = (holder & !SHARED) as usize + cpu as usize / 64;
        self.sets.get(word).is_some_and(|word| word >> (cpu % 64) & 1 != 0)
    }

    /// Whether somebody spins on a word of the line.
    pub(super) fn is_watched(&self, line: u32) -> bool {
        self.holders.get(line as usize).is_some_and(|holder| holder & WATCHED != 0)
    }

    /// Makes `cpu` hold a line, which `holder` has; returns how long that takes.
    #[inline]
    pub(super) fn transfer(
        &self,
        line: u32,
        holder: Holder,
        cpu: u32,
        writes: bool,
        now: u64,
    ) -> u64 {
        if self.fetches_pairs {
            self.prefetch(line ^ 1, cpu, now);
        }
        self.fetch(line, holder, cpu, writes)
    }

    /// Copies a line to `cpu`, unless it is on its way to somebody; nobody waits for that.
    #[cold]
    fn prefetch(&self, line: u32, cpu: u32, now: u64) {
        let (place, is_here) = (line as usize, self.hit(line, cpu, false).is_some());
        if let (Some(holder), Some(traffic)) = (self.holders.get(place), self.traffic.get(place))
            && line != Line::FREE.0
            && traffic.queue == 0
            && traffic.busy_until <= now
            && !is_here
        {
            self.fetch(line, holder, cpu, false);
        }
    }

    #[inline(always)]
    fn fetch(&self, line: u32, holder: Holder, cpu: u32, writes: bool) -> u64 {
        let line = line as usize;
        let (watched, holder) = (holder & WATCHED, holder & !WATCHED);
        let shared = holder & SHARED != 0;
        let distance = match holder {
            NOBODY => Distance::Own,
            // A reader takes the nearest copy; a writer waits for the farthest to be gone.
            set if shared && writes => self.farthest(set, cpu),
            set if shared => self.nearest(set, cpu),
            owner => self.distance(cpu, owner - 1),
        };
        let ns = self.line_ns[distance as usize];
        let holder = match holder {
            set if shared && !writes => {
                self.insert(set, cpu);
                return ns;
            }
            set if shared => {
                self.release_set(set);
                cpu + 1
            }
            owner if writes || owner == NOBODY => cpu + 1,
            // The first copy: the owner keeps it for reading.
            owner => {
                let set = self.take_set();
                self.insert(set, owner - 1);
                self.insert(set, cpu);
                set
            }
        };
        self.holders.set(line, holder | watched);
        ns
    }

    /// Makes room for what is known of `line`.
    #[inline(always)]
    pub(super) fn cover(&self, line: u32) {
        if line as usize >= self.holders.len() {
            self.grow(line);
        }
    }

    #[cold]
    fn grow(&self, line: u32) {
        let nr_lines = (line as usize + 1).next_power_of_two();
        self.holders.grow(nr_lines, NOBODY);
        self.traffic.grow(nr_lines, Traffic::default());
        self.spinners.grow(nr_lines, 0);
    }

    /// How far apart two CPUs are.
    #[inline(always)]
    pub(super) fn distance(&self, one: u32, other: u32) -> Distance {
        self.spots[one as usize].distance(self.spots[other as usize])
    }

    /// The word at `place` of a set.
    #[inline(always)]
    fn word(&self, set: Holder, place: u32) -> u64 {
        self.sets.get(((set & !SHARED) + place) as usize).expect("a word of the set")
    }

    /// The least distance of a CPU of the set.
    #[inline(always)]
    fn nearest(&self, set: Holder, cpu: u32) -> Distance {
        let at = self.places[cpu as usize];
        let has_any = |near: &SetWord| self.word(set, near.place) & near.word != 0;
        if self.cores[at.core as usize].iter().any(has_any) {
            Distance::Core
        } else if self.dies[at.die as usize].iter().any(has_any) {
            Distance::Die
        } else if self.has_dies && self.sockets[at.socket as usize].iter().any(has_any) {
            Distance::Socket
        } else {
            Distance::Machine
        }
    }

    /// Whether a CPU of the set is in another socket.
    #[inline(always)]
    fn leaves_socket(&self, set: Holder, at: Place) -> bool {
        let sockets = self.word(set, self.set_words as u32);
        sockets & !socket_bit(at) != 0
            || !self.sockets_are_told_apart
                && self.has_others(set, &self.sockets[at.socket as usize])
    }

    /// The greatest distance of a CPU of the set.
    #[inline(always)]
    fn farthest(&self, set: Holder, cpu: u32) -> Distance {
        let at = self.places[cpu as usize];
        if self.leaves_socket(set, at) {
            Distance::Machine
        } else if self.has_dies && self.has_others(set, &self.dies[at.die as usize]) {
            Distance::Socket
        } else if self.has_others(set, &self.cores[at.core as usize]) {
            Distance::Die
        } else {
            Distance::Core
        }
    }

    /// Whether the set has a CPU that is not among `near`.
    #[inline(always)]
    fn has_others(&self, set: Holder, mut near: &[SetWord]) -> bool {
        (0..self.set_words as u32).any(|place| {
            let mut word = self.word(set, place);
            if let Some((first, rest)) = near.split_first()
                && first.place == place
            {
                word &= !first.word;
                near = rest;
            }
            word != 0
        })
    }

    fn insert(&self, set: Holder, cpu: u32) {
        self.add(set, cpu / u64::BITS, 1 << (cpu % u64::BITS));
        self.add(set, self.set_words as u32, socket_bit(self.places[cpu as usize]));
    }

    /// Sets bits in the word at `place` of a set.
    #[inline(always)]
    fn add(&self, set: Holder, place: u32, bits: u64) {
        self.sets.set(((set & !SHARED) + place) as usize, self.word(set, place) | bits);
    }

    /// An empty set.
    fn take_set(&self) -> Holder {
        let first = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let first = self.sets.len();
            self.sets.grow(first + self.set_words + 1, 0);
            first as u32
        });
        assert!(first < WATCHED, "sets of CPUs for all lines");
        SHARED | first
    }

    fn release_set(&self, set: Holder) {
        let first = set & !SHARED;
        self.sets.fill(first as usize, self.set_words + 1, 0);
        self.free.borrow_mut().push(first);
    }

    /// One more task spins on a word of the line.
    pub(super) fn watch(&self, line: u32) {
        self.change_spinners(line, 1);
    }
    /// One less.
    pub(super) fn unwatch(&self, line: u32) {
        self.change_spinners(line, -1);
    }

    fn change_spinners(&self, line: u32, change: i32) {
        self.cover(line);
        let line = line as usize;
        let holder = self.holders.get(line).expect("covered");
        let spinners = self.spinners.get(line).expect("covered");
        let spinners = spinners.checked_add_signed(change).expect("who goes came");
        let watched = if spinners == 0 { 0 } else { WATCHED };
        self.holders.set(line, holder & !WATCHED | watched);
        self.spinners.set(line, spinners);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/lines.rs"]
mod tests;
