"""How many threads explore does not change what is found, nor any number that is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import spfemu
from spfemu import EngineError, Program
from spfemu.exploring import MEMORY_MODELS

PROGRAMS = Path(spfemu.__file__).parent / "data/catalogue"
MANY = (2, 3, 8)


def explored(program: str, workers: int, **settings: Any) -> dict[str, Any]:
    return spfemu.explore(Program.load(PROGRAMS / f"{program}.json"), workers=workers, **settings)


@pytest.mark.parametrize("strategy", ["random", "pct", "coverage"])
@pytest.mark.parametrize("program", ["write_against_munmap", "cow_against_fork", "two_drops"])
def test_drawn_schedules_are_the_same_for_any_number_of_workers(
    program: str, strategy: str
) -> None:
    settings: dict[str, Any] = {"strategy": strategy, "schedules": 600, "races": True, "seed": 7}
    alone = explored(program, 1, **settings)
    assert alone["schedules"] == 600
    assert alone["races"]
    for workers in MANY:
        assert explored(program, workers, **settings) == alone


@pytest.mark.parametrize("model", MEMORY_MODELS)
@pytest.mark.parametrize(
    ("program", "preemptions", "settings"),
    [
        ("write_against_munmap", 2, {}),
        ("write_against_munmap", 2, {"variants_default": "fixed"}),
        ("write_against_munmap", 2, {"variants_default": "fixed", "mutants": ["A7"]}),
        ("write_against_remapping", 2, {"variants_default": "fixed"}),
        ("read_of_a_new_page", 3, {"variants_default": "fixed", "mutants": ["M6"]}),
        ("look_up_against_munmap", 2, {"variants_default": "fixed", "mutants": ["A25a"]}),
        ("two_drops", 2, {"variants_default": "fixed", "variants": {"B1": "v12"}}),
    ],
)
def test_a_bounded_search_is_the_same_for_any_number_of_workers(
    program: str, preemptions: int, settings: dict[str, Any], model: str
) -> None:
    how = {**settings, "preemptions": preemptions, "memory_model": model}
    alone = explored(program, 1, **how)
    assert alone["complete"]
    assert alone["schedules"] > 300  # before that nobody is called to help
    for workers in MANY:
        assert explored(program, workers, **how) == alone


@pytest.mark.parametrize("model", ["sc", "armv8"])
def test_what_else_may_happen_is_the_same_too(model: str) -> None:
    how: dict[str, Any] = {"preemptions": 2, "memory_model": model, "variants_default": "fixed"}
    how |= {"mutants": ["A7"], "hazards": "all"}
    alone = explored("write_against_munmap", 1, **how)
    assert alone["complete"]
    assert alone["schedules"] > 300
    for workers in MANY:
        assert explored("write_against_munmap", workers, **how) == alone


@pytest.mark.parametrize("workers", [0, 1025, True, 1.0])
def test_a_wrong_number_of_workers_is_refused(workers: Any) -> None:
    with pytest.raises(EngineError, match=r"workers: value .* \(allowed: 1 to 1024\)"):
        explored("split", workers)
