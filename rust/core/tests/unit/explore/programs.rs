//! Programs of two or three tasks, explored completely within their bounds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::explore::ExploreReport;
use crate::mm::{Choice, System, Variant, Variants};
use crate::platform::Mutant;
use crate::program::Start;
use crate::program::build::*;
use crate::sync::rwsem::Policy;

const GB: u64 = 1 << 30;

/// One task writes a page of a mapping that another unmaps.
///
/// ```text
/// t0:  map [0 1]  write 0  post  ..  unmap [0 1]
/// t1:                      await ..  write 1
/// ```
fn fault_against_munmap() -> Arc<Program> {
    let first = [mmap(2, 0), write(0, 0, 1), aux(POST, 0), range(MUNMAP, 0, 0, 2)];
    let second = [aux(AWAIT, 0), write(0, 1, 2)];
    program(&[(Start::First, &first), (Start::First, &second)])
}

/// One task moves two pages, of which one was written, while another writes page `page`: 0 is the
/// old place, 4 the new one. Both are in one page table.
///
/// ```text
/// t0:  map [0 ..7]  write 0  unmap [4 ..7]  post  ..  move [0 1] to 4  read 4
/// t1:                                       await ..  write
/// ```
fn fault_against_mremap(page: i64) -> Arc<Program> {
    let first = [
        mmap(8, 0),
        write(0, 0, 1),
        range(MUNMAP, 0, 4, 4),
        aux(POST, 0),
        mremap_to((0, 0), (0, 4), 2, 2),
        read(0, 4),
    ];
    let second = [aux(AWAIT, 0), write(0, page, 2)];
    program(&[(Start::First, &first), (Start::First, &second)])
}

pub(super) fn with_variants(choice: Choice) -> Config {
    Config { variants: Variants::all(choice), ..config(GB) }
}

fn explore_with(choice: Choice, options: &ExploreOptions) -> ExploreReport {
    explore_on(Handler::Spf, choice, options)
}

fn explore_on(handler: Handler, choice: Choice, options: &ExploreOptions) -> ExploreReport {
    let program = fault_against_munmap();
    explore(&program, handler, &with_variants(choice), options, &Arc::default()).unwrap()
}

pub(super) fn dfs(preemptions: u32, reduce: bool) -> ExploreOptions {
    ExploreOptions {
        search: Search::Dfs { preemptions: Some(preemptions), reduce },
        ..ExploreOptions::default()
    }
}

fn without(mutant: Mutant) -> ExploreOptions {
    ExploreOptions { mutants: vec![mutant], ..ExploreOptions::default() }
}

#[test]
fn a_fault_against_a_munmap_breaks_nothing_when_every_bug_is_cured() {
    for (handler, schedules) in [(Handler::Spf, 56), (Handler::SpfRwlock, 50)] {
        let report = explore_on(handler, Choice::Fixed, &dfs(1, true));
        assert!(report.complete);
        assert_eq!(report.violations, []);
        assert_eq!(report.schedules, schedules);
    }
}

#[test]
fn v11s_tree_needs_its_lock_and_the_reference_taken_under_it() {
    for mutant in [Mutant::A23, Mutant::A24Get] {
        let report = explore_on(Handler::SpfRwlock, Choice::Fixed, &without(mutant));
        let entry = Some(super::super::mutants::entry_of(mutant));
        let found = report.violations.iter().map(|found| (found.invariant.as_str(), found.entry));
        assert_eq!(found.collect::<BTreeSet<_>>(), BTreeSet::from([("use-after-free", entry)]));
    }
}

#[test]
fn nobody_waits_for_ever_however_semaphores_are_handed_over() {
    // t0:  map [0 1]  post  ..  unmap [0]
    // t1:             await ..  protect [1]
    // t2:             await ..  write 1
    let first = [mmap(2, 0), write(0, 1, 1), aux(POST, 0), aux(POST, 1), range(MUNMAP, 0, 0, 1)];
    let second = [aux(AWAIT, 0), Rec { prot: 1, ..range(MPROTECT, 0, 1, 1) }];
    let third = [aux(AWAIT, 1), read(0, 1)];
    let tasks: [(Start, &[_]); 3] =
        [(Start::First, &first), (Start::First, &second), (Start::First, &third)];
    let usual = Policy::default();
    for rwsem in [
        Policy { stealing: false, ..usual },
        Policy { stealing: false, spinning: false, ..usual },
        Policy { reader_groups: false, ..usual },
    ] {
        let cured = with_variants(Choice::Fixed);
        let config = Config { system: System { rwsem, ..cured.system.clone() }, ..cured };
        let report =
            explore(&program(&tasks), Handler::Classic, &config, &dfs(1, true), &Arc::default())
                .unwrap();
        assert!(report.complete && report.schedules > 100, "{report:?}");
        assert_eq!(report.violations, []);
    }
}

#[test]
fn each_mutant_is_found_named_and_replayed() {
    for mutant in [Mutant::A6, Mutant::A7] {
        let options = without(mutant);
        let report = explore_with(Choice::Fixed, &options);
        let violation = &report.violations[0];
        assert_eq!(violation.entry, Some(super::super::mutants::entry_of(mutant)));
        assert!(violation.timeline.len() > 10);
        let search = Search::Replay(violation.token.clone());
        let again = explore_with(Choice::Fixed, &ExploreOptions { search, ..options });
        assert_eq!(again.schedules, 1);
        assert_eq!(again.violations, report.violations[..1]);
    }
}

#[test]
fn a_fault_at_either_place_of_a_mremap_is_held_off_or_moves_along() {
    // The page that the fault installed is overwritten: nobody maps it any more.
    let (new, old) = ((Mutant::A3, 4, "rss-count"), (Mutant::A4, 0, "lost-store"));
    for (handler, (mutant, page, invariant)) in [
        (Handler::Spf, new),
        (Handler::Spf, old),
        (Handler::SpfRwlock, new),
        (Handler::SpfRwlock, old),
    ] {
        let program = fault_against_mremap(page);
        let explored = |options: &ExploreOptions| {
            let config = with_variants(Choice::Fixed);
            explore(&program, handler, &config, options, &Arc::default()).unwrap()
        };
        let whole = explored(&dfs(1, true));
        assert!(whole.complete && whole.schedules > 20, "{whole:?}");
        assert_eq!(whole.violations, []);
        let without = explored(&ExploreOptions { mutants: vec![mutant], ..dfs(1, true) });
        let found = without.violations.iter().map(|found| (found.invariant.as_str(), found.entry));
        let found: BTreeSet<_> = found.collect();
        let entry = Some(super::super::mutants::entry_of(mutant));
        assert_eq!(found, BTreeSet::from([(invariant, entry)]));
    }
}

#[test]
fn what_v12_breaks_has_a_name_in_the_catalogue() {
    let report = explore_with(Choice::V12, &dfs(1, true));
    let entries: BTreeSet<_> = report.violations.iter().map(|found| found.entry).collect();
    assert_eq!(entries, BTreeSet::from([Some("B2"), Some("B3")]));
}

#[test]
fn a_token_of_other_settings_says_so() {
    let token = explore_with(Choice::Fixed, &without(Mutant::A7)).violations[0].token.clone();
    let options = ExploreOptions { search: Search::Replay(token), ..ExploreOptions::default() };
    let program = fault_against_munmap();
    let config = with_variants(Choice::Fixed);
    let error = explore(&program, Handler::Spf, &config, &options, &Arc::default()).unwrap_err();
    assert!(error.0.contains("made for another program, or with other settings"), "{error}");
}

#[test]
fn who_asks_for_the_end_gets_it() {
    // A search of millions of schedules; and one schedule that has no access, only operations.
    let forever = u64::MAX - 1;
    let notes = program(&[(Start::First, &[repeat(forever), rec(NOTE), rec(END)])]);
    let posts = program(&[(Start::First, &[repeat(forever), aux(POST, 0), rec(END)])]);
    let endless = ExploreOptions { max_steps: u64::MAX, ..dfs(9, false) };
    let config = with_variants(Choice::Fixed);
    for program in [fault_against_munmap(), notes, posts] {
        let watch = Arc::new(Watch::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let begun = |count: &AtomicU64| count.load(Ordering::Relaxed) > 0;
                while !begun(&watch.schedules) && !begun(&watch.operations) {
                    std::thread::yield_now();
                }
                watch.stop();
            });
            let report = explore(&program, Handler::Spf, &config, &endless, &watch).unwrap();
            assert!(!report.complete);
        });
    }
}

#[test]
fn a_schedule_of_operations_without_accesses_is_cut() {
    for op in [rec(NOTE), aux(POST, 0)] {
        let endless = program(&[(Start::First, &[repeat(u64::MAX - 1), op, rec(END)])]);
        let options = ExploreOptions { max_steps: 100_000, ..dfs(0, true) };
        let config = with_variants(Choice::Fixed);
        let report = explore(&endless, Handler::Spf, &config, &options, &Arc::default()).unwrap();
        assert_eq!((report.schedules, report.too_long, report.complete), (1, 1, false));
    }
}

#[test]
fn what_has_no_end_or_no_room_is_refused() {
    let endless = program(&[(Start::First, &[repeat(u64::MAX), rec(NOTE), rec(END)])]);
    let refuse = |program: &Arc<Program>, config: &Config| {
        explore(program, Handler::Spf, config, &dfs(2, true), &Arc::default()).unwrap_err().0
    };
    assert!(refuse(&endless, &with_variants(Choice::Fixed)).starts_with("key 'max_count':"));
    let tiny = Config { variants: Variants::all(Choice::Fixed), ..config(PAGE) };
    assert!(refuse(&fault_against_munmap(), &tiny).starts_with("key 'memory': value 4096"));
    let note: &[Rec] = &[rec(NOTE)];
    let many = program(&vec![(Start::First, note); 65]);
    assert!(refuse(&many, &with_variants(Choice::Fixed)).starts_with("tasks: 65"));
}

#[test]
fn tasks_that_wait_for_ever_are_a_finding() {
    let first = [aux(AWAIT, 0), aux(POST, 1)];
    let second = [aux(AWAIT, 1), aux(POST, 0)];
    let program = program(&[(Start::First, &first), (Start::First, &second)]);
    let config = with_variants(Choice::Fixed);
    let options = ExploreOptions { task_names: vec!["first".to_owned()], ..dfs(2, true) };
    let report = explore(&program, Handler::Spf, &config, &options, &Arc::default()).unwrap();
    assert_eq!(report.violations[0].invariant, "stuck");
    assert_eq!(report.violations[0].what, "these wait for ever: first, task 1");
}

#[test]
fn one_schedule_of_a_program_has_the_result_that_native_has() {
    let ops = [mmap(4, 0), touch(0, 4), read(0, 2), range(MUNMAP, 0, 1, 1), write(0, 1, 5)];
    let program = program(&[(Start::First, &ops)]);
    let (options, watch) = (Options::default(), Arc::default());
    let native =
        crate::program::native::run(&program, Handler::Spf, config(GB), &options, &watch).unwrap();
    for seed in [0, 7] {
        let once = run_once(&program, Handler::Spf, &config(GB), seed, &options, &watch).unwrap();
        assert_eq!(once, RunResult { elapsed_ns: 0, ..native.clone() });
    }
}

#[test]
fn one_schedule_ends_when_it_is_told_to() {
    let program = program(&[(Start::First, &[repeat(1 << 40), rec(NOTE), rec(END)])]);
    let (options, watch) = (Options::default(), Arc::<Watch>::default());
    watch.stop();
    let once = run_once(&program, Handler::Spf, &config(GB), 0, &options, &watch).unwrap();
    assert!(once.interrupted && once.outcomes.is_empty() && once.finding.is_none());
}

#[test]
fn one_schedule_waits_as_long_for_a_livelock_as_other_engines() {
    let execute = Rec { length: 0, ..range(EXECUTE, 0, 0, 0) };
    let program = program(&[
        (Start::First, &[mmap(1, 0), write(0, 0, 1), execute, aux(POST, 0)]),
        (Start::First, &[aux(AWAIT, 0)]),
    ]);
    let (options, watch) = (Options::default(), Arc::default());
    let once = run_once(&program, Handler::Spf, &config(GB), 0, &options, &watch).unwrap();
    assert_eq!(once.finding, None);
    assert_eq!(once.counters[crate::events::Event::Faults as usize], 1001);
}

/// Counters, outcomes and maps.
type Outcome = (Vec<u64>, Vec<u8>, String);

/// A subject that remembers every result.
struct Remembering {
    inner: ProgramSubject<Spf>,
    results: RefCell<BTreeSet<Outcome>>,
    /// This allocation of an anon_vma_chain fails, the first being 0.
    no_avc: Option<u32>,
}

impl Remembering {
    fn new(program: &Arc<Program>, options: Options, no_avc: Option<u32>) -> Rc<Self> {
        let (config, none) = (with_variants(Choice::Fixed), Hazards::default());
        let inner = ProgramSubject::new(
            program,
            &config,
            options,
            &Arc::default(),
            0,
            none,
            Lines::default(),
        );
        Rc::new(Self { inner, results: RefCell::default(), no_avc })
    }
}

impl Subject for Remembering {
    fn nr_tasks(&self) -> u32 {
        self.inner.nr_tasks()
    }
    fn fingerprint(&self) -> u64 {
        0
    }
    fn lines(&self) -> Option<Arc<Lines>> {
        self.inner.lines()
    }
    fn reset(&self, cpus: &[Rc<Cpu>]) {
        self.inner.reset(cpus);
        if let Some(nth) = self.no_avc {
            self.inner.kernel.avcs.fail_after(nth);
        }
    }
    fn run_task(&self, cpu: &Cpu) {
        self.inner.run_task(cpu);
    }
    fn check(&self, cpus: &[Rc<Cpu>]) -> Vec<Finding> {
        let findings = self.inner.check(cpus);
        let result = self.inner.run().finish(&self.inner.kernel, 0);
        let maps = format!("{:?}", result.maps);
        self.results.borrow_mut().insert((result.counters.to_vec(), result.outcomes, maps));
        findings
    }
}

#[test]
fn the_reduction_keeps_every_result_of_a_program() {
    let splitting = {
        let first = [mmap(3, 0), write(0, 0, 1), aux(POST, 0), range(MPROTECT, 0, 1, 1)];
        let second = [aux(AWAIT, 0), write(0, 1, 2), read(0, 2)];
        program(&[(Start::First, &first), (Start::First, &second)])
    };
    for program in [fault_against_munmap(), splitting] {
        let explored = |reduce| {
            let record = Options { record: true, ..Options::default() };
            let subject = Remembering::new(&program, record, None);
            let options = dfs(1, reduce);
            let mut explorer =
                Explorer::new(Rc::clone(&subject), options, &Arc::default()).unwrap();
            let report = explorer.explore();
            assert!(report.complete && report.violations.is_empty(), "{report:?}");
            (report.schedules, subject.results.take())
        };
        let ((few, some), (many, all)) = (explored(true), explored(false));
        assert_eq!(some, all);
        assert!(all.len() > 1, "{few} of {many} schedules, {} results", all.len());
        assert!(few * 3 < many, "{few} of {many} schedules");
    }
}

#[test]
fn what_two_tasks_drop_at_once_is_gone_for_both_when_they_return() {
    // The second finds the PTE taken out by the first, who has yet to flush, and reads through
    // its own TLB:
    // t0:  map [0]  write 0  post  await        ..  post  take 0 out  ..                    flush
    // t1:                    await read 0 post  ..  await         drop: nothing there  read 0
    let drop = range(MADVISE, 0, 0, 1);
    let first = [mmap(1, 0), write(0, 0, 1), aux(POST, 0), aux(AWAIT, 1), aux(POST, 2), drop];
    let second = [aux(AWAIT, 0), read(0, 0), aux(POST, 1), aux(AWAIT, 2), drop, read(0, 0)];
    let program = program(&[(Start::First, &first), (Start::First, &second)]);
    let config = with_variants(Choice::Fixed);
    let report = explore(&program, Handler::Spf, &config, &dfs(1, true), &Arc::default()).unwrap();
    assert!(report.complete);
    assert_eq!(report.violations, []);
}

#[test]
fn b3_is_in_the_lock_of_a_page_that_is_mapped_too() {
    // After mprotect there and back the first write to a page only makes it writable: it takes the
    // lock by pte_spinlock, and never by pte_map_lock.
    let protect = |prot| Rec { prot, ..range(MPROTECT, 0, 0, 2) };
    let first =
        [mmap(2, 0), write(0, 0, 1), protect(1), protect(3), aux(POST, 0), range(MUNMAP, 0, 0, 2)];
    let second = [aux(AWAIT, 0), write(0, 0, 2)];
    let program = program(&[(Start::First, &first), (Start::First, &second)]);
    for (choice, found) in [(Choice::Fixed, false), (Choice::V12, true)] {
        let mut config = with_variants(Choice::Fixed);
        config.variants.set(Variant::B3, choice);
        // handle_pte_fault's own look at the PMD is B3 as well: what is found must be the lock.
        let report =
            explore(&program, Handler::Spf, &config, &dfs(1, true), &Arc::default()).unwrap();
        let lock = "the PTE lock of a PMD that became none";
        assert_eq!(report.violations.iter().any(|seen| seen.what == lock), found, "{choice:?}");
    }
}

#[test]
fn a27_a_merge_without_memory_leaves_its_vmas_odd() {
    // Pages 0 and 1 have no anon_vma, page 2 has one; to be one VMA with it, page 0 needs a link,
    // the second that is allocated.
    let protect = |prot| Rec { prot, ..range(MPROTECT, 0, 1, 1) };
    let ops = [mmap(3, 0), protect(0), write(0, 2, 1), protect(3)];
    let program = program(&[(Start::First, &ops)]);
    let explored = |no_avc, mutants: &[Mutant]| {
        let options = Options { check_before_exit: true, ..Options::default() };
        let subject = Remembering::new(&program, options, no_avc);
        let options = ExploreOptions { mutants: mutants.to_vec(), ..dfs(0, true) };
        let mut explorer = Explorer::new(Rc::clone(&subject), options, &Arc::default()).unwrap();
        let report = explorer.explore();
        assert!(report.complete);
        report.violations.into_iter().map(|seen| seen.invariant).collect::<Vec<_>>()
    };
    assert_eq!(explored(None, &[Mutant::A27]), [""; 0]);
    assert_eq!(explored(Some(1), &[]), [""; 0]);
    assert_eq!(explored(Some(1), &[Mutant::A27]), ["sequence"]);
}

#[test]
fn write_sections_are_checked_where_writers_exclude_each_other_and_nothing_is_left_out() {
    let checks = |b1, options: &ExploreOptions| {
        let mut config = with_variants(Choice::Fixed);
        config.variants.set(Variant::B1, b1);
        let program = fault_against_munmap();
        let explorer =
            explorer::<Spf>(&program, &config, options, &Arc::default(), Lines::default()).unwrap();
        explorer.machine.checks_sections.get()
    };
    assert!(checks(Choice::Fixed, &dfs(1, true)));
    assert!(!checks(Choice::V12, &dfs(1, true)));
    assert!(!checks(Choice::Fixed, &without(Mutant::A28)));
}
