"""``spfemu explore`` without PROGRAM: the scenario of the mutant or variant that is named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import typer

from spfemu.catalogue import Scenario, scenario
from spfemu.cli.output import counted
from spfemu.engines import catalogue_names
from spfemu.errors import EngineError
from spfemu.exploring import PREEMPTIONS
from spfemu.profiles import arch

__all__ = ["AS_POSTED", "scenario_text", "with_scenario"]

AS_POSTED: Final = "v12"
"""What bugs of v12 are where a program is named, unless told otherwise."""

_OPTION_OF: Final = {"variants_default": "variants", "hazards": "hazard"}
_BOUNDS: Final = ("preemptions", "schedules", "seed")
_HOW: Final = ("strategy", "preemptions", "schedules", "depth", "memory_model")


def with_scenario(
    context: typer.Context, program: str | None, settings: dict[str, Any], *, quiet: bool
) -> tuple[str, dict[str, Any]]:
    """Returns the program's name and the settings; without a program those of a scenario.

    Source: the catalogue. ``settings`` are those of the command line, defaults included; what it
    does not say is then as the scenario has it, and unless ``quiet`` is told first. Raises
    EngineError where they name not one entry, or one that has no scenario.
    """
    if program is not None:
        return program, settings
    own = _scenario_of(settings["mutants"], settings["variants"])
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = [name for name, of in sources.items() if of is not None and of.name == "COMMANDLINE"]
    whole = _completed(own, settings, given)
    if not quiet:
        print(_headline(own, whole), flush=True)
    return own.name, whole


def _scenario_of(mutants: Sequence[str], variants: Mapping[str, str]) -> Scenario:
    as_posted = [name for name, value in variants.items() if value == AS_POSTED]
    names = list(mutants) or as_posted
    if len(names) != 1:
        allowed = "left out with one --mutant NAME, or one --variant NAME=v12, which has its own"
        raise EngineError(f"PROGRAM: missing (allowed: {allowed})")
    own = scenario(names[0])
    catalogue_names("mutant" if mutants else "variant", names)  # refuses one of the other list
    return own


def _completed(
    own: Scenario, settings: Mapping[str, Any], given: Collection[str]
) -> dict[str, Any]:
    # The scenario's bounds are those of its strategy.
    strategy = own.settings.get("strategy", "dfs")
    another = "strategy" in given and settings["strategy"] != strategy
    taken = {
        name: value
        for name, value in own.settings.items()
        if _OPTION_OF.get(name, name) not in given and not (another and name in _BOUNDS)
    }
    taken["variants"] = settings["variants"]
    if "arch" in taken:
        taken["arch"] = arch(taken["arch"])
    return {**settings, **taken}


def _headline(own: Scenario, settings: Mapping[str, Any]) -> str:
    breaks = f"breaks {', '.join(own.breaks)}" if own.breaks else own.verdict
    changed = own.settings.get("arch", "x86") != settings["arch"].name or any(
        settings[name] != value for name, value in own.settings.items() if name in _HOW
    )
    within = ", within its own bounds and arch" if changed else ""
    return f"{own.entry}: {scenario_text(own.name, settings)}\nthe catalogue{within}: {breaks}"


def scenario_text(program: str, settings: Mapping[str, Any]) -> str:
    """Says in one line what is explored, and within which bounds.

    Source: ours. ``settings`` are arguments of ``spfemu.explore``.
    """
    parts = [program, _search(settings), *_where(settings)]
    if hazards := settings.get("hazards"):
        parts.append(f"hazards {', '.join(hazards)}")
    changed = [f"without {mutant}" for mutant in settings.get("mutants", ())]
    changed += [f"{name} {value}" for name, value in settings.get("variants", {}).items()]
    parts.append(", ".join([*changed, f"all else {settings['variants_default']}"]))
    return "; ".join(parts)


def _where(settings: Mapping[str, Any]) -> Iterator[str]:
    if (model := settings.get("memory_model")) is not None:
        yield f"memory model {model}"
    if (machine := settings.get("arch")) is not None:
        yield machine if isinstance(machine, str) else machine.name


def _search(settings: Mapping[str, Any]) -> str:
    if settings.get("replay") is not None:
        return "one schedule"
    strategy, schedules = settings.get("strategy", "dfs"), settings.get("schedules")
    said = [strategy]
    if strategy == "dfs":
        within = settings.get("preemptions")
        within = PREEMPTIONS if within is None else within
        few = isinstance(within, int)
        said.append(f"at most {counted(within, 'preemption')}" if few else f"preemptions {within}")
    if schedules is not None:
        said.append(f"at most {counted(schedules, 'schedule')}")
    return ", ".join(said)
