use super::*;
use crate::platform::native::{Cpu, Machine, catch};
use crate::platform::{Line, Word};
use crate::sync::stage::{At, Did, Stage, address};

fn leaked<P: Platform>() -> RwLock<'static, P> {
    let word = || Field::permanent(Box::leak(Box::new(Word::new(Line::FREE, 0))));
    RwLock { cnts: word(), wait_lock: word() }
}

impl<P: Platform> Clone for RwLock<'static, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Platform> Copy for RwLock<'static, P> {}

#[test]
fn readers_are_inside_together_and_each_writes_the_count() {
    let (stage, lock) = (Stage::new(2), leaked());
    for task in [0, 1] {
        assert_eq!(stage.go(task, move |cpu| lock.read_lock(cpu)), At::End);
        assert_eq!(stage.trace(task), [Did::Wrote(address(lock.cnts.word()))]);
    }
    assert_eq!(lock.cnts.peek(), 2 * READER);
    for task in [0, 1] {
        assert_eq!(stage.go(task, move |cpu| lock.read_unlock(cpu)), At::End);
    }
    assert_eq!(lock.cnts.peek(), 0);
}

#[test]
fn a_writer_waits_for_all_readers_and_readers_that_come_later_wait_for_it() {
    // t0:  reads  ..                 out
    // t1:         reads  ..               out
    // t2:                writes: waits  ..      inside  out
    // t3:                        reads: waits  ..           inside
    let (stage, lock) = (Stage::new(4), leaked());
    stage.go(0, move |cpu| lock.read_lock(cpu));
    stage.go(1, move |cpu| lock.read_lock(cpu));
    assert_eq!(stage.go(2, move |cpu| lock.write_lock(cpu)), At::Spin);
    assert_eq!(stage.go(3, move |cpu| lock.read_lock(cpu)), At::Spin);
    stage.go(0, move |cpu| lock.read_unlock(cpu));
    assert_eq!(stage.resume(2), At::Spin);
    stage.go(1, move |cpu| lock.read_unlock(cpu));
    assert_eq!(stage.resume(3), At::Spin, "the writer came first");
    assert_eq!(stage.resume(2), At::End);
    assert_eq!(stage.resume(3), At::Spin);
    stage.go(2, move |cpu| lock.write_unlock(cpu));
    assert_eq!(stage.resume(3), At::End);
    assert_eq!(lock.cnts.peek(), READER);
    assert_eq!(lock.wait_lock.peek(), 0);
}

#[test]
fn a_reader_at_the_head_of_the_queue_is_inside_before_a_writer_behind_it() {
    // t0:  writes  ..                      out
    // t1:          reads: waits  ..            inside  out
    // t2:                 writes: waits  ..                inside
    let (stage, lock) = (Stage::new(3), leaked());
    stage.go(0, move |cpu| lock.write_lock(cpu));
    assert_eq!(stage.go(1, move |cpu| lock.read_lock(cpu)), At::Spin);
    assert_eq!(stage.go(2, move |cpu| lock.write_lock(cpu)), At::Spin);
    stage.go(0, move |cpu| lock.write_unlock(cpu));
    assert_eq!(stage.resume(2), At::Spin, "the reader came first");
    assert_eq!(stage.resume(1), At::End);
    assert_eq!(stage.resume(2), At::Spin);
    stage.go(1, move |cpu| lock.read_unlock(cpu));
    assert_eq!(stage.resume(2), At::End);
    assert_eq!(lock.cnts.peek(), WRITER);
}

#[test]
fn a_reader_that_comes_as_the_writer_is_about_to_enter_only_delays_it() {
    // t0:  reads  ..  out
    // t1:         writes: waits  sees the lock free  ..    fails  waits  ..         inside
    // t2:                                       reads: counted  ..      queues
    let (stage, lock) = (Stage::new(3), leaked());
    stage.go(0, move |cpu| lock.read_lock(cpu));
    assert_eq!(stage.go(1, move |cpu| lock.write_lock(cpu)), At::Spin);
    stage.go(0, move |cpu| lock.read_unlock(cpu));
    assert_eq!(stage.resume_until(1, 1), At::Pause);
    assert_eq!(stage.go_until(2, 2, move |cpu| lock.read_lock(cpu)), At::Pause);
    assert_eq!(stage.resume(1), At::Spin);
    assert_eq!(stage.resume(2), At::Spin);
    assert_eq!(stage.resume(1), At::End);
    stage.go(1, move |cpu| lock.write_unlock(cpu));
    assert_eq!(stage.resume(2), At::End);
    assert_eq!(lock.cnts.peek(), READER);
}

#[test]
fn releasing_what_is_not_held_is_a_finding() {
    type Release = fn(&RwLock<'static, Cpu>, &Cpu);
    for release in [RwLock::read_unlock as Release, RwLock::write_unlock as Release] {
        let machine = Machine::new(1);
        let cpu = machine.cpu(0, 0);
        assert_eq!(catch(&machine, || release(&leaked(), &cpu)), None);
        assert_eq!(machine.finding().unwrap().invariant, "lock-balance");
    }
}

#[test]
fn readers_see_all_of_a_write_or_nothing() {
    const THREADS: u32 = 6;
    const ROUNDS: u64 = 2000;
    let machine = Machine::new(THREADS);
    let lock = leaked::<Cpu>();
    let [one, other] = [leaked::<Cpu>().cnts, leaked::<Cpu>().cnts];
    std::thread::scope(|scope| {
        for id in 0..THREADS {
            let machine = &machine;
            scope.spawn(move || {
                let cpu = machine.cpu(id, id);
                for _ in 0..ROUNDS {
                    if id < 2 {
                        lock.write_lock(&cpu);
                        one.write(&cpu, one.read(&cpu) + 1);
                        other.write(&cpu, other.read(&cpu) + 1);
                        lock.write_unlock(&cpu);
                    } else {
                        lock.read_lock(&cpu);
                        assert_eq!(one.read(&cpu), other.read(&cpu));
                        lock.read_unlock(&cpu);
                    }
                }
            });
        }
    });
    assert_eq!((one.peek(), other.peek(), lock.cnts.peek()), (2 * ROUNDS, 2 * ROUNDS, 0));
}
