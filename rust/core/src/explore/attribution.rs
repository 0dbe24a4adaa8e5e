//! Which catalogue entry explains a violation.
//!
//! A run can have several bugs of v12 at once, and some have mutants. An entry explains a
//! violation if it alone, with everything else cured, breaks the same invariant in the same way:
//! first in the very schedule (the token may lead astray when other variants add accesses), else
//! in a search as the one that found it. If none does alone, the entry explains it without which
//! the search finds it no more.

use super::mutants::entry_of;
use super::options::{ExploreOptions, Search};
use super::report::{ExploreReport, Violation};
use crate::mm::variants::VARIANTS;
use crate::mm::{Choice, Config, Variant};
use crate::platform::Mutant;
use crate::program::ProgramError;

/// Schedules spent on one question.
const MAX_SCHEDULES: u64 = 100_000;

type Explore<'e> = dyn Fn(&Config, &ExploreOptions) -> Result<ExploreReport, ProgramError> + 'e;

/// What was explored, and how to do so again with other settings.
pub(super) struct Case<'a> {
    pub config: &'a Config,
    pub options: &'a ExploreOptions,
    pub explore: &'a Explore<'a>,
}

/// Something that can explain a violation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspect {
    Variant(Variant, &'static str),
    Mutant(Mutant),
}

impl Suspect {
    fn entry(self) -> &'static str {
        match self {
            Self::Variant(_, entry) => entry,
            Self::Mutant(mutant) => entry_of(mutant),
        }
    }
}

impl Case<'_> {
    /// The entry that explains `violation`, if one does.
    pub(super) fn entry_of(
        &self,
        violation: &Violation,
    ) -> Result<Option<&'static str>, ProgramError> {
        let suspects = self.suspects();
        if matches!(violation.invariant.as_str(), "replay" | "stuck") || suspects.is_empty() {
            return Ok(None);
        }
        for in_this_schedule in [true, false] {
            for &suspect in &suspects {
                if self.breaks(&[suspect], violation, in_this_schedule)? {
                    return Ok(Some(suspect.entry()));
                }
            }
        }
        if matches!(self.options.search, Search::Guided { .. }) {
            return Ok(None);
        }
        for &suspect in &suspects {
            let others: Vec<_> = suspects.iter().copied().filter(|&one| one != suspect).collect();
            if !self.breaks(&others, violation, false)? {
                return Ok(Some(suspect.entry()));
            }
        }
        Ok(None)
    }

    fn suspects(&self) -> Vec<Suspect> {
        let variants = VARIANTS
            .iter()
            .filter(|variant| self.config.variants.v12(variant.which))
            .map(|variant| Suspect::Variant(variant.which, variant.entry));
        let mutants = self.options.mutants.iter().map(|&mutant| Suspect::Mutant(mutant));
        variants.chain(mutants).collect()
    }

    /// Whether these suspects alone break the same invariant in the same way.
    fn breaks(
        &self,
        suspects: &[Suspect],
        violation: &Violation,
        in_this_schedule: bool,
    ) -> Result<bool, ProgramError> {
        let mut config = self.config.clone();
        let mut options = self.options.clone();
        options.mutants.clear();
        for variant in &VARIANTS {
            config.variants.set(variant.which, Choice::Fixed);
        }
        for suspect in suspects {
            match *suspect {
                Suspect::Variant(which, _) => config.variants.set(which, Choice::V12),
                Suspect::Mutant(mutant) => options.mutants.push(mutant),
            }
        }
        match (in_this_schedule, &options.search) {
            // Whoever draws schedules looks for himself.
            (false, Search::Guided { .. }) => return Ok(false),
            (true, _) => options.search = Search::Again(violation.deviations.clone()),
            // A token says nothing of how it was found.
            (false, Search::Replay(_) | Search::Again(_)) => {
                options.search = Search::Dfs { preemptions: Some(2), reduce: true };
            }
            (false, _) => {}
        }
        options.max_schedules = Some(options.max_schedules.unwrap_or(u64::MAX).min(MAX_SCHEDULES));
        options.only = Some(Violation::kind(&violation.invariant, &violation.what));
        let report = (self.explore)(&config, &options)?;
        Ok(!report.violations.is_empty())
    }
}
