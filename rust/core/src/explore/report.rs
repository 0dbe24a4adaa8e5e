//! What an exploration found.

use std::collections::BTreeSet;

use super::timeline::{Access, Step, escape, push_steps};
use super::token::Deviation;

/// A broken invariant, with the schedule that breaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name, as in `docs/protocol.md`.
    pub invariant: String,
    /// One sentence of what was seen.
    pub what: String,
    /// The catalogue entry that explains it (SPF_V12 section 9), if one does.
    pub entry: Option<&'static str>,
    /// The schedule, for replays.
    pub token: String,
    /// The same, decoded.
    pub deviations: Vec<Deviation>,
    pub timeline: Vec<Step>,
}

/// The result of an exploration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExploreReport {
    /// Schedules that were run.
    pub schedules: u64,
    /// Whether every schedule within the bounds was covered.
    pub complete: bool,
    /// Schedules that were begun, and led to what another one had led to.
    pub redundant: u64,
    /// Accesses of all schedules.
    pub steps: u64,
    /// Schedules that came to the bound on steps, and were not run to their end.
    pub too_long: u64,
    /// A number for each kind of pair of accesses that raced, if that was asked for.
    pub races: BTreeSet<u64>,
    /// One for each kind of violation, in the order found.
    pub violations: Vec<Violation>,
}

impl ExploreReport {
    /// The members of the result that belong to explore, as JSON without the outer braces.
    pub fn to_json_members(&self) -> String {
        let mut json = format!(
            r#""schedules":{},"complete":{},"redundant":{},"steps":{},"too_long":{},"violations":["#,
            self.schedules, self.complete, self.redundant, self.steps, self.too_long
        );
        for (nth, violation) in self.violations.iter().enumerate() {
            if nth != 0 {
                json.push(',');
            }
            violation.push_json(&mut json);
        }
        let races: Vec<_> = self.races.iter().map(u64::to_string).collect();
        json + &format!(r#"],"races":[{}]"#, races.join(","))
    }
}

impl Violation {
    /// The step at which the invariant broke; `None`: it was seen once all tasks had ended.
    fn fired(&self) -> Option<usize> {
        self.timeline.iter().position(|step| step.access == Access::Finding)
    }

    fn push_json(&self, json: &mut String) {
        json.push_str(&format!(
            r#"{{"invariant":"{}","what":"{}","entry":{},"token":"{}","fired":{},"timeline":"#,
            escape(&self.invariant),
            escape(&self.what),
            self.entry.map_or("null".to_owned(), |entry| format!("\"{entry}\"")),
            self.token,
            self.fired().map_or("null".to_owned(), |step| step.to_string())
        ));
        push_steps(json, &self.timeline);
        json.push('}');
    }

    /// Violations of one kind: the same invariant, and the same words but for numbers.
    pub(super) fn kind(invariant: &str, what: &str) -> String {
        let mut kind = format!("{invariant}: ");
        let mut in_number = false;
        for letter in what.chars() {
            // A digit, and what may follow one in 0x7f00.
            let may_follow = letter == 'x' || letter.is_ascii_hexdigit();
            in_number = letter.is_ascii_digit() || in_number && may_follow;
            if !in_number {
                kind.push(letter);
            } else if !kind.ends_with('#') {
                kind.push('#');
            }
        }
        kind
    }
}

#[cfg(test)]
#[path = "../../tests/unit/explore/report.rs"]
mod tests;
