//! Which accesses of a schedule race: conflict, with nothing that orders them but themselves.
//!
//! Two accesses to a word conflict if one of them writes. Conflicting accesses, and those of one
//! task, are ordered as they happened; what follows from that by transitivity is *happens before*.
//! A pair races if it conflicts and the first is not before the second by other pairs: then, and
//! only then, another schedule can turn it round. Source: Flanagan and Godefroid, "Dynamic
//! partial-order reduction for model checking software" (2005); clocks as in Mattern (1989).

use crate::platform::{Line, TaskId};

/// Words are told apart every four bytes.
const WORDS_PER_LINE: usize = Line::BYTES as usize / 4;

/// A number of a task's accesses; 0: none.
type Time = u32;

/// A word's accesses in this schedule.
#[derive(Clone, Copy, Default)]
struct Touch {
    epoch: u32,
    /// The only task so far, if `clocks` is 0.
    owner: u8,
    last_read: Time,
    last_write: Time,
    /// 1 + where its clocks are, once a second task has come.
    clocks: u32,
}

/// What one task knows of the others.
struct Knowledge {
    /// For each task: the last of its accesses that happened before.
    clock: Vec<Time>,
    /// The clock as it was from each time on at which it grew.
    history: Vec<(Time, Vec<Time>)>,
    nr_history: usize,
}

/// Finds races while a schedule runs.
pub(super) struct Races {
    nr_tasks: usize,
    epoch: u32,
    touches: Vec<Touch>,
    /// For each cache line the last schedule in which a word of it was touched.
    touched_lines: Vec<u32>,
    tasks: Vec<Knowledge>,
    /// For each word with clocks: what is before its last write, and before the reads since.
    clocks: Vec<Time>,
}

impl Races {
    pub(super) fn new(nr_tasks: u32) -> Self {
        let nr_tasks = nr_tasks as usize;
        let knowledge =
            || Knowledge { clock: vec![0; nr_tasks], history: Vec::new(), nr_history: 0 };
        Self {
            nr_tasks,
            epoch: 0,
            touches: Vec::new(),
            touched_lines: Vec::new(),
            tasks: (0..nr_tasks).map(|_| knowledge()).collect(),
            clocks: Vec::new(),
        }
    }

    pub(super) fn begin_schedule(&mut self) {
        self.epoch += 1;
        self.clocks.clear();
        for task in &mut self.tasks {
            task.clock.fill(0);
            task.nr_history = 0;
        }
    }

    /// Notes an access; whether it races with an earlier one.
    #[inline]
    pub(super) fn access(&mut self, task: TaskId, word: usize, writes: bool) -> bool {
        if word >= self.touches.len() {
            let nr_lines = word / WORDS_PER_LINE + 256;
            self.touches.resize(nr_lines * WORDS_PER_LINE, Touch::default());
            self.touched_lines.resize(nr_lines, 0);
        }
        let own = &mut self.tasks[task as usize].clock[task as usize];
        *own += 1;
        let now = *own;
        let touch = &mut self.touches[word];
        if touch.epoch != self.epoch {
            *touch = Touch { epoch: self.epoch, owner: task as u8, ..Touch::default() };
            self.touched_lines[word / WORDS_PER_LINE] = self.epoch;
        }
        if touch.clocks == 0 && touch.owner == task as u8 {
            if writes {
                touch.last_write = now;
            } else {
                touch.last_read = now;
            }
            return false;
        }
        self.shared_access(task as usize, word, writes)
    }

    fn shared_access(&mut self, task: usize, word: usize, writes: bool) -> bool {
        let at = self.clocks_of(word);
        let (last_write, reads) = self.clocks[at..].split_at_mut(self.nr_tasks);
        let reads = &mut reads[..self.nr_tasks];
        let mine = &mut self.tasks[task];
        let mut races = false;
        let mut learnt = false;
        for (other, known) in mine.clock.iter_mut().enumerate() {
            let before =
                if writes { last_write[other].max(reads[other]) } else { last_write[other] };
            // What a task knows of itself is newer than what anybody else does.
            if before > *known {
                races = true;
                learnt = true;
                *known = before;
            }
        }
        if learnt {
            mine.remember(task);
        }
        if writes {
            last_write.copy_from_slice(&mine.clock);
            reads.fill(0);
        } else {
            for (read, known) in reads.iter_mut().zip(&mine.clock) {
                *read = (*read).max(*known);
            }
        }
        races
    }

    /// Where the clocks of `word` are; makes them when a second task comes.
    fn clocks_of(&mut self, word: usize) -> usize {
        let touch = self.touches[word];
        if touch.clocks != 0 {
            return touch.clocks as usize - 1;
        }
        let at = self.clocks.len();
        self.clocks.resize(at + 2 * self.nr_tasks, 0);
        let owner = &self.tasks[touch.owner as usize];
        let (last_write, reads) = self.clocks[at..].split_at_mut(self.nr_tasks);
        owner.as_of(touch.owner as usize, touch.last_write, last_write);
        if touch.last_read > touch.last_write {
            owner.as_of(touch.owner as usize, touch.last_read, reads);
        }
        self.touches[word].clocks = at as u32 + 1;
        at
    }

    /// Whether a word of this cache line was touched in this schedule.
    pub(super) fn has_touched(&self, line: u32) -> bool {
        self.touched_lines.get(line as usize) == Some(&self.epoch)
    }

    /// The word is no longer what it was: its object was freed by `task`. Whether that races with
    /// an earlier access.
    pub(super) fn forget(&mut self, task: TaskId, word: usize) -> bool {
        let Some(&touch) = self.touches.get(word) else { return false };
        if touch.epoch != self.epoch {
            return false;
        }
        let races = self.access(task, word, true);
        self.touches[word] = Touch::default();
        races
    }
}

impl Knowledge {
    /// Keeps the clock as it is from now on.
    fn remember(&mut self, task: usize) {
        let now = self.clock[task];
        if self.nr_history == self.history.len() {
            self.history.push((now, self.clock.clone()));
        } else {
            let entry = &mut self.history[self.nr_history];
            entry.0 = now;
            entry.1.copy_from_slice(&self.clock);
        }
        self.nr_history += 1;
    }

    /// The clock as it was at `time`; nothing if that is 0.
    fn as_of(&self, task: usize, time: Time, clock: &mut [Time]) {
        if time == 0 {
            return;
        }
        let nth = self.history[..self.nr_history].partition_point(|(from, _)| *from <= time);
        if nth > 0 {
            clock.copy_from_slice(&self.history[nth - 1].1);
        }
        clock[task] = time;
    }
}
