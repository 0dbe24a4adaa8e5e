//! An emulated process of a few tasks, with the address space of [`crate::layout`].

use std::sync::Arc;

use spfemu_core::arch::Arch;
use spfemu_core::design::Design;
use spfemu_core::mm::{Access, Config, FaultCode, Kernel, System, Vaddr, Variants, VmFlags};
use spfemu_core::ops::access::Handled;
use spfemu_core::ops::madvise::Advice;
use spfemu_core::ops::mmap::{MapFlags, MmapArgs};
use spfemu_core::platform::native::{Cpu, Machine};
use spfemu_core::platform::{Platform, Ptr};

use crate::layout::{self, NR_VMAS, PAGE, PAGES_PER_VMA};

/// A first write to a page, by the user.
pub const WRITE: FaultCode = FaultCode::not_present(Access::Write, true);

pub struct Process<D: Design> {
    pub kernel: Kernel<Cpu, D>,
    machine: Arc<Machine>,
}

impl<D: Design> Process<D> {
    /// A process of `nr_tasks` tasks, each on a CPU of its own; task n runs on CPU n. With one task
    /// alone nothing is speculative (W3).
    pub fn new(nr_tasks: u32) -> Self {
        let machine = Machine::new(nr_tasks);
        let kernel = Kernel::new(Config {
            arch: Arch::builtin().remove(0),
            system: System::default(),
            variants: Variants::outside_explore(),
            nr_cpus: nr_tasks,
            nr_tasks,
        });
        let process = Self { kernel, machine };
        let cpu = process.cpu(0);
        let tasks: Vec<u32> = (0..nr_tasks).collect();
        process.kernel.start_process(&cpu, &tasks).expect("memory");
        let ranges: Vec<_> = layout::vmas().collect();
        for number in layout::insertion_order() {
            let start = ranges[number].start;
            process.mmap(&cpu, start, PAGES_PER_VMA * PAGE, MapFlags::FIXED);
            process.write(&cpu, layout::last_page(number));
        }
        process
    }

    /// The CPU of task `task`, for the calling thread.
    pub fn cpu(&self, task: u32) -> Cpu {
        self.machine.cpu(task, task)
    }

    /// Maps private anonymous memory; returns where.
    pub fn mmap(&self, cpu: &Cpu, address: u64, length: u64, more: MapFlags) -> u64 {
        let args = MmapArgs {
            address,
            length,
            prot: VmFlags::READ | VmFlags::WRITE,
            flags: MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0 | more.0),
            file: Ptr::NULL,
            offset: 0,
        };
        self.kernel.sys_mmap(cpu, &args).expect("room")
    }

    /// A write as the user's: look-up in the TLB, the faults it takes, the store. Returns who
    /// handled the fault.
    #[inline]
    pub fn write(&self, cpu: &Cpu, address: u64) -> Handled {
        let outcome = self.kernel.user_access(cpu, address, Access::Write, 1, true);
        assert!(outcome.result.is_ok());
        outcome.handled
    }

    /// The fault alone: what follows once the hardware found no page. Returns whether it was
    /// speculative.
    #[inline]
    pub fn fault(&self, cpu: &Cpu, address: u64) -> bool {
        self.kernel.do_page_fault(cpu, Vaddr(address), WRITE).speculative
    }

    /// Takes the pages of these VMAs away again, all but the last of each.
    pub fn reset(&self, cpu: &Cpu, vmas: std::ops::Range<usize>) {
        assert!(vmas.end <= NR_VMAS);
        for number in vmas {
            let start = layout::pages(number).next().expect("a page");
            let length = (PAGES_PER_VMA - 1) * PAGE;
            self.kernel.sys_madvise(cpu, start, length, Advice::Dontneed).expect("mapped");
        }
        self.between_operations(cpu);
    }

    /// What the interpreter does between two operations of a task.
    pub fn between_operations(&self, cpu: &Cpu) {
        assert!(cpu.operation_boundary());
        self.kernel.run_rcu_callbacks(cpu);
    }
}
