//! Locks and counts: ordinary code over words, written once.

pub mod rwsem;
