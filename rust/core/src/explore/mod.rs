//! Runs the protocol under interleavings that it chooses.

pub mod mutants;
