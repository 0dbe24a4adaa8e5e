"""Results: what a run came to, the same for every engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.lock_stat import LockStat
from spfemu.program.expect import ERRNOS, HANDLED, SI_CODES, SIGNALS
from spfemu.program.model import Program
from spfemu.program.ops import EVENTS, OPS_BY_CODE, OUTCOME_DTYPE, SPAN_DTYPE, TRACE_DTYPE

__all__ = [
    "ERRNO_NAMES",
    "EVENTS",
    "HANDLED",
    "OUTCOME_DTYPE",
    "RESULT_FORMAT",
    "SIGNAL_NAMES",
    "Result",
    "errno_name",
    "si_code_name",
    "signal_name",
]

RESULT_FORMAT: Final = "spfemu-result/1"

ERRNO_NAMES: Final = {number: name for name, number in ERRNOS.items()}
SIGNAL_NAMES: Final = {number: name for name, number in SIGNALS.items()}

_VMSTAT: Final = ("pgfault", "pgmajfault", "speculative_pgfault")
_HAS_RET: Final = 1
_HAS_VALUE: Final = 2
_AT_ONCE: Final = 4096
_COLUMNS: Final = (
    "task", "index", "round", "op", "has", "ret", "errno", "signal", "si_code", "value", "handled",
    "livelock", "access",
)  # fmt: skip
_NAMES: Final = {code: op.name for code, op in OPS_BY_CODE.items()}


def errno_name(number: int) -> str | None:
    """Returns the name of an errno, None for 0. Source: Linux, ``errno(3)``.

    >>> from spfemu.results import errno_name
    >>> errno_name(12), errno_name(0)
    ('ENOMEM', None)
    """
    if number == 0:
        return None
    return ERRNO_NAMES.get(number, f"E{number}")


def signal_name(number: int) -> str | None:
    """Returns the name of a signal, None for 0. Source: Linux, ``signal(7)``."""
    if number == 0:
        return None
    return SIGNAL_NAMES.get(number, f"SIG{number}")


def si_code_name(signal: int, code: int) -> str | None:
    """Returns the name of a signal's si_code, None without a signal.

    Source: Linux, ``sigaction(2)``.
    """
    name = signal_name(signal)
    if name is None:
        return None
    for text, number in SI_CODES.get(name, {}).items():
        if number == code:
            return text
    return f"{name}:{code}"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What one run of a program came to.

    Source: ours (the JSON form: the command line's ``--json``). ``counters`` has every event of
    ``EVENTS``, zeros included; ``ops`` is an array of ``OUTCOME_DTYPE``, shape (outcomes,): task by
    task, each task's in the order it ran them; empty without ``record``. ``maps`` maps each
    process, named by its first task and in the program's order, to its final VMAs, "start-end perms
    offset". ``rounds`` has
    for each task the finished rounds of its ``for_ns`` repeats. ``noted_ns``, on native and vtime,
    has for each task when its first ``note`` and its last were, as ``elapsed_ns``, or None.
    ``stuck`` names the tasks that wait
    for ever. ``note_maps`` maps (task number, record index, round) of a ``note`` that states
    ``maps_lines`` to the VMAs of that moment. ``elapsed_ns`` is real time on native, virtual time
    on vtime and 0 on the reference and on explore. ``turns``, on the kernel engine only, says whose
    outcomes came after each other: (task number, how many). ``trace`` is an array of
    ``TRACE_DTYPE``, shape (entries,), in order of time, with ``trace`` only; ``trace_written`` says
    how many entries there ever were. ``proc``, with ``proc`` only, maps each process to the lines
    of its ``smaps`` and ``status`` in the end, as far as docs/semantics.md says; ``vmstat`` has
    those of ``/proc/vmstat``. ``spans``, with ``spans`` only, is the course of a run in virtual
    time: an array of ``SPAN_DTYPE``, shape (entries,), whose names are in ``span_names``;
    ``spans_cut`` says that the run went on after the last. ``lock_stat``, with ``lock_stat`` only,
    says what was waited for.

    Determinism: program, engine, seed, settings and version fix everything but, on native, the
    elapsed time and the interleaving.
    """

    program: Program
    engine: str
    handler: str
    arch: str
    machine: str | None
    seed: int
    elapsed_ns: int
    counters: Mapping[str, int]
    ops: npt.NDArray[np.void]
    maps: Mapping[str, list[str]] = field(default_factory=dict)
    rounds: tuple[int, ...] = ()
    noted_ns: tuple[tuple[int, int] | None, ...] = ()
    stuck: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    note_maps: Mapping[tuple[int, int, int], list[str]] = field(default_factory=dict)
    turns: tuple[tuple[int, int], ...] = ()
    trace: npt.NDArray[np.void] = field(default_factory=lambda: np.empty(0, TRACE_DTYPE))
    trace_written: int = 0
    proc: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    spans: npt.NDArray[np.void] = field(default_factory=lambda: np.empty(0, SPAN_DTYPE))
    span_names: tuple[str, ...] = ()
    spans_cut: bool = False
    lock_stat: LockStat | None = None

    def __post_init__(self) -> None:
        complete = {event: int(self.counters.get(event, 0)) for event in EVENTS}
        object.__setattr__(self, "counters", complete)
        for name in ("maps", "proc"):
            of_process = getattr(self, name)
            in_order = {
                t.name: of_process[t.name] for t in self.program.tasks if t.name in of_process
            }
            object.__setattr__(self, name, in_order)
        ops = self.ops
        if len(ops) > 1 and (np.diff(ops["task"].astype(np.int64)) < 0).any():
            ops = ops[np.argsort(ops["task"], kind="stable")]
        ops = ops.view()
        ops.flags.writeable = False
        object.__setattr__(self, "ops", ops)

    def task_ops(self, task: int | str) -> npt.NDArray[np.void]:
        """Returns the outcomes of one task, by number or name, in the order it ran them.

        Source: ours. An array of ``OUTCOME_DTYPE``, shape (outcomes of that task,).
        """
        if isinstance(task, str):
            task = [known.name for known in self.program.tasks].index(task)
        first, last = np.searchsorted(self.ops["task"], [task, task + 1])
        return self.ops[first:last]

    def outcome(self, record: np.void) -> dict[str, Any]:
        """Returns one outcome as the JSON form's object. Source: the command line's ``--json``."""
        return next(self._objects(np.array([record], dtype=OUTCOME_DTYPE)))

    def outcomes(self) -> Iterator[dict[str, Any]]:
        """Yields every outcome as the JSON form's object, in program order.

        Source: the command line's ``--json``.
        """
        for start in range(0, len(self.ops), _AT_ONCE):
            yield from self._objects(self.ops[start : start + _AT_ONCE])

    def _objects(self, records: npt.NDArray[np.void]) -> Iterator[dict[str, Any]]:
        """Yields the objects of some records: column by column, which is ten times as fast."""
        columns = [records[name].tolist() for name in _COLUMNS]
        size = OUTCOME_DTYPE["counters"].itemsize
        counters = np.ascontiguousarray(records["counters"]).view(f"V{size}")[:, 0].tolist()
        known: dict[bytes, dict[str, int]] = {}
        tasks = [task.name for task in self.program.tasks]
        for row in zip(*columns, counters, strict=True):
            task, index, turn, op, has, ret, errno, signal, code, value, *others, counts = row
            handled, livelock, access = others
            if counts not in known:
                numbers = np.frombuffer(counts, dtype=OUTCOME_DTYPE["counters"].base).tolist()
                pairs = zip(EVENTS, numbers, strict=True)
                known[counts] = {event: count for event, count in pairs if count}
            name = _NAMES[op]
            obj: dict[str, Any] = {
                "task": tasks[task],
                "index": index,
                "round": turn,
                "op": name,
                "ret": ret if has & _HAS_RET else None,
                "errno": errno_name(errno),
                "signal": signal_name(signal),
                "si_code": si_code_name(signal, code),
                "value": value if has & _HAS_VALUE else None,
                "handled": HANDLED[handled],
                "counters": known[counts].copy(),
                "livelock": bool(livelock),
            }
            if name == "touch":
                obj["access"] = access
            yield obj

    @property
    def vmstat(self) -> list[str]:
        """The lines of ``/proc/vmstat`` that count faults. Source: Linux 5.1, mm/vmstat.c; P27.

        >>> import spfemu
        >>> builder = spfemu.ProgramBuilder()
        >>> builder.task().mmap(4096, id="p")
        >>> spfemu.run(builder.build(), engine="reference").vmstat
        ['pgfault 0', 'pgmajfault 0', 'speculative_pgfault 0']
        """
        return [f"{name} {self.counters[name]}" for name in _VMSTAT]

    def header(self) -> dict[str, Any]:
        """Returns what every JSON result carries: format, version, engine, …, settings.

        Source: the command line's ``--json``.
        """
        return {
            "format": RESULT_FORMAT,
            "version": self.version,
            "engine": self.engine,
            "handler": self.handler,
            "arch": self.arch,
            "machine": self.machine,
            "seed": self.seed,
            "elapsed_ns": self.elapsed_ns,
            "counters": dict(self.counters),
            "settings": dict(self.settings),
        }

    def tail(self) -> dict[str, Any]:
        """Returns what stands after the outcomes in the JSON form: maps, rounds, stuck; and proc.

        Source: the command line's ``--json``.
        """
        proc = {name: dict(text) for name, text in self.proc.items()}
        return {
            "maps": {name: list(lines) for name, lines in self.maps.items()},
            "rounds": list(self.rounds),
            "stuck": list(self.stuck),
            **({"proc": proc} if proc else {}),
        }

    def to_json(self) -> dict[str, Any]:
        """Returns the whole result as JSON values, ``spfemu-result/1``.

        Source: the command line's ``--json``.
        """
        return {**self.header(), "ops": list(self.outcomes()), **self.tail()}
