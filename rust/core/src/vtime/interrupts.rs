//! Interrupts that flush TLBs: when a CPU handles them, and whose time that is.

use std::cell::Cell;

use super::task::{State, Task};
use super::world::{CpuState, Irqs, World};

/// The last runs of a CPU's handler.
#[derive(Default)]
pub(super) struct Handler {
    /// When the run begins that was at work as the last one was asked for, if one was.
    at_work: Cell<u64>,
    /// From when to when the last run is.
    from: Cell<u64>,
    until: Cell<u64>,
    /// From when on, up to `until`, the handler works for nothing so far: whose CPU it is was
    /// waiting.
    unpaid_from: Cell<Option<u64>>,
    /// Requests wait until interrupts are on.
    is_pending: Cell<bool>,
}

impl World {
    /// `cpu` is interrupted by who is at `now`, and has the request at `sent`. Returns when its
    /// handler is done, but for interrupts that are off: then that is [`World::wait_for_irqs`]'s.
    ///
    /// The handler takes its time from the task that works there, if one does, and not from what
    /// that waits for on its CPU. A request that finds the handler at work waits for the next run,
    /// which takes all that came meanwhile. Source: `kernel/smp.c`
    /// (`flush_smp_call_function_queue()`).
    pub(super) fn interrupt(&self, cpu: u32, now: u64, sent: u64) -> u64 {
        let cpu = &self.cpus[cpu as usize];
        if cpu.irqs.get() == Irqs::On {
            self.handle(cpu, now, sent)
        } else {
            cpu.handler.is_pending.set(true);
            sent
        }
    }

    fn handle(&self, cpu: &CpuState, now: u64, sent: u64) -> u64 {
        let handler = &cpu.handler;
        let (from, until) = (handler.from.get(), handler.until.get());
        if (handler.at_work.get()..from).contains(&sent) {
            return until;
        }
        let ns = self.machine.ipi_handler_ns;
        let worker = cpu.worker(now).map(|task| self.task(task));
        let is_free = worker.is_some_and(|task| {
            use State::{Spins, WaitsForAnswers, WaitsForIrqs};
            matches!(task.state.get(), Spins { .. } | WaitsForIrqs(_) | WaitsForAnswers)
        });
        if let Some(task) = worker.filter(|_| !is_free) {
            task.stolen_ns.set(task.stolen_ns.get() + ns);
        }
        if sent < from {
            // Sent to fewer, it is there before one that was sent earlier.
            return sent + ns;
        }
        let begin = sent.max(until);
        handler.at_work.set(if begin > sent { from } else { begin });
        handler.from.set(begin);
        handler.until.set(begin + ns);
        if is_free && (handler.unpaid_from.get().is_none() || until < begin) {
            handler.unpaid_from.set(Some(begin));
        }
        begin + ns
    }

    /// Interrupts are on again at `now`: one run of the handler takes all requests.
    pub(super) fn handle_pending(&self, cpu: &CpuState, now: u64) {
        if cpu.handler.is_pending.replace(false) {
            self.handle(cpu, now, now);
        }
    }

    /// A task goes on that was waiting while its CPU was interrupted: once the handler is done if
    /// that is at work, else the handler will take its time from it.
    pub(super) fn end_wait(&self, this: &Task) {
        let handler = &self.cpus[this.cpu as usize].handler;
        let Some(from) = handler.unpaid_from.take() else { return };
        let (clock, until) = (this.clock.get(), handler.until.get());
        if clock >= from {
            this.clock.set(clock.max(until));
        } else {
            this.stolen_ns.set(this.stolen_ns.get() + until - from);
        }
    }
}
