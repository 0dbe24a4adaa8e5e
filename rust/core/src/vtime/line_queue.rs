//! Who waits for a cache line, and who of them gets it.

use std::collections::VecDeque;

use super::lines::{Lines, SHARED, Traffic, WATCHED};
use super::machine::{Distance, Spot};
use crate::platform::TaskId;

/// A task that waits for a line.
#[derive(Clone, Copy)]
pub(super) struct Request {
    task: TaskId,
    cpu: u32,
    writes: bool,
    /// Where `cpu` is.
    at: Spot,
}

/// Those who wait for one line, in the order in which they asked.
#[derive(Default)]
pub(super) struct LineQueue {
    requests: VecDeque<Request>,
    /// The CPU that got the line last.
    last: u32,
    /// How often others were served before the first.
    passed: u32,
}

/// How many of those who wait compete for being the nearest.
const COMPETITORS: usize = 32;

/// What came of asking for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The line is here at this time.
    Has(u64),
    /// Others have it or wait for it. To the first who waits is told when the line is to be given
    /// to one of them ([`Lines::serve`]).
    Waits(Option<u64>),
}

/// Who has been served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) task: TaskId,
    /// When the line is there.
    pub(super) at: u64,
}

impl Lines {
    /// Asks for the line at `now`, for `task` on `cpu`, which does not have it.
    ///
    /// If nobody waits, the access is now, and the line is there a transfer later. A line that is
    /// on its way to another is waited for. Who gets it uses it for what comes right after, such
    /// as another try of a compare-and-exchange that failed; it leaves when the next request is
    /// there, which has gone half of the way then.
    #[inline]
    pub(super) fn ask(&self, line: u32, task: TaskId, cpu: u32, writes: bool, now: u64) -> Asked {
        self.cover(line);
        let holder = self.holders.get(line as usize).expect("covered");
        let mut traffic = self.traffic.get(line as usize).expect("covered");
        // Copies of a copy do not wait for each other.
        let copies = !writes && holder & SHARED != 0;
        if traffic.queue == 0 && (copies || now >= traffic.busy_until) {
            let way = self.transfer(line, holder, cpu, writes, now);
            if copies {
                // Not before the first copy is where this one may come from.
                let first_is_there = traffic.busy_until.saturating_sub(self.hold_ns);
                return Asked::Has((now + way).max(first_is_there));
            }
            self.set_busy(&mut traffic, now + way);
            self.traffic.set(line as usize, traffic);
            return Asked::Has(now + way);
        }
        let request = Request { task, cpu, writes, at: self.spots[cpu as usize] };
        if traffic.queue == 0 {
            let holder = holder & !WATCHED;
            let last = if holder & SHARED == 0 { holder - 1 } else { cpu };
            return Asked::Waits(Some(self.open_queue(line, traffic, request, last)));
        }
        self.queues.borrow_mut()[traffic.queue as usize - 1].requests.push_back(request);
        Asked::Waits(None)
    }

    /// Gives the line to one of those who wait, or copies to all that read; tells `served` of
    /// each, and returns when the first of those left is to call again.
    ///
    /// The nearest to whoever had the line last wins, for its request is there first; but not for
    /// ever (`Machine::near_first`).
    #[inline]
    pub(super) fn serve(
        &self,
        line: u32,
        now: u64,
        mut served: impl FnMut(Served),
    ) -> Option<Served> {
        let mut traffic = self.traffic.get(line as usize).expect("covered");
        let mut queues = self.queues.borrow_mut();
        let queue = &mut queues[traffic.queue as usize - 1];
        let first = queue.requests[0].task;
        let place = self.choose(queue);
        let chosen = queue.requests[place];
        queue.last = chosen.cpu;
        if chosen.writes {
            queue.requests.remove(place);
            served(self.hand_over(line, &mut traffic, chosen, now));
        } else {
            // All that want to read get a copy.
            queue.requests.retain(|&request| {
                if !request.writes {
                    served(self.hand_over(line, &mut traffic, request, now));
                }
                request.writes
            });
        }
        let Some(&Request { task, .. }) = queue.requests.front() else {
            self.free_queues.borrow_mut().push(traffic.queue);
            self.traffic.set(line as usize, Traffic { queue: 0, ..traffic });
            return None;
        };
        self.traffic.set(line as usize, traffic);
        queue.passed = if task == first { queue.passed + 1 } else { 0 };
        Some(Served { task, at: self.serve_time(traffic, queue) })
    }

    /// Whose turn it is.
    fn choose(&self, queue: &LineQueue) -> usize {
        if queue.passed >= self.near_first || queue.requests.len() == 1 {
            return 0;
        }
        let last = self.spots[queue.last as usize];
        let (mut chosen, mut nearest) = (0, Distance::Machine as u32);
        let (front, back) = queue.requests.as_slices();
        let back = &back[..back.len().min(COMPETITORS.saturating_sub(front.len()))];
        let mut place = 0;
        for requests in [&front[..front.len().min(COMPETITORS)], back] {
            for request in requests {
                let far = last.levels(request.at);
                if far < nearest {
                    (chosen, nearest) = (place, far);
                }
                place += 1;
            }
        }
        chosen
    }

    /// The line leaves for who asked, whose request has made half of the way before.
    #[inline]
    fn hand_over(&self, line: u32, traffic: &mut Traffic, request: Request, now: u64) -> Served {
        let Request { task, cpu, writes, .. } = request;
        let holder = self.holders.get(line as usize).expect("covered");
        // A copy is not here before those that were sent before: it may come from one of them.
        let at = now + self.transfer(line, holder, cpu, writes, now).div_ceil(2);
        let at = at.max(traffic.busy_until.saturating_sub(self.hold_ns));
        self.set_busy(traffic, at);
        Served { task, at }
    }

    /// The line comes to somebody at `end`, who then has it for a while.
    #[inline]
    fn set_busy(&self, traffic: &mut Traffic, end: u64) {
        traffic.busy_until = traffic.busy_until.max(end + self.hold_ns);
    }

    /// When the line is given to one of the queue: once the request of the one whose turn it is now
    /// is there.
    #[inline]
    fn serve_time(&self, traffic: Traffic, queue: &LineQueue) -> u64 {
        let next = queue.requests[self.choose(queue)].cpu;
        let way = self.line_ns[self.distance(queue.last, next) as usize] / 2;
        traffic.busy_until + way.saturating_sub(self.hold_ns)
    }

    /// Lets the first wait for a line; returns when it is to call [`Lines::serve`].
    fn open_queue(&self, line: u32, traffic: Traffic, request: Request, last: u32) -> u64 {
        let mut queues = self.queues.borrow_mut();
        let number = self.free_queues.borrow_mut().pop().unwrap_or_else(|| {
            queues.push(LineQueue::default());
            queues.len() as u32
        });
        let queue = &mut queues[number as usize - 1];
        queue.requests.push_back(request);
        queue.last = last;
        queue.passed = 0;
        self.traffic.set(line as usize, Traffic { queue: number, ..traffic });
        self.serve_time(traffic, queue)
    }
}
