//! Slots that are free: of anybody, or of the CPU that a slab belongs to.
//!
//! SLUB gives what is freed back to its slab, from which the CPU that the slab belongs to takes it
//! again, whoever freed it (`mm/slub.c`, `__slab_free()`): so its lines stay with one CPU. Here the
//! slab of a slot is that of the CPU which had it first, for ever.

use super::CpuId;

/// No CPU's.
const ANYBODY: CpuId = CpuId::MAX;

/// The free slots of an arena, last in, first out.
#[derive(Default)]
pub(super) struct FreeSlots {
    of_anybody: Vec<u32>,
    of_cpu: Vec<Vec<u32>>,
    /// By slot; those beyond are anybody's.
    home: Vec<CpuId>,
}

impl FreeSlots {
    /// One that is nobody's.
    pub fn take(&mut self) -> Option<u32> {
        self.of_anybody.pop()
    }

    /// One of this CPU's.
    pub fn take_of(&mut self, cpu: CpuId) -> Option<u32> {
        self.of_cpu.get_mut(cpu as usize)?.pop()
    }

    /// A slot that was never used is this CPU's from now on.
    pub fn settle(&mut self, slot: u32, cpu: CpuId) {
        let (slot, cpus) = (slot as usize, cpu as usize + 1);
        self.home.resize(self.home.len().max(slot + 1), ANYBODY);
        self.home[slot] = cpu;
        self.of_cpu.resize(self.of_cpu.len().max(cpus), Vec::new());
    }

    pub fn put(&mut self, slot: u32) {
        let home = self.home.get(slot as usize).filter(|&&cpu| cpu != ANYBODY);
        match home {
            Some(&cpu) => self.of_cpu[cpu as usize].push(slot),
            None => self.of_anybody.push(slot),
        }
    }

    /// Nothing is free or settled. What was allocated is kept: explore does this before each schedule.
    pub fn clear(&mut self) {
        self.of_anybody.clear();
        self.of_cpu.iter_mut().for_each(Vec::clear);
        self.home.clear();
    }
}

#[cfg(test)]
#[path = "../../tests/unit/platform/slabs.rs"]
mod tests;
