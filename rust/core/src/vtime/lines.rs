//! Where cache lines are: held by one CPU for writing, or by several for reading.

use super::machine::{Distance, Machine};

/// Nobody holds the line.
const NOBODY: u32 = u32::MAX;

/// One line. Held exclusively by `owner`, or, when `sharers` is set, by a set of CPUs.
#[derive(Clone, Copy)]
struct Line {
    owner: u32,
    /// Number + 1 of a set in the pool; 0: only `owner` holds the line.
    sharers: u32,
    /// When the transfer under way ends; the next one begins then.
    busy_until: u64,
    /// How many tasks spin on words of this line.
    spinners: u32,
}

const FRESH: Line = Line { owner: NOBODY, sharers: 0, busy_until: 0, spinners: 0 };

/// All lines of a system.
pub(super) struct Lines {
    lines: Vec<Line>,
    /// Sets of CPUs, `set_words` words each; `free` are those not in use.
    sets: Vec<u64>,
    free: Vec<u32>,
    set_words: usize,
    /// For each CPU its core and its socket.
    places: Vec<(u32, u32)>,
    line_ns: [u64; 4],
    /// For each CPU the sets of CPUs on its core and in its socket.
    same_core: Vec<u64>,
    same_socket: Vec<u64>,
}

impl Lines {
    pub(super) fn new(machine: &Machine, nr_cpus: u32) -> Self {
        let set_words = nr_cpus.div_ceil(64) as usize;
        let near = |farthest: Distance| {
            let mut sets = vec![0; nr_cpus as usize * set_words];
            for cpu in 0..nr_cpus {
                let set = &mut sets[cpu as usize * set_words..][..set_words];
                for other in (0..nr_cpus).filter(|&o| machine.distance(cpu, o) <= farthest) {
                    set[other as usize / 64] |= 1 << (other % 64);
                }
            }
            sets
        };
        Self {
            lines: Vec::new(),
            sets: Vec::new(),
            free: Vec::new(),
            set_words,
            places: (0..nr_cpus).map(|cpu| machine.place(cpu)).collect(),
            line_ns: machine.line_ns,
            same_core: near(Distance::Core),
            same_socket: near(Distance::Socket),
        }
    }

    #[inline(always)]
    fn at(&mut self, line: u32) -> &mut Line {
        let index = line as usize;
        if index >= self.lines.len() {
            self.lines.resize((index + 1).next_power_of_two(), FRESH);
        }
        &mut self.lines[index]
    }

    /// If `cpu` can read (or write) the line without leaving its own cache: whether somebody
    /// spins on a word of it.
    #[inline(always)]
    pub(super) fn hit(&self, line: u32, cpu: u32, writes: bool) -> Option<bool> {
        let &Line { owner, sharers, spinners, .. } = self.lines.get(line as usize)?;
        let hit = if sharers == 0 { owner == cpu } else { !writes && self.in_set(sharers, cpu) };
        hit.then_some(spinners != 0)
    }

    #[inline(always)]
    fn in_set(&self, set: u32, cpu: u32) -> bool {
        let word = (set as usize - 1) * self.set_words + cpu as usize / 64;
        self.sets[word] >> (cpu % 64) & 1 != 0
    }

    /// Brings the line to `cpu`, which asks at `now`; returns when it has it, and whether somebody
    /// spins on a word of it. Requests for one line are served one after another, in the order in
    /// which they are made.
    pub(super) fn transfer(&mut self, line: u32, cpu: u32, writes: bool, now: u64) -> (u64, bool) {
        let Line { owner, sharers, busy_until, spinners } = *self.at(line);
        let begin = now.max(busy_until);
        let distance = match (owner, sharers) {
            (NOBODY, 0) => Distance::Own,
            (owner, 0) => self.distance(cpu, owner),
            // A reader takes the nearest copy; a writer waits for the farthest to be gone.
            (_, set) if writes => self.farthest(set, cpu),
            (_, set) => self.nearest(set, cpu),
        };
        let end = begin + self.line_ns[distance as usize];
        if writes || (owner == NOBODY && sharers == 0) {
            self.release_set(sharers);
            let line = self.at(line);
            (line.owner, line.sharers, line.busy_until) = (cpu, 0, end);
        } else if sharers == 0 {
            // The first copy: the owner keeps it for reading.
            let set = self.take_set();
            self.insert(set, owner);
            self.insert(set, cpu);
            let line = self.at(line);
            (line.owner, line.sharers, line.busy_until) = (NOBODY, set, end);
        } else {
            // Copies of a copy do not wait for each other.
            self.insert(sharers, cpu);
        }
        (end, spinners != 0)
    }

    #[inline(always)]
    fn distance(&self, one: u32, other: u32) -> Distance {
        let ((core, socket), other_place) =
            (self.places[one as usize], self.places[other as usize]);
        if one == other {
            Distance::Own
        } else if core == other_place.0 {
            Distance::Core
        } else if socket == other_place.1 {
            Distance::Socket
        } else {
            Distance::Machine
        }
    }

    /// The words of a set, beside those of the CPUs near `cpu`.
    fn beside<'s>(
        &'s self,
        set: u32,
        near: &'s [u64],
        cpu: u32,
    ) -> impl Iterator<Item = (u64, u64)> + 's {
        let set = &self.sets[(set as usize - 1) * self.set_words..][..self.set_words];
        let near = &near[cpu as usize * self.set_words..][..self.set_words];
        set.iter().copied().zip(near.iter().copied())
    }

    fn nearest(&self, set: u32, cpu: u32) -> Distance {
        if self.beside(set, &self.same_core, cpu).any(|(set, near)| set & near != 0) {
            Distance::Core
        } else if self.beside(set, &self.same_socket, cpu).any(|(set, near)| set & near != 0) {
            Distance::Socket
        } else {
            Distance::Machine
        }
    }

    fn farthest(&self, set: u32, cpu: u32) -> Distance {
        if self.beside(set, &self.same_socket, cpu).any(|(set, near)| set & !near != 0) {
            Distance::Machine
        } else if self.beside(set, &self.same_core, cpu).any(|(set, near)| set & !near != 0) {
            Distance::Socket
        } else {
            Distance::Core
        }
    }

    fn insert(&mut self, set: u32, cpu: u32) {
        self.sets[(set as usize - 1) * self.set_words + cpu as usize / 64] |= 1 << (cpu % 64);
    }

    fn take_set(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.sets.resize(self.sets.len() + self.set_words, 0);
            (self.sets.len() / self.set_words) as u32
        })
    }

    fn release_set(&mut self, set: u32) {
        if set != 0 {
            let from = (set as usize - 1) * self.set_words;
            self.sets[from..from + self.set_words].fill(0);
            self.free.push(set);
        }
    }

    /// One more task spins on a word of the line.
    pub(super) fn watch(&mut self, line: u32) {
        self.at(line).spinners += 1;
    }
    /// One less.
    pub(super) fn unwatch(&mut self, line: u32) {
        self.at(line).spinners -= 1;
    }
}

#[cfg(test)]
#[path = "../../tests/unit/vtime/lines.rs"]
mod tests;
