"""Machines as data: what the package has, and what it says of each number."""

from __future__ import annotations

import csv
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import spfemu
from scripts.cost_model import PAGE, with_tables
from spfemu import Machine, ProfileError
from spfemu.engines import core_list
from spfemu.machines import host, machine_names
from spfemu.program import ProgramBuilder
from spfemu.workloads import Pft

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


STATISTICS = {
    "least": "min",
    "5 %": "p5",
    "first quartile": "p25",
    "median": "median",
    "third quartile": "p75",
}
CORE_TO_CORE = re.compile(r"core-to-core-latency 96a943a: (.+), (.+)")


def sourced(quantity: str, platform: str) -> float:
    """The one number of the table of sources with this quantity and platform."""
    text = (Path(__file__).parent / "machines" / "cost_model.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    (value,) = {
        float(row["value"])
        for row in rows
        if row["quantity"] == quantity and platform in row["platform"]
    }
    return value


def constants() -> list[tuple[str, spfemu.machines.Value]]:
    return [(name, value) for name in CPUS for value in spfemu.machine(name).values]


def test_what_was_measured_is_what_its_source_has() -> None:
    measured = [(name, value) for name, value in constants() if value.kind == "measured"]
    assert len(measured) == 16
    for name, value in measured:
        told = CORE_TO_CORE.fullmatch(value.source)
        assert told, (name, value)
        platform, statistic = told.groups()
        quantity = f"line transfer {STATISTICS[statistic]}"
        assert value.value == sourced(quantity, platform), (name, value)


def test_what_was_derived_comes_from_its_sources() -> None:
    haswell = "Xeon E5-v3 2.4GHz bare metal"
    entry = [
        sum(sourced(f"{way} on #PF", where) for way in ("user->kernel", "kernel->user")) / 2.4
        for where in (haswell, "Xeon E5-v3 VM")
    ]
    ipi = sourced("Normal IPI, sum to receipt", "IPI virtualisation off")
    for name, field, ns in (
        ("x86-48", "fault_ns", 150 + entry[0]),
        ("x86-vm16", "fault_ns", 150 + entry[1]),
        ("x86-vm16", "ipi_base_ns", ipi / 100_000),
        ("milan-72", "clear_page_ns", 4096 / sourced("clear_page 4 KB", "Milan")),
        ("power8-1024", "line_own_ns", sourced("L1 load", "POWER8") / 3),
    ):
        assert spfemu.machine(name)[field] == pytest.approx(ns, rel=0.01), (name, field)


@pytest.mark.parametrize(
    ("name", "platform"), [("x86-48", "Broadwell"), ("icelake-128", "8336C"), ("zen5-256", "Zen 5")]
)
def test_a_fault_of_one_thread_takes_what_was_published(name: str, platform: str) -> None:
    job = Pft(tasks=1, size=64 << 20)
    result = spfemu.run(job.build(), engine="vtime", handler="classic", machine=name, cpus=1)
    published = sourced("whole anon fault incl. zeroing, derived 1/rate", platform)
    assert 1e9 / job.figures(result)["faults_per_s"] == pytest.approx(published, rel=0.01)


def test_no_more_than_two_constants_of_a_machine_are_fitted() -> None:
    fitted = {(name, value.name) for name, value in constants() if value.kind == "fitted"}
    assert {field for _, field in fitted} == {"wakeup_ns", "zap_page_ns"}
    assert {name for name, _ in fitted} <= {"x86-48", "x86-vm16", "power8-1024", "power8-80"}


MINE = """
name = "mine"
like = "x86-48"
sockets = 1
wakeup_ns = { value = 20_000, kind = "measured", source = "perf bench sched pipe" }
fault_ns = 400
"""


def sixteen_pages(page_size: int = 4096) -> spfemu.Program:
    builder = ProgramBuilder(page_size=page_size)
    task = builder.task("t0")
    task.mmap(16 * page_size, id="p")
    task.touch(("p", 0), 16 * page_size)
    return builder.build()


def elapsed_ns(machine: Machine | str) -> int:
    known = spfemu.machine(machine) if isinstance(machine, str) else machine
    program = sixteen_pages(known.page_size)
    return spfemu.run(program, engine="vtime", arch=known.arch, machine=machine).elapsed_ns


class TestAUsersOwn:
    def test_from_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(MINE)
        mine = Machine.load(path)
        assert (mine.name, mine.cpus, mine["fault_ns"]) == ("mine", 24, 400)
        known = {value.name: value for value in mine.values}
        assert known["wakeup_ns"].kind == "measured"
        assert known["wakeup_ns"].source == "perf bench sched pipe"
        assert known["fault_ns"].source == "the user's"
        result = spfemu.run(sixteen_pages(), engine="vtime", machine=mine)
        assert result.machine == "mine"
        cheaper = spfemu.machine("x86-48")["fault_ns"] - 400
        assert elapsed_ns("x86-48") - result.elapsed_ns == 16 * cheaper

    def test_a_changed_machine_is_charged_as_it_says(self) -> None:
        base = spfemu.machine("x86-48")
        changed = base.replace(clear_page_ns=base["clear_page_ns"] + 1000)
        assert changed.name == f"x86-48,clear_page_ns={changed['clear_page_ns']}"
        assert elapsed_ns(changed) - elapsed_ns(base) == 16 * 1000
        named = base.replace(
            name="mine", wakeup_ns={"value": 1, "kind": "fitted", "source": "one row"}
        )
        known = {value.name: value for value in named.values}
        assert (named.name, known["wakeup_ns"].kind) == ("mine", "fitted")
        # What was not changed is still what it was.
        assert known["line_die_ns"].kind == "measured"

    def test_goes_to_another_process_and_back(self) -> None:
        mine = Machine.loads(MINE)
        assert pickle.loads(pickle.dumps(mine)) == mine
        assert Machine.loads(MINE) == mine
        assert json.loads(json.dumps(mine.to_dict()))["cpus"] == 24

    @pytest.mark.parametrize("name", CPUS)
    def test_the_packages_run_the_same_when_given_as_machines(self, name: str) -> None:
        machine = spfemu.machine(name)
        assert (machine.name, machine.cpus) == (name, CPUS[name])
        assert machine.replace() == machine
        assert elapsed_ns(machine) == elapsed_ns(name)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"fault_ns": -1}, "machine x86-48,fault_ns=-1: fault_ns: value -1 (allowed: 0 to 1"),
            ({"fault_ns": 10**30}, "fault_ns: value "),
            ({"fault_ns": 1.5}, 'fault_ns: value "1.5" (allowed: whole, 0 to 1000000000)'),
            ({"fault_ns": "fast"}, 'fault_ns: value "fast" (allowed: whole, 0 to 1000000000)'),
            ({"fault_ns": None}, 'fault_ns: value "None" (allowed: whole, 0 to 1000000000)'),
            ({"fault_ns": True}, "fault_ns: value true (allowed: whole, 0 to 1000000000)"),
            ({"fault_ns": {"value": 5}}, "fault_ns.kind: missing"),
            ({"sockets": 0}, "sockets: value 0 (allowed: 1 to 4096)"),
            ({"sockets": 1000}, "cpus: value 24000 (allowed: 1 to 4096, sockets x "),
            ({"threads_adjacent": 1}, "threads_adjacent: value 1 (allowed: true, false)"),
            ({"line_machine_ns": 44}, "line_machine_ns: value 44 (allowed: 45 to 1000000000, not"),
            (
                {"wakeup_jitter_percent": 101},
                "wakeup_jitter_percent: value 101 (allowed: 0 to 100)",
            ),
            ({"slice_ns": 0}, "slice_ns: value 0 (allowed: 1000 to 1000000000)"),
            (
                {"fault_ns": {"value": 5, "kind": "fitted", "source": "a row"}},
                'fault_ns.kind: value "fitted" (allowed: measured, derived, assumed; fitted: zap',
            ),
            ({"arch": "vax"}, 'arch: value "vax" (allowed: x86, '),
            ({"name": ""}, 'name: value "" (allowed: one line of text)'),
            ({"colour": 5}, "colour: unknown (allowed: name, arch, "),
            ({"like": "x86-48"}, 'like: value "x86-48" (allowed: none'),
        ],
    )
    def test_a_change_that_cannot_be(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ProfileError) as raised:
            spfemu.machine("x86-48").replace(**changes)
        assert message in str(raised.value)

    def test_a_file_that_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        for content, message in [
            (None, "mine.toml: cannot be read: No such file or directory"),
            (b"\xff", "mine.toml: byte 0 (allowed: UTF-8)"),
            (b"name", "mine.toml: machine: line 1: "),
            (b'name = "m"\nlike = "x86-48"\ncores = 5', "mine.toml: machine m: cores: unknown"),
        ]:
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(ProfileError) as raised:
                Machine.load(path)
            assert message in str(raised.value)

    def test_a_name_that_is_none(self) -> None:
        for wrong in ("pdp-11", 5):
            with pytest.raises(ProfileError, match=r"\(allowed: x86-48, .*, host\)"):
                spfemu.machine(wrong)  # type: ignore[arg-type]


class FakeHost:
    """What the kernel says of a host's CPUs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cpuinfo = root / "cpuinfo"
        self.cpuinfo.write_text("vendor_id : GenuineIntel\n")
        self.nr_cpus = 0

    def add(self, socket: int, core: str, shared: str | None) -> None:
        folder = self.root / f"cpu{self.nr_cpus}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology/physical_package_id").write_text(f"{socket}\n")
        (folder / "topology/core_cpus_list").write_text(f"{core}\n")
        if shared is not None:
            for index, (level, cpus) in enumerate([(1, core), (3, shared)]):
                cache = folder / f"cache/index{index}"
                cache.mkdir(parents=True)
                (cache / "level").write_text(f"{level}\n")
                (cache / "shared_cpu_list").write_text(f"{cpus}\n")
        self.nr_cpus += 1

    def machine(self, processor: str = "x86_64") -> Machine:
        (self.root / "online").write_text(f"0-{self.nr_cpus - 1}\n")
        return host(self.root, self.cpuinfo, processor)


def topology(machine: Machine) -> tuple[int | bool, ...]:
    names = ("sockets", "dies_per_socket", "cores_per_die", "threads_per_core")
    return tuple(machine[name] for name in names)


class TestHost:
    def test_two_sockets_of_two_dies_of_two_cores_with_two_threads(self, tmp_path: Path) -> None:
        """CPUs 0 to 7 are first threads, 8 to 15 second ones; a die is two cores."""
        fake = FakeHost(tmp_path)
        for cpu in range(16):
            core = cpu % 8
            die = core // 2 * 2
            fake.add(core // 4, f"{core},{core + 8}", f"{die}-{die + 1},{die + 8}-{die + 9}")
        machine = fake.machine()
        assert topology(machine) == (2, 2, 2, 2)
        assert (machine.cpus, machine["threads_adjacent"]) == (16, False)
        # Ice Lake has one die: its distance stands for the one that it does not have.
        assert [machine[f"line_{level}_ns"] for level in ("die", "socket", "machine")] == [
            51,
            51,
            108,
        ]

    def test_threads_next_to_each_other(self, tmp_path: Path) -> None:
        fake = FakeHost(tmp_path)
        for cpu in range(8):
            fake.add(0, f"{cpu // 4 * 4}-{cpu // 4 * 4 + 3}", "0-7")
        machine = fake.machine("ppc64le")
        assert (topology(machine), machine["threads_adjacent"]) == ((1, 1, 2, 4), True)
        assert (machine.arch, machine["line_die_ns"]) == ("powerpc", 170)

    def test_unequal_cores_are_one_die(self, tmp_path: Path) -> None:
        fake = FakeHost(tmp_path)
        for core in ("0-1", "0-1", "2"):
            fake.add(0, core, "0-2")
        machine = fake.machine()
        assert topology(machine) == (1, 1, 3, 1)
        assert "unequal" in machine.values[0].source

    def test_no_third_level(self, tmp_path: Path) -> None:
        fake = FakeHost(tmp_path)
        for cpu in range(4):
            fake.add(cpu // 2, str(cpu), None)
        assert topology(fake.machine("aarch64")) == (2, 1, 2, 1)

    @pytest.mark.parametrize(
        ("vendor", "processor", "near"),
        [
            ("AuthenticAMD", "x86_64", "zen5-256"),
            ("GenuineIntel", "x86_64", "icelake-128"),
            ("Zhaoxin", "x86_64", "x86-48"),
            ("", "aarch64", "graviton3-64"),
        ],
    )
    def test_which_machine_is_near(
        self, tmp_path: Path, vendor: str, processor: str, near: str
    ) -> None:
        fake = FakeHost(tmp_path)
        fake.cpuinfo.write_text(vendor)
        fake.add(0, "0", "0")
        machine = fake.machine(processor)
        assert machine.summary == f"this host's topology, with the costs of {near}"
        assert machine.cpus == 1

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ProfileError, match=r"machine host: .* cannot be read: "):
            host(tmp_path)
        fake = FakeHost(tmp_path)
        fake.add(0, "0", "0")
        with pytest.raises(ProfileError, match=r'processor "vax" \(allowed: x86_64, aarch64'):
            fake.machine("vax")

    def test_this_host_runs(self) -> None:
        machine = spfemu.machine("host")
        assert machine_names()[-1] == machine.name == "host"
        result = spfemu.run(sixteen_pages(), engine="vtime", machine=machine, arch=machine.arch)
        assert result.machine == "host"
