//! Each transition of the count, one at a time.

use super::*;
use crate::platform::Fence;
use crate::platform::native::{Cpu, Machine};
use crate::platform::{Line, Word};
use crate::sync::stage::{Actor, At, Did, Stage, address};

/// The waiting bias, a reader's share, a writer's share.
const W: i64 = WAITING_BIAS;
const A: i64 = ACTIVE_BIAS;
const WRITER: i64 = W + A;

/// A semaphore and those who may wait for it.
struct Lock<P: Platform = Actor> {
    words: [Word<P>; 6],
    waiters: Vec<Waiter<P>>,
    fast_path: FastPath,
    policy: Policy,
}

impl<P: Platform> Waiters<P> for Lock<P> {
    fn waiter(&self, task: TaskId) -> &Waiter<P> {
        &self.waiters[task as usize]
    }
}

type Sem = RwSem<'static, Actor, Lock>;

impl<P: Platform> Lock<P> {
    /// Leaked, so that tasks can refer to it.
    fn new(fast_path: FastPath) -> &'static Self {
        Self::with(fast_path, Policy::default())
    }
    fn with(fast_path: FastPath, policy: Policy) -> &'static Self {
        let words = [0; 6].map(|_| Word::new(Line::FREE, 0));
        let waiters = (0..8).map(|_| Waiter::new(Line::FREE)).collect();
        Box::leak(Box::new(Self { words, waiters, fast_path, policy }))
    }
    fn sem(&'static self) -> RwSem<'static, P, Self> {
        RwSem {
            count: Field::permanent(&self.words[0]),
            wait_head: Field::permanent(&self.words[1]),
            wait_tail: Field::permanent(&self.words[2]),
            wait_lock: Field::permanent(&self.words[3]),
            osq: Field::permanent(&self.words[4]),
            owner: Field::permanent(&self.words[5]),
            waiters: self,
            fast_path: self.fast_path,
            policy: self.policy,
        }
    }
    /// The count, and who is queued, first to last.
    fn state(&'static self) -> (i64, Vec<TaskId>) {
        let (mut tasks, mut before) = (Vec::new(), 0);
        let mut link = self.words[1].peek();
        while link != 0 {
            let waiter = &self.waiters[link as usize - 1];
            assert_eq!(waiter.prev().peek(), before, "the list is broken backwards");
            tasks.push(link as TaskId - 1);
            before = link;
            link = waiter.next().peek();
        }
        assert_eq!(self.words[2].peek(), before, "the tail is wrong");
        (self.sem().count.peek(), tasks)
    }
    /// The owner: the task, and whether it reads.
    fn owner(&'static self) -> Option<(TaskId, bool)> {
        let owner = self.words[5].peek();
        (owner != 0).then(|| (decode(owner), owner & 3 == 3))
    }
    fn spinners(&'static self) -> u64 {
        self.words[4].peek()
    }
}

/// The lock of each kind, with a stage.
fn both() -> [(&'static Lock, Stage); 2] {
    [FastPath::X86, FastPath::Generic].map(|fast_path| (Lock::new(fast_path), Stage::new(8)))
}

/// Lets `task` act on the semaphore.
fn go(stage: &Stage, lock: &'static Lock, task: TaskId, act: fn(Sem, &Actor)) -> At {
    stage.go(task, move |cpu| act(lock.sem(), cpu))
}

const DOWN_READ: fn(Sem, &Actor) = |sem, cpu| sem.down_read(cpu);
const UP_READ: fn(Sem, &Actor) = |sem, cpu| sem.up_read(cpu);
const DOWN_WRITE: fn(Sem, &Actor) = |sem, cpu| sem.down_write(cpu);
const UP_WRITE: fn(Sem, &Actor) = |sem, cpu| sem.up_write(cpu);
const DOWNGRADE: fn(Sem, &Actor) = |sem, cpu| sem.downgrade_write(cpu);

#[test]
fn readers_come_and_go_and_the_last_to_come_stays_the_owner() {
    for (lock, stage) in both() {
        assert_eq!(go(&stage, lock, 0, DOWN_READ), At::End);
        assert_eq!((lock.state(), lock.owner()), ((A, vec![]), Some((0, true))));
        assert_eq!(go(&stage, lock, 1, DOWN_READ), At::End);
        assert_eq!((lock.state(), lock.owner()), ((2 * A, vec![]), Some((1, true))));
        go(&stage, lock, 1, UP_READ);
        go(&stage, lock, 0, UP_READ);
        assert_eq!((lock.state(), lock.owner()), ((0, vec![]), Some((1, true))));
        assert!(lock.sem().is_free());
    }
}

#[test]
fn a_writer_owns_the_lock_alone_and_leaves_no_owner() {
    for (lock, stage) in both() {
        assert_eq!(go(&stage, lock, 0, DOWN_WRITE), At::End);
        assert_eq!((lock.state(), lock.owner()), ((WRITER, vec![]), Some((0, false))));
        go(&stage, lock, 1, |sem, cpu| assert!(!sem.down_read_trylock(cpu)));
        assert_eq!(lock.state(), (WRITER, vec![]));
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!((lock.state(), lock.owner()), ((0, vec![]), None));
        go(&stage, lock, 1, |sem, cpu| assert!(sem.down_read_trylock(cpu)));
        assert_eq!((lock.state(), lock.owner()), ((A, vec![]), Some((1, true))));
    }
}

#[test]
fn a_reader_behind_a_writer_queues_up_and_is_given_the_lock() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 1, DOWN_READ), At::Sleep);
        // It took its share back and left the bias.
        assert_eq!(lock.state(), (WRITER + W, vec![1]));
        assert_eq!(stage.resume(1), At::Sleep);
        go(&stage, lock, 0, UP_WRITE);
        // It has the lock before it runs; spinners are told early.
        assert_eq!((lock.state(), lock.owner()), ((A, vec![]), Some((1, true))));
        assert_eq!(stage.nr_wakes(), 1);
        assert_eq!(stage.resume(1), At::End);
        go(&stage, lock, 1, UP_READ);
        assert!(lock.sem().is_free());
    }
}

#[test]
fn a_reader_that_finds_the_writer_gone_does_not_queue_up() {
    // 1: count + 1 (negative) ......... sees it positive, with nobody queued
    // 0:                      up_write
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(stage.go_until(1, 2, move |cpu| lock.sem().down_read(cpu)), At::Pause);
        assert_eq!(lock.state(), (WRITER + A, vec![]));
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!(lock.state(), (A, vec![]));
        assert_eq!(stage.resume(1), At::End);
        assert_eq!((lock.state(), lock.owner()), ((A, vec![]), Some((1, true))));
    }
}

#[test]
fn readers_are_granted_together_up_to_the_next_writer() {
    // 0 writes; queued: 1 reads, 2 reads, 3 writes, 4 reads.
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        stage.set_on_cpu(0, false);
        for (task, act) in [(1, DOWN_READ), (2, DOWN_READ), (3, DOWN_WRITE), (4, DOWN_READ)] {
            assert_eq!(go(&stage, lock, task, act), At::Sleep);
        }
        assert_eq!(lock.state(), (WRITER + W, vec![1, 2, 3, 4]));
        stage.nr_wakes();
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!(lock.state(), (2 * A + W, vec![3, 4]));
        assert_eq!(stage.nr_wakes(), 2);
        assert_eq!((stage.resume(1), stage.resume(2)), (At::End, At::End));
        assert_eq!((stage.resume(3), stage.resume(4)), (At::Sleep, At::Sleep));
        go(&stage, lock, 1, UP_READ);
        assert_eq!((lock.state(), stage.nr_wakes()), ((A + W, vec![3, 4]), 0));
        go(&stage, lock, 2, UP_READ);
        // The writer is only woken; the lock is free until it runs.
        assert_eq!((lock.state(), stage.nr_wakes()), ((W, vec![3, 4]), 1));
        assert_eq!(stage.resume(3), At::End);
        assert_eq!((lock.state(), lock.owner()), ((WRITER + W, vec![4]), Some((3, false))));
        go(&stage, lock, 3, UP_WRITE);
        assert_eq!(lock.state(), (A, vec![]));
        assert_eq!(stage.resume(4), At::End);
        go(&stage, lock, 4, UP_READ);
        assert!(lock.sem().is_free());
    }
}

#[test]
fn a_reader_behind_a_queued_writer_waits_although_readers_hold_the_lock() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_READ);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Sleep);
        assert_eq!(lock.state(), (A + W, vec![1]));
        assert_eq!(go(&stage, lock, 2, DOWN_READ), At::Sleep);
        assert_eq!(lock.state(), (A + W, vec![1, 2]));
        go(&stage, lock, 0, UP_READ);
        assert_eq!((stage.resume(2), stage.resume(1)), (At::Sleep, At::End));
        go(&stage, lock, 1, UP_WRITE);
        assert_eq!(stage.resume(2), At::End);
    }
}

#[test]
fn downgrading_lets_the_readers_at_the_head_in() {
    // 0 writes; queued: 1 reads, 2 writes, 3 reads.
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        stage.set_on_cpu(0, false);
        for (task, act) in [(1, DOWN_READ), (2, DOWN_WRITE), (3, DOWN_READ)] {
            assert_eq!(go(&stage, lock, task, act), At::Sleep);
        }
        assert_eq!(go(&stage, lock, 0, DOWNGRADE), At::End);
        assert_eq!((lock.state(), lock.owner()), ((2 * A + W, vec![2, 3]), Some((0, true))));
        assert_eq!((stage.resume(1), stage.resume(2)), (At::End, At::Sleep));
        go(&stage, lock, 0, UP_READ);
        go(&stage, lock, 1, UP_READ);
        assert_eq!(stage.resume(2), At::End);
        go(&stage, lock, 2, UP_WRITE);
        assert_eq!(stage.resume(3), At::End);
    }
}

#[test]
fn downgrading_with_nobody_queued_or_a_writer_first_wakes_nobody() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        go(&stage, lock, 0, DOWNGRADE);
        assert_eq!(lock.state(), (A, vec![]));
        go(&stage, lock, 0, UP_READ);

        go(&stage, lock, 0, DOWN_WRITE);
        stage.set_on_cpu(0, false);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Sleep);
        go(&stage, lock, 0, DOWNGRADE);
        assert_eq!((lock.state(), stage.nr_wakes()), ((A + W, vec![1]), 0));
        go(&stage, lock, 0, UP_READ);
        assert_eq!((stage.nr_wakes(), stage.resume(1)), (1, At::End));
    }
}

#[test]
fn a_writer_spins_while_the_owner_runs_and_takes_over_without_sleeping() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::SpinOnOwner);
        // Its share is out of the count again; it is in the spinners' queue.
        assert_eq!((lock.state(), lock.spinners()), ((WRITER, vec![]), 2));
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!(stage.resume(1), At::End);
        assert_eq!((lock.state(), lock.owner()), ((WRITER, vec![]), Some((1, false))));
        assert_eq!((lock.spinners(), stage.nr_wakes()), (0, 0));
    }
}

#[test]
fn spinners_take_turns() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::SpinOnOwner);
        // Behind the first: on a word of their own, not on the owner.
        assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::Spin);
        assert_eq!(go(&stage, lock, 3, DOWN_WRITE), At::Spin);
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!((stage.resume(3), stage.resume(2)), (At::Spin, At::Spin));
        assert_eq!(stage.resume(1), At::End);
        assert_eq!((stage.resume(3), stage.resume(2)), (At::Spin, At::SpinOnOwner));
        go(&stage, lock, 1, UP_WRITE);
        assert_eq!(stage.resume(2), At::End);
        assert_eq!(stage.resume(3), At::SpinOnOwner);
        go(&stage, lock, 2, UP_WRITE);
        assert_eq!((stage.resume(3), lock.spinners()), (At::End, 0));
    }
}

#[test]
fn a_spinners_node_is_ready_before_the_one_in_front_knows_it() {
    // Goal: 2 zeroes `locked` and links itself behind 1; 1 then stores 1 there. On a weakly
    // ordered host the zero must not come last, or 2 spins for ever.
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        go(&stage, lock, 1, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::Spin);
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!((stage.resume(1), stage.resume(2)), (At::End, At::SpinOnOwner));
        // And round again, with a node that has been used.
        go(&stage, lock, 1, UP_WRITE);
        assert_eq!(stage.resume(2), At::End);
        assert_eq!(go(&stage, lock, 0, DOWN_WRITE), At::SpinOnOwner);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Spin);
        go(&stage, lock, 2, UP_WRITE);
        assert_eq!((stage.resume(0), stage.resume(1)), (At::End, At::SpinOnOwner));
        for waiter in &lock.waiters {
            assert!(!stage.has_unordered_stores(waiter.osq_locked().word()));
            assert!(!stage.has_unordered_stores(waiter.osq_next().word()));
        }
    }
}

#[test]
fn a_spinner_that_gives_up_and_who_releases_see_one_another() {
    // Goal: store buffering. 1 leaves the spinners and then looks at the count; 0 gives the count
    // back and then looks for spinners. One of them has to see the other, or 1 and 2 sleep for
    // ever; with tasks queued before, 1 only reads the count.
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 2, DOWN_READ), At::Sleep);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::SpinOnOwner);
        stage.set_on_cpu(0, false);
        stage.trace(1);
        assert_eq!(stage.resume(1), At::Sleep);
        stage.trace(0);
        go(&stage, lock, 0, UP_WRITE);
        let (count, osq) = (address(&lock.words[0]), address(&lock.words[4]));
        assert!(fenced_between(&stage.trace(1), Did::Wrote(osq), Did::Read(count)));
        assert!(fenced_between(&stage.trace(0), Did::Wrote(count), Did::Read(osq)));
    }
}

/// Whether `trace` has `first` and later `second`, and a full fence between.
fn fenced_between(trace: &[Did], first: Did, second: Did) -> bool {
    let from = trace.iter().position(|&did| did == first).expect("the first access");
    let to = trace[from..].iter().position(|&did| did == second).expect("the second access");
    trace[from..from + to].contains(&Did::Fenced(Fence::Full))
}

#[test]
fn a_writer_between_clearing_owner_and_count_is_waited_for_on_the_count() {
    // 0: owner = none ............................ count - share
    // 1:              sees no owner, lock taken: spins
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::SpinOnOwner);
        assert_eq!(stage.go_until(0, 2, move |cpu| lock.sem().up_write(cpu)), At::Pause);
        assert_eq!((lock.owner(), lock.state()), (None, (WRITER, vec![])));
        assert_eq!(stage.resume(1), At::Spin);
        assert_eq!(stage.resume(0), At::End);
        assert_eq!(stage.resume(1), At::End);
        assert_eq!(lock.owner(), Some((1, false)));
    }
}

#[test]
fn a_writer_does_not_spin_when_the_owner_sleeps_or_readers_own_the_lock() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        stage.set_on_cpu(0, false);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Sleep);
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!(stage.resume(1), At::End);
        go(&stage, lock, 1, UP_WRITE);

        go(&stage, lock, 2, DOWN_READ);
        assert_eq!(go(&stage, lock, 3, DOWN_WRITE), At::Sleep);
        assert_eq!(lock.spinners(), 0);
    }
}

#[test]
fn a_spinner_queues_up_when_the_owner_goes_to_sleep_or_readers_get_the_lock() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::SpinOnOwner);
        stage.set_on_cpu(0, false);
        assert_eq!(stage.resume(1), At::Sleep);
        assert_eq!((lock.state(), lock.spinners()), ((WRITER + W, vec![1]), 0));
        stage.set_on_cpu(0, true);

        // 2 spins on 0 too; 0 downgrades.
        assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::SpinOnOwner);
        go(&stage, lock, 0, DOWNGRADE);
        assert_eq!(stage.resume(2), At::Sleep);
        assert_eq!(lock.state(), (A + W, vec![1, 2]));
    }
}

#[test]
fn a_release_leaves_the_queue_alone_when_a_writer_spins() {
    // Only "leaves it alone if it would have to wait for wait_lock": which 3 holds here.
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 2, DOWN_READ), At::Sleep);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::SpinOnOwner);
        lock.words[3].poke(1);
        go(&stage, lock, 0, UP_WRITE);
        lock.words[3].poke(0);
        assert_eq!((lock.state(), stage.nr_wakes()), ((W, vec![2]), 0));
        // The spinner takes the free lock before the reader that was first.
        assert_eq!(stage.resume(1), At::End);
        assert_eq!(lock.state(), (WRITER + W, vec![2]));
        go(&stage, lock, 1, UP_WRITE);
        assert_eq!((lock.state(), stage.resume(2)), ((A, vec![]), At::End));
    }
}

#[test]
fn a_new_writer_steals_the_lock_from_the_one_that_was_woken() {
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        stage.set_on_cpu(0, false);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Sleep);
        go(&stage, lock, 0, UP_WRITE);
        assert_eq!((lock.state(), stage.nr_wakes()), ((W, vec![1]), 1));
        // x86 sees that nobody is active; elsewhere it spins, for a moment, on no owner.
        assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::End);
        assert_eq!((lock.state(), lock.owner()), ((WRITER + W, vec![1]), Some((2, false))));
        // Woken in vain: sleeps again, and keeps its place.
        assert_eq!(stage.resume(1), At::Sleep);
        go(&stage, lock, 2, UP_WRITE);
        assert_eq!(stage.resume(1), At::End);
        assert_eq!(lock.state(), (WRITER, vec![]));
    }
}

#[test]
fn without_stealing_a_new_writer_waits_behind_the_one_that_was_woken() {
    let policy = Policy { stealing: false, ..Policy::default() };
    let (lock, stage) = (Lock::with(FastPath::Generic, policy), Stage::new(8));
    go(&stage, lock, 0, DOWN_WRITE);
    stage.set_on_cpu(0, false);
    assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Sleep);
    go(&stage, lock, 0, UP_WRITE);
    assert_eq!((lock.state(), stage.nr_wakes()), ((W, vec![1]), 1));
    // It may have seen the newcomer's share, so it is woken again.
    assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::Sleep);
    assert_eq!((lock.state(), stage.nr_wakes()), ((W, vec![1, 2]), 1));
    assert_eq!(stage.resume(1), At::End);
    assert_eq!((lock.state(), lock.owner()), ((WRITER + W, vec![2]), Some((1, false))));
    go(&stage, lock, 1, UP_WRITE);
    assert_eq!(stage.resume(2), At::End);
    assert_eq!(lock.state(), (WRITER, vec![]));
}

#[test]
fn without_spinning_a_writer_sleeps_though_the_owner_runs() {
    let policy = Policy { spinning: false, ..Policy::default() };
    let (lock, stage) = (Lock::with(FastPath::X86, policy), Stage::new(8));
    go(&stage, lock, 0, DOWN_WRITE);
    assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Sleep);
    assert_eq!((lock.spinners(), lock.state()), (0, (WRITER + W, vec![1])));
}

#[test]
fn without_groups_readers_behind_a_writer_are_given_the_lock_too() {
    // 0 writes; 1 reads, 2 writes, 3 reads, 4 writes wait, in this order.
    for (reader_groups, left) in [(true, vec![2, 3, 4]), (false, vec![2, 4])] {
        let policy = Policy { reader_groups, spinning: false, ..Policy::default() };
        let (lock, stage) = (Lock::with(FastPath::X86, policy), Stage::new(8));
        go(&stage, lock, 0, DOWN_WRITE);
        for (task, act) in [(1, DOWN_READ), (2, DOWN_WRITE), (3, DOWN_READ), (4, DOWN_WRITE)] {
            assert_eq!(go(&stage, lock, task, act), At::Sleep);
        }
        go(&stage, lock, 0, UP_WRITE);
        let readers = if reader_groups { 1 } else { 2 };
        assert_eq!(lock.state(), (W + readers * A, left));
    }
}

#[test]
fn after_readers_only_x86_steals_at_once_and_elsewhere_a_queued_writer_does() {
    // The owner word still names a reader: nobody spins. Any queued writer may take a free lock.
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_READ);
        assert_eq!(go(&stage, lock, 1, DOWN_WRITE), At::Sleep);
        go(&stage, lock, 0, UP_READ);
        assert_eq!(lock.state(), (W, vec![1]));
        assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::End);
        assert_eq!((lock.state(), lock.owner()), ((WRITER + W, vec![1]), Some((2, false))));
        assert_eq!(stage.resume(1), At::Sleep);
        go(&stage, lock, 2, UP_WRITE);
        assert_eq!(stage.resume(1), At::End);
    }
}

#[test]
fn a_grant_to_readers_is_taken_back_when_a_writer_steals_the_lock() {
    // 0: up_write: count is W, reader 1 is first | grants it a share ... sees the thief: undone
    // 2:                                         | steals
    let (lock, stage) = (Lock::new(FastPath::X86), Stage::new(8));
    go(&stage, lock, 0, DOWN_WRITE);
    assert_eq!(go(&stage, lock, 1, DOWN_READ), At::Sleep);
    // Accesses of up_write: owner, count, osq, wait_lock, head (empty?), head, kind, the grant.
    assert_eq!(stage.go_until(0, 8, move |cpu| lock.sem().up_write(cpu)), At::Pause);
    assert_eq!(lock.state(), (W, vec![1]));
    assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::End);
    assert_eq!(stage.resume(0), At::End);
    assert_eq!((lock.state(), stage.nr_wakes()), ((WRITER + W, vec![1]), 0));
    assert_eq!(lock.owner(), Some((2, false)));
    go(&stage, lock, 2, UP_WRITE);
    assert_eq!(stage.resume(1), At::End);
}

#[test]
fn a_grant_is_tried_again_when_the_thief_left_meanwhile() {
    // 0: up_write ...         | grant (refused) |           | undo: the thief has gone, so grant
    // 2:               steals |                 | up_write: sees 0 active and leaves it to him
    let (lock, stage) = (Lock::new(FastPath::X86), Stage::new(8));
    go(&stage, lock, 0, DOWN_WRITE);
    assert_eq!(go(&stage, lock, 1, DOWN_READ), At::Sleep);
    assert_eq!(stage.go_until(0, 8, move |cpu| lock.sem().up_write(cpu)), At::Pause);
    assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::End);
    assert_eq!(stage.resume_until(0, 1), At::Pause);
    assert_eq!(lock.state(), (WRITER + W + A, vec![1]));
    assert_eq!(go(&stage, lock, 2, UP_WRITE), At::End);
    assert_eq!((lock.state(), stage.nr_wakes()), ((W + A, vec![1]), 0));
    assert_eq!(stage.resume(0), At::End);
    assert_eq!((lock.state(), stage.nr_wakes()), ((A, vec![]), 1));
    assert_eq!(stage.resume(1), At::End);
}

#[test]
fn a_reader_that_queues_up_first_joins_the_readers_there_are() {
    // 0 reads.
    // 1: + writer's share ...                              | takes it back
    // 2:                     + 1: negative; still negative |               joins 0
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_READ);
        assert_eq!(stage.go_until(1, 2, move |cpu| lock.sem().down_write(cpu)), At::Pause);
        // Accesses of down_read: count, kind, waiting, wait_lock, head, count, five of the
        // queue, and the one that takes the share back and adds the bias.
        assert_eq!(stage.go_until(2, 12, move |cpu| lock.sem().down_read(cpu)), At::Pause);
        assert_eq!(lock.state(), (2 * A + WRITER, vec![2]));
        assert_eq!(stage.resume(1), At::Spin);
        assert_eq!(lock.state(), (2 * A, vec![2]));
        assert_eq!(stage.resume(2), At::End);
        assert_eq!(lock.state(), (2 * A, vec![]));
        assert_eq!(stage.resume(1), At::Sleep);
        assert_eq!(lock.state(), (2 * A + W, vec![1]));
    }
}

#[test]
fn a_reader_on_its_way_waits_behind_a_writer_that_a_downgrade_left_queued() {
    // 0: writes                              downgrade
    // 1:        count + 1 (negative)                   queues up behind 2
    // 2:                             queues up
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(stage.go_until(1, 2, move |cpu| lock.sem().down_read(cpu)), At::Pause);
        stage.set_on_cpu(0, false);
        assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::Sleep);
        go(&stage, lock, 0, DOWNGRADE);
        assert_eq!(lock.state(), (2 * A + W, vec![2]));
        assert_eq!(stage.resume(1), At::Sleep);
        assert_eq!(lock.state(), (A + W, vec![2, 1]));
        go(&stage, lock, 0, UP_READ);
        assert_eq!(stage.resume(2), At::End);
        go(&stage, lock, 2, UP_WRITE);
        assert_eq!(stage.resume(1), At::End);
    }
}

#[test]
fn the_last_to_queue_up_wakes_the_head_when_everybody_else_has_left() {
    // 1: count + 1 ........................ takes it back: nobody is active, wakes 2
    // 0:             up_write (1 is active, so x86 leaves the queue to it)
    let (lock, stage) = (Lock::new(FastPath::X86), Stage::new(8));
    go(&stage, lock, 0, DOWN_WRITE);
    stage.set_on_cpu(0, false);
    assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::Sleep);
    assert_eq!(stage.go_until(1, 2, move |cpu| lock.sem().down_read(cpu)), At::Pause);
    go(&stage, lock, 0, UP_WRITE);
    assert_eq!((lock.state(), stage.nr_wakes()), ((W + A, vec![2]), 0));
    assert_eq!(stage.resume(1), At::Sleep);
    assert_eq!((lock.state(), stage.nr_wakes()), ((W, vec![2, 1]), 1));
    assert_eq!(stage.resume(2), At::End);
    go(&stage, lock, 2, UP_WRITE);
    assert_eq!(stage.resume(1), At::End);
}

#[test]
fn a_second_writer_wakes_readers_that_are_queued_before_it() {
    // Queued: 1 reads, while 0 only reads (as after a lost race): count says no writer.
    for (lock, stage) in both() {
        go(&stage, lock, 0, DOWN_WRITE);
        assert_eq!(go(&stage, lock, 1, DOWN_READ), At::Sleep);
        // 0 turns reader, and is kept from waking anybody.
        lock.sem().owner.poke(encode(0) | READER_OWNED | ANONYMOUSLY_OWNED);
        lock.sem().count.poke(A + W);
        assert_eq!(go(&stage, lock, 2, DOWN_WRITE), At::Sleep);
        assert_eq!(lock.state(), (2 * A + W, vec![2]));
        assert_eq!((stage.nr_wakes(), stage.resume(1)), (1, At::End));
    }
}

#[test]
fn releasing_what_is_not_held_is_a_finding() {
    let broken = |act: fn(Sem, &Actor)| {
        let (lock, stage) = (Lock::new(FastPath::X86), Stage::new(2));
        let test = move || go(&stage, lock, 0, act);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        *unwound.unwrap_err().downcast::<String>().unwrap()
    };
    assert_eq!(broken(UP_READ), "lock-balance: task 0 ends reading, which nobody does");
    assert_eq!(broken(UP_WRITE), "lock-balance: task 0 ends writing, which it does not do");
    assert_eq!(broken(DOWNGRADE), "lock-balance: task 0 ends writing, which it does not do");
}

#[test]
fn a_guard_releases_when_it_is_dropped_and_not_when_its_task_unwinds() {
    let (lock, stage) = (Lock::new(FastPath::X86), Stage::new(2));
    stage.go(0, move |cpu| {
        let reading = lock.sem().read(cpu);
        assert_eq!(lock.state(), (A, vec![]));
        drop(reading);
    });
    assert!(lock.sem().is_free());
    let test = || {
        stage.go(0, move |cpu| {
            let _reading = lock.sem().read(cpu);
            cpu.finding("any", String::new())
        })
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(test)).is_err());
    assert_eq!(lock.state(), (A, vec![]));
}

#[test]
fn threads_exclude_each_other_and_nobody_is_forgotten() {
    // Eight threads, more than cores: readers, writers, writers that downgrade. A lost wake-up
    // would hang, a broken exclusion would tear the pair.
    const ROUNDS: u64 = 1500;
    let usual = Policy::default();
    for (fast_path, policy) in [
        (FastPath::X86, usual),
        (FastPath::Generic, usual),
        (FastPath::X86, Policy { spinning: false, ..usual }),
        (FastPath::Generic, Policy { stealing: false, ..usual }),
        (FastPath::Generic, Policy { stealing: false, spinning: false, ..usual }),
        (FastPath::X86, Policy { reader_groups: false, ..usual }),
    ] {
        let lock = Lock::<Cpu>::with(fast_path, policy);
        let machine = Machine::new(8);
        let pair = [0; 2].map(|_| Word::<Cpu>::new(Line::FREE, 0));
        std::thread::scope(|scope| {
            for id in 0..8 {
                let (machine, [left, right]) = (&machine, &pair);
                scope.spawn(move || {
                    let (cpu, sem) = (machine.cpu(id, id), lock.sem());
                    for _ in 0..ROUNDS {
                        if id % 4 < 2 {
                            sem.down_read(&cpu);
                        } else {
                            sem.down_write(&cpu);
                            left.poke(left.peek() + 1);
                            right.poke(right.peek() + 1);
                            if id % 4 == 2 {
                                sem.up_write(&cpu);
                                continue;
                            }
                            sem.downgrade_write(&cpu);
                        }
                        assert_eq!(left.peek(), right.peek());
                        sem.up_read(&cpu);
                    }
                });
            }
        });
        assert_eq!(pair.map(|word| word.peek()), [4 * ROUNDS; 2]);
        assert!(lock.sem().is_free());
        assert_eq!(lock.spinners(), 0);
    }
}
