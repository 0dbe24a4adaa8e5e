//! arm64 with 48-bit user addresses. Source: `arch/arm64/include/asm/pgtable-hwdef.h`,
//! `asm/processor.h`, `arch/arm64/mm/mmap.c`, v5.1.

use super::{Arch, Family, levels};

const TASK_SIZE: u64 = 1 << 48;
const STACK_LIMIT: u64 = 8 << 20;

/// arm64 pads the gap for the stack's random offset even when nothing is randomised:
/// `STACK_RND_MASK` pages of 4 KiB, and `stack_guard_gap` of 256 pages.
fn mmap_base(page_shift: u32) -> u64 {
    let page = 1u64 << page_shift;
    let stack_rnd_mask = 0x3ffffu64 >> (page_shift - 12);
    let gap = STACK_LIMIT + (stack_rnd_mask << page_shift) + 256 * page;
    (TASK_SIZE - gap).next_multiple_of(page)
}

pub fn pages_4k() -> Arch {
    Arch {
        name: "arm64".into(),
        family: Family::Arm64,
        page_shift: 12,
        levels: levels(12, &[("pgd", 9), ("pud", 9), ("pmd", 9), ("pte", 9)]),
        task_size: TASK_SIZE,
        mmap_base: mmap_base(12),
        exec_only: true, // PAGE_EXECONLY
        source: "Linux 5.1: asm/pgtable-hwdef.h, asm/processor.h, mm/mmap.c of arm64".into(),
    }
}

pub fn pages_64k() -> Arch {
    Arch {
        name: "arm64-64k".into(),
        page_shift: 16,
        levels: levels(16, &[("pgd", 6), ("pmd", 13), ("pte", 13)]),
        mmap_base: mmap_base(16),
        ..pages_4k()
    }
}
