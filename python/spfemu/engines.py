"""Running programs: one call for every engine, and the comparison of what came out."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.errors import EngineError, ProgramError
from spfemu.lock_stat import lock_stat_of
from spfemu.machines import Machine, find_machine
from spfemu.profiles import Arch, profile_of
from spfemu.program.messages import placed
from spfemu.program.model import Program
from spfemu.program.ops import OPS, OUTCOME_DTYPE, SPAN_DTYPE, TRACE_DTYPE
from spfemu.program.scale import scale_program
from spfemu.program.values import shown
from spfemu.results import Result

__all__ = [
    "ENGINES",
    "HANDLERS",
    "MECHANISMS",
    "SETTINGS",
    "SIDE_BY_SIDE",
    "TREES",
    "VARIANT_VALUES",
    "Progress",
    "catalogue_names",
    "check_bounded",
    "check_tree",
    "core_list",
    "core_tasks",
    "one_of",
    "prepare",
    "run",
    "source_named",
    "variant_values",
]

ENGINES: Final = ("native", "reference", "vtime", "explore", "kernel")
HANDLERS: Final = ("spf", "classic")
SIDE_BY_SIDE: Final = ("both", "classic", "spf")
"""What commands that compare the handlers may be told."""
TREES: Final = ("rcu", "rwlock")
"""What protects the tree of VMAs where spf looks one up: v12's RCU, or v11's reader-writer lock."""
MECHANISMS: Final = (
    "downgrade",
    "merging",
    "stealing",
    "spinning",
    "reader_groups",
    "lazy_tlb",
)
"""What the kernel in virtual time may do without, to see what it decides; docs/cost-model.md."""
SETTINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "vtime": ("tick_slack_ns", "spreading", *MECHANISMS),
    "kernel": ("timeout_s", "counting", "max_memory"),
}
TAKEN_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "machine": ("vtime",),
    "tree": ENGINES[:-1],
    "trace": ("native", "vtime", "explore"),
    "proc": ENGINES[:-1],
    "spans": ("vtime",),
    "lock_stat": ("vtime",),
}
_MOST_SLACK_NS: Final = 1_000_000
VARIANT_VALUES: Final = ("v12", "fixed")
_REPEAT: Final = OPS["repeat"].code

Progress = Callable[[float], object]
"""Called now and then with the share of the work done, 0 to 1."""


def run(
    program: Program,
    *,
    engine: str = "native",
    handler: str = "spf",
    tree: str = "rcu",
    arch: str | Arch = "x86",
    machine: str | Path | Machine | None = None,
    seed: int = 0,
    cpus: int | None = None,
    pace: bool = False,
    record: bool = True,
    max_outcomes: int = 10_000_000,
    trace: bool = False,
    proc: bool = False,
    spans: bool = False,
    lock_stat: bool = False,
    variants: str | Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Runs a program on an engine and returns what came out.

    The calling thread waits; other Python threads go on. Ctrl-C ends the run. Source: ours (DESIGN
    sections 2 and 5).

    ``engine`` is "native" (real threads), "reference" (the pure-Python specification), "vtime"
    (virtual time), "explore" (one interleaving; ``spfemu.explore`` tries them all) or "kernel" (the
    host's own, see ``spfemu.oracle``); ``handler`` "spf" or "classic" (kernel: its own); ``tree``
    what spf looks VMAs up in, "rcu" (v12) or "rwlock" (v11; not on kernel, and no difference on
    reference); ``arch`` a profile or its name; ``machine`` a machine, its name or file (default:
    the arch's first that has ``cpus``); ``seed`` from 0, which on explore lets each task go on
    until it waits or ends, where others draw who goes on; ``cpus`` from 1 (default: as the engine
    chooses). ``pace``: native spends the time of ``compute`` and ``sleep``. ``record``: keep every
    operation's outcome, of ``max_outcomes`` at most (about 100 bytes each): a run with more is
    refused. ``trace``: keep what the series' tracepoints record, the last 2^22 entries at most
    (native, vtime, explore; see ``trace_lines``). ``proc``: keep what ``/proc/PID`` says of each
    process in the end (not on kernel; see ``Result``). ``spans``: keep the course of the run, the
    first 2^20 entries (vtime; see ``write_perfetto``). ``lock_stat``: count what was waited for
    (vtime). Neither changes anything else. ``variants`` is "v12" or "fixed" for all, or a mapping
    of names to these; the default is the engine's own choice. ``settings`` are further settings of
    the engine (vtime: ``tick_slack_ns``, 0 to 1,000,000; ``spreading``, True for tasks on CPUs far
    from each other first; and the names of ``spfemu.engines.MECHANISMS``, each False for a kernel
    without, as ``downgrade`` for a munmap of before 4.20; kernel: ``timeout_s`` and ``counting``).
    ``progress`` is called with 0 to 1 (0 while a program runs that has a time, not an end); what it
    raises ends the run.

    Raises ProgramError, ProfileError or EngineError for a program or setting that cannot run.
    Determinism: program, engine, settings, seed and version, apart from native's interleaving.

    >>> import spfemu
    >>> program = spfemu.Program.loads('''{"format": "spfemu-program/1", "tasks": [{"ops": [
    ...     {"op": "mmap", "length": "64K", "id": "p"},
    ...     {"op": "touch", "addr": "p", "length": "64K"}]}]}''')
    >>> spfemu.run(program, engine="vtime").counters["faults"]
    16
    """
    _check_names(engine, handler, tree)
    _check_numbers(seed, cpus, max_outcomes)
    switches = {"pace": pace, "record": record, "trace": trace, "proc": proc}
    switches |= {"spans": spans, "lock_stat": lock_stat}
    _check_switches(switches)
    given = switches | {"machine": machine is not None, "tree": tree != TREES[0]}
    _check_takes(engine, given, settings or {})
    profile = profile_of(arch)
    program = prepare(program, profile)
    if engine in ("reference", "explore"):
        check_bounded(program, engine)
    if engine == "reference":
        from spfemu import reference

        return reference.run(
            program,
            handler=handler,
            tree=tree,
            arch=profile,
            seed=seed,
            max_outcomes=max_outcomes,
            proc=proc,
            variants=variant_values(variants),
        )
    if engine == "kernel":
        return _run_kernel(program, profile, seed, record, settings or {}, progress)
    options = {
        "seed": seed,
        "tree": tree,
        "cpus": cpus,
        "machine": None if machine is None else find_machine(machine).to_json(),
        **switches,
        "max_outcomes": max_outcomes,
        "variants": variant_values(variants),
        "note_maps": [list(k) for k, expect in program.expect.items() if "maps_lines" in expect],
        **(settings or {}),
    }
    return _run_core(program, engine, handler, profile, options, progress)


def check_tree(tree: str, handlers: Collection[str]) -> str:
    """Returns the tree if there is such a one, and some handler looks VMAs up in it. Source: ours.

    Raises EngineError, naming what is allowed.
    """
    one_of("tree", tree, TREES)
    if tree != TREES[0] and "spf" not in handlers:
        raise EngineError(f"tree {tree}: handler classic (allowed: spf)")
    return tree


def _check_names(engine: str, handler: str, tree: str) -> None:
    one_of("engine", engine, ENGINES)
    one_of("handler", handler, HANDLERS)
    check_tree(tree, (handler,))


def _check_numbers(seed: int, cpus: int | None, max_outcomes: int) -> None:
    if type(seed) is not int or not 0 <= seed < 1 << 64:
        raise EngineError(f"seed: value {shown(seed)} (allowed: 0 to 2^64-1)")
    if cpus is not None and (type(cpus) is not int or not 0 < cpus < 1 << 32):
        raise EngineError(f"cpus: value {shown(cpus)} (allowed: 1 to 2^32-1)")
    if type(max_outcomes) is not int or not 0 <= max_outcomes < 1 << 64:
        raise EngineError(f"max_outcomes: value {shown(max_outcomes)} (allowed: 0 to 2^64-1)")


def _check_takes(engine: str, given: Mapping[str, bool], settings: Mapping[str, Any]) -> None:
    for what, is_given in given.items():
        if is_given and engine not in TAKEN_BY.get(what, ENGINES):
            raise EngineError(f"{what}: engine {engine} (allowed: {', '.join(TAKEN_BY[what])})")
    for name, value in settings.items():
        one_of("setting", name, SETTINGS.get(engine, ()))
        if name in ("spreading", *MECHANISMS):
            _check_switches({name: value})
        elif name == "tick_slack_ns" and not (type(value) is int and 0 <= value <= _MOST_SLACK_NS):
            allowed = f"0 to {_MOST_SLACK_NS}"
            raise EngineError(f"{name}: value {shown(value)} (allowed: {allowed})")


def _check_switches(switches: Mapping[str, bool]) -> None:
    for name, value in switches.items():
        if type(value) is not bool:
            raise EngineError(f"{name}: value {shown(value)} (allowed: True, False)")


def _run_kernel(
    program: Program,
    profile: Arch,
    seed: int,
    record: bool,
    settings: Mapping[str, Any],
    progress: Progress | None,
) -> Result:
    from spfemu import oracle

    result = oracle.run(program, arch=profile, seed=seed, progress=progress, **settings)
    if record:
        return result
    return replace(result, ops=result.ops[:0], settings={**result.settings, "record": False})


def _run_core(
    program: Program,
    engine: str,
    handler: str,
    profile: Arch,
    options: Mapping[str, Any],
    progress: Progress | None,
) -> Result:
    from spfemu import __version__, _core

    with source_named(program):
        summary_text, outcomes, trace, spans = _core.run(
            engine,
            handler,
            json.dumps(profile.to_dict()),
            core_tasks(program),
            json.dumps(program.meta()),
            json.dumps(options),
            progress,
        )
    summary = json.loads(summary_text)
    return Result(
        program=program,
        engine=engine,
        handler=handler,
        arch=profile.name,
        machine=summary["settings"]["machine"],
        seed=options["seed"],
        elapsed_ns=summary["elapsed_ns"],
        counters=summary["counters"],
        ops=outcomes.view(OUTCOME_DTYPE),
        trace=trace.view(TRACE_DTYPE),
        trace_written=summary["trace_written"],
        maps=summary["maps"],
        proc=summary["proc"],
        spans=spans.view(SPAN_DTYPE),
        span_names=tuple(summary["span_names"]),
        spans_cut=summary["spans_cut"],
        lock_stat=lock_stat_of(summary["lock_stat"]) if options["lock_stat"] else None,
        rounds=tuple(summary["rounds"]),
        noted_ns=tuple(None if noted is None else tuple(noted) for noted in summary["noted_ns"]),
        stuck=tuple(summary["stuck"]),
        settings=summary["settings"],
        version=__version__,
        note_maps={
            (note["task"], note["index"], note["round"]): note["maps"]
            for note in summary.get("note_maps", ())
        },
    )


@contextmanager
def source_named(program: Program) -> Iterator[None]:
    """Puts the program's source before what the core says is wrong with it. Source: ours."""
    try:
        yield
    except ProgramError as error:
        raise ProgramError(f"{program.source}: {error}") from None
    except EngineError as error:
        raise EngineError(placed(program, str(error))) from None


def core_tasks(program: Program) -> list[npt.NDArray[np.uint8]]:
    """Returns the tasks' arrays as the compiled core takes them: bytes. Source: ours."""
    return [task.ops.view(np.uint8) for task in program.tasks]


def one_of(what: str, value: str, allowed: Collection[str]) -> str:
    """Returns the value if it is allowed.

    Source: ours. Raises EngineError, naming what is allowed.
    """
    names = ", ".join(allowed) or "none"
    if value not in allowed:
        raise EngineError(f"{what} {shown(value)} (allowed: {names})")
    return value


def prepare(program: Program, profile: Arch) -> Program:
    """Returns the program as it runs on an arch: itself, or scaled to its page size.

    Source: the program format, ``page_size`` and ``scale_pages``. Raises ProgramError when the
    arch has another page size and the program does not allow scaling.
    """
    if not isinstance(program, Program):
        raise ProgramError(
            f"program: value {shown(program)} (allowed: a Program, from Program.load or build())"
        )
    if program.page_size == profile.page_size:
        return program
    if program.scale_pages:
        return scale_program(program, profile.page_size, profile.task_size)
    raise ProgramError(
        f"{program.source}: key 'page_size': value {program.page_size} (allowed on arch "
        f'{profile.name}: {profile.page_size}, or any with "scale_pages": true)'
    )


def check_bounded(program: Program, engine: str) -> None:
    """Refuses repeats that only the clock ends, on an engine that has none. Source: the format.

    Raises ProgramError with the place.
    """
    for number, task in enumerate(program.tasks):
        ops = task.ops
        endless = (ops["op"] == _REPEAT) & (ops["flags"] == 1) & (ops["length2"] == 0)
        if endless.any():
            place = program.where(number, int(np.argmax(endless)))
            raise ProgramError(
                f"{program.source}: {place}: key 'max_count': missing "
                f"(engine {engine} has no clock)"
            )


def variant_values(variants: str | Mapping[str, str] | None) -> dict[str, str]:
    """Returns the value of each variant that is set, by name.

    Source: ours (DESIGN section 5). Variants may be given by name or by entry, such as B1. Raises
    EngineError for an unknown variant or value.
    """
    if variants is None:
        return {}
    if isinstance(variants, str):
        one_of("variants", variants, VARIANT_VALUES)
        return {entry["name"]: variants for entry in core_list("variants")}
    for name, value in variants.items():
        one_of(f"variant {name}", value, VARIANT_VALUES)
    names = catalogue_names("variant", list(variants))
    return dict(zip(names, variants.values(), strict=True))


def core_list(what: str) -> list[dict[str, Any]]:
    """Returns a catalogue of the compiled core: machines, mutants or variants. Source: the core."""
    from spfemu import _core

    entries: list[dict[str, Any]] = json.loads(getattr(_core, what)())
    return entries


def catalogue_names(what: str, given: Sequence[str]) -> list[str]:
    """Returns the names of mutants or variants that are given by name or by entry, such as A7.

    Source: SPF_V12 section 9 for the entries. ``what`` is "mutant" or "variant". Raises
    EngineError, naming what there is, for another; for A25, which is several, A25a and A25b: at
    once they would hide each other, for the one keeps a reference that the other gives back.
    """
    if not given:
        return []
    names: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for entry in core_list(f"{what}s"):
        names[entry["name"]] = names[entry["entry"]] = entry["name"]
        several.setdefault(entry["entry"].rstrip("abcd"), []).append(entry["entry"])
    for name in given:
        one_of(what, name, names if name in names else several.get(name, names))
    return [names[name] for name in given]
