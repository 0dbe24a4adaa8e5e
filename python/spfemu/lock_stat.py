"""What the tasks of a run waited for, as ``/proc/lock_stat`` has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LockCount", "LockStat", "lock_stat_of"]


@dataclass(frozen=True, slots=True)
class LockCount:
    """All locks, or other shared words, of one name.

    Source: ours; the name is the kernel's. ``acquisitions``: how often it was taken, 0 of what is
    no lock. ``contended``: how often a task had to spin or sleep until it was free, and
    ``wait_ns`` how long. ``fetches``: how often its cache line was in no cache of the CPU that
    wanted it, and ``fetch_ns`` what that took beyond an access that hits, which is also what a
    wait does when it is over.
    """

    name: str
    acquisitions: int
    contended: int
    wait_ns: int
    fetches: int
    fetch_ns: int

    @property
    def lost_ns(self) -> int:
        """Returns the time that went by in waits and fetches. Source: ours."""
        return self.wait_ns + self.fetch_ns


@dataclass(frozen=True, slots=True)
class LockStat:
    """What was waited for in a run.

    Source: ours. ``locks`` by time lost, most first. ``task_ns`` is the time of all tasks together,
    from their first operation to their end.

    >>> import spfemu
    >>> from spfemu.workloads import make_job
    >>> program = make_job(["page_fault1", "-t", "4", "-s", "1e-3"]).build()
    >>> result = spfemu.run(program, engine="vtime", handler="classic", lock_stat=True)
    >>> result.lock_stat.locks[0].name
    'mmap_sem'
    """

    task_ns: int
    locks: tuple[LockCount, ...]

    def share(self, ns: int) -> float:
        """Returns what share of all tasks' time ``ns`` are. Source: ours."""
        return ns / self.task_ns if self.task_ns else 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns this as JSON values. Source: the command line's page."""
        locks = [
            {
                "name": lock.name,
                "acquisitions": lock.acquisitions,
                "contended": lock.contended,
                "wait_ns": lock.wait_ns,
                "fetches": lock.fetches,
                "fetch_ns": lock.fetch_ns,
                "share": self.share(lock.lost_ns),
            }
            for lock in self.locks
        ]
        return {"task_ns": self.task_ns, "locks": locks}


def lock_stat_of(obj: Mapping[str, Any]) -> LockStat:
    """Returns what the core says was waited for. Source: the core."""
    locks = sorted(
        (LockCount(**lock) for lock in obj["locks"]), key=lambda lock: (-lock.lost_ns, lock.name)
    )
    return LockStat(obj["task_ns"], tuple(locks))
