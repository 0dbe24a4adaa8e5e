use super::*;

fn coroutine(
    pool: &Rc<StackPool>,
    body: impl FnOnce(&Switch) + 'static,
) -> (Coroutine, Rc<Switch>) {
    let switch = Switch::new(pool);
    let inside = Rc::clone(&switch);
    let made = Coroutine::new(&switch, move || body(&inside)).expect("a stack");
    (made, switch)
}

/// Counts how often it is dropped.
struct Counted(Rc<Cell<u32>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn control_goes_back_and_forth_until_the_body_returns() {
    let pool = StackPool::new();
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = Rc::clone(&log);
    let (mut made, _) = coroutine(&pool, move |switch| {
        inside.borrow_mut().push("first");
        switch.suspend();
        inside.borrow_mut().push("second");
    });
    assert!(log.borrow().is_empty());
    assert!(matches!(made.resume(), Pause::Suspended));
    assert_eq!(*log.borrow(), ["first"]);
    assert!(matches!(made.resume(), Pause::Returned));
    assert_eq!(*log.borrow(), ["first", "second"]);
    assert!(made.has_ended());
}

#[test]
fn a_panic_inside_is_handed_to_the_owner() {
    let pool = StackPool::new();
    let (mut made, _) = coroutine(&pool, |switch| {
        switch.suspend();
        // No message on standard error: the hook is for panics that nobody expects.
        std::panic::resume_unwind(Box::new("broken"));
    });
    assert!(matches!(made.resume(), Pause::Suspended));
    let Pause::Panicked(payload) = made.resume() else { panic!("no panic came out") };
    assert_eq!(panic_text(&payload), "broken");
    assert!(made.has_ended());
    assert!(!std::thread::panicking());
}

#[test]
fn cancelling_unwinds_the_stack_and_no_switch_happens_meanwhile() {
    struct SuspendsWhenDropped<'s>(&'s Switch);
    impl Drop for SuspendsWhenDropped<'_> {
        fn drop(&mut self) {
            assert!(self.0.is_cut());
            self.0.suspend();
        }
    }
    let pool = StackPool::new();
    let dropped = Rc::new(Cell::new(0));
    let counted = Counted(Rc::clone(&dropped));
    let (mut made, switch) = coroutine(&pool, move |switch| {
        let _counted = counted;
        let _guard = SuspendsWhenDropped(switch);
        switch.suspend();
        unreachable!("cancelled");
    });
    assert!(matches!(made.resume(), Pause::Suspended));
    made.cancel();
    assert_eq!(dropped.get(), 1);
    assert!(made.has_ended() && switch.is_cut() && !switch.is_running());
    made.cancel();
    assert!(!std::thread::panicking());
}

#[test]
fn dropping_cancels_whether_it_began_or_not() {
    let pool = StackPool::new();
    let dropped = Rc::new(Cell::new(0));
    for resumptions in 0..2 {
        let counted = Counted(Rc::clone(&dropped));
        let (mut made, _) = coroutine(&pool, move |switch| {
            let _counted = counted;
            switch.suspend();
        });
        for _ in 0..resumptions {
            made.resume();
        }
        drop(made);
        assert_eq!(dropped.get(), resumptions + 1);
    }
}

#[test]
fn stacks_are_used_again() {
    let pool = StackPool::new();
    for round in 0..100 {
        let mut made: Vec<_> = (0..8)
            .map(|nth| {
                coroutine(&pool, move |switch| {
                    switch.suspend();
                    if nth == round % 8 {
                        std::panic::resume_unwind(Box::new("one of them"));
                    }
                })
            })
            .collect();
        made.iter_mut().for_each(|(one, _)| assert!(matches!(one.resume(), Pause::Suspended)));
        // Some return, one panics, the rest are cancelled when dropped.
        made.iter_mut()
            .take(5)
            .for_each(|(one, _)| assert!(!matches!(one.resume(), Pause::Suspended)));
    }
    assert_eq!(pool.nr_made(), 8);
}

#[test]
fn four_thousand_coroutines_take_turns() {
    let pool = StackPool::new();
    let sum = Rc::new(Cell::new(0u64));
    let mut made: Vec<_> = (0..4000u64)
        .map(|nth| {
            let sum = Rc::clone(&sum);
            coroutine(&pool, move |switch| {
                for _ in 0..3 {
                    sum.set(sum.get() + nth);
                    switch.suspend();
                }
            })
        })
        .collect();
    for _ in 0..3 {
        made.iter_mut().for_each(|(one, _)| assert!(matches!(one.resume(), Pause::Suspended)));
    }
    assert_eq!(sum.get(), 3 * (0..4000).sum::<u64>());
    assert_eq!(pool.nr_made(), 4000);
}

#[test]
fn a_switch_used_outside_of_its_coroutine_panics() {
    let pool = StackPool::new();
    let (mut made, switch) = coroutine(&pool, |switch| switch.suspend());
    assert!(matches!(made.resume(), Pause::Suspended));
    assert!(catch_unwind(AssertUnwindSafe(|| switch.suspend())).is_err());
    assert!(matches!(made.resume(), Pause::Returned));
}

#[test]
fn a_switch_serves_one_coroutine_at_a_time() {
    let pool = StackPool::new();
    let (mut made, switch) = coroutine(&pool, |switch| switch.suspend());
    let again = || catch_unwind(AssertUnwindSafe(|| Coroutine::new(&switch, || {})));
    assert!(again().is_err());
    made.cancel();
    assert!(again().is_ok());
}

/// Coroutines 0 to n - 1 that each run `body` with all switches.
fn ring(
    pool: &Rc<StackPool>,
    nr_coroutines: usize,
    body: impl Fn(usize, &[Rc<Switch>]) + Clone + 'static,
) -> Vec<Coroutine> {
    let switches: Vec<_> = (0..nr_coroutines).map(|_| Switch::new(pool)).collect();
    let made = (0..nr_coroutines).map(|nth| {
        let (body, switches) = (body.clone(), switches.clone());
        Coroutine::new(&switches[nth].clone(), move || body(nth, &switches)).expect("a stack")
    });
    made.collect()
}

#[test]
fn control_is_handed_on_without_the_owner() {
    let pool = StackPool::new();
    let log = Rc::new(RefCell::new(Vec::new()));
    let inside = Rc::clone(&log);
    let mut made = ring(&pool, 3, move |nth, switches| {
        for round in 0..2 {
            inside.borrow_mut().push((round, nth));
            switches[nth].hand_over(&switches[(nth + 1) % 3]);
        }
        if nth == 0 {
            switches[0].suspend();
        }
    });
    assert!(matches!(made[0].resume(), Pause::Suspended));
    assert_eq!(*log.borrow(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    // Each end goes back to the owner, whoever was resumed.
    assert!(matches!(made[2].resume(), Pause::Returned));
    assert!(matches!(made[1].resume(), Pause::Returned));
    assert!(matches!(made[0].resume(), Pause::Returned));
    assert!(made.iter().all(Coroutine::has_ended));
}

#[test]
fn the_end_of_who_was_handed_to_comes_out() {
    let pool = StackPool::new();
    let mut made = ring(&pool, 2, |nth, switches| match nth {
        0 => switches[0].hand_over(&switches[1]),
        _ => std::panic::resume_unwind(Box::new("the other")),
    });
    let Pause::Panicked(payload) = made[0].resume() else { panic!("no panic came out") };
    assert_eq!(panic_text(&payload), "the other");
    assert!(made[1].has_ended() && !made[0].has_ended());
    assert!(matches!(made[0].resume(), Pause::Returned));
    drop(made);
    assert_eq!(pool.free.borrow().len(), 2);
}

#[test]
fn nobody_hands_over_to_who_runs_or_has_ended_or_to_another_pool() {
    let pool = StackPool::new();
    let stranger = Switch::new(&StackPool::new());
    let _other = Coroutine::new(&stranger, || {}).expect("a stack");
    let mut made = ring(&pool, 2, move |nth, switches| {
        if nth == 0 {
            for to in [&switches[0], &switches[1], &stranger] {
                let refused = catch_unwind(AssertUnwindSafe(|| switches[0].hand_over(to)));
                assert!(refused.is_err());
            }
        }
    });
    assert!(matches!(made[1].resume(), Pause::Returned));
    assert!(matches!(made[0].resume(), Pause::Returned));
}

#[test]
fn a_coroutine_that_was_left_in_a_hand_over_can_be_cancelled() {
    let pool = StackPool::new();
    let dropped = Rc::new(Cell::new(0));
    let inside = Rc::clone(&dropped);
    let mut made = ring(&pool, 2, move |nth, switches| {
        let _counted = Counted(Rc::clone(&inside));
        if nth == 0 {
            switches[0].hand_over(&switches[1]);
            unreachable!("cancelled");
        }
    });
    assert!(matches!(made[0].resume(), Pause::Returned));
    assert_eq!(dropped.get(), 1);
    made[0].cancel();
    assert_eq!(dropped.get(), 2);
    assert!(!std::thread::panicking());
}

#[test]
fn an_ended_coroutine_leaves_its_switch_to_the_next() {
    let pool = StackPool::new();
    let switch = Switch::new(&pool);
    let mut first = Coroutine::new(&switch, || {}).expect("a stack");
    assert!(matches!(first.resume(), Pause::Returned));
    let inside = Rc::clone(&switch);
    let mut second = Coroutine::new(&switch, move || inside.suspend()).expect("a stack");
    drop(first);
    assert!(matches!(second.resume(), Pause::Suspended));
    assert!(matches!(second.resume(), Pause::Returned));
}
