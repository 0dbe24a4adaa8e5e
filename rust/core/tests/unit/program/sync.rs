use super::*;
use crate::program::Start;
use crate::program::build::*;

/// Tasks 0 to 2 start together; 3 is a child that may be started.
fn state() -> State {
    let barrier: &[Rec] = &[aux(BARRIER, 0)];
    let program = program(&[
        (Start::First, &[aux(BARRIER, 0), aux(POST, 1), aux(FORK, 3)]),
        (Start::First, barrier),
        (Start::First, &[aux(POST, 1)]),
        (Start::Fork, &[]),
    ]);
    let mut state = State::new(&program);
    let mut wake = WakeUps::default();
    state.start_first(&[0, 1, 2], &mut wake);
    assert_eq!(wake.woken, [(0, Woken::Go), (1, Woken::Go), (2, Woken::Go)]);
    state
}

/// Changes the state; returns who is woken.
fn woken<R>(change: impl FnOnce(&mut WakeUps) -> R) -> (R, Vec<(TaskId, Woken)>) {
    let mut wake = WakeUps::default();
    let result = change(&mut wake);
    (result, wake.woken)
}

#[test]
fn a_barrier_opens_with_the_last_to_come() {
    let mut state = state();
    let (waiting, who) = woken(|wake| state.wait(0, Wait::Barrier(0), wake));
    assert_eq!((waiting, who), (Ok(Waiting::Sleep), vec![]));
    let (waiting, who) = woken(|wake| state.wait(1, Wait::Barrier(0), wake));
    assert_eq!(waiting, Ok(Waiting::Sleep));
    assert_eq!(who, [(0, Woken::Go), (1, Woken::Go)]);
}

#[test]
fn a_barrier_opens_when_the_last_one_missing_ends() {
    let mut state = state();
    state.wait(0, Wait::Barrier(0), &mut WakeUps::default()).unwrap();
    assert!(!state.leave(1));
    let ((), who) = woken(|wake| state.ended(1, wake));
    assert_eq!(who, [(0, Woken::Go)]);
}

#[test]
fn an_await_is_over_when_every_post_has_run() {
    let mut state = state();
    state.wait(1, Wait::Posts(1), &mut WakeUps::default()).unwrap();
    assert_eq!(woken(|wake| state.posted(1, wake)).1, []);
    assert_eq!(woken(|wake| state.posted(1, wake)).1, [(1, Woken::Go)]);
    let late = state.wait(0, Wait::Posts(1), &mut WakeUps::default());
    assert_eq!(late, Ok(Waiting::Met));
}

#[test]
fn who_is_left_waiting_is_stuck_and_nobody_else_starts() {
    let mut state = state();
    state.wait(0, Wait::Id(5), &mut WakeUps::default()).unwrap();
    state.wait(1, Wait::End(0), &mut WakeUps::default()).unwrap();
    state.leave(2);
    let ((), who) = woken(|wake| state.ended(2, wake));
    let expect = [(0, Woken::Stuck), (1, Woken::Stuck), (3, Woken::NeverStarted)];
    assert_eq!(who, expect);
    assert_eq!(state.stuck(), [0, 1]);
    let ends = state.process_ends();
    assert_eq!((ends.len(), ends[0].first, ends[0].live), (1, 0, Some(0)));
}

#[test]
fn waiting_for_oneself_is_stuck_at_once() {
    let mut state = state();
    for task in [1, 2] {
        state.leave(task);
        state.ended(task, &mut WakeUps::default());
    }
    let (_, who) = woken(|wake| state.wait(0, Wait::End(0), wake));
    assert_eq!(who, [(0, Woken::Stuck), (3, Woken::NeverStarted)]);
}

#[test]
fn exec_ends_who_waits_and_marks_who_runs() {
    let mut state = state();
    state.wait(1, Wait::Barrier(0), &mut WakeUps::default()).unwrap();
    let mut wake = WakeUps::default();
    state.kill_others(0, &mut wake).unwrap();
    assert_eq!(wake.killed, [1, 2]);
    assert_eq!(wake.woken, [(1, Woken::Killed)]);
    // A task that is to end waits for nothing any more, and cannot exec itself.
    let waits = state.wait(2, Wait::Barrier(0), &mut WakeUps::default());
    assert_eq!(waits, Err(Stop::Killed));
    assert_eq!(state.kill_others(2, &mut WakeUps::default()), Err(Stop::Killed));
    // The barrier has forgotten the one that was killed.
    let process = state.process_of(0);
    state.wait(0, Wait::Alone(process), &mut WakeUps::default()).unwrap();
    for task in [1, 2] {
        assert!(!state.leave(task));
    }
    assert_eq!(woken(|wake| state.ended(2, wake)).1, []);
    assert_eq!(woken(|wake| state.ended(1, wake)).1, [(0, Woken::Go)]);
    assert!(state.leave(0));
}

#[test]
fn a_child_is_a_process_of_its_own_or_a_thread() {
    let mut state = state();
    assert_eq!(woken(|wake| state.start(0, 3, true, wake)).1, [(3, Woken::Go)]);
    assert_ne!(state.process_of(3), state.process_of(0));
    state.wait(0, Wait::LeftMm(3), &mut WakeUps::default()).unwrap();
    assert_eq!(woken(|wake| state.left_mm(3, wake)).1, [(0, Woken::Go)]);
    assert!(state.leave(3));
    state.set_last(3, ProcText { maps: vec!["line".to_owned()], ..ProcText::default() });
    state.ended(3, &mut WakeUps::default());
    let ends = state.process_ends();
    assert_eq!((ends[1].first, ends[1].last.maps.len(), ends[1].live), (3, 1, None));
}
