"""The engines against the host's kernel: measured scenarios, and generated programs.

What a newer kernel than 5.1 does differently is excused by name, see docs/fidelity.md; nothing else
may differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import assume, given, settings

import spfemu
from spfemu import Program, ProgramError
from spfemu.testing import against_host, programs, with_maps
from tests.host_kernel import needs_host
from tests.scenario_files import SCENARIOS

# A failing example is shrunk for minutes before it is shown.
pytestmark = [needs_host, pytest.mark.timeout(900)]

REFUSED: Final = (
    # They need huge pages, which children do not have.
    *("hugetlb", "thp", "thp_protect", "thp_ranges", "thp_collapse"),
    # They swap out, which would change the host.
    *("swap_in", "swap_in_st", "swap_readahead"),
    # It scans for NUMA balancing, which is the host's own.
    "numa_hinting",
    # Its handler is the emulator.
    "userfaultfd",
)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    program = Program.load(path)
    if path.stem in REFUSED:
        with pytest.raises(ProgramError, match=r"\(engine kernel\)"):
            spfemu.run(program, engine="kernel")
        return
    host = spfemu.run(program, engine="kernel")
    assert spfemu.check(host) == []
    assert host.stuck == ()
    against_host(program)


def agree(program: Program) -> None:
    try:
        against_host(program)
    except ProgramError as error:
        if "which the engine needs" not in str(error):
            raise
        assume(False)


@settings(max_examples=500)
@given(programs(host=True))
def test_generated_programs(program: Program) -> None:
    agree(program)


@settings(max_examples=200, derandomize=False, database=None)
@given(programs(host=True).map(with_maps))
def test_programs_that_nobody_has_seen(program: Program) -> None:
    """Other ones each time; the message of a failure has the program."""
    agree(program)
