"""Exploring interleavings: the Python door to the explorer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from spfemu.engines import (
    TREES,
    Progress,
    catalogue_names,
    check_bounded,
    core_tasks,
    one_of,
    prepare,
    source_named,
    variant_values,
)
from spfemu.errors import EngineError
from spfemu.invariants import why
from spfemu.profiles import Arch, profile_of
from spfemu.program.model import Program
from spfemu.program.values import shown
from spfemu.results import RESULT_FORMAT

__all__ = [
    "DEPTH",
    "HAZARDS",
    "MEMORY_MODELS",
    "PREEMPTIONS",
    "SCHEDULES",
    "STEPS",
    "STRATEGIES",
    "explore",
    "hazard_names",
]

STRATEGIES: Final = ("dfs", "random", "pct", "coverage", "guided")
MEMORY_MODELS: Final = ("sc", "tso", "armv8", "power")
_MODEL_OF: Final = {"x86": "tso", "arm64": "armv8", "powerpc": "power"}
HAZARDS: Final = ("tlb-eviction", "tlb-refill", "failed-allocation", "softirq")
"""What can happen besides interleaving, if asked for."""
PREEMPTIONS: Final = 2
"""How many preemptions a schedule of ``dfs`` has at most, unless told otherwise."""
SCHEDULES: Final = 10_000
"""How many schedules ``random``, ``pct`` and ``coverage`` run, unless told otherwise."""
DEPTH: Final = 3
"""How many ordering constraints a bug has that ``pct`` is made for, unless told otherwise."""
STEPS: Final = 1_000_000
"""How many accesses, and how many operations, a schedule has at most, unless told otherwise."""
_MAX_WORKERS: Final = 1024


def explore(
    program: Program,
    *,
    arch: str | Arch = "x86",
    tree: str = "rcu",
    strategy: str = "dfs",
    mutants: str | Sequence[str] = (),
    variants: Mapping[str, str] | None = None,
    variants_default: str = "v12",
    memory_model: str | None = None,
    hazards: str | Sequence[str] = (),
    schedules: int | None = None,
    preemptions: int | str | None = None,
    steps: int = STEPS,
    depth: int | None = None,
    schedule: Sequence[int] | None = None,
    reduction: bool = True,
    seed: int = 0,
    replay: str | None = None,
    races: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Explores the interleavings of a program's tasks and reports the invariants that break.

    Source: ours (DESIGN sections 2.1 and 5). ``tree`` is "rcu" or "rwlock", as for ``spfemu.run``;
    ``strategy`` is "dfs" (every schedule within the bounds; without ``reduction`` those too that
    differ only in the order of steps that have nothing to do with each other), "random", "pct" (for
    bugs of ``depth`` ordering constraints, default ``DEPTH``, 3), "coverage" (schedules close to
    those in which something new raced) or "guided": the one of ``schedule``, whose n-th number is
    for the n-th moment at which several tasks can go on: 0 for the one that ran (if it waits, the
    next in the program), k for the k-th other one, counted round and round; 0 for moments beyond.
    Hypothesis can draw and shrink such a list. ``mutants`` are checks to leave out, by name or
    entry (A7); ``variants`` sets single variants, ``variants_default`` ("v12", "fixed") all others;
    ``memory_model`` says in which order CPUs see stores: "sc" (sequential consistency), "tso",
    "armv8" or "power"; by default as the arch's do: "tso" on x86, "armv8" on arm64, "power" on
    powerpc. ``hazards`` lets happen what is no interleaving, of ``HAZARDS``, or
    "all": "tlb-eviction" (a CPU forgets a translation that it is about to use), "tlb-refill" (it
    looks one up long before the access), "failed-allocation", "softirq" (a grace period ends, and
    its callbacks run, while every task is in the middle of an operation); each time it does counts
    as a preemption. The bounds: ``preemptions`` within one schedule (dfs only; "all" is
    no bound; default ``PREEMPTIONS``, 2), ``schedules`` in all (default: none for dfs, else
    ``SCHEDULES``, 10,000), ``steps`` of one schedule, counted in accesses and in operations
    (``STEPS``, 1,000,000; what is longer is cut short). ``seed`` fixes random choices.
    ``replay`` runs the one schedule of a token, and comes to all of its choices. ``races``: also
    return ``races``, a number for each kind of pair of accesses that raced, the same in every
    program (not with dfs). ``workers`` threads (1 to 1024; default: one for each CPU that the
    process may use) share the work of "random", "pct", "coverage" and "dfs"; the result does not
    depend on it. One does it all with ``preemptions="all"``, without ``reduction``, or with
    ``schedules`` for dfs.

    Returns the JSON object of the result (docs/command-line.md): among others ``schedules``,
    ``complete`` (for every schedule within the bounds one was run that differs from it only in the
    order of steps that have nothing to do with each other), ``settings`` with the bounds, and
    ``violations``, each with ``invariant``, ``entry``, ``why``, ``token`` and ``timeline``. Raises
    ProgramError, ProfileError or EngineError for what cannot be explored, a token whose choices are
    not come to included, and KeyboardInterrupt with the result so far in its attribute ``so_far``.
    Determinism: all arguments but ``workers``, and the version.

    >>> import spfemu
    >>> builder = spfemu.ProgramBuilder()
    >>> first = builder.task("first")
    >>> first.mmap(4096, id="p")
    >>> first.write("p")
    >>> first.clone("second")
    >>> first.munmap("p", 4096)
    >>> builder.task("second", "clone").write("p", 2)
    >>> found = spfemu.explore(builder.build(), variants_default="fixed")
    >>> found["complete"], found["settings"]["preemptions"], found["violations"]
    (True, 2, [])
    """
    from spfemu import __version__

    profile = profile_of(arch)
    check_bounded(program := prepare(program, profile), "explore")
    settings: dict[str, Any] = {
        **_bounds(strategy, schedules, preemptions, steps, replay),
        **_choices(strategy, depth, schedule, reduction, replay),
        "mutants": catalogue_names("mutant", _several(mutants)),
        "variants": variant_values(variants),
        "variants_default": variants_default,
        "memory_model": one_of(
            "memory model", memory_model or _MODEL_OF[profile.family], MEMORY_MODELS
        ),
        "hazards": hazard_names(hazards),
        "tree": one_of("tree", tree, TREES),
    }
    _check("seed", seed, 0, (1 << 64) - 1)
    options = {**_told(settings), "strategy": strategy, "seed": seed, "replay": replay}
    options["races"] = _races(races, strategy, replay)
    options["workers"] = _workers(workers)
    text, interrupt = _searched(program, profile, options, progress)
    result = {
        "format": RESULT_FORMAT,
        "version": __version__,
        "engine": "explore",
        "handler": "spf",
        "arch": profile.name,
        "seed": seed,
        **_completed(json.loads(text), races, steps),
        "settings": settings,
    }
    if interrupt is not None:
        vars(interrupt)["so_far"] = result
        raise interrupt
    return result


def _searched(
    program: Program, profile: Arch, options: Mapping[str, Any], progress: Progress | None
) -> tuple[str, KeyboardInterrupt | None]:
    """Returns what the core found, and what ended it before its time. Source: ours."""
    from spfemu import _core

    with source_named(program):
        try:
            text = _core.explore(
                json.dumps(profile.to_dict()),
                core_tasks(program),
                json.dumps(program.meta()),
                json.dumps(options),
                progress,
            )
        except KeyboardInterrupt as interrupt:
            # The core has left what it had, unless it was not at work.
            if "so_far" not in vars(interrupt):
                raise
            return vars(interrupt)["so_far"], interrupt
    return text, None


def _completed(found: dict[str, Any], races: bool, steps: int) -> dict[str, Any]:
    """Returns what the core found, with why; and what raced, if that is wanted.

    Source: ours. Raises EngineError for a token whose choices are not all there.
    """
    if not races:
        del found["races"]
    for violation in found["violations"]:
        if violation["invariant"] == "replay":
            cut = f", cut short after {steps:,} steps" if found["too_long"] else ""
            raise EngineError(
                f"replay: the token does not lead through this program: {violation['what']}{cut}"
            )
        violation["why"] = why(violation["invariant"], violation["entry"])
    return found


def hazard_names(given: str | Sequence[str]) -> list[str]:
    """Returns the hazards that are asked for, each once and in the order of ``HAZARDS``.

    Source: ours. Raises EngineError for what is none.
    """
    names = {one_of("hazard", name, (*HAZARDS, "all")) for name in _several(given)}
    return [name for name in HAZARDS if name in names or "all" in names]


def _several(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _races(wanted: bool, strategy: str, replay: str | None) -> bool:
    if wanted and strategy == "dfs" and replay is None:
        raise EngineError("races: value True (allowed: not with strategy dfs)")
    return wanted


def _workers(wanted: int | None) -> int:
    if wanted is None:
        # Only here: what it imports takes as long as a small search.
        from spfemu.sweeping.pool import local_jobs

        return min(local_jobs(), _MAX_WORKERS)
    _check("workers", wanted, 1, _MAX_WORKERS)
    return wanted


def _bounds(
    strategy: str,
    schedules: int | None,
    preemptions: int | str | None,
    steps: int,
    replay: str | None,
) -> dict[str, Any]:
    """Returns what bounds the search, the defaults filled in. Source: ours."""
    one_of("strategy", strategy, STRATEGIES)
    if preemptions is not None and strategy != "dfs":
        what = f"preemptions: value {shown(preemptions)} (allowed: only with strategy dfs)"
        raise EngineError(what)
    _check("steps", steps, 1, (1 << 64) - 1)
    if replay is not None:
        return {"strategy": "replay", "preemptions": None, "schedules": None, "steps": steps}
    if strategy == "dfs" and preemptions is None:
        preemptions = PREEMPTIONS
    if strategy == "guided" and schedules not in (None, 1):
        raise EngineError(f"schedules: value {shown(schedules)} (allowed with strategy guided: 1)")
    if strategy not in ("dfs", "guided") and schedules is None:
        schedules = SCHEDULES
    if isinstance(preemptions, str) and preemptions != "all":
        raise EngineError(f"preemptions: value {shown(preemptions)} (allowed: a number, or 'all')")
    if isinstance(preemptions, int):
        _check("preemptions", preemptions, 0, (1 << 32) - 1)
    if schedules is not None:
        _check("schedules", schedules, 1, (1 << 64) - 1)
    return {
        "strategy": strategy,
        "preemptions": preemptions,
        "schedules": schedules,
        "steps": steps,
    }


def _choices(
    strategy: str,
    depth: int | None,
    schedule: Sequence[int] | None,
    reduction: bool,
    replay: str | None,
) -> dict[str, Any]:
    """Returns how schedules are chosen, the defaults filled in. Source: ours."""
    if depth is not None and strategy != "pct":
        raise EngineError(f"depth: value {shown(depth)} (allowed: only with strategy pct)")
    if schedule is not None and strategy != "guided":
        raise EngineError("schedule: given (allowed: only with strategy guided)")
    if not reduction and strategy != "dfs":
        raise EngineError("reduction: value False (allowed: only with strategy dfs)")
    if schedule is None and strategy == "guided" and replay is None:
        raise EngineError("schedule: missing (needed with strategy guided)")
    if strategy == "pct" and depth is None:
        depth = DEPTH
    if depth is not None:
        _check("depth", depth, 1, 1000)
    for nth, choice in enumerate(schedule or ()):
        _check(f"schedule[{nth}]", choice, 0, (1 << 32) - 1)
    return {
        "depth": depth,
        "schedule": None if schedule is None else list(schedule),
        "reduction": reduction,
    }


def _told(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings as the core is told them. Source: ours."""
    preemptions = None if settings["preemptions"] == "all" else settings["preemptions"]
    depth, schedule = settings["depth"] or DEPTH, settings["schedule"] or []
    return {**settings, "preemptions": preemptions, "depth": depth, "schedule": schedule}


def _check(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise EngineError(f"{name}: value {shown(value)} (allowed: {low} to {high})")
