use std::sync::atomic::AtomicBool;
use std::thread;

use super::pin::SECTIONS_PER_PIN;
use super::*;

fn word() -> Word<Cpu> {
    Word::new(Line::FREE, 0)
}

#[test]
fn a_finding_ends_the_task_and_is_kept() {
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    let result: Option<()> = catch(&machine, || cpu.finding("refcount", "too few".to_owned()));
    assert_eq!(result, None);
    assert!(machine.is_stopped());
    assert!(!cpu.operation_boundary());
    let finding = machine.finding().unwrap();
    assert_eq!((finding.invariant, finding.what.as_str()), ("refcount", "too few"));
}

#[test]
fn the_first_finding_counts() {
    let machine = Machine::new(1);
    machine.report(Finding { invariant: "first", what: String::new() });
    machine.report(Finding { invariant: "second", what: String::new() });
    assert_eq!(machine.finding().unwrap().invariant, "first");
}

#[test]
fn a_panic_becomes_a_finding() {
    let machine = Machine::new(1);
    // As `resume_unwind`, so that the test prints no panic of its own.
    let panic = || -> () { std::panic::resume_unwind(Box::new(format!("index {}", 7))) };
    assert_eq!(catch(&machine, panic), None);
    let finding = machine.finding().unwrap();
    assert_eq!((finding.invariant, finding.what.as_str()), ("panic", "index 7"));
}

#[test]
fn a_task_that_ends_by_itself_gives_its_result() {
    assert_eq!(catch(&Machine::new(1), || 7), Some(7));
}

#[test]
fn stopping_ends_every_wait() {
    // Goal: no wait survives the end of the run, so that a run can be interrupted.
    let machine = Machine::with_pace(4, true);
    let never = word();
    thread::scope(|scope| {
        let run = |id: CpuId, wait: fn(&Cpu, &Word<Cpu>)| {
            let (machine, never) = (&machine, &never);
            scope.spawn(move || {
                let cpu = machine.cpu(id, id);
                catch(machine, || wait(&cpu, never))
            })
        };
        let ended = [
            run(0, |cpu, never| _ = cpu.sleep_until(never, |value| value == 1)),
            run(1, |cpu, never| _ = cpu.spin_until(never, |value| value == 1)),
            run(2, |cpu, _| cpu.pass_ns(u64::MAX, false)),
            run(3, |cpu, _| cpu.pass_ns(u64::MAX, true)),
        ];
        thread::sleep(Duration::from_millis(5));
        machine.stop();
        let ended = ended.map(|task| task.join().unwrap());
        assert_eq!(ended, [None, None, Some(()), Some(())]);
    });
    assert_eq!(machine.finding(), None);
}

#[test]
fn sleepers_are_woken_with_more_threads_than_cores() {
    // Goal: no wake-up is lost. A token goes round 16 tasks; each sleeps until it has it.
    const TASKS: u32 = 16;
    const ROUNDS: u64 = 100;
    let machine = Machine::new(TASKS);
    let token = word();
    thread::scope(|scope| {
        for id in 0..TASKS {
            let (machine, token) = (&machine, &token);
            scope.spawn(move || {
                let cpu = machine.cpu(id, id);
                for round in 0..ROUNDS {
                    let mine = round * u64::from(TASKS) + u64::from(id);
                    cpu.sleep_until(token, |value| value == mine);
                    cpu.store(token, mine + 1, Ordering::Release);
                    cpu.wake(token);
                }
            });
        }
    });
    assert_eq!(token.peek(), ROUNDS * u64::from(TASKS));
}

#[test]
fn an_ipi_waits_for_a_section_that_began_before() {
    // CPU 1: [irq off ....... done = 1] irq on
    // CPU 0:          ipi ----------------> returns
    let machine = Machine::new(2);
    let (inside, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let cpu = machine.cpu(1, 1);
            cpu.local_irq_disable();
            inside.store(true, Std::SeqCst);
            thread::sleep(Duration::from_millis(10));
            done.store(true, Std::Relaxed);
            cpu.local_irq_enable();
        });
        while !inside.load(Std::SeqCst) {
            thread::yield_now();
        }
        machine.cpu(0, 0).ipi(|_| true);
        assert!(done.load(Std::Relaxed));
    });
}

#[test]
fn an_ipi_does_not_wait_for_cpus_with_interrupts_on() {
    let machine = Machine::new(3);
    machine.cpu(0, 0).ipi(|_| true);
}

#[test]
fn a_section_sees_the_store_before_an_ipi_that_did_not_wait_for_it() {
    // Goal: the store buffering between page-table walks and TLB flushes is excluded.
    // CPU 0: gone = n; ipi; freed = n           (clear PTE, flush, free)
    // CPU 1: [irq off: if gone < n then freed < n for as long as the section lasts]
    let machine = Machine::new(2);
    let (gone, freed) = (word(), word());
    thread::scope(|scope| {
        scope.spawn(|| {
            let cpu = machine.cpu(0, 0);
            for n in 1..20_000 {
                cpu.store(&gone, n, Ordering::Relaxed);
                cpu.ipi(|cpu| cpu == 1);
                cpu.store(&freed, n, Ordering::Relaxed);
            }
        });
        let cpu = machine.cpu(1, 1);
        let mut seen = 0;
        while seen < 19_999 {
            cpu.local_irq_disable();
            seen = cpu.load(&gone, Ordering::Relaxed);
            for _ in 0..4 {
                let freed = cpu.load(&freed, Ordering::Relaxed);
                assert!(freed <= seen, "walked {seen} after {freed} was freed");
            }
            cpu.local_irq_enable();
        }
    });
}

#[test]
fn a_task_that_unwinds_with_interrupts_off_does_not_block_an_ipi() {
    let machine = Machine::new(2);
    let cpu = machine.cpu(1, 1);
    let result: Option<()> = catch(&machine, move || {
        cpu.local_irq_disable();
        cpu.finding("any", String::new())
    });
    assert_eq!(result, None);
    assert!(machine.interrupts[1].load(Std::Relaxed).is_multiple_of(2));
}

#[test]
fn a_callback_waits_for_a_reader_and_then_comes() {
    let machine = Machine::new(2);
    let writer = machine.cpu(0, 0);
    let reader = machine.cpu(1, 1);
    // Sections nest; the inner end is none.
    reader.rcu_read_lock();
    reader.rcu_read_lock();
    reader.rcu_read_unlock();
    writer.call_rcu(RcuCallback::PutVma(7));
    let reused = Arc::new(AtomicBool::new(false));
    let reuse = Arc::clone(&reused);
    writer.after_readers(move || reuse.store(true, Std::Relaxed));
    for _ in 0..1000 {
        writer.readers.flush();
    }
    assert_eq!(writer.rcu_ready(), None);
    assert!(!reused.load(Std::Relaxed));

    reader.rcu_read_unlock();
    drop(reader);
    writer.rcu_barrier();
    assert_eq!(writer.rcu_ready(), Some(RcuCallback::PutVma(7)));
    assert_eq!(writer.rcu_ready(), None);
}

#[test]
fn a_section_with_interrupts_off_is_an_rcu_read_section() {
    let machine = Machine::new(2);
    let (writer, reader) = (machine.cpu(0, 0), machine.cpu(1, 1));
    reader.local_irq_disable();
    writer.call_rcu(RcuCallback::FreeTable { level: 3, table: 1 });
    for _ in 0..1000 {
        writer.readers.flush();
    }
    assert_eq!(writer.rcu_ready(), None);
    reader.local_irq_enable();
    drop(reader);
    writer.rcu_barrier();
    assert_eq!(writer.rcu_ready(), Some(RcuCallback::FreeTable { level: 3, table: 1 }));
}

/// One short read section on each CPU: it is left, and its pin is kept.
fn kept_pin(reader: &Cpu) {
    reader.local_irq_disable();
    reader.local_irq_enable();
    assert!(reader.readers.is_pinned());
}

/// Whether what `writer` defers now comes, if `reader` does `meanwhile` again and again.
fn grace_period_ends(writer: &Cpu, mut meanwhile: impl FnMut()) -> bool {
    writer.call_rcu(RcuCallback::PutVma(7));
    for _ in 0..1000 {
        writer.readers.flush();
        meanwhile();
    }
    writer.rcu_ready() == Some(RcuCallback::PutVma(7))
}

#[test]
fn a_pin_is_kept_over_many_sections_and_then_given_up() {
    let machine = Machine::new(2);
    let (writer, reader) = (machine.cpu(0, 0), machine.cpu(1, 1));
    for _ in 1..SECTIONS_PER_PIN {
        kept_pin(&reader);
    }
    assert!(!grace_period_ends(&writer, || ()), "the pin is still kept");
    reader.rcu_read_lock();
    reader.rcu_read_unlock();
    assert!(!reader.readers.is_pinned());
    assert!(grace_period_ends(&writer, || ()));
}

#[test]
fn a_pin_that_runs_out_in_a_nested_section_lasts_to_the_end_of_the_outer_one() {
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    cpu.rcu_read_lock();
    for _ in 0..2 * SECTIONS_PER_PIN {
        cpu.local_irq_disable();
        cpu.local_irq_enable();
    }
    assert!(cpu.readers.is_pinned());
    cpu.rcu_read_unlock();
    assert!(cpu.readers.is_pinned(), "all of that was one section");
}

#[test]
fn grace_periods_end_while_a_cpu_with_a_kept_pin_ends_operations() {
    // Goal: who never stops faulting does not stop the others' memory from being reused.
    let machine = Machine::new(2);
    let (writer, reader) = (machine.cpu(0, 0), machine.cpu(1, 1));
    kept_pin(&reader);
    assert!(grace_period_ends(&writer, || assert!(reader.operation_boundary())));
    assert!(reader.readers.is_pinned(), "for the sections to come");
}

#[test]
fn whoever_defers_yields_or_waits_for_the_clock_has_no_pin() {
    let machine = Machine::with_pace(1, true);
    let cpu = machine.cpu(0, 0);
    let after = |act: &dyn Fn()| {
        kept_pin(&cpu);
        act();
        assert!(!cpu.readers.is_pinned());
    };
    after(&|| cpu.call_rcu(RcuCallback::PutVma(1)));
    after(&|| cpu.after_readers(|| ()));
    after(&|| cpu.pass_ns(1, true));
    after(&|| cpu.pass_ns(1, false));
    after(&|| cpu.relax(&mut SPINS.clone()));
    after(&|| cpu.rcu_barrier());
}

#[test]
fn a_sleeper_has_no_pin() {
    // CPU 1: [section] sleeps until 1
    // CPU 0:                          rcu_barrier, 1 -> wakes
    let machine = Machine::new(2);
    let (asleep, word) = (AtomicBool::new(false), word());
    thread::scope(|scope| {
        scope.spawn(|| {
            let cpu = machine.cpu(1, 1);
            kept_pin(&cpu);
            asleep.store(true, Std::SeqCst);
            cpu.sleep_until(&word, |value| value == 1);
        });
        while !asleep.load(Std::SeqCst) {
            thread::yield_now();
        }
        let cpu = machine.cpu(0, 0);
        cpu.call_rcu(RcuCallback::PutVma(1));
        cpu.rcu_barrier();
        cpu.store(&word, 1, Ordering::Release);
        cpu.wake(&word);
    });
}

#[test]
fn a_section_in_which_the_pin_was_not_renewed_still_holds_what_was_freed_since() {
    // Goal: a pin taken long before the section protects as one taken in it does.
    // reader: [section] kept ..... [section ............................]
    // writer:                after_readers               not yet         now
    let machine = Machine::new(2);
    let (writer, reader) = (machine.cpu(0, 0), machine.cpu(1, 1));
    kept_pin(&reader);
    writer.call_rcu(RcuCallback::PutVma(7));
    reader.rcu_read_lock();
    for _ in 0..1000 {
        writer.readers.flush();
    }
    assert_eq!(writer.rcu_ready(), None);
    reader.rcu_read_unlock();
    assert!(reader.operation_boundary());
    drop(reader);
    writer.rcu_barrier();
    assert_eq!(writer.rcu_ready(), Some(RcuCallback::PutVma(7)));
}

#[test]
fn callbacks_of_a_cpu_that_is_gone_come_too() {
    let machine = Machine::new(2);
    machine.cpu(1, 1).call_rcu(RcuCallback::PutVma(3));
    let cpu = machine.cpu(0, 0);
    cpu.rcu_barrier();
    assert_eq!(cpu.rcu_ready(), Some(RcuCallback::PutVma(3)));
}

#[test]
fn an_owner_that_does_not_let_go_counts_as_not_running() {
    let machine = Machine::new(1);
    let owner = word();
    // Returns although the word keeps its value.
    machine.cpu(0, 0).spin_on_owner(&owner, 0, 1);
}

#[test]
fn pauses_take_time_only_when_paced() {
    let paced = Machine::with_pace(1, true);
    let cpu = paced.cpu(0, 0);
    cpu.pass_ns(2_000_000, true);
    cpu.pass_ns(2_000_000, false);
    assert!(cpu.now_ns() >= 4_000_000);
    let cpu = Machine::new(1).cpu(0, 0);
    cpu.pass_ns(u64::MAX, true);
    cpu.pass_ns(u64::MAX, false);
}

#[test]
fn only_a_cpu_that_is_idle_is_kept_so() {
    let machine = Machine::new(3);
    let cpu = machine.cpu(0, 0);
    let is_idle = |other| is_idle_for(&cpu, other);
    assert!(is_idle(1), "has no task yet");
    let other = machine.cpu(1, 1);
    assert!(!is_idle(1), "works");
    other.goes_idle();
    assert!(is_idle(1), "waits");
    other.works_again();
    assert!(!is_idle(1), "works again");
    drop(other);
    assert!(is_idle(1), "has no task any more");

    let (here, go) = (word(), word());
    thread::scope(|scope| {
        scope.spawn(|| {
            let sleeper = machine.cpu(2, 2);
            sleeper.store(&here, 1, Ordering::Release);
            sleeper.sleep_until(&go, |value| value == 1);
            assert!(!is_idle_for(&sleeper, 0), "the other works");
        });
        cpu.spin_until(&here, |value| value == 1);
        while !is_idle(2) {
            thread::yield_now();
        }
        cpu.store(&go, 1, Ordering::Release);
        cpu.wake(&go);
    });
}

fn is_idle_for(cpu: &Cpu, other: CpuId) -> bool {
    let mut idle = false;
    cpu.while_idle(other, || idle = true);
    idle
}

#[test]
fn a_cpu_that_is_kept_idle_waits_before_it_works_again() {
    // What belongs to CPU 1: changed in two steps by its owner and by who keeps it idle.
    let machine = Machine::new(2);
    let (mine, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let add_two = || {
        let old = mine.load(Std::Relaxed);
        std::hint::spin_loop();
        mine.store(old + 2, Std::Relaxed);
    };
    let (by_owner, by_other) = thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let owner = machine.cpu(1, 1);
            for _ in 0..20_000 {
                add_two();
                owner.goes_idle();
                owner.goes_idle(); // as one who waits and then sleeps
                owner.works_again();
            }
            ended.store(true, Std::Relaxed);
            20_000
        });
        let cpu = machine.cpu(0, 0);
        let mut count = 0;
        while !ended.load(Std::Relaxed) || count == 0 {
            cpu.while_idle(1, || {
                add_two();
                count += 1;
            });
        }
        (owner.join().unwrap(), count)
    });
    assert_eq!(mine.into_inner(), 2 * (by_owner + by_other));
}
