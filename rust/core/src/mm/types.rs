//! The small types of memory management: addresses, flags, PTEs, results.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use crate::platform::Value;

/// A user virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vaddr(pub u64);

impl Vaddr {
    #[inline(always)]
    pub fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
    /// Bytes from `start` to here.
    #[inline(always)]
    pub fn since(self, start: Vaddr) -> u64 {
        self.0.wrapping_sub(start.0)
    }
}

impl fmt::LowerHex for Vaddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl Value for Vaddr {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self.0
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        Self(word)
    }
}

macro_rules! flag_word {
    ($(#[$meta:meta])* $name:ident { $( $(#[$fmeta:meta])* $flag:ident = $bits:expr ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub struct $name(pub u64);
        impl $name {
            pub const NONE: Self = Self(0);
            $( $(#[$fmeta])* pub const $flag: Self = Self($bits); )*
            /// Any of `flags` set.
            #[inline(always)]
            pub fn has(self, flags: Self) -> bool {
                self.0 & flags.0 != 0
            }
        }
        impl BitOr for $name {
            type Output = Self;
            #[inline(always)]
            fn bitor(self, other: Self) -> Self { Self(self.0 | other.0) }
        }
        impl BitOrAssign for $name {
            #[inline(always)]
            fn bitor_assign(&mut self, other: Self) { self.0 |= other.0; }
        }
        impl BitAnd for $name {
            type Output = Self;
            #[inline(always)]
            fn bitand(self, other: Self) -> Self { Self(self.0 & other.0) }
        }
        impl Not for $name {
            type Output = Self;
            #[inline(always)]
            fn not(self) -> Self { Self(!self.0) }
        }
        impl Value for $name {
            #[inline(always)]
            fn to_word(self) -> u64 { self.0 }
            #[inline(always)]
            fn from_word(word: u64) -> Self { Self(word) }
            fn text(word: u64) -> String { Self(word).names() }
        }
        impl $name {
            /// The names of the single flags that are set; other bits are a number.
            pub fn names(self) -> String {
                let mut rest = self.0;
                let mut names = Vec::new();
                $(
                    let bits: u64 = $bits;
                    if bits.is_power_of_two() && rest & bits != 0 {
                        rest &= !bits;
                        names.push(stringify!($flag).to_lowercase());
                    }
                )*
                if rest != 0 || names.is_empty() {
                    names.push(format!("{rest:#x}"));
                }
                names.join(" ")
            }
        }
    };
}

flag_word! {
    /// `vm_flags`, with the kernel's values. Source: `include/linux/mm.h`, v5.1.
    VmFlags {
        READ = 0x1,
        WRITE = 0x2,
        EXEC = 0x4,
        SHARED = 0x8,
        MAYREAD = 0x10,
        MAYWRITE = 0x20,
        MAYEXEC = 0x40,
        MAYSHARE = 0x80,
        GROWSDOWN = 0x100,
        UFFD_MISSING = 0x200,
        PFNMAP = 0x400,
        LOCKED = 0x2000,
        SEQ_READ = 0x8000,
        RAND_READ = 0x10000,
        DONTCOPY = 0x20000,
        DONTEXPAND = 0x40000,
        LOCKONFAULT = 0x80000,
        ACCOUNT = 0x100000,
        NORESERVE = 0x200000,
        HUGETLB = 0x400000,
        WIPEONFORK = 0x2000000,
        DONTDUMP = 0x4000000,
        SOFTDIRTY = 0x8000000,
        HUGEPAGE = 0x20000000,
        NOHUGEPAGE = 0x40000000,
        MERGEABLE = 0x80000000,
    }
}

flag_word! {
    /// A PTE: one layout for all arches (`docs/fidelity.md`). Present entries carry a frame
    /// number from bit 12 on.
    Pte {
        PRESENT = 0x1,
        WRITE = 0x2,
        /// Readable by the user; clear only for execute-only pages, where they are (on x86 and
        /// powerpc it stands for the protection key).
        READ = 0x4,
        EXEC = 0x8,
        /// Made dirty by the kernel since `clear_refs`; what the hardware writes does not set it.
        SOFT_DIRTY = 0x10,
        YOUNG = 0x20,
        DIRTY = 0x40,
        /// A leaf above the PTE table. Never in a PTE itself.
        HUGE = 0x80,
        /// Present for the kernel, not for the hardware: PROT_NONE or a NUMA hint.
        PROTNONE = 0x100,
        /// No struct page behind it: the zero page.
        SPECIAL = 0x200,
        /// Not present: the page is in the swap slot whose number begins at bit 12.
        SWAP = 0x400,
        /// Not present: the page whose frame number begins at bit 12 is being moved; `WRITE` says
        /// whether it was writable.
        MIGRATION = 0x800,
        /// What `pte_mkdirty()` sets.
        MKDIRTY = 0x50,
        /// The bits that `vm_page_prot` holds.
        PROT = 0x10f,
    }
}

impl Pte {
    /// The empty entry.
    pub const EMPTY: Self = Self(0);
    const PFN_SHIFT: u32 = 12;

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
    /// `pte_present()`: also true for PROT_NONE entries.
    #[inline(always)]
    pub fn is_present(self) -> bool {
        self.has(Self::PRESENT | Self::PROTNONE)
    }
    #[inline(always)]
    pub fn pfn(self) -> u32 {
        (self.0 >> Self::PFN_SHIFT) as u32
    }
    /// What a timeline says of an entry.
    pub fn entry_text(self) -> String {
        if self.is_none() {
            return "none".to_owned();
        }
        if let Some(slot) = self.swap_slot() {
            return format!("swap slot {slot}");
        }
        if let Some(pfn) = self.migration_pfn() {
            return format!("page {pfn} on its way");
        }
        let flags = Self(self.0 & ((1 << Self::PFN_SHIFT) - 1));
        format!("page {} {}", self.pfn(), flags.names())
    }
    /// `swp_entry_to_pte()`: not present, its page is in `slot` of the swap device.
    #[inline(always)]
    pub fn swap(slot: u32) -> Self {
        Self((u64::from(slot) << Self::PFN_SHIFT) | Self::SWAP.0)
    }
    /// The slot of a swap entry, `None` for anything else.
    #[inline(always)]
    pub fn swap_slot(self) -> Option<u32> {
        self.has(Self::SWAP).then(|| self.pfn())
    }
    /// `make_migration_entry()`
    #[inline(always)]
    pub fn migration(pfn: u32, write: bool) -> Self {
        Self::new(pfn, if write { Self::MIGRATION | Self::WRITE } else { Self::MIGRATION })
    }
    /// `migration_entry_to_page()`: the frame that is left, `None` for anything but a migration
    /// entry.
    #[inline(always)]
    pub fn migration_pfn(self) -> Option<u32> {
        self.has(Self::MIGRATION).then(|| self.pfn())
    }
    /// `mk_pte()`: the frame with the protection bits.
    #[inline(always)]
    pub fn new(pfn: u32, prot: Pte) -> Self {
        Self((u64::from(pfn) << Self::PFN_SHIFT) | prot.0)
    }
    /// `pte_modify()`: new protection, same frame, young and dirty kept.
    #[inline(always)]
    pub fn modify(self, prot: Pte) -> Self {
        Self((self.0 & !Self::PROT.0) | (prot.0 & Self::PROT.0))
    }
    #[inline(always)]
    pub fn without(self, bits: Pte) -> Self {
        self & !bits
    }
}

flag_word! {
    /// `FAULT_FLAG_*`.
    FaultFlags {
        WRITE = 0x01,
        ALLOW_RETRY = 0x04,
        KILLABLE = 0x10,
        TRIED = 0x20,
        USER = 0x40,
        REMOTE = 0x80,
        INSTRUCTION = 0x100,
        /// Source: P22.
        SPECULATIVE = 0x200,
    }
}

flag_word! {
    /// `vm_fault_t`, with the kernel's values.
    VmFault {
        OOM = 0x0001,
        SIGBUS = 0x0002,
        MAJOR = 0x0004,
        WRITE = 0x0008,
        SIGSEGV = 0x0040,
        NOPAGE = 0x0100,
        RETRY = 0x0400,
        FALLBACK = 0x0800,
        /// `VM_FAULT_ERROR`.
        ERROR = 0x0001 | 0x0002 | 0x0040,
    }
}

impl VmFault {
    /// The kernel's constants, for people.
    pub fn constants(self) -> String {
        if self == Self::NONE {
            return "0".to_owned();
        }
        let names = self.names().to_uppercase();
        let names: Vec<_> = names.split(' ').map(|name| format!("VM_FAULT_{name}")).collect();
        names.join("|")
    }
}

/// Kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// What the hardware tells the fault handler.
#[derive(Clone, Copy, Debug)]
pub struct FaultCode {
    pub access: Access,
    /// The page was present and the access not allowed (x86 `X86_PF_PROT`).
    pub protection: bool,
    /// Its protection key forbids the access (x86 `X86_PF_PK`, powerpc `DSISR_KEYFAULT`).
    pub pkey: bool,
    /// False for an access the kernel makes on the task's behalf.
    pub user: bool,
}

impl FaultCode {
    /// For an access to a page that is not present.
    pub const fn not_present(access: Access, user: bool) -> Self {
        Self { access, protection: false, pkey: false, user }
    }
}

/// A signal that an access ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    pub number: u8,
    pub code: i32,
}

impl Signal {
    /// `SIGSEGV` for an address in no mapping.
    pub const MAPERR: Self = Self { number: 11, code: 1 };
    /// `SIGSEGV` against the mapping's protection.
    pub const ACCERR: Self = Self { number: 11, code: 2 };
    /// `SIGSEGV` against a protection key.
    pub const PKUERR: Self = Self { number: 11, code: 4 };
    /// `SIGSEGV` for a general protection fault.
    pub const KERNEL: Self = Self { number: 11, code: 128 };
    /// `SIGSEGV` for an address in no segment (powerpc).
    pub const BNDERR: Self = Self { number: 11, code: 3 };
    /// `SIGKILL`: `pagefault_out_of_memory()` picked this task.
    pub const OOM_KILL: Self = Self { number: 9, code: 0 };
    /// `SIGBUS`: nothing behind the mapping.
    pub const ADRERR: Self = Self { number: 7, code: 2 };

    /// Its name and its code's, for people.
    pub fn to_text(self) -> String {
        let name = match self {
            Self::MAPERR => "SIGSEGV (SEGV_MAPERR)",
            Self::ACCERR => "SIGSEGV (SEGV_ACCERR)",
            Self::BNDERR => "SIGSEGV (SEGV_BNDERR)",
            Self::PKUERR => "SIGSEGV (SEGV_PKUERR)",
            Self::OOM_KILL => "SIGKILL",
            Self::ADRERR => "SIGBUS (BUS_ADRERR)",
            Self { number, code } => return format!("signal {number} (code {code})"),
        };
        name.to_owned()
    }
}

/// Linux errno values that operations return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Errno {
    Eperm = 1,
    Enoent = 2,
    E2big = 7,
    Eagain = 11,
    Enomem = 12,
    Eacces = 13,
    Efault = 14,
    Ebusy = 16,
    Eexist = 17,
    Enodev = 19,
    Einval = 22,
    Enospc = 28,
    Enosys = 38,
    Eoverflow = 75,
    Eopnotsupp = 95,
}
