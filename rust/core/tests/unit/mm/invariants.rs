//! Native stress: real threads do all there is to one address space, and at every quiescent
//! point nothing may be wrong. `SPFEMU_STRESS_SECONDS` (default 2) says how long for.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::arch::Arch;
use crate::design::{Classic, Spf};
use crate::mm::{Access, Config, Kernel, SwapConfig, System, Variants, VmFlags};
use crate::ops::access::AccessFailure;
use crate::ops::madvise::Advice;
use crate::ops::mmap::{MapFlags, MmapArgs};
use crate::ops::mremap::{MremapArgs, RemapFlags};
use crate::platform::Platform;
use crate::platform::native::{Cpu, Machine, catch};

const THREADS: u32 = 8;
const OPERATIONS_A_ROUND: u32 = 400;

fn seconds() -> u64 {
    std::env::var("SPFEMU_STRESS_SECONDS").map_or(2, |text| text.parse().expect("a number"))
}

struct Stress<'s, D: Design> {
    k: &'s Kernel<Cpu, D>,
    cpu: Cpu,
    random: Pcg64Mcg,
    page: u64,
}

impl<D: Design> Stress<'_, D> {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    /// A page-aligned range in an area of three page tables, so that ranges overlap often.
    fn range(&mut self) -> (u64, u64) {
        let area = 3 * self.k.pmd_size() / self.page;
        let first = self.below(area);
        let pages = 1 + if self.below(8) == 0 { self.below(area - first) } else { self.below(24) };
        (0x1000_0000_0000 + first * self.page, pages * self.page)
    }

    fn prot(&mut self) -> VmFlags {
        VmFlags([0, 1, 3, 3, 3, 3, 5, 7][self.below(8) as usize])
    }

    fn operation(&mut self) {
        let (k, (address, length)) = (self.k, self.range());
        match self.below(16) {
            0 | 1 => {
                let mut flags =
                    MapFlags(MapFlags::PRIVATE.0 | MapFlags::ANONYMOUS.0 | MapFlags::FIXED.0);
                if self.below(4) == 0 {
                    flags.0 |= MapFlags::GROWSDOWN.0;
                }
                let prot = self.prot();
                let args = MmapArgs { address, length, prot, flags, file: Ptr::NULL, offset: 0 };
                assert_eq!(k.sys_mmap(&self.cpu, &args), Ok(address));
            }
            2 => k.sys_munmap(&self.cpu, address, length).expect("munmap"),
            3 | 4 => {
                let prot = self.prot();
                // Holes are ENOMEM.
                k.sys_mprotect(&self.cpu, address, length, prot).ok();
            }
            5 => {
                k.sys_madvise(&self.cpu, address, length, Advice::Dontneed).ok();
            }
            6 => {
                let advices =
                    [Advice::Random, Advice::Normal, Advice::Hugepage, Advice::Nohugepage];
                let advice = advices[self.below(4) as usize];
                k.sys_madvise(&self.cpu, address, length, advice).ok();
            }
            7 => {
                let keep_cache = self.below(3) == 0;
                k.swap_out(&self.cpu, address, length, keep_cache).expect("aligned");
            }
            8 => {
                let (new_address, new_length) = self.range();
                let flags = RemapFlags(RemapFlags::MAYMOVE.0 | RemapFlags::FIXED.0);
                let args =
                    MremapArgs { address, old_length: length, new_length, flags, new_address };
                k.sys_mremap(&self.cpu, args).ok();
            }
            9 => {
                let length = length.min(32 * self.page);
                match self.below(3) {
                    0 => k.sys_munlock(&self.cpu, address, length).ok(),
                    onfault => k.sys_mlock(&self.cpu, address, length, onfault == 1).ok(),
                };
            }
            _ => self.accesses(address, length),
        }
        k.run_rcu_callbacks(&self.cpu);
    }

    fn accesses(&mut self, address: u64, length: u64) {
        let access = if self.below(3) == 0 { Access::Read } else { Access::Write };
        for page in (0..length.min(32 * self.page)).step_by(self.page as usize) {
            let value = self.random.next_u64();
            let outcome = self.k.user_access(&self.cpu, address + page, access, value, true);
            match outcome.result {
                Ok(_) | Err(AccessFailure::Signal(_)) => {}
                Err(other) => panic!("{other:?} at {:#x}", address + page),
            }
        }
    }
}

fn stress<D: Design>(arch: Arch, seed: u64) {
    let page = arch.page_size();
    // Each kind of device and of readahead in one of the tests; all are full now and then.
    let swap = SwapConfig {
        size: 400 * page,
        synchronous: seed == 1,
        readahead: u64::MAX,
        vma_ra_enabled: seed != 3,
    };
    let config = Config {
        arch,
        system: System { swap: Some(swap), ..System::default() },
        variants: Variants::outside_explore(),
        nr_cpus: THREADS,
        nr_tasks: THREADS,
    };
    let k = Kernel::<Cpu, D>::new(config);
    let machine = Machine::new(THREADS);
    let tasks: Vec<u32> = (0..THREADS).collect();
    k.start_process(&machine.cpu(0, 0), &tasks).expect("memory");
    let at_rest = Meeting::default();
    let end = Instant::now() + Duration::from_secs(seconds());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for id in tasks {
            let (k, machine, at_rest, over) = (&k, &machine, &at_rest, &over);
            scope.spawn(move || {
                let cpu = machine.cpu(id, id);
                let random = Pcg64Mcg::seed_from_u64(seed ^ (u64::from(id) << 32));
                catch(machine, || {
                    run_until(&mut Stress { k, cpu, random, page }, at_rest, over, end)
                });
            });
        }
    });
    assert_eq!(machine.finding(), None);
    assert_eq!(k.check_nothing_left(), []);
}

/// What one thread does. `None`: another one failed.
fn run_until<D: Design>(
    task: &mut Stress<'_, D>,
    at_rest: &Meeting,
    over: &AtomicBool,
    end: Instant,
) -> Option<()> {
    let mut is_last = false;
    while !is_last {
        for _ in 0..OPERATIONS_A_ROUND {
            task.operation();
        }
        is_last = quiesce(task, at_rest, over, end)?;
    }
    task.k.exit_mm(&task.cpu);
    task.cpu.rcu_barrier();
    at_rest.wait(&task.cpu)?;
    task.k.run_rcu_callbacks(&task.cpu);
    Some(())
}

/// Where all threads wait for each other. A standard barrier would wait for ever for a thread
/// that panicked.
#[derive(Default)]
struct Meeting {
    come: AtomicU32,
}

impl Meeting {
    /// Whether the caller came last; `None`: somebody failed and will not come.
    fn wait(&self, cpu: &Cpu) -> Option<bool> {
        let nth = self.come.fetch_add(1, Ordering::AcqRel) + 1;
        while self.come.load(Ordering::Acquire) < nth.next_multiple_of(THREADS) {
            if !cpu.operation_boundary() {
                return None;
            }
            thread::yield_now();
        }
        Some(nth.is_multiple_of(THREADS))
    }
}

/// Lets every grace period end, checks everything, and says whether time is up.
fn quiesce<D: Design>(
    task: &Stress<'_, D>,
    at_rest: &Meeting,
    over: &AtomicBool,
    end: Instant,
) -> Option<bool> {
    at_rest.wait(&task.cpu)?;
    task.cpu.rcu_barrier();
    if at_rest.wait(&task.cpu)? {
        task.k.run_rcu_callbacks(&task.cpu);
        assert_eq!(task.k.check_at_rest(), []);
        // One looks at the clock for all.
        over.store(Instant::now() >= end, Ordering::Relaxed);
    }
    at_rest.wait(&task.cpu)?;
    Some(over.load(Ordering::Relaxed))
}

#[test]
fn eight_threads_of_mixed_operations_break_nothing_spf() {
    stress::<Spf>(Arch::builtin().remove(0), 1);
}

#[test]
fn eight_threads_of_mixed_operations_break_nothing_classic() {
    stress::<Classic>(Arch::builtin().remove(0), 2);
}

#[test]
fn eight_threads_of_mixed_operations_break_nothing_on_arm64() {
    let arm64 = Arch::builtin().into_iter().find(|arch| arch.name == "arm64").expect("builtin");
    stress::<Spf>(arm64, 3);
}
