"""What a WORKLOAD may be: a built-in name, a program file, trace files, or ``-``.

A PROGRAM may be a scenario's name of the catalogue, a program file, or ``-``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from spfemu.catalogue import load_scenario, scenario_names
from spfemu.errors import ProgramError
from spfemu.program.files import looks_like_program
from spfemu.program.model import Program
from spfemu.program.values import shown
from spfemu.results import Result
from spfemu.workloads import WORKLOADS, Job, make_job

__all__ = ["Source", "find_source", "load_program", "workload_usage"]

_HEAD: Final = 64


@dataclass(frozen=True, slots=True)
class Source:
    """Where the programs of a run come from.

    Source: ours. ``program(page_size)`` gives one; ``cpus`` are what it asks for; ``job`` is
    the built-in workload, or None.
    """

    label: str
    program: Callable[[int], Program]
    cpus: int
    job: Job | None = None

    def figures(self, result: Result) -> dict[str, int | float]:
        """Returns the workload's own figures, none for a file. Source: the workload."""
        return self.job.figures(result) if self.job is not None else {}

    def replicated(self, copies: int) -> Source:
        """Returns the source of so many copies. Source: ``Program.replicate``.

        Raises ProgramError for a workload, which has an option for that, and where copies do not
        fit.
        """
        if copies == 1:
            return self
        if self.job is not None:
            raise ProgramError(
                f"--replicate {copies}: a workload has its own number of tasks (allowed: with a "
                "program or a trace)"
            )
        program = self.program(0).replicate(copies)
        return Source(
            f"{self.label}, {copies} copies",
            lambda page_size: program,
            program.cpus or len(program.tasks),
        )


def find_source(arguments: Sequence[str], cpus: int | None) -> Source:
    """Returns what the arguments after ``--`` name.

    Source: ours. ``cpus``: how many the machine has, when the user says so. Raises ProgramError or
    TraceError for what is neither a workload nor a readable file.
    """
    label = " ".join(arguments)
    if arguments and arguments[0] in WORKLOADS:
        job = make_job(arguments, cpus=cpus)
        return Source(
            label,
            lambda page_size: job.build(page_size=page_size),
            job.nr_tasks,
            job,
        )
    if len(arguments) == 1 and arguments[0] in scenario_names():
        return _of_program(label, load_scenario(arguments[0]))
    if not arguments or not all(name == "-" or Path(name).exists() for name in arguments):
        missing = next((n for n in arguments if n != "-" and not Path(n).exists()), "")
        allowed = f"{', '.join(WORKLOADS)}; a scenario, a program or trace file; -"
        raise ProgramError(f"workload {shown(missing)} (allowed: {allowed})")
    if len(arguments) == 1 and looks_like_program(_head(arguments[0])):
        return _of_program(label, load_program(arguments[0]))
    return _trace(label, arguments)


def workload_usage(arguments: Sequence[str]) -> str | None:
    """Returns what a built-in workload's options are, when ``-h`` or ``--help`` asks for that.

    Source: the original's usage.
    """
    workload = WORKLOADS.get(arguments[0])
    # "-h" and not a letter of several: no workload has an option of that name.
    if workload is None or not {"-h", "--help"} & set(arguments[1:]):
        return None
    letters = [f"-{option.letter} {option.value}".rstrip() for option in workload.options]
    width = max(map(len, letters))
    texts = [option.help for option in workload.options]
    lines = [f"  {one.ljust(width)}  {text}" for one, text in zip(letters, texts, strict=True)]
    return "\n".join([f"{workload.name}: {workload.summary}", *lines])


def _trace(label: str, paths: Sequence[str]) -> Source:
    from spfemu.importers import import_trace

    imported, _ = import_trace(list(paths))
    # A recording has nobody to say scale_pages, and no use on another arch without.
    return _of_program(label, replace(imported, scale_pages=True))


def _of_program(label: str, program: Program) -> Source:
    return Source(label, lambda page_size: program, program.cpus or len(program.tasks))


def _head(name: str) -> bytes:
    """Returns the first bytes of a file without taking them from standard input."""
    if name == "-":
        stdin: Any = sys.stdin.buffer  # a BufferedReader, which can look ahead
        return bytes(stdin.peek(_HEAD)[:_HEAD])
    try:
        with Path(name).open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise ProgramError(f"{name}: cannot be read: {error.strerror}") from None


def load_program(name: str) -> Program:
    """Loads a program, or says that a trace has to be imported first.

    Source: ours. A scenario's name is that of the catalogue, before any file; ``"-"`` is standard
    input. Raises ProgramError for anything that is no program.
    """
    if name in scenario_names():
        return load_scenario(name)
    if name != "-" and not looks_like_program(_head(name)):
        from spfemu.importers import looks_like_trace

        if looks_like_trace(name):
            raise ProgramError(
                f"{name}: a recorded trace, not a program; make one with "
                f"'spfemu import {name} -o FILE.npz'"
            )
    return Program.load(name)
