//! Fork against threads of the parent that fault and write, under chosen schedules (A1).

use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::arch::Arch;
use crate::design::{Classic, Spf};
use crate::explore::{Cpu, ExploreOptions, ExploreReport, Explorer, Search, Subject};
use crate::mm::{Access, Choice, Config, System, Variants};
use crate::ops::mmap::{MapFlags, MmapArgs};
use crate::platform::{Finding, Line, Lines, Ptr, Word};

const A: u64 = 0x1000_0000;
/// Above, so that fork copies it after the page at `A`.
const B: u64 = 0x2000_0000;
const OTHER_PAGES: u64 = 32;

/// | task | does |
/// |---|---|
/// | 0 | makes a page, and more in another VMA, lets the others go, forks |
/// | 1 | a thread with a cold TLB: writes 2 to the page, a fault while the fork goes on |
/// | 2 | a thread with a writable translation: writes and reads back, again and again |
/// | 3 | the child: reads the page twice |
struct Race<D: Design> {
    k: Kernel<Cpu, D>,
    /// How far the tasks have come: 1 page made, 2 translation of task 2 made, 3 child made.
    stage: Word<Cpu>,
}

impl<D: Design> Race<D> {
    fn await_stage(&self, cpu: &Cpu, stage: u64) {
        cpu.sleep_until(&self.stage, |now| now >= stage);
    }
    fn set_stage(&self, cpu: &Cpu, stage: u64) {
        self.stage.poke(stage);
        cpu.wake(&self.stage);
    }
    fn write(&self, cpu: &Cpu, address: u64, value: u64) {
        self.k.user_access(cpu, address, Access::Write, value, true).result.expect("mapped");
    }
    fn read(&self, cpu: &Cpu) -> u64 {
        self.k.user_access(cpu, A, Access::Read, 0, true).result.expect("mapped")
    }
    fn begin(&self, cpu: &Cpu) {
        self.k.start_process(cpu, &[0, 1, 2]).expect("memory");
        self.k.sys_brk(cpu, 0x1000, Some(A)).expect("a free place");
        self.write(cpu, A, 1);
        let other = MmapArgs {
            address: B,
            length: OTHER_PAGES << 12,
            prot: VmFlags::READ | VmFlags::WRITE,
            flags: MapFlags(MapFlags::PRIVATE.0 | MapFlags::FIXED.0),
            file: Ptr::NULL,
            offset: 0,
        };
        self.k.sys_mmap(cpu, &other).expect("a free place");
        (0..OTHER_PAGES).for_each(|nth| self.write(cpu, B + (nth << 12), nth));
        self.set_stage(cpu, 1);
        self.await_stage(cpu, 2);
        self.k.sys_fork(cpu, 3).expect("memory");
        self.set_stage(cpu, 3);
    }
}

impl<D: Design> Subject for Race<D> {
    fn nr_tasks(&self) -> u32 {
        4
    }
    fn fingerprint(&self) -> u64 {
        1
    }
    fn lines(&self) -> Option<Arc<Lines>> {
        None
    }
    fn reset(&self, _cpus: &[Rc<Cpu>]) {
        self.k.reset();
        self.stage.poke(0);
    }
    fn run_task(&self, cpu: &Cpu) {
        match cpu.task() {
            0 => self.begin(cpu),
            1 => {
                self.await_stage(cpu, 2);
                self.write(cpu, A, 2);
            }
            2 => {
                self.await_stage(cpu, 1);
                self.write(cpu, A, 1);
                self.set_stage(cpu, 2);
                // Long enough to be there when task 1 copies the page.
                for value in 3..20 {
                    self.write(cpu, A, value);
                    let seen = self.read(cpu);
                    if seen != value && seen != 2 {
                        cpu.finding("lost-store", "a store was there, and is gone".to_owned());
                    }
                }
            }
            _ => {
                self.await_stage(cpu, 3);
                let seen = self.read(cpu);
                if self.read(cpu) != seen {
                    cpu.finding("copy-on-write", "the child's page changes".to_owned());
                }
            }
        }
        self.k.exit_mm(cpu);
    }
    fn check(&self, cpus: &[Rc<Cpu>]) -> Vec<Finding> {
        let cpu = &cpus[0];
        self.k.run_rcu_callbacks(cpu);
        self.k.check_nothing_left()
    }
}

fn explore<D: Design>(search: Search, schedules: u64) -> ExploreReport {
    let config = Config {
        arch: Arch::builtin().remove(0),
        system: System { memory: 1 << 20, ..System::default() },
        variants: Variants::all(Choice::Fixed),
        nr_cpus: 4,
        nr_tasks: 4,
    };
    let race = Rc::new(Race::<D> { k: Kernel::new(config), stage: Word::new(Line::FREE, 0) });
    let options =
        ExploreOptions { search, max_schedules: Some(schedules), ..ExploreOptions::default() };
    Explorer::new(race, options, &Arc::default()).expect("stacks").explore()
}

/// Without P18's brackets, or with brackets that end right after each VMA's copy, 75,000 schedules
/// show a lost store; so many are for the long tests.
fn loses_nothing<D: Design>() {
    let deep = std::env::var_os("SPFEMU_DEEP").is_some();
    let schedules = if deep { 75_000 } else { 300 };
    for search in [Search::Random { seed: 3 }, Search::Pct { seed: 1, depth: 8 }] {
        let report = explore::<D>(search, schedules);
        let found: Vec<_> = report.violations.iter().map(|v| (&v.what, &v.token)).collect();
        assert_eq!(found, []);
        assert_eq!((report.schedules, report.too_long), (schedules, 0));
    }
}

#[test]
fn a_store_beside_a_fork_is_not_lost() {
    loses_nothing::<Spf>();
    loses_nothing::<Classic>();
}
