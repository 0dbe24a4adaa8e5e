use super::*;
use crate::platform::native::{Cpu, Machine};
use crate::platform::{Line, Word};
use crate::sync::stage::{At, Stage};

fn leaked<P: Platform>() -> Field<'static, P, u64> {
    Field::permanent(Box::leak(Box::new(Word::new(Line::FREE, 0))))
}

#[test]
fn a_second_task_spins_until_the_lock_is_free() {
    let (stage, lock) = (Stage::new(2), leaked());
    assert_eq!(stage.go(0, move |cpu| spin_lock(cpu, lock)), At::End);
    assert_eq!(lock.peek(), HELD);
    assert_eq!(stage.go(1, move |cpu| spin_lock(cpu, lock)), At::Spin);
    assert_eq!(stage.go(0, move |cpu| spin_unlock(cpu, lock)), At::End);
    assert_eq!(stage.resume(1), At::End);
    assert_eq!(lock.peek(), HELD);
}

#[test]
fn trying_never_waits() {
    let (stage, lock) = (Stage::new(2), leaked());
    stage.go(0, move |cpu| assert!(spin_trylock(cpu, lock)));
    assert_eq!(stage.go(1, move |cpu| assert!(!spin_trylock(cpu, lock))), At::End);
}

#[test]
fn releasing_a_free_lock_is_a_finding() {
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    let released = crate::platform::native::catch(&machine, || spin_unlock(&cpu, leaked()));
    assert_eq!(released, None);
    assert_eq!(machine.finding().unwrap().invariant, "lock-balance");
}

#[test]
fn one_thread_at_a_time_is_inside() {
    const THREADS: u32 = 6;
    const ROUNDS: u64 = 2000;
    let machine = Machine::new(THREADS);
    let (lock, inside) = (leaked::<Cpu>(), leaked::<Cpu>());
    std::thread::scope(|scope| {
        for id in 0..THREADS {
            let machine = &machine;
            scope.spawn(move || {
                let cpu = machine.cpu(id, id);
                for _ in 0..ROUNDS {
                    spin_lock(&cpu, lock);
                    // Not atomic: an increment is lost if two are inside.
                    inside.write(&cpu, inside.read(&cpu) + 1);
                    spin_unlock(&cpu, lock);
                }
            });
        }
    });
    assert_eq!(inside.peek(), u64::from(THREADS) * ROUNDS);
}
