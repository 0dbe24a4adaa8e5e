//! The fault, in the order of the core's own text.

use std::hint::black_box;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, fence};

use spfemu_core::arch::Family;
use spfemu_core::events::Event;
use spfemu_core::mm::{Access, FaultCode, FaultFlags, Pte, Variant, VmFault, VmFlags};

use super::{Cpu, Mm, Slot, Table, Task, Twin, Vma};

/// What the kernel calls `struct vm_fault`.
pub(super) struct Vmf<'t> {
    pub vma: &'t Slot<Vma>,
    pub vma_word: u64,
    pub mm: u64,
    pub flags: FaultFlags,
    pub address: u64,
    /// For faults on files, and on pages that are there.
    pub _pgoff: u64,
    pub _orig_pte: u64,
    pub vma_flags: VmFlags,
    pub vma_page_prot: Pte,
    pub sequence: u64,
    pub pmd: &'t AtomicU64,
    pub orig_pmd: u64,
    pub pte: Option<(&'t Table, &'t AtomicU64)>,
    pub ptl: Option<&'t AtomicU64>,
}

/// Why an attempt gives up.
struct Abort {
    event: Event,
    result: VmFault,
}

const CHANGED: Abort = Abort { event: Event::SpfVmaChanged, result: VmFault::RETRY };
const NOTSUP: Abort = Abort { event: Event::SpfVmaNotsup, result: VmFault::RETRY };
const ACCESS: Abort = Abort { event: Event::SpfVmaAccess, result: VmFault::SIGSEGV };

#[inline(always)]
fn atomic_dec_and_test(count: &AtomicU64) -> bool {
    let before = count.fetch_sub(1, AcqRel);
    assert!(before != 0, "a reference is dropped that does not exist");
    before == 1
}

/// Whether a PMD entry is the pointer of a table: not none, and no huge page.
#[inline(always)]
pub(super) fn is_table(pmd: u64) -> bool {
    pmd as u32 != 0
}

/// Adds to a word that only this CPU writes.
#[inline(always)]
pub(super) fn add(word: &AtomicU64, value: u64) {
    word.store(word.load(Relaxed).wrapping_add(value), Relaxed);
}

impl Task {
    #[inline(always)]
    pub(super) fn count(&self, event: Event) {
        add(&self.counters[event as usize], 1);
    }
}

#[inline(always)]
fn check_vma_support(vma: &Vma) -> Result<(VmFlags, Pte), Abort> {
    let vm_ops = vma.vm_ops.load(Relaxed);
    if (vm_ops != 0 && vm_ops != 1) || vma.anon_vma.load(Relaxed) == 0 {
        return Err(NOTSUP);
    }
    let flags = VmFlags(vma.vm_flags.load(Relaxed));
    let page_prot = Pte(vma.vm_page_prot.load(Relaxed));
    if flags.has(VmFlags::UFFD_MISSING | VmFlags::GROWSDOWN) {
        return Err(NOTSUP);
    }
    Ok((flags, page_prot))
}

#[inline(always)]
fn check_access(vma: VmFlags, fault: FaultFlags) -> Result<(), Abort> {
    let needed = if fault.has(FaultFlags::WRITE) {
        VmFlags::WRITE
    } else {
        VmFlags::READ | VmFlags::EXEC | VmFlags::WRITE
    };
    if vma.has(needed) { Ok(()) } else { Err(ACCESS) }
}

impl Twin {
    /// Handles one fault; returns whether it was speculative.
    #[inline(never)]
    pub fn fault(&self, cpu: &Cpu<'_>, address: u64, code: FaultCode) -> bool {
        let task = &self.tasks[cpu.task as usize];
        task.count(Event::Faults);
        let mm_word = task.mm.load(Relaxed);
        let mm = &self.mms.get(mm_word).object;
        let mut flags = FaultFlags::ALLOW_RETRY | FaultFlags::KILLABLE;
        if code.user {
            flags |= FaultFlags::USER;
        }
        match code.access {
            Access::Write => flags |= FaultFlags::WRITE,
            Access::Execute => flags |= FaultFlags::INSTRUCTION,
            Access::Read => {}
        }
        let fault = self.handle_speculative_fault(cpu, task, mm_word, mm, address, flags);
        if !self.accepts(fault) {
            self.elsewhere(None);
            return false;
        }
        task.count(Event::Spf);
        if fault.has(VmFault::ERROR) {
            self.elsewhere(None);
        } else {
            task.count(Event::MinorFaults);
        }
        true
    }

    /// What a speculative first write does not come to. As far as the compiler knows it returns, as
    /// what stands in its place in the core does: else it would leave out all that only this needs.
    #[inline(never)]
    pub(super) fn elsewhere(&self, vmf: Option<&mut Vmf<'_>>) -> VmFault {
        black_box(vmf);
        assert!(black_box(false), "not written by hand");
        VmFault::RETRY
    }

    #[inline(always)]
    fn accepts(&self, fault: VmFault) -> bool {
        if fault == VmFault::RETRY {
            return false;
        }
        let is_segv = fault == VmFault::SIGSEGV;
        if is_segv && !self.variants.v12(Variant::C3) {
            return false;
        }
        match self.arch.family {
            Family::X86 | Family::Arm64 => true,
            Family::Powerpc => self.system.ppc_mem_keys && !is_segv,
        }
    }

    #[inline(always)]
    fn handle_speculative_fault(
        &self,
        cpu: &Cpu<'_>,
        task: &Task,
        mm_word: u64,
        mm: &Mm,
        address: u64,
        flags: FaultFlags,
    ) -> VmFault {
        let is_off = self.sysctl.load(Relaxed) == 0;
        if is_off || !flags.has(FaultFlags::USER) || mm.mm_users.load(Relaxed) == 1 {
            return VmFault::RETRY;
        }
        let address = address & !((1 << self.arch.page_shift) - 1);
        let may_unlock = FaultFlags::ALLOW_RETRY | FaultFlags::KILLABLE;
        let flags = (flags & !may_unlock) | FaultFlags::SPECULATIVE;
        let Some((word, vma)) = self.find_vma_rcu(cpu, mm, address) else { return VmFault::RETRY };
        let result = self.fault_in_vma(cpu, task, mm_word, word, vma, address, flags);
        let result = result.unwrap_or_else(|abort| {
            task.count(abort.event);
            abort.result
        });
        self.put_vma(vma);
        result
    }

    #[inline(always)]
    fn put_vma(&self, vma: &Slot<Vma>) {
        if atomic_dec_and_test(&vma.object.vm_ref_count) {
            self.elsewhere(None);
        }
    }

    #[inline(always)]
    fn find_vma_rcu(&self, cpu: &Cpu<'_>, mm: &Mm, address: u64) -> Option<(u64, &Slot<Vma>)> {
        loop {
            let seq = mm.mm_seq.load(Relaxed);
            if !seq.is_multiple_of(2) {
                std::hint::spin_loop();
                continue;
            }
            fence(Acquire);
            cpu.enter();
            if self.variants.v12(Variant::C1) {
                self.elsewhere(None);
            }
            let found = self.find_vma(mm, address);
            if let Some((_, vma)) = found {
                vma.object.vm_ref_count.fetch_add(1, Relaxed);
            }
            cpu.leave();
            fence(Acquire);
            if mm.mm_seq.load(Relaxed) == seq {
                return found;
            }
            if let Some((_, vma)) = found {
                self.put_vma(vma);
            }
        }
    }

    #[inline(always)]
    fn find_vma(&self, mm: &Mm, address: u64) -> Option<(u64, &Slot<Vma>)> {
        let mut cursor = mm.mm_rb.load(Acquire);
        let mut found = None;
        while cursor != 0 {
            let slot = self.vmas.get(cursor);
            let vma = &slot.object;
            let below = vma.vm_end.load(Relaxed) > address;
            if below {
                found = Some((cursor, slot));
                if vma.vm_start.load(Relaxed) <= address {
                    break;
                }
            }
            let child = if below { &vma.rb_left } else { &vma.rb_right };
            cursor = child.load(Acquire);
        }
        found
    }

    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn fault_in_vma(
        &self,
        cpu: &Cpu<'_>,
        task: &Task,
        mm: u64,
        vma_word: u64,
        slot: &Slot<Vma>,
        address: u64,
        flags: FaultFlags,
    ) -> Result<VmFault, Abort> {
        let vma = &slot.object;
        let sequence = self.check_vma_sequence(vma, vma_word)?;
        let (vma_flags, vma_page_prot) = check_vma_support(vma)?;
        if address < vma.vm_start.load(Relaxed) || vma.vm_end.load(Relaxed) <= address {
            return Err(CHANGED);
        }
        check_access(vma_flags, flags)?;

        cpu.irq_disable();
        let Some((pmd, orig_pmd)) = self.walk(mm, address) else {
            task.count(NOTSUP.event);
            cpu.irq_enable();
            return Ok(VmFault::RETRY);
        };
        let pte = self.pte(orig_pmd, address);
        let orig_pte = pte.1.load(Relaxed);
        let mut vmf = Vmf {
            vma: slot,
            vma_word,
            mm,
            flags,
            address,
            _pgoff: self.linear_page_index(vma, address),
            vma_flags,
            vma_page_prot,
            sequence,
            pmd,
            orig_pmd,
            pte: (orig_pte != 0).then_some(pte),
            _orig_pte: orig_pte,
            ptl: None,
        };
        cpu.irq_enable();
        fence(Acquire);
        if vma.vm_sequence.load(Relaxed) != sequence {
            return Err(CHANGED);
        }
        let result = self.handle_pte_fault(cpu, task, &mut vmf);
        if result != VmFault::RETRY {
            task.count(Event::SpeculativePgfault);
        }
        Ok(result)
    }

    #[inline(always)]
    fn check_vma_sequence(&self, vma: &Vma, vma_word: u64) -> Result<u64, Abort> {
        let sequence = vma.vm_sequence.load(Relaxed);
        fence(Acquire);
        if sequence & 1 != 0 {
            return Err(CHANGED);
        }
        if !self.variants.v12(Variant::C9) && vma.rb_parent.load(Relaxed) == vma_word {
            return Err(CHANGED);
        }
        Ok(sequence)
    }

    /// The PMD entry for `address` and what is in it; `None`: no table of PTEs.
    #[inline(always)]
    fn walk(&self, mm: u64, address: u64) -> Option<(&AtomicU64, u64)> {
        let pmd = self.walk_pmd(mm, address)?;
        let orig_pmd = pmd.load(Acquire);
        is_table(orig_pmd).then_some((pmd, orig_pmd))
    }

    #[inline(always)]
    pub(super) fn walk_pmd(&self, mm: u64, address: u64) -> Option<&AtomicU64> {
        let [pgds, below @ .., _] = self.levels.as_slice() else { unreachable!("levels") };
        let mut table = &pgds.tables.get(self.mms.get(mm).object.pgd.load(Relaxed)).object;
        let mut index = pgds.index(address);
        for level in below {
            let entry = table.entries[index].load(Acquire);
            if entry == 0 {
                return None;
            }
            table = &level.tables.get(entry).object;
            index = level.index(address);
        }
        Some(&table.entries[index])
    }

    #[inline(always)]
    pub(super) fn pte(&self, table: u64, address: u64) -> (&Table, &AtomicU64) {
        let level = self.levels.last().expect("levels");
        let table = &level.tables.get(table).object;
        (table, &table.entries[level.index(address)])
    }

    #[inline(always)]
    pub(super) fn linear_page_index(&self, vma: &Vma, address: u64) -> u64 {
        let pages = address.wrapping_sub(vma.vm_start.load(Relaxed)) >> self.arch.page_shift;
        pages.wrapping_add(vma.vm_pgoff.load(Relaxed))
    }
}
