//! The entries above the PTE tables: none, a table, or a leaf that maps a huge page.
//!
//! Source: `asm/pgtable.h`, v5.1. A leaf is a word whose low 32 bits are 0, which no pointer is:
//!
//! | bits | what |
//! |---|---|
//! | 0-31 | 0 |
//! | 32-43 | the low bits of a PTE, `HUGE` always among them |
//! | 44-63 | number of the huge page: its first frame by the frames that it has |

use std::marker::PhantomData;

use super::objects::{Table, TableRef};
use super::types::Pte;
use crate::platform::{Field, Ordering, Platform, Ptr, Value};

/// What a PMD entry holds: `pmd_t`.
pub struct PmdVal<P: Platform>(u64, PhantomData<fn() -> P>);

impl<P: Platform> Clone for PmdVal<P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Platform> Copy for PmdVal<P> {}
impl<P: Platform> PartialEq for PmdVal<P> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<P: Platform> Eq for PmdVal<P> {}
impl<P: Platform> Value for PmdVal<P> {
    #[inline(always)]
    fn to_word(self) -> u64 {
        self.0
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        Self(word, PhantomData)
    }
    fn text(word: u64) -> String {
        Self::from_word(word).entry_text()
    }
}

impl<P: Platform> From<Ptr<Table<P>>> for PmdVal<P> {
    fn from(table: Ptr<Table<P>>) -> Self {
        Self::from_word(table.to_word())
    }
}

impl<P: Platform> PmdVal<P> {
    pub const NONE: Self = Self(0, PhantomData);
    const BITS_SHIFT: u32 = 32;
    const NUMBER_SHIFT: u32 = 44;
    /// Huge pages that a leaf can name.
    pub const MAX_NUMBER: u32 = 1 << (u64::BITS - Self::NUMBER_SHIFT);

    /// What it says, for people.
    pub fn entry_text(self) -> String {
        match self.table() {
            Some(table) => Ptr::<Table<P>>::text(table.to_word()),
            None if self.is_none() => "none".to_owned(),
            None => format!("huge {}", self.as_pte(0).entry_text()),
        }
    }
    /// `pmd_none()`
    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
    /// The table of PTEs; `None` for an entry that is none or a leaf.
    #[inline(always)]
    pub fn table(self) -> Option<Ptr<Table<P>>> {
        if self.0 as u32 == 0 { None } else { Some(Ptr::from_word(self.0)) }
    }
    /// `pmd_trans_huge()`, and `pmd_huge()` of hugetlb: also true while it is being changed.
    #[inline(always)]
    pub fn is_huge(self) -> bool {
        self.0 as u32 == 0 && self.0 != 0
    }

    /// The leaf that maps the huge page of 2^`order` frames that `pte` names the first of.
    pub fn leaf(pte: Pte, order: u32) -> Self {
        let bits = (pte | Pte::HUGE).to_word() & 0xfff;
        let number = u64::from(pte.pfn() >> order);
        Self((bits << Self::BITS_SHIFT) | (number << Self::NUMBER_SHIFT), PhantomData)
    }
    /// What a leaf says, in the form of a PTE of its first frame.
    #[inline]
    pub fn as_pte(self, order: u32) -> Pte {
        let bits = Pte((self.0 >> Self::BITS_SHIFT) & 0xfff).without(Pte::HUGE);
        let number = (self.0 >> Self::NUMBER_SHIFT) as u32;
        Pte::new(number << order, bits)
    }
}

/// The place of a PMD entry: `pmd_t *`.
pub struct Pmd<'k, P: Platform> {
    table: TableRef<'k, P>,
    index: u32,
}

impl<P: Platform> Clone for Pmd<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Platform> Copy for Pmd<'_, P> {}
impl<P: Platform> PartialEq for Pmd<'_, P> {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table && self.index == other.index
    }
}

impl<'k, P: Platform> Pmd<'k, P> {
    pub(super) fn new(table: TableRef<'k, P>, index: u32) -> Self {
        Self { table, index }
    }
    /// `*pmd`
    #[inline(always)]
    pub fn read(self, cpu: &P) -> PmdVal<P> {
        // Consume: the table's entries were initialised before it was populated, a huge page's
        // content before it was mapped; pairs with the Release in populate and set.
        self.entry().load(cpu, Ordering::Consume)
    }
    #[inline(always)]
    pub(super) fn entry(self) -> Field<'k, P, PmdVal<P>> {
        self.table.pmd(self.index)
    }
    /// `set_pmd_at()`, `pmd_populate()`: makes the entry `value`. Caller holds the lock.
    pub(crate) fn set(self, cpu: &P, value: PmdVal<P>) {
        // Release: what the entry leads to is initialised (the smp_wmb before pmd_populate);
        // pairs with the Consume in read.
        self.entry().store(cpu, value, Ordering::Release);
    }
    /// `pmdp_set_access_flags()`, by the kernel or the hardware: whether it was still `orig`.
    pub(crate) fn set_access_flags(self, cpu: &P, orig: PmdVal<P>, value: PmdVal<P>) -> bool {
        self.entry().compare_exchange(cpu, orig, value, Ordering::Relaxed).is_ok()
    }
    /// `pmd_lockptr()`: the lock of the table that the entry is in.
    #[inline(always)]
    pub(crate) fn ptl(self) -> Field<'k, P, u64> {
        self.table.ptl()
    }
    /// The table that the entry is in.
    pub(super) fn in_table(self) -> TableRef<'k, P> {
        self.table
    }
    pub(super) fn index(self) -> u32 {
        self.index
    }
    /// The entry after this one in the same table.
    #[inline(always)]
    pub(super) fn next(self) -> Self {
        Self { table: self.table, index: self.index + 1 }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/mm/pmd.rs"]
mod tests;
