//! What is written down on each CPU, and how it is drawn: slices that nest.

use super::*;

fn at(cpu: CpuId, task: TaskId, now: u64) -> Moment {
    Moment { cpu, task, now }
}

/// CPU, time, phase, name and how it ended.
type Drawn = (u32, u64, u8, String, String);

/// The entries of a course, and whether it is cut.
fn drawn(mut spans: Spans, nr_cpus: u32, elapsed_ns: u64) -> (Vec<Drawn>, bool) {
    let mut course = Course::default();
    spans.finish(nr_cpus, elapsed_ns, &mut course);
    let (entries, rest) = course.spans.as_chunks::<33>();
    assert!(rest.is_empty());
    let entries = entries.iter().map(|entry| {
        let number = |from: usize, to: usize| {
            let bytes = entry[from..to].iter().rev();
            bytes.fold(0u64, |sum, &byte| sum << 8 | u64::from(byte))
        };
        let name = |from: usize| course.span_names[number(from, from + 2) as usize].clone();
        (number(20, 24) as u32, number(0, 8), entry[32], name(28), name(30))
    });
    (entries.collect(), course.is_cut)
}

fn line(cpu: u32, time: u64, phase: Phase, name: &str, how: &str) -> Drawn {
    (cpu, time, phase as u8, name.to_owned(), how.to_owned())
}

#[test]
fn what_another_task_cuts_goes_on_later() {
    // Goal: a track nests though two tasks have the CPU by turns.
    //
    //   task 0   fault───────wait┐                  ┌──┐fault ends
    //   task 1                   └─idle─┐mmap───────┘
    let mut spans = Spans::new(100, 2);
    spans.gets_cpu(at(0, 0, 5));
    spans.enter(at(0, 0, 5), Span::Fault(0x1000));
    spans.begin(at(0, 0, 10), "wait", 0);
    spans.leaves_cpu(at(0, 0, 10));
    spans.gets_cpu(at(0, 1, 20));
    spans.enter(at(0, 1, 20), Span::Operation("mmap"));
    spans.leave(at(0, 1, 30), "");
    spans.leaves_cpu(at(0, 1, 30));
    spans.gets_cpu(at(0, 0, 30));
    spans.leave(at(0, 0, 31), "");
    spans.leave(at(0, 0, 40), "");
    spans.leaves_cpu(at(0, 0, 40));
    let (entries, is_cut) = drawn(spans, 1, 50);
    assert!(!is_cut);
    let expect = [
        (0, Phase::Begin, "idle"),
        (5, Phase::End, "idle"),
        (5, Phase::Begin, "fault"),
        (10, Phase::Begin, "wait"),
        (10, Phase::Begin, "idle"),
        (20, Phase::End, "idle"),
        (20, Phase::Cut, "wait"),
        (20, Phase::Cut, "fault"),
        (20, Phase::Begin, "mmap"),
        (30, Phase::End, "mmap"),
        (30, Phase::Again, "fault"),
        (30, Phase::Again, "wait"),
        (31, Phase::End, "wait"),
        (40, Phase::End, "fault"),
        (40, Phase::Begin, "idle"),
        (50, Phase::End, "idle"),
    ];
    assert_eq!(entries, expect.map(|(time, phase, name)| line(0, time, phase, name, "")));
}

#[test]
fn an_attempt_ends_with_its_event_and_points_at_the_writer() {
    // Goal: the cause is the write since the attempt began, or one that is not over.
    let vma = Site { line: 7, offset: 8 };
    let changed = Event::SpfVmaChanged;
    for (written, sequence, has_cause) in [(15, 2, true), (5, 2, false), (5, 3, true)] {
        let mut spans = Spans::new(100, 2);
        spans.gets_cpu(at(0, 0, 0));
        spans.gets_cpu(at(1, 1, 0));
        spans.writes_vma(at(1, 1, written), vma, 0x4000);
        spans.enter(at(0, 0, 10), Span::Speculative);
        spans.gives_up(at(0, 0, 20), changed, vma, sequence, 0x4000);
        // Work in between has no outcome.
        spans.begin(at(0, 0, 20), "flush_tlb_func", 0);
        spans.leave(at(0, 0, 21), "");
        spans.leave(at(0, 0, 30), "retry");
        let entries = &spans.entries;
        let cause = entries.iter().find(|entry| entry.time_ns == 20).unwrap().cause;
        assert_eq!(cause != 0, has_cause, "{written} {sequence}");
        let (entries, _) = drawn(spans, 2, 30);
        assert!(entries.contains(&line(0, 20, Phase::Point, "spf_vma_changed", "")));
        assert!(entries.contains(&line(0, 30, Phase::End, "speculative", "spf_vma_changed")));
        assert!(entries.contains(&line(0, 21, Phase::End, "flush_tlb_func", "")));
    }
}

#[test]
fn of_more_than_fit_the_first_stay_and_all_that_is_open_ends() {
    let mut spans = Spans::new(3, 1);
    spans.gets_cpu(at(0, 0, 0));
    spans.enter(at(0, 0, 1), Span::Operation("mmap"));
    spans.enter(at(0, 0, 2), Span::Fault(0));
    spans.leave(at(0, 0, 3), "");
    spans.leave(at(0, 0, 4), "");
    let (entries, is_cut) = drawn(spans, 1, 100);
    assert!(is_cut);
    let expect = [
        (1, Phase::Begin, "mmap"),
        (2, Phase::Begin, "fault"),
        (2, Phase::Cut, "fault"),
        (2, Phase::Cut, "mmap"),
    ];
    assert_eq!(entries, expect.map(|(time, phase, name)| line(0, time, phase, name, "")));
}
