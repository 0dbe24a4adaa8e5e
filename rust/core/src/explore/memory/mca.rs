//! The multi-copy atomic models, [`Model::Tso`] and [`Model::Armv8`]: once another CPU can see a
//! store, all can.
//!
//! So there is one time: a store is *performed* at one, and a load happens at one, not before what
//! it is ordered after. On x86 stores are performed as they are executed, and loads are ordered
//! after each other; loads alone come too early, which is all that a store buffer does. On arm64 a
//! store stays pending until another CPU reads it, or somebody has to wait for it; pending stores
//! of a CPU are ordered only as far as its barriers say.

use super::words::{Store, StoreId};
use super::{Memory, Model};
use crate::platform::CpuId;

impl Memory {
    pub(super) fn see_mca(&mut self, cpu: CpuId, word: usize, at: usize) {
        let store = &self.words.stores(word)[at];
        let id = StoreId { word: word as u32, nth: store.nth };
        let is_own = store.writer == cpu;
        let mut time = self.local(cpu).earliest;
        if !is_own {
            self.perform(id);
            let performed = self.words.stores(word)[at].performed;
            let local = self.local(cpu);
            time = time.max(performed);
            local.latest_load = local.latest_load.max(time);
            local.recent = local.recent.max(performed);
        }
        self.local(cpu).last_load = time;
        if self.model == Model::Tso {
            self.order_loads(cpu);
        }
    }

    /// All pending stores that one of this CPU's has to wait for, of that epoch, executed then, which
    /// is a release or not.
    pub(super) fn pending_before(
        &self,
        cpu: CpuId,
        (epoch, executed, is_release): (u32, u64, bool),
        found: &mut Vec<StoreId>,
    ) {
        let is_before =
            |store: &Store| store.epoch < epoch || is_release && store.executed < executed;
        for &id in &self.cpus[cpu as usize].pending {
            if self.words.get(id).is_some_and(is_before) {
                self.needed_by(id, found);
            }
        }
    }

    /// This store, and all pending ones that have to be performed before it.
    fn needed_by(&self, id: StoreId, found: &mut Vec<StoreId>) {
        if found.contains(&id) {
            return;
        }
        let word = id.word as usize;
        let Some(at) = self.words.place_of(word, id.nth) else { return };
        let store = &self.words.stores(word)[at];
        if store.is_performed() {
            return;
        }
        found.push(id);
        for earlier in &self.words.stores(word)[..at] {
            self.needed_by(StoreId { nth: earlier.nth, ..id }, found);
        }
        let of = (store.epoch, store.executed, store.is_release);
        self.pending_before(store.writer, of, found);
    }

    /// Lets every CPU see a store, and those that have to be seen before.
    pub(super) fn perform(&mut self, id: StoreId) {
        if self.words.get(id).is_none_or(|store| store.is_performed()) {
            return;
        }
        let mut needed = Vec::new();
        self.needed_by(id, &mut needed);
        self.now += 1;
        for &id in &needed {
            self.performed.push(self.words.number(id.word));
            let store = self.words.get_mut(id).expect("just found");
            store.performed = self.now;
        }
        for local in &mut self.cpus {
            local.pending.retain(|id| !needed.contains(id));
        }
    }

    pub(super) fn perform_all_of(&mut self, cpu: CpuId) {
        for id in std::mem::take(&mut self.local(cpu).pending) {
            self.perform(id);
        }
    }

    /// A load-acquire comes after every earlier store-release of its CPU.
    pub(super) fn wait_for_releases(&mut self, cpu: CpuId) {
        for id in std::mem::take(&mut self.local(cpu).releases) {
            self.perform(id);
            let performed = self.words.get(id).map_or(0, |store| store.performed);
            let now = self.now;
            let local = self.local(cpu);
            local.earliest = local.earliest.max(performed);
            local.recent = now;
        }
    }
}
