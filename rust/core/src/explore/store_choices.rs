//! Which stores the steps of a schedule come after, under weak memory: a depth-first search's.

/// Which store the step at a node comes after.
struct StoreChoice {
    node: usize,
    chosen: u32,
    /// What memory in order would do, and the first that is tried.
    last: u32,
    /// Whether another than `last` counts as a preemption.
    costs: bool,
    /// How many of those before `chosen` are to try.
    untried: u32,
}

/// All choices of the schedule that runs, in the order of its nodes.
#[derive(Default)]
pub(super) struct StoreChoices {
    choices: Vec<StoreChoice>,
    nr_met: usize,
}

impl StoreChoices {
    /// A schedule begins.
    pub(super) fn begin(&mut self) {
        self.nr_met = 0;
    }

    /// The choice that the schedule comes to, in the step of `node`. `tries`: others are to be tried.
    pub(super) fn choose(&mut self, node: usize, last: u32, costs: bool, tries: bool) -> u32 {
        if self.nr_met == self.choices.len() {
            let untried = if tries { last } else { 0 };
            self.choices.push(StoreChoice { node, chosen: last, last, costs, untried });
        }
        let choice = &self.choices[self.nr_met];
        assert_eq!((choice.node, choice.last), (node, last), "the same choices, another program");
        self.nr_met += 1;
        choice.chosen
    }

    /// How many of the node's count as preemptions.
    pub(super) fn older_at(&self, node: usize) -> u32 {
        let of_node = self.choices.iter().rev().take_while(|choice| choice.node == node);
        of_node.filter(|choice| choice.costs && choice.chosen != choice.last).count() as u32
    }

    /// Takes another store at the last node; false, and none is left of it, if all were tried.
    pub(super) fn take_another(&mut self, node: usize) -> bool {
        while let Some(choice) = self.choices.last_mut()
            && choice.node == node
        {
            if choice.untried != 0 {
                choice.chosen = choice.untried - 1;
                choice.untried -= 1;
                return true;
            }
            self.choices.pop();
        }
        false
    }
}
