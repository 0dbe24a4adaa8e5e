"""What the host is: whether it has a Linux kernel, and the settings of it that programs see."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spfemu.errors import EngineError

__all__ = ["Host", "host"]

_ARCHES: Final = ("x86_64", "amd64")

_LOW: Final = 1 << 20
"""Every CONFIG_LSM_MMAP_MIN_ADDR that is in use is below this."""


@dataclass(frozen=True, slots=True)
class Host:
    """A host that can be an oracle.

    Source: ``/proc``. ``release`` is the kernel's, as ``uname -r``; ``mmap_min_addr`` the lowest
    address that an ordinary process maps, bytes; ``lowest_hint`` the one that hints are raised to
    and stacks may grow to, which CONFIG_LSM_MMAP_MIN_ADDR may make higher; ``overcommit`` is
    vm.overcommit_memory; ``memory`` what there is, bytes, swap included; ``nodes`` how many NUMA
    nodes it gives us memory of, from node 0 on without a gap, 0 if it knows none; ``max_locked``
    how much a process may lock, bytes; ``protection_keys`` whether execute-only memory has one.
    """

    release: str
    mmap_min_addr: int
    lowest_hint: int
    overcommit: int
    memory: int
    nodes: int
    max_locked: int
    protection_keys: bool

    @property
    def version(self) -> tuple[int, int]:
        """The first two numbers of the release. Source: ``uname -r``.

        >>> from spfemu.oracle import Host
        >>> Host("6.18.44-x", 65536, 65536, 0, 1 << 34, 1, 8 << 20, False).version
        (6, 18)
        """
        numbers = self.release.replace("-", ".").split(".")
        return int(numbers[0]), int(numbers[1])


def host(proc: Path = Path("/proc")) -> Host:
    """Returns what this host is.

    Source: ours. ``proc`` is where its ``/proc`` is. Raises EngineError, with the reason, if it is
    no host with a Linux kernel on x86-64: another system, another processor, or something that has
    Linux's calls but not Linux's memory management.
    """
    if sys.platform != "linux":
        raise EngineError(f"engine kernel: system {sys.platform} (allowed: Linux on x86-64)")
    if platform.machine().lower() not in _ARCHES:
        raise EngineError(f"engine kernel: processor {platform.machine()} (allowed: x86-64)")
    import resource  # other systems have none

    try:
        release = (proc / "sys/kernel/osrelease").read_text().strip()
        # Linux's mm says what each VMA's flags are, since 3.8; its imitations have no VMAs.
        # Of the first VMAs: all of it would make the kernel walk all our page tables.
        with (proc / "self/smaps").open() as file:
            smaps = file.read(4096)
        is_linux = "\nVmFlags:" in smaps
        found = Host(
            release=release,
            mmap_min_addr=_number(proc / "sys/vm/mmap_min_addr"),
            lowest_hint=_lowest_hint(_number(proc / "sys/vm/mmap_min_addr")),
            overcommit=_number(proc / "sys/vm/overcommit_memory"),
            memory=_memory(proc / "meminfo"),
            nodes=_nodes(proc / "self/status"),
            # Children raise their own limit to this.
            max_locked=resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] % (1 << 64),
            # Only a kernel that has switched them on says which each VMA has.
            protection_keys="\nProtectionKey:" in smaps,
        )
        found.version  # noqa: B018 - raises if it has none
    except (OSError, ValueError, IndexError) as error:
        raise EngineError(f"engine kernel: no Linux kernel here: {error}") from None
    if not is_linux:
        raise EngineError(
            f"engine kernel: {release} is no Linux kernel: it does not say what VMAs are "
            "(allowed: Linux itself, not a sandbox that has its system calls)"
        )
    return found


def _number(path: Path) -> int:
    return int(path.read_text())


def _lowest_hint(mmap_min_addr: int) -> int:
    """Where a page goes that is to be at 4096: no file says what the limit is.

    What is far above was chosen for another reason: something of ours is where the limit is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = libc.mmap(4096, 4096, 0, private, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "no page can be mapped")
    libc.munmap(address, 4096)
    return int(address) if mmap_min_addr < address < _LOW else mmap_min_addr


def _memory(path: Path) -> int:
    sizes = dict(line.split(":") for line in path.read_text().splitlines())
    return sum(int(sizes[name].split()[0]) << 10 for name in ("MemTotal", "SwapTotal"))


def _nodes(path: Path) -> int:
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    first, _, last = lines.get("Mems_allowed_list", "").split(",")[0].strip().partition("-")
    return int(last or first) + 1 if first == "0" else 0
