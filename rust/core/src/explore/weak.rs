//! What a CPU of the explorer sees of memory that is weaker than sequential consistency.

use super::cpu::{Cpu, address, is_free};
use super::memory::Memory;
use super::token::TaskSet;
use super::touch::Thing;
use crate::platform::{Fence, Ordering, TaskId, Word};

/// What a stranger left in memory that is not initialised.
const LEFT: u64 = 0x6b6b_6b6b_6b6b_6b6b;

impl Cpu {
    /// Whether accesses may come in another order now.
    #[inline(always)]
    fn is_weak(&self) -> bool {
        self.machine.weakens.get()
    }

    /// What a load of a word sees.
    #[inline(always)]
    pub(super) fn seen(&self, word: &Word<Self>, order: Ordering) -> u64 {
        if self.is_weak() { self.weakly_seen(word, order, false) } else { word.peek() }
    }

    /// As `seen`, when a wait for the word has ended.
    #[inline(always)]
    pub(super) fn seen_at_last(&self, word: &Word<Self>) -> u64 {
        if self.is_weak() { self.weakly_seen(word, Ordering::Acquire, true) } else { word.peek() }
    }

    #[inline(never)]
    fn weakly_seen(&self, word: &Word<Self>, order: Ordering, is_last: bool) -> u64 {
        let last = word.peek();
        if is_free(word.site()) {
            return last;
        }
        let (machine, key) = (&self.machine, (word.site(), address(word)));
        let choose = &mut |nr, costs| {
            if is_last || !self.is_live() { nr - 1 } else { machine.choose_store(nr, costs) }
        };
        let memory = &mut *machine.memory.borrow_mut();
        let seen = memory.load(self.task, key, last, order, choose);
        self.note_performed(memory);
        if seen != last {
            self.event(|| format!("{} is newer, but not seen yet", self.name_of(word.site())));
        }
        seen
    }

    /// A read by the hardware: of the last store, and what it leads to depends on it.
    #[inline(always)]
    pub(super) fn observes(&self, word: &Word<Self>) {
        if self.is_weak() {
            let (key, last) = ((word.site(), address(word)), word.peek());
            let memory = &mut *self.machine.memory.borrow_mut();
            memory.load(self.task, key, last, Ordering::Consume, &mut |nr, _| nr - 1);
            self.note_performed(memory);
        }
    }

    /// What a word holds after a store: another's store may come behind it.
    #[inline(always)]
    pub(super) fn after_store(&self, word: &Word<Self>, value: u64, order: Ordering) -> u64 {
        if self.is_weak() { self.after_weak_store(word, value, order) } else { value }
    }

    #[inline(never)]
    fn after_weak_store(&self, word: &Word<Self>, value: u64, order: Ordering) -> u64 {
        if is_free(word.site()) {
            return value;
        }
        let (machine, key, before) = (&self.machine, (word.site(), address(word)), word.peek());
        let choose = &mut |nr, costs| machine.choose_store(nr, costs);
        let memory = &mut *machine.memory.borrow_mut();
        let after = memory.store(self.task, key, before, value, order, choose);
        self.note_performed(memory);
        after
    }

    /// A store to a word that nobody else has found, and that holds what a stranger left.
    #[inline(always)]
    pub(super) fn initialises(&self, word: &Word<Self>, value: u64) {
        if self.is_weak() {
            let key = (word.site(), address(word));
            let memory = &mut *self.machine.memory.borrow_mut();
            memory.store(self.task, key, LEFT, value, Ordering::Relaxed, &mut |nr, _| nr - 1);
        }
    }

    /// A read-modify-write of a word that holds `before`, and then `after`, if it stores.
    #[inline(always)]
    pub(super) fn exchanges(
        &self,
        word: &Word<Self>,
        before: u64,
        after: Option<u64>,
        order: Ordering,
    ) {
        if self.is_weak() && !is_free(word.site()) {
            let key = (word.site(), address(word));
            let memory = &mut *self.machine.memory.borrow_mut();
            memory.exchange(self.task, key, before, after, order);
            self.note_performed(memory);
        }
    }

    /// A step that has performed several stores conflicts with who reads them.
    fn note_performed(&self, memory: &mut Memory) {
        if self.machine.notes() && memory.performed.len() > 1 {
            let races = &mut self.machine.dpor.borrow_mut().races;
            memory.performed.iter().for_each(|&number| races.touch(number, true));
        }
        memory.performed.clear();
    }

    #[inline(always)]
    pub(super) fn fence_of(&self, task: TaskId, fence: Fence) {
        if self.is_weak() {
            self.weak_fence_of(task, fence);
        }
    }

    #[inline(never)]
    fn weak_fence_of(&self, task: TaskId, fence: Fence) {
        let memory = &mut *self.machine.memory.borrow_mut();
        if fence == Fence::Full && memory.orders_full_fences() {
            self.machine.touch(Thing::FullFences, true);
        }
        memory.fence(task, fence);
        self.note_performed(memory);
    }

    /// These have done all that came before.
    pub(super) fn full_fences_of(&self, tasks: TaskSet) {
        if self.machine.is_weak.get() {
            (0..self.machine.nr_tasks)
                .filter(|task| tasks >> task & 1 != 0)
                .for_each(|task| self.fence_of(task, Fence::Full));
        }
    }
}
