use super::*;
use crate::vtime::Profile;
use crate::vtime::line_queue::Asked;

/// CPUs 0 and 24 share a core of socket 0, 12 is in socket 1.
fn machine() -> Machine {
    Machine { line_ns: [1, 8, 45, 45, 120], ..Profile::builtin()[0].machine() }
}

impl Lines {
    /// What a task of `cpu` that asks at `now`, when nobody waits, gets: when the line is there.
    fn transfer_at(&self, line: u32, cpu: u32, writes: bool, now: u64) -> u64 {
        match self.ask(line, cpu, cpu, writes, now) {
            Asked::Has(at) => at,
            waits => panic!("{waits:?}"),
        }
    }
}

#[test]
fn the_first_to_touch_a_line_has_it_and_then_hits() {
    let machine = machine();
    let lines = Lines::new(&machine, 48, false);
    assert!(lines.hit(5, 0, true).is_none());
    assert_eq!(lines.transfer_at(5, 0, true, 100), 101);
    assert!(lines.hit(5, 0, true).is_some() && lines.hit(5, 0, false).is_some());
    assert!(lines.hit(5, 1, false).is_none());
}

#[test]
fn a_transfer_costs_by_distance() {
    let machine = machine();
    for (cpu, ns) in [(24, 8), (1, 45), (12, 120)] {
        let lines = Lines::new(&machine, 48, false);
        lines.transfer_at(5, 0, true, 0);
        assert_eq!(lines.transfer_at(5, cpu, true, 1000), 1000 + ns, "CPU {cpu}");
    }
}

#[test]
fn readers_share_and_a_writer_takes_all_copies_away() {
    let machine = machine();
    let lines = Lines::new(&machine, 48, false);
    lines.transfer_at(5, 0, true, 0);
    lines.transfer_at(5, 1, false, 1000);
    lines.transfer_at(5, 12, false, 2000);
    assert!([0, 1, 12].into_iter().all(|cpu| lines.hit(5, cpu, false).is_some()));
    assert!(lines.hit(5, 1, true).is_none(), "a copy cannot be written");
    // The farthest copy, in the other socket, decides.
    assert_eq!(lines.transfer_at(5, 1, true, 3000), 3120);
    assert!(lines.hit(5, 1, true).is_some());
    assert!(lines.hit(5, 0, false).is_none() && lines.hit(5, 12, false).is_none());
}

/// All that happens to line 5 from `now` on: who gets it, and when.
fn history(lines: &Lines, mut next: Option<u64>) -> Vec<(u32, u64)> {
    let mut told = vec![];
    while let Some(now) = next {
        let mut served = vec![];
        next = lines.serve(5, now, |one| served.push(one)).map(|first| first.at);
        told.extend(served.iter().map(|one| (one.task, one.at)));
    }
    told
}

/// When the first of these has to see who gets the line; they ask one after the other.
fn all_wait(lines: &Lines, cpus: &[u32], writes: bool, now: u64) -> Option<u64> {
    let asked: Vec<Asked> = cpus.iter().map(|&cpu| lines.ask(5, cpu, cpu, writes, now)).collect();
    assert!(asked[1..].iter().all(|asked| *asked == Asked::Waits(None)), "{asked:?}");
    match asked[0] {
        Asked::Waits(when) => when,
        has => panic!("{has:?}"),
    }
}

#[test]
fn who_waits_gets_the_line_a_transfer_after_the_one_before() {
    let lines = Lines::new(&machine(), 48, false);
    lines.transfer_at(5, 0, true, 0);
    assert_eq!(lines.transfer_at(5, 1, true, 1000), 1045);
    let next = all_wait(&lines, &[2, 3], true, 1001);
    // Half of the way of the request, then the line's.
    assert_eq!(next, Some(1045 + 22));
    assert_eq!(history(&lines, next), [(2, 1045 + 45), (3, 1045 + 90)]);
    assert!(lines.hit(5, 3, true).is_some());
}

#[test]
fn who_got_a_line_has_it_for_what_comes_right_after() {
    let lines = Lines::new(&machine(), 48, false);
    lines.transfer_at(5, 0, true, 0);
    lines.transfer_at(5, 1, true, 1000);
    let next = all_wait(&lines, &[24], true, 1001).expect("it waits");
    // An atomic access and two others fit in, although the request is there sooner.
    assert_eq!(next, 1045 + 22);
    assert!(lines.hit(5, 1, true).is_some());
    // So they do between threads of one core, 8 ns apart.
    let lines = Lines::new(&machine(), 48, false);
    lines.transfer_at(5, 24, true, 0);
    lines.transfer_at(5, 0, true, 1000);
    assert_eq!(all_wait(&lines, &[24], true, 1001), Some(1008 + 8));
}

#[test]
fn the_nearest_goes_first_but_not_for_ever() {
    let machine = machine();
    assert_eq!(machine.near_first(), 2);
    let lines = Lines::new(&machine, 48, false);
    lines.transfer_at(5, 1, true, 0);
    lines.transfer_at(5, 0, true, 1000);
    // CPU 12 is in the other socket, and asks first.
    let next = all_wait(&lines, &[12, 2, 3, 4], true, 1001);
    // CPU 0 has it at 1045, for 8 ns at least. When the next request has made half of its way it
    // leaves, and makes the other half itself: 45 or 120 from one to another. When the first one
    // leaves was settled by who asked first, from the other socket.
    let times = [(2, 1045 + 60 + 23), (3, 1128 + 45), (12, 1173 + 120), (4, 1293 + 120)];
    assert_eq!(history(&lines, next), times);
}

#[test]
fn all_that_read_get_their_copies_at_once() {
    let lines = Lines::new(&machine(), 48, false);
    lines.transfer_at(5, 1, true, 0);
    lines.transfer_at(5, 0, true, 1000);
    let next = all_wait(&lines, &[2, 3, 12], false, 1001);
    assert_eq!(lines.ask(5, 4, 4, true, 1001), Asked::Waits(None));
    let told = history(&lines, next);
    assert_eq!(told[..3], [(2, 1067 + 23), (3, 1067 + 23), (12, 1067 + 60)]);
    // The writer waits for the last of them, and takes all copies away.
    assert_eq!(told[3].0, 4);
    assert!(told[3].1 > 1067 + 60);
    assert!([0, 2, 3, 12].into_iter().all(|cpu| lines.hit(5, cpu, false).is_none()));
}

#[test]
fn queues_are_used_again() {
    let lines = Lines::new(&machine(), 48, false);
    for round in 1..100 {
        lines.transfer_at(5, 0, true, 10_000 * round);
        let next = all_wait(&lines, &[1, 2], true, 10_000 * round + 1);
        assert_eq!(history(&lines, next).len(), 2);
    }
    assert_eq!(lines.queues.borrow().len(), 1);
}

#[test]
fn sets_are_used_again() {
    let machine = machine();
    let lines = Lines::new(&machine, 48, false);
    for round in 0..100 {
        lines.transfer_at(5, 0, true, 1000 * round);
        lines.transfer_at(5, 1, false, 1000 * round + 500);
    }
    assert_eq!(lines.sets.len(), 1 + 1, "a word of CPUs, and one of sockets");
}

/// Two sockets of two dies of two cores with two threads: CPUs 0 and 8 share a core, 1 the die, 2 the socket.
fn dies() -> Machine {
    let text = r#"
        name = "dies"
        like = "x86-48"
        dies_per_socket = 2
        cores_per_die = 2
        line_socket_ns = 80
        line_machine_ns = 120
    "#;
    Profile::from_toml(text).unwrap().machine()
}

#[test]
fn another_die_is_farther_than_the_own_and_nearer_than_another_socket() {
    for (cpu, ns) in [(8, 8), (1, 45), (2, 80), (4, 120)] {
        let lines = Lines::new(&dies(), 16, false);
        lines.transfer_at(5, 0, true, 0);
        assert_eq!(lines.transfer_at(5, cpu, true, 1000), 1000 + ns, "CPU {cpu}");
    }
}

#[test]
fn a_reader_takes_the_nearest_copy_and_a_writer_waits_for_the_farthest() {
    // The copies that there are, who asks, what it costs to read, and then to write.
    for (copies, cpu, read, write) in [
        ([0, 2], 3, 45, 80),
        ([0, 2], 1, 45, 80),
        ([0, 1], 8, 8, 45),
        ([4, 6], 5, 45, 80),
        ([4, 6], 0, 120, 120),
        ([0, 4], 8, 8, 120),
        ([2, 3], 0, 80, 80),
    ] {
        let lines = Lines::new(&dies(), 16, false);
        lines.transfer_at(5, copies[0], true, 0);
        lines.transfer_at(5, copies[1], false, 1000);
        assert_eq!(lines.transfer_at(5, cpu, false, 2000), 2000 + read, "{copies:?}, {cpu}");
        assert_eq!(lines.transfer_at(5, cpu, true, 3000), 3000 + write, "{copies:?}, {cpu}");
    }
}

#[test]
fn tasks_are_spread_over_sockets_then_dies_then_cores_then_threads() {
    // Two each; CPU n + 8 is the other thread of the core of CPU n.
    let spread: Vec<u32> = (0..16).map(|nth| dies().spread(nth)).collect();
    assert_eq!(spread, [0, 4, 2, 6, 1, 5, 3, 7, 8, 12, 10, 14, 9, 13, 11, 15]);
    let adjacent = Machine { threads_adjacent: true, ..dies() };
    let spread: Vec<u32> = (0..16).map(|nth| adjacent.spread(nth)).collect();
    assert_eq!(spread, [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15]);
    // So the second is far from the first, and the third on its socket.
    for (cpu, ns) in [(1, 120), (2, 80)] {
        let lines = Lines::new(&dies(), 4, true);
        lines.transfer_at(5, 0, true, 0);
        assert_eq!(lines.transfer_at(5, cpu, true, 1000), 1000 + ns, "CPU {cpu}");
    }
}

#[test]
fn with_adjacent_line_prefetch_a_line_brings_a_copy_of_its_neighbour() {
    let pairs = Machine { adjacent_line_prefetch: true, ..machine() };
    let lines = Lines::new(&pairs, 48, false);
    // 6 and 7 are a pair; 5 is none of it. CPU 12 writes both of them first.
    for line in [5, 6, 7] {
        lines.transfer_at(line, 12, true, 0);
    }
    assert_eq!(lines.transfer_at(6, 0, true, 1000), 1120, "nobody waits for the other one");
    assert!(lines.hit(7, 0, false).is_some() && lines.hit(7, 0, true).is_none());
    assert!(lines.hit(7, 12, false).is_some(), "its owner keeps it");
    assert!(lines.hit(7, 12, true).is_none(), "for reading: false sharing of 128 bytes");
    assert!(lines.hit(5, 0, false).is_none() && lines.hit(5, 12, true).is_some());
    // Without it, the other line stays where it is.
    let lines = Lines::new(&machine(), 48, false);
    lines.transfer_at(6, 12, true, 0);
    lines.transfer_at(7, 12, true, 0);
    lines.transfer_at(6, 0, true, 1000);
    assert!(lines.hit(7, 12, true).is_some());
}
