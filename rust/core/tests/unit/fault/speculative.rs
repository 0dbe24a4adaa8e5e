//! One minimal test for each way through the handler, each abort among them.

use crate::arch::Arch;
use crate::design::{Design, Spf};
use crate::events::{EVENT_NAMES, Event};
use crate::mm::{
    Access, Choice, Config, Kernel, Pte, Signal, System, Vaddr, Variant, Variants, VmFlags,
};
use crate::ops::access::{AccessFailure, Handled};
use crate::ops::mmap::{MapFlags, MmapArgs};
use crate::platform::Ptr;
use crate::platform::native::{Cpu, Machine};

const PAGE: u64 = 4096;
const RW: VmFlags = VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0);
const PRIVATE: MapFlags = MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0);
const FIXED: MapFlags = MapFlags(PRIVATE.0 | MapFlags::FIXED.0);
/// The first byte of a page table's span.
const BASE: u64 = 0x1000_0000_0000;

/// A process of two tasks, so that W3 lets it pass; task 0 runs.
struct Process {
    k: Kernel<Cpu, Spf>,
    cpu: Cpu,
}

impl Process {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            arch: Arch::builtin().remove(0),
            system: System::default(),
            variants: Variants::outside_explore(),
            nr_cpus: 2,
            nr_tasks: 2,
        };
        change(&mut config);
        let (k, cpu) = (Kernel::new(config), Machine::new(2).cpu(0, 0));
        k.start_process(&cpu, &[0, 1]).expect("memory");
        Self { k, cpu }
    }

    fn map_at(&self, address: u64, pages: u64, prot: VmFlags) {
        let args = MmapArgs {
            address,
            length: pages * PAGE,
            prot,
            flags: FIXED,
            file: Ptr::NULL,
            offset: 0,
        };
        assert_eq!(self.k.sys_mmap(&self.cpu, &args), Ok(address));
    }

    /// A mapping that has its anon_vma and its page table: its last page was written.
    fn map_touched(&self, address: u64, pages: u64) {
        self.map_at(address, pages, RW);
        self.write(address + (pages - 1) * PAGE, 1);
    }

    fn access(
        &self,
        address: u64,
        access: Access,
        value: u64,
    ) -> (Result<u64, AccessFailure>, Handled) {
        let outcome = self.k.user_access(&self.cpu, address, access, value, true);
        (outcome.result, outcome.handled)
    }
    fn write(&self, address: u64, value: u64) -> Handled {
        let (result, handled) = self.access(address, Access::Write, value);
        assert_eq!(result, Ok(0), "write at {address:#x}");
        handled
    }
    fn read(&self, address: u64) -> (u64, Handled) {
        let (result, handled) = self.access(address, Access::Read, 0);
        (result.expect("readable"), handled)
    }

    /// What `then` adds to the counters, by name.
    fn counted(&self, then: impl FnOnce()) -> Vec<(&'static str, u64)> {
        let counters = &self.k.current(&self.cpu).counters;
        let before = counters.snapshot();
        then();
        let after = counters.snapshot();
        EVENT_NAMES
            .into_iter()
            .zip(after.into_iter().zip(before).map(|(after, before)| after - before))
            .filter(|(_, added)| *added != 0)
            .collect()
    }

    /// Ends both tasks, and nothing may be left.
    fn end(self) {
        assert_eq!(self.k.check_at_rest(), []);
        for task in [0, 1] {
            let cpu = self.cpu.machine().cpu(task, task);
            self.k.exit_mm(&cpu);
            cpu.rcu_barrier();
            self.k.run_rcu_callbacks(&cpu);
        }
        assert_eq!(self.k.check_nothing_left(), []);
    }
}

const SPECULATIVE_MINOR: [(&str, u64); 4] =
    [("faults", 1), ("minor-faults", 1), ("spf", 1), ("speculative_pgfault", 1)];

/// A classic minor fault after an abort with `event`.
fn classic_after(event: &'static str) -> Vec<(&'static str, u64)> {
    vec![("faults", 1), ("minor-faults", 1), (event, 1), ("pgfault", 1)]
}

#[test]
fn a_first_write_beside_a_touched_page_is_speculative() {
    let p = Process::new();
    p.map_touched(BASE, 4);
    assert_eq!(p.counted(|| assert_eq!(p.write(BASE, 7), Handled::Spf)), SPECULATIVE_MINOR);
    assert_eq!(p.read(BASE), (7, Handled::None));
    p.end();
}

#[test]
fn a_first_read_maps_the_zero_page_and_a_write_then_copies_it() {
    let p = Process::new();
    p.map_touched(BASE, 4);
    assert_eq!(p.read(BASE), (0, Handled::Spf));
    assert_eq!(p.counted(|| assert_eq!(p.write(BASE, 7), Handled::Spf)), SPECULATIVE_MINOR);
    assert_eq!(p.read(BASE), (7, Handled::None));
    p.end();
}

#[test]
fn w1_the_switch_is_off() {
    let p = Process::with(|config| config.system.speculative_page_fault = 0);
    p.map_touched(BASE, 4);
    let classic = [("faults", 1), ("minor-faults", 1), ("pgfault", 1)];
    assert_eq!(p.counted(|| assert_eq!(p.write(BASE, 1), Handled::Classic)), classic);
    p.end();
}

#[test]
fn w2_the_kernel_made_the_access() {
    let p = Process::new();
    p.map_touched(BASE, 4);
    let outcome = p.k.user_access(&p.cpu, BASE, Access::Write, 1, false);
    assert_eq!((outcome.result, outcome.handled), (Ok(0), Handled::Classic));
    p.end();
}

#[test]
fn w3_the_address_space_has_one_user() {
    let p = Process::new();
    p.map_touched(BASE, 4);
    p.k.current_mm(&p.cpu).mm_users().poke(1);
    assert_eq!(p.write(BASE, 1), Handled::Classic);
    p.k.current_mm(&p.cpu).mm_users().poke(2);
    p.end();
}

#[test]
fn h1_nothing_is_mapped_above_and_no_event_says_so() {
    let p = Process::new();
    p.map_touched(BASE, 1);
    let added = p.counted(|| {
        let segv = Err(AccessFailure::Signal(Signal::MAPERR));
        assert_eq!(p.access(BASE + PAGE, Access::Read, 0), (segv, Handled::Classic));
    });
    assert_eq!(added, [("faults", 1)]);
    p.end();
}

#[test]
fn h2_a_writer_is_at_work() {
    let p = Process::new();
    p.map_touched(BASE, 4);
    let vma = p.k.find_vma(&p.cpu, p.k.current_mm(&p.cpu), Vaddr(BASE)).expect("mapped");
    Spf::vm_write_begin(&p.cpu, vma);
    let added = p.counted(|| assert_eq!(p.write(BASE, 1), Handled::Classic));
    Spf::vm_write_end(&p.cpu, vma);
    assert_eq!(added, classic_after("pagefault:spf_vma_changed"));
    p.end();
}

#[test]
fn h4_no_anon_vma_yet_counts_as_not_supported() {
    let p = Process::new();
    p.map_at(BASE, 4, RW);
    let added = p.counted(|| assert_eq!(p.write(BASE, 1), Handled::Classic));
    assert_eq!(added, classic_after("pagefault:spf_vma_notsup"));
    p.end();
}

#[test]
fn h8_a_hole_below_a_touched_mapping_counts_as_changed() {
    let p = Process::new();
    p.map_touched(BASE + PAGE, 1);
    let added = p.counted(|| {
        let segv = Err(AccessFailure::Signal(Signal::MAPERR));
        assert_eq!(p.access(BASE, Access::Read, 0), (segv, Handled::Classic));
    });
    assert_eq!(added, [("faults", 1), ("pagefault:spf_vma_changed", 1)]);
    p.end();
}

#[test]
fn h10_a_write_that_the_vma_forbids_is_a_speculative_segv_with_maperr() {
    let p = Process::new();
    p.map_touched(BASE, 4);
    p.k.sys_mprotect(&p.cpu, BASE, 4 * PAGE, VmFlags::READ).expect("mprotect");
    let added = p.counted(|| {
        let segv = Err(AccessFailure::Signal(Signal::MAPERR));
        assert_eq!(p.access(BASE, Access::Write, 1), (segv, Handled::Spf));
    });
    assert_eq!(added, [("faults", 1), ("spf", 1), ("pagefault:spf_vma_access", 1)]);
    p.end();
}

#[test]
fn h16_no_page_table_yet() {
    let p = Process::new();
    let other_table = 2 << 20;
    p.map_at(BASE, 1024, RW);
    p.write(BASE, 1);
    let added = p.counted(|| assert_eq!(p.write(BASE + other_table, 1), Handled::Classic));
    assert_eq!(added, classic_after("pagefault:spf_vma_notsup"));
    assert_eq!(p.write(BASE + other_table + PAGE, 1), Handled::Spf);
    p.end();
}

#[test]
fn a_fork_makes_parent_and_child_copy_and_the_last_owner_reuses() {
    let p = Process::with(|config| config.nr_tasks = 3);
    p.map_touched(BASE, 1);
    p.k.sys_fork(&p.cpu, 2).expect("fork");
    assert_eq!(p.counted(|| assert_eq!(p.write(BASE, 2), Handled::Spf)), SPECULATIVE_MINOR);
    let child = p.cpu.machine().cpu(1, 2);
    let read = p.k.user_access(&child, BASE, Access::Read, 0, true);
    assert_eq!(read.result, Ok(1), "the child sees the value at the fork");
    // The child is the only one left with the old page, and has one thread.
    let write = p.k.user_access(&child, BASE, Access::Write, 3, true);
    assert_eq!((write.result, write.handled), (Ok(0), Handled::Classic));
    assert_eq!(p.read(BASE), (2, Handled::None));
    p.k.exit_mm(&child);
    p.end();
}

#[test]
fn execution_of_a_readable_page_livelocks_as_in_v12() {
    let p = Process::new();
    p.map_touched(BASE, 1);
    let (result, handled) = p.access(BASE, Access::Execute, 0);
    assert_eq!((result, handled), (Err(AccessFailure::Livelock), Handled::Spf));
    p.end();
}

#[test]
fn the_pte_is_built_from_the_cached_protection() {
    let p = Process::new();
    p.map_touched(BASE, 2);
    p.write(BASE, 1);
    let mm = p.k.current_mm(&p.cpu);
    let pmd = p.k.walk_pmd(&p.cpu, mm, Vaddr(BASE)).expect("walked").read(&p.cpu);
    let table = pmd.table().expect("small pages");
    let pte = p.k.pte_offset_map(&p.cpu, table, Vaddr(BASE)).pte().peek();
    assert!(pte.has(Pte::WRITE) && pte.has(Pte::DIRTY) && !pte.has(Pte::EXEC), "{pte:?}");
    p.end();
}

#[test]
fn the_counter_of_noanon_exists_and_stays_zero() {
    // v12 emits spf_vma_notsup where an anonymous VMA has no anon_vma yet (H7).
    assert_eq!(EVENT_NAMES[Event::SpfVmaNoanon as usize], "pagefault:spf_vma_noanon");
    let p = Process::new();
    p.map_at(BASE, 2, RW);
    let added = p.counted(|| {
        p.write(BASE, 1);
    });
    assert!(added.contains(&("pagefault:spf_vma_notsup", 1)), "{added:?}");
    assert!(!added.iter().any(|(name, _)| *name == "pagefault:spf_vma_noanon"), "{added:?}");
    p.end();
}

#[test]
fn with_c2_cured_an_execute_of_a_fresh_page_costs_two_faults_and_no_more() {
    let p = Process::with(|config| config.variants.set(Variant::C2, Choice::Fixed));
    p.map_touched(BASE, 2);
    let added = p.counted(|| {
        let segv = Err(AccessFailure::Signal(Signal::ACCERR));
        assert_eq!(p.access(BASE, Access::Execute, 0), (segv, Handled::Classic));
    });
    assert_eq!(added.iter().find(|(name, _)| *name == "faults"), Some(&("faults", 2)));
    p.end();
}

#[test]
fn h11_interleaved_pages_are_not_supported() {
    use crate::mm::MpolMode::{Bind, Default, Interleave};
    // The VMA's policy, the task's, and whether pages are spread: the VMA's comes first.
    let table = [
        (Default, Default, false),
        (Interleave, Default, true),
        (Default, Interleave, true),
        (Bind, Interleave, false),
        (Interleave, Bind, true),
    ];
    for (of_vma, of_task, spread) in table {
        let p = Process::new();
        p.map_touched(BASE, 2);
        assert_eq!(p.k.sys_mbind(&p.cpu, BASE, 2 * PAGE, of_vma, 1), Ok(()));
        assert_eq!(p.k.sys_set_mempolicy(&p.cpu, of_task, 1), Ok(()));
        let counted = p.counted(|| _ = p.write(BASE, 1));
        let expect = if spread {
            classic_after("pagefault:spf_vma_notsup")
        } else {
            SPECULATIVE_MINOR.to_vec()
        };
        assert_eq!(counted, expect, "{of_vma:?} {of_task:?}");
        p.end();
    }
}
