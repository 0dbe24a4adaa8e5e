//! Which steps of a schedule race: conflict, with nothing that orders them but themselves.
//!
//! A step of a task is what it does from one scheduling point to the next: one access nearly
//! always, with what belongs to it (see [`Thing`]). Two accesses to a word conflict if one of them
//! writes. Conflicting steps, those of one task, and a step with what it let go on, are ordered as
//! they happened; what follows from that by transitivity is *happens before*. A pair races if it
//! conflicts and the first is not before the second by way of a third: then, and only then, another
//! schedule can turn it round.
//!
//! Source: Flanagan and Godefroid, "Dynamic partial-order reduction for model checking software"
//! (2005); clocks as in Mattern (1989), and for each word only the last accesses, as in Flanagan
//! and Freund, "FastTrack" (2009).

use super::token::TaskSet;
use super::touch::{NR_THINGS, Pair, Thing, Touch, WORDS_PER_LINE};
use crate::platform::{Line, TaskId};

/// A number of a step in its schedule.
pub(super) type StepId = u32;

#[derive(Clone, Copy)]
struct StepOf {
    task: TaskId,
    /// Where its clock is, for each task one number.
    clock: u32,
    /// Its first access.
    touches: u32,
    /// What was there before it: of clocks, of places for reads, of `Races::undo`.
    clocks: u32,
    reads: u32,
    undo: u32,
}

/// What a step changed, to be taken back.
enum Undo {
    Word(u32, Last),
    /// A line's words that were touched.
    Line(u32, u32),
    Read(u32, u32),
    /// What this task came after is at the end of `Races::undo_now`.
    Now(TaskId),
}

/// The last accesses to a word: numbers of steps plus one, 0 for none.
#[derive(Clone, Copy, Default)]
struct Last {
    /// The only task so far, plus one, or [`SHARED`]; 0 for none.
    owner: u32,
    write: u32,
    /// The last read since then.
    read: u32,
    /// Once several tasks have read since then: 1 + where each one's last read is.
    reads: u32,
}

/// Instead of a task, once a second one has come.
const SHARED: u32 = u32::MAX;

/// The steps of the schedule that runs, and their order.
#[derive(Default)]
pub(super) struct Races {
    nr_tasks: usize,
    lasts: Vec<Last>,
    /// By cache line: words that were touched, as bits.
    touched_lines: Vec<u32>,
    steps: Vec<StepOf>,
    touches: Vec<Touch>,
    clocks: Vec<StepId>,
    /// Of each task: what its next step comes after.
    now: Vec<StepId>,
    /// Of each task: where its last step's clock is, unless `now` has changed since.
    kept: Vec<Option<u32>>,
    reads: Vec<u32>,
    /// What was changed, the last at the end.
    undo: Vec<Undo>,
    undo_now: Vec<StepId>,
    is_open: bool,
    /// Whose step runs.
    task: TaskId,
    /// The step that runs stands for all that the last task does.
    is_rest: bool,
    /// Kinds of racing accesses, if they are wanted: word, tasks, whether the later one writes.
    pub(super) pairs: Option<Vec<Pair>>,
    /// Of the last step: earlier ones in conflict with it that were not before it otherwise.
    races: Vec<StepId>,
    /// Tasks that the last step let go on.
    woken: TaskSet,
    /// Tasks that could go on, and cannot after the last step.
    stopped: TaskSet,
}

impl Races {
    pub(super) fn new(nr_tasks: u32) -> Self {
        let nr_tasks = nr_tasks as usize;
        let (now, kept) = (vec![0; nr_tasks * nr_tasks], vec![None; nr_tasks]);
        Self { nr_tasks, now, kept, ..Self::default() }
    }

    /// Goes back to the first `len` steps, which the next schedule has in common with this one.
    pub(super) fn go_back(&mut self, len: usize) {
        self.forget_last_step();
        let Some(&StepOf { touches, clocks, reads, undo, .. }) = self.steps.get(len) else {
            return;
        };
        self.steps.truncate(len);
        self.touches.truncate(touches as usize);
        while self.undo.len() > undo as usize {
            match self.undo.pop().expect("just counted") {
                Undo::Word(word, last) => self.lasts[word as usize] = last,
                Undo::Line(line, was) => self.touched_lines[line as usize] = was,
                Undo::Read(at, was) => self.reads[at as usize] = was,
                Undo::Now(task) => {
                    let (row, from) = (task as usize * self.nr_tasks, self.undo_now.len());
                    let from = from - self.nr_tasks;
                    self.now[row..row + self.nr_tasks].copy_from_slice(&self.undo_now[from..]);
                    self.undo_now.truncate(from);
                }
            }
        }
        self.clocks.truncate(clocks as usize);
        self.reads.truncate(reads as usize);
        self.kept.fill(None);
    }

    fn forget_last_step(&mut self) {
        self.is_open = false;
        self.races.clear();
        self.woken = 0;
        self.stopped = 0;
    }

    /// A step of `task` begins. The one before is closed.
    pub(super) fn begin_step(&mut self, task: TaskId) {
        self.forget_last_step();
        self.is_open = true;
        self.is_rest = false;
        self.task = task;
        let (clocks, reads) = (self.clocks.len() as u32, self.reads.len() as u32);
        let (touches, undo) = (self.touches.len() as u32, self.undo.len() as u32);
        let clock = match self.kept[task as usize] {
            Some(clock) => clock,
            None => self.keep_clock(task),
        };
        self.steps.push(StepOf { task, clock, touches, clocks, reads, undo });
    }

    /// What follows is all in the step that runs: nobody else is there to come between.
    pub(super) fn take_the_rest(&mut self) {
        self.is_rest = true;
    }

    /// Keeps what `task` comes after now.
    fn keep_clock(&mut self, task: TaskId) -> u32 {
        let clock = self.clocks.len() as u32;
        let row = task as usize * self.nr_tasks;
        self.clocks.extend_from_slice(&self.now[row..row + self.nr_tasks]);
        self.kept[task as usize] = Some(clock);
        clock
    }

    pub(super) fn task_of(&self, step: StepId) -> TaskId {
        self.steps[step as usize].task
    }

    /// Whether `step` is, or happens before, the later `other`.
    pub(super) fn is_before(&self, step: StepId, other: StepId) -> bool {
        let (task, other) = (self.task_of(step), self.steps[other as usize]);
        other.task == task || self.clocks[other.clock as usize + task as usize] > step
    }

    /// What a step accessed.
    pub(super) fn touches_of(&self, step: StepId) -> &[Touch] {
        let begin = self.steps[step as usize].touches as usize;
        let end = self.steps.get(step as usize + 1).map(|next| next.touches as usize);
        &self.touches[begin..end.unwrap_or(self.touches.len())]
    }

    /// Notes an access of the step that runs to the word at `site`.
    #[inline(always)]
    pub(super) fn touch(&mut self, site: u64, writes: bool) {
        if self.is_open {
            self.touch_word(NR_THINGS + (site / 4) as usize, writes);
        }
    }

    /// Notes that the step that runs has to do with `thing`.
    pub(super) fn touch_thing(&mut self, thing: Thing, writes: bool) {
        if self.is_open {
            self.touch_word(thing.word(), writes);
        }
    }

    #[inline(always)]
    fn touch_word(&mut self, word: usize, writes: bool) {
        if word >= self.lasts.len() {
            self.grow(word);
        }
        self.touches.push(Touch { word: word as u32, writes });
        let (step, task) = (self.steps.len() as StepId - 1, self.task);
        let last = &mut self.lasts[word];
        self.undo.push(Undo::Word(word as u32, *last));
        if last.owner == task + 1 {
            *(if writes { &mut last.write } else { &mut last.read }) = step + 1;
            return;
        }
        if last.owner == 0 {
            let (write, read) = if writes { (step + 1, 0) } else { (0, step + 1) };
            *last = Last { owner: task + 1, write, read, reads: 0 };
            if let Some(site) = word.checked_sub(NR_THINGS) {
                let line = &mut self.touched_lines[site / WORDS_PER_LINE];
                self.undo.push(Undo::Line((site / WORDS_PER_LINE) as u32, *line));
                *line |= 1 << (site % WORDS_PER_LINE);
            }
            return;
        }
        let known = self.races.len();
        self.touch_again(word, step, writes);
        if let Some(pairs) = &mut self.pairs {
            let (steps, word) = (&self.steps, word as u32);
            pairs.extend(self.races[known..].iter().map(|&earlier| Pair {
                word,
                tasks: [steps[earlier as usize].task, task],
                writes,
            }));
        }
    }

    /// An access to a word that another task has accessed before.
    #[inline(never)]
    fn touch_again(&mut self, word: usize, step: StepId, writes: bool) {
        let mut last = self.lasts[word];
        let task = self.task;
        if last.owner != SHARED {
            last.owner = SHARED;
            // A read before a write of the same task says no more than the write.
            last.read = if last.read > last.write { last.read } else { 0 };
        }
        if writes {
            if last.reads != 0 {
                for other in 0..self.nr_tasks {
                    let read = self.reads[last.reads as usize - 1 + other];
                    self.comes_after(task, read);
                }
            } else {
                self.comes_after(task, last.read);
            }
            self.comes_after(task, last.write);
            last = Last { write: step + 1, read: 0, reads: 0, ..last };
        } else {
            self.comes_after(task, last.write);
            self.spread_reads(&mut last, task, step);
            last.read = step + 1;
        }
        self.lasts[word] = last;
    }

    /// Keeps the reads of several tasks between two writes apart.
    fn spread_reads(&mut self, last: &mut Last, task: TaskId, step: StepId) {
        if last.reads == 0 {
            if last.read == 0 || self.task_of(last.read - 1) == task {
                return;
            }
            last.reads = self.reads.len() as u32 + 1;
            self.reads.resize(self.reads.len() + self.nr_tasks, 0);
            let reader = self.task_of(last.read - 1);
            self.reads[last.reads as usize - 1 + reader as usize] = last.read;
        }
        let read = last.reads - 1 + task;
        let was = std::mem::replace(&mut self.reads[read as usize], step + 1);
        self.undo.push(Undo::Read(read, was));
    }

    #[cold]
    fn grow(&mut self, word: usize) {
        let nr_lines = word.saturating_sub(NR_THINGS) / WORDS_PER_LINE + 256;
        self.lasts.resize(NR_THINGS + nr_lines * WORDS_PER_LINE, Last::default());
        self.touched_lines.resize(nr_lines, 0);
    }

    /// The step that runs, of `task`, comes after the one whose number plus one is `other`: a race
    /// unless that was known.
    #[inline]
    fn comes_after(&mut self, task: TaskId, other: u32) {
        if other == 0 {
            return;
        }
        let earlier = other - 1;
        let of = self.task_of(earlier);
        if of != task && self.now[task as usize * self.nr_tasks + of as usize] < other {
            self.learn(task, earlier);
            self.races.push(earlier);
        }
    }

    /// What `task` does comes after `earlier` from now on.
    fn learn(&mut self, task: TaskId, earlier: StepId) {
        let StepOf { task: other, clock, .. } = self.steps[earlier as usize];
        let row = task as usize * self.nr_tasks;
        self.undo_now.extend_from_slice(&self.now[row..row + self.nr_tasks]);
        self.undo.push(Undo::Now(task));
        for nth in 0..self.nr_tasks {
            let known = self.clocks[clock as usize + nth];
            let mine = &mut self.now[row + nth];
            *mine = (*mine).max(known);
        }
        let mine = &mut self.now[row + other as usize];
        *mine = (*mine).max(earlier + 1);
        self.kept[task as usize] = None;
    }

    /// The step that runs lets `task` go on, which waited.
    pub(super) fn wakes(&mut self, task: TaskId) {
        if self.is_open {
            self.woken |= 1 << task;
        }
    }

    /// After the step that runs `task` cannot go on, which could.
    pub(super) fn stops(&mut self, task: TaskId) {
        if self.is_open {
            self.stopped |= 1 << task;
        }
    }

    /// The step that runs has ended; its number, unless it was closed before.
    pub(super) fn close(&mut self) -> Option<StepId> {
        if !std::mem::replace(&mut self.is_open, false) {
            return None;
        }
        let step = self.steps.len() as StepId - 1;
        let task = self.task_of(step);
        if self.kept[task as usize].is_none() {
            self.steps[step as usize].clock = self.keep_clock(task);
        }
        let mut woken = std::mem::take(&mut self.woken) & !(1 << task);
        while woken != 0 {
            self.learn(woken.trailing_zeros(), step);
            woken &= woken - 1;
        }
        if self.races.len() > 1 && !self.is_rest {
            self.keep_immediate_races();
        }
        Some(step)
    }

    /// Drops those that come before another one.
    fn keep_immediate_races(&mut self) {
        let mut races = std::mem::take(&mut self.races);
        races.sort_unstable();
        races.dedup();
        let all = races.clone();
        races.retain(|&race| !all.iter().any(|&later| later > race && self.is_before(race, later)));
        self.races = races;
    }

    /// The steps that the last one races with.
    pub(super) fn races(&self) -> &[StepId] {
        &self.races
    }

    /// The tasks that could go on before the last step, and cannot now.
    pub(super) fn stopped(&self) -> TaskSet {
        self.stopped
    }

    /// The step that runs freed the object in `lines` lines from `line` on, which conflicts with
    /// every access to it. Its words are no longer what they were: who gets the slot next has
    /// nothing to do with it, and who comes too late finds it freed.
    pub(super) fn freed(&mut self, line: Line, lines: u32) {
        self.touch_thing(Thing::Freed, false);
        if !self.is_open {
            return;
        }
        let known = self.touched_lines.len() as u32;
        for line in line.0.min(known)..(line.0 + lines).min(known) {
            let touched = self.touched_lines[line as usize];
            let mut words = touched;
            while words != 0 {
                let word = words.trailing_zeros() as usize;
                words &= words - 1;
                let word = NR_THINGS + line as usize * WORDS_PER_LINE + word;
                self.touch_word(word, true);
                self.lasts[word].owner = 0;
            }
            if touched != 0 {
                self.undo.push(Undo::Line(line, touched));
                self.touched_lines[line as usize] = 0;
            }
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/explore/races.rs"]
mod tests;
