"""The catalogue: what the explorer shows each missing check, barrier and bug with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from spfemu.engines import core_list
from spfemu.errors import EngineError
from spfemu.program.model import Program
from spfemu.program.values import shown

__all__ = ["Scenario", "entries", "load_scenario", "scenario", "scenario_names", "scenarios"]

_FILES: Final = resources.files("spfemu.data")
_OF_VARIANTS: Final = "BCLN"
"""What entries of variants begin with (SPF_V12 9.B and 9.C; L and N: ours); A and M: mutants."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A program that shows an entry of the catalogue, and how it is to be explored.

    Source: ours, ``data/catalogue.toml``. ``entry`` is the entry (A7, B1), ``name`` the program's;
    ``settings`` are the arguments of ``spfemu.explore``: the entry alone, everything else cured;
    ``breaks`` are the invariants that break then, none if nothing does within these bounds;
    ``verdict`` says why nothing does, or None.
    """

    entry: str
    name: str
    settings: dict[str, Any]
    breaks: tuple[str, ...]
    verdict: str | None

    @property
    def program(self) -> Program:
        """The program. Source: the package."""
        return load_scenario(self.name)


def scenario(entry: str) -> Scenario:
    """Returns the scenario by which an entry of the catalogue is found.

    Source: ``data/catalogue.toml``, whose numbers the tests hold. ``entry`` is the entry or the
    name of a mutant or a variant: A7, no-second-check, B1. Raises EngineError for one that there
    is not, or that has nothing to switch. Deterministic: constants of the package.

    >>> import spfemu
    >>> a7 = spfemu.scenario("A7")
    >>> a7.name, a7.settings["preemptions"], a7.breaks
    ('write_against_munmap', 2, ('mapcount', 'rss-count', 'use-after-free'))
    >>> found = spfemu.explore(a7.program, **a7.settings)
    >>> [violation["invariant"] for violation in found["violations"]]
    ['mapcount', 'rss-count', 'use-after-free']
    """
    known = _index().get(_entry_of().get(entry, entry))
    if known is None:
        allowed = ", ".join(name for name, told in _index().items() if "scenarios" in told)
        raise EngineError(f"entry {shown(entry)} (allowed: {allowed})")
    if "scenarios" not in known:
        raise EngineError(f"entry {shown(entry)} has no scenario: {known['verdict']}")
    return next(scenarios(_entry_of().get(entry, entry)))


def scenarios(entry: str) -> Iterator[Scenario]:
    """Yields all scenarios of an entry, that of its name alone first. Source: as ``scenario``."""
    for told in _index()[entry].get("scenarios", ()):
        yield _scenario(entry, told)


def scenario_names() -> list[str]:
    """Returns the names of the scenarios' programs, in order. Source: the package."""
    return sorted(
        file.name.removesuffix(".json") for file in _FILES.joinpath("catalogue").iterdir()
    )


def load_scenario(name: str) -> Program:
    """Returns the program of this name, one of ``scenario_names``. Source: the package."""
    text = _FILES.joinpath("catalogue", f"{name}.json").read_text(encoding="utf-8")
    return Program.loads(text, name)


def entries(what: str) -> list[dict[str, Any]]:
    """Returns all entries of "mutants" or "variants", those with nothing to switch too.

    Source: the core, ``data/catalogue.toml``. Each has what the core's has (None where that has
    no such entry), and ``source``, ``scenarios`` (objects with ``program``, ``settings`` and
    ``breaks``, the first for its name alone) and ``verdict``: why nothing breaks, or why there is
    nothing to switch, else None.
    """
    known = {entry["entry"]: entry for entry in core_list(what)}
    nothing = dict.fromkeys(next(iter(known.values())))
    found = []
    for name in sorted(_index(), key=_order):
        if (name[0] in _OF_VARIANTS) != (what == "variants"):
            continue
        told = _index()[name]
        shows = [
            {"program": one.name, "settings": one.settings, "breaks": list(one.breaks)}
            for one in scenarios(name)
        ]
        added = {"entry": name, "source": told["source"], "scenarios": shows}
        entry = known.get(name, nothing) | added | {"verdict": told.get("verdict")}
        if what == "variants":
            nowhere = "none" if entry["name"] is not None else None
            entry["models"] = "all" if any(one["breaks"] for one in shows) else nowhere
        found.append(entry)
    return found


def _scenario(entry: str, told: dict[str, Any]) -> Scenario:
    settings = dict(told)
    program, breaks = settings.pop("program"), tuple(settings.pop("breaks"))
    if "arch" not in settings:
        settings["memory_model"] = "sc"
    if entry[0] in _OF_VARIANTS:
        settings["variants"] = {entry: "v12"}
    else:
        settings["mutants"] = [entry, *settings.pop("beside", ())]
    verdict = _index()[entry].get("verdict")
    return Scenario(entry, program, {"variants_default": "fixed", **settings}, breaks, verdict)


def _order(entry: str) -> tuple[str, int, str]:
    """A2 comes before A10, A1a before A1b."""
    match = re.fullmatch(r"([A-Z])(\d+)([a-z]?)", entry)
    assert match is not None
    return match[1], int(match[2]), match[3]


@cache
def _index() -> dict[str, Any]:
    import tomllib  # takes longer to find than most commands need it

    return tomllib.loads(_FILES.joinpath("catalogue.toml").read_text(encoding="utf-8"))


@cache
def _entry_of() -> dict[str, str]:
    both = (*core_list("mutants"), *core_list("variants"))
    return {one["name"]: one["entry"] for one in both}
