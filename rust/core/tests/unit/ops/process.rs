//! Support: a system whose tasks have a CPU each and take turns.

use std::cell::RefCell;
use std::rc::Rc;

use super::turns::{self, Cpu};
use crate::arch::Arch;
use crate::design::Design;
use crate::mm::{Access, Config, Inode, Kernel, MmRef, SwapConfig, System, Thp, Variants, VmFlags};
use crate::ops::access::AccessFailure;
use crate::ops::mmap::{MapFlags, MmapArgs};
use crate::platform::Ptr;

pub const RW: VmFlags = VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0);
pub const TASKS: u32 = 8;

pub struct Processes<D: Design> {
    pub k: Rc<Kernel<Cpu, D>>,
    pub cpus: Vec<Cpu>,
}

impl<D: Design> Processes<D> {
    /// Task 0 runs, in an empty address space, on x86 with plenty of memory.
    pub fn new() -> Self {
        Self::on("x86", 1 << 30)
    }

    pub fn on(arch: &str, memory: u64) -> Self {
        let system = Self::idle(arch, memory);
        system.k.start_process(&system.cpus[0], &[0]).unwrap();
        system
    }

    /// As [`Processes::new`], with this swap device.
    pub fn swapping(swap: SwapConfig) -> Self {
        let system = System { swap: Some(swap), memory: 1 << 30, ..System::default() };
        let processes = Self::idle_with("x86", system);
        processes.k.start_process(&processes.cpus[0], &[0]).unwrap();
        processes
    }

    /// As [`Processes::new`], with huge pages wherever they fit.
    pub fn with_huge_pages() -> Self {
        let system = System { thp: Thp::Always, memory: 1 << 30, ..System::default() };
        Self::begun(Self::idle_with("x86", system))
    }

    /// As [`Processes::new`], where all may have so many bytes.
    pub fn with_memcg(bytes: u64) -> Self {
        let system = System { memcg: Some(bytes), memory: 1 << 30, ..System::default() };
        Self::begun(Self::idle_with("x86", system))
    }

    /// As [`Processes::new`], with this limit of stacks.
    pub fn with_stack_limit(stack_limit: u64) -> Self {
        Self::with_stack_limit_and(stack_limit, 1 << 30)
    }

    pub fn with_stack_limit_and(stack_limit: u64, memory: u64) -> Self {
        let system = System { stack_limit, memory, ..System::default() };
        Self::begun(Self::idle_with("x86", system))
    }

    /// As [`Processes::new`], where user space ends there.
    pub fn with_task_size(task_size: u64) -> Self {
        let arch = Arch { task_size, mmap_base: task_size, ..Self::arch("x86") };
        Self::begun(Self::idle_on(arch, System { memory: 1 << 30, ..System::default() }))
    }

    fn begun(processes: Self) -> Self {
        processes.k.start_process(&processes.cpus[0], &[0]).unwrap();
        processes
    }

    fn arch(name: &str) -> Arch {
        Arch::builtin().into_iter().find(|profile| profile.name == name).unwrap()
    }

    /// No task has an address space.
    pub fn idle(arch: &str, memory: u64) -> Self {
        Self::idle_with(arch, System { memory, ..System::default() })
    }

    fn idle_with(arch: &str, system: System) -> Self {
        Self::idle_on(Self::arch(arch), system)
    }

    fn idle_on(arch: Arch, system: System) -> Self {
        let config = Config {
            arch,
            system,
            variants: Variants::outside_explore(),
            nr_cpus: TASKS,
            nr_tasks: TASKS,
        };
        Self { k: Rc::new(Kernel::new(config)), cpus: turns::cpus(TASKS) }
    }

    pub fn cpu(&self, task: u32) -> &Cpu {
        &self.cpus[task as usize]
    }
    pub fn mm(&self, task: u32) -> MmRef<'_, Cpu> {
        self.k.mm_of(task).expect("the task has an address space")
    }
    pub fn maps(&self, task: u32) -> Vec<String> {
        self.k.maps(self.mm(task))
    }
    pub fn page_size(&self) -> u64 {
        self.k.page_size()
    }

    /// Maps `pages` pages of anonymous memory at `address`.
    pub fn map(&self, task: u32, address: u64, pages: u64) {
        self.map_file(task, address, pages, MapFlags::PRIVATE, Ptr::NULL);
    }
    pub fn map_file(
        &self,
        task: u32,
        address: u64,
        pages: u64,
        flags: MapFlags,
        file: Ptr<Inode<Cpu>>,
    ) {
        let args = MmapArgs {
            address,
            length: pages * self.page_size(),
            prot: RW,
            flags: MapFlags(flags.0 | MapFlags::FIXED.0),
            file,
            offset: 0,
        };
        assert_eq!(self.k.sys_mmap(self.cpu(task), &args), Ok(address));
    }

    pub fn write(&self, task: u32, address: u64, value: u64) {
        assert_eq!(self.try_write(task, address, value), Ok(0));
    }
    pub fn try_write(&self, task: u32, address: u64, value: u64) -> Result<u64, AccessFailure> {
        self.k.user_access(self.cpu(task), address, Access::Write, value, true).result
    }
    pub fn read(&self, task: u32, address: u64) -> u64 {
        self.try_read(task, address).expect("mapped and readable")
    }
    pub fn try_read(&self, task: u32, address: u64) -> Result<u64, AccessFailure> {
        self.k.user_access(self.cpu(task), address, Access::Read, 0, true).result
    }

    /// Whether the page at `address` has a PTE.
    pub fn is_mapped(&self, task: u32, address: u64) -> bool {
        let (cpu, address) = (self.cpu(task), crate::mm::Vaddr(address));
        self.k.walk_pmd(cpu, self.mm(task), address).is_some_and(|pmd| {
            let table = pmd.read(cpu).table();
            table.is_some_and(|table| {
                !self.k.pte_offset_map(cpu, table, address).pte().peek().is_none()
            })
        })
    }

    pub fn fork(&self, parent: u32, child: u32) {
        assert_eq!(self.k.sys_fork(self.cpu(parent), child), Ok(()));
    }
    pub fn exit(&self, task: u32) {
        self.k.exit_mm(self.cpu(task));
    }

    /// Runs what waits for a grace period, and checks the system at rest.
    pub fn check(&self) {
        self.k.run_rcu_callbacks(&self.cpus[0]);
        assert_eq!(self.k.check_at_rest(), []);
    }
    /// As [`Processes::check`], after the last task ended.
    pub fn check_nothing_left(&self) {
        self.check();
        assert_eq!(self.k.check_nothing_left(), []);
    }

    /// What `look` sees at each step of `run`.
    pub fn watch<T: 'static>(
        &self,
        look: impl Fn(&Kernel<Cpu, D>) -> T + 'static,
        run: impl FnOnce(),
    ) -> Vec<(&'static str, T)> {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (kept, k) = (Rc::clone(&seen), Rc::clone(&self.k));
        let watch = &self.cpus[0].shared.watch;
        *watch.borrow_mut() = Some(Box::new(move |step| kept.borrow_mut().push((step, look(&k)))));
        run();
        *watch.borrow_mut() = None;
        Rc::into_inner(seen).expect("nobody watches").into_inner()
    }
}
