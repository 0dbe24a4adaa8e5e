//! Support: a platform whose CPUs take turns on one thread, one task each. Nothing waits, every
//! access checks that its object lives, and a step of the protocol can be watched.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering as Std;

use crate::platform::{CpuId, Fence, Line, Ordering, Platform, RcuCallback, TaskId, Word};

/// Told of each step.
type Watch = Box<dyn Fn(&'static str)>;

#[derive(Default)]
pub struct Shared {
    pub watch: RefCell<Option<Watch>>,
    callbacks: RefCell<Vec<RcuCallback>>,
    /// By address: how often a lock was taken, or something was added to a word.
    taken: RefCell<BTreeMap<usize, u64>>,
}

pub struct Cpu {
    task: TaskId,
    pub shared: Rc<Shared>,
}

fn address(word: &Word<Cpu>) -> usize {
    std::ptr::from_ref(word) as usize
}

impl Cpu {
    /// How often the word was taken, as a lock or to add something, since this was last asked.
    pub fn taken(&self, word: &Word<Self>) -> u64 {
        self.shared.taken.borrow_mut().remove(&address(word)).unwrap_or(0)
    }
    fn takes(&self, word: &Word<Self>) {
        *self.shared.taken.borrow_mut().entry(address(word)).or_default() += 1;
    }
}

/// `count` CPUs of one machine; CPU n runs task n.
pub fn cpus(count: u32) -> Vec<Cpu> {
    let shared = Rc::new(Shared::default());
    (0..count).map(|task| Cpu { task, shared: Rc::clone(&shared) }).collect()
}

impl Platform for Cpu {
    type Site = ();
    const CHECKS_EVERY_ACCESS: bool = true;
    const MUTABLE: bool = false;
    const KEEPS_LISTS: bool = true;

    fn site(_line: Line, _offset: u32) -> Self::Site {}
    fn id(&self) -> CpuId {
        self.task
    }
    fn task(&self) -> TaskId {
        self.task
    }
    fn load(&self, word: &Word<Self>, _order: Ordering) -> u64 {
        word.peek()
    }
    fn store(&self, word: &Word<Self>, value: u64, _order: Ordering) {
        word.poke(value);
    }
    fn swap(&self, word: &Word<Self>, value: u64, _order: Ordering) -> u64 {
        word.value.swap(value, Std::Relaxed)
    }
    fn compare_exchange(
        &self,
        word: &Word<Self>,
        expect: u64,
        new: u64,
        _order: Ordering,
    ) -> Result<u64, u64> {
        word.value.compare_exchange(expect, new, Std::Relaxed, Std::Relaxed)
    }
    fn fetch_add(&self, word: &Word<Self>, add: u64, _order: Ordering) -> u64 {
        self.takes(word);
        word.value.fetch_add(add, Std::Relaxed)
    }
    fn fence(&self, _fence: Fence) {}

    fn spin_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        assert!(done(word.peek()), "a wait for a CPU whose turn it is not");
        word.peek()
    }
    fn sleep_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        self.spin_until(word, done)
    }
    fn wake(&self, _word: &Word<Self>) {}
    fn spin_on_owner(&self, _word: &Word<Self>, _value: u64, _owner: TaskId) {}

    fn rcu_read_lock(&self) {}
    fn rcu_read_unlock(&self) {}
    fn call_rcu(&self, callback: RcuCallback) {
        self.shared.callbacks.borrow_mut().push(callback);
    }
    fn after_readers(&self, then: impl FnOnce() + Send + 'static) {
        then();
    }
    fn while_idle(&self, _cpu: CpuId, then: impl FnOnce()) {
        then();
    }
    fn rcu_ready(&self) -> Option<RcuCallback> {
        self.shared.callbacks.borrow_mut().pop()
    }
    fn local_irq_disable(&self) {}
    fn local_irq_enable(&self) {}
    fn ipi(&self, _is_target: impl Fn(CpuId) -> bool) {}
    fn now_ns(&self) -> u64 {
        0
    }
    fn set_function(&self, function: &'static str) -> &'static str {
        if let Some(watch) = &*self.shared.watch.borrow()
            && !function.is_empty()
        {
            watch(function);
        }
        ""
    }
    fn acquired(&self, lock: &Word<Self>) {
        self.takes(lock);
    }
    fn operation_boundary(&self) -> bool {
        true
    }
    fn finding(&self, invariant: &'static str, what: String) -> ! {
        panic!("{invariant}: {what}")
    }
}
