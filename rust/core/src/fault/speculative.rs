//! The speculative handler. Source: P22, events P24, vmstat P27, switch P31; the numbers H1 to
//! H23 and W1 to W3 are the steps of `docs/protocol.md`.

use super::Vmf;
use crate::design::Speculative;
use crate::events::{Event, Span};
use crate::mm::{FaultFlags, Kernel, MmRef, Pte, Vaddr, Variant, VmFault, VmFlags, VmOps, VmaRef};
use crate::platform::{Mutant, Ordering, Platform};
use crate::sync::seqcount::{raw_read_seqcount, read_seqcount_retry};

/// Why an attempt gave up: its trace event, and what the architecture is told.
pub(super) struct Abort {
    event: Event,
    result: VmFault,
}

impl Abort {
    /// The VMA changed behind our back.
    const CHANGED: Self = Self { event: Event::SpfVmaChanged, result: VmFault::RETRY };
    /// This kind of VMA, or of page table, is not supported.
    const NOTSUP: Self = Self { event: Event::SpfVmaNotsup, result: VmFault::RETRY };
    /// The access is not allowed. Final.
    const ACCESS: Self = Self { event: Event::SpfVmaAccess, result: VmFault::SIGSEGV };
}

/// `vm_flags` and `vm_page_prot`, read once (H5).
struct Snapshot {
    flags: VmFlags,
    page_prot: Pte,
}

impl<P: Platform, D: Speculative> Kernel<P, D> {
    /// `handle_speculative_fault()`: the inline wrapper. Its tests are silent.
    #[inline]
    pub(crate) fn handle_speculative_fault<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        flags: FaultFlags,
    ) -> VmFault {
        let _step = cpu.step("handle_speculative_fault");
        // W1: any non-zero value is on.
        let switch = cpu.load(&self.sysctl_speculative_page_fault, Ordering::Relaxed);
        cpu.check("W1", switch != 0, || format!("speculative_page_fault {switch} is not 0"));
        if switch == 0 {
            return VmFault::RETRY;
        }
        // W2
        let by_user = flags.has(FaultFlags::USER);
        cpu.check("W2", by_user, || format!("flags {} have user", flags.names()));
        if !by_user && !cpu.mutant(Mutant::A31) {
            return VmFault::RETRY;
        }
        // W3: users of the mm, not threads; an optimisation, correctness does not hang on it.
        let users = mm.mm_users().read(cpu);
        cpu.check("W3", users != 1, || format!("mm_users {users} is not 1"));
        if users == 1 && !cpu.mutant(Mutant::A31) {
            return VmFault::RETRY;
        }
        cpu.enter(Span::Speculative);
        let result = self.speculative_page_fault(cpu, mm, address, flags);
        cpu.leave(if result == VmFault::RETRY { "retry" } else { "handled" });
        result
    }

    /// `__handle_speculative_fault()`
    fn speculative_page_fault<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        address: Vaddr,
        flags: FaultFlags,
    ) -> VmFault {
        let _step = cpu.step("__handle_speculative_fault");
        let address = Vaddr(address.0 & !(self.page_size() - 1));
        // Whatever could release a mmap_sem that we do not hold is off.
        let may_unlock = if cpu.mutant(Mutant::A17) {
            FaultFlags::NONE
        } else {
            FaultFlags::ALLOW_RETRY | FaultFlags::KILLABLE
        };
        let flags = (flags & !may_unlock) | FaultFlags::SPECULATIVE;

        // H1: find_vma_rcu()
        let found = D::find_vma_unlocked(self, cpu, mm, address);
        cpu.check("H1", found.is_some(), || format!("a VMA ends above {address:#x}"));
        let Some(vma) = found else {
            return VmFault::RETRY;
        };
        let result = self.fault_in_vma(cpu, mm, vma, address, flags).unwrap_or_else(|abort| {
            self.trace_spf(cpu, abort.event, vma, address, false);
            abort.result
        });
        // H21
        D::put_vma(self, cpu, vma);
        result
    }

    /// H2 to H22, with the VMA held.
    fn fault_in_vma<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        address: Vaddr,
        flags: FaultFlags,
    ) -> Result<VmFault, Abort> {
        let sequence = self.check_vma_sequence(cpu, vma)?;
        let snapshot = self.check_vma_support(cpu, vma)?;
        self.check_bounds(cpu, vma, address)?;
        self.check_access(cpu, vma, flags, sequence, &snapshot)?;

        let irqs_off = !cpu.mutant(Mutant::A8Walk);
        if irqs_off {
            cpu.local_irq_disable();
        }
        let walked = self.walk_irqs_off(cpu, mm, vma, address, flags, sequence, &snapshot);
        let Ok(mut vmf) =
            walked.inspect_err(|abort| self.trace_spf(cpu, abort.event, vma, address, irqs_off))
        else {
            // The event was emitted while interrupts were still off, as v12 does.
            if irqs_off {
                cpu.local_irq_enable();
            }
            return Ok(VmFault::RETRY);
        };
        if irqs_off {
            cpu.local_irq_enable();
        }

        // H19: everything read so far belongs to one state of the VMA.
        let changed = read_seqcount_retry(cpu, vma.vm_sequence(), sequence);
        cpu.check("H19", !changed, || format!("vm_sequence is still {sequence:#x}, as at H2"));
        if changed {
            return Err(Abort::CHANGED);
        }
        // H20
        let result = self.handle_pte_fault(cpu, &mut vmf);
        // H22
        let handled = !self.is_retry(result);
        cpu.check("H22", handled, || {
            format!("handle_pte_fault gave {}, not RETRY", result.constants())
        });
        if handled {
            self.count(cpu, Event::SpeculativePgfault);
        }
        Ok(result)
    }

    /// H2: nobody modifies the VMA now.
    fn check_vma_sequence(&self, cpu: &P, vma: VmaRef<'_, P>) -> Result<u64, Abort> {
        let sequence = raw_read_seqcount(cpu, vma.vm_sequence());
        let odd = sequence & 1 != 0;
        cpu.check("H2", !odd, || format!("vm_sequence {sequence:#x} is even"));
        if odd {
            return Err(Abort::CHANGED);
        }
        // C9: v12 looks at the tree node only under the PTE lock.
        if !self.v12(Variant::C9) && self.vma_node_empty(cpu, vma) {
            return Err(Abort::CHANGED);
        }
        Ok(sequence)
    }

    /// H3 to H7: the kind of VMA is supported.
    fn check_vma_support(&self, cpu: &P, vma: VmaRef<'_, P>) -> Result<Snapshot, Abort> {
        // H3: a fault operation may drop mmap_sem.
        let have_fault = VmOps::have_fault(vma.vm_ops().read(cpu));
        cpu.check("H3", !have_fault, || "vm_ops have no fault operation".to_owned());
        if have_fault && !cpu.mutant(Mutant::A18) {
            return Err(Abort::NOTSUP);
        }
        // H4: preparing one would walk neighbours that another CPU may unlink. v12 emits notsup
        // here, so spf_vma_noanon is never counted.
        let lacks_anon_vma = vma.anon_vma().read(cpu).is_null();
        cpu.check("H4", !lacks_anon_vma, || "the VMA has an anon_vma".to_owned());
        if lacks_anon_vma && !cpu.mutant(Mutant::A13) {
            return Err(Abort::NOTSUP);
        }
        // H5
        let flags = vma.vm_flags().read(cpu);
        let page_prot = vma.vm_page_prot().read(cpu);
        // H6, H7: before the bounds test on purpose, so that stacks count as notsup.
        for (number, flag) in [("H6", VmFlags::UFFD_MISSING), ("H7", VmFlags::GROWSDOWN)] {
            cpu.check(number, !flags.has(flag), || {
                format!("vm_flags {} have no {}", flags.names(), flag.names())
            });
            if flags.has(flag) {
                return Err(Abort::NOTSUP);
            }
        }
        Ok(Snapshot { flags, page_prot })
    }

    /// H8: the look-up gives the first VMA that ends above the address, no more. A hole in front
    /// of a VMA ends here, too.
    fn check_bounds(&self, cpu: &P, vma: VmaRef<'_, P>, address: Vaddr) -> Result<(), Abort> {
        let start = vma.vm_start().read(cpu);
        cpu.check("H8", start <= address, || format!("vm_start {start:#x} <= {address:#x}"));
        if address < start {
            return Err(Abort::CHANGED);
        }
        let end = vma.vm_end().read(cpu);
        cpu.check("H8", address < end, || format!("{address:#x} < vm_end {end:#x}"));
        if end <= address { Err(Abort::CHANGED) } else { Ok(()) }
    }

    /// H9 to H11: the access is allowed, and the policy supported.
    fn check_access(
        &self,
        cpu: &P,
        vma: VmaRef<'_, P>,
        flags: FaultFlags,
        sequence: u64,
        snapshot: &Snapshot,
    ) -> Result<(), Abort> {
        // H9: of the flags as they are now, not of the snapshot.
        let permitted = self.arch_vma_access_permitted(cpu, vma, flags);
        if self.config.arch.has_execute_only_pkey() {
            cpu.check("H9", permitted, || {
                format!("{} is permitted by the protection key", access_name(flags))
            });
        }
        let allowed = permitted && access_allowed(snapshot.flags, flags);
        cpu.check("H10", allowed, || {
            format!("{} is allowed by vm_flags {}", access_name(flags), snapshot.flags.names())
        });
        if !allowed {
            // C6: v12 takes the flags' word for it, whatever became of the VMA.
            let stale =
                !self.v12(Variant::C6) && read_seqcount_retry(cpu, vma.vm_sequence(), sequence);
            return Err(if stale { Abort::CHANGED } else { Abort::ACCESS });
        }
        // H11: `mpol_misplaced()` would reckon with bounds that may change (A20).
        if self.config.system.numa {
            let interleaved = self.is_interleaved(cpu, vma);
            cpu.check("H11", !interleaved, || "the NUMA policy is not interleave".to_owned());
            if interleaved {
                return Err(Abort::NOTSUP);
            }
        }
        Ok(())
    }

    /// H12 to H18. Page tables are freed only after an interrupt of this CPU, or a grace period,
    /// so with interrupts off every table seen stays. Nothing is allocated here: a table could be
    /// installed after free_pgtables.
    #[expect(clippy::too_many_arguments, reason = "the walk takes what the checks before it found")]
    fn walk_irqs_off<'k>(
        &'k self,
        cpu: &P,
        mm: MmRef<'k, P>,
        vma: VmaRef<'k, P>,
        address: Vaddr,
        flags: FaultFlags,
        sequence: u64,
        snapshot: &Snapshot,
    ) -> Result<Vmf<'k, P>, Abort> {
        // H12 to H15: pgd, p4d and pud exist. A pud never maps a huge page.
        let pmd = if cpu.mutant(Mutant::A12) {
            self.pmd_alloc(cpu, mm, address)
        } else {
            self.walk_pmd(cpu, mm, address)
        };
        cpu.check("H12-H15", pmd.is_some(), || "pgd, p4d and pud are there".to_owned());
        let pmd = pmd.ok_or(Abort::NOTSUP)?;
        // H16: not huge; and none is ambiguous, khugepaged may be about to collapse the range.
        let orig_pmd = pmd.read(cpu);
        cpu.check("H16", orig_pmd.table().is_some(), || {
            format!("the PMD, {}, is a table", orig_pmd.entry_text())
        });
        // H17
        let (pte, orig_pte) = match orig_pmd.table() {
            Some(table) => {
                let slot = self.pte_offset_map(cpu, table, address);
                let orig_pte = slot.pte().read(cpu);
                ((!orig_pte.is_none()).then_some(slot), orig_pte)
            }
            None if cpu.mutant(Mutant::A10) && orig_pmd.is_none() => (None, Pte::EMPTY),
            None => return Err(Abort::NOTSUP),
        };
        // H18
        Ok(Vmf {
            vma,
            mm,
            flags,
            address,
            pgoff: self.linear_page_index(cpu, vma, address),
            vma_flags: snapshot.flags,
            vma_page_prot: snapshot.page_prot,
            sequence,
            pmd,
            orig_pmd,
            pte,
            orig_pte,
            ptl: None,
        })
    }
}

/// What kind of access a fault is for.
fn access_name(fault: FaultFlags) -> &'static str {
    match (fault.has(FaultFlags::WRITE), fault.has(FaultFlags::INSTRUCTION)) {
        (true, _) => "a write",
        (false, true) => "an instruction fetch",
        (false, false) => "a read",
    }
}

/// H10: the flags allow the access.
/// An instruction fetch passes on VM_READ (C2).
fn access_allowed(vma: VmFlags, fault: FaultFlags) -> bool {
    let needed = if fault.has(FaultFlags::WRITE) {
        VmFlags::WRITE
    } else {
        VmFlags::READ | VmFlags::EXEC | VmFlags::WRITE
    };
    vma.has(needed)
}

#[cfg(test)]
#[path = "../../tests/unit/fault/speculative.rs"]
mod tests;
