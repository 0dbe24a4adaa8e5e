"""Small programs on the kernel engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import spfemu
from spfemu import Program, Result, oracle
from tests.host_kernel import REFUSAL

if REFUSAL:  # Nothing that plays here can be tested.
    pytest.skip(REFUSAL, allow_module_level=True)

BASE = 0x1000_0000_0000
PAGE = 4096


def mmap(pages: int = 16, prot: str = "rw", **keys: Any) -> dict[str, Any]:
    """A fixed private anonymous mapping at `BASE`, named p, unless `keys` say otherwise."""
    return {
        "op": "mmap",
        "addr": hex(BASE),
        "length": pages * PAGE,
        "prot": prot,
        "flags": ["private", "anonymous", "fixed"],
        "id": "p",
        **keys,
    }


def op(name: str, addr: str | int = "p", **keys: Any) -> dict[str, Any]:
    """An operation about an address."""
    return {"op": name, "addr": addr, **keys}


def program(*tasks: list[dict[str, Any]], **keys: Any) -> Program:
    """Threads that start together, or what `keys` say."""
    listed = [{"name": f"t{number}", "ops": ops} for number, ops in enumerate(tasks)]
    return Program.from_dict({"format": "spfemu-program/1", "tasks": listed, **keys})


def forked(first: list[dict[str, Any]], child: list[dict[str, Any]]) -> Program:
    """A task that waits for its child."""
    tasks = [
        {"name": "t0", "ops": [*first, {"op": "fork", "child": "c", "wait": True}]},
        {"name": "c", "start": "fork", "ops": child},
    ]
    return Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})


def run(*ops: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    """The outcomes of a single task."""
    return list(result(program(list(ops)), **settings).outcomes())


def result(given: Program, **settings: Any) -> Result:
    """The result of the kernel engine; nothing is left of it."""
    found = spfemu.run(given, engine="kernel", settings=settings)
    assert children() == []
    return found


def last(*ops: dict[str, Any], **settings: Any) -> tuple[Any, ...]:
    """What came of the last operation: what it returned, and how many faults it had."""
    outcome = run(*ops, **settings)[-1]
    if outcome["signal"]:
        came: Any = (outcome["signal"], outcome["si_code"])
    else:
        came = outcome["errno"] or (
            outcome["ret"] if outcome["value"] is None else outcome["value"]
        )
    return came, outcome["counters"].get("faults", 0)


def compared(given: Program, handler: str) -> oracle.Comparison:
    """The reference held against the host."""
    return oracle.compare(*both(given, handler))


def both(given: Program, handler: str) -> tuple[Result, Result]:
    """The reference's result, and the host's."""
    host = spfemu.run(given, engine="kernel")
    prepared = oracle.for_host(given, oracle.host())
    return spfemu.run(prepared, engine="reference", handler=handler), host


def children() -> list[int]:
    """The processes on our page that are this one's children, or nobody's any more."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            executable = str((path / "exe").readlink())
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it is not ours to look at, or has ended
            continue
        if "memfd:spfemu-oracle" in executable and parent in (os.getpid(), 1):
            found.append(int(path.name))
    return found
