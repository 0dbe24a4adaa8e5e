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
from spfemu.profiles import Arch, profile_of
from spfemu.program.model import Program
from spfemu.program.values import shown
from spfemu.results import RESULT_FORMAT

__all__ = ["PREEMPTIONS", "SCHEDULES", "STEPS", "STRATEGIES", "explore"]

STRATEGIES: Final = ("dfs", "random", "pct")
PREEMPTIONS: Final = 2
"""How many preemptions a schedule of ``dfs`` has at most, unless told otherwise."""
SCHEDULES: Final = 10_000
"""How many schedules ``random`` and ``pct`` run, unless told otherwise."""
STEPS: Final = 1_000_000
"""How many accesses, and how many operations, a schedule has at most, unless told otherwise."""


def explore(
    program: Program,
    *,
    arch: str | Arch = "x86",
    tree: str = "rcu",
    strategy: str = "dfs",
    mutants: str | Sequence[str] = (),
    variants: Mapping[str, str] | None = None,
    variants_default: str = "v12",
    memory_model: str = "sc",
    schedules: int | None = None,
    preemptions: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    replay: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Explores the interleavings of a program's tasks and reports the invariants that break.

    Source: ours (DESIGN sections 2.1 and 5). ``tree`` is "rcu" or "rwlock", as for ``spfemu.run``;
    ``strategy`` is "dfs" (every schedule within the
    bounds), "random" or "pct"; ``mutants`` are checks to leave out, by name or entry (A7);
    ``variants`` sets single variants, ``variants_default`` ("v12", "fixed") all others;
    ``memory_model`` is "sc". The bounds: ``preemptions`` within one schedule (dfs only; default
    ``PREEMPTIONS``, 2), ``schedules`` in all (default: none for dfs, else ``SCHEDULES``, 10,000),
    ``steps`` of one schedule, counted in accesses and in operations (``STEPS``, 1,000,000; what is
    longer is cut short). ``seed`` fixes random choices. ``replay`` runs the one schedule of a
    token.

    Returns the JSON object of the result (docs/command-line.md): among others ``schedules``,
    ``complete`` (every schedule within the bounds was covered), ``settings`` with the bounds, and
    ``violations``, each with ``invariant``, ``entry``, ``token`` and ``timeline``. Raises
    ProgramError, ProfileError or EngineError for what cannot be explored. Determinism: all
    arguments and the version.

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
    from spfemu import __version__, _core

    profile = profile_of(arch)
    program = prepare(program, profile)
    check_bounded(program, "explore")
    settings: dict[str, Any] = {
        **_bounds(strategy, schedules, preemptions, steps, replay),
        "mutants": catalogue_names("mutant", [mutants] if isinstance(mutants, str) else mutants),
        "variants": variant_values(variants),
        "variants_default": variants_default,
        "memory_model": memory_model,
        "tree": one_of("tree", tree, TREES),
    }
    _check("seed", seed, 0, (1 << 64) - 1)
    options = {
        **settings,
        "strategy": strategy,
        "preemptions": settings["preemptions"] or 0,
        "seed": seed,
        "replay": replay,
    }
    with source_named(program):
        text = _core.explore(
            json.dumps(profile.to_dict()),
            core_tasks(program),
            json.dumps(program.meta()),
            json.dumps(options),
            progress,
        )
    found: dict[str, Any] = json.loads(text)
    return {
        "format": RESULT_FORMAT,
        "version": __version__,
        "engine": "explore",
        "handler": "spf",
        "arch": profile.name,
        "seed": seed,
        **found,
        "settings": settings,
    }


def _bounds(
    strategy: str, schedules: int | None, preemptions: int | None, steps: int, replay: str | None
) -> dict[str, Any]:
    """Returns what bounds the search, the defaults filled in. Source: ours."""
    one_of("strategy", strategy, STRATEGIES)
    if preemptions is not None and strategy != "dfs":
        raise EngineError(f"preemptions: value {preemptions} (allowed: only with strategy dfs)")
    _check("steps", steps, 1, (1 << 64) - 1)
    if replay is not None:
        return {"strategy": "replay", "preemptions": None, "schedules": None, "steps": steps}
    if strategy == "dfs" and preemptions is None:
        preemptions = PREEMPTIONS
    if strategy != "dfs" and schedules is None:
        schedules = SCHEDULES
    if preemptions is not None:
        _check("preemptions", preemptions, 0, (1 << 32) - 1)
    if schedules is not None:
        _check("schedules", schedules, 1, (1 << 64) - 1)
    return {
        "strategy": strategy,
        "preemptions": preemptions,
        "schedules": schedules,
        "steps": steps,
    }


def _check(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise EngineError(f"{name}: value {shown(value)} (allowed: {low} to {high})")
