//! Runs the protocol under interleavings that it chooses.
//!
//! All tasks are coroutines on one thread; other threads run other schedules (`rounds.rs`, `parts.rs`). Before each access to a shared word comes a scheduling
//! point: a [`strategy`] says who goes on, and nearly always that is the task that asks, so that
//! no switch happens. A schedule prints as a [`token`] and is replayed from it. Memory is
//! sequentially consistent, or as weak as a [`MemoryModel`] says.

mod at_work;
mod attribution;
mod choices;
mod contract;
mod coverage;
mod cpu;
mod crew;
mod dpor;
mod explainer;
mod explorer;
mod hazards;
mod lessons;
mod machine;
mod memory;
pub mod mutants;
mod options;
mod parts;
mod programs;
mod races;
mod rcu;
mod report;
mod rounds;
mod store_choices;
mod strategy;
mod tally;
mod timeline;
mod token;
mod touch;
mod violation;
mod waits;
mod weak;

pub use cpu::Cpu;
pub use explainer::{Explanation, WhichFault};
pub use explorer::{Explorer, Subject};
pub use hazards::Hazards;
pub use machine::MAX_TASKS;
pub use memory::Model as MemoryModel;
pub use options::{ExploreOptions, Search};
pub use programs::{explain, explore, run_once};
pub use report::{ExploreReport, Violation};
pub use strategy::{Point, Strategy};
pub use timeline::{Access, Step};
pub use token::{Deviation, Token, fingerprint};
