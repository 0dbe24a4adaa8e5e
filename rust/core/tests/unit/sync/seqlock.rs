use super::*;
use crate::platform::native::{Cpu, Machine};
use crate::platform::{Line, Word};
use crate::sync::stage::{At, Stage};

fn leaked<P: Platform>() -> Field<'static, P, u64> {
    Field::permanent(Box::leak(Box::new(Word::new(Line::FREE, 0))))
}

#[test]
fn a_reader_waits_while_a_writer_is_inside() {
    let (stage, lock, seq) = (Stage::new(2), leaked(), leaked());
    stage.go(0, move |cpu| write_seqlock(cpu, lock, seq));
    let read = move |cpu: &_| {
        let start = read_seqbegin(cpu, seq);
        assert_eq!(start, 2);
        assert!(!read_seqretry(cpu, seq, start));
    };
    assert_eq!(stage.go(1, read), At::Spin);
    stage.go(0, move |cpu| write_sequnlock(cpu, lock, seq));
    assert_eq!(stage.resume(1), At::End);
    assert_eq!(lock.peek(), 0);
}

#[test]
fn writers_keep_each_other_out() {
    let (stage, lock, seq) = (Stage::new(2), leaked(), leaked());
    stage.go(0, move |cpu| write_seqlock(cpu, lock, seq));
    assert_eq!(stage.go(1, move |cpu| write_seqlock(cpu, lock, seq)), At::Spin);
    assert_eq!(seq.peek(), 1);
    stage.go(0, move |cpu| write_sequnlock(cpu, lock, seq));
    assert_eq!(stage.resume(1), At::End);
    assert_eq!(seq.peek(), 3);
}

#[test]
fn what_a_reader_keeps_was_never_torn() {
    // Two writers keep `left` and `right` equal; two readers must never see them differ.
    const ROUNDS: u64 = 5000;
    let machine = Machine::new(4);
    let [lock, seq, left, right] = [(); 4].map(|()| leaked::<Cpu>());
    std::thread::scope(|scope| {
        for id in 0..4 {
            let machine = &machine;
            scope.spawn(move || {
                let cpu = machine.cpu(id, id);
                for _ in 0..ROUNDS {
                    if id < 2 {
                        write_seqlock(&cpu, lock, seq);
                        left.write(&cpu, left.read(&cpu) + 1);
                        right.write(&cpu, right.read(&cpu) + 1);
                        write_sequnlock(&cpu, lock, seq);
                        continue;
                    }
                    loop {
                        let start = read_seqbegin(&cpu, seq);
                        let pair = (left.read(&cpu), right.read(&cpu));
                        if !read_seqretry(&cpu, seq, start) {
                            assert_eq!(pair.0, pair.1);
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!((left.peek(), right.peek(), seq.peek()), (2 * ROUNDS, 2 * ROUNDS, 4 * ROUNDS));
}
