//! Virtual time: the protocol on 1 to 1024 and more CPUs of a machine that need not exist.
//!
//! Each task is a coroutine with a clock. An access costs what it takes to bring the cache line
//! where it is needed; a task that has to leave its own cache waits until no other task is behind
//! it, so contention is what the protocol's accesses do, not a formula. [`lines`] says where lines
//! are, [`world`] who runs, [`machine`] what things cost, [`profile`] where each
//! number is from.

mod access;
mod control;
mod cpu;
mod dispatch;
pub mod fields;
mod interrupts;
mod line_queue;
mod lines;
mod lock_stat;
pub mod machine;
pub mod profile;
mod queue;
mod recorder;
mod run;
mod spans;
mod task;
mod waiting;
mod world;

pub use cpu::Cpu;
pub use machine::Machine;
pub use profile::Profile;
pub use run::{Settings, run};
/// What a TOML text says.
pub use toml::Table;
