"""One fault, step by step: what each check of the handler compared, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from spfemu.engines import (
    HANDLERS,
    TREES,
    Progress,
    check_bounded,
    check_tree,
    core_tasks,
    one_of,
    prepare,
    source_named,
    variant_values,
)
from spfemu.errors import EngineError, ProgramError
from spfemu.profiles import Arch, profile_of
from spfemu.program.model import Program
from spfemu.program.ops import EVENTS
from spfemu.program.values import shown
from spfemu.results import OUTCOME_DTYPE, Result

__all__ = ["explain"]

_MAX_OUTCOMES = 10_000_000
_FAULTS = EVENTS.index("faults")


def explain(
    program: Program,
    *,
    fault: int | None = None,
    arch: str | Arch = "x86",
    handler: str = "spf",
    tree: str = "rcu",
    seed: int = 0,
    variants: str | Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Runs a program once, as engine explore does, and says what one of its faults did.

    The steps are those that the handler took, recorded as it ran: its accesses with what they read
    and wrote, the checks of docs/protocol.md with what they compared, and what others did
    meanwhile. Source: ours. ``fault`` counts from 1, in the order in which faults begin (default:
    the last); the rest is as for ``spfemu.run``.

    Returns the JSON object of the result (docs/command-line.md): among others ``faults``, how many
    there were; ``fault``, which this is; ``address``; ``steps`` as in a timeline; ``outcome``, that
    of the operation which faulted, as of ``run``. Raises ProgramError if nothing faults,
    EngineError for a fault that there is not, and what ``spfemu.run`` raises. Determinism: all
    arguments and the version.

    >>> import spfemu
    >>> builder = spfemu.ProgramBuilder()
    >>> task = builder.task("t0")
    >>> task.mmap(4096, id="p")
    >>> task.write("p")
    >>> told = spfemu.explain(builder.build())
    >>> [step["what"] for step in told["steps"] if step["access"] == "failed"]
    ['W3: mm_users 1 is not 1']
    >>> told["steps"][-1]["what"]
    'handled with mmap_sem held'
    """
    from spfemu import _core

    if fault is not None and (type(fault) is not int or not 0 < fault < 1 << 64):
        raise EngineError(f"fault: value {shown(fault)} (allowed: 1 to 2^64-1)")
    if type(seed) is not int or not 0 <= seed < 1 << 64:
        raise EngineError(f"seed: value {shown(seed)} (allowed: 0 to 2^64-1)")
    one_of("handler", handler, HANDLERS)
    check_tree(tree, (handler,))
    profile = profile_of(arch)
    program = prepare(program, profile)
    check_bounded(program, "explore")
    options = {
        "seed": seed, "tree": tree, "cpus": None, "machine": None, "pace": False, "record": True,
        "trace": False, "proc": False, "max_outcomes": _MAX_OUTCOMES,
        "variants": variant_values(variants), "explain": fault or 0,
    }  # fmt: skip
    with source_named(program):
        text, outcomes, _trace, _spans = _core.run(
            "explore",
            handler,
            json.dumps(profile.to_dict()),
            core_tasks(program),
            json.dumps(program.meta()),
            json.dumps(options),
            progress,
        )
    summary = json.loads(text)
    result = _result(program, handler, profile, tree, seed, summary, outcomes.view(OUTCOME_DTYPE))
    return _told(result, summary["explanation"], fault)


def _result(
    program: Program,
    handler: str,
    profile: Arch,
    tree: str,
    seed: int,
    summary: dict[str, Any],
    ops: np.ndarray[Any, Any],
) -> Result:
    from spfemu import __version__

    return Result(
        program=program,
        engine="explore",
        handler=handler,
        arch=profile.name,
        machine=None,
        seed=seed,
        elapsed_ns=0,
        counters=summary["counters"],
        ops=ops,
        settings={"tree": tree} if tree in TREES and handler == "spf" else {},
        version=__version__,
    )


def _told(result: Result, found: dict[str, Any], fault: int | None) -> dict[str, Any]:
    """Returns what is told of the fault that was found, or says that there is none."""
    source, faults = result.program.source, found["faults"]
    if not faults:
        raise ProgramError(f"{source}: nothing faults in it (needed: an access that does)")
    if not found["number"]:
        raise EngineError(f"fault: value {shown(fault)} (allowed: 1 to {faults} in {source})")
    task = found["task"]
    ops = result.task_ops(task)
    # Which operation it was of: those before it have had the task's earlier faults.
    so_far = np.cumsum(ops["counters"][:, _FAULTS])
    place = int(np.searchsorted(so_far, found["earlier"], side="right"))
    header = {key: value for key, value in result.header().items() if key != "elapsed_ns"}
    return {
        **header,
        "faults": faults,
        "fault": found["number"],
        "cpu": task,
        "task": result.program.tasks[task].name,
        "address": found["address"],
        "outcome": result.outcome(ops[place]) if place < len(ops) else None,
        "steps": found["steps"],
    }
