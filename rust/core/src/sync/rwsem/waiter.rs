//! The queue of tasks that sleep on a semaphore. `wait_lock` protects it.

use super::RwSem;
use crate::platform::{Field, Line, Ordering, Platform, TaskId, Word};

pub(super) const WAITING_FOR_WRITE: u64 = 1;
pub(super) const WAITING_FOR_READ: u64 = 2;

pub(super) const RUNNING: u64 = 0;
pub(super) const UNINTERRUPTIBLE: u64 = 1;

/// A place in the queue: task n is n + 1, and 0 is the end.
pub(super) const END: u64 = 0;

pub(super) fn encode_link(task: TaskId) -> u64 {
    u64::from(task) + 1
}
pub(super) fn decode_link(link: u64) -> TaskId {
    (link - 1) as TaskId
}

/// What a task needs to wait for a semaphore: `struct rwsem_waiter`, `task->state` and the node
/// in the spinners' queue.
pub struct Waiter<P: Platform> {
    next: Word<P>,
    prev: Word<P>,
    kind: Word<P>,
    /// A reader that was not given the lock yet.
    waiting: Word<P>,
    /// A writer's `task->state`.
    state: Word<P>,
    osq_next: Word<P>,
    osq_locked: Word<P>,
}

impl<P: Platform> Waiter<P> {
    /// A waiter in no queue, in the cache line `line`.
    pub fn new(line: Line) -> Self {
        Self {
            next: Word::new(line, 0),
            prev: Word::new(line, 8),
            kind: Word::new(line, 16),
            waiting: Word::new(line, 24),
            state: Word::new(line, 32),
            osq_next: Word::new(line, 40),
            osq_locked: Word::new(line, 48),
        }
    }

    /// The name of the word at `offset`, for timelines.
    pub fn field_name(offset: u32) -> String {
        let names = ["next", "prev", "kind", "waiting", "state", "osq_next", "osq_locked"];
        let name = names.get(offset as usize / 8);
        name.map_or_else(|| format!("+{offset:#x}"), |&name| name.to_owned())
    }

    /// Takes the waiter out of every queue, for a new run.
    pub fn reset(&self) {
        for word in [
            &self.next,
            &self.prev,
            &self.kind,
            &self.waiting,
            &self.state,
            &self.osq_next,
            &self.osq_locked,
        ] {
            word.poke(0);
        }
    }

    pub(super) fn next(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.next)
    }
    pub(super) fn prev(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.prev)
    }
    pub(super) fn kind(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.kind)
    }
    pub(super) fn waiting(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.waiting)
    }
    pub(super) fn state(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.state)
    }
    pub(super) fn osq_next(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.osq_next)
    }
    pub(super) fn osq_locked(&self) -> Field<'_, P, u64> {
        Field::permanent(&self.osq_locked)
    }
}

impl<P: Platform> Waiter<P> {
    /// `set_current_state(TASK_UNINTERRUPTIBLE)`: before the condition is looked at, so that a
    /// wake-up in between is not lost. AcqRel: pairs with the same in `wake_up_q`.
    pub(super) fn prepare_to_sleep(&self, cpu: &P) {
        self.state().swap(cpu, UNINTERRUPTIBLE, Ordering::AcqRel);
    }
}

/// Who knows the waiter of each task: the kernel.
pub trait Waiters<P: Platform> {
    fn waiter(&self, task: TaskId) -> &Waiter<P>;
}

impl<P: Platform, W: Waiters<P>> RwSem<'_, P, W> {
    pub(super) fn list_empty(self, cpu: &P) -> bool {
        self.wait_head.read(cpu) == END
    }

    /// Queues the current task. Caller holds `wait_lock`.
    pub(super) fn list_add_tail(self, cpu: &P, waiter: &Waiter<P>) {
        let link = encode_link(cpu.task());
        let last = self.wait_tail.read(cpu);
        waiter.next().write(cpu, END);
        waiter.prev().write(cpu, last);
        if last == END {
            self.wait_head.write(cpu, link);
        } else {
            self.waiters.waiter(decode_link(last)).next().write(cpu, link);
        }
        self.wait_tail.write(cpu, link);
    }

    /// Takes the current task out of the queue. Caller holds `wait_lock`.
    pub(super) fn list_del(self, cpu: &P, waiter: &Waiter<P>) {
        let (next, prev) = (waiter.next().read(cpu), waiter.prev().read(cpu));
        if prev == END {
            self.wait_head.write(cpu, next);
        } else {
            self.waiters.waiter(decode_link(prev)).next().write(cpu, next);
        }
        if next == END {
            self.wait_tail.write(cpu, prev);
        } else {
            self.waiters.waiter(decode_link(next)).prev().write(cpu, prev);
        }
    }

    /// Takes the readers at the head of the queue, up to the next writer, out of it.
    pub(super) fn cut_readers(self, cpu: &P) -> Vec<TaskId> {
        let mut readers = Vec::new();
        let mut link = self.wait_head.read(cpu);
        while link != END {
            let waiter = self.waiters.waiter(decode_link(link));
            if waiter.kind().read(cpu) == WAITING_FOR_WRITE {
                waiter.prev().write(cpu, END);
                break;
            }
            readers.push(decode_link(link));
            link = waiter.next().read(cpu);
        }
        self.wait_head.write(cpu, link);
        if link == END {
            self.wait_tail.write(cpu, END);
        }
        readers
    }

    /// As since 5.2: takes all readers out of the queue; writers stay.
    #[cold]
    pub(super) fn cut_all_readers(self, cpu: &P) -> Vec<TaskId> {
        let mut readers = Vec::new();
        let (mut link, mut last_writer) = (self.wait_head.read(cpu), END);
        self.wait_head.write(cpu, END);
        while link != END {
            let waiter = self.waiters.waiter(decode_link(link));
            let next = waiter.next().read(cpu);
            if waiter.kind().read(cpu) == WAITING_FOR_WRITE {
                waiter.prev().write(cpu, last_writer);
                waiter.next().write(cpu, END);
                if last_writer == END {
                    self.wait_head.write(cpu, link);
                } else {
                    self.waiters.waiter(decode_link(last_writer)).next().write(cpu, link);
                }
                last_writer = link;
            } else {
                readers.push(decode_link(link));
            }
            link = next;
        }
        self.wait_tail.write(cpu, last_writer);
        readers
    }
}
