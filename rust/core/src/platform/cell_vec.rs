//! A vector whose elements are read and written by copy through a shared reference, as a `Cell` is:
//! for tables that the virtual platforms look into at every access.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;

/// See the module. (A `RefCell` of a vector would count each look in and out again.)
pub(crate) struct CellVec<T: Copy>(UnsafeCell<Vec<T>>);

impl<T: Copy> CellVec<T> {
    pub fn new() -> Self {
        Self(UnsafeCell::new(Vec::new()))
    }

    #[inline(always)]
    fn values(&self) -> *mut Vec<T> {
        self.0.get()
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        // SAFETY: as in `get`.
        unsafe { &*self.values() }.len()
    }

    /// The element at `index`, or `None` behind the end.
    #[inline(always)]
    pub fn get(&self, index: usize) -> Option<T> {
        // SAFETY: (1) This type is not Sync, so nobody else is in one of these functions at the
        // same time. (2) None of them hands a reference out, or calls anything that could reach
        // this vector while it has one: `T` is Copy, so copying it runs no code of its own.
        unsafe { &*self.values() }.get(index).copied()
    }

    /// Sets the element at `index`, which exists.
    #[inline(always)]
    pub fn set(&self, index: usize, value: T) {
        // SAFETY: as in `get`.
        let values = unsafe { &mut *self.values() };
        values[index] = value;
    }

    /// Sets `count` elements from `first` on, which exist.
    pub fn fill(&self, first: usize, count: usize, value: T) {
        // SAFETY: as in `get`.
        let values = unsafe { &mut *self.values() };
        values[first..first + count].fill(value);
    }

    /// Appends copies of `value` until there are `len`.
    pub fn grow(&self, len: usize, value: T) {
        // SAFETY: as in `get`; the allocator does not know this vector.
        let values = unsafe { &mut *self.values() };
        values.resize(len.max(values.len()), value);
    }
}

impl<T: Copy> Default for CellVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "../../tests/unit/platform/cell_vec.rs"]
mod tests;
