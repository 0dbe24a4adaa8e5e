//! Reference counts: the kernel's `atomic_t` operations, with the underflow that it would miss.

use crate::platform::{Field, Ordering, Platform};

/// `atomic_inc()`: no ordering, for whoever increments has a reference or keeps the object
/// alive in another way.
#[inline(always)]
pub fn atomic_inc<P: Platform>(cpu: &P, count: Field<'_, P, u64>) {
    count.fetch_add(cpu, 1, Ordering::Relaxed);
}

/// `atomic_dec_and_test()`: whether this was the last reference. Fully ordered.
///
/// A count that was 0 already is the finding `refcount`.
#[inline(always)]
#[must_use = "whoever drops the last reference frees the object"]
pub fn atomic_dec_and_test<P: Platform>(cpu: &P, count: Field<'_, P, u64>) -> bool {
    // AcqRel: all that other holders did to the object happens before it is freed; pairs with
    // itself in the other holders.
    let before = count.fetch_add(cpu, -1, Ordering::AcqRel);
    if before == 0 {
        cpu.finding("refcount", "a reference is dropped that does not exist".to_owned());
    }
    before == 1
}

#[cfg(test)]
#[path = "../../tests/unit/sync/refcount.rs"]
mod tests;
