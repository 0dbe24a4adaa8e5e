//! Accesses: one, or a `touch` of many.

use super::interpret::{Starter, TaskRun};
use super::op::{OneAccess, Op, Touch, TouchOrder};
use super::record::Outcome;
use super::sync::Stop;
use crate::design::Design;
use crate::mm::{Access, Errno, Vaddr};
use crate::ops::access::{AccessFailure, AccessOutcome};
use crate::platform::{Hazard, Platform};

impl<P: Platform, D: Design, S: Starter<P>> TaskRun<'_, P, D, S> {
    /// `read`, `write` and `execute`.
    pub(super) fn access(&mut self, access: &OneAccess, base: u64) {
        let address = access.at.resolve(base);
        self.access_at(&Op::Access(*access), access, address, 0);
    }

    /// A CPU may look up a translation before its task comes to the access: that of the next one, if
    /// by now the program has said where it is.
    pub(super) fn look_ahead(&self) {
        let later = self.ops.get(self.index + 1..).unwrap_or_default();
        let next = later.iter().find_map(|op| match op {
            Op::Access(access) => Some(access.at),
            _ => None,
        });
        let Some(at) = next else { return };
        let base = match at.id() {
            Some(id) => self.run.sync.id_so_far(self.cpu, id),
            None => Some(0),
        };
        if let Some(base) = base
            && self.cpu.meets(Hazard::TlbRefill)
        {
            let address = Vaddr(at.resolve(base));
            self.k.prefetch_translation(self.cpu, self.k.current_mm(self.cpu), address);
        }
    }

    /// `touch`: each access is an operation, as far as the platform is concerned.
    pub(super) fn touch(&mut self, touch: &Touch, base: u64) -> Result<(), Stop> {
        let page_size = self.k.page_size();
        let stride = if touch.stride == 0 { page_size } else { touch.stride };
        let start = touch.range.at.resolve(base);
        let op = Op::Touch(*touch);
        let Touch { access, user, value, .. } = *touch;
        let access = OneAccess { access, user, at: touch.range.at, value };
        let count = touch.nr_accesses(page_size);
        // Before the order of many is drawn: that takes time and memory.
        let (task, index) = (self.cpu.task(), self.index);
        let whose = format_args!("tasks[{task}]: record {index}: operation 'touch': ");
        if !self.check_nr_outcomes(count, whose) {
            return Err(Stop::Over);
        }
        let shuffled = match touch.order {
            TouchOrder::Random => shuffled(count as u32, touch.seed),
            TouchOrder::Forward | TouchOrder::Backward => Vec::new(),
        };
        for number in 0..count {
            if number > 0 {
                self.operation_boundary()?;
            }
            let position = match touch.order {
                TouchOrder::Forward => number,
                TouchOrder::Backward => count - 1 - number,
                TouchOrder::Random => u64::from(shuffled[number as usize]),
            };
            let address = start.wrapping_add(position.wrapping_mul(stride));
            self.access_at(&op, &access, address, number as u32);
        }
        Ok(())
    }

    fn access_at(&mut self, op: &Op, one: &OneAccess, address: u64, number: u32) {
        let before = self.counters();
        let OneAccess { access, user, value, .. } = *one;
        self.begin_observed();
        let outcome = self.k.user_access(self.cpu, address, access, value, user);
        self.observe_access(one, address, &outcome);
        self.record(op, before, Outcome { access: number, ..outcome_of(outcome, access) });
    }
}

/// What a program sees of an access.
fn outcome_of(outcome: AccessOutcome, access: Access) -> Outcome {
    let result = match outcome.result {
        Ok(word) => Outcome {
            ret: Some(0),
            value: (access == Access::Read).then_some(word),
            ..Outcome::default()
        },
        Err(AccessFailure::Signal(signal)) => {
            Outcome { signal: signal.number, si_code: signal.code, ..Outcome::default() }
        }
        Err(AccessFailure::Efault) => {
            Outcome { ret: Some(-1), errno: Errno::Efault as i32, ..Outcome::default() }
        }
        Err(AccessFailure::Livelock) => Outcome { livelock: true, ..Outcome::default() },
    };
    Outcome { handled: outcome.handled as u8, ..result }
}

/// 0 to `count` - 1, shuffled by `seed`, the order of a random `touch`: Fisher and Yates, from the last place down.
pub fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut positions: Vec<u32> = (0..count).collect();
    let mut state = seed;
    for last in (1..positions.len()).rev() {
        let other = splitmix64(&mut state) % (last as u64 + 1);
        positions.swap(last, other as usize);
    }
    positions
}

/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[path = "../../tests/unit/program/access.rs"]
mod tests;
