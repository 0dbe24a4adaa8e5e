//! Programs for tests: records by name.

use std::sync::Arc;

use crate::mm::{Config, FileKind, System, Variants};
use crate::program::{FileSpec, Program, ProgramError, ProgramSpec, RECORD_BYTES, Start, TaskSpec};

pub const MMAP: u16 = 1;
pub const MUNMAP: u16 = 2;
pub const MPROTECT: u16 = 3;
pub const MREMAP: u16 = 4;
pub const MADVISE: u16 = 5;
pub const MLOCK: u16 = 6;
pub const BRK: u16 = 10;
pub const FORK: u16 = 11;
pub const VFORK: u16 = 12;
pub const WAIT: u16 = 13;
pub const CLONE: u16 = 14;
pub const EXEC: u16 = 15;
pub const EXIT: u16 = 16;
pub const READ: u16 = 17;
pub const WRITE: u16 = 18;
pub const EXECUTE: u16 = 19;
pub const TOUCH: u16 = 20;
pub const SLEEP: u16 = 22;
pub const BARRIER: u16 = 23;
pub const POST: u16 = 24;
pub const AWAIT: u16 = 25;
pub const REPEAT: u16 = 26;
pub const END: u16 = 27;
pub const SYSCTL: u16 = 28;
pub const NOTE: u16 = 29;
pub const COLLAPSE: u16 = 31;

pub const PAGE: u64 = 4096;
pub(super) use crate::program::op::GIVEN;

/// A record with every field at its default.
#[derive(Clone, Copy, Debug)]
pub struct Rec {
    pub op: u16,
    pub flags: u32,
    pub prot: u8,
    pub access: u8,
    pub mode: u8,
    pub advice: u8,
    pub base: i32,
    pub addr: i64,
    pub length: u64,
    pub base2: i32,
    pub addr2: i64,
    pub length2: u64,
    pub value: u64,
    pub aux: u32,
}

pub fn rec(op: u16) -> Rec {
    Rec {
        op,
        flags: 0,
        prot: 0,
        access: 0,
        mode: 0,
        advice: 0,
        base: -1,
        addr: 0,
        length: 0,
        base2: -1,
        addr2: 0,
        length2: 0,
        value: 0,
        aux: 0,
    }
}

/// `mmap` of `pages` private anonymous pages, read and write, named by `id`.
pub fn mmap(pages: u64, id: i32) -> Rec {
    Rec { prot: 3, flags: 5, length: pages * PAGE, base2: id, ..rec(MMAP) }
}

/// An operation on `pages` pages at an id, from page `page` of it.
pub fn range(op: u16, id: i32, page: i64, pages: u64) -> Rec {
    Rec { base: id, addr: page * PAGE as i64, length: pages * PAGE, ..rec(op) }
}

/// `mremap` of `old` pages at page `page` of an id, to `new` pages.
pub fn mremap(id: i32, page: i64, old: u64, new: u64) -> Rec {
    Rec { flags: 1, length2: new * PAGE, ..range(MREMAP, id, page, old) }
}

/// The same to page `to` of another id.
pub fn mremap_to(from: (i32, i64), to: (i32, i64), old: u64, new: u64) -> Rec {
    let (base2, addr2) = (to.0, to.1 * PAGE as i64);
    Rec { flags: 3 | GIVEN, base2, addr2, ..mremap(from.0, from.1, old, new) }
}

pub fn write(id: i32, page: i64, value: u64) -> Rec {
    Rec { value, length: 0, ..range(WRITE, id, page, 0) }
}

pub fn read(id: i32, page: i64) -> Rec {
    range(READ, id, page, 0)
}

/// `touch` of `pages` pages, writing 1.
pub fn touch(id: i32, pages: u64) -> Rec {
    Rec { access: 1, value: 1, ..range(TOUCH, id, 0, pages) }
}

/// An operation whose `aux` is a task or a name.
pub fn aux(op: u16, aux: u32) -> Rec {
    Rec { aux, ..rec(op) }
}

pub fn repeat(count: u64) -> Rec {
    Rec { value: count, ..rec(REPEAT) }
}

pub fn packed(records: &[Rec]) -> Vec<u8> {
    let mut out = Vec::new();
    for r in records {
        out.extend(r.op.to_le_bytes());
        out.extend(r.flags.to_le_bytes());
        out.extend([r.prot, r.access, r.mode, r.advice]);
        out.extend(r.base.to_le_bytes());
        out.extend(r.addr.to_le_bytes());
        out.extend(r.length.to_le_bytes());
        out.extend(r.base2.to_le_bytes());
        out.extend(r.addr2.to_le_bytes());
        out.extend(r.length2.to_le_bytes());
        out.extend(r.value.to_le_bytes());
        out.extend(r.aux.to_le_bytes());
    }
    assert_eq!(out.len(), records.len() * RECORD_BYTES);
    out
}

/// A program of these tasks with 8 ids, 8 names, and one regular file of 16 pages.
pub fn try_program(tasks: &[(Start, &[Rec])]) -> Result<Program, ProgramError> {
    let packed: Vec<(Start, Vec<u8>)> =
        tasks.iter().map(|(start, records)| (*start, packed(records))).collect();
    let texts = ["vm.speculative_page_fault", "vm.max_map_count", "a note"].map(str::to_owned);
    Program::new(&ProgramSpec {
        tasks: packed.iter().map(|(start, records)| TaskSpec { start: *start, records }).collect(),
        nr_ids: 8,
        nr_names: 8,
        texts: &texts,
        files: vec![FileSpec { length: 16 * PAGE, kind: FileKind::Regular, cached: true }],
        note_maps: vec![(0, 3)],
    })
}

pub fn program(tasks: &[(Start, &[Rec])]) -> Arc<Program> {
    Arc::new(try_program(tasks).unwrap())
}

/// x86 with `memory` bytes.
pub fn config(memory: u64) -> Config {
    Config {
        arch: crate::arch::Arch::builtin().remove(0),
        system: System { memory, ..System::default() },
        variants: Variants::outside_explore(),
        nr_cpus: 1,
        nr_tasks: 1,
    }
}
