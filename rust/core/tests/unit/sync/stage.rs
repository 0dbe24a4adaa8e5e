//! A platform for unit traces: every task runs only when the test says so, until it waits, ends,
//! or has made so many accesses. So every interleaving of a test is in its text.

mod clocks;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use self::clocks::Clocks;
use crate::platform::coroutine::{Coroutine, Pause, StackPool, Switch, panic_text};
use crate::platform::{CpuId, Fence, Line, Ordering, Platform, RcuCallback, TaskId, Word};

/// Where a task is when the test gets control back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// It has done what it was told.
    End,
    Spin,
    SpinOnOwner,
    Sleep,
    /// Before the access that the test named.
    Pause,
}

/// One task, on a CPU of its own.
pub struct Actor {
    task: TaskId,
    switch: Rc<Switch>,
    at: Cell<At>,
    /// Accesses until it pauses; 0: it does not.
    accesses: Cell<u32>,
    is_on_cpu: Rc<Cell<bool>>,
    stage: Rc<Shared>,
}

struct Shared {
    on_cpu: RefCell<Vec<Rc<Cell<bool>>>>,
    nr_wakes: Cell<u32>,
    clocks: RefCell<Clocks>,
    trace: RefCell<Vec<(TaskId, Did)>>,
}

/// What a task did, by the address of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Read(usize),
    /// A store, or a read-modify-write.
    Wrote(usize),
    Fenced(Fence),
}

/// All tasks of a test.
pub struct Stage {
    shared: Rc<Shared>,
    actors: Vec<Rc<Actor>>,
    running: RefCell<Vec<Option<Coroutine>>>,
}

impl Stage {
    pub fn new(nr_tasks: u32) -> Self {
        let shared = Rc::new(Shared {
            on_cpu: RefCell::default(),
            nr_wakes: Cell::default(),
            clocks: RefCell::new(Clocks::new(nr_tasks)),
            trace: RefCell::default(),
        });
        let pool = StackPool::new();
        let actors: Vec<Rc<Actor>> = (0..nr_tasks)
            .map(|task| {
                Rc::new(Actor {
                    task,
                    switch: Switch::new(&pool),
                    at: Cell::new(At::End),
                    accesses: Cell::new(0),
                    is_on_cpu: Rc::new(Cell::new(true)),
                    stage: Rc::clone(&shared),
                })
            })
            .collect();
        *shared.on_cpu.borrow_mut() =
            actors.iter().map(|actor| Rc::clone(&actor.is_on_cpu)).collect();
        let running = RefCell::new(actors.iter().map(|_| None).collect());
        Self { shared, actors, running }
    }

    /// Lets `task` begin to do something, as far as it gets.
    pub fn go(&self, task: TaskId, act: impl FnOnce(&Actor) + 'static) -> At {
        let actor = Rc::clone(&self.actors[task as usize]);
        let switch = Rc::clone(&actor.switch);
        let body = move || act(&actor);
        let coroutine = Coroutine::new(&switch, body).expect("a stack");
        let old = self.running.borrow_mut()[task as usize].replace(coroutine);
        assert!(old.is_none_or(|old| old.has_ended()), "task {task} is not through");
        self.resume(task)
    }

    /// As [`Stage::go`], at most up to the access number `accesses`, from 1.
    pub fn go_until(&self, task: TaskId, accesses: u32, act: impl FnOnce(&Actor) + 'static) -> At {
        self.actors[task as usize].accesses.set(accesses);
        self.go(task, act)
    }

    /// Lets `task` go on.
    pub fn resume(&self, task: TaskId) -> At {
        let mut coroutine = self.running.borrow_mut()[task as usize].take().expect("it began");
        let at = match coroutine.resume() {
            Pause::Suspended => self.actors[task as usize].at.get(),
            Pause::Returned => At::End,
            Pause::Panicked(payload) => panic!("{}", panic_text(&payload)),
        };
        self.running.borrow_mut()[task as usize] = Some(coroutine);
        at
    }

    /// Lets a paused `task` go on, at most up to the access number `accesses` after the one that
    /// it is about to make.
    pub fn resume_until(&self, task: TaskId, accesses: u32) -> At {
        self.actors[task as usize].accesses.set(accesses);
        self.resume(task)
    }

    /// Whether `task` counts as running, for those who spin on it.
    pub fn set_on_cpu(&self, task: TaskId, on_cpu: bool) {
        self.actors[task as usize].is_on_cpu.set(on_cpu);
    }

    /// Wake-ups since the last time asked.
    pub fn nr_wakes(&self) -> u32 {
        self.shared.nr_wakes.take()
    }

    /// Whether two tasks stored to `word` with nothing that orders the two but luck.
    pub fn has_unordered_stores(&self, word: &Word<Actor>) -> bool {
        self.shared.clocks.borrow().unordered().contains(&address(word))
    }

    /// What `task` did since the last time asked.
    pub fn trace(&self, task: TaskId) -> Vec<Did> {
        let mut trace = self.shared.trace.borrow_mut();
        let did = trace.iter().filter(|(who, _)| *who == task).map(|(_, did)| *did).collect();
        trace.retain(|(who, _)| *who != task);
        did
    }
}

impl Actor {
    fn wait(&self, at: At, over: impl Fn() -> bool) {
        while !over() {
            self.suspend(at);
        }
    }

    fn suspend(&self, at: At) {
        self.at.set(at);
        self.switch.suspend();
    }

    fn did(&self, did: Did, order: Ordering, is_rmw: bool) {
        self.stage.trace.borrow_mut().push((self.task, did));
        let mut clocks = self.stage.clocks.borrow_mut();
        match did {
            Did::Read(word) => clocks.load(self.task, word, order),
            Did::Wrote(word) if is_rmw => clocks.modify(self.task, word, order),
            Did::Wrote(word) => clocks.store(self.task, word, order),
            Did::Fenced(fence) => clocks.fence(self.task, fence),
        }
    }

    fn access(&self) {
        let left = self.accesses.get();
        if left > 0 {
            self.accesses.set(left - 1);
            if left == 1 {
                self.suspend(At::Pause);
            }
        }
    }
}

impl Platform for Actor {
    type Site = ();
    const CHECKS_EVERY_ACCESS: bool = false;
    const MUTABLE: bool = false;
    const KEEPS_LISTS: bool = false;

    fn site(_line: Line, _offset: u32) -> Self::Site {}
    fn id(&self) -> CpuId {
        self.task
    }
    fn task(&self) -> TaskId {
        self.task
    }
    fn load(&self, word: &Word<Self>, order: Ordering) -> u64 {
        self.access();
        self.did(Did::Read(address(word)), order, false);
        word.peek()
    }
    fn store(&self, word: &Word<Self>, value: u64, order: Ordering) {
        self.access();
        self.did(Did::Wrote(address(word)), order, false);
        word.poke(value);
    }
    fn swap(&self, word: &Word<Self>, value: u64, order: Ordering) -> u64 {
        self.access();
        self.did(Did::Wrote(address(word)), order, true);
        let old = word.peek();
        word.poke(value);
        old
    }
    fn compare_exchange(
        &self,
        word: &Word<Self>,
        expect: u64,
        new: u64,
        order: Ordering,
    ) -> Result<u64, u64> {
        self.access();
        let old = word.peek();
        if old != expect {
            self.did(Did::Read(address(word)), order, false);
            return Err(old);
        }
        self.did(Did::Wrote(address(word)), order, true);
        word.poke(new);
        Ok(old)
    }
    fn fetch_add(&self, word: &Word<Self>, add: u64, order: Ordering) -> u64 {
        self.access();
        self.did(Did::Wrote(address(word)), order, true);
        let old = word.peek();
        word.poke(old.wrapping_add(add));
        old
    }
    fn fence(&self, fence: Fence) {
        self.did(Did::Fenced(fence), Ordering::Relaxed, false);
    }
    fn spin_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        self.wait(At::Spin, || done(word.peek()));
        word.peek()
    }
    fn sleep_until(&self, word: &Word<Self>, done: impl Fn(u64) -> bool) -> u64 {
        self.wait(At::Sleep, || done(word.peek()));
        word.peek()
    }
    fn wake(&self, _word: &Word<Self>) {
        self.stage.nr_wakes.set(self.stage.nr_wakes.get() + 1);
    }
    fn spin_on_owner(&self, word: &Word<Self>, value: u64, owner: TaskId) {
        self.wait(At::SpinOnOwner, || word.peek() != value || !self.on_cpu(owner));
    }
    fn on_cpu(&self, task: TaskId) -> bool {
        self.stage.on_cpu.borrow()[task as usize].get()
    }
    fn rcu_read_lock(&self) {}
    fn rcu_read_unlock(&self) {}
    fn call_rcu(&self, _callback: RcuCallback) {}
    fn after_readers(&self, then: impl FnOnce() + Send + 'static) {
        then();
    }
    fn while_idle(&self, _cpu: CpuId, then: impl FnOnce()) {
        then();
    }
    fn rcu_ready(&self) -> Option<RcuCallback> {
        None
    }
    fn local_irq_disable(&self) {}
    fn local_irq_enable(&self) {}
    fn ipi(&self, _is_target: impl Fn(CpuId) -> bool) {}
    fn now_ns(&self) -> u64 {
        0
    }
    fn operation_boundary(&self) -> bool {
        true
    }
    fn finding(&self, invariant: &'static str, what: String) -> ! {
        // No message on standard error: tests expect this.
        std::panic::resume_unwind(Box::new(format!("{invariant}: {what}")))
    }
}

/// What a word is called in the traces of a test.
pub fn address(word: &Word<Actor>) -> usize {
    std::ptr::from_ref(word).addr()
}
