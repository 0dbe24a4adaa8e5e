use super::*;

#[test]
fn without_readers_a_grace_period_ends_at_once() {
    let periods = GracePeriods::default();
    let number = periods.begin();
    assert!(periods.has_ended(number));
}

#[test]
fn it_waits_for_the_sections_open_when_it_began_and_for_no_other() {
    // a:  [------)
    // b:      [------)
    // 1:    ^ waits for a
    // 2:        ^ waits for a and b
    let periods = GracePeriods::default();
    let (a, b) = (Reader::default(), Reader::default());
    periods.enter(&a);
    let first = periods.begin();
    periods.enter(&b);
    let second = periods.begin();
    assert!(!periods.has_ended(first) && !periods.has_ended(second));
    assert!(periods.leave(&a));
    assert!(periods.has_ended(first) && !periods.has_ended(second));
    assert!(periods.leave(&b));
    assert!(periods.has_ended(second));
}

#[test]
fn only_the_outermost_of_nested_sections_counts() {
    let periods = GracePeriods::default();
    let a = Reader::default();
    periods.enter(&a);
    periods.enter(&a);
    let number = periods.begin();
    assert!(!periods.leave(&a));
    assert!(a.is_open() && !periods.has_ended(number));
    assert!(periods.leave(&a));
    assert!(!a.is_open() && periods.has_ended(number));
}

#[test]
fn an_old_section_holds_up_later_grace_periods_too() {
    let periods = GracePeriods::default();
    let (old, new) = (Reader::default(), Reader::default());
    periods.enter(&old);
    let first = periods.begin();
    periods.enter(&new);
    periods.leave(&new);
    let second = periods.begin();
    assert!(!periods.has_ended(first) && !periods.has_ended(second));
    periods.leave(&old);
    assert!(periods.has_ended(first) && periods.has_ended(second));
}
