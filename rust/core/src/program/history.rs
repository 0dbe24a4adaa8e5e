//! The oracle of what a program may see: invariants 1 and 2 of `docs/protocol.md`.
//!
//! Every operation that maps, unmaps, protects, zeroes or accesses pages is an event with the
//! times at which it began and ended. An access must agree with *some* state that could have
//! been current: one set by an event that began before the access ended, and that no other event
//! replaced for certain (began after it ended, and ended before the access began). That is
//! necessary for linearisability and cheap to check; what it lets pass, it cannot call wrong.

use crate::mm::Access;
use crate::platform::Finding;

/// Letters of "rwx" as bits.
pub const R: u8 = 1;
pub const W: u8 = 2;
pub const X: u8 = 4;
/// Mapped, with whatever protection.
pub const MAPPED: u8 = 8;

/// What an event makes of one aspect of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sets<T> {
    /// Leaves it as it is.
    Nothing,
    To(T),
    /// Something that the oracle does not follow, such as a file's content.
    Unknown,
}

/// An event's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Pages change. A `prot` without [`MAPPED`] is unmapped.
    Change { prot: Sets<u8>, content: Sets<u64> },
    /// An access that succeeded, with the word read or written.
    Accessed { access: Access, value: u64 },
    /// An access that ended in SIGSEGV; `mapped`: because of the protection (SEGV_ACCERR), not
    /// because nothing is mapped (SEGV_MAPERR).
    Denied { access: Access, mapped: bool },
    /// An access whose fault came back for ever, each time reported as handled.
    Livelock { access: Access },
    /// The pages of another address space as they are, from `parent`.
    Forked { parent: u32 },
    /// Pages come from elsewhere in the same address space: the first one from `from`.
    Moved { from: u64 },
}

/// One event: an operation, or one access of a touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub begin: u64,
    pub end: u64,
    /// The address space.
    pub mm: u32,
    pub first_page: u64,
    pub nr_pages: u64,
    pub what: What,
}

/// A state that could be current.
#[derive(Clone, Copy)]
struct State {
    begin: u64,
    end: u64,
    /// Whether it happened for certain: only then does it replace others.
    certain: bool,
    /// A store, not a change of the mapping.
    store: bool,
    prot: Sets<u8>,
    content: Sets<u64>,
}

/// Checks the events of a run. `exec_only`: the arch cannot read execute-only pages.
pub fn check(events: &[Event], exec_only: bool) -> Vec<Finding> {
    let is_access = |event: &&Event| {
        !matches!(event.what, What::Change { .. } | What::Forked { .. } | What::Moved { .. })
    };
    let mut pages: Vec<(u32, u64)> =
        events.iter().filter(is_access).map(|event| (event.mm, event.first_page)).collect();
    pages.sort_unstable();
    pages.dedup();
    let mut findings = Vec::new();
    for (mm, page) in pages {
        let states = states_of(events, &Of { mm, page, until: u64::MAX, moving: None });
        check_page(events, mm, page, &states, exec_only, &mut findings);
    }
    findings
}

/// Which page's states are asked for.
#[derive(Clone, Copy)]
struct Of<'e> {
    mm: u32,
    page: u64,
    /// From events that began before.
    until: u64,
    /// The move that takes the page away, for what it takes along.
    moving: Option<&'e Event>,
}

/// Everything that could be the state of a page.
fn states_of(events: &[Event], of: &Of<'_>) -> Vec<State> {
    let Of { mm, page, until, moving } = *of;
    let mut states = Vec::new();
    let mut born = false;
    // What else that move does, at the same time, is not before it.
    let of_the_move = |event: &Event| {
        moving.is_some_and(|moving| (moving.begin, moving.end) == (event.begin, event.end))
    };
    let before = |event: &&Event| event.mm == mm && event.begin < until && !of_the_move(event);
    for event in events.iter().filter(before) {
        let state = |certain, prot, content| {
            let (begin, end) = (event.begin, event.end);
            State { begin, end, certain, store: false, prot, content }
        };
        match event.what {
            What::Forked { parent } => {
                born = true;
                let inherited = states_of(events, &Of { mm: parent, until: event.end, ..*of });
                states.extend(inherited.into_iter().map(|state| State {
                    certain: state.certain && state.end <= event.begin,
                    end: state.end.min(event.end),
                    ..state
                }));
            }
            What::Change { prot, content } if covers(event, page) => {
                states.push(state(true, prot, content));
            }
            What::Moved { from } if covers(event, page) => {
                // Two moves at once: the oracle does not know which was first.
                if moving.is_some_and(|moving| event.end > moving.begin) {
                    states.push(state(true, Sets::Unknown, Sets::Unknown));
                } else {
                    let page = from.wrapping_add(page - event.first_page);
                    states.extend(taken_along(events, event, page));
                }
            }
            What::Accessed { access: Access::Write, value } if covers(event, page) => {
                // Linux lets a store go to the old page, through a translation that is not
                // flushed yet, while that page is being dropped.
                let dropped = |drop: &Event| !of_the_move(drop) && drops_during(drop, event, page);
                let certain = !events.iter().any(dropped);
                let state = state(certain, Sets::Nothing, Sets::To(value));
                states.push(State { store: true, ..state });
            }
            _ => {}
        }
    }
    if !born {
        let (prot, content) = (Sets::To(0), Sets::To(0));
        states.push(State { begin: 0, end: 0, certain: true, store: false, prot, content });
    }
    states
}

/// The states that the page which was `page` before `moved` may have after it. A store beside the
/// move came before it, for after it there is nothing at the old place; but who looks at the new place
/// while it goes on may come before the store, which finds the page through an old translation.
fn taken_along(events: &[Event], moved: &Event, page: u64) -> Vec<State> {
    let of = Of { mm: moved.mm, page, until: moved.end, moving: Some(moved) };
    let states = states_of(events, &of);
    let after = |prot, content| State {
        begin: moved.begin,
        end: moved.end,
        certain: true,
        store: false,
        prot,
        content,
    };
    let done = |state: &State| state.store || state.end <= moved.begin;
    let contents = possible(&states, |state| state.content, done, moved.end);
    let prots = possible(&states, |state| state.prot, done, moved.end);
    let contents = contents.map(|word| after(Sets::Nothing, word.map_or(Sets::Unknown, Sets::To)));
    let so_far = |state: &State| state.end <= moved.begin;
    let meanwhile = possible(&states, |state| state.content, so_far, moved.end);
    // Who comes after such a store sees it.
    let beside = states.iter().filter(|state| state.store && state.end > moved.begin);
    let beside = beside.map(|state| State {
        begin: state.begin.max(moved.begin),
        end: state.end,
        certain: state.certain,
        ..after(Sets::Nothing, state.content)
    });
    let meanwhile = meanwhile.map(|word| State {
        // Replaced by all of those above, once the move is over.
        end: moved.begin,
        certain: false,
        ..after(Sets::Nothing, word.map_or(Sets::Unknown, Sets::To))
    });
    let prots = prots.map(|prot| after(prot.map_or(Sets::Unknown, Sets::To), Sets::Nothing));
    contents.chain(meanwhile).chain(beside).chain(prots).collect()
}

/// Whether `drop` replaces the page's content while the store `write` goes on.
fn drops_during(drop: &Event, write: &Event, page: u64) -> bool {
    let replaces = match drop.what {
        What::Change { content, .. } => content != Sets::Nothing,
        What::Moved { .. } => true,
        _ => false,
    };
    replaces
        && drop.mm == write.mm
        && covers(drop, page)
        && drop.begin < write.end
        && write.begin < drop.end
}

fn covers(event: &Event, page: u64) -> bool {
    page.wrapping_sub(event.first_page) < event.nr_pages
}

/// The values of one aspect that could be current during `begin..end`; `None` among them means
/// that anything could.
fn candidates<T: Copy>(
    states: &[State],
    aspect: impl Fn(&State) -> Sets<T> + Copy,
    begin: u64,
    end: u64,
) -> impl Iterator<Item = Option<T>> {
    possible(states, aspect, move |state| state.end <= begin, end)
}

/// The values of one aspect that could be current at some moment before `end`; of those states
/// that are `done` it is known that they came before.
fn possible<T: Copy>(
    states: &[State],
    aspect: impl Fn(&State) -> Sets<T> + Copy,
    done: impl Fn(&State) -> bool + Copy,
    end: u64,
) -> impl Iterator<Item = Option<T>> {
    let setting =
        move || states.iter().filter(move |state| !matches!(aspect(state), Sets::Nothing));
    let is_replaced = move |state: &State| {
        let replaces = |other: &State| {
            other.certain && other.begin >= state.end && done(other) && other.end != 0
        };
        setting().any(|other| replaces(other) && !std::ptr::eq(state, other))
    };
    let current =
        move |state: &&State| (state.begin < end || state.end == 0) && !is_replaced(state);
    setting().filter(current).map(move |state| match aspect(state) {
        Sets::To(value) => Some(value),
        Sets::Unknown | Sets::Nothing => None,
    })
}

fn permits(prot: u8, access: Access, exec_only: bool) -> bool {
    match access {
        Access::Write => prot & W != 0,
        Access::Execute => prot & X != 0,
        Access::Read => prot & (if exec_only { R | W } else { R | W | X }) != 0,
    }
}

/// What is wrong with a refusal, if the protection was one of `prots`.
fn check_denied(
    prots: &[Option<u8>],
    page: u64,
    access: Access,
    mapped: bool,
    exec_only: bool,
) -> Option<Finding> {
    let could_be = |why: &dyn Fn(u8) -> bool| prots.iter().any(|prot| prot.is_none_or(why));
    if !could_be(&|prot| !permits(prot, access, exec_only)) {
        let what = format!("{access:?} of page {page:#x} refused, though always allowed");
        return Some(Finding { invariant: "access-denied", what });
    }
    let fits = |prot| !permits(prot, access, exec_only) && (prot & MAPPED != 0) == mapped;
    if could_be(&fits) {
        return None;
    }
    let (said, is) = match mapped {
        true => ("SEGV_ACCERR or SEGV_PKUERR", "not mapped"),
        false => ("SEGV_MAPERR", "mapped"),
    };
    let what = format!("{access:?} of page {page:#x} ends in {said}, though it is {is}");
    Some(Finding { invariant: "signal", what })
}

fn check_page(
    events: &[Event],
    mm: u32,
    page: u64,
    states: &[State],
    exec_only: bool,
    findings: &mut Vec<Finding>,
) {
    let on_page = |event: &&Event| event.mm == mm && event.first_page == page;
    for event in events.iter().filter(on_page) {
        let prots = || candidates(states, |state| state.prot, event.begin, event.end);
        match event.what {
            What::Accessed { access, value } => {
                if !prots().any(|prot| prot.is_none_or(|p| permits(p, access, exec_only))) {
                    findings.push(Finding {
                        invariant: "access-not-allowed",
                        what: format!("{access:?} of page {page:#x} after it was taken away"),
                    });
                }
                let mut contents =
                    candidates(states, |state| state.content, event.begin, event.end);
                let seen = |content: Option<u64>| content.is_none_or(|word| word == value);
                if access == Access::Read && !contents.any(seen) {
                    findings.push(Finding {
                        invariant: "lost-store",
                        what: format!(
                            "page {page:#x} read as {value}, which is not the last value written"
                        ),
                    });
                }
            }
            What::Denied { access, mapped } => {
                findings.extend(check_denied(
                    &prots().collect::<Vec<_>>(),
                    page,
                    access,
                    mapped,
                    exec_only,
                ));
            }
            What::Livelock { access } => findings.push(Finding {
                invariant: "livelock",
                what: format!("{access:?} of page {page:#x} faults again and again"),
            }),
            What::Change { .. } | What::Forked { .. } | What::Moved { .. } => {}
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/program/history.rs"]
mod tests;
