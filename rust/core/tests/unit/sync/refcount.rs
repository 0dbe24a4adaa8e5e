use super::*;
use crate::platform::native::{Cpu, Machine, catch};
use crate::platform::{Line, Word};

#[test]
fn only_the_last_reference_says_so() {
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    let word: Word<Cpu> = Word::new(Line::FREE, 0);
    let count = Field::permanent(&word);
    atomic_inc(&cpu, count);
    atomic_inc(&cpu, count);
    assert!(!atomic_dec_and_test(&cpu, count));
    assert!(atomic_dec_and_test(&cpu, count));
    assert_eq!(word.peek(), 0);
}

#[test]
fn a_reference_that_does_not_exist_is_a_finding() {
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    let word: Word<Cpu> = Word::new(Line::FREE, 0);
    assert_eq!(catch(&machine, || atomic_dec_and_test(&cpu, Field::permanent(&word))), None);
    assert_eq!(machine.finding().unwrap().invariant, "refcount");
}
