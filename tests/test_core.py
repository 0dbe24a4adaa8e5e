"""The compiled module as such: its version, its build, its stub."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from spfemu import _core

ROOT = Path(__file__).parent.parent


def test_has_one_version_everywhere() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    version = cargo["workspace"]["package"]["version"]
    assert _core.__version__ == version
    assert _core.build_info()["version"] == version
    assert metadata.version("spfemu") == version


def test_build_info_names_an_optimised_build() -> None:
    info = _core.build_info()
    assert info["profile"] == "release"
    assert info["checks"] == "off"
    assert info["rustc"].startswith("rustc 1.")
    assert info["target"].count("-") >= 2


def test_package_says_that_it_is_typed() -> None:
    files = {str(path) for path in metadata.files("spfemu") or []}
    package = Path(_core.__file__ or "").parent
    assert "spfemu/py.typed" in files or (package / "py.typed").exists()
    assert (package / "_core.pyi").exists()
