"""The engines against the host's kernel: measured scenarios, and generated programs.

What a newer kernel than 5.1 does differently is excused by name, see docs/fidelity.md; nothing else
may differ.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings

import spfemu
from spfemu import Program, ProgramError, oracle
from spfemu.testing import programs
from tests.oracle.adapting import for_this_host
from tests.scenario_files import RUNNABLE

# A failing example is shrunk for minutes before it is shown.
pytestmark = pytest.mark.timeout(900)

REFUSED = (
    # They need huge pages, which children do not have.
    *("hugetlb", "thp", "thp_protect", "thp_ranges", "thp_collapse"),
    # They swap out, which would change the host.
    *("swap_in", "swap_in_st", "swap_readahead"),
)


def assert_agrees(program: Program, host: spfemu.Result, engine: str, handler: str) -> None:
    emulated = spfemu.run(oracle.for_host(program, oracle.host()), engine=engine, handler=handler)
    found = oracle.compare(emulated, host)
    if found.differences:
        lines = [f"{d.place} {d.op} {d.what}: host {d.expected!r}, {engine} {d.actual!r}"
                 for d in found.differences[:8]]  # fmt: skip
        raise AssertionError("\n".join([*lines, json.dumps(program.to_dict())]))


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    program = Program.load(path)
    if path.stem in REFUSED:
        with pytest.raises(ProgramError, match=r"\(engine kernel\)"):
            spfemu.run(program, engine="kernel")
        return
    host = spfemu.run(program, engine="kernel")
    assert spfemu.check(host) == []
    assert host.stuck == ()
    for engine in ("reference", "native"):
        for handler in ("spf", "classic"):
            assert_agrees(program, host, engine, handler)


@settings(max_examples=200, derandomize=True)
@given(programs(arch="x86", limits=False))
def test_generated_programs(generated: Program) -> None:
    program = for_this_host(generated)
    try:
        host = spfemu.run(program, engine="kernel")
    except ProgramError:
        # A heap below the lowest address, or something where the engine's page is.
        assume(False)
    for engine in ("reference", "native"):
        assert_agrees(program, host, engine, "classic")
    assert_agrees(program, host, "reference", "spf")
