//! Memory policies: from which nodes pages shall come, for a range or for a task.
//!
//! Source: `mm/mempolicy.c`, `include/linux/mempolicy.h`, v5.1; the bracket: P10. Each VMA has a
//! policy of its own, so that what tells them apart is what they say. DEVIATION: no flags of modes,
//! so `MPOL_LOCAL` alone is `MPOL_F_LOCAL`; shared memory has no policy beside its VMAs'.

use super::kernel::Kernel;
use super::node::Placement;
use super::objects::{MmRef, PageRef, VmaRef};
use super::page::{LAST_CPUPID_SET, LAST_NID_MASK, LAST_NID_SHIFT, LAST_PID_MASK, LAST_PID_SHIFT};
use super::types::{Errno, Vaddr};
use super::variants::Variant;
use super::vma_merge::{MergeRequest, NewHalf};
use crate::design::Design;
use crate::events::Cost;
use crate::object;
use crate::platform::{Platform, Ptr, RcuCallback, RcuGuard, Ref, Value};
use crate::sync::refcount::atomic_dec_and_test;

object! {
    /// A memory policy. A NULL pointer is `MPOL_DEFAULT`.
    pub struct Mempolicy of Word = "mempolicy", 264 {
        refcnt: u64 = 0x00,
        /// A [`MpolMode`].
        mode: u64 = 0x04,
        /// `v.nodes`; of `MPOL_PREFERRED` the one node, or none: where the task runs.
        nodes: u64 = 0x08,
        /// `w.cpuset_mems_allowed`: the nodes of the cpuset for which `nodes` were chosen.
        mems_allowed: u64 = 0x88,
    }
}

pub type MempolicyRef<'k, P> = Ref<'k, Mempolicy<P>>;

/// `MPOL_*`, with the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum MpolMode {
    Default = 0,
    Preferred = 1,
    Bind = 2,
    Interleave = 3,
    /// Never in a policy: a preferred one without a node.
    Local = 4,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// `mpol_new()` and `mpol_set_nodemask()`: `None` is the default policy. Nodes that the task's
    /// cpuset has not do not count; `EINVAL` if none is left. The default and the local policy have
    /// none.
    pub(crate) fn mpol_new(
        &self,
        cpu: &P,
        mode: MpolMode,
        nodes: u64,
    ) -> Result<Option<MempolicyRef<'_, P>>, Errno> {
        let allowed = self.mems_allowed(cpu);
        let chosen = nodes & allowed;
        let (mode, nodes) = match mode {
            MpolMode::Default => return Ok(None),
            MpolMode::Local => (MpolMode::Preferred, 0),
            MpolMode::Preferred if nodes == 0 => (mode, 0),
            _ if chosen == 0 => return Err(Errno::Einval),
            MpolMode::Preferred => (mode, chosen & chosen.wrapping_neg()),
            MpolMode::Bind | MpolMode::Interleave => (mode, chosen),
        };
        Ok(Some(self.mpol_alloc(cpu, mode as u64, nodes, allowed)))
    }

    fn mpol_alloc(&self, cpu: &P, mode: u64, nodes: u64, mems_allowed: u64) -> MempolicyRef<'_, P> {
        cpu.charge(Cost::SlabAlloc, 1);
        let policy = self.policies.alloc();
        policy.refcnt().poke(1);
        policy.mode().poke(mode);
        policy.nodes().poke(nodes);
        policy.mems_allowed().poke(mems_allowed);
        policy
    }

    /// `mpol_dup()`: the same once more, for another owner.
    pub(crate) fn mpol_dup(&self, cpu: &P, policy: Ptr<Mempolicy<P>>) -> Ptr<Mempolicy<P>> {
        let Some(old) = self.policies.get_opt(cpu, policy) else { return Ptr::NULL };
        let [mode, nodes, mems_allowed] =
            [old.mode(), old.nodes(), old.mems_allowed()].map(|field| field.read(cpu));
        self.mpol_alloc(cpu, mode, nodes, mems_allowed).ptr()
    }

    /// `mpol_put()`: at once, whoever may be reading it.
    pub(crate) fn mpol_put(&self, cpu: &P, policy: Ptr<Mempolicy<P>>) {
        if let Some(policy) = self.policies.get_opt(cpu, policy)
            && atomic_dec_and_test(cpu, policy.refcnt())
        {
            self.policies.free(cpu, policy);
        }
    }

    /// Puts the policy that a VMA had, which faults without `mmap_sem` may be reading. C5: v12 does
    /// not wait for them.
    fn mpol_put_replaced(&self, cpu: &P, policy: Ptr<Mempolicy<P>>) {
        if self.v12(Variant::C5) || policy.is_null() {
            self.mpol_put(cpu, policy);
        } else {
            cpu.call_rcu(RcuCallback::PutPolicy(policy.to_word()));
        }
    }

    /// `mpol_equal()`: whether two say the same.
    pub(super) fn mpol_equal(
        &self,
        cpu: &P,
        one: Ptr<Mempolicy<P>>,
        other: Ptr<Mempolicy<P>>,
    ) -> bool {
        if one.is_null() || other.is_null() {
            return one == other;
        }
        let [one, other] = [one, other].map(|policy| self.policies.get(cpu, policy));
        one.mode().read(cpu) == other.mode().read(cpu)
            && one.nodes().read(cpu) == other.nodes().read(cpu)
    }

    /// `__get_vma_policy()`, or else `get_task_policy()`: mode and nodes, `None` for the default. No
    /// reference is taken.
    #[inline(always)]
    fn policy_of(&self, cpu: &P, vma: VmaRef<'_, P>) -> Option<(u64, u64)> {
        let seen = vma.vm_policy().read(cpu);
        if seen.is_null() {
            return self.task_policy(cpu);
        }
        self.vma_policy(cpu, vma, seen)
    }

    #[cold]
    fn vma_policy(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        seen: Ptr<Mempolicy<P>>,
    ) -> Option<(u64, u64)> {
        if self.v12(Variant::C5) {
            return self.policy_says(cpu, seen);
        }
        // Cured, what mbind replaces stays for a grace period: what is seen in here is there.
        let _rcu = RcuGuard::new(cpu);
        self.policy_says(cpu, vma.vm_policy().read(cpu))
    }

    #[inline(always)]
    fn task_policy(&self, cpu: &P) -> Option<(u64, u64)> {
        self.policy_says(cpu, Ptr::from_word(self.current(cpu).mempolicy.get()))
    }

    #[inline(always)]
    fn policy_says(&self, cpu: &P, policy: Ptr<Mempolicy<P>>) -> Option<(u64, u64)> {
        let policy = self.policies.get_opt(cpu, policy)?;
        Some((policy.mode().read(cpu), policy.nodes().read(cpu)))
    }

    /// Whether pages are interleaved there.
    #[inline(always)]
    pub(crate) fn is_interleaved(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        matches!(self.policy_of(cpu, vma), Some((mode, _)) if mode == MpolMode::Interleave as u64)
    }

    /// `alloc_pages_vma()`: where the page of 2^`order` frames at `address` of the VMA shall come
    /// from.
    #[inline(always)]
    pub(crate) fn vma_placement(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        address: Vaddr,
        order: u32,
    ) -> Placement {
        match if self.config.system.numa { self.policy_of(cpu, vma) } else { None } {
            None => self.local_placement(cpu),
            Some(policy) => self.placed(cpu, policy, |nodes| {
                // interleave_nid()
                let within = address.since(vma.vm_start().read(cpu)) >> (self.page_shift() + order);
                nth_node(nodes, (vma.vm_pgoff().read(cpu) >> order) + within)
            }),
        }
    }

    /// `alloc_pages_current()`: of what belongs to no VMA.
    #[inline(always)]
    pub(super) fn task_placement(&self, cpu: &P) -> Placement {
        match if self.config.system.numa { self.task_policy(cpu) } else { None } {
            None => self.local_placement(cpu),
            Some(policy) => self.placed(cpu, policy, |nodes| self.interleave_nodes(cpu, nodes)),
        }
    }

    /// `policy_node()` and `policy_nodemask()`
    #[cold]
    fn placed(
        &self,
        cpu: &P,
        (mode, nodes): (u64, u64),
        interleaved: impl FnOnce(u64) -> u32,
    ) -> Placement {
        let node = match nodes {
            0 => self.numa_node_id(cpu),
            _ if mode == MpolMode::Bind as u64 => return self.bound_placement(cpu, nodes),
            _ if mode == MpolMode::Interleave as u64 => interleaved(nodes),
            _ => nodes.trailing_zeros(),
        };
        self.cpuset_placement(cpu, node)
    }

    /// `interleave_nodes()`: the next node after the one that the task had last.
    fn interleave_nodes(&self, cpu: &P, nodes: u64) -> u32 {
        let task = self.current(cpu);
        let last = task.il_prev.get();
        let above = if last >= 63 { 0 } else { nodes & (u64::MAX << (last + 1)) };
        let next = if above == 0 { nodes } else { above }.trailing_zeros();
        task.il_prev.set(u64::from(next));
        next
    }

    /// `mpol_misplaced()`: the node where a page that this CPU uses should be, if it is on another.
    /// Only the default policy lets pages move (`MPOL_F_MORON`): those of programs lack `MPOL_F_MOF`.
    /// Caller holds the PTE lock.
    pub(crate) fn mpol_misplaced(
        &self,
        cpu: &P,
        page: PageRef<'_, P>,
        vma: VmaRef<'_, P>,
    ) -> Option<u32> {
        if self.policy_of(cpu, vma).is_some() {
            return None;
        }
        let here = self.numa_node_id(cpu);
        let moves = self.should_numa_migrate_memory(cpu, page, here);
        // Elsewhere than in its cpuset the task gets no page to move to.
        let allowed = self.mems_allowed(cpu) >> here & 1 == 1;
        (moves && allowed && self.page_to_nid(page) != here).then_some(here)
    }

    /// `should_numa_migrate_memory()`: who took the last hinting fault on the page decides: nobody,
    /// this task, or somebody on this node. DEVIATION: tasks have no groups, no preferred node, and
    /// are always young.
    fn should_numa_migrate_memory(&self, cpu: &P, page: PageRef<'_, P>, here: u32) -> bool {
        let task = u64::from(cpu.task()) & LAST_PID_MASK;
        let new = LAST_CPUPID_SET | u64::from(here) << LAST_NID_SHIFT | task << LAST_PID_SHIFT;
        let last = self.page_cpupid_xchg_last(cpu, page, new);
        last & LAST_CPUPID_SET == 0
            || last >> LAST_PID_SHIFT & LAST_PID_MASK == task
            || last >> LAST_NID_SHIFT & LAST_NID_MASK == u64::from(here)
    }

    /// Whether VMA or task have a policy.
    pub(crate) fn has_policy(&self, cpu: &P, vma: VmaRef<'_, P>) -> bool {
        !vma.vm_policy().read(cpu).is_null() || self.current(cpu).mempolicy.get() != 0
    }

    /// `mbind_range()`: gives `start..end` the policy, VMA by VMA. What an error finds done stays
    /// done. Caller holds `mmap_sem` for write.
    pub(crate) fn mbind_range(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        start: Vaddr,
        end: Vaddr,
        policy: Ptr<Mempolicy<P>>,
    ) -> Result<(), Errno> {
        let first = self.find_vma(cpu, mm, start);
        let first = first.filter(|vma| vma.vm_start().read(cpu) <= start).ok_or(Errno::Efault)?;
        let mut prev =
            if start > first.vm_start().read(cpu) { Some(first) } else { self.vm_prev(cpu, first) };
        let mut cursor = Some(first);
        while let Some(vma) = cursor.filter(|vma| vma.vm_start().read(cpu) < end) {
            let from = start.max(vma.vm_start().read(cpu));
            let to = end.min(vma.vm_end().read(cpu));
            let vma = if self.mpol_equal(cpu, vma.vm_policy().read(cpu), policy) {
                vma
            } else {
                self.mbind_vma(cpu, mm, vma, prev, from..to, policy)?
            };
            prev = Some(vma);
            cursor = self.vm_next(cpu, vma);
        }
        Ok(())
    }

    /// One round of `mbind_range()`. Returns the VMA that then holds the range.
    fn mbind_vma<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        prev: Option<VmaRef<'k, P>>,
        range: std::ops::Range<Vaddr>,
        policy: Ptr<Mempolicy<P>>,
    ) -> Result<VmaRef<'k, P>, Errno> {
        let request = MergeRequest {
            start: range.start,
            end: range.end,
            flags: vma.vm_flags().read(cpu),
            anon_vma: vma.anon_vma().read(cpu),
            file: vma.vm_file().read(cpu),
            pgoff: self.pgoff_of(cpu, vma, range.start),
            policy,
        };
        if let Some(merged) = self.vma_merge(cpu, mm, prev, &request) {
            return Ok(merged); // which has the policy
        }
        if range.start != vma.vm_start().read(cpu) {
            self.split_vma(cpu, mm, vma, range.start, NewHalf::Below)?;
        }
        if range.end != vma.vm_end().read(cpu) {
            self.split_vma(cpu, mm, vma, range.end, NewHalf::Above)?;
        }
        self.vma_replace_policy(cpu, vma, policy);
        Ok(vma)
    }

    /// `vma_replace_policy()`: the VMA gets a copy of the policy. The old one goes after the
    /// bracket. Source: P10.
    fn vma_replace_policy(&self, cpu: &P, vma: VmaRef<'_, P>, policy: Ptr<Mempolicy<P>>) {
        let _step = cpu.step("vma_replace_policy");
        let new = self.mpol_dup(cpu, policy);
        D::vm_write_begin(cpu, vma);
        let old = vma.vm_policy().read(cpu);
        vma.vm_policy().write(cpu, new);
        D::vm_write_end(cpu, vma);
        self.mpol_put_replaced(cpu, old);
    }

    /// `mpol_rebind_task()`: the current task's policy follows its cpuset.
    pub(crate) fn mpol_rebind_task(&self, cpu: &P, new: u64) {
        self.mpol_rebind_policy(cpu, Ptr::from_word(self.current(cpu).mempolicy.get()), new);
    }

    /// `mpol_rebind_mm()`: so do those of an address space. Source: P10.
    pub(crate) fn mpol_rebind_mm(&self, cpu: &P, mm: MmRef<'_, P>, new: u64) {
        let sem = self.mmap_sem(mm);
        sem.down_write(cpu);
        for vma in self.each_vma(cpu, mm) {
            let _step = cpu.step("mpol_rebind_mm");
            D::vm_write_begin(cpu, vma);
            self.mpol_rebind_policy(cpu, vma.vm_policy().read(cpu), new);
            D::vm_write_end(cpu, vma);
        }
        sem.up_write(cpu);
    }

    /// `mpol_rebind_policy()`: the nodes go by their places in the cpuset.
    fn mpol_rebind_policy(&self, cpu: &P, policy: Ptr<Mempolicy<P>>, new: u64) {
        let Some(policy) = self.policies.get_opt(cpu, policy) else { return };
        let [mode, nodes, old] =
            [policy.mode(), policy.nodes(), policy.mems_allowed()].map(|field| field.read(cpu));
        if nodes == 0 || old == new {
            return;
        }
        let nodes = nodes_remap(nodes, old, new);
        policy.nodes().write(cpu, nodes);
        // From 4.13 to 5.1 a mask of nodes is noted as if it were the cpuset: the next time, places
        // are counted in it.
        let noted = if mode == MpolMode::Preferred as u64 { new } else { nodes };
        policy.mems_allowed().write(cpu, noted);
    }
}

/// `nodes_remap()`: the first of `old` becomes the first of `new`, and so on, in turn. `nodes` are
/// some of `old`.
fn nodes_remap(nodes: u64, old: u64, new: u64) -> u64 {
    (0..u64::BITS).filter(|node| nodes >> node & 1 == 1).fold(0, |all, node| {
        let place = (old & ((1 << node) - 1)).count_ones();
        all | 1 << nth_node(new, place.into())
    })
}

/// `offset_il_node()`: the nodes of a mask in turn.
fn nth_node(nodes: u64, nth: u64) -> u32 {
    let mut left = nodes;
    for _ in 0..nth as u32 % nodes.count_ones() {
        left &= left - 1;
    }
    left.trailing_zeros()
}

#[cfg(test)]
#[path = "../../tests/unit/mm/mempolicy.rs"]
mod tests;
