//! From a record to an operation: every field is checked against what it may be.

use super::load::FileSpec;
use super::op::{
    At, GIVEN, MAX_STACK_SHIFT, Mmap, Mremap, OneAccess, Op, Range, Repeat, Sysctl, Touch,
    TouchOrder,
};
use super::record::Record;
use crate::mm::{Access, FileKind, MpolMode, VmFlags};
use crate::ops::exec::ExecArgs;
use crate::ops::madvise::Advice;
use crate::ops::mmap::MapFlags;
use crate::ops::mremap::RemapFlags;
use crate::platform::TaskId;

/// What records point into.
pub(super) struct Tables<'a> {
    pub nr_ids: u32,
    pub nr_names: u32,
    pub nr_tasks: u32,
    pub files: &'a [FileSpec],
    pub texts: &'a [String],
}

/// What is wrong with a field of a record, as "field 'x': value y (allowed: z)".
type Wrong = String;

fn wrong(field: &str, value: impl std::fmt::Display, allowed: &str) -> Wrong {
    format!("field '{field}': value {value} (allowed: {allowed})")
}

impl Op {
    /// Decodes a record. Brackets get their partners later.
    pub fn decode(record: &Record, tables: &Tables<'_>) -> Result<Self, Wrong> {
        let decoder = Decoder { record, tables };
        match record.op {
            1..=7 => decoder.mapping_call(),
            8 => Ok(Self::Mbind {
                range: decoder.range()?,
                mode: decoder.policy()?,
                nodes: record.value,
            }),
            9 => Ok(Self::SetMempolicy { mode: decoder.policy()?, nodes: record.value }),
            10..=16 => decoder.task_call(),
            17..=20 => decoder.access(),
            21..=29 => decoder.other(),
            30 => Ok(Self::SwapOut { range: decoder.range()?, keep_cache: record.flags & 1 != 0 }),
            31 => Ok(Self::Collapse(decoder.at()?)),
            32 => Ok(Self::NumaScan(decoder.range()?)),
            33 => Ok(Self::KsmScan(decoder.range()?)),
            35 => Ok(Self::Migrate { range: decoder.range()?, node: record.value }),
            34 => Ok(Self::ClearRefs { what: record.value }),
            37 => Ok(Self::OomReap),
            38 => Ok(Self::Rebind { nodes: record.value }),
            39 => Ok(Self::Notifier { on: record.flags & 1 != 0 }),
            36 => Ok(Self::Truncate { file: decoder.file()?, length: record.length }),
            40 | 41 => Ok(Self::Userfaultfd { range: decoder.range()?, register: record.op == 40 }),
            _ => Err(decoder.unknown_op()),
        }
    }
}

struct Decoder<'a> {
    record: &'a Record,
    tables: &'a Tables<'a>,
}

impl Decoder<'_> {
    fn unknown_op(&self) -> Wrong {
        wrong("op", self.record.op, "the operations of `spfemu-program/1`")
    }

    fn mapping_call(&self) -> Result<Op, Wrong> {
        let record = self.record;
        match record.op {
            1 => self.mmap(),
            2 => Ok(Op::Munmap(self.range()?)),
            3 => Ok(Op::Mprotect(self.range()?, self.prot()?)),
            4 => self.mremap(),
            5 => Ok(Op::Madvise(self.range()?, self.advice()?)),
            6 => Ok(Op::Mlock { range: self.range()?, onfault: record.flags & 1 != 0 }),
            _ => Ok(Op::Munlock(self.range()?)),
        }
    }

    fn task_call(&self) -> Result<Op, Wrong> {
        let record = self.record;
        let wait = record.flags & 1 != 0;
        match record.op {
            10 => {
                let start = self.given(record.addr2);
                Ok(Op::Brk { delta: record.addr, id: self.define(record.base2)?, start })
            }
            11 => Ok(Op::Fork { child: self.child()?, wait }),
            12 => Ok(Op::Vfork { child: self.child()?, wait }),
            13 => Ok(Op::Wait { child: self.child()? }),
            14 => Ok(Op::Clone { child: self.child()? }),
            15 => self.exec(),
            _ => Ok(Op::Exit),
        }
    }

    fn exec(&self) -> Result<Op, Wrong> {
        let record = self.record;
        if record.length2 > MAX_STACK_SHIFT {
            return Err(wrong("length2", record.length2, "0 to 2^34 bytes"));
        }
        Ok(Op::Exec(ExecArgs {
            brk_start: self.given(record.addr),
            stack: record.length,
            stack_shift: record.length2,
        }))
    }

    fn access(&self) -> Result<Op, Wrong> {
        let record = self.record;
        let user = match record.mode {
            0 => true,
            1 => false,
            mode => return Err(wrong("mode", mode, "0 user, 1 kernel")),
        };
        if record.op == 20 {
            return self.touch(user);
        }
        let access = match record.op {
            17 => Access::Read,
            18 => Access::Write,
            _ => Access::Execute,
        };
        Ok(Op::Access(OneAccess { access, user, at: self.at()?, value: record.value }))
    }

    fn touch(&self, user: bool) -> Result<Op, Wrong> {
        let record = self.record;
        let access = match record.access {
            0 => Access::Read,
            1 => Access::Write,
            2 => Access::Execute,
            other => return Err(wrong("access", other, "0 read, 1 write, 2 execute")),
        };
        let order = match record.flags {
            0 => TouchOrder::Forward,
            1 => TouchOrder::Backward,
            2 => TouchOrder::Random,
            other => return Err(wrong("flags", other, "0 forward, 1 backward, 2 random")),
        };
        let range = self.range()?;
        let (stride, seed) = (record.length2, record.addr2 as u64);
        let touch = Touch { access, user, order, range, stride, seed, value: record.value };
        // 4096: the smallest page there is.
        match touch.nr_accesses(4096) {
            1..=0xffff_ffff => Ok(Op::Touch(touch)),
            _ => Err(wrong("length", range.length, "1 to 2^32-1 accesses")),
        }
    }

    fn other(&self) -> Result<Op, Wrong> {
        let record = self.record;
        match record.op {
            21 => Ok(Op::Compute { ns: record.value }),
            22 => Ok(Op::Sleep { ns: record.value }),
            23 => Ok(Op::Barrier { name: self.name()? }),
            24 => Ok(Op::Post { name: self.name()? }),
            25 => Ok(Op::Await { name: self.name()? }),
            26 => Ok(Op::Repeat(self.repeat()?)),
            27 => Ok(Op::End { repeat: 0 }),
            28 => self.sysctl(),
            _ => Ok(Op::Note),
        }
    }

    fn mmap(&self) -> Result<Op, Wrong> {
        let record = self.record;
        let hint = if record.flags & GIVEN != 0 { Some(self.at()?) } else { None };
        let file = match record.aux {
            0 => None,
            file if file as usize <= self.tables.files.len() => Some(file - 1),
            file => return Err(wrong("aux", file, "0, or the number of a file plus 1")),
        };
        Ok(Op::Mmap(Mmap {
            hint,
            length: record.length,
            prot: self.prot()?,
            flags: self.map_flags()?,
            file,
            offset: record.value,
            id: self.define(record.base2)?,
        }))
    }

    fn mremap(&self) -> Result<Op, Wrong> {
        let record = self.record;
        let known = RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0 | RemapFlags::DONTUNMAP.0;
        let flags = record.flags & !GIVEN;
        if flags & !known != 0 {
            return Err(wrong("flags", format!("{flags:#x}"), &format!("bits of {known:#x}")));
        }
        let to = match record.flags & GIVEN {
            0 => At { base: -1, offset: 0 },
            _ => self.at2()?,
        };
        let id = match record.aux {
            0 => None,
            id if id <= self.tables.nr_ids => Some(id - 1),
            id => return Err(wrong("aux", id, "0, or the number of an id plus 1")),
        };
        Ok(Op::Mremap(Mremap {
            at: self.at()?,
            old_length: record.length,
            new_length: record.length2,
            flags: RemapFlags(flags),
            to,
            id,
        }))
    }

    fn map_flags(&self) -> Result<MapFlags, Wrong> {
        let available = MapFlags::PRIVATE.0
            | MapFlags::SHARED.0
            | MapFlags::ANONYMOUS.0
            | MapFlags::FIXED.0
            | MapFlags::FIXED_NOREPLACE.0
            | MapFlags::POPULATE.0
            | MapFlags::LOCKED.0
            | MapFlags::NORESERVE.0
            | MapFlags::STACK.0
            | MapFlags::GROWSDOWN.0
            | MapFlags::HUGETLB.0;
        let flags = self.record.flags & !GIVEN;
        if flags & !available != 0 {
            return Err(wrong("flags", format!("{flags:#x}"), &format!("bits of {available:#x}")));
        }
        Ok(MapFlags(flags))
    }

    fn repeat(&self) -> Result<Repeat, Wrong> {
        let record = self.record;
        let (count, for_ns) = match (record.flags & 1, record.value, record.length) {
            (0, 0, _) => return Err(wrong("value", 0, "1 and more rounds")),
            (0, count, _) => (count, 0),
            (_, _, 0) => return Err(wrong("length", 0, "1 and more nanoseconds")),
            (_, _, for_ns) if record.length2 == 0 => (u64::MAX, for_ns),
            (_, _, for_ns) => (record.length2, for_ns),
        };
        Ok(Repeat { count, for_ns, end: 0, ordinal: 0 })
    }

    fn sysctl(&self) -> Result<Op, Wrong> {
        let text = self.tables.texts.get(self.record.aux as usize);
        let which = text.and_then(|name| Sysctl::by_name(name)).ok_or_else(|| {
            wrong("aux", self.record.aux, "the number of a text that names a sysctl")
        })?;
        Ok(Op::Sysctl { which, value: self.record.addr })
    }

    fn at(&self) -> Result<At, Wrong> {
        self.relative("base", self.record.base, self.record.addr)
    }

    fn at2(&self) -> Result<At, Wrong> {
        self.relative("base2", self.record.base2, self.record.addr2)
    }

    fn relative(&self, field: &str, base: i32, offset: i64) -> Result<At, Wrong> {
        if base < -1 || i64::from(base) >= i64::from(self.tables.nr_ids) {
            return Err(wrong(field, base, "-1, or the number of an id"));
        }
        Ok(At { base, offset })
    }

    fn range(&self) -> Result<Range, Wrong> {
        Ok(Range { at: self.at()?, length: self.record.length })
    }

    fn prot(&self) -> Result<VmFlags, Wrong> {
        match self.record.prot {
            prot @ 0..=7 => Ok(VmFlags(u64::from(prot))),
            prot => Err(wrong("prot", prot, "0 to 7")),
        }
    }

    fn advice(&self) -> Result<Advice, Wrong> {
        Ok(match self.record.advice {
            0 => Advice::Dontneed,
            1 => Advice::Free,
            2 => Advice::Willneed,
            3 => Advice::Normal,
            4 => Advice::Random,
            5 => Advice::Sequential,
            6 => Advice::Hugepage,
            7 => Advice::Nohugepage,
            8 => Advice::Dontfork,
            9 => Advice::Dofork,
            10 => Advice::Wipeonfork,
            11 => Advice::Keeponfork,
            12 => Advice::Dontdump,
            13 => Advice::Dodump,
            14 => Advice::Mergeable,
            15 => Advice::Unmergeable,
            16 => Advice::Pageout,
            17 => Advice::Cold,
            18 => Advice::PopulateRead,
            19 => Advice::PopulateWrite,
            other => return Err(wrong("advice", other, "0 to 19")),
        })
    }

    fn policy(&self) -> Result<MpolMode, Wrong> {
        Ok(match self.record.advice {
            0 => MpolMode::Default,
            1 => MpolMode::Bind,
            2 => MpolMode::Interleave,
            3 => MpolMode::Preferred,
            4 => MpolMode::Local,
            other => return Err(wrong("advice", other, "0 to 4")),
        })
    }

    fn define(&self, id: i32) -> Result<Option<u32>, Wrong> {
        if id == -1 {
            return Ok(None);
        }
        match u32::try_from(id) {
            Ok(id) if id < self.tables.nr_ids => Ok(Some(id)),
            _ => Err(wrong("base2", id, "-1, or the number of an id")),
        }
    }

    fn child(&self) -> Result<TaskId, Wrong> {
        if self.record.aux < self.tables.nr_tasks {
            return Ok(self.record.aux);
        }
        Err(wrong("aux", self.record.aux, "the number of a task"))
    }

    /// The file that `truncate` is about.
    fn file(&self) -> Result<u32, Wrong> {
        let number = self.record.aux;
        match self.tables.files.get(number as usize) {
            Some(file) if file.kind != FileKind::Hugetlb => Ok(number),
            _ => Err(wrong("aux", number, "the number of a file of another kind than hugetlb")),
        }
    }

    fn name(&self) -> Result<u32, Wrong> {
        if self.record.aux < self.tables.nr_names {
            return Ok(self.record.aux);
        }
        Err(wrong("aux", self.record.aux, "the number of a name"))
    }

    fn given(&self, address: i64) -> Option<u64> {
        (self.record.flags & GIVEN != 0).then_some(address as u64)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/program/decode.rs"]
mod tests;
