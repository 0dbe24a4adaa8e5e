"""What docs/semantics.md decided where it is easily got wrong, against the host's own kernel."""

from __future__ import annotations

from typing import Any

import pytest

import spfemu
from tests.oracle.play import BASE, PAGE, mmap, op, program

FILES = {"f": {"length": 4 * PAGE}}


def outcomes(engine: str, ops: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    found = spfemu.run(program(ops, files=FILES), engine=engine)
    keys = ("ret", "errno", "value", "signal", "si_code")
    return [
        (*(outcome[key] for key in keys), outcome["counters"].get("faults", 0))
        for outcome in found.outcomes()
    ]


@pytest.mark.parametrize("mode", ["user", "kernel"])
@pytest.mark.parametrize("address", [1 << 63, (1 << 64) - (1 << 46), (1 << 64) - 8])
def test_beyond_user_space(address: int, mode: str) -> None:
    # Not canonical with 4 levels nor with 5; the kernel's half; its last word.
    ops = [
        op("read", address, mode=mode),
        op("write", address, value=1, mode=mode),
        op("touch", address, length=8, access="read", mode=mode),
    ]
    assert outcomes("kernel", ops) == outcomes("reference", ops)


def test_private_and_shared_together() -> None:
    both = ["private", "shared"]
    file: dict[str, Any] = {"file": "f", "id": "q"}
    ops = [
        mmap(2, flags=[*both, "fixed"], **file),
        op("write", "q", value=3),
        {"op": "mmap", "length": PAGE, "flags": [*both, "anonymous"]},
        mmap(1, addr=hex(BASE + 8 * PAGE), flags=[*both, "fixed_noreplace"], **file),
        mmap(1, addr=hex(BASE + 8 * PAGE), flags=["shared", "fixed_noreplace"], **file),
        mmap(1, flags=["fixed"], **file),
    ]
    assert outcomes("kernel", ops) == outcomes("reference", ops)


def test_wiping_at_fork_is_for_private_anonymous_memory() -> None:
    ops = [
        mmap(2, flags=["shared", "anonymous", "fixed"]),
        mmap(2, addr=hex(BASE + 8 * PAGE), id="a"),
        *(op("madvise", at, length=PAGE, advice="wipeonfork") for at in ("p", "a")),
        op("madvise", "a", length=2 * PAGE, advice="keeponfork"),
    ]
    assert outcomes("kernel", ops) == outcomes("reference", ops)
