//! What can happen besides interleaving, if asked for: each time a choice of the schedule, which
//! counts as a preemption.
//!
//! Time needs no choices of its own. A task that stalls, an interrupt that comes late and a CPU that
//! flushes before others is a schedule in which others go on; what is freed is handed out again at
//! once, always.

use super::cpu::Cpu;
use crate::platform::Hazard;

/// Those that are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hazards(u8);

impl Hazards {
    #[inline(always)]
    pub fn has(self, hazard: Hazard) -> bool {
        self.0 & 1 << hazard as u8 != 0
    }

    pub(super) fn with(self, hazard: Hazard) -> Self {
        Self(self.0 | 1 << hazard as u8)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn names(self) -> String {
        let names = Hazard::ALL.into_iter().filter(|&hazard| self.has(hazard)).map(Hazard::name);
        names.collect::<Vec<_>>().join(" ")
    }
}

impl FromIterator<Hazard> for Hazards {
    fn from_iter<I: IntoIterator<Item = Hazard>>(hazards: I) -> Self {
        hazards.into_iter().fold(Self::default(), Self::with)
    }
}

impl Cpu {
    /// Whether this, which is asked for, happens now.
    #[cold]
    pub(super) fn meets_now(&self, hazard: Hazard) -> bool {
        let machine = &*self.machine;
        let meets =
            self.is_live() && machine.chooses_hazards() && machine.choose_store(2, true) == 0;
        if meets {
            // What comes now is worth telling.
            machine.is_concurrent.set(true);
            machine.met.set(machine.met.get().with(hazard));
            self.event(|| hazard.happens().to_owned());
        }
        meets
    }
}
