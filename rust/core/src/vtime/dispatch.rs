//! Who of those in the queue goes on. What a task does until it has a cache line is done for it
//! here, so that control goes to its stack once, when the line is there.

use super::line_queue::Asked;
use super::task::{State, Task};
use super::world::World;
use crate::platform::TaskId;

impl World {
    /// The first task that can go on, of `next`, which is not in the queue, and then of those in
    /// it.
    #[inline(always)]
    pub(super) fn dispatch(&self, mut next: Option<TaskId>) -> Option<&Task> {
        while let Some(task) = next {
            let this = &**self.task(task);
            let goes_on = match this.state.get() {
                State::AsksForLine { line, writes, ahead, hit_ns } => {
                    self.first_asks(this, line, writes, ahead, hit_ns)
                }
                State::WaitsForLine(line) => self.serve_line(this, line),
                _ => true,
            };
            if goes_on {
                return Some(this);
            }
            next = self.queue.pop();
        }
        None
    }

    /// Nobody was behind the task when it was taken out of the queue: it gets the line, or waits for
    /// it. Whether it has it.
    fn first_asks(&self, this: &Task, line: u32, writes: bool, ahead: bool, hit_ns: u64) -> bool {
        if self.take_stolen(this) && !self.may_ask(this, line, writes, ahead, hit_ns) {
            self.queue.push(this.id, this.clock.get());
            return false;
        }
        // It was here, but others were too far behind; or another task of this CPU has brought it.
        let has_it = if self.lines.hit(line, this.cpu, writes).is_some() {
            this.clock.set(this.clock.get() + hit_ns);
            true
        } else {
            self.ask(this, line, writes)
        };
        if has_it {
            this.state.set(State::Ready);
        }
        has_it
    }

    /// The task, behind which nobody is, asks for a line that its CPU does not have. Whether it has
    /// it now; else it waits for it.
    #[inline(always)]
    pub(super) fn ask(&self, this: &Task, line: u32, writes: bool) -> bool {
        let now = this.clock.get();
        if self.records {
            self.recorder.asks(this.id, now);
        }
        match self.lines.ask(line, this.id, this.cpu, writes, now) {
            Asked::Has(at) => {
                this.clock.set(at);
                true
            }
            Asked::Waits(when) => {
                self.wait_for_line(this, line, when);
                false
            }
        }
    }

    /// Whether the task is still the first, after its clock was moved; or may use a line that it
    /// has.
    #[cold]
    fn may_ask(&self, this: &Task, line: u32, writes: bool, ahead: bool, hit_ns: u64) -> bool {
        let clock = this.clock.get();
        if self.is_first(this.id, clock) {
            return true;
        }
        if ahead && self.is_first(this.id, clock.saturating_sub(self.slack_ns)) {
            if self.lines.hit(line, this.cpu, writes).is_some() {
                return true;
            }
            this.state.set(State::AsksForLine { line, writes, ahead: false, hit_ns });
        }
        false
    }

    /// The task waits for a cache line; `when`: it is the first to do so, and decides then who
    /// gets it.
    fn wait_for_line(&self, this: &Task, line: u32, when: Option<u64>) {
        this.state.set(State::WaitsForLine(line));
        if let Some(when) = when {
            this.clock.set(when);
            self.enqueue(this.id);
        }
    }

    /// The time has come to give the line to one of those who wait, of whom this is the first.
    /// Whether it got it.
    fn serve_line(&self, this: &Task, line: u32) -> bool {
        let mut got_it = false;
        let next = self.lines.serve(line, this.clock.get(), |one| {
            let served = self.task(one.task);
            served.clock.set(one.at);
            served.state.set(State::Ready);
            if one.task == this.id {
                got_it = true;
            } else {
                self.enqueue(one.task);
            }
        });
        if let Some(next) = next {
            self.task(next.task).clock.set(next.at);
            self.enqueue(next.task);
        }
        got_it
    }
}
