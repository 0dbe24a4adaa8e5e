//! What unit tests share: a booted system with one process, on one thread of the native platform.

use crate::arch::Arch;
use crate::design::{Design, Spf};
use crate::mm::{
    Access, Config, FileKind, InodeRef, Kernel, Mempolicy, MmRef, MpolMode, Pte, SwapConfig,
    System, Vaddr, Variants, VmFlags, VmaRef,
};
use crate::ops::access::{AccessFailure, AccessOutcome};
use crate::ops::mmap::{MapFlags, MmapArgs};
use crate::platform::Ptr;
use crate::platform::native::{Cpu, Machine};

/// x86's page size, which most tests use.
pub const PAGE: u64 = 4096;
/// Where pictures of the address space begin.
pub const BASE: u64 = 0x1000_0000;

pub const R: VmFlags = VmFlags::READ;
pub const RW: VmFlags = VmFlags(VmFlags::READ.0 | VmFlags::WRITE.0);
/// `vm_flags` of `mmap(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)`.
pub const PRIVATE_RW: VmFlags = VmFlags(
    RW.0 | VmFlags::MAYREAD.0
        | VmFlags::MAYWRITE.0
        | VmFlags::MAYEXEC.0
        | VmFlags::ACCOUNT.0
        | VmFlags::SOFTDIRTY.0,
);

/// A system of one CPU with so much memory, and no process.
pub fn system(memory: u64) -> (Kernel<Cpu, Spf>, Cpu) {
    let config = Config {
        arch: Arch::builtin().remove(0),
        system: System { memory, ..System::default() },
        variants: Variants::outside_explore(),
        nr_cpus: 1,
        nr_tasks: 1,
    };
    (Kernel::new(config), Machine::new(1).cpu(0, 0))
}

/// A normal swap device of `pages` pages, the header's included.
pub fn swap_of(pages: u64) -> SwapConfig {
    let (readahead, vma_ra_enabled) = (u64::MAX, true);
    SwapConfig { size: pages * PAGE, synchronous: false, readahead, vma_ra_enabled }
}

/// A system whose task 0 runs and has an empty address space.
pub struct World<D: Design> {
    pub k: Kernel<Cpu, D>,
    pub cpu: Cpu,
}

impl<D: Design> World<D> {
    pub fn boot() -> Self {
        Self::boot_with(|_| ())
    }

    /// Boots with a changed configuration.
    pub fn boot_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            arch: Arch::builtin().remove(0),
            system: System::default(),
            variants: Variants::outside_explore(),
            nr_cpus: 2,
            nr_tasks: 2,
        };
        change(&mut config);
        let cpu = Machine::new(config.nr_cpus).cpu(0, 0);
        let k = Kernel::new(config);
        k.start_process(&cpu, &[0]).expect("memory for an empty address space");
        Self { k, cpu }
    }

    pub fn mm(&self) -> MmRef<'_, Cpu> {
        self.k.current_mm(&self.cpu)
    }

    /// The PTE of `address`, whose page table exists.
    pub fn pte(&self, address: u64) -> Pte {
        let pmd = self.k.walk_pmd(&self.cpu, self.mm(), Vaddr(address)).expect("a PMD");
        let table = pmd.read(&self.cpu).table().expect("a page table");
        self.k.pte_offset_map(&self.cpu, table, Vaddr(address)).pte().peek()
    }

    /// `/proc/self/maps`
    pub fn maps(&self) -> Vec<String> {
        self.k.maps(self.mm())
    }

    /// The VMA that holds `address`.
    pub fn vma_at(&self, address: u64) -> VmaRef<'_, Cpu> {
        let vma = self.k.find_vma_uncached(&self.cpu, self.mm(), Vaddr(address));
        vma.filter(|vma| vma.vm_start().peek().0 <= address).expect("a VMA at this address")
    }

    /// A hint, private anonymous memory.
    pub fn anonymous(&self, address: u64, length: u64) -> MmapArgs<Cpu> {
        MmapArgs {
            address,
            length,
            prot: RW,
            flags: MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0),
            file: Ptr::NULL,
            offset: 0,
        }
    }

    /// Maps private anonymous memory at `address`.
    pub fn map_fixed(&self, address: u64, length: u64, prot: VmFlags) -> u64 {
        let mut args = self.anonymous(address, length);
        args.prot = prot;
        args.flags.0 |= MapFlags::FIXED.0;
        self.k.sys_mmap(&self.cpu, &args).expect("room at a fixed address")
    }

    /// A policy that no VMA has yet.
    pub fn policy(&self) -> Ptr<Mempolicy<Cpu>> {
        let policy = self.k.mpol_new(&self.cpu, MpolMode::Bind, 1).expect("node 0 is there");
        policy.expect("not the default").ptr()
    }

    pub fn file(&self, pages: u64, kind: FileKind) -> InodeRef<'_, Cpu> {
        self.k.inode_new(&self.cpu, pages * self.k.page_size(), kind, true)
    }

    /// Closes files; mappings keep theirs.
    pub fn close(&self, files: &[InodeRef<'_, Cpu>]) {
        files.iter().for_each(|file| self.k.fput(&self.cpu, file.ptr()));
    }

    pub fn access(&self, address: u64, access: Access, value: u64) -> AccessOutcome {
        self.k.user_access(&self.cpu, address, access, value, true)
    }
    pub fn write(&self, address: u64, value: u64) -> Result<u64, AccessFailure> {
        self.access(address, Access::Write, value).result
    }
    pub fn read(&self, address: u64) -> Result<u64, AccessFailure> {
        self.access(address, Access::Read, 0).result
    }

    /// Lets all grace periods end.
    pub fn settle(&self) {
        self.cpu.rcu_barrier();
        self.k.run_rcu_callbacks(&self.cpu);
    }

    /// Asserts that the system at rest is sound.
    pub fn check(&self) {
        self.settle();
        assert_eq!(self.k.check_at_rest(), []);
        assert_eq!(self.k.check_vma_tree(self.mm()), Vec::<String>::new());
    }

    /// Ends the task and asserts that nothing is left.
    pub fn end(self) {
        self.k.exit_mm(&self.cpu);
        self.settle();
        assert_eq!(self.k.check_nothing_left(), []);
    }

    /// One letter for each page from `BASE`: the name of its VMA in `names`, `?` for another,
    /// `.` for none.
    pub fn picture(&self, pages: usize, names: &[(char, VmaRef<'_, Cpu>)]) -> String {
        let mut picture = vec!['.'; pages];
        for vma in self.k.peek_vmas(self.mm()) {
            let name = names.iter().find(|(_, named)| *named == vma).map_or('?', |(name, _)| *name);
            let page = |address: Vaddr| ((address.0 - BASE) / PAGE) as usize;
            picture[page(vma.vm_start().peek())..page(vma.vm_end().peek())].fill(name);
        }
        picture.into_iter().collect()
    }
}

/// The address of page `page` of a picture.
pub fn at(page: u64) -> Vaddr {
    Vaddr(BASE + page * PAGE)
}
