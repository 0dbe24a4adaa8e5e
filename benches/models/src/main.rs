//! The explorer against shuttle and loom, on one small litmus: see `benches/README.md`.
//!
//! What each counts is one run of the litmus, from the beginning to its end. Between which accesses
//! another can go on is the same for all: before each access to a word, and not at a barrier. Shuttle
//! has further such points, where a thread is spawned, ends or is joined, so its complete search has
//! more schedules, and only the time of one is compared.

#[path = "../../native/figures.rs"]
mod figures;
mod litmus;
mod on_loom;
mod on_shuttle;
mod on_spfemu;

use std::panic::{set_hook, take_hook};
use std::time::Instant;

use figures::{against_bar, figure, median};
use litmus::Writer::{Right, WithoutBarriers, WithoutBegin};
use spfemu_core::explore::MemoryModel::{Armv8, Sc};

const ROUNDS: usize = 15;
/// Schedules of a random search.
const SCHEDULES: usize = 10_000;
/// One more than there are changes of priorities in a schedule.
const PCT_DEPTH: usize = 3;
/// A complete search is short: so many are one measurement.
const SEARCHES: u32 = 20;

const BAR: f64 = 3.0;

/// What a search took.
struct Search {
    schedules: u64,
    ns: f64,
}

impl Search {
    fn ns_each(&self) -> f64 {
        self.ns / self.schedules as f64
    }
}

fn main() {
    println!("one litmus, three explorers (shuttle tells of what is broken on purpose)");
    agree();
    for (readers, nr_readers) in [("one reader", 1), ("two readers", 2)] {
        random(readers, nr_readers);
    }
    all();
}

/// Each finds what is broken where it claims to, and nothing else.
fn agree() {
    // Six accesses of the writer and four of the reader, and its end under shuttle: 10! / (6! 4!) and
    // 11! / (6! 5!). Shuttle first, for it sets a panic hook that `finds` has to take away.
    assert_eq!(on_shuttle::all(Right, 1), Some(462));
    assert_eq!(on_spfemu::all(Right, 1, false, Sc), Some(210));
    assert!(on_loom::all(Right, 1).is_some());
    assert!(finds(|| on_shuttle::all(WithoutBegin, 1)));
    assert!(finds(|| on_spfemu::all(WithoutBegin, 1, false, Sc)));
    assert!(finds(|| on_loom::all(WithoutBegin, 1)));
    for nr_readers in [1, 2] {
        let shuttle = |writer| on_shuttle::pct(writer, nr_readers, SCHEDULES, PCT_DEPTH);
        let spfemu = |writer| on_spfemu::pct(writer, nr_readers, SCHEDULES, PCT_DEPTH);
        assert!(finds(|| shuttle(WithoutBegin)) && finds(|| spfemu(WithoutBegin)));
        assert_eq!([shuttle(Right), spfemu(Right)], [Some(SCHEDULES as u64); 2]);
    }
    // Memory is in order for shuttle, and for spfemu unless told otherwise.
    assert!(!finds(|| on_shuttle::all(WithoutBarriers, 1)));
    assert!(!finds(|| on_spfemu::all(WithoutBarriers, 1, true, Sc)));
    assert!(finds(|| on_spfemu::all(WithoutBarriers, 1, true, Armv8)));
    assert!(finds(|| on_loom::all(WithoutBarriers, 1)));
}

/// Whether a search comes upon a panic. Only shuttle prints a line.
fn finds(search: impl FnOnce() -> Option<u64>) -> bool {
    let usual = take_hook();
    set_hook(Box::new(|_| {}));
    let schedules = search();
    set_hook(usual);
    schedules.is_none()
}

/// As many random schedules of each. Shuttle lets every task that can go on be as likely at each
/// point; spfemu draws for each schedule how likely a switch is, from 1/2 to 1/128, so it switches
/// less. The priorities of PCT are the same for both.
fn random(readers: &str, nr_readers: usize) {
    against_shuttle(
        &format!("random, {readers}"),
        &|| timed(1, || on_spfemu::random(Right, nr_readers, SCHEDULES)),
        &|| timed(1, || on_shuttle::random(Right, nr_readers, SCHEDULES)),
    );
    against_shuttle(
        &format!("PCT, {readers}"),
        &|| timed(1, || on_spfemu::pct(Right, nr_readers, SCHEDULES, PCT_DEPTH)),
        &|| timed(1, || on_shuttle::pct(Right, nr_readers, SCHEDULES, PCT_DEPTH)),
    );
}

/// All schedules, and those that a reduction leaves.
///
/// Loom has reduction and weak memory in one: of C11, where spfemu has that of machines. So how many
/// runs each takes says nothing of how fast it is, and how long the search takes says what one waits.
fn all() {
    against_shuttle(
        "all, one reader",
        &|| timed(SEARCHES, || on_spfemu::all(Right, 1, false, Sc)),
        &|| timed(SEARCHES, || on_shuttle::all(Right, 1)),
    );
    let names = ["spfemu, in order", "spfemu, armv8", "loom"];
    let searches = interleaved([
        &|| timed(SEARCHES, || on_spfemu::all(Right, 1, true, Sc)),
        &|| timed(SEARCHES, || on_spfemu::all(Right, 1, true, Armv8)),
        &|| timed(1, || on_loom::all(Right, 1)),
    ]);
    for (nth, name) in names.iter().enumerate() {
        let schedules = searches[0][nth].schedules;
        let us = median(searches.iter().map(|round| round[nth].ns / 1e3).collect());
        figure(&format!("{name}: {schedules} schedules, reduced, one reader"), us, "us");
    }
}

/// Runs a search so many times: what one of them took.
fn timed(times: u32, search: impl Fn() -> Option<u64>) -> Search {
    let start = Instant::now();
    let mut schedules = 0;
    for _ in 0..times {
        schedules = search().expect("nothing is broken");
    }
    Search { schedules, ns: start.elapsed().as_nanos() as f64 / f64::from(times) }
}

/// Lets each take its turn in every round.
fn interleaved<const N: usize>(contestants: [&dyn Fn() -> Search; N]) -> Vec<[Search; N]> {
    (0..ROUNDS).map(|_| contestants.map(|contestant| contestant())).collect()
}

fn against_shuttle(what: &str, ours: &dyn Fn() -> Search, theirs: &dyn Fn() -> Search) {
    let rounds = interleaved([ours, theirs]);
    let median_of = |figure: fn(&[Search; 2]) -> f64| median(rounds.iter().map(figure).collect());
    let ratio = median_of(|[ours, theirs]| theirs.ns_each() / ours.ns_each());
    let ours = median_of(|[ours, _]| ours.ns_each());
    let theirs = median_of(|[_, theirs]| theirs.ns_each());
    let measured = format!("{ratio:.1}x ({ours:.0} ns a schedule, shuttle {theirs:.0} ns)");
    let what = format!("explore / shuttle, {what}");
    against_bar(&what, measured, &format!(">= {BAR}x"), ratio >= BAR);
}
