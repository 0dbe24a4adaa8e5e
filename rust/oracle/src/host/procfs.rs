//! What `/proc` says of a child.

use std::fs;
use std::io;

use super::island;
use super::sys::Pid;

/// A mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// "start-end perms offset", as results have it.
    pub line: String,
    /// The name of one that the kernel made itself, as `[vdso]`.
    pub special: bool,
}

/// All mappings of a process in user space, in order.
pub fn mappings(pid: Pid) -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    text.lines()
        .map(|line| {
            mapping(line).ok_or_else(|| io::Error::other(format!("/proc/PID/maps: {line}")))
        })
        .collect()
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (span, perms, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let (start, end) = span.split_once('-')?;
    let name = fields.nth(2).unwrap_or("");
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        line: format!("{span} {perms} {offset}"),
        special: matches!(name, "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]"),
    })
}

/// The lines of what the program has mapped: all but our page and what the kernel adds.
pub fn program_maps(pid: Pid, island: u64) -> io::Result<Vec<String>> {
    let ours = |mapping: &Mapping| mapping.start == island && mapping.end == island + island::SIZE;
    let all = mappings(pid)?;
    let kept = all.into_iter().filter(|mapping| !ours(mapping) && !mapping.special);
    Ok(kept.map(|mapping| mapping.line).collect())
}

/// Bytes of memory that a process has.
pub fn resident(process: Pid) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    let wrong = || io::Error::other(format!("/proc/PID/statm: {text}"));
    Ok(pages.ok_or_else(wrong)? * island::SIZE)
}

/// Bytes of memory that the host can give. Source: `MemAvailable` in `proc_meminfo(5)`.
pub fn available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.ok_or_else(|| io::Error::other("/proc/meminfo: no MemAvailable"))? << 10)
}

/// `min_flt` and `maj_flt` of a thread. Source: `proc_pid_stat(5)`.
pub fn fault_counts(process: Pid, thread: Pid) -> io::Result<[u64; 2]> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat"))?;
    let wrong = || io::Error::other(format!("/proc/PID/task/TID/stat: {text}"));
    // The name, in parentheses, may hold anything. Field 3 is the first one after it.
    let (_, rest) = text.rsplit_once(')').ok_or_else(wrong)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place - 3).and_then(|field| field.parse().ok());
    Ok([number(10).ok_or_else(wrong)?, number(12).ok_or_else(wrong)?])
}

#[cfg(test)]
#[path = "../../tests/unit/procfs.rs"]
mod tests;
