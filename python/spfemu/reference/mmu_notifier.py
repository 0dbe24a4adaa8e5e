"""mmu notifiers: somebody else who follows the translations of an address space."""

from __future__ import annotations

import errno

from spfemu.reference.mm import Mm
from spfemu.reference.model import SyscallError


def notifier(mm: Mm, *, on: bool) -> None:
    """Registers a notifier, or unregisters it. One at a time; its address space does not tell.

    **Source:** mmu_notifier_register(), mm/mmu_notifier.c@5.1; the errors are ours.
    """
    if on and mm.has_notifier:
        raise SyscallError(errno.EEXIST)
    if not on and not mm.has_notifier:
        raise SyscallError(errno.ENOENT)
    mm.has_notifier = on
