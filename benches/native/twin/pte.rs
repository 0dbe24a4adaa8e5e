//! What follows once VMA and PMD are known, in the order of the core's own text.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

use spfemu_core::events::Event;
use spfemu_core::mm::{FaultFlags, Pte, Variant, VmFault, VmFlags};

use super::fault::{Vmf, add, is_table};
use super::{Cpu, PG_ANON, PG_UPTODATE, Page, RSS_EVENTS, Slot, Task, Twin};

impl Twin {
    #[inline(always)]
    pub(super) fn handle_pte_fault<'t>(
        &'t self,
        cpu: &Cpu<'_>,
        task: &Task,
        vmf: &mut Vmf<'t>,
    ) -> VmFault {
        let is_speculative = vmf.flags.has(FaultFlags::SPECULATIVE);
        if !is_speculative {
            self.elsewhere(Some(vmf));
        } else if self.variants.v12(Variant::B3) && vmf.pmd.load(Acquire) == 0 {
            return VmFault::RETRY;
        }
        if vmf.pte.is_some() || vmf.vma.object.vm_ops.load(Relaxed) != 0 {
            return self.elsewhere(Some(vmf));
        }
        if vmf.vma_flags.has(VmFlags::SHARED) {
            return VmFault::SIGBUS;
        }
        if !is_speculative || self.variants.v12(Variant::B2) {
            self.elsewhere(Some(vmf));
        }
        if vmf.flags.has(FaultFlags::WRITE) {
            self.map_new_page(cpu, task, vmf)
        } else {
            self.elsewhere(Some(vmf))
        }
    }

    #[inline(always)]
    fn map_new_page<'t>(&'t self, cpu: &Cpu<'_>, task: &Task, vmf: &mut Vmf<'t>) -> VmFault {
        if vmf.vma.object.anon_vma.load(Relaxed) == 0 {
            self.elsewhere(Some(vmf));
        }
        let Some(page) = self.alloc_zeroed_page(cpu) else { return VmFault::OOM };
        page.object.flags.store(PG_UPTODATE, Relaxed);
        let mut entry = Pte::new(page.index, vmf.vma_page_prot);
        if vmf.vma_flags.has(VmFlags::WRITE) {
            entry |= Pte::WRITE;
        }
        if !self.pte_map_lock(cpu, task, vmf) {
            self.elsewhere(Some(vmf));
            return VmFault::RETRY;
        }
        let (_, pte) = vmf.pte.expect("mapped");
        if pte.load(Relaxed) != 0 {
            return self.elsewhere(Some(vmf));
        }
        self.add_anon_page(task, vmf);
        self.page_add_new_anon_rmap(&page.object, vmf);
        pte.store((entry | Pte::DIRTY | Pte::YOUNG).0, Release);
        let ptl = vmf.ptl.take().expect("the PTE lock is held");
        assert!(ptl.load(Relaxed) == 1, "a spin lock is released that nobody holds");
        ptl.store(0, Release);
        VmFault::NONE
    }

    #[inline(always)]
    fn alloc_zeroed_page(&self, cpu: &Cpu<'_>) -> Option<&Slot<Page>> {
        let mine = &self.cpus[cpu.id as usize];
        if mine.nr_free.load(Relaxed) == 0 {
            self.elsewhere(None);
        }
        let left = mine.nr_free.load(Relaxed).checked_sub(1)?;
        mine.nr_free.store(left, Relaxed);
        let slot = self.pages.slot(mine.free[left as usize].load(Relaxed) as u32);
        let page = &slot.object;
        for word in
            [&page.flags, &page.compound_mapcount, &page.mapping, &page.index, &page.mapcount]
        {
            word.store(0, Relaxed);
        }
        page.refcount.store(0, Relaxed);
        page.content.store(0, Relaxed);
        let generation = slot.generation.load(Relaxed) + 1;
        assert!(!generation.is_multiple_of(2), "allocated twice");
        slot.generation.store(generation, Release);
        page.refcount.store(1, Relaxed);
        page.content.store(0, Relaxed);
        Some(slot)
    }

    #[inline(always)]
    fn pte_map_lock<'t>(&'t self, cpu: &Cpu<'_>, task: &Task, vmf: &mut Vmf<'t>) -> bool {
        if !vmf.flags.has(FaultFlags::SPECULATIVE) {
            self.elsewhere(Some(vmf));
        }
        loop {
            cpu.irq_disable();
            if self.vma_has_changed(vmf) {
                return give_up(cpu, task, Event::SpfVmaChanged);
            }
            let is_v12 = self.variants.v12(Variant::B3);
            let compares = self.system.transparent_hugepage || !is_v12;
            if compares && vmf.pmd.load(Acquire) != vmf.orig_pmd {
                return give_up(cpu, task, Event::SpfPmdChanged);
            }
            let word = if is_v12 { vmf.pmd.load(Acquire) } else { vmf.orig_pmd };
            assert!(is_table(word), "the PTE lock of a PMD that became none");
            let (table, pte) = self.pte(word, vmf.address);
            if table.ptl.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
                cpu.irq_enable();
                std::hint::spin_loop();
                continue;
            }
            if self.vma_has_changed(vmf) {
                table.ptl.store(0, Release);
                return give_up(cpu, task, Event::SpfVmaChanged);
            }
            vmf.pte = Some((table, pte));
            vmf.ptl = Some(&table.ptl);
            cpu.irq_enable();
            return true;
        }
    }

    #[inline(always)]
    fn vma_has_changed(&self, vmf: &Vmf<'_>) -> bool {
        let vma = &vmf.vma.object;
        let unlinked = vma.rb_parent.load(Relaxed) == vmf.vma_word;
        let sequence = vma.vm_sequence.load(Relaxed);
        fence(Acquire);
        unlinked || sequence != vmf.sequence
    }

    #[inline(always)]
    fn add_anon_page(&self, task: &Task, vmf: &mut Vmf<'_>) {
        if task.mm.load(Relaxed) != vmf.mm {
            self.elsewhere(Some(vmf));
            return;
        }
        add(&task.rss[1], 1);
        add(&task.rss_events, 1);
        if task.rss_events.load(Relaxed) > RSS_EVENTS {
            self.sync_mm_rss(task, vmf.mm);
        }
    }

    #[inline(never)]
    fn sync_mm_rss(&self, task: &Task, mm: u64) {
        let mm = &self.mms.get(mm).object;
        for (count, sum) in task.rss.iter().zip([&mm.file_pages, &mm.anon_pages]) {
            let pages = count.load(Relaxed);
            if pages != 0 {
                sum.fetch_add(pages, Relaxed);
                count.store(0, Relaxed);
            }
        }
        task.rss_events.store(0, Relaxed);
    }

    #[inline(always)]
    fn page_add_new_anon_rmap(&self, page: &Page, vmf: &Vmf<'_>) {
        let vma = &vmf.vma.object;
        page.mapcount.store(1, Relaxed);
        page.flags.store(page.flags.load(Relaxed) | PG_ANON, Relaxed);
        page.mapping.store(vma.anon_vma.load(Relaxed), Relaxed);
        page.index.store(self.linear_page_index(vma, vmf.address), Relaxed);
    }
}

#[cold]
fn give_up(cpu: &Cpu<'_>, task: &Task, event: Event) -> bool {
    task.count(event);
    cpu.irq_enable();
    false
}
