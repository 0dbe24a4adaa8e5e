//! What the models know of each CPU.

use super::views::View;
use super::words::StoreId;

/// What one CPU is ordered after.
#[derive(Clone, Debug, Default)]
pub(super) struct Local {
    /// The latest it has executed a store or a full barrier, or has read a store that came then.
    pub(super) recent: u64,
    /// Its loads happen at this time at the earliest (multi-copy atomic models).
    pub(super) earliest: u64,
    /// When the latest of its loads happened, …
    pub(super) latest_load: u64,
    /// … and when the last one did.
    pub(super) last_load: u64,
    /// Store barriers so far.
    pub(super) epoch: u32,
    /// Its stores that are not performed, oldest first.
    pub(super) pending: Vec<StoreId>,
    /// Those of its releases that its next acquire waits for.
    pub(super) releases: Vec<StoreId>,
    /// Of each word, the last store when a load saw an older one: that it goes on to do so is free, …
    pub(super) missed: View,
    /// … for so many loads so far, and not for ever.
    pub(super) nr_missed: u32,
    /// Of each word, the store that its loads cannot miss: read or stored, or known by a barrier, …
    pub(super) seen: View,
    /// … what it will not miss once there is a barrier (POWER), …
    pub(super) acquired: View,
    /// … and what goes along with its stores.
    pub(super) released: std::rc::Rc<View>,
}

impl Local {
    pub(super) fn reset(&mut self) {
        (self.recent, self.earliest, self.epoch) = (0, 0, 0);
        (self.latest_load, self.last_load, self.nr_missed) = (0, 0, 0);
        self.pending.clear();
        self.releases.clear();
        self.seen.clear();
        self.missed.clear();
        self.acquired.clear();
        if !self.released.is_empty() {
            self.released = Default::default();
        }
    }
}
