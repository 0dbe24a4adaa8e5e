//! Who of those in the queue goes on. What a task does until it has a cache line is done for it
//! here, so that control goes to its stack once, when the line is there.

use super::line_queue::Asked;
use super::task::State;
use super::world::World;
use crate::platform::TaskId;

impl World {
    /// The first task that can go on, of `next`, which was taken out of the queue, and then of
    /// those in it.
    #[inline(always)]
    pub(super) fn dispatch(&self, mut next: Option<TaskId>) -> Option<TaskId> {
        while let Some(task) = next {
            let goes_on = match self.task(task).state.get() {
                State::AsksForLine { line, writes, ahead } => {
                    self.first_asks(task, line, writes, ahead)
                }
                State::WaitsForLine(line) => self.serve_line(task, line),
                _ => true,
            };
            if goes_on {
                break;
            }
            next = self.queue.pop();
        }
        next
    }

    /// Nobody was behind the task when it was taken out of the queue: it gets the line, or asks
    /// for it. Whether it has it.
    fn first_asks(&self, task: TaskId, line: u32, writes: bool, ahead: bool) -> bool {
        let this = self.task(task);
        if self.take_stolen(task) && !self.may_ask(task, line, writes, ahead) {
            self.queue.push(task, this.clock.get());
            return false;
        }
        // It was here, but others were too far behind; or another task of this CPU has brought it.
        if self.lines.hit(line, self.cpu_of(task), writes).is_some() {
            this.clock.set(this.clock.get() + self.machine.line_ns[0]);
            this.state.set(State::Ready);
            return true;
        }
        match self.ask(task, line, writes, this.clock.get()) {
            Some(at) => {
                this.clock.set(at);
                this.state.set(State::Ready);
                true
            }
            None => false,
        }
    }

    /// Whether the task is still the first, after its clock was moved; or may use a line that it
    /// has.
    #[cold]
    fn may_ask(&self, task: TaskId, line: u32, writes: bool, ahead: bool) -> bool {
        let clock = self.task(task).clock.get();
        if self.is_first(task, clock) {
            return true;
        }
        if ahead && self.is_first(task, clock.saturating_sub(self.slack_ns)) {
            if self.lines.hit(line, self.cpu_of(task), writes).is_some() {
                return true;
            }
            self.task(task).state.set(State::AsksForLine { line, writes, ahead: false });
        }
        false
    }

    /// Asks for a line, at `now`. If it is not to be waited for: when it is there.
    #[inline(always)]
    pub(super) fn ask(&self, task: TaskId, line: u32, writes: bool, now: u64) -> Option<u64> {
        if self.records {
            self.recorder.asks(task, now);
        }
        match self.lines.ask(line, task, self.cpu_of(task), writes, now) {
            Asked::Has(at) => Some(at),
            Asked::Waits(when) => {
                self.wait_for_line(task, line, when);
                None
            }
        }
    }

    /// The task waits for a cache line; `when`: it is the first to do so, and decides then who
    /// gets it.
    fn wait_for_line(&self, task: TaskId, line: u32, when: Option<u64>) {
        self.task(task).state.set(State::WaitsForLine(line));
        if let Some(when) = when {
            self.task(task).clock.set(when);
            self.enqueue(task);
        }
    }

    /// The time has come to give the line to one of those who wait, of whom `task` is the first.
    /// Whether it got it.
    fn serve_line(&self, task: TaskId, line: u32) -> bool {
        let mut got_it = false;
        let next = self.lines.serve(line, self.task(task).clock.get(), |one| {
            let this = self.task(one.task);
            this.clock.set(one.at);
            this.state.set(State::Ready);
            if one.task == task {
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
