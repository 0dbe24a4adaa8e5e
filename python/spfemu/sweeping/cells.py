"""One cell of a sweep: a single run, from what names it to what came out, as plain values.

Cells go to other processes and other computers, so all they hold can be pickled, and what comes
back is JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from spfemu.engines import Progress, run
from spfemu.errors import ProgramError
from spfemu.machines import Machine
from spfemu.profiles import arch
from spfemu.program.model import Program
from spfemu.sources import Source, find_source
from spfemu.workloads import WORKLOADS

__all__ = [
    "PLACEHOLDER",
    "Cell",
    "Outcome",
    "Workload",
    "digest",
    "file_digest",
    "run_cell",
    "usual_command",
]

PLACEHOLDER: Final = "{cpus}"
"""Stands for the number of CPUs among a workload's arguments."""

_SECONDS: Final = "0.2"
"""How long a workload runs that was given by its name alone."""

Outcome = dict[str, Any]
"""What a cell came to: ``elapsed_ns``, ``threads``, ``counters``, ``figures``, ``stuck``."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What a sweep runs: a command in which ``{cpus}`` may stand, or a program.

    Source: ours. ``digest`` tells two programs of one name apart; "" for a built-in workload.
    """

    command: tuple[str, ...]
    program: Program | None = None
    digest: str = ""

    @property
    def label(self) -> str:
        """The command as one text. Source: ours."""
        return " ".join(self.command)

    def source(self, cpus: int) -> Source:
        """Returns where the programs for so many CPUs come from.

        Source: the command line's WORKLOAD. Raises ProgramError or TraceError.
        """
        if self.program is not None:
            program = self.program
            nr_tasks = len(program.tasks)
            return Source(self.label, lambda page_size: program, nr_tasks)
        command = tuple(part.replace(PLACEHOLDER, str(cpus)) for part in self.command)
        if command[0] in WORKLOADS:
            return find_source(command, cpus)
        return _file_source(command)


@lru_cache(maxsize=1)
def _file_source(command: tuple[str, ...]) -> Source:
    """Reads a file once for all cells of a process: importing a trace takes longer than a run."""
    return find_source(command, None)


@dataclass(frozen=True, slots=True)
class Cell:
    """A single run of a sweep.

    Source: ours. ``machine`` is there with all its numbers: who runs the cell may not have its
    file. ``cpus`` is at most what it has, ``handler`` "classic" or "spf"; ``seed`` from 0;
    ``tree`` "rcu" or "rwlock".
    """

    workload: Workload
    machine: Machine
    cpus: int
    handler: str
    seed: int
    tree: str = "rcu"

    def key(self, version: str) -> str:
        """Returns what fixes the outcome, as one text.

        Source: DESIGN section 2: program, engine, settings, seed and version fix everything.
        """
        return json.dumps(
            [
                version,
                list(self.workload.command),
                self.workload.digest,
                self.machine.name,
                _machine_digest(self.machine),
                self.cpus,
                self.handler,
                self.tree,
                self.seed,
            ]
        )


@lru_cache
def _machine_digest(machine: Machine) -> str:
    return digest(machine.to_json().encode())


def digest(content: bytes) -> str:
    """Returns what tells contents apart, as a short text. Source: ours."""
    return hashlib.sha256(content).hexdigest()[:16]


def file_digest(names: tuple[str, ...]) -> str:
    """Returns what tells files from others of the same names. Source: ours.

    Raises ProgramError for one that cannot be read.
    """
    try:
        return digest("".join(digest(Path(name).read_bytes()) for name in names).encode())
    except OSError as error:
        raise ProgramError(f"{error.filename}: cannot be read: {error.strerror}") from None


def usual_command(name: str) -> str:
    """Returns the command of a workload that was given by its name alone.

    Source: the founding document for ebizzy; else one thread for each CPU, for 0.2 seconds, as far
    as the workload has options for that.

    >>> from spfemu.sweeping.cells import usual_command
    >>> usual_command("ebizzy"), usual_command("brk1")
    ('ebizzy -mTt {cpus} -S 0.2', 'brk1 -t {cpus} -s 0.2')
    >>> usual_command("kernbench")
    'kernbench -j {cpus}'
    """
    letters = {o.letter: o.value for o in WORKLOADS[name].options} if name in WORKLOADS else {}
    parts = [name]
    if "t" in letters:
        parts.append(f"{'-mTt' if name == 'ebizzy' else '-t'} {PLACEHOLDER}")
    if "j" in letters:
        parts.append(f"-j {PLACEHOLDER}")
    parts += [f"-{letter} {_SECONDS}" for letter, what in letters.items() if what == "SECONDS"]
    return " ".join(parts)


def run_cell(cell: Cell, progress: Progress | None = None) -> Outcome:
    """Runs a cell in virtual time and returns what came out.

    Source: ours. Raises what ``spfemu.run`` raises. Deterministic.
    """
    profile = arch(cell.machine.arch)
    source = cell.workload.source(cell.cpus)
    program = source.program(profile.page_size)
    result = run(
        program,
        engine="vtime",
        handler=cell.handler,
        tree=cell.tree,
        arch=profile,
        machine=cell.machine,
        seed=cell.seed,
        cpus=cell.cpus,
        record=False,
        progress=progress,
    )
    return {
        "elapsed_ns": result.elapsed_ns,
        "threads": source.job.nr_tasks if source.job is not None else len(program.tasks),
        "counters": dict(result.counters),
        "figures": source.figures(result),
        "stuck": list(result.stuck),
    }
