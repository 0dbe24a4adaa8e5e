"""Machines as data: what the package has, and what it says of each number."""

from __future__ import annotations

import pytest

import spfemu
from scripts.cost_model import PAGE, with_tables
from spfemu.engines import core_list
from spfemu.program import ProgramBuilder

CPUS = {
    "x86-48": 48,
    "power8-1024": 1024,
    "power8-80": 80,
    "arm64-64": 64,
    "x86-vm16": 16,
    "broadwell-56": 56,
    "skylake-72": 72,
    "milan-72": 72,
    "skylake-80": 80,
    "icelake-128": 128,
    "skylake-192": 192,
    "zen5-256": 256,
    "graviton3-64": 64,
    "kunpeng-128": 128,
}


def test_the_machines_of_the_package_and_their_cpus() -> None:
    assert {machine["name"]: machine["cpus"] for machine in core_list("machines")} == CPUS


def test_the_cost_model_has_every_constant_of_every_machine() -> None:
    """A change of a machine's file needs `python scripts/cost_model.py`."""
    page = PAGE.read_text()
    assert page == with_tables(page)


@pytest.mark.parametrize("name", CPUS)
def test_every_number_has_a_kind_and_a_source(name: str) -> None:
    (machine,) = [machine for machine in core_list("machines") if machine["name"] == name]
    assert machine["summary"]
    for value in machine["values"]:
        assert value["kind"] in ("measured", "derived", "assumed", "fitted"), value
        assert len(value["source"]) > 5, value
        assert value["what"], value


@pytest.mark.parametrize("name", CPUS)
def test_each_machine_runs_on_all_its_cpus(name: str) -> None:
    """One page for each of two threads, the first and the last CPU's."""
    machine = next(machine for machine in core_list("machines") if machine["name"] == name)
    builder = ProgramBuilder(page_size=machine["page_size"])
    first = builder.task("first")
    second = builder.task("second", start="clone")
    for task, area in ((first, "a"), (second, "b")):
        task.mmap(machine["page_size"], id=area)
        if task is first:
            task.clone("second")
        task.touch((area, 0), machine["page_size"])
    result = spfemu.run(
        builder.build(), engine="vtime", machine=name, arch=machine["arch"], cpus=machine["cpus"]
    )
    assert (result.machine, result.settings["cpus"]) == (name, machine["cpus"])
    assert result.counters["faults"] == 2
    assert result.elapsed_ns > 0
