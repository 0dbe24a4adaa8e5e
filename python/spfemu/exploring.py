"""Exploring interleavings: the Python door to the explorer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spfemu.engines import (
    Progress,
    catalogue_names,
    check_bounded,
    core_tasks,
    prepare,
    variant_values,
)
from spfemu.profiles import Arch
from spfemu.profiles import arch as arch_by_name
from spfemu.program.model import Program

__all__ = ["explore"]


def explore(
    program: Program,
    *,
    arch: str | Arch = "x86",
    strategy: str = "dfs",
    mutants: Sequence[str] = (),
    variants: Mapping[str, str] | None = None,
    variants_default: str = "v12",
    memory_model: str = "sc",
    schedules: int | None = None,
    preemptions: int | None = None,
    seed: int = 0,
    replay: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Explores the interleavings of a program's tasks and reports the invariants that break.

    Source: ours (DESIGN sections 2.1 and 5). ``strategy`` is "dfs" (every schedule within the
    bounds), "random" or "pct"; ``mutants`` are checks to leave out, by name or entry (A7);
    ``variants`` sets single variants, ``variants_default`` ("v12", "fixed") all others;
    ``memory_model`` is "sc". ``schedules`` bounds their number (default: none for dfs, else
    10,000), ``preemptions`` those within one (default: 2); ``seed`` fixes random choices.
    ``replay`` runs the one schedule of a token.

    Returns the JSON object of the result: ``schedules``, ``complete`` (the whole space within the
    bounds was covered), ``steps`` and ``violations``, each with ``invariant``, ``entry``, ``token``
    and ``timeline``. Raises ProgramError, ProfileError or EngineError for what cannot be explored.
    Determinism: all arguments and the version.

    >>> import spfemu
    >>> builder = spfemu.ProgramBuilder()
    >>> first = builder.task("first")
    >>> first.mmap(4096, id="p")
    >>> first.write("p")
    >>> first.clone("second")
    >>> first.munmap("p", 4096)
    >>> builder.task("second", "clone").write("p", 2)
    >>> found = spfemu.explore(builder.build(), variants_default="fixed")
    >>> found["complete"], found["violations"]
    (True, [])
    """
    from spfemu import _core

    profile = arch_by_name(arch) if isinstance(arch, str) else arch
    program = prepare(program, profile)
    check_bounded(program, "explore")
    options = {
        "strategy": strategy,
        "mutants": catalogue_names("mutant", mutants),
        "variants": variant_values(variants),
        "variants_default": variants_default,
        "memory_model": memory_model,
        "schedules": schedules,
        "preemptions": preemptions,
        "seed": seed,
        "replay": replay,
    }
    exploration: dict[str, Any] = json.loads(
        _core.explore(
            json.dumps(profile.to_dict()),
            core_tasks(program),
            json.dumps(program.meta()),
            json.dumps(options),
            progress,
        )
    )
    return exploration
