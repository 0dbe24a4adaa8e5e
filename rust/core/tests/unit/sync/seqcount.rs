use super::*;
use crate::platform::{Line, Word};
use crate::sync::stage::{At, Stage};

fn leaked<P: Platform>() -> Field<'static, P, u64> {
    Field::permanent(Box::leak(Box::new(Word::new(Line::FREE, 0))))
}

#[test]
fn a_write_section_is_odd_and_makes_readers_try_again() {
    let (stage, seq) = (Stage::new(2), leaked());
    let at = stage.go(0, move |cpu| {
        let before = raw_read_seqcount(cpu, seq);
        assert_eq!(before, 0);
        assert!(!read_seqcount_retry(cpu, seq, before));
        raw_write_seqcount_begin(cpu, seq);
        assert_eq!(raw_read_seqcount(cpu, seq), 1);
        assert!(read_seqcount_retry(cpu, seq, before));
        raw_write_seqcount_end(cpu, seq);
        assert_eq!(seq.peek(), 2);
        assert!(read_seqcount_retry(cpu, seq, before));
    });
    assert_eq!(at, At::End);
}

#[test]
fn a_reader_never_waits() {
    let (stage, seq) = (Stage::new(2), leaked());
    stage.go(0, move |cpu| raw_write_seqcount_begin(cpu, seq));
    assert_eq!(stage.go(1, move |cpu| assert_eq!(raw_read_seqcount(cpu, seq), 1)), At::End);
}

#[test]
fn two_writers_at_once_can_lose_an_increment() {
    // The bug B1 rests on this: the increments are a load and a store.
    // 0: load 0 |               | store 1
    // 1:        | load 0, store 1
    let (stage, seq) = (Stage::new(2), leaked());
    assert_eq!(stage.go_until(0, 2, move |cpu| raw_write_seqcount_begin(cpu, seq)), At::Pause);
    stage.go(1, move |cpu| raw_write_seqcount_begin(cpu, seq));
    assert_eq!(stage.resume(0), At::End);
    assert_eq!(seq.peek(), 1);
    stage.go(0, move |cpu| raw_write_seqcount_end(cpu, seq));
    // Even, although 1 still writes.
    assert_eq!(seq.peek(), 2);
}
