use std::rc::Rc;

use super::*;
use crate::platform::coroutine::{Coroutine, Pause, StackPool, Switch};

#[test]
fn others_can_test_what_a_suspended_coroutine_waits_for() {
    let pool = StackPool::new();
    let condition = Rc::new(Condition::default());
    let inside = Rc::clone(&condition);
    let switch = Switch::new(&pool);
    let suspends = Rc::clone(&switch);
    let body = move || {
        let wanted = 7;
        inside.during(&|value| value == wanted, || suspends.suspend());
    };
    let mut made = Coroutine::new(&switch, body).expect("a stack");
    assert!(!condition.holds(7));
    assert!(matches!(made.resume(), Pause::Suspended));
    assert!(condition.holds(7) && !condition.holds(8));
    made.cancel();
    assert!(!condition.holds(7));
}
