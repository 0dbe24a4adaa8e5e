use super::*;
use crate::vtime::Profile;

/// CPUs 0 and 24 share a core of socket 0, 12 is in socket 1.
fn machine() -> Machine {
    Profile::builtin()[0].machine()
}

#[test]
fn the_first_to_touch_a_line_has_it_and_then_hits() {
    let machine = machine();
    let lines = Lines::new(&machine, 48);
    assert!(lines.hit(5, 0, true).is_none());
    assert_eq!(lines.transfer(5, 0, true, 100).0, 101);
    assert!(lines.hit(5, 0, true).is_some() && lines.hit(5, 0, false).is_some());
    assert!(lines.hit(5, 1, false).is_none());
}

#[test]
fn a_transfer_costs_by_distance() {
    let machine = machine();
    for (cpu, ns) in [(24, 8), (1, 45), (12, 120)] {
        let lines = Lines::new(&machine, 48);
        lines.transfer(5, 0, true, 0);
        assert_eq!(lines.transfer(5, cpu, true, 1000).0, 1000 + ns, "CPU {cpu}");
    }
}

#[test]
fn readers_share_and_a_writer_takes_all_copies_away() {
    let machine = machine();
    let lines = Lines::new(&machine, 48);
    lines.transfer(5, 0, true, 0);
    lines.transfer(5, 1, false, 1000);
    lines.transfer(5, 12, false, 2000);
    assert!([0, 1, 12].into_iter().all(|cpu| lines.hit(5, cpu, false).is_some()));
    assert!(lines.hit(5, 1, true).is_none(), "a copy cannot be written");
    // The farthest copy, in the other socket, decides.
    assert_eq!(lines.transfer(5, 1, true, 3000).0, 3120);
    assert!(lines.hit(5, 1, true).is_some());
    assert!(lines.hit(5, 0, false).is_none() && lines.hit(5, 12, false).is_none());
}

#[test]
fn requests_for_one_line_queue_up() {
    let machine = machine();
    let lines = Lines::new(&machine, 48);
    lines.transfer(5, 0, true, 0);
    let first = lines.transfer(5, 1, true, 1000).0;
    let second = lines.transfer(5, 2, true, 1000).0;
    assert_eq!((first, second), (1045, 1090));
}

#[test]
fn sets_are_used_again() {
    let machine = machine();
    let lines = Lines::new(&machine, 48);
    for round in 0..100 {
        lines.transfer(5, 0, true, round);
        lines.transfer(5, 1, false, round);
    }
    assert_eq!(lines.sets.len(), 1);
}

/// Two sockets of two dies of two cores with two threads: CPUs 0 and 8 share a core, 1 the die, 2 the socket.
fn dies() -> Machine {
    let text = r#"
        name = "dies"
        like = "x86-48"
        dies_per_socket = 2
        cores_per_die = 2
        line_socket_ns = 80
    "#;
    Profile::from_toml(text).unwrap().machine()
}

#[test]
fn another_die_is_farther_than_the_own_and_nearer_than_another_socket() {
    for (cpu, ns) in [(8, 8), (1, 45), (2, 80), (4, 120)] {
        let lines = Lines::new(&dies(), 16);
        lines.transfer(5, 0, true, 0);
        assert_eq!(lines.transfer(5, cpu, true, 1000).0, 1000 + ns, "CPU {cpu}");
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
        let lines = Lines::new(&dies(), 16);
        lines.transfer(5, copies[0], true, 0);
        lines.transfer(5, copies[1], false, 1000);
        assert_eq!(lines.transfer(5, cpu, false, 2000).0, 2000 + read, "{copies:?}, {cpu}");
        assert_eq!(lines.transfer(5, cpu, true, 3000).0, 3000 + write, "{copies:?}, {cpu}");
    }
}
