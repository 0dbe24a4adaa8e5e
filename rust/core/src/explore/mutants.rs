//! Mutants: one check of v12 removed, to see what it prevents (SPF_V12 section 9.A).

pub use crate::platform::Mutant;
