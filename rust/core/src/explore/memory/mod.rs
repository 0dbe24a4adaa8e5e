//! Memory models: which stores a load may see.
//!
//! Every word has its stores in coherence order. A schedule executes each task in program order;
//! what a weaker memory adds is that a load may be answered by an older store, and that a store may
//! come before one that is there already. Whoever drives the schedule is asked which, but only where
//! the access could not as well have come earlier in the schedule: if its CPU has stored nothing, and
//! read nothing new, since the newer store was executed, a schedule in which it ran before that store
//! leads to the same.
//!
//! `mca.rs` has the multi-copy atomic models, `views.rs` the one that is not. What is left out: a
//! store is never executed before an earlier load of its task, so load buffering (LB), which both
//! arm64 and POWER allow, is not seen; an address dependency (`Consume`) orders all later loads, not
//! only those that depend; a word has its last [`KEPT`] stores only.
//! `tests/unit/explore/memory.rs` has the litmus tests with what is published of each.

mod local;
mod mca;
mod model;
mod views;
mod words;

use local::Local;
pub use model::Model;
use views::View;
use words::{Store, StoreId, Words};

use crate::platform::{CpuId, Fence, Ordering};

/// How many stores of a word a load can still see.
const KEPT: usize = 8;

/// How many loads can go on to miss a store: sooner or later it is seen.
const MISSES: u32 = 64;

/// A word: its number, and where it is in the host, for two may have one number.
pub(super) type Key = (u64, usize);

/// Answers how to go on: one of so many, the last being what memory in order would do; whether
/// another costs a preemption.
pub(super) type Choose<'c> = &'c mut dyn FnMut(usize, bool) -> usize;

/// What a store is to be.
#[derive(Clone, Copy)]
struct Written {
    value: u64,
    releases: bool,
    is_exchange: bool,
}

/// All words of a run, under one model.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    model: Model,
    words: Words,
    cpus: Vec<Local>,
    /// Counts stores executed, and stores performed.
    now: u64,
    /// What is ordered by full barriers (POWER).
    fenced: View,
    /// The words of the stores that this access performs. If somebody saw one of them before, they
    /// could be performed one after the other, so a step that performs several conflicts with who
    /// reads them.
    pub(super) performed: Vec<u64>,
    /// Asks even where the access could have come earlier.
    pub(super) asks_always: bool,
}

impl Memory {
    pub(super) fn new(model: Model, nr_cpus: usize) -> Self {
        Self {
            model,
            words: Words::default(),
            cpus: vec![Local::default(); nr_cpus],
            now: 0,
            fenced: View::default(),
            performed: Vec::new(),
            asks_always: false,
        }
    }

    /// A load of a word that holds `value` now: what it sees.
    pub(super) fn load(
        &mut self,
        cpu: CpuId,
        key: Key,
        value: u64,
        order: Ordering,
        choose: Choose<'_>,
    ) -> u64 {
        if self.model == Model::Sc {
            return value;
        }
        if self.model == Model::Armv8 && matches!(order, Ordering::Acquire | Ordering::SeqCst) {
            self.wait_for_releases(cpu);
        }
        let Some(word) = self.words.find(key, value) else {
            self.see_untouched(cpu);
            self.after_load(cpu, order);
            return value;
        };
        let last = self.words.stores(word).len() - 1;
        let first = self.first_to_see(cpu, word);
        let seen =
            if first == last { last } else { self.ask(cpu, word, (first, last), false, choose) };
        if seen != last {
            let newest = self.words.last(word).nth;
            let local = self.local(cpu);
            local.nr_missed =
                if local.missed.get(word) == newest { local.nr_missed + 1 } else { 0 };
            local.missed.set(word, newest);
        }
        self.see(cpu, word, seen);
        self.after_load(cpu, order);
        self.words.stores(word)[seen].value
    }

    /// A store to a word that holds `before`: what it holds then, as another's store may be last.
    pub(super) fn store(
        &mut self,
        cpu: CpuId,
        key: Key,
        before: u64,
        value: u64,
        order: Ordering,
        choose: Choose<'_>,
    ) -> u64 {
        if self.model == Model::Sc {
            return value;
        }
        let releases = matches!(order, Ordering::Release | Ordering::SeqCst);
        if releases && !self.is_mca() {
            self.lwsync(cpu);
        }
        let word = self.words.find_or_add(key, before);
        let first = self.first_to_precede(cpu, word, releases);
        let end = self.words.stores(word).len();
        let at = if first == end {
            end
        } else {
            1 + self.ask(cpu, word, (first - 1, end - 1), true, choose)
        };
        self.insert(cpu, word, at, Written { value, releases, is_exchange: false });
        if order == Ordering::SeqCst {
            self.fence(cpu, Fence::Full);
        }
        self.words.last(word).value
    }

    /// A read-modify-write of a word that holds `before`, and then `after`: it always sees the last
    /// store. One that changes nothing is a load.
    pub(super) fn exchange(
        &mut self,
        cpu: CpuId,
        key: Key,
        before: u64,
        after: Option<u64>,
        order: Ordering,
    ) {
        if self.model == Model::Sc {
            return;
        }
        // x86's are full barriers, whatever was asked for.
        let order = if self.model == Model::Tso { Ordering::SeqCst } else { order };
        match order {
            Ordering::SeqCst if after.is_some() => self.fence(cpu, Fence::Full),
            Ordering::Release | Ordering::AcqRel if !self.is_mca() => self.lwsync(cpu),
            _ => {}
        }
        let word = match after {
            Some(_) => Some(self.words.find_or_add(key, before)),
            None => self.words.find(key, before),
        };
        if let Some(word) = word {
            let last = self.words.stores(word).len() - 1;
            self.see(cpu, word, last);
            if let Some(after) = after {
                let releases = matches!(order, Ordering::Release | Ordering::AcqRel);
                let written = Written { value: after, releases, is_exchange: true };
                self.insert_exchange(cpu, word, written);
            }
        } else {
            self.see_untouched(cpu);
        }
        match order {
            Ordering::SeqCst if after.is_some() => self.fence(cpu, Fence::Full),
            Ordering::Release => {}
            _ => self.after_load(cpu, order),
        }
    }

    pub(super) fn fence(&mut self, cpu: CpuId, fence: Fence) {
        match (self.model, fence) {
            (Model::Sc, _) | (Model::Tso, Fence::Read | Fence::Write) => {}
            (Model::Armv8, Fence::Read) => self.order_loads(cpu),
            (Model::Armv8, Fence::Write) => self.order_stores(cpu),
            (Model::Tso | Model::Armv8, Fence::Full) => {
                self.perform_all_of(cpu);
                let now = self.now;
                let local = self.local(cpu);
                (local.earliest, local.recent) = (now, now);
            }
            // smp_rmb() and smp_wmb() are lwsync.
            (Model::Power, Fence::Read | Fence::Write) => self.lwsync(cpu),
            (Model::Power, Fence::Full) => self.sync(cpu),
        }
    }

    /// Nothing was stored yet.
    pub(super) fn reset(&mut self) {
        self.words.reset();
        self.cpus.iter_mut().for_each(Local::reset);
        self.now = 0;
        self.performed.clear();
        self.fenced.clear();
    }

    /// The words with numbers of this range are gone, and so is what they held.
    pub(super) fn forget(&mut self, numbers: std::ops::Range<u64>) {
        self.words.forget(numbers);
    }

    /// Whether the order of full barriers matters.
    pub(super) fn orders_full_fences(&self) -> bool {
        self.model == Model::Power
    }

    fn is_mca(&self) -> bool {
        self.model != Model::Power
    }

    fn local(&mut self, cpu: CpuId) -> &mut Local {
        &mut self.cpus[cpu as usize]
    }

    /// Which store from place `first` to `last` an access comes after: a load sees it, a store follows
    /// it. Any but the last only if the access could not have come when that store was the last one:
    /// if the CPU has done something since another came behind, or that came before the store.
    fn ask(
        &self,
        cpu: CpuId,
        word: usize,
        (first, last): (usize, usize),
        stores: bool,
        choose: Choose<'_>,
    ) -> usize {
        let (known, recent) = (self.words.stores(word), self.cpus[cpu as usize].recent);
        let mut places = [0; KEPT];
        let (mut nr, mut others) = (KEPT, u64::MAX);
        for place in (first..=last).rev() {
            let behind = known.get(place + 1);
            others = others.min(behind.map_or(u64::MAX, |behind| behind.executed));
            let came_too_late = others <= recent.max(known[place].executed);
            // Nothing comes between a read-modify-write and what it has read.
            let is_kept_together = stores && behind.is_some_and(|behind| behind.is_exchange);
            if place == last || (came_too_late || self.asks_always) && !is_kept_together {
                nr -= 1;
                places[nr] = place;
            }
        }
        let places = &places[nr..];
        let local = &self.cpus[cpu as usize];
        let is_missed = !stores && local.missed.get(word) == known[last].nth;
        if places.len() == 1 || is_missed && local.nr_missed >= MISSES {
            return last;
        }
        places[choose(places.len(), !is_missed)]
    }

    fn after_load(&mut self, cpu: CpuId, order: Ordering) {
        match order {
            Ordering::Relaxed | Ordering::Release => {}
            // What depends on it comes later; that goes along with no store.
            Ordering::Consume if self.model == Model::Power => self.depend(cpu),
            Ordering::Consume | Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst => {
                self.acquired(cpu);
            }
        }
    }

    /// The CPU reads the store at place `at`.
    fn see(&mut self, cpu: CpuId, word: usize, at: usize) {
        if self.is_mca() {
            self.see_mca(cpu, word, at);
        } else {
            self.acquire(cpu, word, at);
        }
        let nth = self.words.stores(word)[at].nth;
        self.local(cpu).seen.set(word, nth);
    }

    /// The CPU reads a word that nobody has stored to: at any time.
    fn see_untouched(&mut self, cpu: CpuId) {
        let local = self.local(cpu);
        local.last_load = local.earliest;
    }

    /// No later load happens before one that has happened.
    fn order_loads(&mut self, cpu: CpuId) {
        let local = self.local(cpu);
        local.earliest = local.earliest.max(local.latest_load);
    }

    /// No later load happens before the last one: it was an acquire.
    fn acquired(&mut self, cpu: CpuId) {
        if self.is_mca() {
            let local = self.local(cpu);
            local.earliest = local.earliest.max(local.last_load);
        } else {
            // On POWER it ends in lwsync.
            self.lwsync(cpu);
        }
    }

    /// No later store is seen before one that is executed, or read.
    fn order_stores(&mut self, cpu: CpuId) {
        if self.is_mca() {
            self.local(cpu).epoch += 1;
        } else {
            self.lwsync(cpu);
        }
    }

    /// The oldest store that a load may see.
    fn first_to_see(&self, cpu: CpuId, word: usize) -> usize {
        let (local, stores) = (&self.cpus[cpu as usize], self.words.stores(word));
        let seen = local.seen.get(word);
        let fixed =
            |store: &Store| store.nth == seen || self.is_mca() && store.performed <= local.earliest;
        stores.iter().rposition(fixed).unwrap_or(0)
    }

    /// Where a store may come: behind what the CPU has seen of the word, and behind what has to be
    /// before it. Coherence and barriers together have no cycles.
    fn first_to_precede(&self, cpu: CpuId, word: usize, releases: bool) -> usize {
        let (local, stores) = (&self.cpus[cpu as usize], self.words.stores(word));
        let last = stores.last().expect("at least one");
        let seen = local.seen.get(word);
        if last.nth == seen || self.is_mca() && last.is_performed() {
            return stores.len();
        }
        let (mut before, mut nr_before) = (Vec::new(), 0);
        if self.is_mca() {
            self.pending_before(cpu, (local.epoch, u64::MAX, releases), &mut before);
        } else {
            nr_before = self.propagated_before(&local.released, word);
        }
        let fixed = |(at, store): (usize, &Store)| {
            self.is_mca() && store.is_performed()
                || store.nth == seen
                || at < nr_before
                || before.contains(&StoreId { word: word as u32, nth: store.nth })
        };
        stores.iter().enumerate().rposition(fixed).map_or(1, |at| at + 1)
    }

    fn insert(&mut self, cpu: CpuId, word: usize, at: usize, written: Written) {
        let Written { value, releases, is_exchange } = written;
        self.now += 1;
        let executed = self.now;
        let performed = if self.model == Model::Armv8 { words::PENDING } else { executed };
        let local = &mut self.cpus[cpu as usize];
        local.recent = executed;
        let view = (self.model == Model::Power).then(|| local.released.clone());
        let (nth, writer, epoch, is_release) = (0, cpu, local.epoch, releases);
        let store =
            Store { nth, value, writer, epoch, executed, performed, is_release, is_exchange, view };
        let nth = self.words.insert(word, at, store);
        local.seen.set(word, nth);
        if performed == words::PENDING {
            let id = StoreId { word: word as u32, nth };
            local.pending.push(id);
            if releases {
                local.releases.push(id);
            }
        }
    }

    /// The store of a read-modify-write, right behind the one that it has read.
    fn insert_exchange(&mut self, cpu: CpuId, word: usize, written: Written) {
        let read = self.words.last(word).carried(word);
        self.insert(cpu, word, self.words.stores(word).len(), written);
        let id = StoreId { word: word as u32, nth: self.words.last(word).nth };
        if self.is_mca() {
            self.perform(id);
        } else {
            self.carry(id, read);
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/unit/explore/memory.rs"]
mod tests;
