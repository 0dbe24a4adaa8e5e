//! What the operations of a run mean for the pages they touch, written down for the oracle in
//! [`super::history`]. Only when asked for.
//!
//! The oracle must not be told more than is certain: where an operation may have stopped half
//! way, or where a word may change through another address, anything goes.

use super::history::{Event, MAPPED, R, Sets, W, What};
use super::interpret::{Starter, TaskRun};
use super::op::{Mmap, Mremap, OneAccess, Op, Range};
use super::run::lock;
use crate::design::Design;
use crate::mm::{Access, Errno, FileKind, Signal, VmFlags};
use crate::ops::access::{AccessFailure, AccessOutcome};
use crate::ops::exec::ExecArgs;
use crate::ops::madvise::Advice;
use crate::ops::mmap::MapFlags;
use crate::ops::mremap::RemapFlags;
use crate::platform::{Hazard, Platform, TaskId};

/// What a program does that the oracle cannot follow page by page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unfollowed {
    /// Shared memory: a word changes through other addresses.
    shared: bool,
    /// Mappings whose fresh pages need not read as 0.
    files: bool,
    /// Ranges that a child does not get, or gets empty.
    fork_advice: bool,
    /// Mappings that grow to where nothing is mapped.
    stacks: bool,
}

impl Unfollowed {
    pub fn of<'o>(ops: impl Iterator<Item = &'o Op>) -> Self {
        let mut found = Self::default();
        for op in ops {
            match op {
                Op::Mmap(mmap) => {
                    found.shared |= mmap.flags.has(MapFlags::SHARED);
                    found.files |= !is_private_anonymous(mmap);
                    found.stacks |= mmap.flags.has(MapFlags::GROWSDOWN);
                }
                Op::Exec(args) => found.stacks |= args.stack > 0,
                Op::Madvise(_, Advice::Dontfork | Advice::Wipeonfork) => found.fork_advice = true,
                // Copies go as well.
                Op::Truncate { .. } => found.shared = true,
                _ => {}
            }
        }
        found
    }
}

fn is_private_anonymous(mmap: &Mmap) -> bool {
    mmap.file.is_none() && !mmap.flags.has(MapFlags::SHARED)
}

const UNKNOWN: What = What::Change { prot: Sets::Unknown, content: Sets::Unknown };

impl<P: Platform, D: Design, S: Starter<P>> TaskRun<'_, P, D, S> {
    /// An operation begins: its events begin now.
    pub(super) fn begin_observed(&mut self) {
        if self.run.options.history {
            self.begin = self.cpu.moment();
        }
    }

    /// A call that may change mappings has returned, and nobody knows yet.
    pub(super) fn observe_call(&mut self, op: &Op, base: u64, ret: Result<u64, Errno>) {
        if !self.run.options.history {
            return;
        }
        let unfollowed = self.run.program.unfollowed;
        match *op {
            Op::Mmap(ref mmap) => self.observe_mmap(mmap, base, ret),
            Op::Munmap(range) => {
                let what = if ret.is_ok() { self.unmapped() } else { UNKNOWN };
                self.observe_range(range, base, ret, what);
            }
            Op::Mprotect(range, prot) => {
                let prot = if ret.is_ok() { Sets::To(letters(prot)) } else { Sets::Unknown };
                let what = What::Change { prot, content: Sets::Nothing };
                self.observe_range(range, base, ret, what);
            }
            Op::Madvise(range, Advice::Dontneed) => {
                // A hole is passed over: who unmaps there at the same time may not have flushed
                // yet, and what it drops can still be read.
                let known = ret.is_ok() && !unfollowed.files;
                let content = if known { Sets::To(0) } else { Sets::Unknown };
                let what = What::Change { prot: Sets::Nothing, content };
                self.observe_range(range, base, ret, what);
            }
            Op::Mremap(ref mremap) => self.observe_mremap(mremap, base, ret),
            // What it held, or nothing: that is up to reclaim.
            Op::Madvise(range, Advice::Free) => {
                let what = What::Change { prot: Sets::Nothing, content: Sets::Unknown };
                self.observe_range(range, base, ret, what);
            }
            Op::OomReap => {
                // Children find zeroes, nobody else anything.
                let what = What::Change { prot: Sets::Nothing, content: Sets::Unknown };
                self.observe(0, self.k.config.arch.task_size, what);
            }
            Op::Brk { delta, .. } => self.observe_brk(delta, ret),
            Op::Fork { child, .. } if ret.is_ok() => self.observe_fork(child),
            Op::Exec(ref args) if ret.is_ok() && args.stack > 0 => self.observe_stack(args),
            _ => {}
        }
    }

    fn observe_mmap(&mut self, mmap: &Mmap, base: u64, ret: Result<u64, Errno>) {
        let fixed = mmap.flags.has(MapFlags::FIXED);
        let file = mmap.file.map(|number| self.run.program.files[number as usize].kind);
        let hugetlb = mmap.flags.has(MapFlags::HUGETLB) || file == Some(FileKind::Hugetlb);
        let length = if hugetlb { self.k.huge_page_align(mmap.length) } else { mmap.length };
        match (ret, mmap.hint) {
            (Ok(address), _) => {
                let known = is_private_anonymous(mmap);
                let content = if known { Sets::To(0) } else { Sets::Unknown };
                let prot = Sets::To(letters(mmap.prot));
                self.observe(address, length, What::Change { prot, content });
                if mmap.flags.has(MapFlags::GROWSDOWN) {
                    self.observe_growth(address);
                }
            }
            // What was there may be gone.
            (Err(_), Some(hint)) if fixed => {
                self.observe(hint.resolve(base), length, UNKNOWN);
            }
            (Err(_), _) => {}
        }
    }

    /// What unmapping makes of pages. Where a stack may grow, nobody says when it does; what is
    /// mapped then reads as 0.
    fn unmapped(&self) -> What {
        let stacks = self.run.program.unfollowed.stacks;
        let prot = if stacks { Sets::Unknown } else { Sets::To(0) };
        What::Change { prot, content: Sets::To(0) }
    }

    /// Below `address` something may grow down from now on.
    fn observe_growth(&mut self, address: u64) {
        let below = address.min(self.k.config.system.stack_limit);
        let what = What::Change { prot: Sets::Unknown, content: Sets::Nothing };
        self.observe(address - below, below, what);
    }

    /// The pages of a new stack, and where it may have been given room and may grow.
    fn observe_stack(&mut self, args: &ExecArgs) {
        let task_size = self.k.config.arch.task_size;
        let end = self.k.page_align(task_size - args.stack_shift);
        let length = self.k.page_align(args.stack + 8); // and a null pointer
        self.observe_growth(end);
        let what = What::Change { prot: Sets::To(MAPPED | R | W), content: Sets::To(0) };
        self.observe(end - length, length, what);
    }

    fn observe_mremap(&mut self, mremap: &Mremap, base: u64, ret: Result<u64, Errno>) {
        let from = mremap.at.resolve(base);
        let [old, new] = [mremap.old_length, mremap.new_length].map(|len| self.k.page_align(len));
        let (kept, rest) = (old.min(new), from.wrapping_add(new));
        let content = if self.run.program.unfollowed.files { Sets::Unknown } else { Sets::To(0) };
        let grown = What::Change { prot: Sets::Unknown, content };
        match ret {
            Ok(to) if to == from => {
                self.observe(from.wrapping_add(old), new.saturating_sub(old), grown);
                self.observe(rest, old.saturating_sub(new), self.unmapped());
            }
            // A second mapping of shared memory.
            Ok(to) if old == 0 => self.observe(to, new, UNKNOWN),
            Ok(to) => {
                self.observe(to, kept, What::Moved { from: from >> self.k.page_shift() });
                self.observe(to.wrapping_add(old), new.saturating_sub(old), grown);
                // A source that cannot be split, for want of memory, stays: mremap succeeds.
                let stays = self.cpu.has_met(Hazard::FailedAllocation);
                self.observe(from, old, if stays { UNKNOWN } else { self.unmapped() });
                if self.run.program.unfollowed.stacks {
                    self.observe_growth(to);
                }
            }
            // What was at the new place may be gone, and the tail of the old one.
            Err(_) if mremap.flags.has(RemapFlags::FIXED) => {
                self.observe(mremap.to.resolve(0), new, UNKNOWN);
                self.observe(rest, old.saturating_sub(new), UNKNOWN);
            }
            Err(_) => {}
        }
    }

    /// A refused argument changes nothing; any other error may come half way, at a mapping that
    /// this cannot be done with.
    fn observe_range(&mut self, range: Range, base: u64, ret: Result<u64, Errno>, what: What) {
        let start = range.at.resolve(base);
        let valid = self.k.offset_in_page(start) == 0 && start.checked_add(range.length).is_some();
        if ret != Err(Errno::Einval) || valid {
            self.observe(start, range.length, what);
        }
    }

    /// The heap from the old break to the new one, in whole pages.
    fn observe_brk(&mut self, delta: i64, ret: Result<u64, Errno>) {
        let page_size = self.k.page_size();
        let up = |address: u64| address.next_multiple_of(page_size);
        let Ok(brk) = ret else { return };
        let (old, new) = (up(brk.wrapping_sub(delta as u64)), up(brk));
        if new > old {
            let what = What::Change { prot: Sets::To(MAPPED | R | W), content: Sets::To(0) };
            self.observe(old, new - old, what);
        } else if new < old {
            self.observe(new, old - new, self.unmapped());
        }
    }

    fn observe_fork(&mut self, child: TaskId) {
        let mms = [self.cpu.task(), child].map(|task| self.mm_number(task));
        let end = self.cpu.moment();
        let nr_pages = u64::MAX;
        let what = What::Forked { parent: mms[0] };
        let event = Event { begin: self.begin, end, mm: mms[1], first_page: 0, nr_pages, what };
        self.end.history.push(event);
        if self.run.program.unfollowed.fork_advice {
            self.end.history.push(Event { what: UNKNOWN, ..event });
        }
    }

    /// An access is over.
    pub(super) fn observe_access(
        &mut self,
        access: &OneAccess,
        address: u64,
        outcome: &AccessOutcome,
    ) {
        if !self.run.options.history {
            return;
        }
        let OneAccess { access, value, .. } = *access;
        match outcome.result {
            Ok(word) => {
                let value = if access == Access::Write { value } else { word };
                self.observe(address, 1, What::Accessed { access, value });
                if access == Access::Write && self.run.program.unfollowed.shared {
                    let what = What::Change { prot: Sets::Nothing, content: Sets::Unknown };
                    self.observe(address, 1, what);
                }
            }
            Err(AccessFailure::Signal(signal)) if signal.number == Signal::ACCERR.number => {
                let mapped = [Signal::ACCERR, Signal::PKUERR].contains(&signal);
                self.observe(address, 1, What::Denied { access, mapped });
            }
            Err(AccessFailure::Livelock) => self.observe(address, 1, What::Livelock { access }),
            // Nothing behind the mapping, out of memory, or unknown why.
            Err(_) => {}
        }
    }

    /// Writes down an event of the current operation that ends now.
    fn observe(&mut self, address: u64, length: u64, what: What) {
        if length == 0 && matches!(what, What::Change { .. }) {
            return; // mprotect, madvise, mremap and brk of nothing
        }
        let shift = self.k.page_shift();
        let first_page = address >> shift;
        let last_page = address.wrapping_add(length.saturating_sub(1)) >> shift;
        let nr_pages = last_page.wrapping_sub(first_page).wrapping_add(1);
        let mm = self.mm_number(self.cpu.task());
        let end = self.cpu.moment();
        let event = Event { begin: self.begin, end, mm, first_page, nr_pages, what };
        self.end.history.push(event);
    }

    /// The number of the address space that `task` has: unique over the run.
    fn mm_number(&self, task: TaskId) -> u32 {
        let mm = self.k.tasks[task as usize].mm.get();
        let mut known = lock(&self.run.mms);
        let number = known.iter().position(|&other| other == mm).unwrap_or_else(|| {
            known.push(mm);
            known.len() - 1
        });
        number as u32
    }
}

/// The protection of mapped pages, as the oracle writes it.
fn letters(prot: VmFlags) -> u8 {
    MAPPED | prot.0 as u8 & 7
}

#[cfg(test)]
#[path = "../../tests/unit/program/observe.rs"]
mod tests;
