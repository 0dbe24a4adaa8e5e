//! Tasks as closures: what things take, to the nanosecond, and that runs repeat.

use std::cell::RefCell;

use super::*;
use crate::arch::Arch;
use crate::mm::{Access, System, Variants};
use crate::platform::{Field, Line, Ordering, Platform, Word};
use crate::sync::spinlock::{spin_lock, spin_unlock};
use crate::vtime::Profile;

type Body = fn(&Cpu, &Shared);

/// Words in a line each, and what the tasks wrote down.
struct Shared {
    words: Vec<Word<Cpu>>,
    log: RefCell<Vec<(TaskId, u64)>>,
}

struct Outcome {
    log: Vec<(TaskId, u64)>,
    finding: Option<Finding>,
}

/// CPUs 0 and 24 share a core of socket 0, CPU 12 is in socket 1; nothing varies by chance.
fn machine() -> Machine {
    Machine {
        line_ns: [1, 8, 45, 45, 120],
        ipi_base_ns: 1_000,
        ipi_target_ns: 300,
        ipi_handler_ns: 1_000,
        wakeup_jitter: 0,
        ..Profile::builtin()[0].machine()
    }
}

/// Tasks on the first CPUs, in strict order.
fn settings(machine: &Machine, nr_cpus: u32) -> Settings {
    let machine = machine.clone();
    Settings { machine, nr_cpus, seed: 0, slack_ns: 0, lazy_tlb: true, spreading: false }
}

fn run_bodies(
    machine: &Machine,
    nr_cpus: u32,
    seed: u64,
    slack_ns: u64,
    bodies: &[Body],
) -> Outcome {
    let watch = Arc::default();
    let nr_tasks = bodies.len() as u32;
    let recorder = Recorder::new(&Options::default(), nr_tasks);
    let settings = Settings { seed, slack_ns, ..settings(machine, nr_cpus) };
    let world = Rc::new(World::new(&settings, nr_tasks, &watch, recorder));
    let words = (1..9).map(|line| Word::new(Line(line), 0)).collect();
    let shared = Rc::new(Shared { words, log: RefCell::default() });
    let (bodies, used) = (bodies.to_vec(), Rc::clone(&shared));
    let mut tasks = spawn(&world, move |cpu| bodies[cpu.task() as usize](cpu, &used)).unwrap();
    world.at_rest.set(false);
    drive(&world, &mut tasks);
    drop(tasks);
    Outcome { log: shared.log.take(), finding: world.take_finding() }
}

fn run_well(nr_cpus: u32, bodies: &[Body]) -> Vec<(TaskId, u64)> {
    let outcome = run_bodies(&machine(), nr_cpus, 0, 0, bodies);
    assert_eq!(outcome.finding, None);
    outcome.log
}

impl Shared {
    fn load(&self, cpu: &Cpu, word: usize) -> u64 {
        cpu.load(&self.words[word], Ordering::Relaxed)
    }
    fn store(&self, cpu: &Cpu, word: usize, value: u64) {
        cpu.store(&self.words[word], value, Ordering::Relaxed);
    }
    fn note(&self, cpu: &Cpu, value: u64) {
        self.log.borrow_mut().push((cpu.task(), value));
    }
    fn note_time(&self, cpu: &Cpu) {
        self.note(cpu, cpu.now_ns());
    }
}

fn idle(_: &Cpu, _: &Shared) {}

/// Sleeps until it is woken, and notes when it goes on.
fn sleeper(cpu: &Cpu, shared: &Shared) {
    cpu.sleep_until(&shared.words[0], |value| value == 1);
    shared.note_time(cpu);
}

/// Wakes it, after 1,000 ns.
fn waker(cpu: &Cpu, shared: &Shared) {
    cpu.pass_ns(1000, true);
    shared.store(cpu, 0, 1);
    cpu.wake(&shared.words[0]);
}

#[test]
fn a_line_costs_what_its_way_is_long() {
    // First touch and hit: 1 ns each. From the other socket: 120 ns.
    let first: Body = |cpu, shared| {
        shared.store(cpu, 0, 1);
        shared.store(cpu, 0, 2);
        shared.note_time(cpu);
    };
    let later: Body = |cpu, shared| {
        cpu.pass_ns(1000, true);
        shared.load(cpu, 0);
        shared.note_time(cpu);
        shared.load(cpu, 0);
        shared.note_time(cpu);
    };
    let mut bodies = vec![idle as Body; 13];
    (bodies[0], bodies[12]) = (first, later);
    assert_eq!(run_well(48, &bodies), [(0, 2), (12, 1120), (12, 1121)]);
}

#[test]
fn who_spins_goes_on_when_the_word_changes_and_its_line_has_come() {
    let spinner: Body = |cpu, shared| {
        cpu.spin_until(&shared.words[0], |value| value == 2);
        shared.note_time(cpu);
    };
    let setter: Body = |cpu, shared| {
        cpu.pass_ns(1000, true);
        shared.store(cpu, 0, 1);
        cpu.pass_ns(1000, true);
        shared.store(cpu, 0, 2);
        shared.note_time(cpu);
    };
    // The spinner reads first; so the setter fetches the line (45), keeps it (1), and the
    // spinner, whom the first store did not wake, fetches it once (45).
    assert_eq!(run_well(48, &[spinner, setter]), [(1, 2046), (0, 2091)]);
}

#[test]
fn a_sleeper_wakes_after_the_latency_that_the_machine_has() {
    let waker: Body = |cpu, shared| {
        waker(cpu, shared);
        shared.note_time(cpu);
    };
    // The store takes 45; the waker pays 1,500 for the wake-up, which takes 33,000 more, and then
    // the sleeper fetches the line (45).
    assert_eq!(run_well(48, &[sleeper, waker]), [(1, 2545), (0, 1045 + 1500 + 33_000 + 45)]);
}

#[test]
fn a_cpu_that_is_at_work_has_no_idle_state_to_leave() {
    // On the sleeper's CPU, for less time than the wake-up takes: 10,000 ns of that are saved.
    let other: Body = |cpu, _| cpu.pass_ns(5_000, true);
    assert_eq!(run_well(2, &[sleeper, waker, other]), [(0, 1045 + 1500 + 23_000 + 45)]);
}

#[test]
fn a_lock_is_taken_in_the_order_in_which_it_was_asked_for() {
    let ask: Body = |cpu, shared| {
        cpu.pass_ns(100 * u64::from(1 + cpu.task()), true);
        spin_lock(cpu, Field::permanent(&shared.words[0]));
        shared.note(cpu, 0);
        cpu.pass_ns(5000, true);
        let value = shared.load(cpu, 1);
        shared.store(cpu, 1, value + 1);
        spin_unlock(cpu, Field::permanent(&shared.words[0]));
    };
    let order: Vec<_> = run_well(48, &[ask; 12]).into_iter().map(|(task, _)| task).collect();
    assert_eq!(order, (0..12).collect::<Vec<_>>());
}

#[test]
fn who_waits_behind_others_is_not_forgotten() {
    // All wait for the same word; none changes it when it goes on, and some do nothing more.
    let waiter: Body = |cpu, shared| {
        cpu.spin_until(&shared.words[0], |value| value == 1);
        shared.note(cpu, 0);
    };
    let setter: Body = |cpu, shared| {
        cpu.pass_ns(1000, true);
        shared.store(cpu, 0, 1);
    };
    let mut bodies = vec![waiter; 20];
    bodies[7] = setter;
    assert_eq!(run_well(48, &bodies).len(), 19);
}

#[test]
fn an_interrupt_waits_for_the_section_that_it_finds() {
    let section: Body = |cpu, shared| {
        cpu.local_irq_disable();
        shared.load(cpu, 0);
        cpu.pass_ns(10_000, true);
        shared.load(cpu, 1);
        cpu.local_irq_enable();
        shared.note_time(cpu);
    };
    let sender: Body = |cpu, shared| {
        cpu.pass_ns(100, true);
        cpu.ipi(|cpu| cpu == 0);
        shared.note_time(cpu);
    };
    let log = run_well(48, &[section, sender]);
    assert!(log[0].0 == 0 && log[1].0 == 1 && log[1].1 > log[0].1, "{log:?}");
}

#[test]
fn an_interrupt_waits_for_no_later_section() {
    // CPU 0 disables interrupts again at once, CPU 1 has them off for longer the first time.
    let [brief, long]: [Body; 2] = [
        |cpu, shared| {
            for ns in [10_000, 50_000] {
                cpu.local_irq_disable();
                shared.load(cpu, 0);
                cpu.pass_ns(ns, true);
                shared.load(cpu, 1);
                cpu.local_irq_enable();
            }
            shared.note_time(cpu);
        },
        |cpu, shared| {
            cpu.local_irq_disable();
            cpu.pass_ns(20_000, true);
            shared.load(cpu, 2);
            cpu.local_irq_enable();
            shared.note_time(cpu);
        },
    ];
    let sender: Body = |cpu, shared| {
        cpu.pass_ns(5_000, true);
        cpu.ipi(|cpu| cpu < 2);
        shared.note_time(cpu);
    };
    let log = run_well(48, &[brief, long, sender]);
    let end = |task| log.iter().find(|entry| entry.0 == task).expect("it ended").1;
    assert!(end(1) < end(2) && end(2) < end(0), "{log:?}");
}

#[test]
fn an_instruction_that_flushes_waits_for_user_accesses_and_for_nothing_else() {
    let irqs_off: Body = |cpu, shared| {
        cpu.local_irq_disable();
        cpu.pass_ns(10_000, true);
        shared.load(cpu, 0);
        cpu.local_irq_enable();
        shared.note_time(cpu);
    };
    let user_access: Body = |cpu, shared| {
        cpu.begin_user_access();
        cpu.pass_ns(10_000, true);
        shared.load(cpu, 0);
        cpu.end_user_access();
        shared.note_time(cpu);
    };
    let flush: Body = |cpu, shared| {
        cpu.pass_ns(100, true);
        cpu.flush_others(false, |cpu| cpu == 0);
        shared.note_time(cpu);
    };
    let broadcasts = Machine { broadcast_flush: true, ..machine() };
    for (machine, section, waits) in [
        (machine(), irqs_off, true),
        (machine(), user_access, true),
        (broadcasts.clone(), irqs_off, false),
        (broadcasts, user_access, true),
    ] {
        let outcome = run_bodies(&machine, 2, 0, 0, &[section, flush]);
        assert_eq!(outcome.finding, None);
        let end = |task| outcome.log.iter().find(|entry| entry.0 == task).expect("it ended").1;
        assert_eq!(end(1) >= end(0), waits, "{:?}", outcome.log);
    }
}

#[test]
fn a_flush_costs_by_those_who_work_and_spares_who_sleeps_or_wakes_up() {
    let worker: Body = |cpu, shared| {
        cpu.pass_ns(5_000, true);
        shared.store(cpu, 1 + cpu.task() as usize, 1);
        shared.note_time(cpu);
    };
    let sender: Body = |cpu, shared| {
        waker(cpu, shared);
        cpu.flush_others(false, |_| true);
        shared.note_time(cpu);
    };
    let all: Body = |cpu, shared| {
        cpu.pass_ns(1_000, true);
        cpu.flush_others(true, |cpu| cpu < 4);
        shared.note_time(cpu);
    };
    // The store takes 45, the wake-up 1,500; a flush 1,000, 300 for each of two who work, and what
    // its handler takes, 1,000, which is what it takes from each of them. Whoever wakes up loses
    // nothing: its 33,000 and the line.
    let mut log = run_well(48, &[worker, worker, sleeper, sender]);
    log.sort_unstable();
    let flushed = 1_045 + 1_500 + 1_000 + 600 + 1_000;
    let woken = 1_045 + 1_500 + 33_000 + 45;
    assert_eq!(log, [(0, 6_001), (1, 6_001), (2, woken), (3, flushed)]);
    // Tables go: those that are idle are told, too.
    let mut log = run_well(48, &[worker, worker, idle, idle, all]);
    log.sort_unstable();
    let flushed = 1_000 + 1_000 + 4 * 300 + 1_000;
    assert_eq!(log, [(0, 6_001), (1, 6_001), (4, flushed)]);
}

/// Works for 20,000 ns, and notes when it is done.
fn target(cpu: &Cpu, shared: &Shared) {
    cpu.pass_ns(20_000, true);
    shared.load(cpu, 0);
    shared.note_time(cpu);
}

/// Flushes the TLB of CPU 0, and notes when that is done.
fn flush_first(cpu: &Cpu, shared: &Shared) {
    cpu.flush_others(false, |cpu| cpu == 0);
    shared.note_time(cpu);
}

#[test]
fn a_flush_of_nobody_costs_nothing() {
    let alone: Body = |cpu, shared| {
        cpu.flush_others(true, |_| false);
        shared.note_time(cpu);
    };
    for machine in [machine(), Machine { broadcast_flush: true, ..machine() }] {
        assert_eq!(run_bodies(&machine, 2, 0, 0, &[alone]).log, [(0, 0)]);
    }
    // On arm64 the instruction is the same whoever has the address space.
    let arm = Machine { arch: "arm64".into(), broadcast_flush: true, ..machine() };
    assert_eq!(run_bodies(&arm, 2, 0, 0, &[alone]).log, [(0, 1_000)]);
}

#[test]
fn who_spins_loses_no_time_to_interrupts() {
    // CPU 0 spins from 1 on, and CPUs 2 and 3 interrupt it ten times each; CPU 1 lets it go on.
    let spinner: Body = |cpu, shared| {
        cpu.spin_until(&shared.words[0], |value| value == 1);
        shared.note_time(cpu);
    };
    let setter: Body = |cpu, shared| {
        cpu.pass_ns(50_000, true);
        shared.store(cpu, 0, 1);
    };
    let sender: Body = |cpu, _| (0..10).for_each(|_| cpu.flush_others(false, |cpu| cpu == 0));
    // The store takes 45 and the line as much; the last handler was done before.
    let log = run_well(4, &[spinner, setter, sender, sender]);
    assert_eq!(log, [(0, 50_000 + 45 + 45)]);
}

#[test]
fn requests_that_come_while_a_handler_works_are_handled_together() {
    let late: Body = |cpu, shared| {
        cpu.pass_ns(500, true);
        flush_first(cpu, shared);
    };
    // They arrive at 1,300, and twice at 1,800; handlers are at work up to 2,300 and 3,300, so the
    // target loses two times 1,000.
    let mut log = run_well(4, &[target, flush_first, late, late]);
    log.sort_unstable();
    assert_eq!(log, [(0, 22_001), (1, 2_300), (2, 3_300), (3, 3_300)]);
}

#[test]
fn who_waits_for_answers_loses_no_time_to_interrupts() {
    let to_all: Body = |cpu, shared| {
        cpu.flush_others(true, |_| true);
        shared.note_time(cpu);
    };
    let to_one: Body = |cpu, shared| {
        cpu.pass_ns(3_800, true);
        flush_first(cpu, shared);
    };
    // Sent to 15 it is there at 5,500, and answered at 6,500. CPU 1 pays for its handler, so its own
    // request, of 4,800, is at CPU 0 at 6,100, which waits anyway: until 7,100 now.
    let mut log = run_well(16, &[to_all, to_one]);
    log.sort_unstable();
    assert_eq!(log, [(0, 7_100), (1, 7_100)]);
}

#[test]
fn requests_that_find_interrupts_off_are_handled_together() {
    let section: Body = |cpu, shared| {
        cpu.local_irq_disable();
        cpu.pass_ns(10_000, true);
        shared.load(cpu, 0);
        cpu.local_irq_enable();
        cpu.pass_ns(10_000, true);
        shared.load(cpu, 0);
        shared.note_time(cpu);
    };
    let sender: Body = |cpu, shared| {
        cpu.pass_ns(100, true);
        flush_first(cpu, shared);
    };
    let mut log = run_well(4, &[section, sender, sender, sender]);
    log.sort_unstable();
    assert_eq!(log, [(0, 21_002), (1, 11_001), (2, 11_001), (3, 11_001)]);
}

#[test]
fn a_request_to_one_is_there_before_one_to_many() {
    let to_many: Body = |cpu, shared| {
        cpu.flush_others(true, |cpu| cpu != 2);
        shared.note_time(cpu);
    };
    let to_one: Body = |cpu, shared| {
        cpu.pass_ns(100, true);
        flush_first(cpu, shared);
    };
    // Sent to 14 at 0 it is there at 5,200; sent to one at 100, at 1,400.
    let mut log = run_well(16, &[target, to_many, to_one]);
    log.sort_unstable();
    assert_eq!(log, [(0, 22_001), (1, 6_200), (2, 2_400)]);
}

#[test]
fn a_spin_lock_goes_to_waiters_in_order_whoever_else_comes() {
    // CPU 0 takes the lock again at once, 1 and 2 wait for it, and 3 comes right after a release.
    fn take(cpu: &Cpu, shared: &Shared, held_ns: u64) {
        spin_lock(cpu, Field::permanent(&shared.words[0]));
        shared.note(cpu, 0);
        cpu.pass_ns(held_ns, true);
        spin_unlock(cpu, Field::permanent(&shared.words[0]));
    }
    let greedy: Body = |cpu, shared| (0..3).for_each(|_| take(cpu, shared, 1_000));
    let waiter: Body = |cpu, shared| {
        cpu.pass_ns(100 * u64::from(cpu.id()), true);
        take(cpu, shared, 1_000);
    };
    let late: Body = |cpu, shared| {
        cpu.pass_ns(1_020, true);
        take(cpu, shared, 1_000);
    };
    let order: Vec<_> =
        run_well(4, &[greedy, waiter, waiter, late]).into_iter().map(|(task, _)| task).collect();
    assert_eq!(order[..3], [0, 1, 2], "{order:?}");
    assert_eq!(order.len(), 6);
    assert!(order[3..] == [0, 3, 0] || order[3..] == [3, 0, 0], "{order:?}");
}

#[test]
fn a_copy_comes_after_the_first_one() {
    // CPU 12 asks across the sockets, its core's other thread right after it.
    let owner: Body = |cpu, shared| shared.store(cpu, 0, 1);
    let far: Body = |cpu, shared| {
        cpu.pass_ns(if cpu.id() == 12 { 1_000 } else { 1_001 }, true);
        shared.load(cpu, 0);
        shared.note_time(cpu);
    };
    let mut bodies = vec![idle as Body; 37];
    (bodies[0], bodies[12], bodies[36]) = (owner, far, far);
    assert_eq!(run_well(48, &bodies), [(12, 1_120), (36, 1_120)]);
}

#[test]
fn nodes_follow_sockets_however_many_cpus_take_part() {
    let nodes = |nr_cpus, spreading, nodes| {
        cpu_nodes(&Settings { spreading, ..settings(&machine(), nr_cpus) }, nodes)
    };
    // Sockets of 12 cores: first threads of both, then second ones.
    assert_eq!(nodes(13, false, 2), [[0; 12].as_slice(), &[1]].concat());
    assert_eq!(nodes(48, false, 2)[23..37], [[1].as_slice(), &[0; 12], &[1]].concat());
    assert_eq!(nodes(4, true, 2), [0, 1, 0, 1]);
    assert_eq!(nodes(48, false, 1), [0; 48]);
    // Of more nodes than sockets some have memory alone.
    assert_eq!(nodes(13, false, 4), [[0; 12].as_slice(), &[2]].concat());
}

#[test]
fn tasks_of_one_cpu_take_turns_by_time_slices() {
    let busy: Body = |cpu, shared| {
        for _ in 0..4 {
            shared.note(cpu, 0);
            cpu.pass_ns(2_000_000, true);
            cpu.operation_boundary();
        }
    };
    // A slice is 3 ms, and ends within operations of 2 ms, too.
    let turns: Vec<_> = run_well(1, &[busy, busy]).into_iter().map(|(task, _)| task).collect();
    let first = turns[0];
    let other = 1 - first;
    assert_eq!(turns, [first, first, other, other, first, other, first, other]);
}

#[test]
fn sleeping_gives_the_cpu_to_another_task() {
    let sleeper: Body = |cpu, shared| {
        cpu.pass_ns(1000, false);
        shared.note_time(cpu);
    };
    let worker: Body = |cpu, shared| {
        cpu.pass_ns(5000, true);
        shared.note_time(cpu);
    };
    let mut log = run_well(1, &[sleeper, worker]);
    log.sort();
    assert!(log == [(0, 5000), (1, 5000)] || log == [(0, 16_000), (1, 5000)], "{log:?}");
    // Alone it leaves the CPU idle.
    assert_eq!(run_well(1, &[sleeper]), [(0, 1000 + 10_000)]);
}

#[test]
fn store_buffering_is_not_seen() {
    // Each stores and then reads what the other stored: one of them must see it.
    let first: Body = |cpu, shared| {
        shared.store(cpu, 0, 1);
        shared.note(cpu, shared.load(cpu, 1));
    };
    let second: Body = |cpu, shared| {
        shared.store(cpu, 1, 1);
        shared.note(cpu, shared.load(cpu, 0));
    };
    for slack_ns in [0, 200] {
        for seed in 0..20 {
            let log = run_bodies(&machine(), 2, seed, slack_ns, &[first, second]).log;
            assert!(log.iter().any(|&(_, seen)| seen == 1), "seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_repeats_and_another_changes_who_is_first() {
    let contend: Body = |cpu, shared| {
        for _ in 0..10 {
            cpu.fetch_add(&shared.words[0], 1, Ordering::Relaxed);
            shared.note_time(cpu);
            cpu.sleep_until(&shared.words[1], |_| true);
        }
    };
    let log = |seed| run_bodies(&machine(), 48, seed, 0, &[contend; 8]).log;
    assert_eq!(log(1), log(1));
    assert_ne!(log(1), log(2));
}

#[test]
fn tasks_that_wait_for_each_other_are_a_deadlock() {
    let waiter: Body = |cpu, shared| {
        cpu.spin_until(&shared.words[0], |value| value == 1);
    };
    let finding = run_bodies(&machine(), 2, 0, 0, &[waiter, waiter]).finding.unwrap();
    assert_eq!(finding.invariant, "deadlock");
}

#[test]
fn a_finding_ends_the_run_and_unwinds_the_others() {
    struct Unlocks<'a>(&'a Cpu, &'a Shared);
    impl Drop for Unlocks<'_> {
        fn drop(&mut self) {
            self.1.store(self.0, 0, 0);
        }
    }
    let holder: Body = |cpu, shared| {
        let _guard = Unlocks(cpu, shared);
        cpu.pass_ns(1000, true);
        shared.load(cpu, 1);
        cpu.finding("toy", "broken".to_owned());
    };
    let spinner: Body = |cpu, shared| {
        let _guard = Unlocks(cpu, shared);
        cpu.spin_until(&shared.words[0], |value| value == 1);
    };
    let finding = run_bodies(&machine(), 2, 0, 0, &[holder, spinner]).finding.unwrap();
    assert_eq!((finding.invariant, finding.what.as_str()), ("toy", "broken"));
    assert!(!std::thread::panicking());
}

#[test]
fn who_slept_for_a_page_lock_runs_its_own_address_space_again() {
    // CPU 1 has tasks 1 and 3: while 1 waits for the lock that 0 has, 3, of another process, accesses
    // memory. Then 1 has interrupts off, and the flush of 0, of 1's address space, waits for it.
    const DONE: [u64; 3] = [1 << 20, 2 << 20, 3 << 20];
    let machine = machine();
    let recorder = Recorder::new(&Options::default(), 4);
    let world = Rc::new(World::new(&settings(&machine, 2), 4, &Arc::default(), recorder));
    let config = Config {
        arch: Arch::builtin().remove(0),
        system: System::default(),
        variants: Variants::outside_explore(),
        nr_cpus: 2,
        nr_tasks: 4,
    };
    let kernel = Rc::new(Kernel::<Cpu, Classic>::new(config));
    let outside = Rc::new(Task::new(0, &StackPool::new(), 0));
    kernel.start_process(&Cpu::new(0, &world, &outside), &[0, 1]).unwrap();
    kernel.start_process(&Cpu::new(3, &world, &outside), &[3]).unwrap();
    let page = kernel.alloc_page(&Cpu::new(0, &world, &outside)).unwrap().slot_index();
    let log = Rc::new(RefCell::new(Vec::new()));
    let (k, noted) = (Rc::clone(&kernel), Rc::clone(&log));
    let until = |cpu: &Cpu, ns: u64| cpu.pass_ns(ns - cpu.now_ns(), true);
    let body = move |cpu: &Cpu| {
        let lock = || k.page(cpu, page);
        match cpu.task() {
            0 => {
                k.lock_page(cpu, lock());
                k.get_page(cpu, lock());
                until(cpu, DONE[0]);
                k.unlock_page(cpu, lock());
                until(cpu, DONE[1]);
                k.flush_tlb_mm(cpu, k.current_mm(cpu));
            }
            1 => {
                cpu.pass_ns(1000, true);
                k.lock_page(cpu, lock());
                cpu.local_irq_disable();
                until(cpu, DONE[2]);
                k.put_page(cpu, lock()); // another CPU had the line: a moment to be seen in
                cpu.local_irq_enable();
                k.unlock_page(cpu, lock());
            }
            3 => {
                let _ = k.user_access(cpu, 0, Access::Read, 0, true);
                return;
            }
            _ => return,
        }
        noted.borrow_mut().push((cpu.task(), cpu.now_ns() >= DONE[2]));
    };
    let mut tasks = spawn(&world, body).unwrap();
    world.at_rest.set(false);
    drive(&world, &mut tasks);
    drop(tasks);
    assert_eq!(world.take_finding(), None);
    let mut log = log.take();
    log.sort_unstable();
    assert_eq!(log, [(0, true), (1, true)]);
}
