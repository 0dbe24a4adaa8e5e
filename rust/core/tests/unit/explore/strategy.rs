use super::*;

fn point(nth: u64, runnable: TaskSet, current: TaskId) -> Point {
    let can_go_on = runnable & (1 << current) != 0;
    Point { nth, runnable, current, can_go_on, is_free: false }
}

/// The choices of a schedule of three points, at each of which tasks 0 and 1 can go on.
fn three_choices(strategy: &mut dyn Strategy) -> Vec<TaskId> {
    let mut current = 0;
    (0..3)
        .map(|nth| {
            current = strategy.choose(&point(nth, 0b11, current));
            current
        })
        .collect()
}

/// The choices of every schedule.
fn all_of_three_choices(dfs: &mut Dfs) -> Vec<Vec<TaskId>> {
    let lessons = Lessons::default();
    let mut schedules = Vec::new();
    while dfs.next_schedule(schedules.len() as u64, &lessons) {
        schedules.push(three_choices(dfs));
    }
    schedules
}

#[test]
fn depth_first_search_takes_every_choice_once_the_last_point_first() {
    let mut dfs = Dfs::new(3);
    let mut schedules = all_of_three_choices(&mut dfs);
    assert!(dfs.is_complete());
    assert_eq!(schedules.len(), 8);
    assert_eq!(schedules[..3], [[0, 0, 0], [0, 0, 1], [0, 1, 1]]);
    schedules.sort();
    schedules.dedup();
    assert_eq!(schedules.len(), 8);
}

#[test]
fn depth_first_search_keeps_to_its_preemptions() {
    // No switch: 000. One: 001, 011, 111.
    let schedules = all_of_three_choices(&mut Dfs::new(1));
    assert_eq!(schedules, [[0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1]]);
}

#[test]
fn random_choices_depend_on_the_seed_and_on_nothing_else() {
    let schedules = |strategy: &mut dyn Strategy| -> Vec<_> {
        let lessons = Lessons { longest: 3, ..Lessons::default() };
        (0..50)
            .map(|nth| {
                strategy.next_schedule(nth, &lessons);
                three_choices(strategy)
            })
            .collect()
    };
    assert_eq!(schedules(&mut Random::new(1)), schedules(&mut Random::new(1)));
    assert_ne!(schedules(&mut Random::new(1)), schedules(&mut Random::new(2)));
    assert_eq!(schedules(&mut Pct::new(1, 3)), schedules(&mut Pct::new(1, 3)));
    assert_ne!(schedules(&mut Pct::new(1, 3)), schedules(&mut Pct::new(2, 3)));
}

#[test]
fn random_choices_come_to_every_schedule() {
    let mut random = Random::new(0);
    let mut seen: Vec<_> = (0..2000)
        .map(|nth| {
            random.next_schedule(nth, &Lessons::default());
            three_choices(&mut random)
        })
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_replay_that_does_not_fit_complains() {
    let replay = |deviations: &[(u64, u32)]| {
        let deviations =
            deviations.iter().map(|&(point, rank)| Deviation { point, rank }).collect();
        let mut replay = Replay::new(deviations);
        let lessons = Lessons::default();
        assert!(replay.next_schedule(0, &lessons));
        let choices = three_choices(&mut replay);
        assert!(!replay.next_schedule(1, &lessons));
        (choices, replay.complaint())
    };
    assert_eq!(replay(&[(1, 1)]), (vec![0, 1, 1], None));
    assert!(replay(&[(1, 2)]).1.unwrap().contains("task 3 of 2"));
    assert!(replay(&[(9, 0)]).1.unwrap().contains("never come to"));
}

#[test]
fn a_list_of_numbers_says_how_often_to_look_past_who_would_go_on() {
    let guided = |choices: &[u32]| {
        let mut guided = Guided::new(choices.to_vec());
        let lessons = Lessons::default();
        assert!(guided.next_schedule(0, &lessons));
        let tasks = three_choices(&mut guided);
        assert!(!guided.next_schedule(1, &lessons));
        tasks
    };
    assert_eq!(guided(&[]), [0, 0, 0]);
    assert_eq!(guided(&[0, 1]), [0, 1, 1]);
    assert_eq!(guided(&[1, 1, 1, 1]), [1, 0, 1]);
    // One other: any number but 0 means it.
    assert_eq!(guided(&[7, 0, 2]), [1, 1, 0]);
    let of_three = Point { runnable: 0b10101, ..point(0, 0b10101, 2) };
    let chosen: Vec<_> = (0..5).map(|n| Guided::new(vec![n]).choose(&of_three)).collect();
    assert_eq!(chosen, [2, 0, 4, 0, 4]);
}
