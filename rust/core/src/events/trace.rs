//! What the series' tracepoints record, when a run is traced.
//!
//! Source: P24, `include/trace/events/pagefault.h`: each has the caller, the VMA's bounds and the
//! address.

use std::sync::{Mutex, PoisonError};

use super::Event;

/// One event as it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    pub time_ns: u64,
    pub cpu: u32,
    pub task: u32,
    pub event: Event,
    /// Interrupts were off.
    pub irqs_off: bool,
    pub vm_start: u64,
    pub vm_end: u64,
    pub address: u64,
}

impl TraceEntry {
    /// Bytes of a packed entry: `TRACE_DTYPE` of the package.
    pub const BYTES: usize = 42;

    /// The packed form, little-endian.
    pub fn packed(&self) -> [u8; Self::BYTES] {
        let mut packed = [0; Self::BYTES];
        for (nth, number) in
            [self.time_ns, self.vm_start, self.vm_end, self.address].into_iter().enumerate()
        {
            packed[8 * nth..8 * nth + 8].copy_from_slice(&number.to_le_bytes());
        }
        packed[32..36].copy_from_slice(&self.cpu.to_le_bytes());
        packed[36..40].copy_from_slice(&self.task.to_le_bytes());
        packed[40] = self.event as u8;
        packed[41] = u8::from(self.irqs_off);
        packed
    }
}

/// The ring buffer: of more than its entries the oldest are overwritten.
#[derive(Default)]
pub struct Trace {
    limit: usize,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    entries: Vec<TraceEntry>,
    written: u64,
}

impl Trace {
    /// A buffer of `limit` entries; 0: nothing is traced.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Whether anything is traced.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.limit != 0
    }

    /// Appends an entry.
    pub fn write(&self, entry: TraceEntry) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (ring.written % self.limit as u64) as usize;
        ring.written += 1;
        match ring.entries.get_mut(place) {
            Some(oldest) => *oldest = entry,
            None => ring.entries.push(entry),
        }
    }

    /// Takes what was written: the entries by time, then by CPU, and how many there ever were.
    pub fn take(&self) -> (Vec<TraceEntry>, u64) {
        if !self.is_on() {
            return (Vec::new(), 0);
        }
        let ring = std::mem::take(&mut *self.ring.lock().unwrap_or_else(PoisonError::into_inner));
        let mut entries = ring.entries;
        let oldest = if entries.is_empty() { 0 } else { ring.written as usize % entries.len() };
        entries.rotate_left(oldest);
        entries.sort_by_key(|entry| (entry.time_ns, entry.cpu));
        (entries, ring.written)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/events/trace.rs"]
mod tests;
