//! Huge pages under the explorer: on a machine whose PTE tables have two entries, so that there is
//! little of what does not matter.

use super::tests::{dfs, with_variants};
use super::*;
use crate::arch::{Arch, Family, Level};
use crate::explore::ExploreReport;
use crate::mm::{Choice, Variant};
use crate::platform::Mutant;
use crate::program::Start;
use crate::program::build::*;

const HUGEPAGE: u8 = 6;

/// Two pages a table, four tables, 64 of those.
fn small() -> Arch {
    let level = |name, shift, entries| Level { name, shift, entries };
    Arch {
        name: "small".into(),
        family: Family::X86,
        page_shift: 12,
        levels: vec![level("pgd", 15, 64), level("pmd", 13, 4), level("pte", 12, 2)],
        task_size: 2 << 20,
        mmap_base: 1 << 20,
        exec_only: false,
        source: "for tests".into(),
    }
}

/// `mmap` of pages where a table begins, named by id 0.
fn mmap_at_table(pages: u64) -> Rec {
    const FIXED_AND_GIVEN: u32 = 8 | 1 << 31;
    let anywhere = mmap(pages, 0);
    Rec { flags: anywhere.flags | FIXED_AND_GIVEN, addr: 0x4_0000, ..anywhere }
}

fn advise(advice: u8, pages: u64) -> Rec {
    Rec { advice, ..range(MADVISE, 0, 0, pages) }
}

/// One task collapses the pages that another faults in.
///
/// ```text
/// t0:  map [0 1]  write 0  want huge pages  post  ..  collapse
/// t1:                                       await ..  write 1  read 1
/// ```
fn fault_against_collapse() -> Arc<Program> {
    let first = [
        mmap_at_table(2),
        write(0, 0, 1),
        advise(HUGEPAGE, 2),
        aux(POST, 0),
        range(COLLAPSE, 0, 0, 0),
    ];
    let second = [aux(AWAIT, 0), write(0, 1, 2), read(0, 1)];
    program(&[(Start::First, &first), (Start::First, &second)])
}

fn explored(program: &Arc<Program>, v12: &[Variant], mutants: &[Mutant]) -> ExploreReport {
    explored_with(1, program, v12, mutants)
}

fn explored_with(
    preemptions: u32,
    program: &Arc<Program>,
    v12: &[Variant],
    mutants: &[Mutant],
) -> ExploreReport {
    let mut config = Config { arch: small(), ..with_variants(Choice::Fixed) };
    for &which in v12 {
        config.variants.set(which, Choice::V12);
    }
    let options = ExploreOptions { mutants: mutants.to_vec(), ..dfs(preemptions, true) };
    let report = explore(program, Handler::Spf, &config, &options, &Arc::default()).unwrap();
    assert!(report.complete);
    report
}

fn found(report: &ExploreReport) -> Vec<(&str, Option<&'static str>)> {
    report.violations.iter().map(|seen| (seen.invariant.as_str(), seen.entry)).collect()
}

#[test]
fn a_fault_against_a_collapse_breaks_nothing() {
    let report = explored_with(2, &fault_against_collapse(), &[], &[]);
    assert_eq!(found(&report), []);
    assert_eq!(report.schedules, 415);
}

/// One task unmaps what another writes to, but not all that the tables above it lead to.
///
/// ```text
/// t0:  map [0 1 | 2 3]  write 0  write 2  post  ..  unmap [0 1]
/// t1:                                     await ..  write 1
/// ```
fn fault_against_munmap_of_one_table() -> Arc<Program> {
    let unmap = range(MUNMAP, 0, 0, 2);
    let first = [mmap_at_table(4), write(0, 0, 1), write(0, 2, 1), aux(POST, 0), unmap];
    let second = [aux(AWAIT, 0), write(0, 1, 2)];
    program(&[(Start::First, &first), (Start::First, &second)])
}

#[test]
fn a10_leaves_a_table_behind() {
    let program = fault_against_munmap_of_one_table();
    assert_eq!(found(&explored(&program, &[], &[])), []);
    let report = explored(&program, &[], &[Mutant::A10]);
    assert_eq!(found(&report)[0], ("page-table-count", Some("A10")), "{report:?}");
}

#[test]
fn a10_and_b2_put_a_table_where_the_huge_page_goes() {
    // Twice somebody must be stopped: the fault before it allocates, the collapse before it maps.
    let program = fault_against_collapse();
    let report = explored_with(2, &program, &[], &[Mutant::A10]);
    assert_eq!(found(&report), [("collapse-pmd", Some("A10"))]);
    let report = explored_with(2, &program, &[Variant::B2], &[]);
    assert_eq!(found(&report), [("collapse-pmd", Some("B2"))]);
}

#[test]
fn a11_takes_two_checks_to_be_removed() {
    let program = fault_against_collapse();
    for alone in [Mutant::A11Compare, Mutant::A11Irqs, Mutant::A11Bracket] {
        assert_eq!(found(&explored(&program, &[], &[alone])), [], "{alone:?}");
    }
    for other in [Mutant::A11Compare, Mutant::A11Irqs] {
        let report = explored(&program, &[], &[Mutant::A11Bracket, other]);
        assert_ne!(found(&report), [], "{other:?}");
    }
}

#[test]
fn a12_leaves_tables_behind() {
    // t0:  map [0 1]  write 0  post  ..  unmap
    // t1:                      await ..  write 1
    let first = [mmap_at_table(2), write(0, 0, 1), aux(POST, 0), range(MUNMAP, 0, 0, 2)];
    let second = [aux(AWAIT, 0), write(0, 1, 2)];
    let program = program(&[(Start::First, &first), (Start::First, &second)]);
    assert_eq!(found(&explored(&program, &[], &[])), []);
    let report = explored(&program, &[], &[Mutant::A12]);
    assert_eq!(found(&report)[0].1, Some("A12"), "{report:?}");
}

/// Hugetlb mappings, with so many pages for them.
fn explored_hugetlb(pool: u64, program: &Arc<Program>) -> ExploreReport {
    let mut config = Config { arch: small(), ..with_variants(Choice::Fixed) };
    config.system.hugetlb_pages = Some(pool);
    explore(program, Handler::Spf, &config, &dfs(1, true), &Arc::default()).unwrap()
}

fn hugetlb_at_table(pages: u64) -> Rec {
    const HUGETLB: u32 = 1024;
    let mapping = mmap_at_table(pages);
    Rec { flags: mapping.flags | HUGETLB, ..mapping }
}

#[test]
fn faults_on_a_hugetlb_page_find_one_page_and_one_reservation() {
    // t0:  map [0 1 | 2 3]  post  ..  write 0  read 1  unmap [2 3]
    // t1:                   await ..  write 1  write 2
    let unmap = range(MUNMAP, 0, 2, 2);
    let first = [hugetlb_at_table(4), aux(POST, 0), write(0, 0, 1), read(0, 1), unmap];
    let second = [aux(AWAIT, 0), write(0, 1, 2), write(0, 2, 3)];
    let report = explored_hugetlb(2, &program(&[(Start::First, &first), (Start::First, &second)]));
    assert_eq!((found(&report), report.complete, report.schedules), (vec![], true, 81));
}

#[test]
fn a_parent_takes_a_page_that_its_child_copies_and_drops() {
    // Both copy the page that they share, and there is one page for that.
    // t0:  map [0 1]  write 0  fork t1  write 0  read 0
    // t1:                      write 0
    let first = [hugetlb_at_table(2), write(0, 0, 1), aux(FORK, 1), write(0, 0, 2), read(0, 0)];
    let program = program(&[(Start::First, &first), (Start::Fork, &[write(0, 0, 3)])]);
    for (pool, schedules) in [(1, 56), (2, 53)] {
        let report = explored_hugetlb(pool, &program);
        assert_eq!((found(&report), report.complete, report.schedules), (vec![], true, schedules));
    }
}
