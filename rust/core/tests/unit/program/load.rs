use super::*;
use crate::program::build::*;

fn refused(tasks: &[(Start, &[Rec])]) -> String {
    try_program(tasks).unwrap_err().0
}

#[test]
fn brackets_must_match() {
    assert_eq!(
        refused(&[(Start::First, &[repeat(1), rec(NOTE)])]),
        "tasks[0]: record 0: 'repeat' is not closed"
    );
    assert_eq!(
        refused(&[(Start::First, &[]), (Start::First, &[rec(NOTE), rec(END)])]),
        "tasks[1]: record 1: 'end' closes no 'repeat'"
    );
    let inner = [repeat(2), repeat(3), rec(NOTE), rec(END), rec(END)];
    let ops = [&inner[..], &[repeat(4), rec(NOTE), rec(END)]].concat();
    let program = program(&[(Start::First, &ops)]);
    let ends = program.tasks[0].ops.iter().filter_map(|op| match op {
        Op::Repeat(repeat) => Some((repeat.ordinal, repeat.end)),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [(0, 4), (1, 3), (2, 7)]);
    assert_eq!(program.tasks[0].nr_repeats, 3);
}

#[test]
fn rounds_of_nothing_are_refused() {
    // Any bytes as a program found it: 2^62 of them, and neither a limit nor Ctrl-C ends a run.
    let ops = [repeat(1 << 62), rec(END)];
    let empty = "tasks[0]: record 0: 'repeat' has no operations";
    assert_eq!(refused(&[(Start::First, &ops)]), empty);
    let ops = [repeat(1 << 62), repeat(0), rec(NOTE), rec(END), rec(END)];
    let none = "tasks[0]: record 1: field 'value': value 0 (allowed: 1 and more rounds)";
    assert_eq!(refused(&[(Start::First, &ops)]), none);
    let ops = [Rec { flags: 1, ..repeat(0) }, rec(NOTE), rec(END)];
    let no_time = "tasks[0]: record 0: field 'length': value 0 (allowed: 1 and more nanoseconds)";
    assert_eq!(refused(&[(Start::First, &ops)]), no_time);
}

#[test]
fn records_must_be_whole() {
    let error = Program::new(&ProgramSpec {
        tasks: vec![TaskSpec { start: Start::First, records: &[0; 63] }],
        nr_ids: 0,
        nr_names: 0,
        texts: &[],
        files: vec![],
        note_maps: vec![],
    });
    assert_eq!(error.unwrap_err().0, "tasks[0]: 63 bytes (allowed: a multiple of 62)");
}

#[test]
fn every_task_is_started_once_and_as_it_says() {
    let allowed = "(allowed: a task that is started so, and only here)";
    let fork = aux(FORK, 1);
    let wrong =
        |record: usize| format!("tasks[0]: record {record}: field 'aux': value 1 {allowed}");
    assert_eq!(refused(&[(Start::First, &[fork]), (Start::Clone, &[])]), wrong(0));
    assert_eq!(refused(&[(Start::First, &[fork, fork]), (Start::Fork, &[])]), wrong(1));
    let each_round: &[Rec] = &[repeat(2), fork, rec(END)];
    assert_eq!(refused(&[(Start::First, each_round), (Start::Fork, &[])]), wrong(1));
    assert!(refused(&[(Start::Fork, &[])]).starts_with("no task starts with the program"));
    assert!(try_program(&[(Start::First, &[fork]), (Start::Fork, &[])]).is_ok());
}

#[test]
fn the_number_of_operations_counts_rounds_and_accesses() {
    let timed = Rec { flags: 1, length: 7, length2: 0, ..rec(REPEAT) };
    let ops = [repeat(3), touch(0, 5), repeat(2), rec(NOTE), rec(END), rec(END), rec(NOTE)];
    let counted = program(&[(Start::First, &ops), (Start::First, &[rec(NOTE)])]);
    assert_eq!(counted.nr_operations(PAGE), Some(3 * (5 + 2) + 1 + 1));
    // A touch with no stride goes by the page.
    assert_eq!(counted.nr_operations(16 * PAGE), Some(3 * (1 + 2) + 1 + 1));
    assert_eq!(counted.for_ns(), 0);
    let by_the_clock = program(&[
        (Start::First, &[timed, rec(NOTE), rec(END), timed, rec(NOTE), rec(END)]),
        (Start::First, &[timed, rec(NOTE), rec(END)]),
    ]);
    assert_eq!(by_the_clock.nr_operations(PAGE), None);
    assert_eq!(by_the_clock.for_ns(), 14);
}

#[test]
fn posts_and_barriers_are_counted_by_name() {
    let program = program(&[
        (Start::First, &[aux(POST, 2), aux(POST, 2), aux(BARRIER, 1), aux(BARRIER, 1)]),
        (Start::First, &[aux(POST, 2), aux(BARRIER, 0)]),
    ]);
    assert_eq!(program.posts[..3], [0, 0, 3]);
    assert_eq!(program.tasks[0].barriers, [1]);
    assert_eq!(program.tasks[1].barriers, [0]);
}
