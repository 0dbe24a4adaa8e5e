//! Tokens: a schedule as a short text that anyone can type.
//!
//! A schedule is the list of its choices: at each point where more than one task could go on,
//! which one did. Nearly always that is the *default* (the task that ran goes on; if it cannot,
//! the next in number). A token keeps the choices that differ: how many defaults came before, and
//! which of the tasks that could go on was taken. It does not depend on the strategy that found
//! the schedule.
//!
//! `e1-HHHHHHHH-P…`: the version of the format, a hash of the program and of every setting that
//! the choices depend on, and numbers in base 32 (four bits a letter, the fifth says that more
//! follow): how many choices, then gap and rank of each.

use crate::platform::TaskId;

const VERSION: &str = "e1";
/// Crockford's digits: none is mistaken for another.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const HASH_DIGITS: u32 = 8;

/// A choice that is not the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// The number of the point, counted over the points with a choice.
    pub point: u64,
    /// Which of the runnable tasks, in ascending order.
    pub rank: u32,
}

/// A schedule, and what it is a schedule of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Of program and settings; only its low 40 bits are kept.
    pub fingerprint: u64,
    pub deviations: Vec<Deviation>,
}

/// Tasks as bits.
pub(super) type TaskSet = u64;

/// The tasks of a set, in ascending order.
pub(super) fn tasks_of(mut set: TaskSet) -> impl Iterator<Item = TaskId> {
    std::iter::from_fn(move || {
        let task = (set != 0).then(|| set.trailing_zeros());
        set &= set.wrapping_sub(1);
        task
    })
}

/// The task that goes on unless somebody chooses: `current` if it can, else the next in number.
pub(super) fn default_task(runnable: TaskSet, current: TaskId, can_go_on: bool) -> TaskId {
    if can_go_on {
        return current;
    }
    let above = runnable & (u64::MAX << current << 1);
    if above != 0 { above.trailing_zeros() } else { runnable.trailing_zeros() }
}

/// The place of `task` among `runnable`.
pub(super) fn rank_of(runnable: TaskSet, task: TaskId) -> u32 {
    (runnable & ((1 << task) - 1)).count_ones()
}

/// The task at place `rank` among `runnable`, if there are so many.
pub(super) fn task_at(mut runnable: TaskSet, rank: u32) -> Option<TaskId> {
    for _ in 0..rank {
        runnable &= runnable.wrapping_sub(1);
    }
    (runnable != 0).then(|| runnable.trailing_zeros())
}

/// A hash that stays the same from version to version (FNV-1a).
pub fn fingerprint(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Token {
    pub fn to_text(&self) -> String {
        let mut text = format!("{VERSION}-");
        for nth in (0..HASH_DIGITS).rev() {
            text.push(DIGITS[(self.fingerprint >> (5 * nth)) as usize % 32] as char);
        }
        text.push('-');
        push_number(&mut text, self.deviations.len() as u64);
        let mut last = 0;
        for deviation in &self.deviations {
            push_number(&mut text, deviation.point - last);
            push_number(&mut text, u64::from(deviation.rank));
            last = deviation.point + 1;
        }
        text
    }

    /// Reads a token made for the program and settings that `fingerprint` stands for.
    ///
    /// Errors say what is wrong with it: another version, another program, cut short.
    pub fn from_text(text: &str, fingerprint: u64) -> Result<Self, String> {
        let broken = |why: &str| Err(format!("token '{text}': {why}"));
        let parts: Vec<&str> = text.trim().split('-').collect();
        let [version, hash, payload] = parts[..] else {
            return broken("not of the form e1-HASH-CHOICES");
        };
        if version != VERSION {
            return broken("made by another version (this one reads e1)");
        }
        let own = Token { fingerprint, deviations: Vec::new() }.to_text();
        if own.split('-').nth(1) != Some(hash) {
            return broken("made for another program, or with other settings");
        }
        let mut digits = payload.bytes().map(digit);
        let Some(deviations) = read_deviations(&mut digits) else {
            return broken("cut short, or with a letter that is no digit");
        };
        if digits.next().is_some() {
            return broken("longer than it says");
        }
        Ok(Self { fingerprint, deviations })
    }
}

fn push_number(text: &mut String, mut number: u64) {
    loop {
        let more = number > 15;
        text.push(DIGITS[(number % 16) as usize + 16 * usize::from(more)] as char);
        number /= 16;
        if !more {
            return;
        }
    }
}

fn digit(letter: u8) -> Option<u64> {
    DIGITS.iter().position(|&digit| digit == letter.to_ascii_lowercase()).map(|nth| nth as u64)
}

fn read_number(digits: &mut impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..60).step_by(4) {
        let digit = digits.next()??;
        number |= (digit % 16) << shift;
        if digit < 16 {
            return Some(number);
        }
    }
    None
}

fn read_deviations(digits: &mut impl Iterator<Item = Option<u64>>) -> Option<Vec<Deviation>> {
    let count = read_number(digits)?;
    let mut next = 0u64;
    let mut deviations = Vec::new();
    for _ in 0..count {
        let point = next.checked_add(read_number(digits)?)?;
        let rank = u32::try_from(read_number(digits)?).ok()?;
        deviations.push(Deviation { point, rank });
        next = point + 1;
    }
    Some(deviations)
}

#[cfg(test)]
#[path = "../../tests/unit/explore/token.rs"]
mod tests;
