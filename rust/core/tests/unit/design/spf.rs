//! A write section is begun once and ended once.

use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::arch::Arch;
use crate::explore::{Cpu, ExploreOptions, Explorer, Subject};
use crate::mm::{Choice, Config, System, Variants};
use crate::platform::{Finding, Lines};

type Act = fn(&Cpu, VmaRef<'_, Cpu>);

/// One task with one VMA, to which it does something.
struct Writer {
    k: Kernel<Cpu, Spf>,
    act: Act,
}

impl Subject for Writer {
    fn nr_tasks(&self) -> u32 {
        1
    }
    fn fingerprint(&self) -> u64 {
        3
    }
    fn lines(&self) -> Option<Arc<Lines>> {
        None
    }
    fn reset(&self, _cpus: &[Rc<Cpu>]) {
        self.k.reset();
    }
    fn run_task(&self, cpu: &Cpu) {
        self.k.start_process(cpu, &[0]).expect("memory");
        self.k.sys_brk(cpu, 0x1000, Some(0x1000_0000)).expect("a free place");
        let vma = self.k.find_vma(cpu, self.k.current_mm(cpu), Vaddr(0x1000_0000));
        (self.act)(cpu, vma.expect("the heap"));
        self.k.exit_mm(cpu);
    }
    fn check(&self, cpus: &[Rc<Cpu>]) -> Vec<Finding> {
        self.k.run_rcu_callbacks(&cpus[0]);
        self.k.check_nothing_left()
    }
}

fn found(act: Act, checks: bool) -> Vec<(String, String)> {
    let config = Config {
        arch: Arch::builtin().remove(0),
        system: System { memory: 1 << 20, ..System::default() },
        variants: Variants::all(Choice::Fixed),
        nr_cpus: 1,
        nr_tasks: 1,
    };
    let writer = Rc::new(Writer { k: Kernel::new(config), act });
    let options = ExploreOptions::default();
    let mut explorer = Explorer::new(writer, options, &Arc::default()).expect("stacks");
    explorer.check_sections(checks);
    let found = explorer.explore().violations;
    found.into_iter().map(|seen| (seen.invariant, seen.what)).collect()
}

#[test]
fn what_is_begun_or_ended_twice_is_found_where_it_happens() {
    let begun_twice: Act = |cpu, vma| {
        Spf::vm_write_begin(cpu, vma);
        Spf::vm_write_begin(cpu, vma);
    };
    let ended_twice: Act = |cpu, vma| {
        Spf::vm_write_end(cpu, vma);
        Spf::vm_write_end(cpu, vma);
    };
    let once: Act = |cpu, vma| {
        Spf::vm_write_begin(cpu, vma);
        Spf::vm_write_end(cpu, vma);
    };
    for (act, how) in [(begun_twice, "begun"), (ended_twice, "ended")] {
        let what = format!("the write section of the VMA at 0x10000000 is {how} twice");
        assert_eq!(found(act, true), [("sequence".to_owned(), what)]);
        assert_eq!(found(act, false), [], "at rest it is even again");
    }
    assert_eq!(found(once, true), []);
}
