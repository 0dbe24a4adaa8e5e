"""What is no host for the engine says so."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from spfemu import EngineError
from spfemu.oracle import Host, host
from tests.host_kernel import needs_host

REAL = Path("/proc")


def imitation(folder: Path, **changed: str | None) -> Path:
    """A /proc with what is looked at, as it is here but for what is changed or left out."""
    for name in (
        "sys/kernel/osrelease",
        "sys/vm/mmap_min_addr",
        "sys/vm/overcommit_memory",
        "meminfo",
        "self/smaps",
        "self/status",
    ):
        text = changed.get(name.rpartition("/")[2], (REAL / name).read_text())
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


@needs_host
def test_this_host_is_one() -> None:
    found = host()
    assert found.release == platform.release()
    assert found.version >= (4, 19)
    assert found.memory > 1 << 28


@needs_host
def test_an_imitation_of_everything_is_the_same(tmp_path: Path) -> None:
    assert host(imitation(tmp_path)) == host()


@needs_host
def test_who_has_no_vmas_is_no_linux_kernel(tmp_path: Path) -> None:
    smaps = "\n".join(
        line for line in (REAL / "self/smaps").read_text().splitlines() if "VmFlags" not in line
    )
    with pytest.raises(EngineError, match=r"engine kernel: 4\.4\.0 is no Linux kernel: it does"):
        host(imitation(tmp_path, smaps=smaps, osrelease="4.4.0\n"))


@needs_host
def test_a_proc_that_lacks_things(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no Linux kernel here: .*mmap_min_addr"):
        host(imitation(tmp_path, mmap_min_addr=None))
    with pytest.raises(EngineError, match="no Linux kernel here"):
        host(imitation(tmp_path, osrelease="plan9\n"))


def test_other_systems_and_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(EngineError, match=r"processor aarch64 \(allowed: x86-64\)"):
            host()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(EngineError, match=r"system darwin \(allowed: Linux on x86-64\)"):
        host()


def test_version_of_a_release() -> None:
    assert Host("5.1.0-rc3+", 0, 0, 0, 0, 1, 0, False).version == (5, 1)
    assert Host("6.18-x", 0, 0, 0, 0, 1, 0, False).version == (6, 18)


@needs_host
@pytest.mark.parametrize(
    ("allowed", "nodes"), [("0", 1), ("0-3", 4), ("0,2", 1), ("0-1,4-7", 2), ("1-3", 0), (None, 0)]
)
def test_its_nodes_are_those_that_it_gives_us(
    tmp_path: Path, allowed: str | None, nodes: int
) -> None:
    status = "Name:\tx\n" if allowed is None else f"Name:\tx\nMems_allowed_list:\t{allowed}\n"
    assert host(imitation(tmp_path, status=status)).nodes == nodes


@needs_host
def test_keys_count_once_the_kernel_has_switched_them_on(tmp_path: Path) -> None:
    lines = (REAL / "self/smaps").read_text().splitlines()
    without = "\n".join(line for line in lines if "ProtectionKey" not in line)
    assert not host(imitation(tmp_path, smaps=without)).protection_keys
    smaps = without.replace("\nVmFlags:", "\nProtectionKey:         0\nVmFlags:")
    assert host(imitation(tmp_path, smaps=smaps)).protection_keys
