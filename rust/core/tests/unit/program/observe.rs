use super::*;
use crate::mm::{Config, Kernel};
use crate::platform::native::{Cpu, Machine};
use crate::program::build::*;
use crate::program::{Options, Run, Start, Watch, run_task};
use std::sync::Arc;

const UNMAPPED: What = What::Change { prot: Sets::To(0), content: Sets::To(0) };

/// The events of one task that runs `records`, without their times.
fn events(records: &[Rec]) -> Vec<(u64, u64, What)> {
    let program = program(&[(Start::First, records)]);
    let options = Options { history: true, ..Options::default() };
    let run = Run::<Cpu>::new(&program, &options, &Arc::new(Watch::default()));
    let kernel = Kernel::<Cpu, crate::design::Spf>::new(Config { ..config(1 << 30) });
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    run.boot(&kernel, &cpu).unwrap();
    run_task(&kernel, &cpu, &run, &());
    let history = run.take_history();
    assert!(history.iter().all(|event| event.begin <= event.end && event.mm <= 1));
    assert!(history.is_sorted_by_key(|event| event.begin));
    history.iter().map(|event| (event.first_page, event.nr_pages, event.what)).collect()
}

const FIXED: u32 = 8 | GIVEN;
const FIRST: u64 = 0x100;

/// `mmap` of `pages` pages at a fixed place.
fn fixed(pages: u64, flags: u32) -> Rec {
    Rec { flags: FIXED | flags, addr: (FIRST * PAGE) as i64, ..mmap(pages, 0) }
}

#[test]
fn calls_and_accesses_are_written_down_page_by_page() {
    let seen = events(&[
        fixed(4, 5),
        write(0, 1, 7),
        Rec { addr: (PAGE + 9) as i64, ..read(0, 0) },
        Rec { prot: 4, ..range(MPROTECT, 0, 2, 1) },
        Rec { advice: 0, ..range(MADVISE, 0, 0, 2) },
        range(MUNMAP, 0, 3, 1),
        write(0, 3, 1),
    ]);
    let change = |prot, content| What::Change { prot, content };
    assert_eq!(
        seen,
        [
            (FIRST, 4, change(Sets::To(MAPPED | R | W), Sets::To(0))),
            (FIRST + 1, 1, What::Accessed { access: Access::Write, value: 7 }),
            (FIRST + 1, 1, What::Accessed { access: Access::Read, value: 7 }),
            (FIRST + 2, 1, change(Sets::To(MAPPED | 4), Sets::Nothing)),
            (FIRST, 2, change(Sets::Nothing, Sets::To(0))),
            (FIRST + 3, 1, UNMAPPED),
            (FIRST + 3, 1, What::Denied { access: Access::Write, mapped: false }),
        ]
    );
}

#[test]
fn where_a_stack_may_grow_nobody_knows_what_is_mapped() {
    let stack = Rec { flags: FIXED | 5 | 512, ..fixed(1, 0) };
    let unknown = |content| What::Change { prot: Sets::Unknown, content };
    let seen = events(&[stack, range(MUNMAP, 0, 0, 1)]);
    assert_eq!(seen[1], (0, FIRST, unknown(Sets::Nothing)));
    assert_eq!(seen[2], (FIRST, 1, unknown(Sets::To(0))));
    let seen = events(&[stack, mremap_to((0, 0), (0, 0x2000), 1, 1)]);
    let limit = (8 << 20) / PAGE;
    assert_eq!(seen[4], (FIRST + 0x2000 - limit, limit, unknown(Sets::Nothing)));
}

#[test]
fn a_stack_of_exec_is_mapped_and_may_grow() {
    let top = (1 << 47) - PAGE;
    let exec = Rec { length: PAGE, length2: 3 * PAGE, ..rec(EXEC) };
    let access = |offset: u64| Rec { base: -1, addr: (top - offset) as i64, ..write(0, 0, 7) };
    let seen = events(&[exec, access(4 * PAGE), access(9 * PAGE)]);
    let growth = What::Change { prot: Sets::Unknown, content: Sets::Nothing };
    let mapped = What::Change { prot: Sets::To(MAPPED | R | W), content: Sets::To(0) };
    let limit = (8 << 20) / PAGE;
    let end = top / PAGE - 3;
    assert_eq!(seen[..2], [(end - limit, limit, growth), (end - 2, 2, mapped)]);
    assert!(seen[2..].iter().all(|event| matches!(event.2, What::Accessed { .. })));
    assert_eq!(seen.len(), 4);
}

#[test]
fn what_may_have_stopped_half_way_is_unknown_and_what_was_refused_is_nothing() {
    // A hole behind the first page: mprotect changes it, and fails.
    let seen = events(&[
        fixed(1, 5),
        Rec { prot: 1, ..range(MPROTECT, 0, 0, 2) },
        Rec { addr: 1, ..range(MUNMAP, 0, 0, 1) },
        Rec { base: -1, addr: 0x1001, ..fixed(1, 5) },
    ]);
    assert_eq!(seen.len(), 3);
    let half_way = What::Change { prot: Sets::Unknown, content: Sets::Nothing };
    assert_eq!(seen[1], (FIRST, 2, half_way));
    assert_eq!(seen[2].2, UNKNOWN);
}

#[test]
fn dontneed_that_passed_over_a_hole_says_nothing_of_content() {
    // Found by a stress run: another task's munmap of the hole had yet to flush.
    let seen = events(&[fixed(1, 5), Rec { advice: 0, ..range(MADVISE, 0, 0, 2) }]);
    let unknown = What::Change { prot: Sets::Nothing, content: Sets::Unknown };
    assert_eq!(seen[1], (FIRST, 2, unknown));
}

#[test]
fn words_of_shared_memory_and_files_are_not_followed() {
    let seen = events(&[fixed(1, 6), write(0, 0, 7)]);
    let content = Sets::Unknown;
    assert_eq!(seen[0].2, What::Change { prot: Sets::To(MAPPED | R | W), content });
    assert_eq!(seen[2].2, What::Change { prot: Sets::Nothing, content });
    let private_file = Rec { aux: 1, ..fixed(1, 1) };
    let dontneed = Rec { advice: 0, ..range(MADVISE, 0, 0, 1) };
    let seen = events(&[private_file, write(0, 0, 7), dontneed]);
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[2].2, What::Change { prot: Sets::Nothing, content });
}

#[test]
fn a_fork_tells_the_childs_history_from_the_parents() {
    let program = program(&[(Start::First, &[mmap(1, 0), aux(FORK, 1)]), (Start::Fork, &[])]);
    let options = Options { history: true, ..Options::default() };
    let run = Run::<Cpu>::new(&program, &options, &Arc::new(Watch::default()));
    let kernel = Kernel::<Cpu, crate::design::Spf>::new(Config { nr_tasks: 2, ..config(1 << 30) });
    let machine = Machine::new(1);
    let cpu = machine.cpu(0, 0);
    run.boot(&kernel, &cpu).unwrap();
    run_task(&kernel, &cpu, &run, &());
    let history = run.take_history();
    assert_eq!((history[1].mm, history[1].what), (1, What::Forked { parent: 0 }));
}

#[test]
fn mremap_moves_pages_and_says_what_it_makes_and_leaves() {
    // Pages 0 to 3 at 0x100: grown by 1, cut by 1, moved to 0x200 and grown, and back by halves.
    let to = |records: &[Rec]| events(&[&[fixed(4, 5)], records].concat()).split_off(1);
    let change = |prot, content| What::Change { prot, content };
    let grown = change(Sets::Unknown, Sets::To(0));
    assert_eq!(to(&[mremap(0, 0, 4, 5)]), [(FIRST + 4, 1, grown)]);
    assert_eq!(to(&[mremap(0, 0, 4, 3)]), [(FIRST + 3, 1, UNMAPPED)]);
    assert_eq!(to(&[mremap(0, 0, 4, 4)]), []);
    let moved = mremap_to((0, 1), (0, 0x100), 3, 4);
    let from = What::Moved { from: FIRST + 1 };
    let expect = [(FIRST + 0x100, 3, from), (FIRST + 0x103, 1, grown), (FIRST + 1, 3, UNMAPPED)];
    assert_eq!(to(&[moved]), expect);
    // Refused with what was at the new place gone already; refused before anything.
    let refused = mremap_to((0, 8), (0, 0), 2, 1);
    assert_eq!(to(&[refused]), [(FIRST, 1, UNKNOWN), (FIRST + 9, 1, UNKNOWN)]);
    assert_eq!(to(&[mremap(0, 8, 1, 2)]), []);
}
