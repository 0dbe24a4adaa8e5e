"""The table of operations: names, codes, keys and array fields.

Everything that reads, checks or writes a program goes by this one table: the JSON reader, the
checks of the array form and the writer. Source: the program format, ``spfemu-program/1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

__all__ = [
    "ACCESSES",
    "ADVICES",
    "CONFIGS",
    "EVENTS",
    "FIELDS",
    "FILE_KINDS",
    "FORMAT",
    "GIVEN",
    "MAX_CPUS",
    "MAX_DEPTH",
    "MMAP_FLAGS",
    "MODES",
    "MREMAP_FLAGS",
    "OPS",
    "OPS_BY_CODE",
    "OP_DTYPE",
    "ORDERS",
    "OUTCOME_DTYPE",
    "PAGE_SIZES",
    "POLICIES",
    "POLICIES_WITHOUT_NODES",
    "RECORD_DEFAULTS",
    "SITE_DTYPE",
    "SPAN_DTYPE",
    "STARTS",
    "SWAP_KINDS",
    "SYSCTLS",
    "TRACE_DTYPE",
    "Key",
    "Op",
]

FORMAT: Final = "spfemu-program/1"

EVENTS: Final = (
    "faults",
    "minor-faults",
    "major-faults",
    "spf",
    "pagefault:spf_vma_changed",
    "pagefault:spf_vma_noanon",
    "pagefault:spf_vma_notsup",
    "pagefault:spf_vma_access",
    "pagefault:spf_pmd_changed",
    "speculative_pgfault",
    "pgfault",
    "pgmajfault",
)
"""Every counter, in the order in which engines report them."""

OP_DTYPE: Final = np.dtype(
    [
        ("op", "<u2"),
        ("flags", "<u4"),
        ("prot", "u1"),
        ("access", "u1"),
        ("mode", "u1"),
        ("advice", "u1"),
        ("base", "<i4"),
        ("addr", "<i8"),
        ("length", "<u8"),
        ("base2", "<i4"),
        ("addr2", "<i8"),
        ("length2", "<u8"),
        ("value", "<u8"),
        ("aux", "<u4"),
    ]
)
"""One operation of the array form: 62 bytes, packed, little-endian."""

OUTCOME_DTYPE: Final = np.dtype(
    [
        ("task", "<u4"),
        ("index", "<u4"),
        ("round", "<u8"),
        ("access", "<u4"),
        ("op", "<u2"),
        ("handled", "u1"),
        ("livelock", "u1"),
        ("signal", "u1"),
        ("si_code", "<i4"),
        ("has", "u1"),
        ("errno", "<i4"),
        ("ret", "<i8"),
        ("value", "<u8"),
        ("counters", "<u4", (len(EVENTS),)),
    ]
)
"""One outcome: what one operation, or one access of a ``touch``, came to.

``index`` counts the records of the task's array, brackets included; ``round`` says how often that
record ran before in this task; ``access`` numbers the accesses of a ``touch``. ``handled`` is 0
none, 1 spf, 2 classic, for the last fault. ``has`` is 1 when ``ret`` is valid plus 2 when ``value``
is. ``counters`` are what this operation added, in the order of ``EVENTS``.
"""

SPAN_DTYPE: Final = np.dtype(
    [
        ("time_ns", "<u8"),
        ("arg", "<u8"),
        ("cause", "<u4"),
        ("cpu", "<u4"),
        ("task", "<u4"),
        ("name", "<u2"),
        ("how", "<u2"),
        ("phase", "u1"),
    ]
)
"""What begins or ends in the course of a run in virtual time; entries of one CPU nest.

``phase``: 0 begins, 1 ends, 2 has no length; 4 is cut because another task has the CPU, or nothing
is known of what follows, 3 goes on after that. ``name`` and ``how`` it ended are places in the
result's ``span_names``. ``arg``: the address of a fault, the start of a VMA. ``cause``: 1 + the
place of the entry that made this one happen, or 0.
"""

TRACE_DTYPE: Final = np.dtype(
    [
        ("time_ns", "<u8"),
        ("vm_start", "<u8"),
        ("vm_end", "<u8"),
        ("address", "<u8"),
        ("cpu", "<u4"),
        ("task", "<u4"),
        ("event", "u1"),
        ("irqs_off", "u1"),
    ]
)
"""What a tracepoint of the series recorded (P24): when, where, the VMA's bounds, the page.

``event`` is a place in ``EVENTS``.
"""

SITE_DTYPE: Final = np.dtype([("ip", "<u8"), ("comm", "<u4"), ("vma", "<u4")])
"""Where a recorded operation came from: its instruction pointer (0 unknown), and index + 1 into
``Program.comms`` and ``Program.vmas`` (0 unknown)."""

FIELDS: Final = tuple(OP_DTYPE.names or ())
RECORD_DEFAULTS: Final = MappingProxyType({f: -1 if f in ("base", "base2") else 0 for f in FIELDS})

GIVEN: Final = 1 << 31
"""The flag bit that says that an optional address is given."""

MAX_CPUS: Final = 1024
"""The CPUs that a recording may say it had."""

MAX_DEPTH: Final = 32
"""How deep ``repeat`` may nest."""

MMAP_FLAGS: Final = MappingProxyType(
    {
        "private": 1,
        "shared": 2,
        "anonymous": 4,
        "fixed": 8,
        "fixed_noreplace": 16,
        "populate": 32,
        "locked": 64,
        "noreserve": 128,
        "stack": 256,
        "growsdown": 512,
        "hugetlb": 1024,
    }
)
MREMAP_FLAGS: Final = MappingProxyType({"maymove": 1, "fixed": 2, "dontunmap": 4})

ADVICES: Final = (
    "dontneed", "free", "willneed", "normal", "random", "sequential", "hugepage", "nohugepage",
    "dontfork", "dofork", "wipeonfork", "keeponfork", "dontdump", "dodump", "mergeable",
    "unmergeable", "pageout", "cold", "populate_read", "populate_write",
)  # fmt: skip
POLICIES: Final = ("default", "bind", "interleave", "preferred", "local")
POLICIES_WITHOUT_NODES: Final = ("default", "local")
ACCESSES: Final = ("read", "write", "execute")
MODES: Final = ("user", "kernel")
ORDERS: Final = ("forward", "backward", "random")
STARTS: Final = ("fork", "vfork", "clone")
FILE_KINDS: Final = ("regular", "shmem", "devzero", "hugetlb")
SWAP_KINDS: Final = ("normal", "synchronous")
PAGE_SIZES: Final = tuple(1 << shift for shift in range(12, 17))
"""Every page size that a program may assume."""

SYSCTLS: Final = MappingProxyType(
    {
        "vm.speculative_page_fault": (0, 1),
        "vm.page-cluster": (0, 31),
        "vm.max_map_count": (0, 2**31 - 1),
    }
)
"""The sysctls there are, each with the lowest and the highest value."""

CONFIGS: Final = (
    "THP",
    "NUMA",
    "PPC_MEM_KEYS",
    "HAVE_MOVE_PMD",
    "X86_INTEL_MEMORY_PROTECTION_KEYS",
)
"""What of the kernel can be compiled in or left out."""

U64: Final = 2**64 - 1
I64: Final = 2**63 - 1
MAX_STACK_SHIFT: Final = 1 << 34
"""How far below the top of user space a stack may end: what x86-64 draws from."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an operation, and the array field that holds it.

    Source: ours. ``kind`` decides how the value is read: ``address`` (with the matching ``base``),
    ``int`` (from ``low`` to ``high``), ``prot``, ``flags`` (``names`` to bits), ``bool`` (flag bit
    1), ``choice`` (index into ``choices``), ``define`` (an id that the operation names), ``file``,
    ``task``, ``name``, ``text``, ``sysctl``, ``nodes`` (a list to a bit mask), ``ops``. ``plus`` is
    added to an index, so that 0 says "none"; ``given`` is the flag bit set when the key is there.
    """

    name: str
    kind: str
    field: str
    required: bool = False
    default: int = 0
    low: int = 0
    high: int = U64
    names: MappingProxyType[str, int] | None = None
    choices: tuple[str, ...] = ()
    plus: int = 0
    given: int = 0


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of the format: name, code and keys.

    Source: the program format. ``key(name)`` finds a key.
    """

    name: str
    code: int
    keys: tuple[Key, ...] = ()

    def key(self, name: str) -> Key | None:
        """Returns the key of that name, or None. Source: ours."""
        for key in self.keys:
            if key.name == name:
                return key
        return None


_ADDR = Key("addr", "address", "addr", required=True)
_LENGTH = Key("length", "int", "length", required=True)
_RANGE = (_ADDR, _LENGTH)
_PROT = Key("prot", "prot", "prot", required=True)
_MODE = Key("mode", "choice", "mode", choices=MODES)
_CHILD = Key("child", "task", "aux", required=True)
_NAME = Key("name", "name", "aux", required=True)
_NS = Key("ns", "int", "value", required=True)
_POLICY = (
    Key("mode", "choice", "advice", choices=POLICIES),
    Key("nodes", "nodes", "value", default=1),
)
_FORK = (_CHILD, Key("wait", "bool", "flags"))

_TABLE: Final = (
    Op(
        "mmap",
        1,
        (
            _LENGTH,
            Key("prot", "prot", "prot", default=3),
            Key("flags", "flags", "flags", default=5, names=MMAP_FLAGS),
            Key("addr", "address", "addr", given=GIVEN),
            Key("file", "file", "aux", plus=1),
            Key("offset", "int", "value"),
            Key("id", "define", "base2", default=-1),
        ),
    ),
    Op("munmap", 2, _RANGE),
    Op("mprotect", 3, (*_RANGE, _PROT)),
    Op(
        "mremap",
        4,
        (
            _ADDR,
            Key("old_length", "int", "length", required=True),
            Key("new_length", "int", "length2", required=True),
            Key("flags", "flags", "flags", names=MREMAP_FLAGS),
            Key("new_addr", "address", "addr2", given=GIVEN),
            Key("id", "define", "aux", plus=1),
        ),
    ),
    Op(
        "madvise",
        5,
        (*_RANGE, Key("advice", "choice", "advice", required=True, choices=ADVICES)),
    ),
    Op("mlock", 6, (*_RANGE, Key("onfault", "bool", "flags"))),
    Op("munlock", 7, _RANGE),
    Op("mbind", 8, (*_RANGE, *_POLICY)),
    Op("set_mempolicy", 9, _POLICY),
    Op(
        "brk",
        10,
        (
            Key("delta", "int", "addr", low=-I64, high=I64),
            Key("id", "define", "base2", default=-1),
            Key("start", "int", "addr2", high=I64, given=GIVEN),
        ),
    ),
    Op("fork", 11, _FORK),
    Op("vfork", 12, _FORK),
    Op("wait", 13, (_CHILD,)),
    Op("clone", 14, (_CHILD,)),
    Op(
        "exec",
        15,
        (
            Key("brk_start", "int", "addr", high=I64, given=GIVEN),
            Key("stack", "int", "length"),
            Key("stack_shift", "int", "length2", high=MAX_STACK_SHIFT),
        ),
    ),
    Op("exit", 16),
    Op("read", 17, (_ADDR, _MODE)),
    Op("write", 18, (_ADDR, Key("value", "int", "value", required=True), _MODE)),
    Op("execute", 19, (_ADDR, _MODE)),
    Op(
        "touch",
        20,
        (
            _ADDR,
            Key("length", "int", "length", required=True, low=1),
            Key("stride", "int", "length2", low=1),
            Key("access", "choice", "access", default=1, choices=ACCESSES),
            Key("order", "choice", "flags", choices=ORDERS),
            Key("seed", "int", "addr2"),
            Key("mode", "choice", "mode", choices=MODES),
            Key("value", "int", "value", default=1),
        ),
    ),
    Op("compute", 21, (_NS,)),
    Op("sleep", 22, (_NS,)),
    Op("barrier", 23, (_NAME,)),
    Op("post", 24, (_NAME,)),
    Op("await", 25, (_NAME,)),
    Op(
        "repeat",
        26,
        (
            Key("ops", "ops", "", required=True),
            Key("count", "int", "value", low=1),
            Key("for_ns", "int", "length", low=1),
            Key("max_count", "int", "length2", low=1),
        ),
    ),
    Op("end", 27),
    Op(
        "sysctl",
        28,
        (
            Key("name", "sysctl", "aux", required=True),
            Key("value", "int", "addr", required=True, low=-I64, high=I64),
        ),
    ),
    Op("note", 29, (Key("text", "text", "aux", required=True),)),
    Op("swap_out", 30, (*_RANGE, Key("keep_cache", "bool", "flags"))),
    Op("collapse", 31, (_ADDR,)),
    Op("numa_scan", 32, _RANGE),
    Op("ksm_scan", 33, _RANGE),
    Op("clear_refs", 34, (Key("what", "int", "value", required=True),)),
    Op("migrate", 35, (*_RANGE, Key("node", "int", "value", required=True))),
    Op("truncate", 36, (Key("file", "file", "aux", required=True), _LENGTH)),
    Op("oom_reap", 37),
    Op("rebind", 38, (Key("nodes", "nodes", "value", required=True),)),
    Op("notifier", 39, (Key("on", "bool", "flags", required=True),)),
    Op("uffd_register", 40, _RANGE),
    Op("uffd_unregister", 41, _RANGE),
)

OPS: Final = MappingProxyType({op.name: op for op in _TABLE})
"""Every operation of the format by name. ``end``, the closing bracket of ``repeat``, is in the
array form only."""

OPS_BY_CODE: Final = MappingProxyType({op.code: op for op in _TABLE})
