//! From a record to what is asked of the host: every field is checked against what it may be.
//!
//! All operations of the format that change nothing but the process are here, also those that the
//! emulator does not have. Which of them a program may use, the format's table in the package says.

use spfemu_core::program::{ProgramSpec, Record};

use super::op::{
    ADVICES, At, MMAP_FLAGS, MREMAP_FLAGS, Mmap, Mremap, Op, Order, POLICIES, Range, RangeCall,
    Repeat, TaskProgram, Touch,
};
use super::tracer::Access;

const PAGE_SIZE: u64 = 4096;
/// Flag bit: the optional address is given.
const GIVEN: u32 = 1 << 31;

/// The tasks of a program, or what is wrong with a record.
pub fn tasks(spec: &ProgramSpec<'_>) -> Result<Vec<TaskProgram>, String> {
    spec.tasks
        .iter()
        .enumerate()
        .map(|(number, task)| {
            let at = |what: String| format!("tasks[{number}]: {what}");
            let mut ops = Vec::new();
            for (index, record) in Record::read_all(task.records).map_err(at)?.iter().enumerate() {
                let op = Decoder { record, spec }.op();
                let op = op.map_err(|wrong| at(format!("record {index}: {wrong}")))?;
                ops.push((op, record.op));
            }
            match_brackets(&mut ops).map_err(at)?;
            Ok(TaskProgram { start: task.start, ops })
        })
        .collect()
}

/// Tells each bracket where its partner is.
fn match_brackets(ops: &mut [(Op, u16)]) -> Result<(), String> {
    let mut open = Vec::new();
    for index in 0..ops.len() {
        match ops[index].0 {
            Op::Repeat(_) => open.push(index),
            Op::End { .. } => {
                let start =
                    open.pop().ok_or_else(|| format!("record {index}: closes no repeat"))?;
                ops[index].0 = Op::End { repeat: start };
                if let Op::Repeat(repeat) = &mut ops[start].0 {
                    repeat.end = index;
                }
            }
            _ => {}
        }
    }
    if open.is_empty() { Ok(()) } else { Err("a repeat is not closed".to_owned()) }
}

fn wrong<T>(field: &str, value: impl std::fmt::Display, allowed: &str) -> Result<T, String> {
    Err(format!("field '{field}': value {value} (allowed: {allowed})"))
}

struct Decoder<'a> {
    record: &'a Record,
    spec: &'a ProgramSpec<'a>,
}

impl Decoder<'_> {
    fn op(&self) -> Result<Op, String> {
        let record = self.record;
        let wait = record.flags & 1 != 0;
        Ok(match record.op {
            1 => Op::Mmap(self.mmap()?),
            2..=3 | 5..=8 => Op::Range(self.range_call()?, self.range()?),
            4 => Op::Mremap(self.mremap()?),
            9 => Op::SetMempolicy { mode: self.policy()?, nodes: record.value },
            10 => Op::Brk {
                delta: record.addr,
                id: self.define(i64::from(record.base2))?,
                start: self.given(record.addr2),
            },
            11 => Op::Fork { child: self.task()?, wait },
            12 => Op::Vfork { child: self.task()?, wait },
            13 => Op::Wait { child: self.task()? },
            14 => Op::Clone { child: self.task()? },
            15 => Op::Exec { brk_start: self.given(record.addr) },
            16 => Op::Exit,
            17..=19 => Op::Access {
                access: self.access(record.op as u8 - 17)?,
                user: self.user()?,
                at: self.at()?,
                value: record.value,
            },
            20 => Op::Touch(self.touch()?),
            21 | 22 => Op::Pause,
            23 => Op::Barrier { name: self.name()? },
            24 => Op::Post { name: self.name()? },
            25 => Op::Await { name: self.name()? },
            26 => Op::Repeat(self.repeat()),
            27 => Op::End { repeat: 0 },
            29 => Op::Note,
            36 => {
                let file = self.index(self.spec.files.len() as u32, "the number of a file")?;
                Op::Truncate { file, length: record.length }
            }
            other => return wrong("op", other, "what changes nothing but the process"),
        })
    }

    fn mmap(&self) -> Result<Mmap, String> {
        let record = self.record;
        Ok(Mmap {
            hint: if record.flags & GIVEN != 0 { Some(self.at()?) } else { None },
            length: record.length,
            prot: self.prot()?,
            flags: bits("flags", record.flags & !GIVEN, &MMAP_FLAGS)?,
            file: self.file()?,
            offset: record.value,
            id: self.define(i64::from(record.base2))?,
        })
    }

    fn mremap(&self) -> Result<Mremap, String> {
        let record = self.record;
        let target = At { id: self.id(record.base2)?, offset: record.addr2 };
        Ok(Mremap {
            range: self.range()?,
            new_length: record.length2,
            flags: bits("flags", record.flags & !GIVEN, &MREMAP_FLAGS)?,
            target: (record.flags & GIVEN != 0).then_some(target),
            id: self.define(i64::from(record.aux) - 1)?,
        })
    }

    fn range_call(&self) -> Result<RangeCall, String> {
        let record = self.record;
        Ok(match record.op {
            2 => RangeCall::Munmap,
            3 => RangeCall::Mprotect(self.prot()?),
            5 => match ADVICES.get(usize::from(record.advice)) {
                Some(advice) => RangeCall::Madvise(*advice as u64),
                None => return wrong("advice", record.advice, "0 to 19"),
            },
            6 => RangeCall::Mlock { onfault: record.flags & 1 != 0 },
            7 => RangeCall::Munlock,
            _ => RangeCall::Mbind { mode: self.policy()?, nodes: record.value },
        })
    }

    fn touch(&self) -> Result<Touch, String> {
        let record = self.record;
        let order = match record.flags {
            0 => Order::Forward,
            1 => Order::Backward,
            2 => Order::Random,
            other => return wrong("flags", other, "0 forward, 1 backward, 2 random"),
        };
        let stride = if record.length2 == 0 { PAGE_SIZE } else { record.length2 };
        if u32::try_from(record.length.div_ceil(stride)).is_err() {
            return wrong("length", record.length, "fewer than 2^32 accesses");
        }
        Ok(Touch {
            access: self.access(record.access)?,
            user: self.user()?,
            order,
            range: self.range()?,
            stride,
            seed: record.addr2 as u64,
            value: record.value,
        })
    }

    fn repeat(&self) -> Repeat {
        let record = self.record;
        let (count, for_ns) = match (record.flags & 1, record.length2) {
            (0, _) => (record.value, 0),
            (_, 0) => (u64::MAX, record.length),
            (_, most) => (most, record.length),
        };
        Repeat { count, for_ns, end: 0 }
    }

    fn access(&self, number: u8) -> Result<Access, String> {
        match number {
            0 => Ok(Access::Read),
            1 => Ok(Access::Write),
            2 => Ok(Access::Execute),
            other => wrong("access", other, "0 read, 1 write, 2 execute"),
        }
    }

    fn user(&self) -> Result<bool, String> {
        match self.record.mode {
            0 => Ok(true),
            1 => Ok(false),
            mode => wrong("mode", mode, "0 user, 1 kernel"),
        }
    }

    fn at(&self) -> Result<At, String> {
        Ok(At { id: self.id(self.record.base)?, offset: self.record.addr })
    }

    fn range(&self) -> Result<Range, String> {
        Ok(Range { at: self.at()?, length: self.record.length })
    }

    fn id(&self, number: i32) -> Result<Option<u32>, String> {
        match u32::try_from(number) {
            Ok(id) if id < self.spec.nr_ids => Ok(Some(id)),
            Err(_) if number == -1 => Ok(None),
            _ => wrong("base", number, "-1, or the number of an id"),
        }
    }

    fn define(&self, number: i64) -> Result<Option<u32>, String> {
        self.id(i32::try_from(number).unwrap_or(i32::MAX))
    }

    fn given(&self, value: i64) -> Option<u64> {
        (self.record.flags & GIVEN != 0).then_some(value as u64)
    }

    /// `PROT_*`, which the format's bits are.
    fn prot(&self) -> Result<u64, String> {
        match self.record.prot {
            prot @ 0..=7 => Ok(prot.into()),
            prot => wrong("prot", prot, "0 to 7"),
        }
    }

    fn policy(&self) -> Result<u64, String> {
        match POLICIES.get(usize::from(self.record.advice)) {
            Some(policy) => Ok(*policy as u64),
            None => wrong("advice", self.record.advice, "0 to 4"),
        }
    }

    fn file(&self) -> Result<Option<u32>, String> {
        match self.record.aux {
            0 => Ok(None),
            file if file as usize <= self.spec.files.len() => Ok(Some(file - 1)),
            file => wrong("aux", file, "0, or the number of a file plus 1"),
        }
    }

    fn task(&self) -> Result<u32, String> {
        self.index(self.spec.tasks.len() as u32, "the number of a task")
    }

    fn name(&self) -> Result<u32, String> {
        self.index(self.spec.nr_names, "the number of a name")
    }

    fn index(&self, limit: u32, allowed: &str) -> Result<u32, String> {
        if self.record.aux < limit {
            return Ok(self.record.aux);
        }
        wrong("aux", self.record.aux, allowed)
    }
}

/// The host's bits for the format's, whose first is bit 0.
fn bits(field: &str, given: u32, table: &[i32]) -> Result<u64, String> {
    if given >> table.len() != 0 {
        return wrong(field, format!("{given:#x}"), &format!("{} bits", table.len()));
    }
    let hosts = table.iter().enumerate().filter(|(bit, _)| given >> bit & 1 != 0);
    Ok(hosts.fold(0, |all, (_, bit)| all | *bit as u64))
}

#[cfg(test)]
#[path = "../../tests/unit/decode.rs"]
mod tests;
