use super::*;

#[test]
fn what_is_freed_goes_back_to_the_cpu_that_had_it_first() {
    let mut free = FreeSlots::default();
    assert_eq!((free.take(), free.take_of(3)), (None, None));
    free.settle(7, 3);
    free.settle(9, 3);
    free.settle(8, 1);
    [7, 8, 9, 5].into_iter().for_each(|slot| free.put(slot));
    assert_eq!(free.take(), Some(5), "that nobody has settled");
    assert_eq!(free.take(), None);
    assert_eq!((free.take_of(3), free.take_of(3), free.take_of(3)), (Some(9), Some(7), None));
    assert_eq!((free.take_of(0), free.take_of(1)), (None, Some(8)));
    free.put(7);
    assert_eq!(free.take_of(3), Some(7), "for ever");
    [7, 8, 5].into_iter().for_each(|slot| free.put(slot));
    free.clear();
    assert_eq!((free.take(), free.take_of(1), free.take_of(3)), (None, None, None));
    free.put(7);
    assert_eq!((free.take_of(3), free.take()), (None, Some(7)), "until all is forgotten");
}
