//! The writers: one file a system call; and the accesses of a task.

pub mod access;
pub mod brk;
mod clear_refs;
pub mod exec;
mod exit;
mod fork;
mod kernel_address;
mod ksm_scan;
pub mod madvise;
mod mbind;
mod migrate;
mod mlock;
pub mod mmap;
pub mod mprotect;
pub mod mremap;
pub mod munmap;
mod notifier;
mod numa_scan;
mod oom_reap;
mod rebind;
mod swap_out;
mod truncate;
mod unmapped_area;
mod userfaultfd;

#[cfg(test)]
#[path = "../../tests/unit/ops/process.rs"]
pub(crate) mod process;
#[cfg(test)]
#[path = "../../tests/unit/ops/turns.rs"]
pub(crate) mod turns;
