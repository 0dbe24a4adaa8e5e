//! x86-64. Source: `arch/x86/include/asm/pgtable_64_types.h`, `processor.h`, `mm/mmap.c`, v5.1.

use super::{Arch, Family, levels};

/// 128 MiB below `TASK_SIZE`: `MIN_GAP` of `mmap_base()`, which an 8 MiB stack limit plus the
/// stack guard gap does not reach.
const MIN_GAP: u64 = 128 << 20;

pub fn four_level() -> Arch {
    let task_size = (1 << 47) - 4096; // TASK_SIZE_MAX: a guard page below the canonical edge
    Arch {
        name: "x86".into(),
        family: Family::X86,
        page_shift: 12,
        levels: levels(12, &[("pgd", 9), ("pud", 9), ("pmd", 9), ("pte", 9)]),
        task_size,
        mmap_base: task_size - MIN_GAP,
        exec_only: false, // CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS needs a CPU that has keys
        source: "Linux 5.1: asm/pgtable_64_types.h, asm/processor.h, mm/mmap.c of x86".into(),
    }
}

/// `CONFIG_X86_5LEVEL`; mmap stays below 47 bits unless a hint asks for more
/// (`DEFAULT_MAP_WINDOW`), so user space is the same here.
pub fn five_level() -> Arch {
    Arch {
        name: "x86-5level".into(),
        levels: levels(12, &[("pgd", 9), ("p4d", 9), ("pud", 9), ("pmd", 9), ("pte", 9)]),
        source: "Linux 5.1: asm/pgtable_64_types.h, Documentation/x86/x86_64/5level-paging.txt"
            .into(),
        ..four_level()
    }
}
