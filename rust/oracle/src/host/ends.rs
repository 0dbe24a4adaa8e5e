//! How tasks, processes and the run end, and what is kept of them.

use spfemu_core::program::{NoteMaps, RunResult};

use super::procfs;
use super::sys::Pid;
use super::tasks::Run;
use super::tracer::Fail;
use crate::HostRun;

impl Run<'_> {
    /// Ends a task; the last of a process leaves its maps.
    pub fn end_task(&mut self, task: usize) -> Result<(), Fail> {
        let (thread, process) = (self.thread(task), self.tasks[task].process);
        self.tasks[task].thread = None;
        let is_last = self.live_tasks(process).next().is_none();
        if is_last {
            self.processes[process].maps = self.maps(thread)?;
        }
        self.host.tracer.exit(thread, self.processes[process].pid, is_last)?;
        self.processes[process].has_ended = is_last;
        Ok(())
    }

    /// The tasks of a process that have not ended.
    pub fn live_tasks(&self, process: usize) -> impl Iterator<Item = usize> + '_ {
        let all = self.tasks.iter().enumerate();
        all.filter(move |(_, task)| task.process == process && task.thread.is_some())
            .map(|(task, _)| task)
    }

    pub fn maps(&self, thread: Pid) -> Result<Vec<String>, Fail> {
        procfs::program_maps(thread, self.host.tracer.island).map_err(Fail::of("/proc/PID/maps"))
    }

    /// Keeps what a `note` asks for.
    pub fn note(&mut self, task: usize) -> Result<(), Fail> {
        let place = (task as u32, self.index(task) as u32);
        if self.spec.note_maps.contains(&place) {
            let (maps, round) = (self.maps(self.thread(task))?, self.round(task));
            self.note_maps.push(NoteMaps { task: place.0, index: place.1, round, maps });
        }
        Ok(())
    }

    /// The maps of processes that will never end.
    pub fn keep_last_maps(&mut self) -> Result<(), Fail> {
        for process in 0..self.processes.len() {
            let live = self.live_tasks(process).next();
            if let Some(task) = live {
                self.processes[process].maps = self.maps(self.thread(task))?;
            }
        }
        Ok(())
    }

    /// The processes that have not ended.
    pub fn live_processes(&self) -> Vec<Pid> {
        let live = self.processes.iter().filter(|process| !process.has_ended);
        live.map(|process| process.pid).collect()
    }

    pub fn finish(&mut self) -> HostRun {
        let all = 0..self.tasks.len() as u32;
        let stuck = all.filter(|&task| self.tasks[task as usize].thread.is_some()).collect();
        let mut note_maps = std::mem::take(&mut self.note_maps);
        note_maps.sort_by_key(|note| (note.task, note.index, note.round));
        let maps = self.processes.iter_mut();
        let result = RunResult {
            counters: self.counters,
            outcomes: self.tasks.iter().flat_map(|task| &task.outcomes).copied().collect(),
            maps: maps.map(|process| (process.first, std::mem::take(&mut process.maps))).collect(),
            proc: Vec::new(),
            note_maps,
            rounds: self.tasks.iter().map(|task| task.rounds).collect(),
            stuck,
            ..RunResult::default()
        };
        HostRun {
            result,
            counting: self.counting,
            island: self.host.tracer.island,
            turns: std::mem::take(&mut self.turns),
        }
    }

    /// A failure with the place where it came up.
    pub fn placed(&self, fail: Fail) -> Fail {
        let (task, index) = self.at;
        let at = |what: String| format!("tasks[{task}]: record {index}: {what}");
        match fail {
            Fail::Over => Fail::Over,
            Fail::Refused(what) => Fail::Refused(at(what)),
            Fail::Host(what) => Fail::Host(at(what)),
        }
    }
}
