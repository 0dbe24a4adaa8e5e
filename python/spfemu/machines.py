"""Machines of virtual time: those of the package, the user's own, and this host."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from spfemu.errors import ProfileError
from spfemu.program.values import shown

__all__ = [
    "Machine",
    "Value",
    "find_machine",
    "host",
    "is_machine_file",
    "machine",
    "machine_names",
]

_CPUS: Final = Path("/sys/devices/system/cpu")
_CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Value:
    """One number of a machine, and where it is from.

    Source: ours. ``value`` is in ``unit``: "ns", "%", "" (a count) or "flag"; ``kind`` is
    "measured", "derived", "assumed" or "fitted"; ``source`` says by whom, of what, or as which
    machine; ``what`` is what the number means.
    """

    name: str
    value: int | bool
    unit: str
    kind: str
    source: str
    what: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A topology and what things cost on it.

    Source: each value's own. ``arch`` is the arch that it runs unless told otherwise, ``cpus`` its
    hardware threads, ``page_size`` its arch's, in bytes; ``values`` are in the order of the cost
    model's page. Made by ``machine``, ``Machine.load``, ``Machine.loads`` and ``replace``.

    >>> import spfemu
    >>> slow = spfemu.machine("x86-48").replace(wakeup_ns=30_000, threads_per_core=1)
    >>> slow.cpus, slow["wakeup_ns"], slow.name
    (24, 30000, 'x86-48,threads_per_core=1,wakeup_ns=30000')
    """

    name: str
    arch: str
    summary: str
    cpus: int
    page_size: int
    values: tuple[Value, ...]

    def __getitem__(self, name: str) -> int | bool:
        for value in self.values:
            if value.name == name:
                return value.value
        raise KeyError(name)

    @classmethod
    def load(cls, path: str | Path) -> Machine:
        """Reads a machine's TOML file.

        Source: docs/cost-model.md. Raises ProfileError for a file that cannot be read, or the
        field, the value and what is allowed.
        """
        try:
            text = Path(path).read_bytes().decode()
        except OSError as error:
            raise ProfileError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ProfileError(f"{path}: byte {error.start} (allowed: UTF-8)") from None
        try:
            return cls.loads(text)
        except ProfileError as error:
            raise ProfileError(f"{path}: {error}") from None

    @classmethod
    def loads(cls, text: str) -> Machine:
        r"""Reads a machine's TOML text.

        Source: docs/cost-model.md. Raises ProfileError: the field, the value and what is allowed.

        >>> from spfemu.machines import Machine
        >>> Machine.loads('name = "mine"\nlike = "x86-48"\nsockets = 1').cpus
        24
        """
        return _machine(text)

    def replace(self, **changes: Any) -> Machine:
        """Returns this machine with other numbers.

        Source: ours. ``changes`` are fields of the TOML file by name: a number, which is then
        assumed, or a mapping of ``value``, ``kind`` and ``source``; ``name``, ``arch`` and
        ``summary`` are texts. Without ``name`` the name says what was changed. Raises ProfileError:
        the field, the value and what is allowed.
        """
        plain = {name: _plain(change) for name, change in changes.items()}
        return _machine(json.dumps(plain), is_json=True, base=self.to_json())

    def to_json(self) -> str:
        """Returns this machine as the compiled core takes it. Source: ours."""
        return json.dumps(self._table())

    def to_dict(self) -> dict[str, Any]:
        """Returns all that is known of this machine as a JSON object. Source: ours."""
        return {
            "name": self.name,
            "arch": self.arch,
            "summary": self.summary,
            "cpus": self.cpus,
            "page_size": self.page_size,
            "values": [
                {
                    "name": value.name,
                    "value": value.value,
                    "unit": value.unit,
                    "kind": value.kind,
                    "source": value.source,
                    "what": value.what,
                }
                for value in self.values
            ],
        }

    def _table(self) -> dict[str, Any]:
        entries = {
            value.name: {"value": value.value, "kind": value.kind, "source": value.source}
            for value in self.values
        }
        return {"name": self.name, "arch": self.arch, "summary": self.summary, **entries}


def machine(name: str) -> Machine:
    """Returns a machine of the package, or "host": this host's topology with a near one's costs.

    Source: each value's own. Raises ProfileError for another name, or a host that cannot be read.

    >>> import spfemu
    >>> spfemu.machine("power8-1024").cpus
    1024
    """
    if name == "host":
        return host()
    for known in _builtin():
        if known.name == name:
            return known
    raise ProfileError(f"machine {shown(name)} (allowed: {', '.join(machine_names())})")


def machine_names() -> tuple[str, ...]:
    """Returns the names that ``machine`` knows. Source: ours."""
    return (*(known.name for known in _builtin()), "host")


def find_machine(given: str | Path | Machine) -> Machine:
    """Returns a machine that is given as one, by its name, or as a TOML file.

    Source: ours; ``is_machine_file`` says which texts are files. Raises ProfileError.

    >>> from spfemu.machines import find_machine
    >>> find_machine("x86-48").cpus
    48
    """
    if isinstance(given, Machine):
        return given
    return Machine.load(given) if is_machine_file(given) else machine(str(given))


def is_machine_file(given: object) -> bool:
    """Whether a machine is given as a file: a path, or a text with a slash or ``.toml`` at its end.

    Source: ours.
    """
    if isinstance(given, str):
        return given.endswith(".toml") or "/" in given
    return isinstance(given, Path)


@cache
def _builtin() -> tuple[Machine, ...]:
    from spfemu.engines import core_list

    return tuple(map(_made, core_list("machines")))


def _machine(text: str, **how: Any) -> Machine:
    from spfemu import _core

    return _made(json.loads(_core.machine(text, **how)))


def _made(obj: Mapping[str, Any]) -> Machine:
    values = tuple(Value(**value) for value in obj["values"])
    return Machine(**{**obj, "values": values})


def _plain(value: Any) -> Any:
    """The value if the core can tell what is wrong with it, else a text that it will refuse."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return int(value)
    return str(value)


def host(cpus: Path = _CPUS, cpuinfo: Path = _CPUINFO, processor: str | None = None) -> Machine:
    """Returns this host's topology, with the costs of a machine of the package that is near it.

    Source: ``/sys/devices/system/cpu``; near is what has the same arch and, on x86, the same
    vendor. CPUs that do not fit into equal sockets, dies and cores are taken as one die of cores
    without SMT. ``cpus``, ``cpuinfo`` and ``processor`` (as ``uname -m`` has it) are where to look.
    Raises ProfileError for a host of which this cannot be said.
    """
    try:
        places = {cpu: _place(cpus, cpu) for cpu in _numbers((cpus / "online").read_text())}
    except (OSError, ValueError) as error:
        raise ProfileError(f"machine host: {cpus}: cannot be read: {error}") from None
    near = _near(processor or platform.machine(), cpuinfo, places)
    counts = _counts(places)
    source = f"{cpus} of this host"
    if counts is None:
        counts = (1, 1, len(places), 1)
        source = f"{cpus} of this host has unequal parts: taken as one die"
    sockets, dies, cores, threads = counts
    table: dict[str, Any] = {
        "name": "host",
        "like": near.name,
        "summary": f"this host's topology, with the costs of {near.name}",
    }
    names = ("sockets", "dies_per_socket", "cores_per_die", "threads_per_core")
    topology: dict[str, int | bool] = dict(zip(names, counts, strict=True))
    if threads > 1:
        siblings = {places[cpu] for cpu in sorted(places)[:2]}
        topology["threads_adjacent"] = len(siblings) == 1
    for name, value in topology.items():
        table[name] = {"value": value, "kind": "measured", "source": source}
    _fill_lines(table, near, {"core": threads, "die": cores, "socket": dies, "machine": sockets})
    return _machine(json.dumps(table), is_json=True)


def _fill_lines(table: dict[str, Any], near: Machine, counts: Mapping[str, int]) -> None:
    """A distance that the near machine does not have costs what its next nearer one does."""
    known = {value.name: value.value for value in near.values}
    least = known["line_own_ns"]
    for level, count in counts.items():
        name = f"line_{level}_ns"
        if count > 1 and name not in known:
            source = f"{near.name} has no such distance: its next nearer one"
            table[name] = {"value": least, "kind": "assumed", "source": source}
        least = known.get(name, least)


_Place = tuple[str, str, str]
"""The socket, the die and the core of a CPU, each by what the kernel says of it."""


def _place(root: Path, cpu: int) -> _Place:
    folder = root / f"cpu{cpu}"
    topology = folder / "topology"
    socket = (topology / "physical_package_id").read_text().strip()
    core = (topology / "core_cpus_list", topology / "thread_siblings_list")
    caches = sorted((folder / "cache").glob("index*/shared_cpu_list"), key=_level)
    # Without a third level the socket is taken to share what there is.
    shared = caches[-1].read_text().strip() if caches and _level(caches[-1]) >= 3 else ""
    return socket, shared, next(path for path in core if path.exists()).read_text().strip()


def _level(shared: Path) -> int:
    return int((shared.parent / "level").read_text())


def _numbers(text: str) -> list[int]:
    """The CPUs of a list such as 0-3,8."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _counts(places: Mapping[int, _Place]) -> tuple[int, int, int, int] | None:
    """Sockets, dies of each, cores of each, threads of each; None where they are not equal."""
    inside: list[dict[_Place | tuple[str, ...], set[tuple[str, ...]]]] = [{}, {}, {}]
    for place in set(places.values()):
        for depth in range(3):
            inside[depth].setdefault(place[:depth], set()).add(place[: depth + 1])
    threads: dict[_Place, int] = {}
    for place in places.values():
        threads[place] = threads.get(place, 0) + 1
    sizes = [{len(parts) for parts in level.values()} for level in inside]
    sizes.append(set(threads.values()))
    if any(len(size) != 1 for size in sizes):
        return None
    sockets, dies, cores, of_core = (size.pop() for size in sizes)
    return sockets, dies, cores, of_core


def _near(processor: str, cpuinfo: Path, places: Mapping[int, _Place]) -> Machine:
    if processor in ("x86_64", "amd64"):
        try:
            text = cpuinfo.read_text()
        except OSError:
            text = ""
        # Of Zen there is one with every distance.
        if "AuthenticAMD" in text:
            return machine("zen5-256")
        return machine("icelake-128" if "GenuineIntel" in text else "x86-48")
    if processor in ("aarch64", "arm64"):
        is_one_die = len({place[:2] for place in places.values()}) == 1
        return machine("graviton3-64" if is_one_die else "kunpeng-128")
    if processor.startswith("ppc64"):
        return machine("power8-1024")
    raise ProfileError(
        f"machine host: processor {shown(processor)} (allowed: x86_64, aarch64, ppc64le)"
    )
