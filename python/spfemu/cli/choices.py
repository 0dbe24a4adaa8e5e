"""What options may be: names from the core, events with perf's globs and aliases."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Final

from spfemu.catalogue import scenario_names
from spfemu.engines import core_list
from spfemu.errors import EngineError
from spfemu.machines import machine_names
from spfemu.program.ops import EVENTS
from spfemu.program.values import shown

__all__ = [
    "ALIASES",
    "EVENT_TEXTS",
    "arch_choices",
    "event_choices",
    "machine_choices",
    "mutant_choices",
    "program_choices",
    "select_events",
    "variant_choices",
]

ALIASES: Final = {"page-faults": "faults", "speculative-faults": "spf"}
"""Other names of events. Source: perf, and the series' patch to it."""

DEFAULT_EVENTS: Final = "faults,spf,minor-faults,major-faults,pagefault:*"

EVENT_TEXTS: Final = {
    "faults": "hardware page faults",
    "minor-faults": "faults that needed no reading",
    "major-faults": "faults that had to read, or to wait for userfaultfd",
    "spf": "faults whose speculative result was accepted",
    "pagefault:spf_vma_changed": "aborts: the VMA changed, or the address is below it",
    "pagefault:spf_vma_noanon": "aborts: no anon_vma; defined but never emitted by v12",
    "pagefault:spf_vma_notsup": "aborts: the VMA or its page table is not supported",
    "pagefault:spf_vma_access": "the access is not allowed: SIGSEGV",
    "pagefault:spf_pmd_changed": "aborts: the PMD changed under the fault",
    "speculative_pgfault": "vmstat: speculative attempts that did not ask for a retry",
    "pgfault": "vmstat: faults of the classic handler",
    "pgmajfault": "vmstat: pages read for a fault, speculative or not",
}


def select_events(given: Sequence[str]) -> list[str]:
    """Returns the events that ``-e`` options name, in their order, each once.

    Source: perf-list(1): names separated by commas, with globs. Raises EngineError for a name or a
    pattern that no event has.

    >>> from spfemu.cli.choices import select_events
    >>> select_events(["page-faults,spf", "pagefault:*changed"])
    ['faults', 'spf', 'pagefault:spf_vma_changed', 'pagefault:spf_pmd_changed']
    """
    chosen: dict[str, None] = {}
    for name in ",".join(given).split(",") if given else DEFAULT_EVENTS.split(","):
        matches = fnmatch.filter((*EVENTS, *ALIASES), name.strip())
        if not matches:
            allowed = ", ".join((*EVENTS, *ALIASES))
            raise EngineError(f"event {shown(name)} (allowed: {allowed}; globs)")
        for match in matches:
            chosen[ALIASES.get(match, match)] = None
    return list(chosen)


def _names(what: str) -> list[str]:
    return [entry["name"] for entry in core_list(what)]


def machine_choices() -> list[str]:
    """The machines' names, for completion. Source: the core."""
    return list(machine_names())


def program_choices() -> list[str]:
    """The scenarios' names, for completion: of files the shell knows. Source: the package."""
    return scenario_names()


def mutant_choices() -> list[str]:
    """The mutants' names, for completion. Source: the core."""
    return _names("mutants")


def variant_choices() -> list[str]:
    """The variants' settings, for completion. Source: the core."""
    return [f"{name}={value}" for name in _names("variants") for value in ("v12", "fixed")]


def arch_choices() -> list[str]:
    """The arch profiles' names, for completion. Source: the core."""
    from spfemu.profiles import arch_names

    return list(arch_names())


def event_choices() -> list[str]:
    """The events' names, for completion. Source: ours."""
    return [*EVENTS, *ALIASES]
