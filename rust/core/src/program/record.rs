//! The array form: packed little-endian records in, packed outcomes out.
//!
//! Source: the program format, "The array form"; `OP_DTYPE` and `OUTCOME_DTYPE` of the package.

use crate::events::NR_EVENTS;

/// Bytes of one operation.
pub const RECORD_BYTES: usize = 62;
/// Bytes of one outcome.
pub const OUTCOME_BYTES: usize = 50 + 4 * NR_EVENTS;

/// One operation as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Record {
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

impl Record {
    /// The records of a task, or why these bytes are none.
    pub fn read_all(bytes: &[u8]) -> Result<Vec<Self>, String> {
        let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
        if !rest.is_empty() {
            let bytes = bytes.len();
            return Err(format!("{bytes} bytes (allowed: a multiple of {RECORD_BYTES})"));
        }
        if u32::try_from(records.len()).is_err() {
            return Err(format!("{} records (allowed: fewer than 2^32)", records.len()));
        }
        Ok(records.iter().map(Self::read).collect())
    }

    pub(super) fn read(bytes: &[u8; RECORD_BYTES]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            prot: u8::from_le_bytes(take(&mut rest)),
            access: u8::from_le_bytes(take(&mut rest)),
            mode: u8::from_le_bytes(take(&mut rest)),
            advice: u8::from_le_bytes(take(&mut rest)),
            base: i32::from_le_bytes(take(&mut rest)),
            addr: i64::from_le_bytes(take(&mut rest)),
            length: u64::from_le_bytes(take(&mut rest)),
            base2: i32::from_le_bytes(take(&mut rest)),
            addr2: i64::from_le_bytes(take(&mut rest)),
            length2: u64::from_le_bytes(take(&mut rest)),
            value: u64::from_le_bytes(take(&mut rest)),
            aux: u32::from_le_bytes(take(&mut rest)),
        }
    }
}

/// The next `N` bytes. The record is as long as its fields together.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, behind) = rest.split_first_chunk().expect("RECORD_BYTES counts every field");
    *rest = behind;
    *field
}

/// What one operation, or one access of a `touch`, came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub task: u32,
    /// The record's number in its task, brackets counted.
    pub index: u32,
    /// How often the record ran before in this task.
    pub round: u64,
    /// Which access of a `touch`, from 0.
    pub access: u32,
    pub op: u16,
    /// Who handled the last fault: 0 nobody, 1 spf, 2 classic.
    pub handled: u8,
    pub livelock: bool,
    /// The signal's number, or 0.
    pub signal: u8,
    pub si_code: i32,
    pub ret: Option<i64>,
    pub errno: i32,
    pub value: Option<u64>,
    /// What the operation added to each counter.
    pub counters: [u32; NR_EVENTS],
}

impl Outcome {
    /// Appends the packed form, which is put together first: one append, not one for each field.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        let has = u8::from(self.ret.is_some()) | u8::from(self.value.is_some()) << 1;
        let mut packed = [0; OUTCOME_BYTES];
        let mut rest = packed.as_mut_slice();
        put(&mut rest, self.task.to_le_bytes());
        put(&mut rest, self.index.to_le_bytes());
        put(&mut rest, self.round.to_le_bytes());
        put(&mut rest, self.access.to_le_bytes());
        put(&mut rest, self.op.to_le_bytes());
        put(&mut rest, [self.handled, u8::from(self.livelock), self.signal]);
        put(&mut rest, self.si_code.to_le_bytes());
        put(&mut rest, [has]);
        put(&mut rest, self.errno.to_le_bytes());
        put(&mut rest, self.ret.unwrap_or(0).to_le_bytes());
        put(&mut rest, self.value.unwrap_or(0).to_le_bytes());
        for count in self.counters {
            put(&mut rest, count.to_le_bytes());
        }
        out.extend_from_slice(&packed);
    }
}

/// Puts `field` at the beginning of `rest`, and goes on behind it.
fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    let (place, behind) = std::mem::take(rest).split_first_chunk_mut().expect("OUTCOME_BYTES");
    *place = field;
    *rest = behind;
}

#[cfg(test)]
#[path = "../../tests/unit/program/record.rs"]
mod tests;
