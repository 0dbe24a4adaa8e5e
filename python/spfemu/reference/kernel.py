"""What all address spaces share: the arch, the handler, the counters, memory and the sysctls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from spfemu.program import EVENTS
from spfemu.program.model import Swap as SwapSettings
from spfemu.reference.model import Frames, HugetlbPool, Page
from spfemu.reference.swap import Swap

if TYPE_CHECKING:
    from spfemu.profiles import Arch
    from spfemu.reference.mm import Mm

(
    FAULTS,
    MINOR_FAULTS,
    MAJOR_FAULTS,
    SPF,
    SPF_VMA_CHANGED,
    SPF_VMA_NOANON,  # defined by the series, emitted nowhere in v12 (SPF_V12 3.4)
    SPF_VMA_NOTSUP,
    SPF_VMA_ACCESS,
    SPF_PMD_CHANGED,  # needs a race; a model without concurrency never gets there
    SPECULATIVE_PGFAULT,
    PGFAULT,
    PGMAJFAULT,
) = range(len(EVENTS))
"""Positions in `EVENTS` and in the counters."""

ENOUGH_HUGETLB_PAGES = 1 << 40
"""How many pages the hugetlb pool has unless a program says: more than there is memory."""

VARIANT_NAMES = {
    "C2": "unchanged-pte-handled",
    "C3": "si-code",
    "C8": "nothing-without-keys",
    "L3": "clean-past-the-cache",
}
"""The variants that can be seen without concurrency, by their entries."""

_LSM_LOWEST: Final = 65536
"""CONFIG_LSM_MMAP_MIN_ADDR, as distributions have it."""


@dataclass
class Kernel:
    """One emulated kernel.

    `handler` is "spf" or "classic". `variants` maps names, or entries of SPF_V12 section 9,
    to "v12" or "fixed". `mem_keys` is CONFIG_PPC_MEM_KEYS, `have_move_pmd` CONFIG_HAVE_MOVE_PMD,
    `numa` CONFIG_NUMA, with so many `nodes`; `thp_config` CONFIG_TRANSPARENT_HUGEPAGE.
    `stack_limit` is RLIMIT_STACK in bytes. `thp` says where there are transparent huge pages:
    "never" where there can be none; `huge_zero_page` whether that of zeroes exists, which is never
    given back. `hugetlb` is the pool of pages for mappings that ask for them. `newer` are
    the rules for what merges that it has of kernels after 5.1: see `run`.
    Counters are in the order of `EVENTS`.
    """

    arch: Arch
    handler: str
    frames: Frames
    variants: Mapping[str, str]
    mmap_min_addr: int
    stack_limit: int = 8 << 20
    mem_keys: bool = True
    have_move_pmd: bool = True
    thp_config: bool = True
    numa: bool = True
    newer: Collection[str] = ()
    nodes: int = 2
    mems_allowed: int = 0
    """The nodes of the cpuset of the task that calls, as a mask."""
    hugetlb: HugetlbPool = field(init=False)
    thp: str = "never"
    huge_zero_page: bool = False
    sysctl: dict[str, int] = field(
        default_factory=lambda: {
            "vm.speculative_page_fault": 1,
            "vm.page-cluster": 3,
            "vm.max_map_count": 65530,
        }
    )
    counters: list[int] = field(default_factory=lambda: [0] * len(EVENTS))
    mms: list[Mm] = field(default_factory=list)
    """The address spaces there are, oldest first."""
    merged: dict[int, Page] = field(default_factory=dict)
    """KSM's stable tree: the page that was merged last with this content, which may be gone."""
    swap_settings: SwapSettings = field(default_factory=SwapSettings)
    swap: Swap = field(init=False)

    def __post_init__(self) -> None:
        """Turns swap on, and fills the pool."""
        self.swap = Swap(self.frames, self.swap_settings, self.arch.page_shift)
        self.hugetlb = HugetlbPool(ENOUGH_HUGETLB_PAGES, self.frames)

    @property
    def lowest_for_users(self) -> int:
        """Below which no hint is taken and nothing grows. `mmap_min_addr`, security/min_addr.c."""
        return max(self.mmap_min_addr, _LSM_LOWEST if "lowest" in self.newer else 0)

    def count(self, event: int) -> None:
        """Adds one to a counter."""
        self.counters[event] += 1

    def is_fixed(self, entry: str) -> bool:
        """Whether an entry of SPF_V12 section 9 has its cure ("fixed") instead of v12's text."""
        name = VARIANT_NAMES[entry]
        return self.variants.get(name, self.variants.get(entry)) == "fixed"
