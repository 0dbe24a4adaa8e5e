//! Which stores the steps of a schedule come after, under weak memory: a depth-first search's.

/// Which store the step at a node comes after.
#[derive(Clone)]
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

    /// The choices at nodes before this one, to be made again.
    pub(super) fn before(&self, node: usize) -> Self {
        let before = self.choices.iter().take_while(|choice| choice.node < node);
        let choices = before.map(|choice| StoreChoice { untried: 0, ..choice.clone() }).collect();
        Self { choices, nr_met: 0 }
    }

    /// The choices up to this one, which is another.
    pub(super) fn with(&self, nth: usize, chosen: u32) -> Self {
        let mut choices = self.choices[..=nth].to_vec();
        choices[nth].chosen = chosen;
        Self { choices, nr_met: 0 }
    }

    /// What is left to try at a node: a choice, and another store for it.
    pub(super) fn left_at(&self, node: usize) -> impl Iterator<Item = (usize, u32)> + '_ {
        let of_node = self.choices.iter().enumerate().filter(move |(_, one)| one.node == node);
        of_node.flat_map(|(nth, choice)| (0..choice.untried).map(move |store| (nth, store)))
    }

    /// Leaves it to others to try what is left at a node.
    pub(super) fn leave(&mut self, node: usize) {
        let of_node = self.choices.iter_mut().filter(|choice| choice.node == node);
        of_node.for_each(|choice| choice.untried = 0);
    }

    /// For each choice at a node, how many are tried before what was chosen.
    pub(super) fn ranks_at(&self, node: usize) -> impl Iterator<Item = u32> + '_ {
        let begin = self.choices.partition_point(|choice| choice.node < node);
        let of_node = self.choices[begin..].iter().take_while(move |choice| choice.node == node);
        of_node.map(|choice| choice.last - choice.chosen)
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
