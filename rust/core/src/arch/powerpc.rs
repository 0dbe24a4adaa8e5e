//! powerpc Book3S-64, hash MMU page-table geometry. Source:
//! `arch/powerpc/include/asm/book3s/64/hash-64k.h`, `hash-4k.h`, `asm/task_size_64.h`,
//! `arch/powerpc/mm/mmap.c`, v5.1.

use super::{Arch, Family, levels};

const MIN_GAP: u64 = 128 << 20;

pub fn pages_64k() -> Arch {
    let task_size = 1 << 47; // DEFAULT_MAP_WINDOW_USER64 with 64 KiB pages: 128 TiB
    Arch {
        name: "powerpc".into(),
        family: Family::Powerpc,
        page_shift: 16,
        // H_PTE_INDEX_SIZE 8, H_PMD 10, H_PUD 10, H_PGD 8.
        levels: levels(16, &[("pgd", 8), ("pud", 10), ("pmd", 10), ("pte", 8)]),
        task_size,
        mmap_base: task_size - MIN_GAP,
        exec_only: false, // keys are there only where the device tree names them
        source: "Linux 5.1: asm/book3s/64/hash-64k.h, asm/task_size_64.h".into(),
    }
}

pub fn pages_4k() -> Arch {
    let task_size = 1 << 46; // TASK_SIZE_64TB with 4 KiB pages
    Arch {
        name: "powerpc-4k".into(),
        page_shift: 12,
        // H_PTE_INDEX_SIZE 9, H_PMD 7, H_PUD 9, H_PGD 9.
        levels: levels(12, &[("pgd", 9), ("pud", 9), ("pmd", 7), ("pte", 9)]),
        task_size,
        mmap_base: task_size - MIN_GAP,
        source: "Linux 5.1: asm/book3s/64/hash-4k.h, asm/task_size_64.h".into(),
        ..pages_64k()
    }
}
