//! The writers: one file a system call; and the accesses.

pub mod access;
