//! System calls, and what the program format adds to them.

use super::interpret::{Starter, TaskRun};
use super::op::{Mmap, Mremap, Op, Range, Sysctl};
use super::record::Outcome;
use super::result::NoteMaps;
use super::run::lock;
use super::sync::{Stop, Wait};
use crate::design::Design;
use crate::mm::{Errno, Signal};
use crate::ops::exec::{ExecArgs, ExecFailure};
use crate::ops::mmap::MmapArgs;
use crate::ops::mremap::MremapArgs;
use crate::platform::{Ordering, Platform, TaskId};

/// What an id names when the call that sets it failed: `MAP_FAILED`.
const MAP_FAILED: u64 = u64::MAX;

/// What a call returned.
type Ret = Result<u64, Errno>;

impl<P: Platform, D: Design, S: Starter<P>> TaskRun<'_, P, D, S> {
    /// Runs an operation that is no access; waits for what it waits for once it is done.
    pub(super) fn system_call(&mut self, op: &Op, base: u64) -> Result<(), Stop> {
        let before = self.counters();
        self.begin_observed();
        let ret = match self.call(op, base) {
            Err(Stop::Sigkill) => {
                let Signal { number, code } = Signal::OOM_KILL;
                let killed = Outcome { signal: number, si_code: code, ..Outcome::default() };
                self.record(op, before, killed);
                return Err(Stop::Killed);
            }
            ret => ret?,
        };
        if !matches!(op, Op::Fork { .. }) {
            self.observe_call(op, base, ret);
        }
        if let Some(id) = defined_id(op) {
            self.run.sync.set_id(self.cpu, id, ret.unwrap_or(MAP_FAILED));
        }
        if let (Ok(_), Some(wait)) = (ret, wait_after(op)) {
            self.run.sync.wait(self.cpu, wait)?;
        }
        let (ret, errno) = match ret {
            Ok(ret) => (ret as i64, 0),
            Err(errno) => (-1, errno as i32),
        };
        self.record(op, before, Outcome { ret: Some(ret), errno, ..Outcome::default() });
        if *op == Op::Exit { Err(Stop::Exit) } else { Ok(()) }
    }

    fn call(&mut self, op: &Op, base: u64) -> Result<Ret, Stop> {
        let (k, cpu) = (self.k, self.cpu);
        let zero = |()| 0;
        Ok(match *op {
            Op::Mmap(ref mmap) => self.mmap(mmap, base),
            Op::Munmap(range) => k.sys_munmap(cpu, range.at.resolve(base), range.length).map(zero),
            Op::Mprotect(range, prot) => {
                k.sys_mprotect(cpu, range.at.resolve(base), range.length, prot).map(zero)
            }
            Op::Mremap(ref mremap) => self.mremap(mremap, base),
            Op::Madvise(range, advice) => {
                k.sys_madvise(cpu, range.at.resolve(base), range.length, advice).map(zero)
            }
            Op::Mbind { range: Range { at, length }, mode, nodes } => {
                k.sys_mbind(cpu, at.resolve(base), length, mode, nodes).map(zero)
            }
            Op::SetMempolicy { mode, nodes } => k.sys_set_mempolicy(cpu, mode, nodes).map(zero),
            Op::Mlock { range, onfault } => {
                k.sys_mlock(cpu, range.at.resolve(base), range.length, onfault).map(zero)
            }
            Op::Munlock(range) => {
                k.sys_munlock(cpu, range.at.resolve(base), range.length).map(zero)
            }
            Op::Brk { delta, start, .. } => k.sys_brk(cpu, delta, start),
            Op::Fork { child, .. } => {
                let forked = k.sys_fork(cpu, child);
                self.observe_call(op, base, forked.map(zero));
                if forked.is_ok() {
                    self.start(child, true);
                }
                forked.map(zero)
            }
            Op::Vfork { child, .. } | Op::Clone { child } => {
                k.sys_clone_vm(cpu, child);
                self.start(child, matches!(op, Op::Vfork { .. }));
                Ok(0)
            }
            Op::Exec(args) => return self.exec(args),
            Op::Sysctl { which, value } => self.sysctl(which, value).map(zero),
            Op::Truncate { file, length } => {
                k.sys_ftruncate(cpu, self.run.file(Some(file)), length).map(zero)
            }
            _ => {
                self.no_call(op);
                self.by_the_kernel(op, base).map(zero)
            }
        })
    }

    /// What the kernel does by itself, or for somebody else, when a program says so.
    fn by_the_kernel(&self, op: &Op, base: u64) -> Result<(), Errno> {
        let (k, cpu) = (self.k, self.cpu);
        match *op {
            Op::SwapOut { range: Range { at, length }, keep_cache } => {
                k.swap_out(cpu, at.resolve(base), length, keep_cache)
            }
            Op::Collapse(at) => k.collapse(cpu, at.resolve(base)),
            Op::NumaScan(range) => k.numa_scan(cpu, range.at.resolve(base), range.length),
            Op::KsmScan(range) => k.ksm_scan(cpu, range.at.resolve(base), range.length),
            Op::ClearRefs { what } => k.clear_refs(cpu, what),
            Op::Rebind { nodes } => k.rebind(cpu, nodes),
            Op::Notifier { on } => k.notifier(cpu, on),
            Op::OomReap => {
                k.oom_reap(cpu);
                Ok(())
            }
            Op::Migrate { range: Range { at, length }, node } => {
                k.migrate(cpu, at.resolve(base), length, node)
            }
            Op::Userfaultfd { range: Range { at, length }, register } => {
                k.userfaultfd_change(cpu, at.resolve(base), length, register)
            }
            _ => Ok(()),
        }
    }

    /// What is no system call, before what it waits for.
    fn no_call(&mut self, op: &Op) {
        match *op {
            Op::Compute { ns } => self.cpu.pass_ns(ns, true),
            Op::Sleep { ns } => self.cpu.pass_ns(ns, false),
            // Each `post` counts once, however often it runs.
            Op::Post { name } if self.round() == 0 => self.run.sync.post(self.cpu, name),
            Op::Note => self.note(),
            _ => {}
        }
    }

    fn mmap(&self, mmap: &Mmap, base: u64) -> Ret {
        let args = MmapArgs {
            address: mmap.hint.map_or(0, |hint| hint.resolve(base)),
            length: mmap.length,
            prot: mmap.prot,
            flags: mmap.flags,
            file: self.run.file(mmap.file),
            offset: mmap.offset,
        };
        self.k.sys_mmap(self.cpu, &args)
    }

    fn mremap(&self, mremap: &Mremap, base: u64) -> Ret {
        let args = MremapArgs {
            address: mremap.at.resolve(base),
            old_length: mremap.old_length,
            new_length: mremap.new_length,
            flags: mremap.flags,
            new_address: mremap.to.resolve(0),
        };
        self.k.sys_mremap(self.cpu, args)
    }

    fn start(&self, child: TaskId, new_process: bool) {
        self.run.sync.start(self.cpu, child, new_process);
        self.starter.start(self.cpu, child);
    }

    /// A new address space; then the other tasks of the process end, and the old one is left.
    fn exec(&self, args: ExecArgs) -> Result<Ret, Stop> {
        let alone = || self.run.sync.become_alone(self.cpu);
        match self.k.sys_exec(self.cpu, args, alone)? {
            Ok(()) => {
                self.run.sync.left_mm(self.cpu);
                Ok(Ok(0))
            }
            Err(ExecFailure::Errno(errno)) => Ok(Err(errno)),
            Err(ExecFailure::Killed) => Err(Stop::Sigkill),
        }
    }

    /// Source: `kernel/sysctl.c`, v5.1; P31. Any value but 0 turns speculation on.
    fn sysctl(&self, which: Sysctl, value: i64) -> Result<(), Errno> {
        let (word, lowest) = match which {
            Sysctl::SpeculativePageFault => {
                (&self.k.sysctl_speculative_page_fault, i64::from(i32::MIN))
            }
            Sysctl::PageCluster => (&self.k.sysctl_page_cluster, 0),
            Sysctl::MaxMapCount => (&self.k.sysctl_max_map_count, 0),
        };
        if !(lowest..=i64::from(i32::MAX)).contains(&value) {
            return Err(Errno::Einval);
        }
        self.cpu.store(word, value as u64, Ordering::Relaxed);
        Ok(())
    }

    fn note(&mut self) {
        let now = self.cpu.now_ns();
        self.end.noted_ns = Some((self.end.noted_ns.map_or(now, |(first, _)| first), now));
        let (task, index) = (self.cpu.task(), self.index as u32);
        if self.run.program.note_maps.contains(&(task, index)) {
            let note = NoteMaps { task, index, round: self.round(), maps: self.maps() };
            lock(&self.run.note_maps).push(note);
        }
    }
}

/// The id that the operation names the address by that it returns.
fn defined_id(op: &Op) -> Option<u32> {
    match *op {
        Op::Mmap(Mmap { id, .. }) | Op::Mremap(Mremap { id, .. }) | Op::Brk { id, .. } => id,
        _ => None,
    }
}

/// What the operation waits for once it is done.
fn wait_after(op: &Op) -> Option<Wait> {
    match *op {
        Op::Barrier { name } => Some(Wait::Barrier(name)),
        Op::Await { name } => Some(Wait::Posts(name)),
        Op::Wait { child } | Op::Fork { child, wait: true } | Op::Vfork { child, wait: true } => {
            Some(Wait::End(child))
        }
        Op::Vfork { child, wait: false } => Some(Wait::LeftMm(child)),
        _ => None,
    }
}
