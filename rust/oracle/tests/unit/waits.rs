use spfemu_core::program::{ProgramSpec, Start};

use super::*;

/// Tasks of the operations that are given, with two names.
fn sync(tasks: &[&[Op]]) -> Sync {
    let programs: Vec<TaskProgram> = tasks
        .iter()
        .map(|ops| TaskProgram {
            start: Start::First,
            ops: ops.iter().map(|op| (*op, 0)).collect(),
        })
        .collect();
    let spec = ProgramSpec {
        tasks: Vec::new(),
        nr_ids: 1,
        nr_names: 2,
        texts: &[],
        files: Vec::new(),
        note_maps: Vec::new(),
    };
    Sync::new(&spec, &programs)
}

const NOBODY: fn(u32) -> bool = |_| false;

#[test]
fn barrier_opens_when_all_who_name_it_have_come() {
    let barrier = [Op::Barrier { name: 1 }];
    let mut sync = sync(&[&barrier, &[], &barrier]);
    let first = sync.arrive(1, 0);
    assert!(!sync.is_met(&first, &NOBODY));
    let second = sync.arrive(1, 2);
    assert!(sync.is_met(&second, &NOBODY));
    // It has opened for both, and is closed again.
    assert!(sync.is_met(&first, &NOBODY));
    let again = sync.arrive(1, 0);
    assert!(!sync.is_met(&again, &NOBODY));
}

#[test]
fn barrier_does_not_wait_for_who_has_ended() {
    let barrier = [Op::Barrier { name: 0 }];
    let mut sync = sync(&[&barrier, &barrier]);
    let wait = sync.arrive(0, 0);
    assert!(!sync.is_met(&wait, &NOBODY));
    assert!(sync.is_met(&wait, &|task| task == 1));
}

#[test]
fn posts_are_met_when_each_has_run_once() {
    let mut sync = sync(&[&[Op::Post { name: 0 }, Op::Post { name: 0 }], &[Op::Post { name: 0 }]]);
    for (task, index) in [(0, 0), (0, 0), (1, 0)] {
        sync.post(0, task, index);
        assert!(!sync.is_met(&Wait::Posts(0), &NOBODY));
    }
    sync.post(0, 0, 1);
    assert!(sync.is_met(&Wait::Posts(0), &NOBODY));
    assert!(sync.is_met(&Wait::Posts(1), &NOBODY), "nobody posts it");
}

#[test]
fn an_id_is_met_once_it_is_set() {
    let mut sync = sync(&[]);
    assert!(!sync.is_met(&Wait::Id(0), &NOBODY));
    sync.set_id(0, 0);
    assert!(sync.is_met(&Wait::Id(0), &NOBODY));
    assert_eq!(sync.id(0), Some(0));
}
