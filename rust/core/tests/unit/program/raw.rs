//! Whatever the bytes of a program are: it is refused with a place, or it runs, and nothing is
//! wrong or left behind afterwards. `PROPTEST_CASES` (default 256) says how many are tried.
//!
//! Fields are drawn from what is next to a limit, and now and then from all numbers there are.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use crate::arch::Arch;
use crate::explore::run_once;
use crate::mm::{Config, FileKind, SwapConfig, System, Thp, Variants};
use crate::ops::mmap::MapFlags;
use crate::program::build::{MADVISE, MLOCK, MMAP, MREMAP, Rec, packed};
use crate::program::op::GIVEN;
use crate::program::{
    FileSpec, Handler, Options, Program, ProgramSpec, RunResult, Start, TaskSpec, Watch, native,
};

/// A run with more is not tried: it would take its time, and do the same again and again.
const MOST_OPERATIONS: u64 = 3000;
/// Pages of zeroes take no memory: nor is one tried that brings in more of them.
const MOST_POPULATED: u64 = 1 << 28;
const BASE: u64 = 0x1000_0000_0000;

/// A program that nobody has looked at, and the machine it is for.
#[derive(Clone, Debug)]
struct Raw {
    tasks: Vec<(Start, Vec<Rec>)>,
    files: Vec<FileSpec>,
    arch: Arch,
    system: System,
    handler: Handler,
    seed: u64,
}

fn start() -> impl Strategy<Value = Start> {
    select(vec![Start::First, Start::Fork, Start::Fork, Start::Vfork, Start::Clone])
}

/// Bytes: few pages, parts of one, huge pages, and what wraps.
fn bytes(page: u64, huge: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..24u64).prop_map(move |pages| pages * page),
        2 => (0..4u64).prop_map(move |pages| pages * huge),
        1 => select(vec![1, page - 1, page + 1, huge - page, 1 << 40, 1 << 47, u64::MAX - page + 1,
            u64::MAX]),
        1 => any::<u64>(),
    ]
}

/// An offset from an id, or an address.
fn address(page: u64, huge: u64) -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => (0..16u64).prop_map(move |pages| (pages * page) as i64),
        4 => (0..16u64).prop_map(move |pages| (BASE + pages * page) as i64),
        2 => (0..3u64).prop_map(move |pages| (BASE + pages * huge) as i64),
        1 => select(vec![-(page as i64), page as i64 / 2, 1 << 16, (1 << 47) - page as i64, 1 << 47,
            1 << 52, i64::MAX, i64::MIN, -1]),
        1 => any::<i64>(),
    ]
}

fn record(page: u64, huge: u64, nr_tasks: u32) -> impl Strategy<Value = Rec> {
    let op = prop_oneof![
        6 => Just(1u16),
        6 => 17..21u16,
        12 => 1..42u16,
        1 => any::<u16>(),
    ];
    let flags = prop_oneof![
        4 => select(vec![0, 1, 5, 13, 9, 11, 6]),
        4 => (0..12u32, 0..12u32).prop_map(|(one, other)| 5 | 1 << one | 1 << other | GIVEN),
        4 => select(vec![5 | GIVEN, 13 | GIVEN, 9 | GIVEN, 3 | GIVEN]),
        1 => any::<u32>(),
    ];
    let small = |most: u8| prop_oneof![12 => 0..most, 1 => any::<u8>()];
    let id = || prop_oneof![4 => Just(-1), 6 => 0..2i32, 1 => any::<i32>()];
    let number = prop_oneof![6 => 0..4u64, 2 => bytes(page, huge), 1 => any::<u64>()];
    let aux = prop_oneof![8 => 0..nr_tasks.max(3), 1 => any::<u32>()];
    let numbers = (op, flags, small(8), small(3), small(2), small(20));
    let ranges = (id(), address(page, huge), bytes(page, huge), id(), address(page, huge));
    (numbers, ranges, bytes(page, huge), number, aux).prop_map(
        |((op, flags, prot, access, mode, advice), range, length2, value, aux)| {
            let (base, addr, length, base2, addr2) = range;
            Rec {
                op,
                flags,
                prot,
                access,
                mode,
                advice,
                base,
                addr,
                length,
                base2,
                addr2,
                length2,
                value,
                aux,
            }
        },
    )
}

fn system(page: u64) -> impl Strategy<Value = System> {
    let memory = prop_oneof![
        2 => Just(1u64 << 30),
        3 => (12..80u64).prop_map(move |pages| pages * page),
    ];
    let swap = prop_oneof![
        Just(None),
        (0..20u64, any::<bool>()).prop_map(move |(pages, synchronous)| Some(SwapConfig {
            size: pages * page,
            synchronous,
            readahead: 1 << (pages % 4),
            vma_ra_enabled: pages % 2 == 0,
        })),
    ];
    let thp = select(vec![Thp::Madvise, Thp::Never, Thp::Always]);
    let counts = (1..5u32, prop_oneof![Just(65530u64), 0..12u64], prop_oneof![Just(1i64), 0..2i64]);
    let hugetlb_pages = prop_oneof![Just(None), (0..3u64).prop_map(Some)];
    let memcg =
        prop_oneof![3 => Just(None), 1 => (0..12u64).prop_map(move |pages| Some(pages * page))];
    let numbers = (hugetlb_pages, memcg, any::<bool>());
    (memory, swap, thp, counts, numbers).prop_map(
        |(memory, swap, thp, (nodes, max_map_count, on), (hugetlb_pages, memcg, numa))| System {
            memory,
            swap,
            thp,
            nodes,
            max_map_count,
            speculative_page_fault: on,
            hugetlb_pages,
            memcg,
            numa,
            ..System::default()
        },
    )
}

fn raw() -> impl Strategy<Value = Raw> {
    let fixed = (
        select(Arch::builtin()),
        1..4usize,
        select(vec![Handler::Spf, Handler::SpfRwlock, Handler::Classic]),
    );
    (fixed, any::<u64>()).prop_flat_map(|((arch, nr_tasks, handler), seed)| {
        let page = 1 << arch.page_shift;
        let huge = 1 << arch.levels[arch.levels.len() - 2].shift;
        let records = prop::collection::vec(record(page, huge, nr_tasks as u32), 0..14);
        let tasks = prop::collection::vec((start(), records), nr_tasks);
        let kinds = vec![FileKind::Regular, FileKind::Shmem, FileKind::DevZero, FileKind::Hugetlb];
        let file = (select(kinds), 0..20 * page, any::<bool>())
            .prop_map(|(kind, length, cached)| FileSpec { length, kind, cached });
        let files = prop::collection::vec(file, 0..3);
        (tasks, files, system(page)).prop_map(move |(mut tasks, files, system)| {
            tasks[0].0 = Start::First;
            Raw { tasks, files, arch: arch.clone(), system, handler, seed }
        })
    })
}

fn try_load(raw: &Raw) -> Result<Program, String> {
    let packed: Vec<_> = raw.tasks.iter().map(|(start, ops)| (*start, packed(ops))).collect();
    let texts = ["vm.speculative_page_fault", "vm.max_map_count", "a note"].map(str::to_owned);
    let loaded = Program::new(&ProgramSpec {
        tasks: packed.iter().map(|(start, records)| TaskSpec { start: *start, records }).collect(),
        nr_ids: 2,
        nr_names: 2,
        texts: &texts,
        files: raw.files.clone(),
        note_maps: vec![],
    });
    loaded.map_err(|wrong| wrong.0)
}

/// Whether one record may bring in very many pages: populating, locking, and growing what is locked.
fn populates_much(record: &Rec) -> bool {
    let length = match record.op {
        MMAP if record.flags & (MapFlags::POPULATE.0 | MapFlags::LOCKED.0) != 0 => record.length,
        MADVISE | MLOCK => record.length,
        MREMAP => record.length2,
        _ => 0,
    };
    (MOST_POPULATED..1 << 56).contains(&length)
}

/// The program without the records that are refused, unless it is too long. Each refusal says
/// which record is meant: task and number.
fn loaded(mut raw: Raw) -> Option<Arc<Program>> {
    for (_, records) in &mut raw.tasks {
        records.retain(|record| !populates_much(record));
    }
    loop {
        let wrong = match try_load(&raw) {
            Ok(program) => {
                let length = program.nr_operations(1 << raw.arch.page_shift);
                let fits = length.is_some_and(|length| length <= MOST_OPERATIONS);
                return fits.then(|| Arc::new(program));
            }
            Err(wrong) => wrong,
        };
        let mut numbers = wrong.split(|letter: char| !letter.is_ascii_digit());
        let mut number = || numbers.find(|text| !text.is_empty()).map(|text| text.parse::<usize>());
        let (Some(Ok(task)), Some(Ok(record))) = (number(), number()) else {
            panic!("no place: {wrong}");
        };
        assert!(wrong.starts_with(&format!("tasks[{task}]: record {record}: ")), "{wrong}");
        raw.tasks[task].1.remove(record);
    }
}

fn check(result: &RunResult) -> Result<(), TestCaseError> {
    prop_assert_eq!(&result.finding, &None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_refused_or_run_and_leave_nothing_behind(raw in raw()) {
        let Some(program) = loaded(raw.clone()) else { return Ok(()) };
        let config = Config {
            arch: raw.arch.clone(),
            system: raw.system.clone(),
            variants: Variants::outside_explore(),
            nr_cpus: 1,
            nr_tasks: 1,
        };
        let (options, watch) = (Options::default(), Arc::<Watch>::default());
        // Without memory for an empty address space there is no run.
        if let Ok(result) = run_once(&program, raw.handler, &config, raw.seed, &options, &watch) {
            check(&result)?;
        }
        if let Ok(result) = native::run(&program, raw.handler, config, &options, &watch) {
            check(&result)?;
        }
    }
}
