//! Which accesses of a schedule race: conflict, with nothing that orders them but themselves.
//!
//! Two accesses to a word conflict if one of them writes. Conflicting accesses, and those of one
//! task, are ordered as they happened; what follows from that by transitivity is *happens before*.
//! A pair races if it conflicts and the first is not before the second by other pairs: then, and
//! only then, another schedule can turn it round. Source: Flanagan and Godefroid, "Dynamic
//! partial-order reduction for model checking software" (2005); clocks as in Mattern (1989), and
//! for each word only who and when, as in Flanagan and Freund, "FastTrack" (2009).

use crate::platform::{Line, TaskId};

/// Words are told apart every four bytes.
const WORDS_PER_LINE: usize = Line::BYTES as usize / 4;

/// A number of a task's accesses; 0: none.
type Time = u32;

/// Instead of a task, once a second one has come.
const SHARED: u8 = u8::MAX;

/// A word's accesses in this schedule that a later one can race with.
#[derive(Clone, Copy, Default)]
struct Touch {
    epoch: u32,
    /// The only task so far, or [`SHARED`].
    owner: u8,
    writer: u8,
    /// The task that did all reads since the last write.
    reader: u8,
    last_write: Time,
    /// The last read since then.
    last_read: Time,
    /// Once several tasks have read between two writes: 1 + where the time of each one's last
    /// read is.
    reads: u32,
}

/// The words of a line that were touched in a schedule, as bits.
#[derive(Clone, Copy, Default)]
struct TouchedLine {
    epoch: u32,
    words: u32,
}

/// What one task knew of the others, and from when on.
#[derive(Default)]
struct History {
    since: Vec<Time>,
    /// For each time the clock, one behind the other.
    clocks: Vec<Time>,
}

/// Finds races while a schedule runs.
pub(super) struct Races {
    nr_tasks: usize,
    epoch: u32,
    touches: Vec<Touch>,
    /// By cache line.
    touched_lines: Vec<TouchedLine>,
    /// For each task its clock: for each task the last of its accesses that happened before.
    clocks: Vec<Time>,
    histories: Vec<History>,
    /// See [`Touch::reads`].
    reads: Vec<Time>,
}

impl Races {
    pub(super) fn new(nr_tasks: u32) -> Self {
        let nr_tasks = nr_tasks as usize;
        Self {
            nr_tasks,
            epoch: 0,
            touches: Vec::new(),
            touched_lines: Vec::new(),
            clocks: vec![0; nr_tasks * nr_tasks],
            histories: (0..nr_tasks).map(|_| History::default()).collect(),
            reads: Vec::new(),
        }
    }

    pub(super) fn begin_schedule(&mut self) {
        self.epoch += 1;
        self.reads.clear();
        self.clocks.fill(0);
        for history in &mut self.histories {
            history.since.clear();
            history.clocks.clear();
        }
    }

    /// Notes an access; whether it races with an earlier one.
    #[inline(always)]
    pub(super) fn access(&mut self, task: TaskId, word: usize, writes: bool) -> bool {
        if word >= self.touches.len() {
            self.grow(word);
        }
        let touch = &mut self.touches[word];
        let own = &mut self.clocks[task as usize * (self.nr_tasks + 1)];
        let now = *own + 1;
        *own = now;
        if touch.epoch != self.epoch {
            let owner = task as u8;
            *touch = Touch { epoch: self.epoch, owner, writer: owner, ..Touch::default() };
            let line = &mut self.touched_lines[word / WORDS_PER_LINE];
            let others = if line.epoch == self.epoch { line.words } else { 0 };
            *line = TouchedLine { epoch: self.epoch, words: others | 1 << (word % WORDS_PER_LINE) };
        }
        if touch.owner != task as u8 {
            return self.shared_access(task as usize, word, now, writes);
        }
        if writes {
            touch.last_write = now;
            touch.last_read = 0;
        } else {
            touch.last_read = now;
        }
        false
    }

    /// An access to a word that another task has accessed before.
    #[inline(never)]
    fn shared_access(&mut self, task: usize, word: usize, now: Time, writes: bool) -> bool {
        let mut touch = self.touches[word];
        if touch.owner != SHARED {
            touch.reader = touch.owner;
            touch.owner = SHARED;
        }
        let mut races = self.comes_after(task, usize::from(touch.writer), touch.last_write);
        if writes {
            races |= self.ends_reads(task, &touch);
            touch.writer = task as u8;
            touch.last_write = now;
            touch.last_read = 0;
        } else {
            if touch.reads != 0 || touch.last_read != 0 && usize::from(touch.reader) != task {
                self.spread_reads(&mut touch);
                self.reads[touch.reads as usize - 1 + task] = now;
            }
            touch.reader = task as u8;
            touch.last_read = now;
        }
        self.touches[word] = touch;
        races
    }

    #[cold]
    fn grow(&mut self, word: usize) {
        let nr_lines = word / WORDS_PER_LINE + 256;
        self.touches.resize(nr_lines * WORDS_PER_LINE, Touch::default());
        self.touched_lines.resize(nr_lines, TouchedLine::default());
    }

    /// `task` writes what was read: whether that races with a read.
    #[inline]
    fn ends_reads(&mut self, task: usize, touch: &Touch) -> bool {
        if touch.last_read == 0 {
            return false;
        }
        if touch.reads == 0 {
            return self.comes_after(task, usize::from(touch.reader), touch.last_read);
        }
        let mut races = false;
        for other in 0..self.nr_tasks {
            let read = std::mem::take(&mut self.reads[touch.reads as usize - 1 + other]);
            races |= self.comes_after(task, other, read);
        }
        races
    }

    /// Several tasks read the word between two writes.
    fn spread_reads(&mut self, touch: &mut Touch) {
        if touch.reads == 0 {
            touch.reads = self.reads.len() as u32 + 1;
            self.reads.resize(self.reads.len() + self.nr_tasks, 0);
            self.reads[touch.reads as usize - 1 + usize::from(touch.reader)] = touch.last_read;
        }
    }

    /// `task` comes after what `other` did at `time`; whether nothing else said so.
    ///
    /// What a task knows of itself is newer than what anybody else does.
    #[inline]
    fn comes_after(&mut self, task: usize, other: usize, time: Time) -> bool {
        let races = time > self.clocks[task * self.nr_tasks + other];
        if races {
            self.learn(task, other, time);
        }
        races
    }

    /// `task` learns what `other` knew at `time`.
    #[inline(never)]
    fn learn(&mut self, task: usize, other: usize, time: Time) {
        let clock = &mut self.clocks[task * self.nr_tasks..][..self.nr_tasks];
        let history = &self.histories[other];
        let nth = history.since.partition_point(|&since| since <= time);
        if nth > 0 {
            let known = &history.clocks[(nth - 1) * self.nr_tasks..][..self.nr_tasks];
            for (mine, theirs) in clock.iter_mut().zip(known) {
                *mine = (*mine).max(*theirs);
            }
        }
        clock[other] = clock[other].max(time);
        // Kept as it is from now on.
        let history = &mut self.histories[task];
        if history.since.last() == Some(&clock[task]) {
            history.clocks.truncate(history.clocks.len() - self.nr_tasks);
        } else {
            history.since.push(clock[task]);
        }
        history.clocks.extend_from_slice(clock);
    }

    /// The first cache line of `from..to` of which a word was touched in this schedule.
    pub(super) fn next_touched(&self, from: u32, to: u32) -> Option<u32> {
        let known = self.touched_lines.len();
        let lines = &self.touched_lines[known.min(from as usize)..known.min(to as usize)];
        lines.iter().position(|line| line.epoch == self.epoch).map(|nth| from + nth as u32)
    }

    /// The words of this cache line are no longer what they were: their object was freed by
    /// `task`. Those, as bits, for which that races with an earlier access.
    pub(super) fn forget(&mut self, task: TaskId, line: u32) -> u32 {
        let first = line as usize * WORDS_PER_LINE;
        let mut touched = std::mem::take(&mut self.touched_lines[line as usize]).words;
        let mut races = 0;
        while touched != 0 {
            let nth = touched.trailing_zeros() as usize;
            touched &= touched - 1;
            let word = first + nth;
            if self.touches[word].owner != task as u8 {
                races |= u32::from(self.access(task, word, true)) << nth;
            }
            self.touches[word].epoch = 0;
        }
        races
    }
}
