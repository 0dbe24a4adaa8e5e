use super::*;
use crate::events::Event;
use crate::mm::{Choice, Variants};
use crate::program::build::*;
use crate::program::{NoteMaps, OUTCOME_BYTES, Start};

const GB: u64 = 1 << 30;

/// What tests look at of an outcome.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    task: u32,
    index: u32,
    round: u64,
    access: u32,
    handled: u8,
    livelock: u8,
    signal: u8,
    si_code: i32,
    has: u8,
    errno: i32,
    ret: i64,
    value: u64,
    faults: u32,
}

fn field<const N: usize>(outcome: &[u8], offset: usize) -> [u8; N] {
    outcome[offset..offset + N].try_into().unwrap()
}

fn seen(result: &RunResult) -> Vec<Seen> {
    let outcomes = result.outcomes.chunks_exact(OUTCOME_BYTES);
    let outcome = |o: &[u8]| Seen {
        task: u32::from_le_bytes(field(o, 0)),
        index: u32::from_le_bytes(field(o, 4)),
        round: u64::from_le_bytes(field(o, 8)),
        access: u32::from_le_bytes(field(o, 16)),
        handled: o[22],
        livelock: o[23],
        signal: o[24],
        si_code: i32::from_le_bytes(field(o, 25)),
        has: o[29],
        errno: i32::from_le_bytes(field(o, 30)),
        ret: i64::from_le_bytes(field(o, 34)),
        value: u64::from_le_bytes(field(o, 42)),
        faults: u32::from_le_bytes(field(o, 50)),
    };
    outcomes.map(outcome).collect()
}

fn run_with(tasks: &[(Start, &[Rec])], handler: Handler) -> RunResult {
    let (options, watch) = (Options::default(), Arc::<Watch>::default());
    run(&program(tasks), handler, config(GB), &options, &watch).unwrap()
}

/// Runs to a good end: no finding (nothing is left behind), nobody stuck.
fn run_well(tasks: &[(Start, &[Rec])]) -> RunResult {
    let result = run_with(tasks, Handler::Spf);
    assert_eq!(result.finding, None);
    assert_eq!(result.stuck, []);
    result
}

#[test]
fn a_word_that_was_written_is_read_and_the_system_is_left_empty() {
    let result = run_well(&[(Start::First, &[mmap(2, 0), write(0, 0, 7), read(0, 0), read(0, 1)])]);
    let seen = seen(&result);
    assert_eq!((seen[0].has, seen[0].ret), (1, 0x7fff_f7ff_d000));
    assert_eq!((seen[1].has, seen[1].handled, seen[1].faults), (1, 2, 1));
    assert_eq!((seen[2].has, seen[2].value, seen[2].faults), (3, 7, 0));
    assert_eq!((seen[3].has, seen[3].value), (3, 0));
    assert_eq!(result.counters[Event::Faults as usize], 2);
    assert_eq!(result.maps, [(0, vec!["7ffff7ffd000-7ffff7fff000 rw-p 00000000".to_owned()])]);
}

#[test]
fn with_two_threads_the_second_fault_is_speculative_unless_the_handler_is_classic() {
    let tasks: &[(Start, &[Rec])] = &[
        (Start::First, &[mmap(2, 0), write(0, 0, 1), aux(POST, 0), aux(AWAIT, 1)]),
        (Start::First, &[aux(AWAIT, 0), write(0, 1, 2), aux(POST, 1)]),
    ];
    let result = run_well(tasks);
    assert_eq!(seen(&result)[1].handled, 2);
    assert_eq!(seen(&result)[5].handled, 1);
    assert_eq!(result.counters[Event::Spf as usize], 1);
    let result = run_with(tasks, Handler::Classic);
    assert_eq!(result.finding, None);
    assert_eq!(result.counters[Event::Spf as usize], 0);
}

#[test]
fn the_sysctl_turns_speculation_off() {
    let off = Rec { aux: 0, addr: 0, ..rec(SYSCTL) };
    let bad = Rec { aux: 1, addr: -1, ..rec(SYSCTL) };
    let result = run_well(&[
        (Start::First, &[off, bad, mmap(2, 0), write(0, 0, 1), aux(POST, 0), aux(AWAIT, 1)]),
        (Start::First, &[aux(AWAIT, 0), write(0, 1, 2), aux(POST, 1)]),
    ]);
    assert_eq!((seen(&result)[1].errno, seen(&result)[1].ret), (22, -1));
    assert_eq!(seen(&result)[7].handled, 2);
}

#[test]
fn rounds_are_counted_over_nested_repeats() {
    // repeat 2 { note; repeat 3 { note } }
    let ops = [repeat(2), rec(NOTE), repeat(3), rec(NOTE), rec(END), rec(END)];
    let result = run_well(&[(Start::First, &ops)]);
    let rounds: Vec<(u32, u64)> = seen(&result).iter().map(|o| (o.index, o.round)).collect();
    let expect = [(1, 0), (3, 0), (3, 1), (3, 2), (1, 1), (3, 3), (3, 4), (3, 5)];
    assert_eq!(rounds, expect);
    assert_eq!(result.rounds, [0]);
}

#[test]
fn a_repeat_ends_with_its_time_or_its_rounds() {
    let timed = |for_ns, most| Rec { flags: 1, length: for_ns, length2: most, ..rec(REPEAT) };
    let ops = [timed(2_000_000, 0), rec(NOTE), rec(END), timed(u64::MAX, 5), rec(NOTE), rec(END)];
    let result = run_well(&[(Start::First, &ops)]);
    assert!(result.elapsed_ns >= 2_000_000);
    let last = seen(&result).iter().filter(|o| o.index == 4).count();
    assert_eq!(last, 5);
    assert!(result.rounds[0] > 5);
}

#[test]
fn a_touch_has_an_outcome_for_each_access() {
    let backward = Rec { flags: 1, access: 0, ..touch(0, 3) };
    let result = run_well(&[(Start::First, &[mmap(3, 0), touch(0, 3), backward])]);
    let seen = seen(&result);
    let writes: Vec<(u32, u32)> = seen[1..4].iter().map(|o| (o.access, o.faults)).collect();
    assert_eq!(writes, [(0, 1), (1, 1), (2, 1)]);
    assert!(seen[4..7].iter().all(|o| (o.value, o.has, o.faults) == (1, 3, 0)));
}

#[test]
fn a_bad_access_is_a_signal_or_efault_and_the_task_goes_on() {
    let kernel = Rec { mode: 1, ..range(READ, -1, 5, 0) };
    let result = run_well(&[(Start::First, &[range(READ, -1, 5, 0), kernel, rec(NOTE)])]);
    let seen = seen(&result);
    assert_eq!((seen[0].signal, seen[0].si_code, seen[0].has), (11, 1, 0));
    assert_eq!((seen[1].signal, seen[1].errno, seen[1].ret, seen[1].has), (0, 14, -1, 1));
    assert_eq!(seen[2].has, 1);
}

#[test]
fn a_break_is_named_and_moves() {
    let grow = Rec { flags: GIVEN, addr: 0x3000, addr2: 0x1000_0000, base2: 0, ..rec(BRK) };
    let shrink = Rec { addr: -0x4000, ..rec(BRK) };
    let pause = Rec { value: u64::MAX, ..rec(SLEEP) };
    let ops = [grow, write(0, -1, 3), range(EXECUTE, 0, -1, 0), pause, shrink];
    let result = run_well(&[(Start::First, &ops)]);
    let seen = seen(&result);
    assert_eq!((seen[0].ret, seen[1].ret), (0x1000_3000, 0));
    assert_eq!((seen[2].signal, seen[2].si_code), (11, 2));
    assert_eq!((seen[4].ret, seen[4].errno), (-1, 12));
    assert_eq!(result.maps[0].1, ["10000000-10003000 rw-p 00000000"]);
}

#[test]
fn ids_are_awaited_across_tasks_and_a_failed_call_names_map_failed() {
    let too_long = Rec { length: 1 << 50, ..mmap(1, 1) };
    let result = run_well(&[
        (Start::First, &[write(0, 0, 9), read(1, 0)]),
        (Start::First, &[mmap(1, 0), too_long]),
    ]);
    let seen = seen(&result);
    assert_eq!(seen[0].has, 1);
    assert_eq!(seen[1].signal, 11);
    assert_eq!(seen[3].errno, 12);
}

#[test]
fn a_barrier_waits_for_all_who_name_it_and_have_not_ended() {
    // The third task leaves before its third round.
    let rounds = [repeat(3), aux(BARRIER, 0), rec(END)];
    let fewer = [repeat(2), aux(BARRIER, 0), rec(END)];
    let tasks: &[(Start, &[Rec])] =
        &[(Start::First, &rounds), (Start::First, &rounds), (Start::First, &fewer)];
    let result = run_well(tasks);
    assert_eq!(seen(&result).len(), 8);
}

#[test]
fn who_waits_for_ever_is_named() {
    let result = run_with(
        &[
            (Start::First, &[mmap(1, 0), aux(AWAIT, 3), rec(NOTE)]),
            (Start::First, &[aux(BARRIER, 1)]),
            (Start::First, &[write(7, 0, 1)]),
            (Start::First, &[rec(EXIT), aux(POST, 3)]),
            (Start::First, &[aux(BARRIER, 1), aux(BARRIER, 2)]),
            (Start::First, &[aux(WAIT, 0), aux(BARRIER, 2)]),
        ],
        Handler::Spf,
    );
    assert_eq!(result.finding, None);
    assert_eq!(result.stuck, [0, 2, 4, 5]);
    // The process lives on, and so does its mapping.
    assert_eq!(result.maps[0].1.len(), 1);
}

#[test]
fn a_forked_child_has_its_own_copy() {
    // parent: write 1, fork, wait, read 1;  child: read 1, write 2
    let result = run_well(&[
        (Start::First, &[mmap(1, 0), write(0, 0, 1), aux(FORK, 1), aux(WAIT, 1), read(0, 0)]),
        (Start::Fork, &[read(0, 0), write(0, 0, 2), read(0, 0), mmap(4, -1)]),
    ]);
    let values: Vec<(u32, u32, u64)> =
        seen(&result).iter().filter(|o| o.has == 3).map(|o| (o.task, o.index, o.value)).collect();
    assert_eq!(values, [(0, 4, 1), (1, 0, 1), (1, 2, 2)]);
    let lines: Vec<(TaskId, usize)> =
        result.maps.iter().map(|(p, maps)| (*p, maps.len())).collect();
    assert_eq!(lines, [(0, 1), (1, 2)]);
}

#[test]
fn a_vfork_parent_waits_until_the_child_execs_and_they_share_until_then() {
    // The child writes 2 into the shared page, execs, and reads in an empty address space.
    let result = run_well(&[
        (Start::First, &[mmap(1, 0), write(0, 0, 1), aux(VFORK, 1), read(0, 0), aux(POST, 0)]),
        (Start::Vfork, &[write(0, 0, 2), rec(EXEC), aux(AWAIT, 0), read(0, 0)]),
    ]);
    let seen = seen(&result);
    assert_eq!((seen[3].index, seen[3].value), (3, 2));
    assert_eq!((seen[8].task, seen[8].signal), (1, 11));
    assert_eq!(result.maps[1], (1, vec![]));
}

#[test]
fn exec_ends_the_other_tasks_of_the_process_wherever_they_wait() {
    let result = run_well(&[
        (Start::First, &[mmap(1, 0), aux(CLONE, 3), aux(AWAIT, 5), rec(EXEC), read(0, 0)]),
        (Start::First, &[aux(BARRIER, 0), rec(NOTE)]),
        (Start::First, &[aux(POST, 5), aux(AWAIT, 6), aux(POST, 6)]),
        (Start::Clone, &[aux(WAIT, 0), rec(NOTE)]),
    ]);
    let done: Vec<(u32, u32)> = seen(&result).iter().map(|o| (o.task, o.index)).collect();
    // Task 1 waits alone at its barrier, which opens; it may or may not have ended by then.
    let certain: Vec<_> = done.into_iter().filter(|(task, _)| *task != 1).collect();
    assert_eq!(certain, [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (2, 0)]);
    assert_eq!(result.maps, [(0, vec![])]);
}

#[test]
fn exec_ends_a_task_in_the_middle_of_a_touch() {
    // Task 1 writes byte by byte for an hour, unless it is ended between two accesses.
    let endless = Rec { length: 1 << 31, length2: 1, ..touch(0, 1) };
    let tasks: &[(Start, &[Rec])] = &[
        (Start::First, &[aux(AWAIT, 0), rec(EXEC)]),
        (Start::First, &[mmap(1 << 19, 0), aux(POST, 0), endless]),
    ];
    let (watch, options) =
        (Arc::<Watch>::default(), Options { record: false, ..Options::default() });
    let result = run(&program(tasks), Handler::Spf, config(16 * GB), &options, &watch).unwrap();
    assert_eq!((result.finding, result.stuck), (None, vec![]));
    assert!(watch.operations.load(std::sync::atomic::Ordering::Relaxed) < 1 << 31);
}

#[test]
fn a_note_that_asks_for_them_keeps_the_vmas() {
    let ops = [mmap(1, 0), rec(NOTE), range(MUNMAP, 0, 0, 1), rec(NOTE)];
    let result = run_well(&[(Start::First, &ops)]);
    // Record 3 of task 0 asks, record 1 does not.
    assert_eq!(result.note_maps, [NoteMaps { task: 0, index: 3, round: 0, maps: vec![] }]);
}

#[test]
fn a_run_that_is_told_to_ends_soon() {
    let forever = [repeat(u64::MAX), mmap(4, 0), touch(0, 4), range(MUNMAP, 0, 0, 4), rec(END)];
    let tasks: &[(Start, &[Rec])] =
        &[(Start::First, &forever), (Start::First, &forever), (Start::First, &[aux(AWAIT, 0)])];
    let (program, watch) = (program(tasks), Arc::<Watch>::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            while watch.operations.load(std::sync::atomic::Ordering::Relaxed) < 1000 {
                thread::yield_now();
            }
            watch.stop();
        });
        let options = Options { record: false, ..Options::default() };
        let result = run(&program, Handler::Spf, config(GB), &options, &watch).unwrap();
        assert!(result.interrupted);
        assert_eq!(result.finding, None);
        assert_eq!(result.outcomes, []);
    });
}

#[test]
fn a_run_with_more_outcomes_than_may_be_kept_is_refused() {
    // However long it would run; and at the end, where only a few are too many.
    for rounds in [u64::MAX - 1, 6] {
        let ops = [repeat(rounds), rec(NOTE), rec(END)];
        let (program, watch) = (program(&[(Start::First, &ops)]), Arc::<Watch>::default());
        let options = Options { max_outcomes: 5, ..Options::default() };
        let result = run(&program, Handler::Spf, config(GB), &options, &watch).unwrap();
        assert!(result.interrupted);
        assert!(watch.refusal().unwrap().contains("more than 5 outcomes"));
        assert_eq!(result.outcomes, []);
    }
}

#[test]
fn too_little_memory_for_an_address_space_is_an_error() {
    let program = program(&[(Start::First, &[rec(NOTE)])]);
    let (options, watch) = (Options::default(), Arc::<Watch>::default());
    let error = run(&program, Handler::Spf, config(PAGE), &options, &watch).unwrap_err();
    assert!(error.0.starts_with("key 'memory': value 4096 (allowed on arch x86:"), "{error}");
}

#[test]
fn progress_reaches_what_the_program_announces() {
    let ops = [mmap(9, 0), repeat(3), touch(0, 9), rec(NOTE), rec(END)];
    let (program, watch) = (program(&[(Start::First, &ops)]), Arc::<Watch>::default());
    run(&program, Handler::Spf, config(GB), &Options::default(), &watch).unwrap();
    let done = watch.operations.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(Some(done), program.nr_operations(PAGE));
    assert_eq!(done, 1 + 3 * (9 + 1));
}

#[test]
fn threads_that_churn_the_same_address_space_leave_nothing_behind() {
    // Four tasks map, touch, protect and unmap beside each other; one more forks a copy.
    let churn = |id: i32| {
        vec![
            repeat(200),
            mmap(8, id),
            touch(id, 8),
            Rec { prot: 1, ..range(MPROTECT, id, 2, 3) },
            Rec { access: 0, ..touch(id, 8) },
            Rec { advice: 0, ..range(MADVISE, id, 1, 2) },
            range(MUNMAP, id, 4, 2),
            range(MUNMAP, id, 0, 8),
            rec(END),
        ]
    };
    let (a, b, c, d) = (churn(0), churn(1), churn(2), churn(3));
    let forker = [mmap(8, 4), touch(4, 8), aux(FORK, 5), touch(4, 8), aux(WAIT, 5)];
    let child = [touch(4, 8), range(MUNMAP, 4, 0, 8)];
    for handler in [Handler::Spf, Handler::SpfRwlock, Handler::Classic] {
        let result = run_with(
            &[
                (Start::First, &a),
                (Start::First, &b),
                (Start::First, &c),
                (Start::First, &d),
                (Start::First, &forker),
                (Start::Fork, &child),
            ],
            handler,
        );
        assert_eq!(result.finding, None, "{handler:?}");
        assert_eq!(result.stuck, []);
    }
}

/// Runs as [`run_well`], with the oracle looking on.
fn run_observed(tasks: &[(Start, &[Rec])]) -> RunResult {
    let options = Options { history: true, ..Options::default() };
    let watch = Arc::new(Watch::default());
    // C3 is a wrong answer, and the oracle says so.
    let config = Config { variants: Variants::all(Choice::Fixed), ..config(GB) };
    let result = run(&program(tasks), Handler::Spf, config, &options, &watch).unwrap();
    assert_eq!(result.finding, None);
    result
}

#[test]
fn the_oracle_agrees_with_what_a_program_sees() {
    // Every kind of event, one after another; and beside each other on the same pages.
    let dontneed = Rec { advice: 0, ..range(MADVISE, 0, 0, 2) };
    let read_only = Rec { prot: 1, ..range(MPROTECT, 0, 0, 1) };
    let grow = Rec { addr: 0x2000, base2: 1, ..rec(BRK) };
    let shrink = Rec { addr: -0x1000, ..rec(BRK) };
    run_observed(&[
        (
            Start::First,
            &[
                mmap(2, 0),
                write(0, 0, 7),
                aux(FORK, 1),
                dontneed,
                read(0, 0),
                read_only,
                write(0, 0, 8),
                range(MUNMAP, 0, 1, 1),
                read(0, 1),
                grow,
                write(1, -1, 9),
                shrink,
                read(1, -1),
            ],
        ),
        (Start::Fork, &[read(0, 0), write(0, 0, 9), read(0, 0), rec(EXEC), read(0, 0)]),
    ]);
    let churn: &[Rec] = &[
        repeat(12),
        Rec { flags: 5 | 8 | GIVEN, addr: 0x100_0000, ..mmap(2, 2) },
        write(2, 0, 1),
        read(2, 0),
        Rec { prot: 1, ..range(MPROTECT, 2, 0, 2) },
        write(2, 1, 2),
        Rec { advice: 0, ..range(MADVISE, 2, 0, 2) },
        read(2, 0),
        range(MUNMAP, 2, 0, 1),
        rec(END),
    ];
    run_observed(&[(Start::First, churn), (Start::First, churn), (Start::First, churn)]);
}
