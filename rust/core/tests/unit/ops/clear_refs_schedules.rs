//! `clear_refs` against threads that fault and write, under every schedule of two preemptions.

use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::arch::Arch;
use crate::design::{Classic, Spf};
use crate::explore::{Cpu, ExploreOptions, ExploreReport, Explorer, Subject};
use crate::mm::{Access, Choice, Config, System, Vaddr, Variants};
use crate::ops::madvise::Advice;
use crate::platform::{Finding, Line, Lines, Word};

const A: u64 = 0x1000_0000;

/// | task | does |
/// |---|---|
/// | 0 | makes a page, of which somebody has a reference meanwhile, and makes it read-only |
/// | 1 | a thread with a writable translation: writes 4, and reads once task 2 has had its fault |
/// | 2 | a thread with a cold TLB: a write fault that stores nothing, by `populate_write` |
struct Race<D: Design> {
    k: Kernel<Cpu, D>,
    /// 1: the page is made; 2: task 1 has its translation; 3: go; one more for each of the others
    /// that is done.
    stage: Word<Cpu>,
}

impl<D: Design> Race<D> {
    fn await_stage(&self, cpu: &Cpu, stage: u64) {
        cpu.sleep_until(&self.stage, |now| now >= stage);
    }
    fn next_stage(&self, cpu: &Cpu) {
        self.stage.poke(self.stage.peek() + 1);
        cpu.wake(&self.stage);
    }
    fn write(&self, cpu: &Cpu, value: u64) {
        self.k.user_access(cpu, A, Access::Write, value, true).result.expect("mapped");
    }
    fn begin(&self, cpu: &Cpu) {
        self.k.start_process(cpu, &[0, 1, 2]).expect("memory");
        self.k.sys_brk(cpu, 0x1000, Some(A)).expect("a free place");
        self.write(cpu, 1);
        let mm = self.k.current_mm(cpu);
        let table = self.k.walk_pmd(cpu, mm, Vaddr(A)).and_then(|pmd| pmd.read(cpu).table());
        let slot = self.k.pte_offset_map(cpu, table.expect("a table"), Vaddr(A));
        let page = self.k.page(cpu, slot.pte().peek().pfn());
        self.k.get_page(cpu, page);
        self.next_stage(cpu);
        self.await_stage(cpu, 2);
        self.next_stage(cpu);
        self.k.clear_refs(cpu, 4).expect("a number that is known");
        self.await_stage(cpu, 5);
        self.k.put_page(cpu, page);
    }
}

impl<D: Design> Subject for Race<D> {
    fn nr_tasks(&self) -> u32 {
        3
    }
    fn fingerprint(&self) -> u64 {
        2
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
                self.await_stage(cpu, 1);
                self.write(cpu, 1);
                self.next_stage(cpu);
                self.await_stage(cpu, 3);
                self.write(cpu, 4);
                self.next_stage(cpu);
                self.await_stage(cpu, 5);
                let seen = self.k.user_access(cpu, A, Access::Read, 0, true).result;
                if seen != Ok(4) {
                    cpu.finding("lost-store", "a store was there, and is gone".to_owned());
                }
            }
            _ => {
                self.await_stage(cpu, 3);
                self.k.sys_madvise(cpu, A, 0x1000, Advice::PopulateWrite).expect("writable");
                self.next_stage(cpu);
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

fn explore<D: Design>() -> ExploreReport {
    let config = Config {
        arch: Arch::builtin().remove(0),
        system: System { memory: 1 << 20, ..System::default() },
        variants: Variants::all(Choice::Fixed),
        nr_cpus: 3,
        nr_tasks: 3,
    };
    let race = Rc::new(Race::<D> { k: Kernel::new(config), stage: Word::new(Line::FREE, 0) });
    Explorer::new(race, ExploreOptions::default(), &Arc::default()).expect("stacks").explore()
}

/// By references the page may not be reused, and the copy would miss what is stored until the flush:
/// where faults may come before it, both designs lose the store.
fn loses_nothing<D: Design>() {
    let report = explore::<D>();
    let found: Vec<_> = report.violations.iter().map(|v| (&v.what, &v.token)).collect();
    assert_eq!(found, []);
    assert!(report.complete && report.schedules > 100, "{}", report.schedules);
}

#[test]
fn a_store_before_the_flush_is_not_lost_where_pages_are_reused_by_references() {
    loses_nothing::<Spf>();
    loses_nothing::<Classic>();
}
