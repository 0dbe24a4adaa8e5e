use super::*;

#[test]
fn elements_are_set_through_a_shared_reference() {
    let vec = CellVec::new();
    assert_eq!((vec.len(), vec.get(0)), (0, None));
    vec.grow(3, 7u64);
    let (one, other) = (&vec, &vec);
    one.set(1, 8);
    assert_eq!([0, 1, 2, 3].map(|index| other.get(index)), [Some(7), Some(8), Some(7), None]);
}

#[test]
fn a_stretch_is_filled() {
    let vec = CellVec::new();
    vec.grow(5, 0u8);
    vec.fill(1, 3, 9);
    assert_eq!([0, 1, 2, 3, 4].map(|index| vec.get(index)), [0, 9, 9, 9, 0].map(Some));
}

#[test]
fn it_never_becomes_shorter() {
    let vec = CellVec::new();
    vec.grow(5, 1u8);
    vec.grow(2, 2);
    assert_eq!((vec.len(), vec.get(4)), (5, Some(1)));
}
