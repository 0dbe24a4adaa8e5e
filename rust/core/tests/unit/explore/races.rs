use super::*;

impl Races {
    /// The order of the steps, which no schedule changes that only exchanges steps without a
    /// conflict: for each task, for each of its steps, how many of each other's come before.
    pub(in crate::explore) fn order(&self) -> Vec<Vec<u32>> {
        let mut nth_of_task = vec![0; self.nr_tasks];
        let mut counts = Vec::new();
        let mut order = vec![Vec::new(); self.nr_tasks];
        for step in &self.steps {
            nth_of_task[step.task as usize] += 1;
            counts.push(nth_of_task[step.task as usize]);
            for other in 0..self.nr_tasks {
                let last = match self.clocks[step.clock as usize + other] {
                    _ if other == step.task as usize => 0,
                    0 => 0,
                    last => counts[last as usize - 1],
                };
                order[step.task as usize].push(last);
            }
        }
        order
    }
}

/// Steps of two tasks, each an access to a word: (task, word, writes). For each the earlier ones
/// that it races with.
fn races_of(races: &mut Races, steps: &[(TaskId, u64, bool)]) -> Vec<Vec<StepId>> {
    steps
        .iter()
        .map(|&(task, word, writes)| {
            races.begin_step(task);
            races.touch(64 * word, writes);
            races.close();
            races.races().to_vec()
        })
        .collect()
}

const WRITE: bool = true;
const READ: bool = false;

#[test]
fn a_pair_races_unless_a_third_step_comes_between() {
    let of = |steps: &[_]| races_of(&mut Races::new(3), steps).pop().unwrap();
    assert_eq!(of(&[(0, 1, READ), (1, 1, READ)]), []);
    assert_eq!(of(&[(0, 1, READ), (1, 1, WRITE)]), [0]);
    assert_eq!(of(&[(0, 1, WRITE), (1, 2, WRITE)]), []);
    // The write and the read of word 2 keep the accesses to word 1 apart.
    assert_eq!(of(&[(0, 1, WRITE), (0, 2, WRITE), (1, 2, READ), (1, 1, READ)]), []);
    // Each reader races with the write; the first write does not, for a read came after it.
    let read_by_two = [(0, 1, WRITE), (1, 1, READ), (2, 1, READ), (0, 1, WRITE)];
    assert_eq!(of(&read_by_two), [1, 2]);
}

#[test]
fn what_was_taken_back_never_was() {
    let steps =
        [(0, 1, WRITE), (1, 1, READ), (2, 1, READ), (0, 2, READ), (1, 2, WRITE), (2, 1, WRITE)];
    let mut races = Races::new(3);
    let found = races_of(&mut races, &steps);
    let order = races.order();
    for len in (0..steps.len()).rev() {
        races.go_back(len);
        assert_eq!(races_of(&mut races, &steps[len..]), found[len..], "{len}");
        assert_eq!(races.order(), order);
    }
}

#[test]
fn who_was_let_go_on_comes_after_whoever_did_that() {
    let mut races = Races::new(2);
    races.begin_step(0);
    races.touch(64, WRITE);
    races.wakes(1);
    races.close();
    races.begin_step(1);
    races.touch(64, WRITE);
    races.close();
    assert_eq!(races.races(), []);
}

#[test]
fn a_slot_that_was_freed_and_taken_again_is_another_object() {
    let mut races = Races::new(2);
    races.begin_step(0);
    races.touch(64, WRITE);
    races.close();
    // Freeing conflicts with what was done to the object; what the next one does does not.
    races.begin_step(1);
    races.freed(Line(1), 1);
    races.close();
    assert_eq!(races.races(), [0]);
    races.begin_step(0);
    races.touch(64, WRITE);
    races.close();
    assert_eq!(races.races(), []);
}
