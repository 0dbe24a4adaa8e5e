//! One emulated system: every object of it, its CPUs and its tasks.

use std::marker::PhantomData;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::counters::Counters;
use super::file::NODE_ENTRIES;
use super::huge_memory::Thp;
use super::hugetlb::{Hstate, ResvMap};
use super::ksm::Ksm;
use super::lru::{PageVec, Pgdat};
use super::memcontrol::MemCgroup;
use super::mempolicy::Mempolicy;
use super::node::{PerCpuPages, Zone, node_shift};
use super::objects::{
    AnonVma, AnonVmaChain, Inode, Mm, MmRef, MmuNotifierMm, Page, PageRef, Table, Vma,
};
use super::page::pcp_batch;
use super::pgtable::TableLevel;
use super::swap::{Swap, SwapConfig};
use super::tlb::Tlb;
use super::variants::{Variant, Variants};
use crate::arch::Arch;
use crate::design::Design;
use crate::events::Trace;
use crate::platform::arena::Lines;
use crate::platform::{Arena, Line, Local, Platform, Ptr, Value, Word};
use crate::sync::rwsem::{Policy, Waiter};

/// `system` of a program: what the machine has. Defaults as in the program format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Bytes of memory.
    pub memory: u64,
    /// `RLIMIT_STACK`, in bytes: how large a VMA that grows down gets.
    pub stack_limit: u64,
    pub mmap_min_addr: u64,
    /// `vm.max_map_count`
    pub max_map_count: u64,
    /// `vm.speculative_page_fault`: any non-zero value is on.
    pub speculative_page_fault: i64,
    /// `vm.page-cluster`
    pub page_cluster: i64,
    /// Where there are transparent huge pages.
    pub thp: Thp,
    /// `CONFIG_TRANSPARENT_HUGEPAGE`
    pub transparent_hugepage: bool,
    /// NUMA nodes, 1 to 64.
    pub nodes: u32,
    /// The node of each CPU; empty: CPUs share them evenly, in order.
    pub cpu_nodes: Vec<u32>,
    /// `CONFIG_NUMA`
    pub numa: bool,
    /// Pages of the hugetlb pool; `None`: enough.
    pub hugetlb_pages: Option<u64>,
    /// Bytes of anonymous memory that all processes may have; `None`: no memory cgroup.
    pub memcg: Option<u64>,
    /// `CONFIG_PPC_MEM_KEYS`
    pub ppc_mem_keys: bool,
    /// `CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS`, and a CPU that has them; `None`: as the arch says.
    pub x86_memory_protection_keys: Option<bool>,
    /// `CONFIG_HAVE_MOVE_PMD`; `None`: as the arch has it.
    pub have_move_pmd: Option<bool>,
    /// munmap zaps with `mmap_sem` downgraded to read, as since 4.20.
    pub downgrade: bool,
    /// VMAs that can be one become one.
    pub merging: bool,
    /// How semaphores are handed over.
    pub rwsem: Policy,
    /// The swap device; `None`: nothing is ever swapped out.
    pub swap: Option<SwapConfig>,
    /// Entries of the trace buffer; 0: tracing is off.
    pub trace_entries: usize,
}

impl Default for System {
    fn default() -> Self {
        Self {
            memory: 16 << 30,
            stack_limit: 8 << 20,
            mmap_min_addr: 65536,
            max_map_count: 65530,
            speculative_page_fault: 1,
            page_cluster: 3,
            thp: Thp::Madvise,
            transparent_hugepage: true,
            nodes: 2,
            cpu_nodes: Vec::new(),
            numa: true,
            hugetlb_pages: None,
            memcg: None,
            ppc_mem_keys: true,
            x86_memory_protection_keys: None,
            have_move_pmd: None,
            downgrade: true,
            merging: true,
            rwsem: Policy::default(),
            swap: None,
            trace_entries: 0,
        }
    }
}

/// What a system is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub arch: Arch,
    pub system: System,
    pub variants: Variants,
    pub nr_cpus: u32,
    pub nr_tasks: u32,
}

/// What belongs to one CPU.
pub struct PerCpu<P: Platform> {
    pub(super) tlb: Tlb,
    /// The address space whose translations this CPU's TLB may hold (`mm_cpumask`).
    pub(super) active_mm: Word<P>,
    /// How many of its speculative faults keep notifiers as they are (B7 cured).
    pub(super) notifier_readers: Word<P>,
    /// `numa_node_id()`
    pub(super) node: u32,
    /// Free pages of this CPU, by node.
    pub(super) pcp: Box<[PerCpuPages]>,
    /// Pages on their way to the LRU lists.
    pub(super) lru_add_pvec: PageVec,
    /// Pages that the memory cgroup has been charged for in advance (`memcg_stock`).
    pub(super) memcg_stock: Local,
}

impl<P: Platform> PerCpu<P> {
    fn all(lines: &Lines, config: &Config) -> Vec<CachePadded<Self>> {
        let nr_cpus = config.nr_cpus;
        let Line(first) = lines.take_named("cpu", nr_cpus, |offset| field(&["active_mm"], offset));
        let Line(notifier) =
            lines.take_named("notifier", nr_cpus, |offset| field(&["readers"], offset));
        let new = |cpu| Self::new(config, cpu, Line(first + cpu), Line(notifier + cpu));
        (0..nr_cpus).map(new).map(CachePadded::new).collect()
    }

    fn new(config: &Config, cpu: u32, line: Line, notifier: Line) -> Self {
        Self {
            tlb: Tlb::new(),
            active_mm: Word::new(line, 0),
            notifier_readers: Word::new(notifier, 0),
            node: config.node_of(cpu),
            pcp: PerCpuPages::of_nodes(config),
            lru_add_pvec: PageVec::new::<P>(),
            memcg_stock: Local::default(),
        }
    }
}

/// What belongs to one task.
pub struct TaskStruct<P: Platform> {
    pub(crate) mm: Local,
    pub(crate) vmacache: [Local; 4],
    pub(crate) vmacache_seqnum: Local,
    /// Resident-set counts not told to the mm yet (`task->rss_stat`), and how many events.
    pub(crate) rss: [Local; 3],
    pub(crate) rss_events: Local,
    /// `task->mempolicy`: where a VMA has none.
    pub(crate) mempolicy: Local,
    /// `task->mems_allowed`, see [`Kernel::mems_allowed`].
    pub(crate) mems_allowed: Local,
    /// `task->il_prev`: the node after which interleaving goes on.
    pub(crate) il_prev: Local,
    pub counters: Counters,
    pub(crate) waiter: Waiter<P>,
}

impl<P: Platform> TaskStruct<P> {
    fn new(line: Line) -> Self {
        Self {
            mm: Local::default(),
            vmacache: Default::default(),
            vmacache_seqnum: Local::default(),
            rss: Default::default(),
            rss_events: Local::default(),
            mempolicy: Local::default(),
            mems_allowed: Local::default(),
            il_prev: Local::default(),
            counters: Counters::default(),
            waiter: Waiter::new(line),
        }
    }
}

/// One emulated system under design `D` on platform `P`.
pub struct Kernel<P: Platform, D: Design> {
    pub config: Config,
    pub(crate) mms: Arena<Mm<P>>,
    pub(crate) vmas: Arena<Vma<P>>,
    pub(crate) anon_vmas: Arena<AnonVma<P>>,
    pub(crate) avcs: Arena<AnonVmaChain<P>>,
    pub(crate) policies: Arena<Mempolicy<P>>,
    pub(crate) inodes: Arena<Inode<P>>,
    pub(crate) notifiers: Arena<MmuNotifierMm<P>>,
    pub(crate) pages: Arena<Page<P>>,
    /// Page tables by level, top down, as in `config.arch.levels`.
    pub(crate) tables: Vec<TableLevel<P>>,
    /// Nodes of page caches.
    pub(crate) cache_nodes: Arena<Table<P>>,
    pub(crate) cpus: Vec<CachePadded<PerCpu<P>>>,
    pub tasks: Vec<CachePadded<TaskStruct<P>>>,
    pub(crate) swap: Option<Swap<P>>,
    pub(super) memcg: MemCgroup<P>,
    pub(crate) trace: Trace,
    /// log2 of how many frames in a row belong to one node.
    pub(super) node_shift: u32,
    /// The free pages behind the per-CPU lists, by node.
    pub(super) zones: Vec<CachePadded<Zone<P>>>,
    /// Pages that move between a per-CPU list and the zone at once.
    pub(super) pcp_batch: u64,
    /// Whether there can be transparent huge pages.
    pub(super) thp_possible: bool,
    /// How many address spaces were made; on native, two at the same time may count as one.
    pub(crate) nr_mms: Local,
    /// The frame of the huge page of zeroes; 0: nobody has asked for it.
    pub(super) huge_zero_page: Word<P>,
    pub(super) mm_all_locks_mutex: Word<P>,
    pub(crate) resv_maps: Arena<ResvMap<P>>,
    pub(super) hstate: Hstate<P>,
    pub(crate) ksm: Ksm<P>,
    pub(crate) sysctl_speculative_page_fault: Word<P>,
    pub(crate) sysctl_max_map_count: Word<P>,
    pub(crate) sysctl_page_cluster: Word<P>,
    /// The LRU lists, by node; none where nobody keeps any.
    pub(super) pgdats: Arena<Pgdat<P>>,
    design: PhantomData<fn() -> D>,
}

impl<P: Platform, D: Design> Kernel<P, D> {
    /// Boots a system: no address space, every page free.
    pub fn new(config: Config) -> Self {
        Self::with_lines(config, Lines::default())
    }

    /// As [`Kernel::new`], with its words in these cache lines.
    pub fn with_lines(config: Config, lines: Lines) -> Self {
        let System { x86_memory_protection_keys, ppc_mem_keys, .. } = config.system;
        let arch = config.arch.with_keys(x86_memory_protection_keys, ppc_mem_keys);
        let config = Config { arch, ..config };
        let lines = Arc::new(lines);
        let nodes = config.system.nodes;
        let Line(first_zone) = lines.take_named("zone", nodes, |offset| {
            field(&["lock", "fresh", "huge_zero_page", "mm_all_locks_mutex"], offset)
        });
        let sysctls = lines.take_named("sysctl", 1, |offset| {
            field(&["speculative_page_fault", "max_map_count", "page_cluster"], offset)
        });
        let cpus = PerCpu::all(&lines, &config);
        let Line(first_task) = lines.take_named("task", config.nr_tasks, Waiter::<P>::field_name);
        let tasks = (0..config.nr_tasks)
            .map(|task| CachePadded::new(TaskStruct::new(Line(first_task + task))))
            .collect();
        let kernel = Self {
            mms: Arena::new(&lines, 0),
            vmas: Arena::new(&lines, 0),
            anon_vmas: Arena::new(&lines, 0),
            avcs: Arena::new(&lines, 0),
            policies: Arena::new(&lines, 0),
            inodes: Arena::new(&lines, 0),
            notifiers: Arena::new(&lines, 0),
            pages: Arena::new(&lines, 0),
            tables: config.arch.levels.iter().map(|level| TableLevel::new(&lines, level)).collect(),
            cache_nodes: Arena::new(&lines, NODE_ENTRIES),
            swap: Swap::new(&lines, &config),
            memcg: MemCgroup::new(&lines, &config),
            trace: Trace::new(config.system.trace_entries),
            cpus,
            tasks,
            node_shift: node_shift(&config),
            zones: (0..nodes)
                .map(|node| CachePadded::new(Zone::new(Line(first_zone + node))))
                .collect(),
            pcp_batch: pcp_batch(config.system.memory, config.arch.page_size()),
            thp_possible: config.system.transparent_hugepage
                && config.arch.has_transparent_hugepage(),
            nr_mms: Local::default(),
            huge_zero_page: Word::new(Line(first_zone), 16),
            mm_all_locks_mutex: Word::new(Line(first_zone), 24),
            resv_maps: Arena::new(&lines, 0),
            hstate: Hstate::new(&lines, config.nr_cpus),
            ksm: Ksm::new(&lines),
            sysctl_speculative_page_fault: Word::new(sysctls, 0),
            sysctl_max_map_count: Word::new(sysctls, 8),
            sysctl_page_cluster: Word::new(sysctls, 16),
            pgdats: Arena::new(&lines, 0),
            design: PhantomData,
            config,
        };
        kernel.reset();
        kernel
    }

    /// Back to the state after boot, whatever ran before.
    pub fn reset(&self) {
        self.mms.reset();
        self.vmas.reset();
        self.anon_vmas.reset();
        self.avcs.reset();
        self.policies.reset();
        self.inodes.reset();
        self.notifiers.reset();
        self.pages.reset();
        self.tables.iter().for_each(|level| level.reset());
        self.cache_nodes.reset();
        self.swap.iter().for_each(Swap::reset);
        self.memcg.reset();
        self.trace.take();
        for cpu in &self.cpus {
            cpu.tlb.reset();
            cpu.active_mm.poke(0);
            cpu.notifier_readers.poke(0);
            cpu.pcp.iter().for_each(PerCpuPages::reset);
            cpu.lru_add_pvec.reset();
            cpu.memcg_stock.set(0);
        }
        for task in &self.tasks {
            task.mm.set(0);
            task.vmacache.iter().for_each(|entry| entry.set(0));
            task.vmacache_seqnum.set(0);
            task.rss.iter().for_each(|count| count.set(0));
            task.rss_events.set(0);
            task.mempolicy.set(0);
            task.mems_allowed.set(self.online_nodes());
            task.il_prev.set(0);
            task.counters.reset();
            task.waiter.reset();
        }
        self.zones.iter().for_each(|zone| zone.reset());
        self.nr_mms.set(0);
        self.huge_zero_page.poke(0);
        self.mm_all_locks_mutex.poke(0);
        self.resv_maps.reset();
        self.ksm.reset();
        self.hstate.reset(self.config.system.hugetlb_pages);
        let system = &self.config.system;
        self.sysctl_speculative_page_fault.poke(system.speculative_page_fault.to_word());
        self.sysctl_max_map_count.poke(system.max_map_count);
        self.sysctl_page_cluster.poke(system.page_cluster.to_word());
        self.boot_pages();
        self.boot_lists();
    }

    /// What the cache lines of this system hold.
    pub fn lines(&self) -> &Arc<Lines> {
        self.mms.lines()
    }

    /// Whether this run has the bug that `which` names.
    #[inline(always)]
    pub fn v12(&self, which: Variant) -> bool {
        self.config.variants.v12(which)
    }

    /// The task that runs on `cpu`.
    #[inline(always)]
    pub fn current(&self, cpu: &P) -> &TaskStruct<P> {
        &self.tasks[cpu.task() as usize]
    }

    /// `current->mm`. Panics for a task that has none (never between start and exit).
    #[inline(always)]
    pub fn current_mm(&self, cpu: &P) -> MmRef<'_, P> {
        self.task_mm(cpu, self.current(cpu))
    }
    /// `task->mm`; as above.
    #[inline(always)]
    pub(crate) fn task_mm(&self, cpu: &P, task: &TaskStruct<P>) -> MmRef<'_, P> {
        self.mms.get(cpu, Ptr::from_word(task.mm.get()))
    }

    /// `PAGE_SIZE`
    #[inline(always)]
    pub fn page_size(&self) -> u64 {
        self.config.arch.page_size()
    }
    /// `PAGE_SHIFT`
    #[inline(always)]
    pub fn page_shift(&self) -> u32 {
        self.config.arch.page_shift
    }

    /// `pfn_to_page()`: the frame with this number, which must be in use.
    #[inline(always)]
    pub fn page(&self, cpu: &P, pfn: u32) -> PageRef<'_, P> {
        self.pages.at(cpu, pfn)
    }
}

/// The name of the word at `offset`, of words one behind the other.
fn field(names: &[&str], offset: u32) -> String {
    names.get(offset as usize / 8).map_or_else(|| format!("+{offset:#x}"), |&name| name.to_owned())
}
