//! What must hold while no task is in the middle of an operation, whatever comes later: nobody
//! writes a VMA, so every sequence is even.

use super::kernel::Kernel;
use super::objects::{MmRef, VmaRef};
use crate::design::Design;
use crate::platform::{Finding, Platform};

impl<P: Platform, D: Design> Kernel<P, D> {
    /// What is broken, if something is. As nobody's access: the platform takes no notice.
    pub(crate) fn check_between_operations(&self) -> Option<Finding> {
        self.mms.peek_all().find_map(|mm| self.odd_sequence(mm))
    }

    fn odd_sequence(&self, mm: MmRef<'_, P>) -> Option<Finding> {
        let invariant = "sequence";
        if !mm.mm_seq().peek().is_multiple_of(2) {
            let what = format!("mm_seq of mm {} is odd", mm.slot_index());
            return Some(Finding { invariant, what });
        }
        let mut cursor = mm.mmap().peek();
        while !cursor.is_null() {
            // The list itself is checked at the end.
            let vma = self.vmas.peek(cursor.index()).filter(|vma| vma.ptr() == cursor)?;
            if let Some(what) = odd_vm_sequence(vma) {
                return Some(Finding { invariant, what });
            }
            cursor = vma.vm_next().peek();
        }
        None
    }
}

/// What is wrong with the sequence of a VMA that nobody writes.
pub(super) fn odd_vm_sequence<P: Platform>(vma: VmaRef<'_, P>) -> Option<String> {
    let sequence = vma.vm_sequence().peek();
    let [start, end] = [vma.vm_start().peek(), vma.vm_end().peek()];
    (!sequence.is_multiple_of(2))
        .then(|| format!("VMA {start:#x}..{end:#x} at rest has sequence {sequence}"))
}
