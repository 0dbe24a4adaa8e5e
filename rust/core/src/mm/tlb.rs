//! The translation look-aside buffer of each CPU: how it fills, and how it is flushed.
//!
//! A CPU looks only at its own TLB. Whoever flushes counts `mm->tlb_gen` up and interrupts the
//! CPUs that run the address space; each drops its translations before its next access: that of
//! one page, if the flush was of one and the CPU has seen all before it, else all. Until
//! then an old translation may still be used: that is what the worst race of the series needs.
//! Source: `arch/x86/mm/tlb.c`, v5.1; simplifications in `docs/fidelity.md`.

use super::kernel::{Kernel, PerCpu};
use super::objects::{Mm, MmRef};
use super::pmd::{Pmd, PmdVal};
use super::types::{Access, FaultCode, Pte, Vaddr};
use crate::design::Design;
use crate::events::Cost;
use crate::platform::{CpuId, Fence, Hazard, Local, Ordering, Platform, Ptr, Value};

/// Entries of one CPU's TLB, direct mapped by page number.
const NR_ENTRIES: usize = 64;

/// More than any page's number. Pages have 4 KiB at least.
const EPOCH: u64 = 1 << 52;
const LAST_EPOCH: u64 = 0xffe << 52;

/// A CPU's TLB.
pub(super) struct Tlb {
    /// `mm->tlb_gen` that the entries are good for.
    generation: Local,
    /// What a page's number and its tag are apart since the last reset. Each reset changes it, so
    /// that all that was there before matches nothing, and need not be touched.
    epoch: Local,
    entries: Box<[Entry]>,
}

/// One translation.
#[derive(Default)]
struct Entry {
    /// Page number + 1 + epoch; 0: empty.
    tag: Local,
    pte: Local,
    /// Which life of the frame the translation means: a later one is a use after free.
    page: Local,
}

impl Tlb {
    pub(super) fn new() -> Self {
        Self {
            generation: Local::default(),
            epoch: Local::default(),
            entries: (0..NR_ENTRIES).map(|_| Entry::default()).collect(),
        }
    }

    /// The entry that the translation of a page is in, if it is there.
    fn entry(&self, page_number: u64) -> &Entry {
        &self.entries[page_number as usize % NR_ENTRIES]
    }

    /// What tells that an entry is the page's.
    #[inline(always)]
    fn tag(&self, page_number: u64) -> u64 {
        page_number + 1 + self.epoch.get()
    }

    /// Drops the translation of one page.
    fn drop_page(&self, page_number: u64) {
        let entry = self.entry(page_number);
        if entry.tag.get() == self.tag(page_number) {
            entry.tag.set(0);
        }
    }

    /// Drops every translation.
    pub(super) fn reset(&self) {
        self.generation.set(0);
        if self.epoch.get() == LAST_EPOCH {
            self.entries.iter().for_each(|entry| entry.tag.set(0));
            self.epoch.set(0);
        } else {
            self.epoch.add(EPOCH);
        }
    }
}

/// Bits of a page's number in `tlb_flush_info`.
const PAGE_BITS: u32 = 40;

/// A flush of one page as a word: the low bits of its generation above the page's number.
/// `None`: it does not fit. 0 stands for every other flush.
fn flush_info(generation: u64, page_number: u64) -> Option<u64> {
    (page_number < 1 << PAGE_BITS && page_number != 0)
        .then_some(generation << PAGE_BITS | page_number)
}

/// Whether the hardware lets `pte` be used for `access`.
fn permits(pte: Pte, access: Access) -> bool {
    pte.has(Pte::PRESENT)
        && match access {
            Access::Read => pte.has(Pte::READ),
            Access::Write => pte.has(Pte::WRITE),
            Access::Execute => pte.has(Pte::EXEC),
        }
}

/// What a flush asks of other CPUs.
#[derive(Clone, Copy)]
enum Others {
    Flush {
        freed_tables: bool,
    },
    /// To flush, and to leave sections with interrupts off.
    EndWalks,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// One access of the user (or of the kernel at a user address): look-up or walk and fill, and
    /// the word itself, as one irq-off section, for a flush waits until it is over.
    ///
    /// Returns the word read, or what the hardware reports to the fault handler.
    pub(crate) fn translate_and_access(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        access: Access,
        value: u64,
        user: bool,
    ) -> Result<u64, FaultCode> {
        cpu.begin_user_access();
        let code = FaultCode::not_present(access, user);
        let result = self.access_irqs_off(cpu, mm, address, code, value);
        cpu.end_user_access();
        result
    }

    fn access_irqs_off(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        not_present: FaultCode,
        value: u64,
    ) -> Result<u64, FaultCode> {
        let access = not_present.access;
        let tlb = &self.cpus[cpu.id() as usize].tlb;
        self.update_tlb(cpu, mm);
        let page_number = address.0 >> self.page_shift();
        let entry = tlb.entry(page_number);
        let tag = tlb.tag(page_number);
        let cached = Pte(entry.pte.get());
        let hit = entry.tag.get() == tag
            && permits(cached, access)
            && (access != Access::Write || cached.has(Pte::DIRTY))
            && !cpu.meets(Hazard::TlbEviction);
        if !hit {
            self.fill(cpu, mm, address, not_present)?;
        }
        cpu.charge(Cost::UserAccess, 1);
        let page = self.pages.get(cpu, Ptr::from_word(entry.page.get()));
        match access {
            Access::Write => {
                page.content().write(cpu, value);
                Ok(0)
            }
            Access::Read | Access::Execute => Ok(page.content().read(cpu)),
        }
    }

    /// Takes the translation of a page from its table.
    fn fill(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        not_present: FaultCode,
    ) -> Result<(), FaultCode> {
        let tlb = &self.cpus[cpu.id() as usize].tlb;
        let page_number = address.0 >> self.page_shift();
        let entry = tlb.entry(page_number);
        // The hardware walks again before it reports a missing permission.
        entry.tag.set(0);
        let pte = self.hardware_walk(cpu, mm, address, not_present)?;
        if pte.has(Pte::WRITE) && self.is_zero_pfn(pte.pfn()) {
            cpu.finding("zero-page", format!("it can be written at {address:#x}"));
        }
        entry.pte.set(pte.to_word());
        entry.page.set(self.page(cpu, pte.pfn()).ptr().to_word());
        entry.tag.set(tlb.tag(page_number));
        Ok(())
    }

    /// The hardware looks up a translation that was not asked for, as if it were to be read: it
    /// reports nothing, and leaves the dirty bit alone.
    pub(crate) fn prefetch_translation(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) {
        cpu.begin_user_access();
        self.update_tlb(cpu, mm);
        let page_number = address.0 >> self.page_shift();
        let tlb = &self.cpus[cpu.id() as usize].tlb;
        if tlb.entry(page_number).tag.get() != tlb.tag(page_number) {
            _ = self.fill(cpu, mm, address, FaultCode::not_present(Access::Read, true));
        }
        cpu.end_user_access();
    }

    /// Makes this CPU's TLB hold only translations of `mm` that are not flushed.
    fn update_tlb(&self, cpu: &P, mm: MmRef<'_, P>) {
        self.switch_mm(cpu, mm);
        let tlb = &self.cpus[cpu.id() as usize].tlb;
        // The flush comes as an interrupt, which costs its sender; the CPU polls no line for it.
        let generation = mm.tlb_gen().observe(cpu);
        if tlb.generation.get() != generation {
            self.flush_tlb_func(tlb, mm, generation);
        }
    }

    /// `switch_mm()`: from here on this CPU is one of those that run `mm`, and a flush waits for what
    /// it does with interrupts off. (The kernel's scheduler has done that before a task runs.)
    pub(super) fn switch_mm(&self, cpu: &P, mm: MmRef<'_, P>) {
        let mine = &self.cpus[cpu.id() as usize];
        let mm_word = mm.ptr().to_word();
        if cpu.observe(&mine.active_mm) != mm_word {
            // SeqCst: a flusher either sees this CPU in the mask, or this CPU sees its PTEs;
            // pairs with the SeqCst increment of tlb_gen in flush_tlb_mm.
            cpu.swap(&mine.active_mm, mm_word, Ordering::SeqCst);
            // mb: the generation and the PTEs are read after that, which an atomic exchange
            // alone does not promise for loads that are relaxed.
            cpu.fence(Fence::Full);
            mine.tlb.reset();
        }
    }

    /// What the interrupts of the flushes since this CPU's last access do.
    #[cold]
    fn flush_tlb_func(&self, tlb: &Tlb, mm: MmRef<'_, P>, generation: u64) {
        let info = mm.tlb_flush_info().peek();
        let page_number = info & ((1 << PAGE_BITS) - 1);
        // The word may be of an earlier flush than the count, or of a later one: then it does not
        // say this generation, and everything goes.
        let is_next = tlb.generation.get() + 1 == generation;
        if is_next && Some(info) == flush_info(generation, page_number) {
            tlb.drop_page(page_number);
        } else {
            tlb.reset();
        }
        tlb.generation.set(generation);
    }

    /// The walk of the hardware; it sets the young and dirty bits.
    fn hardware_walk(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        address: Vaddr,
        not_present: FaultCode,
    ) -> Result<Pte, FaultCode> {
        cpu.charge(Cost::TlbFill, 1);
        let access = not_present.access;
        let pmd = self.walk_pmd(cpu, mm, address).ok_or(not_present)?;
        let value = pmd.read(cpu);
        let Some(table) = value.table() else {
            return self.hardware_walk_huge(cpu, mm, pmd, value, address, not_present);
        };
        let slot = self.pte_offset_map(cpu, table, address);
        loop {
            // Consume: the page was filled before its PTE was stored; pairs with the Release of
            // whoever mapped it.
            let pte = slot.pte().load(cpu, Ordering::Consume);
            if !pte.has(Pte::PRESENT) {
                return Err(not_present);
            }
            if !permits(pte, access) {
                return Err(self.not_permitted(not_present, pte));
            }
            let mut used = pte | Pte::YOUNG;
            if access == Access::Write {
                used |= Pte::DIRTY;
            }
            // Locked read-modify-write of the walker: a PTE that changed is walked again.
            if used == pte || slot.pte().compare_exchange(cpu, pte, used, Ordering::Relaxed).is_ok()
            {
                return Ok(used);
            }
        }
    }

    /// The walk ends at a PMD: the translation of the base page within the huge one.
    #[cold]
    fn hardware_walk_huge(
        &self,
        cpu: &P,
        mm: MmRef<'_, P>,
        pmd: Pmd<'_, P>,
        value: PmdVal<P>,
        address: Vaddr,
        not_present: FaultCode,
    ) -> Result<Pte, FaultCode> {
        if value.is_none() {
            return Err(not_present);
        }
        let leaf = self.leaf_of(value);
        if !leaf.has(Pte::PRESENT) {
            return Err(not_present);
        }
        let access = not_present.access;
        if !permits(leaf, access) {
            return Err(self.not_permitted(not_present, leaf));
        }
        let mut used = leaf | Pte::YOUNG;
        if access == Access::Write {
            used |= Pte::DIRTY;
        }
        if used != leaf && !pmd.set_access_flags(cpu, value, self.huge_pmd(used)) {
            // It changed meanwhile: once more.
            return self.hardware_walk(cpu, mm, address, not_present);
        }
        let within = address.since(self.hpage_pmd_start(address)) >> self.page_shift();
        Ok(Pte::new(used.pfn() + within as u32, used & Pte(0xfff)))
    }

    /// What is reported of an access that a present entry does not permit. The key forbids all but
    /// instruction fetches, whatever else does.
    fn not_permitted(&self, not_present: FaultCode, pte: Pte) -> FaultCode {
        let has_key = self.config.arch.has_execute_only_pkey() && !pte.has(Pte::READ);
        let pkey = has_key && not_present.access != Access::Execute;
        FaultCode { protection: true, pkey, ..not_present }
    }

    /// Whether the TLB of `other`, which is not this CPU, may hold translations of `mm`
    /// (`mm_cpumask`).
    fn may_translate(&self, cpu: &P, mm: Ptr<Mm<P>>, other: CpuId) -> bool {
        let active_mm = |other: &PerCpu<P>| cpu.observe(&other.active_mm);
        other != cpu.id()
            && self.cpus.get(other as usize).is_some_and(|other| active_mm(other) == mm.to_word())
    }

    /// `flush_tlb_mm()`: when it returns, no CPU uses a translation of `mm` from before. Ranges
    /// are flushed like this, too.
    pub(crate) fn flush_tlb_mm(&self, cpu: &P, mm: MmRef<'_, P>) {
        self.flush_tlb_mm_range(cpu, mm, false);
    }

    /// `flush_tlb_mm_range()`: as `flush_tlb_mm`; with `freed_tables` idle CPUs are told, too, which
    /// may walk what they know of tables that go.
    pub(crate) fn flush_tlb_mm_range(&self, cpu: &P, mm: MmRef<'_, P>, freed_tables: bool) {
        let _step = cpu.step("flush_tlb_mm");
        self.flush(cpu, mm, None, Others::Flush { freed_tables });
    }

    /// As `flush_tlb_mm`, and no CPU walks tables of `mm` with interrupts off any more since before
    /// (`serialize_against_pte_lookup()`): by interrupts on every machine.
    pub(super) fn flush_tlb_mm_and_walks(&self, cpu: &P, mm: MmRef<'_, P>) {
        let _step = cpu.step("flush_tlb_mm");
        self.flush(cpu, mm, None, Others::EndWalks);
    }

    /// `flush_tlb_page()`: as `flush_tlb_mm`, for one page.
    pub(crate) fn flush_tlb_page(&self, cpu: &P, mm: MmRef<'_, P>, address: Vaddr) {
        let _step = cpu.step("flush_tlb_page");
        let others = Others::Flush { freed_tables: false };
        self.flush(cpu, mm, Some(address.0 >> self.page_shift()), others);
    }

    fn flush(&self, cpu: &P, mm: MmRef<'_, P>, page_number: Option<u64>, others: Others) {
        cpu.charge(Cost::TlbFlushLocal, 1);
        // SeqCst: the PTE stores come before, the look at the mask after (the kernel's
        // inc_mm_tlb_gen is a full barrier); pairs with the SeqCst swap in switch_mm.
        let generation = mm.tlb_gen().fetch_add(cpu, 1, Ordering::SeqCst) + 1;
        let info = page_number.and_then(|page_number| flush_info(generation, page_number));
        mm.tlb_flush_info().poke(info.unwrap_or(0));
        let is_target = |other| self.may_translate(cpu, mm.ptr(), other);
        match others {
            Others::EndWalks => cpu.ipi(is_target),
            Others::Flush { freed_tables } => cpu.flush_others(freed_tables, is_target),
        }
    }

    /// `inc_tlb_flush_pending()`: before the first PTE is changed. The PTE lock orders it: who
    /// finds a PTE changed sees the count, too.
    pub(super) fn inc_tlb_flush_pending(&self, cpu: &P, mm: MmRef<'_, P>) {
        mm.tlb_flush_pending().fetch_add(cpu, 1, Ordering::Relaxed);
    }

    /// `dec_tlb_flush_pending()`: after the flush, which orders what has to be; where no PTE was
    /// changed there is none, and nothing to order.
    pub(super) fn dec_tlb_flush_pending(&self, cpu: &P, mm: MmRef<'_, P>) {
        mm.tlb_flush_pending().fetch_add(cpu, -1, Ordering::Relaxed);
    }

    /// `mm_tlb_flush_nested()`: whether somebody besides the caller has yet to flush. The caller has
    /// held the PTE lock, as for `inc_tlb_flush_pending`.
    pub(super) fn mm_tlb_flush_nested(&self, cpu: &P, mm: MmRef<'_, P>) -> bool {
        mm.tlb_flush_pending().read(cpu) > 1
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/tlb.rs"]
mod tests;
