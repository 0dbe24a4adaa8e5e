//! Architecture profiles: data with sources. One struct, filled once for each profile; the
//! protocol reads it and never branches on an architecture except through [`Family`].

mod arm64;
mod powerpc;
mod x86;

/// The most page-table levels any profile has (x86 with `CONFIG_X86_5LEVEL`).
pub const MAX_LEVELS: usize = 5;

/// What a level may be called, top down.
pub const LEVEL_NAMES: [&str; MAX_LEVELS] = ["pgd", "p4d", "pud", "pmd", "pte"];

/// Whose fault entry and permission rules apply. Source: SPF_V12 section 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    X86,
    Powerpc,
    Arm64,
}

/// One level of the page table. The last level is the PTE table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The kernel's name: pgd, p4d, pud, pmd or pte.
    pub name: &'static str,
    /// log2 of the bytes that one entry maps.
    pub shift: u32,
    /// Entries in one table.
    pub entries: u32,
}

/// What the protocol needs to know of an architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arch {
    /// The profile's name, as given to `--arch`.
    pub name: String,
    pub family: Family,
    /// log2 of the page size in bytes.
    pub page_shift: u32,
    /// Levels, top down; folded ones are left out.
    pub levels: Vec<Level>,
    /// The first address beyond user space.
    pub task_size: u64,
    /// Where top-down mmap begins (an address that the first mapping ends at), with address
    /// randomisation off and an 8 MiB stack limit.
    pub mmap_base: u64,
    /// Execute-only mappings cannot be read: arm64's PTEs say so, a protection key elsewhere.
    pub exec_only: bool,
    /// Where every number comes from.
    pub source: String,
}

impl Arch {
    /// Bytes in a page.
    #[inline(always)]
    pub fn page_size(&self) -> u64 {
        1 << self.page_shift
    }

    /// `HPAGE_PMD_ORDER`: log2 of the pages that an entry above the PTE table maps.
    pub fn hpage_pmd_order(&self) -> u32 {
        self.levels[self.levels.len() - 2].shift - self.page_shift
    }

    /// Bytes that the page table covers.
    pub fn covered(&self) -> u64 {
        let top = &self.levels[0];
        u64::from(top.entries) << top.shift
    }

    /// Whether the hardware and 5.1's code for it have transparent huge pages, of the size that
    /// an entry above the PTE table maps. Source: `has_transparent_hugepage()` of each arch, v5.1:
    /// powerpc's hash MMU wants 16 MiB, which it has with 64 KiB pages only.
    pub fn has_transparent_hugepage(&self) -> bool {
        let pmd_shift = self.levels[self.levels.len() - 2].shift;
        match self.family {
            Family::X86 | Family::Arm64 => true,
            Family::Powerpc => pmd_shift == 24,
        }
    }

    /// Whether execute-only memory has a protection key that forbids data accesses
    /// (`execute_only_pkey()`, v5.1). Nothing else has one: no operation gives it any, so it is
    /// where a VMA may be executed, and neither read nor written.
    pub fn has_execute_only_pkey(&self) -> bool {
        self.exec_only && self.family != Family::Arm64
    }

    /// The machine with a kernel that is configured so: whether protection keys are used.
    pub(crate) fn with_keys(self, x86: Option<bool>, powerpc: bool) -> Self {
        let exec_only = match self.family {
            Family::X86 => x86.unwrap_or(self.exec_only),
            Family::Powerpc => self.exec_only && powerpc,
            Family::Arm64 => self.exec_only,
        };
        Self { exec_only, ..self }
    }

    /// Whether writes to pages are tracked (`CONFIG_MEM_SOFT_DIRTY`, v5.1).
    pub fn has_soft_dirty(&self) -> bool {
        self.family != Family::Arm64
    }

    /// The profiles that come with the package.
    pub fn builtin() -> Vec<Arch> {
        vec![
            x86::four_level(),
            x86::five_level(),
            powerpc::pages_64k(),
            powerpc::pages_4k(),
            arm64::pages_4k(),
            arm64::pages_64k(),
        ]
    }

    /// What is wrong with a profile: field, value, what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        if !(12..=16).contains(&self.page_shift) {
            return Err(format!("page_shift: {} (allowed: 12 to 16)", self.page_shift));
        }
        if !(2..=MAX_LEVELS).contains(&self.levels.len()) {
            return Err(format!(
                "levels: {} of them (allowed: 2 to {MAX_LEVELS})",
                self.levels.len()
            ));
        }
        let mut below = self.page_shift;
        for level in self.levels.iter().rev() {
            if level.shift != below {
                return Err(format!(
                    "levels: {} has shift {} (allowed: {below}, what the level below covers)",
                    level.name, level.shift
                ));
            }
            if !level.entries.is_power_of_two() || !(2..=65536).contains(&level.entries) {
                return Err(format!(
                    "levels: {} has {} entries (allowed: a power of two, 2 to 65536)",
                    level.name, level.entries
                ));
            }
            below = level.shift + level.entries.trailing_zeros();
        }
        if below > 62 {
            return Err(format!("levels: they cover 2^{below} bytes (allowed: at most 2^62)"));
        }
        let covered = 1u64 << below;
        if self.task_size == 0 || self.task_size > covered || !self.aligned(self.task_size) {
            return Err(format!(
                "task_size: {:#x} (allowed: a multiple of the page size, at most {covered:#x})",
                self.task_size
            ));
        }
        if self.mmap_base == 0 || self.mmap_base > self.task_size || !self.aligned(self.mmap_base) {
            return Err(format!(
                "mmap_base: {:#x} (allowed: a multiple of the page size, at most task_size)",
                self.mmap_base
            ));
        }
        Ok(())
    }

    fn aligned(&self, address: u64) -> bool {
        address.is_multiple_of(self.page_size())
    }
}

/// Levels from `(name, bits)` top down, ending at `page_shift`.
fn levels(page_shift: u32, bits: &[(&'static str, u32)]) -> Vec<Level> {
    let mut shift = page_shift + bits.iter().map(|(_, bits)| bits).sum::<u32>();
    bits.iter()
        .map(|&(name, bits)| {
            shift -= bits;
            Level { name, shift, entries: 1 << bits }
        })
        .collect()
}

#[cfg(test)]
#[path = "../../tests/unit/arch.rs"]
mod tests;
