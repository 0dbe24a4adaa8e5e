//! From the JSON texts and arrays of Python to the types of the core.

use std::collections::BTreeMap;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use serde::Deserialize;
use spfemu_core::arch::{Arch, Family, LEVEL_NAMES, Level};
use spfemu_core::mm::variants::VARIANTS;
use spfemu_core::mm::{Choice, Config, FileKind, SwapConfig, System, Thp, Variants};
use spfemu_core::program::{FileSpec, Program, ProgramSpec, Start, TaskSpec};
use spfemu_core::vtime::{Machine, Profile, Table};

use crate::error::Error;

#[derive(Deserialize)]
struct ArchText {
    name: String,
    family: String,
    page_shift: u32,
    levels: Vec<LevelText>,
    task_size: u64,
    mmap_base: u64,
    exec_only: bool,
    source: String,
}

#[derive(Deserialize)]
struct LevelText {
    name: String,
    shift: u32,
    entries: u32,
}

/// An arch profile from its JSON text.
pub fn arch(text: &str) -> Result<Arch, Error> {
    let given: ArchText =
        serde_json::from_str(text).map_err(|wrong| Error::Profile(format!("arch: {wrong}")))?;
    let family = match given.family.as_str() {
        "x86" => Family::X86,
        "powerpc" => Family::Powerpc,
        "arm64" => Family::Arm64,
        other => {
            let what = format!("arch: family: '{other}' (allowed: x86, powerpc, arm64)");
            return Err(Error::Profile(what));
        }
    };
    let levels = given.levels.into_iter().map(level).collect::<Result<_, _>>()?;
    let arch = Arch {
        name: given.name,
        family,
        page_shift: given.page_shift,
        levels,
        task_size: given.task_size,
        mmap_base: given.mmap_base,
        exec_only: given.exec_only,
        source: given.source,
    };
    arch.validate().map_err(|what| Error::Profile(format!("arch {}: {what}", arch.name)))?;
    Ok(arch)
}

fn level(given: LevelText) -> Result<Level, Error> {
    let name = LEVEL_NAMES.into_iter().find(|name| *name == given.name).ok_or_else(|| {
        let allowed = LEVEL_NAMES.join(", ");
        Error::Profile(format!("arch: levels: name '{}' (allowed: {allowed})", given.name))
    })?;
    Ok(Level { name, shift: given.shift, entries: given.entries })
}

/// Everything in a program but its arrays.
#[derive(Deserialize)]
pub struct Meta {
    ids: Vec<String>,
    names: Vec<String>,
    texts: Vec<String>,
    files: Vec<FileText>,
    system: SystemText,
    tasks: Vec<TaskText>,
}

#[derive(Deserialize)]
struct FileText {
    length: u64,
    kind: String,
    cached: bool,
}

#[derive(Deserialize)]
struct SystemText {
    memory: u64,
    thp: String,
    swap: SwapText,
    stack_limit: u64,
    mmap_min_addr: u64,
    nodes: u32,
    sysctl: BTreeMap<String, i64>,
    config: BTreeMap<String, bool>,
    hugetlb_pages: Option<u64>,
    memcg: Option<u64>,
}

#[derive(Deserialize)]
struct SwapText {
    size: u64,
    kind: String,
    readahead: Option<u64>,
    vma_ra_enabled: bool,
}

#[derive(Deserialize)]
struct TaskText {
    name: String,
    start: Option<String>,
}

/// A program as the core runs it, and what it says about the system.
pub struct Given {
    pub program: Arc<Program>,
    pub task_names: Vec<String>,
    pub system: System,
}

/// A program from its arrays (bytes of records) and its `meta`.
pub fn program(
    py: Python<'_>,
    tasks: &[PyBuffer<u8>],
    meta: &str,
    note_maps: Vec<(u32, u32)>,
) -> PyResult<Given> {
    let records = records(py, tasks)?;
    let given = Meta::read(meta).and_then(|meta| {
        let mut system = system(&meta.system)?;
        let program = meta.with_spec(&records, note_maps, |spec| {
            Program::new(spec).map_err(|wrong| Error::Program(wrong.0))
        })?;
        if program.swaps_out() && meta.system.swap.size > 0 {
            // Else nobody can tell, and no page need be asked whether it is in the swap cache.
            system.swap = Some(swap(&meta.system.swap)?);
        }
        Ok(Given { program: Arc::new(program), task_names: meta.task_names(), system })
    });
    given.map_err(|error| error.into_py(py))
}

/// The arrays of the tasks, as bytes.
pub fn records(py: Python<'_>, tasks: &[PyBuffer<u8>]) -> PyResult<Vec<Vec<u8>>> {
    tasks.iter().map(|task| task.to_vec(py)).collect()
}

impl Meta {
    pub fn read(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|wrong| Error::Program(format!("meta: {wrong}")))
    }

    pub fn task_names(&self) -> Vec<String> {
        self.tasks.iter().map(|task| task.name.clone()).collect()
    }

    /// Hands the program to `use_it`, as the core takes it.
    pub fn with_spec<T>(
        &self,
        records: &[Vec<u8>],
        note_maps: Vec<(u32, u32)>,
        use_it: impl FnOnce(&ProgramSpec<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.tasks.len() != records.len() {
            let (said, given) = (self.tasks.len(), records.len());
            return Err(Error::Program(format!("meta: {said} tasks, but {given} arrays")));
        }
        let starts = self.tasks.iter().map(|task| start(task.start.as_deref()));
        let starts: Vec<Start> = starts.collect::<Result<_, _>>()?;
        use_it(&ProgramSpec {
            tasks: starts
                .into_iter()
                .zip(records)
                .map(|(start, records)| TaskSpec { start, records })
                .collect(),
            nr_ids: self.ids.len() as u32,
            nr_names: self.names.len() as u32,
            texts: &self.texts,
            files: self.files.iter().map(file).collect::<Result<_, _>>()?,
            note_maps,
        })
    }
}

fn swap(given: &SwapText) -> Result<SwapConfig, Error> {
    let synchronous = match given.kind.as_str() {
        "normal" => false,
        "synchronous" => true,
        other => {
            let what = format!("swap: kind '{other}' (allowed: normal, synchronous)");
            return Err(Error::Program(what));
        }
    };
    let readahead = given.readahead.unwrap_or(u64::MAX);
    let SwapText { size, vma_ra_enabled, .. } = *given;
    Ok(SwapConfig { size, synchronous, readahead, vma_ra_enabled })
}

fn start(text: Option<&str>) -> Result<Start, Error> {
    match text {
        None => Ok(Start::First),
        Some("fork") => Ok(Start::Fork),
        Some("vfork") => Ok(Start::Vfork),
        Some("clone") => Ok(Start::Clone),
        Some(other) => {
            Err(Error::Program(format!("start: '{other}' (allowed: null, fork, vfork, clone)")))
        }
    }
}

fn file(given: &FileText) -> Result<FileSpec, Error> {
    let kind = match given.kind.as_str() {
        "regular" => FileKind::Regular,
        "shmem" => FileKind::Shmem,
        "devzero" => FileKind::DevZero,
        "hugetlb" => FileKind::Hugetlb,
        other => {
            let what = format!("file: kind '{other}' (allowed: regular, shmem, devzero, hugetlb)");
            return Err(Error::Program(what));
        }
    };
    Ok(FileSpec { length: given.length, kind, cached: given.cached })
}

fn system(given: &SystemText) -> Result<System, Error> {
    let mut system = System {
        memory: given.memory,
        stack_limit: given.stack_limit,
        mmap_min_addr: given.mmap_min_addr,
        nodes: given.nodes,
        hugetlb_pages: given.hugetlb_pages,
        memcg: given.memcg,
        ..System::default()
    };
    for (name, &value) in &given.sysctl {
        match name.as_str() {
            "vm.speculative_page_fault" => system.speculative_page_fault = value,
            "vm.page-cluster" => system.page_cluster = value,
            "vm.max_map_count" => {
                system.max_map_count = u64::try_from(value).map_err(|_| {
                    Error::Program(format!(
                        "sysctl vm.max_map_count: {value} (allowed: 0 and more)"
                    ))
                })?;
            }
            other => return Err(Error::Program(format!("sysctl '{other}' is unknown"))),
        }
    }
    system.thp = match given.thp.as_str() {
        "never" => Thp::Never,
        "madvise" => Thp::Madvise,
        "always" => Thp::Always,
        other => {
            let what = format!("system: thp '{other}' (allowed: never, madvise, always)");
            return Err(Error::Program(what));
        }
    };
    for (name, &set) in &given.config {
        match name.as_str() {
            "THP" => system.transparent_hugepage = set,
            "NUMA" => system.numa = set,
            "PPC_MEM_KEYS" => system.ppc_mem_keys = set,
            "X86_INTEL_MEMORY_PROTECTION_KEYS" => {
                system.x86_memory_protection_keys = Some(set);
            }
            "HAVE_MOVE_PMD" => system.have_move_pmd = Some(set),
            other => return Err(Error::Program(format!("config '{other}' is unknown"))),
        }
    }
    Ok(system)
}

/// The variants of a run: `base`, and then single ones by name.
pub fn variants(mut base: Variants, chosen: &BTreeMap<String, String>) -> Result<Variants, Error> {
    for (name, value) in chosen {
        let info = VARIANTS.iter().find(|info| info.name == name || info.entry == name);
        let info = info.ok_or_else(|| Error::Engine(format!("variant '{name}' is unknown")))?;
        base.set(info.which, choice(value)?);
    }
    Ok(base)
}

/// "v12" or "fixed".
pub fn choice(text: &str) -> Result<Choice, Error> {
    match text {
        "v12" => Ok(Choice::V12),
        "fixed" => Ok(Choice::Fixed),
        other => Err(Error::Engine(format!("variant value '{other}' (allowed: v12, fixed)"))),
    }
}

/// What the JSON text of a machine says.
pub fn table(text: &str) -> Result<Table, Error> {
    serde_json::from_str(text).map_err(|wrong| Error::Profile(format!("machine: {wrong}")))
}

/// A machine from its JSON text.
pub fn profile(text: &str) -> Result<Profile, Error> {
    Profile::from_table(&table(text)?).map_err(Error::Profile)
}

/// The machine of this JSON text, or else the first of the arch that has `cpus` CPUs.
pub fn machine(text: Option<&str>, arch: &Arch, cpus: Option<u32>) -> Result<Machine, Error> {
    if let Some(text) = text {
        return checked(&profile(text)?, arch, cpus);
    }
    let of_arch = |profile: &&Profile| family_of(&profile.arch) == arch.family;
    let suited: Vec<&Profile> = Profile::builtin().iter().filter(of_arch).collect();
    let wanted = cpus.unwrap_or(1);
    let first = suited.iter().find(|profile| profile.nr_cpus() >= wanted);
    let largest = suited.iter().max_by_key(|profile| profile.nr_cpus());
    checked(first.or(largest).expect("a machine of each family"), arch, cpus)
}

/// The machine, if it has so many CPUs and is of the arch.
fn checked(profile: &Profile, arch: &Arch, cpus: Option<u32>) -> Result<Machine, Error> {
    let (name, nr_cpus) = (&profile.name, profile.nr_cpus());
    if cpus == Some(0) {
        return Err(Error::Profile("cpus: value 0 (allowed: 1 and more)".to_owned()));
    }
    if let Some(wanted) = cpus.filter(|&wanted| wanted > nr_cpus) {
        let more = larger(wanted, profile, arch);
        let what = format!("cpus: value {wanted} (allowed: 1 to {nr_cpus}, what {name} has{more})");
        return Err(Error::Profile(what));
    }
    if family_of(&profile.arch) != arch.family {
        let what = format!("machine {name}: its arch is {} (asked: {})", profile.arch, arch.name);
        return Err(Error::Profile(what));
    }
    Ok(profile.machine())
}

/// Which machine has so many CPUs, or the most: one of the arch, or else of another.
fn larger(wanted: u32, than: &Profile, arch: &Arch) -> String {
    let enough = Profile::builtin().iter().filter(|profile| profile.nr_cpus() >= wanted);
    let other = |profile: &&Profile| (family_of(&profile.arch) != arch.family, profile.nr_cpus());
    let most = || Profile::builtin().iter().max_by_key(|profile| profile.nr_cpus());
    match enough.min_by_key(other).or_else(most) {
        Some(profile) if profile.nr_cpus() > than.nr_cpus() => {
            format!("; {} has {}", profile.name, profile.nr_cpus())
        }
        _ => String::new(),
    }
}

fn family_of(arch: &str) -> Family {
    let mut profiles = Arch::builtin().into_iter();
    profiles.find(|profile| profile.name == arch).expect("a machine's arch is built in").family
}

/// What a kernel is made from. The engine decides how many CPUs it has.
pub fn config(arch: Arch, system: System, variants: Variants) -> Config {
    Config { arch, system, variants, nr_cpus: 1, nr_tasks: 1 }
}
