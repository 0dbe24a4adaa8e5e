//! Linux's page-fault path, classic and speculative (series v12), in user space.
//!
//! Read `fault` first: it follows the founding document's pseudo code. Layers point down only:
//! `fault`, `ops` → `mm`, `design` → `sync` → `platform`; `arch` and `events` are data for all.
//! `native` (in `platform`), `explore` and `vtime` run the same text.

#![deny(unsafe_code)]

pub mod arch;
pub mod design;
pub mod events;
pub mod explore;
pub mod fault;
pub mod mm;
pub mod ops;
pub mod platform;
pub mod program;
pub mod sync;
pub mod vtime;

#[cfg(test)]
#[path = "../tests/unit/support.rs"]
mod support;
