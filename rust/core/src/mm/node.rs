//! Nodes: which frames and CPUs belong to which, and where an allocation looks first.
//!
//! Source: `mm/page_alloc.c`, `include/linux/mmzone.h`, v5.1. DEVIATION: nodes have one zone each,
//! and frames in turn, as many at once as a huge page has; an allocation may always fall back to
//! any node, also where the kernel would rather fail (`MPOL_BIND`, `__GFP_THISNODE`).

use std::sync::Mutex;

use super::compound::FreeArea;
use super::kernel::{Config, Kernel, System};
use super::objects::PageRef;
use super::page::{pcp_batch, pcp_high};
use crate::design::Design;
use crate::platform::{Line, Local, PaddedWord, Platform, Word};

/// Free pages of one node: `zone->lock`, and under it those behind the per-CPU lists, and how
/// many frames were ever used.
pub(crate) struct Zone<P: Platform> {
    pub(super) lock: PaddedWord<P>,
    pub(super) free: Mutex<FreeArea>,
    pub(super) fresh: PaddedWord<P>,
}

impl<P: Platform> Zone<P> {
    pub(super) fn new(line: Line) -> Self {
        Self {
            lock: Word::new(line, 0).into(),
            free: Mutex::default(),
            fresh: Word::new(line, 8).into(),
        }
    }
    pub(super) fn reset(&self) {
        self.lock.poke(0);
        self.free.lock().expect("no panic while held").clear();
        self.fresh.poke(0);
    }
}

/// Free pages of one node that a CPU has for itself (`per_cpu_pages`): how many, and which.
pub(crate) struct PerCpuPages {
    pub(super) count: Local,
    pub(super) pages: Box<[Local]>,
}

impl PerCpuPages {
    /// Those of each node.
    pub(super) fn of_nodes(config: &Config) -> Box<[Self]> {
        let most = pcp_high(pcp_batch(config.system.memory, config.arch.page_size()));
        let pages = || (0..most).map(|_| Local::default()).collect();
        let new = |_| Self { count: Local::default(), pages: pages() };
        (0..config.system.nodes).map(new).collect()
    }
    pub(super) fn reset(&self) {
        self.count.set(0);
    }
}

/// log2 of how many frames in a row belong to one node: as many as a huge page has, but fewer if
/// some node would have none.
pub(super) fn node_shift(config: &Config) -> u32 {
    let nr_pages = config.system.memory >> config.arch.page_shift;
    let even = (nr_pages / u64::from(config.system.nodes)).max(1);
    even.ilog2().min(config.arch.hpage_pmd_order())
}

impl Config {
    pub(super) fn node_of(&self, cpu: u32) -> u32 {
        let System { nodes, ref cpu_nodes, .. } = self.system;
        cpu_nodes.get(cpu as usize).copied().unwrap_or(cpu * nodes / self.nr_cpus)
    }
}

/// Where a page shall come from: this node, else one of these, else any.
#[derive(Clone, Copy)]
pub(crate) struct Placement {
    pub(super) first: u32,
    pub(super) allowed: u64,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    pub(crate) fn nr_nodes(&self) -> u32 {
        self.config.system.nodes
    }

    /// `numa_node_id()`: the node of the CPU that asks.
    #[inline(always)]
    pub(crate) fn numa_node_id(&self, cpu: &P) -> u32 {
        self.cpus[cpu.id() as usize].node
    }

    /// `page_to_nid()`
    #[inline(always)]
    pub(crate) fn page_to_nid(&self, page: PageRef<'_, P>) -> u32 {
        self.pfn_to_nid(page.slot_index())
    }

    #[inline(always)]
    pub(super) fn pfn_to_nid(&self, pfn: u32) -> u32 {
        (pfn >> self.node_shift) % self.nr_nodes()
    }

    /// The frame that is the `nth` of a node, if there are so many.
    pub(super) fn nth_of_node(&self, node: u32, nth: u64) -> Option<u32> {
        let block = (nth >> self.node_shift) * u64::from(self.nr_nodes()) + u64::from(node);
        let pfn = block << self.node_shift | nth & ((1 << self.node_shift) - 1);
        (pfn < self.config.system.memory >> self.page_shift()).then_some(pfn as u32)
    }

    /// The nodes that there are (`node_states[N_MEMORY]`), as a mask.
    pub(crate) fn online_nodes(&self) -> u64 {
        u64::MAX >> (u64::BITS - self.nr_nodes())
    }

    /// `cpuset_current_mems_allowed`: the nodes of the cpuset that the task is in, as a mask.
    #[inline(always)]
    pub(crate) fn mems_allowed(&self, cpu: &P) -> u64 {
        self.current(cpu).mems_allowed.get()
    }

    /// Near the CPU that asks.
    #[inline(always)]
    pub(crate) fn local_placement(&self, cpu: &P) -> Placement {
        self.cpuset_placement(cpu, self.numa_node_id(cpu))
    }

    /// On that node or, if the task's cpuset has it not, on the next that it has
    /// (`cpuset_zone_allowed()`).
    #[inline(always)]
    pub(super) fn cpuset_placement(&self, cpu: &P, node: u32) -> Placement {
        let place = Placement { first: node, allowed: self.mems_allowed(cpu) };
        if place.allowed >> node & 1 == 1 { place } else { self.begins_allowed(place) }
    }

    /// On those nodes only, as far as the task's cpuset has them (`policy_nodemask()`).
    pub(super) fn bound_placement(&self, cpu: &P, nodes: u64) -> Placement {
        let mems_allowed = self.mems_allowed(cpu);
        let both = nodes & mems_allowed;
        let allowed = if both == 0 { mems_allowed } else { both };
        self.begins_allowed(Placement { first: self.numa_node_id(cpu), allowed })
    }

    #[cold]
    fn begins_allowed(&self, place: Placement) -> Placement {
        Placement { first: self.zonelist(place).next().expect("a node"), ..place }
    }

    /// On that node, whatever the cpuset.
    #[inline(always)]
    pub(crate) fn on_node(&self, first: u32) -> Placement {
        Placement { first, allowed: u64::MAX }
    }

    /// `first_zones_zonelist()` and on: all nodes, in the order in which they are asked.
    pub(super) fn zonelist(&self, place: Placement) -> impl Iterator<Item = u32> + use<P, D> {
        let nodes = self.nr_nodes();
        let near = move |wanted: bool| {
            let order = (0..nodes).map(move |away| (place.first + away) % nodes);
            order.filter(move |node| (place.allowed >> node & 1 == 1) == wanted)
        };
        near(true).chain(near(false))
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/node.rs"]
mod tests;
