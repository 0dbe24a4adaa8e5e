//! The words that were stored to, and their stores.

use std::rc::Rc;

use super::views::View;
use super::{KEPT, Key};
use crate::platform::CpuId;

/// Not performed yet.
pub(super) const PENDING: u64 = u64::MAX;
/// The writer of what was there from the beginning.
const NOBODY: CpuId = CpuId::MAX;

/// A store, by its word and its number there; it may be forgotten meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoreId {
    pub(super) word: u32,
    pub(super) nth: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Store {
    /// Its number among the stores of its word, from 1, as they were executed.
    pub(super) nth: u32,
    pub(super) value: u64,
    pub(super) writer: CpuId,
    /// How many store barriers its CPU had executed before.
    pub(super) epoch: u32,
    pub(super) executed: u64,
    /// When all CPUs can see it (multi-copy atomic models); before, only its own CPU can.
    pub(super) performed: u64,
    /// It comes after all earlier stores of its CPU.
    pub(super) is_release: bool,
    /// Of a read-modify-write.
    pub(super) is_exchange: bool,
    /// What whoever sees it, and then a barrier, cannot miss (POWER).
    pub(super) view: Option<Rc<View>>,
}

impl Store {
    pub(super) fn is_performed(&self) -> bool {
        self.performed != PENDING
    }
}

#[derive(Clone, Debug)]
struct Word {
    number: u64,
    address: usize,
    /// 1 + the next word with that number, 0 for none.
    next: u32,
    nr_stores: u32,
    stores: Vec<Store>,
}

/// Words are found by their numbers, four apart, as `races.rs` tells them apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// By number: 1 + the first word, 0 for none.
    firsts: Vec<u32>,
    /// Those numbers that have one.
    used: Vec<u32>,
    words: Vec<Word>,
    /// How many of `words` are in use.
    nr_words: usize,
}

impl Words {
    pub(super) fn reset(&mut self) {
        for number in self.used.drain(..) {
            self.firsts[number as usize] = 0;
        }
        self.nr_words = 0;
    }

    fn place((site, _): Key) -> usize {
        (site / 4) as usize
    }

    fn position(&self, key: Key) -> Option<usize> {
        let mut next = *self.firsts.get(Self::place(key))?;
        while next != 0 {
            let word = &self.words[next as usize - 1];
            if word.address == key.1 {
                return Some(next as usize - 1);
            }
            next = word.next;
        }
        None
    }

    /// The word, if it was stored to and holds what it should: else it was written behind the
    /// model's back, as an object is that was made anew, and everybody sees that.
    pub(super) fn find(&mut self, key: Key, value: u64) -> Option<usize> {
        let word = self.position(key)?;
        let stores = &mut self.words[word].stores;
        if stores.last()?.value == value {
            return Some(word);
        }
        stores.clear();
        None
    }

    pub(super) fn find_or_add(&mut self, key: Key, value: u64) -> usize {
        if let Some(word) = self.find(key, value) {
            return word;
        }
        let word = self.position(key).unwrap_or_else(|| self.add(key));
        let (writer, view, is_release, is_exchange) = (NOBODY, None, false, false);
        let (nth, epoch, executed, performed) = (0, 0, 0, 0);
        let store =
            Store { nth, value, writer, epoch, executed, performed, is_release, is_exchange, view };
        self.insert(word, 0, store);
        word
    }

    fn add(&mut self, key: Key) -> usize {
        let (place, at) = (Self::place(key), self.nr_words);
        if place >= self.firsts.len() {
            self.firsts.resize(place + 4096, 0);
        }
        let next = std::mem::replace(&mut self.firsts[place], at as u32 + 1);
        self.used.push(place as u32);
        self.nr_words += 1;
        let (number, address) = key;
        match self.words.get_mut(at) {
            Some(word) => {
                word.stores.clear();
                (word.number, word.address) = key;
                (word.next, word.nr_stores) = (next, 0);
            }
            None => {
                self.words.push(Word { number, address, next, nr_stores: 0, stores: Vec::new() });
            }
        }
        at
    }

    /// The words with numbers of this range are gone.
    pub(super) fn forget(&mut self, numbers: std::ops::Range<u64>) {
        let end = ((numbers.end / 4) as usize).min(self.firsts.len());
        for place in (numbers.start / 4) as usize..end {
            let mut next = self.firsts[place];
            while next != 0 {
                let word = &mut self.words[next as usize - 1];
                word.stores.clear();
                next = word.next;
            }
        }
    }

    /// Its stores in coherence order.
    #[inline]
    pub(super) fn stores(&self, word: usize) -> &[Store] {
        &self.words[word].stores
    }

    /// The number of a word.
    pub(super) fn number(&self, word: u32) -> u64 {
        self.words[word as usize].number
    }

    pub(super) fn last(&self, word: usize) -> &Store {
        self.words[word].stores.last().expect("at least one")
    }

    /// Where a store of a word is now.
    pub(super) fn place_of(&self, word: usize, nth: u32) -> Option<usize> {
        self.words[word].stores.iter().rposition(|store| store.nth == nth)
    }

    pub(super) fn get(&self, id: StoreId) -> Option<&Store> {
        let word = id.word as usize;
        self.place_of(word, id.nth).map(|at| &self.words[word].stores[at])
    }

    pub(super) fn get_mut(&mut self, id: StoreId) -> Option<&mut Store> {
        let word = id.word as usize;
        self.place_of(word, id.nth).map(|at| &mut self.words[word].stores[at])
    }

    /// Adds a store; its number.
    pub(super) fn insert(&mut self, word: usize, at: usize, store: Store) -> u32 {
        let word = &mut self.words[word];
        word.nr_stores += 1;
        let nth = word.nr_stores;
        word.stores.insert(at, Store { nth, ..store });
        if word.stores.len() > KEPT {
            word.stores.remove(0);
        }
        nth
    }
}
