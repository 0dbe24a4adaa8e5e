"""``spfemu.sweep``: what is asked, checked before anything runs, and run cell by cell."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from spfemu.engines import SIDE_BY_SIDE, Progress, check_tree, one_of
from spfemu.errors import EngineError, ProgramError
from spfemu.machines import Machine, find_machine, machine_names
from spfemu.program.model import Program
from spfemu.program.values import shown
from spfemu.program.writer import json_lines
from spfemu.sweeping.cells import Cell, Workload, digest, file_digest, usual_command
from spfemu.sweeping.numbers import cpu_numbers, doubling
from spfemu.sweeping.store import Store
from spfemu.sweeping.table import Sweep, make_rows
from spfemu.workloads import WORKLOADS

if TYPE_CHECKING:
    from concurrent.futures import Executor

Machines: TypeAlias = str | Path | Machine | Sequence[str | Path | Machine] | None
"""A machine, by its name or file or as one, or several; the first of the package for None."""

__all__ = ["Machines", "Plan", "make_plan", "run_plan", "split_command", "sweep"]


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep that can run: its parts are checked. Source: ours."""

    workload: Workload
    machines: tuple[Machine, ...]
    cpus: tuple[int, ...]
    handlers: tuple[str, ...]
    seeds: range
    tree: str

    def cells(self) -> list[Cell]:
        """Returns the cells: by machine, CPUs, handler and seed. Source: ours."""
        return [
            Cell(
                self.workload,
                machine,
                cpus,
                handler,
                seed,
                self.tree if handler == "spf" else "rcu",
            )
            for machine in self.machines
            for cpus in self.cpus
            for handler in self.handlers
            for seed in self.seeds
        ]

    def keys(self) -> list[str]:
        """Returns what the store knows each cell by. Source: ours."""
        from spfemu import __version__

        return [cell.key(__version__) for cell in self.cells()]

    def nr_finished(self, store: Store) -> int:
        """Returns how many of the cells a store has. Source: ours."""
        return sum(key in store.cells for key in self.keys())


def sweep(
    workload: str | Sequence[str] | Program = "ebizzy",
    *,
    cpus: str | int | Sequence[int] | None = None,
    handler: str = "both",
    tree: str = "rcu",
    machine: Machines = None,
    repeat: int = 1,
    seed: int = 0,
    executor: Executor | None = None,
    jobs: int | None = None,
    keep: str | Path | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Runs a workload in virtual time on several numbers of CPUs, and returns a table.

    Each cell (machine, CPUs, handler, seed) is one ``spfemu.run``; they run side by side. Source:
    ours.

    ``workload`` is a command as the command line takes it after ``--``, in one text or in parts;
    ``{cpus}`` in it stands for the number of CPUs, and a built-in name alone takes one thread for
    each CPU for 0.2 seconds ("ebizzy": ``ebizzy -mTt {cpus} -S 0.2``); or a ``Program``, which has
    the threads it has. ``cpus`` is a list of numbers or a text, "1,2,4..1024" for powers of two,
    "1..8" for each (default: powers of two up to the machine's number). ``handler`` is "both",
    "classic" or "spf", which looks VMAs up in ``tree``, "rcu" (v12) or "rwlock" (v11);
    ``machine`` a name of ``spfemu machines``, a TOML file or a ``Machine``, or
    several of them (default: the first of the package), each of its own name.
    ``repeat``, from 1, runs each cell with as many seeds, from ``seed`` on: values are their mean,
    and ``stddev_pct`` says how they spread. Without ``executor`` the cells run in ``jobs``
    processes of this computer (default: one for each CPU it has; 1: in this process); a script
    that starts these needs the usual ``if __name__ == "__main__"``. With one, any
    ``concurrent.futures.Executor`` whose workers have spfemu installed, they run there. ``keep`` is
    a file for finished cells: the same call goes on where another with it was interrupted; whoever
    has the table may remove it. ``progress`` is called with 0 to 1.

    Raises ProgramError, EngineError, ProfileError or TraceError before anything runs. Determinism:
    the table depends on the arguments and the version, not on who runs the cells.

    >>> import spfemu
    >>> table = spfemu.sweep("brk1 -t {cpus} -s 1e-4", cpus="1,2", handler="spf", jobs=1)
    >>> [(row.ncpus, row.variant, row.metric) for row in table.rows if row.unit == "operations/s"]
    [(1, 'spf', 'operations/s'), (2, 'spf', 'operations/s')]
    """
    plan = make_plan(workload, cpus, handler, machine, repeat, seed, tree)
    if jobs is not None and (type(jobs) is not int or jobs < 1):
        raise EngineError(f"jobs: value {shown(jobs)} (allowed: 1 and more)")
    if jobs is not None and executor is not None:
        raise EngineError(f"jobs: value {shown(jobs)} (allowed: without executor)")
    if executor is not None and not hasattr(executor, "submit"):
        raise EngineError(
            f"executor: value {shown(executor)} (allowed: a concurrent.futures.Executor)"
        )
    with _kept(keep) as store:
        return run_plan(plan, store, executor=executor, jobs=jobs, progress=progress)


@contextmanager
def _kept(path: str | Path | None) -> Iterator[Store | None]:
    if path is None:
        yield None
        return
    with Store(path) as store:
        yield store


def make_plan(
    workload: str | Sequence[str] | Program,
    cpus: str | int | Sequence[int] | None,
    handler: str,
    machine: Machines,
    repeat: int,
    seed: int,
    tree: str,
) -> Plan:
    """Returns the plan of a sweep. Source: ours. Raises what ``sweep`` raises before it runs."""
    machines = _machines(machine)
    one_of("handler", handler, SIDE_BY_SIDE)
    smallest = min(machines, key=lambda one: one.cpus)
    most = smallest.cpus
    numbers = doubling(most) if cpus is None else cpu_numbers(cpus, most, smallest.name)
    if type(repeat) is not int or not 1 <= repeat <= 1 << 20:
        raise EngineError(f"repeat: value {shown(repeat)} (allowed: 1 to {1 << 20})")
    if type(seed) is not int or not 0 <= seed <= (1 << 64) - repeat:
        allowed = f"0 to {(1 << 64) - repeat}"
        raise EngineError(f"seed: value {shown(seed)} (allowed with {repeat} of them: {allowed})")
    handlers = ("classic", "spf") if handler == "both" else (handler,)
    plan = Plan(
        _workload(workload),
        machines,
        numbers,
        handlers,
        range(seed, seed + repeat),
        check_tree(tree, handlers),
    )
    for number in numbers:
        plan.workload.source(number)
    return plan


def _machines(given: Machines) -> tuple[Machine, ...]:
    if isinstance(given, str | Path | Machine):
        given = [given]
    machines = tuple(dict.fromkeys(map(find_machine, given or machine_names()[:1])))
    # A row of the table has the name only.
    for name, number in Counter(machine.name for machine in machines).items():
        if number > 1:
            raise EngineError(f"machine {shown(name)}: {number} that differ (allowed: other names)")
    return machines


def _workload(given: str | Sequence[str] | Program) -> Workload:
    if isinstance(given, Program):
        text = "\n".join(json_lines(given))
        return Workload((given.source,), given, digest(text.encode()))
    command = split_command(given) if isinstance(given, str) else tuple(given)
    if not command:
        raise ProgramError("no workload (allowed: a command, as in ebizzy -mTt {cpus} -S 0.2)")
    if len(command) == 1 and command[0] in WORKLOADS:
        command = split_command(usual_command(command[0]))
    if command[0] in WORKLOADS:
        return Workload(command)
    if "-" in command:
        raise ProgramError('workload "-" (allowed: files, which each cell can read anew)')
    workload = Workload(command)
    workload.source(1)
    return Workload(command, digest=file_digest(command))


def split_command(text: str) -> tuple[str, ...]:
    """Returns the parts of a command, as a shell takes it. Source: POSIX.

    Raises ProgramError for a quotation without an end.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ProgramError(f"workload {shown(text)}: {str(error).lower()}") from None


def run_plan(
    plan: Plan,
    store: Store | None,
    *,
    executor: Executor | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Runs the cells of a plan that the store does not have, and returns the table of all.

    Source: ours.
    """
    from spfemu import __version__
    from spfemu.sweeping.pool import local_jobs, run_cells

    cells = plan.cells()
    keys = plan.keys()
    known = {} if store is None else store.cells
    outcomes = [known.get(key) for key in keys]
    to_do = [number for number, outcome in enumerate(outcomes) if outcome is None]
    share = _Share(cells, to_do, progress)
    waiting = [cells[number] for number in to_do]
    part = None if progress is None else share.part
    with closing(run_cells(waiting, executor, jobs or local_jobs(), part)) as running:
        for place, outcome in running:
            number = to_do[place]
            outcomes[number] = outcome
            if store is not None:
                store.add(keys[number], outcome)
            share.done(number)
    finished = [(c, o) for c, o in zip(cells, outcomes, strict=True) if o is not None]
    return Sweep(make_rows(finished, __version__), label=plan.workload.label)


class _Share:
    """How much of a sweep is done; a cell counts as much as it has CPUs, for so long it takes."""

    def __init__(
        self, cells: Sequence[Cell], to_do: Sequence[int], progress: Progress | None
    ) -> None:
        self.cpus = [cell.cpus for cell in cells]
        self.to_do = to_do
        self.progress = progress
        self.finished = sum(self.cpus) - sum(self.cpus[number] for number in to_do)
        self._tell(0)

    def done(self, number: int) -> None:
        """Takes note of a finished cell."""
        self.finished += self.cpus[number]
        self._tell(0)

    def part(self, place: int, share: float) -> None:
        """Takes note of how far one of those to do has got."""
        self._tell(share * self.cpus[self.to_do[place]])

    def _tell(self, more: float) -> None:
        if self.progress is not None:
            self.progress((self.finished + more) / sum(self.cpus))
