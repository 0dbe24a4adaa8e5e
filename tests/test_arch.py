"""Arch profiles: what the package brings, and what a user's own may be."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

import spfemu
from spfemu.errors import ProfileError
from spfemu.profiles import Arch, Level, arch_names

GOOD = Arch(
    "mine",
    "arm64",
    14,
    (Level("pgd", 36, 2048), Level("pmd", 25, 2048), Level("pte", 14, 2048)),
    task_size=1 << 47,
    mmap_base=1 << 46,
    exec_only=True,
)


def test_the_package_brings_six_profiles() -> None:
    assert arch_names() == ("x86", "x86-5level", "powerpc", "powerpc-4k", "arm64", "arm64-64k")


@pytest.mark.parametrize("name", arch_names())
def test_profiles_round_trip(name: str) -> None:
    profile = spfemu.arch(name)
    assert Arch.from_dict(profile.to_dict()) == profile
    assert profile.source


def test_a_profile_of_ones_own_runs() -> None:
    program = spfemu.Program.loads(
        """{"format": "spfemu-program/1", "page_size": 16384, "tasks": [{"ops": [
            {"op": "mmap", "length": "64K", "id": "p"},
            {"op": "touch", "addr": "p", "length": "64K"}]}]}"""
    )
    for engine in ("reference", "native", "vtime"):
        result = spfemu.run(program, engine=engine, arch=GOOD)
        assert (result.arch, result.counters["faults"]) == ("mine", 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, 'arch : name: value "" (allowed: a name)'),
        ({"family": "vax"}, 'family: value "vax" (allowed: x86, powerpc, arm64)'),
        ({"page_shift": 11}, "page_shift: value 11 (allowed: 12 to 16)"),
        ({"page_shift": 12}, "levels: pte.shift: value 14 (allowed: 12, what the level below"),
        ({"levels": GOOD.levels[:1]}, "levels: value 1 (allowed: 2 to 5 of them)"),
        (
            {"levels": (Level("pgd", 25, 2048), Level("pte", 14, 100))},
            "levels: pte.entries: value 100 (allowed: a power of two, 2 to 65536)",
        ),
        (
            {"levels": (Level("pgd", 30, 2048), Level("pte", 14, 2048))},
            "levels: pgd.shift: value 30 (allowed: 25, what the level below covers)",
        ),
        (
            {"task_size": (1 << 47) + 1},
            "task_size: value 140737488355329 (allowed: whole pages, at",
        ),
        ({"task_size": 1 << 48}, "task_size: value 281474976710656"),
        ({"mmap_base": 0}, "mmap_base: value 0 (allowed: whole pages"),
        ({"mmap_base": 1 << 48}, "mmap_base: value 281474976710656"),
    ],
)
def test_a_profile_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError) as raised:
        replace(GOOD, **change)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (5, "arch: value 5 (allowed: an object)"),
        ({"nam": 1}, 'arch: "nam": unknown (allowed: name, family,'),
        ({"name": "x"}, "arch: a field is missing or has a wrong type: 'levels'"),
        ({**GOOD.to_dict(), "levels": [{"shift": 3}]}, "a field is missing or has a wrong type"),
    ],
)
def test_a_json_object_that_is_no_profile(obj: Any, message: str) -> None:
    with pytest.raises(ProfileError) as raised:
        Arch.from_dict(obj)
    assert message in str(raised.value)


def test_an_unknown_name() -> None:
    with pytest.raises(ProfileError, match=r'arch "vax" \(allowed: x86, x86-5level, powerpc,'):
        spfemu.arch("vax")


def test_the_name_in_the_package_is_the_function_whatever_was_imported() -> None:
    import spfemu.profiles as home

    assert spfemu.arch is home.arch
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("spfemu.arch")


def test_the_package_is_there_before_what_it_needs() -> None:
    script = (
        "import spfemu, sys; print('numpy' in sys.modules); spfemu.Program; print(*dir(spfemu))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, names = run.stdout.splitlines()
    assert first == "False"
    assert names.split() == sorted(spfemu.__all__)
