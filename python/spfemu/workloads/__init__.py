"""Built-in workloads: programs that behave as the originals, with the originals' option letters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from spfemu.errors import ProgramError
from spfemu.program.values import shown
from spfemu.workloads import database, ebizzy, kernbench, pft, rwsem, threadstorm, will_it_scale
from spfemu.workloads.database import Database, database_job
from spfemu.workloads.ebizzy import Ebizzy, ebizzy_job
from spfemu.workloads.job import DEFAULT_CPUS, Arguments, Job, Option
from spfemu.workloads.kernbench import Kernbench, kernbench_job
from spfemu.workloads.pft import Pft, pft_job
from spfemu.workloads.rwsem import Rwsem, rwsem_job
from spfemu.workloads.threadstorm import Threadstorm, threadstorm_job
from spfemu.workloads.will_it_scale import WillItScale, will_it_scale_job

__all__ = [
    "WORKLOADS",
    "Database",
    "Ebizzy",
    "Job",
    "Kernbench",
    "Option",
    "Pft",
    "Rwsem",
    "Threadstorm",
    "WillItScale",
    "Workload",
    "make_job",
]


@dataclass(frozen=True, slots=True)
class Workload:
    """A built-in workload: its name, what it is, its options. Source: the original's usage."""

    name: str
    summary: str
    options: tuple[Option, ...]
    make: Callable[[Arguments, int], Job]

    def job(self, arguments: Sequence[str], *, cpus: int | None = None) -> Job:
        """Returns the job that command-line arguments ask for.

        Source: ours. ``cpus`` are the machine's, for the default number of tasks (4). Raises
        ProgramError for a wrong option, naming what is allowed.
        """
        given = Arguments(self.name, self.options, arguments)
        nr_cpus = DEFAULT_CPUS if cpus is None else cpus
        return self.make(given, nr_cpus)


WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType(
    {
        "ebizzy": Workload(
            "ebizzy", "allocate, copy or touch, search, free", ebizzy.OPTIONS, ebizzy_job
        ),
        "kernbench": Workload(
            "kernbench", "compile a kernel: short processes", kernbench.OPTIONS, kernbench_job
        ),
        "database": Workload(
            "database", "transactions in memory, with buffers", database.OPTIONS, database_job
        ),
        "threadstorm": Workload(
            "threadstorm",
            "an app's launch: a hundred threads start",
            threadstorm.OPTIONS,
            threadstorm_job,
        ),
        "pft": Workload("pft", "write each page once, all at once", pft.OPTIONS, pft_job),
        "rwsem": Workload(
            "rwsem", "take mmap_sem and give it back, at once", rwsem.OPTIONS, rwsem_job
        ),
        **{
            name: Workload(
                name, f"will-it-scale: {test.summary}", will_it_scale.OPTIONS, will_it_scale_job
            )
            for name, test in will_it_scale.TESTS.items()
        },
    }
)
"""The built-in workloads by name."""


def make_job(arguments: Sequence[str], *, cpus: int | None = None) -> Job:
    """Returns the job of a command line: a workload's name and its options.

    Source: ours. Raises ProgramError for an unknown name or option, naming what is allowed.

    >>> from spfemu.workloads import make_job
    >>> make_job(["ebizzy", "-mTt", "8", "-S", "0.2"]).nr_tasks
    8
    """
    name = arguments[0] if arguments else ""
    if name not in WORKLOADS:
        raise ProgramError(f"workload {shown(name)} (allowed: {', '.join(WORKLOADS)})")
    return WORKLOADS[name].job(arguments[1:], cpus=cpus)
