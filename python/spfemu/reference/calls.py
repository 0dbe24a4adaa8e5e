"""What is done to memory but for accesses: from a record's fields to the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from spfemu.program import OPS
from spfemu.program.ops import GIVEN
from spfemu.reference.brk import brk
from spfemu.reference.clear_refs import clear_refs
from spfemu.reference.kernel import Kernel
from spfemu.reference.khugepaged import collapse
from spfemu.reference.ksm import ksm_scan
from spfemu.reference.mbind import mbind
from spfemu.reference.migrate import migrate
from spfemu.reference.mlock import mlock, munlock
from spfemu.reference.mm import Mm
from spfemu.reference.mmap import mmap
from spfemu.reference.mmu_notifier import notifier
from spfemu.reference.model import File
from spfemu.reference.mremap import mremap
from spfemu.reference.munmap import munmap
from spfemu.reference.oom_reap import oom_reap
from spfemu.reference.protect import madvise, mprotect
from spfemu.reference.reclaim import swap_out
from spfemu.reference.tasks import Record
from spfemu.reference.truncate import ftruncate
from spfemu.reference.uffd_ranges import uffd_change


class Call(NamedTuple):
    """A call about to be made: where, its record, and what the record's addresses are."""

    kernel: Kernel
    mm: Mm
    record: Record
    addresses: Sequence[int]
    files: Sequence[File]

    @property
    def addr(self) -> int:
        """The address, or the first of two."""
        return self.addresses[0]

    @property
    def flags(self) -> int:
        """The flags without the bit that says whether an address is given."""
        return self.record.flags & ~GIVEN

    @property
    def is_given(self) -> bool:
        """Whether the optional address is given."""
        return bool(self.record.flags & GIVEN)


def _mmap(call: Call) -> int:
    record = call.record
    hint = call.addr if call.is_given else 0
    file = call.files[record.aux - 1] if record.aux else None
    return mmap(
        *(call.kernel, call.mm, hint, record.length, record.prot, call.flags, file, record.value)
    )


def _munmap(call: Call) -> int:
    munmap(call.kernel, call.mm, call.addr, call.record.length)
    return 0


def _mprotect(call: Call) -> int:
    mprotect(call.kernel, call.mm, call.addr, call.record.length, call.record.prot)
    return 0


def _mremap(call: Call) -> int:
    old, new = call.record.length, call.record.length2
    return mremap(call.kernel, call.mm, call.addr, old, new, call.flags, call.addresses[1])


def _madvise(call: Call) -> int:
    madvise(call.kernel, call.mm, call.addr, call.record.length, call.record.advice)
    return 0


def _mbind(call: Call) -> int:
    record = call.record
    mbind(call.kernel, call.mm, call.addr, record.length, record.advice, record.value)
    return 0


def _collapse(call: Call) -> int:
    collapse(call.kernel, call.mm, call.addr)
    return 0


def _migrate(call: Call) -> int:
    migrate(call.kernel, call.mm, call.addr, call.record.length, call.record.value)
    return 0


def _clear_refs(call: Call) -> int:
    clear_refs(call.mm, call.record.value)
    return 0


def _oom_reap(call: Call) -> int:
    oom_reap(call.kernel, call.mm)
    return 0


def _notifier(call: Call) -> int:
    notifier(call.mm, on=bool(call.record.flags & 1))
    return 0


def _truncate(call: Call) -> int:
    ftruncate(call.kernel, call.files[call.record.aux], call.record.length)
    return 0


def _uffd_register(call: Call) -> int:
    uffd_change(call.kernel, call.mm, call.addr, call.record.length, missing=True)
    return 0


def _uffd_unregister(call: Call) -> int:
    uffd_change(call.kernel, call.mm, call.addr, call.record.length, missing=False)
    return 0


def _ksm_scan(call: Call) -> int:
    ksm_scan(call.kernel, call.mm, call.addr, call.record.length)
    return 0


def _swap_out(call: Call) -> int:
    keep_cache = bool(call.flags & 1)
    swap_out(call.kernel, call.mm, call.addr, call.record.length, keep_cache=keep_cache)
    return 0


def _mlock(call: Call) -> int:
    onfault = bool(call.record.flags & 1)
    mlock(call.kernel, call.mm, call.addr, call.record.length, onfault=onfault)
    return 0


def _munlock(call: Call) -> int:
    munlock(call.kernel, call.mm, call.addr, call.record.length)
    return 0


def _brk(call: Call) -> int:
    return brk(call.kernel, call.mm, call.record.addr, call.record.addr2 if call.is_given else None)


MEMORY_CALLS: Final[Mapping[int, Callable[[Call], int]]] = MappingProxyType(
    {
        OPS[name].code: call
        for name, call in {
            "mmap": _mmap,
            "munmap": _munmap,
            "mprotect": _mprotect,
            "mremap": _mremap,
            "madvise": _madvise,
            "mlock": _mlock,
            "munlock": _munlock,
            "mbind": _mbind,
            "brk": _brk,
            "collapse": _collapse,
            "ksm_scan": _ksm_scan,
            "swap_out": _swap_out,
            "migrate": _migrate,
            "clear_refs": _clear_refs,
            "oom_reap": _oom_reap,
            "notifier": _notifier,
            "truncate": _truncate,
            "uffd_register": _uffd_register,
            "uffd_unregister": _uffd_unregister,
        }.items()
    }
)
"""For each operation on memory that is no access, what makes it and returns its result."""


_DEFINES: Final = {op.code: key for op in OPS.values() for key in op.keys if key.kind == "define"}
_TWO_ADDRESSES: Final = {
    op.code for op in OPS.values() if sum(key.kind == "address" for key in op.keys) == 2
}


def defined_id(record: Record) -> int:
    """The number of the id that names what the operation returns, -1 if none does."""
    key = _DEFINES.get(record.op)
    return -1 if key is None else int(getattr(record, key.field)) - key.plus


def addresses(record: Record) -> list[tuple[int, int]]:
    """The operation's addresses, each as the number of an id (or -1) and an offset."""
    first = (record.base, record.addr)
    return [first, (record.base2, record.addr2)] if record.op in _TWO_ADDRESSES else [first]
