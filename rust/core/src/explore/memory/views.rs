//! [`Model::Power`](super::Model::Power), which is not multi-copy atomic.
//!
//! Each CPU has its own view of which stores it cannot miss any more, and what a CPU has seen goes
//! along with a store only across a barrier, as in view-based semantics of C11 (J. Kang et al., "A
//! promising semantics for relaxed-memory concurrency", 2017, without the promises).

use std::collections::BTreeSet;
use std::mem::take;
use std::rc::Rc;

use super::words::{Store, StoreId};
use super::{Memory, words};
use crate::platform::CpuId;

/// Of each word the store that cannot be missed any more, 0 for none.
#[derive(Clone, Debug, Default)]
pub(super) struct View(Vec<u32>);

impl View {
    pub(super) fn get(&self, word: usize) -> u32 {
        self.0.get(word).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, word: usize, nth: u32) {
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] = nth;
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what another view does not miss.
    fn join(&mut self, other: &View, words: &words::Words) {
        for (word, &nth) in other.0.iter().enumerate() {
            let mine = self.get(word);
            if mine != nth && words.place_of(word, nth) > words.place_of(word, mine) {
                self.set(word, nth);
            }
        }
    }
}

impl Store {
    /// What goes along with it, itself included.
    pub(super) fn carried(&self, word: usize) -> Option<Rc<View>> {
        let mut view = View::clone(self.view.as_ref()?);
        view.set(word, self.nth);
        Some(Rc::new(view))
    }
}

impl Memory {
    /// What comes with the store at place `at`, once there is a barrier.
    pub(super) fn acquire(&mut self, cpu: CpuId, word: usize, at: usize) {
        let store = &self.words.stores(word)[at];
        let local = &mut self.cpus[cpu as usize];
        if store.writer != cpu {
            local.recent = local.recent.max(store.executed);
        }
        if let Some(view) = &store.view {
            local.acquired.join(view, &self.words);
        }
        let place = |nth| self.words.place_of(word, nth);
        if place(local.acquired.get(word)).is_none_or(|known| known < at) {
            local.acquired.set(word, store.nth);
        }
    }

    /// What a read-modify-write has read goes along with its own store.
    pub(super) fn carry(&mut self, id: StoreId, read: Option<Rc<View>>) {
        let (Some(read), Some(store)) = (read, self.words.get(id)) else { return };
        let mut view = store.view.as_deref().cloned().unwrap_or_default();
        view.join(&read, &self.words);
        self.words.get_mut(id).expect("just seen").view = Some(Rc::new(view));
    }

    /// What depends on a load comes after it.
    pub(super) fn depend(&mut self, cpu: CpuId) {
        let local = &mut self.cpus[cpu as usize];
        local.seen.join(&local.acquired, &self.words);
    }

    pub(super) fn lwsync(&mut self, cpu: CpuId) {
        self.depend(cpu);
        let local = self.local(cpu);
        local.released = Rc::new(local.seen.clone());
    }

    /// As `lwsync`; and full barriers are all ordered.
    pub(super) fn sync(&mut self, cpu: CpuId) {
        self.depend(cpu);
        let mut fenced = take(&mut self.fenced);
        let local = &mut self.cpus[cpu as usize];
        fenced.join(&local.seen, &self.words);
        local.seen = fenced.clone();
        local.released = Rc::new(fenced.clone());
        local.recent = self.now;
        self.fenced = fenced;
    }

    /// How many stores of `word` what carries this view along comes after: those that the view has, and
    /// what goes along with them.
    pub(super) fn propagated_before(&self, view: &View, word: usize) -> usize {
        let (mut todo, mut known) = (vec![view], BTreeSet::new());
        // Of each word, how many stores were come to.
        let mut reached: Vec<usize> = Vec::new();
        while let Some(view) = todo.pop() {
            reached.resize(reached.len().max(view.0.len()), 0);
            for (word, &nth) in view.0.iter().enumerate() {
                let Some(at) = self.words.place_of(word, nth) else { continue };
                let new = self.words.stores(word).get(reached[word]..=at).unwrap_or_default();
                let views = new.iter().filter_map(|store| store.view.as_ref());
                todo.extend(views.filter(|view| known.insert(Rc::as_ptr(view))).map(Rc::as_ref));
                reached[word] = reached[word].max(at + 1);
            }
        }
        reached.get(word).copied().unwrap_or(0)
    }
}
