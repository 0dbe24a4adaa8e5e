//! Page frames: reference counts, per-CPU free lists over a shared pool.

use super::kernel::Kernel;
use crate::design::Design;
use crate::platform::Platform;

impl<P: Platform, D: Design> Kernel<P, D> {
    pub(super) fn boot_pages(&self) {}
}
