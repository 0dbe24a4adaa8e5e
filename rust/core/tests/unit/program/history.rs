use super::*;

const PAGE: u64 = 7;

fn event(begin: u64, end: u64, what: What) -> Event {
    Event { begin, end, mm: 0, first_page: PAGE, nr_pages: 1, what }
}
fn map(begin: u64, end: u64) -> Event {
    event(begin, end, What::Change { prot: Sets::To(MAPPED | R | W), content: Sets::To(0) })
}
fn unmap(begin: u64, end: u64) -> Event {
    event(begin, end, What::Change { prot: Sets::To(0), content: Sets::To(0) })
}
fn write(begin: u64, end: u64, value: u64) -> Event {
    event(begin, end, What::Accessed { access: Access::Write, value })
}
fn read(begin: u64, end: u64, value: u64) -> Event {
    event(begin, end, What::Accessed { access: Access::Read, value })
}
fn names(events: &[Event]) -> Vec<&'static str> {
    check(events, false).into_iter().map(|finding| finding.invariant).collect()
}

#[test]
fn the_last_value_written_is_read() {
    assert_eq!(names(&[map(1, 2), write(3, 4, 9), read(5, 6, 9)]), [""; 0]);
}

#[test]
fn an_older_value_is_a_lost_store() {
    let events = [map(1, 2), write(3, 4, 8), write(5, 6, 9), read(7, 8, 8)];
    assert_eq!(names(&events), ["lost-store"]);
}

#[test]
fn either_of_two_concurrent_writes_may_win() {
    for value in [8, 9] {
        let events = [map(1, 2), write(3, 6, 8), write(4, 5, 9), read(7, 8, value)];
        assert_eq!(names(&events), [""; 0]);
    }
}

#[test]
fn an_access_after_the_unmap_ended_is_not_allowed() {
    assert_eq!(names(&[map(1, 2), unmap(3, 4), write(5, 6, 1)]), ["access-not-allowed"]);
}

#[test]
fn an_access_during_the_unmap_may_do_either() {
    let denied = event(4, 5, What::Denied { access: Access::Write, mapped: false });
    assert_eq!(names(&[map(1, 2), unmap(3, 6), write(4, 5, 1)]), [""; 0]);
    assert_eq!(names(&[map(1, 2), unmap(3, 6), denied]), [""; 0]);
}

#[test]
fn a_refusal_of_what_was_always_allowed_is_found() {
    let denied = event(4, 5, What::Denied { access: Access::Write, mapped: true });
    assert_eq!(names(&[map(1, 2), denied]), ["access-denied"]);
}

#[test]
fn a_refusal_says_why() {
    let refused = |mapped| event(5, 6, What::Denied { access: Access::Write, mapped });
    let protect = event(3, 4, What::Change { prot: Sets::To(MAPPED | R), content: Sets::Nothing });
    assert_eq!(names(&[map(1, 2), protect, refused(true)]), [""; 0]);
    assert_eq!(names(&[map(1, 2), protect, refused(false)]), ["signal"]);
    assert_eq!(names(&[map(1, 2), unmap(3, 4), refused(false)]), [""; 0]);
    assert_eq!(names(&[map(1, 2), unmap(3, 4), refused(true)]), ["signal"]);
    // While it is unmapped, either.
    for mapped in [false, true] {
        assert_eq!(names(&[map(1, 2), protect, unmap(4, 7), refused(mapped)]), [""; 0]);
    }
}

#[test]
fn a_fault_without_an_end_is_a_livelock() {
    let access = Access::Execute;
    assert_eq!(names(&[map(1, 2), event(3, 4, What::Livelock { access })]), ["livelock"]);
}

#[test]
fn a_child_sees_the_value_at_the_fork_and_not_a_later_one() {
    let fork = Event { mm: 1, ..event(5, 6, What::Forked { parent: 0 }) };
    let child_reads = |value| Event { mm: 1, ..read(9, 10, value) };
    let before = [map(1, 2), write(3, 4, 8), fork, write(7, 8, 9), child_reads(8)];
    assert_eq!(names(&before), [""; 0]);
    let after = [map(1, 2), write(3, 4, 8), fork, write(7, 8, 9), child_reads(9)];
    assert_eq!(names(&after), ["lost-store"]);
}

#[test]
fn a_write_during_the_fork_may_or_may_not_be_inherited() {
    for value in [8, 9] {
        let fork = Event { mm: 1, ..event(5, 8, What::Forked { parent: 0 }) };
        let child_reads = Event { mm: 1, ..read(9, 10, value) };
        let events = [map(1, 2), write(3, 4, 8), fork, write(6, 7, 9), child_reads];
        assert_eq!(names(&events), [""; 0]);
    }
}

#[test]
fn a_store_during_a_drop_may_be_lost_with_the_page() {
    // The drop lets a fresh page in; the later store still goes to the old one.
    let drop = event(3, 10, What::Change { prot: Sets::Nothing, content: Sets::To(0) });
    let events = [map(1, 2), drop, write(4, 5, 10), write(6, 7, 20), read(11, 12, 10)];
    assert_eq!(names(&events), [""; 0]);
}

/// A move of the page to page 0x70 and its end at the old place, as one operation.
fn moved(begin: u64, end: u64) -> [Event; 2] {
    let gone = What::Change { prot: Sets::To(0), content: Sets::To(0) };
    let there = Event { first_page: NEW, ..event(begin, end, What::Moved { from: PAGE }) };
    [there, event(begin, end, gone)]
}
const NEW: u64 = 0x70;

fn reads_there(begin: u64, end: u64, value: u64) -> Event {
    Event { first_page: NEW, ..read(begin, end, value) }
}

#[test]
fn a_page_that_moves_keeps_its_word_and_its_protection() {
    let [there, gone] = moved(5, 6);
    let before = [map(1, 2), write(3, 4, 9), there, gone];
    assert_eq!(names(&[&before[..], &[reads_there(7, 8, 9)]].concat()), [""; 0]);
    assert_eq!(names(&[&before[..], &[reads_there(7, 8, 0)]].concat()), ["lost-store"]);
    assert_eq!(names(&[&before[..], &[read(7, 8, 0)]].concat()), ["access-not-allowed"]);
    let mut wrote_there = write(7, 8, 4);
    wrote_there.first_page = NEW;
    let after = [&before[..], &[wrote_there, reads_there(9, 10, 9)]].concat();
    assert_eq!(names(&after), ["lost-store"]);
}

#[test]
fn a_store_through_an_old_translation_comes_after_who_looks_at_the_new_place_meanwhile() {
    // Found by a campaign: the PTE is at the new place, and the old one is not flushed yet.
    let [there, gone] = moved(5, 12);
    let meanwhile = [map(1, 2), write(3, 4, 1), there, gone, reads_there(6, 7, 1), write(8, 9, 6)];
    assert_eq!(names(&meanwhile), [""; 0]);
    let afterwards = |value| [&meanwhile[..], &[reads_there(13, 14, value)]].concat();
    assert_eq!(names(&afterwards(6)), [""; 0]);
    assert_eq!(names(&afterwards(1)), ["lost-store"]);
    let [there, gone] = moved(5, 12);
    let after_the_store = |values: &[u64]| {
        let reads = values.iter().zip([8, 10]).map(|(&value, at)| reads_there(at, at + 1, value));
        let before = [map(1, 2), write(3, 4, 1), there, gone, write(6, 7, 6)];
        before.into_iter().chain(reads).collect::<Vec<_>>()
    };
    assert_eq!(names(&after_the_store(&[6, 6])), [""; 0]);
    assert_eq!(names(&after_the_store(&[1])), ["lost-store"]);
    assert_eq!(names(&after_the_store(&[6, 1])), ["lost-store"]);
}

#[test]
fn what_was_at_the_new_place_before_is_gone() {
    let [there, gone] = moved(7, 8);
    let other = |event: Event| Event { first_page: NEW, ..event };
    let before = [map(1, 2), write(3, 4, 9), other(map(3, 4)), other(write(5, 6, 5)), there, gone];
    assert_eq!(names(&[&before[..], &[reads_there(9, 10, 5)]].concat()), ["lost-store"]);
    assert_eq!(names(&[&before[..], &[reads_there(9, 10, 9)]].concat()), [""; 0]);
}

#[test]
fn a_store_beside_the_move_moves_along_or_is_refused() {
    // It began before the move ended and was done after it: at the old place, so before it moved.
    for store in [write(5, 9, 8), write(7, 9, 8), write(5, 7, 8)] {
        let [there, gone] = moved(6, 8);
        let before = [map(1, 2), write(3, 4, 9), store, there, gone];
        assert_eq!(names(&[&before[..], &[reads_there(10, 11, 8)]].concat()), [""; 0]);
        assert_eq!(names(&[&before[..], &[reads_there(10, 11, 9)]].concat()), ["lost-store"]);
    }
    // With something new at the old place it may have been after the move as well.
    let [there, gone] = moved(6, 8);
    let again = [map(1, 2), write(3, 4, 9), write(5, 12, 8), there, gone, map(9, 10)];
    for value in [8, 9] {
        assert_eq!(names(&[&again[..], &[reads_there(13, 14, value)]].concat()), [""; 0]);
    }
}

#[test]
fn of_two_stores_beside_the_move_either_may_be_the_last() {
    let [there, gone] = moved(6, 8);
    let before = [map(1, 2), write(5, 9, 1), write(7, 9, 2), there, gone];
    for value in [1, 2] {
        assert_eq!(names(&[&before[..], &[reads_there(10, 11, value)]].concat()), [""; 0]);
    }
    assert_eq!(names(&[&before[..], &[reads_there(10, 11, 0)]].concat()), ["lost-store"]);
}

#[test]
fn of_two_moves_at_once_nobody_knows_the_first() {
    let [there, gone] = moved(5, 9);
    let back = What::Moved { from: NEW };
    let before = [map(1, 2), write(3, 4, 9), there, gone, event(6, 8, back)];
    for value in [0, 9, 77] {
        assert_eq!(names(&[&before[..], &[reads_there(10, 11, value)]].concat()), [""; 0]);
    }
}
