"""`scripts/check_tools.sh` names each missing tool and how to get it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts/check_tools.sh"
SHELL = shutil.which("sh") or "/bin/sh"


class Machine:
    """A PATH that holds exactly the tools put on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"PATH": str(folder), "HOME": str(folder / "home")}

    def add(self, name: str, *, script: str = "exit 0") -> None:
        tool = self.folder / name
        tool.write_text(f"#!{SHELL}\n{script}\n")
        tool.chmod(0o755)

    def check(self, purpose: str) -> subprocess.CompletedProcess[str]:
        command = [SHELL, str(SCRIPT), purpose]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that has everything."""
    machine = Machine(tmp_path)
    machine.add("python3", script=f'exec "{sys.executable}" "$@"')
    for tool in ("cc", "cargo", "rustc"):
        machine.add(tool)
    return machine


def test_prints_the_python_to_use(machine: Machine) -> None:
    done = machine.check("test")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{machine.folder}/python3\n"


def test_takes_a_newer_python_than_the_default_one(machine: Machine) -> None:
    machine.add("python3", script="exit 1")
    machine.add("python3.12", script=f'exec "{sys.executable}" "$@"')
    assert machine.check("build").stdout == f"{machine.folder}/python3.12\n"


@pytest.mark.parametrize(
    ("tool", "named", "remedy"),
    [
        ("python3", "Python 3.11 or later", "apt-get install python3"),
        ("cc", "cc, a C compiler", "apt-get install gcc"),
        ("cargo", "cargo and rustc", "https://rustup.rs"),
        ("rustc", "cargo and rustc", "https://rustup.rs"),
    ],
)
def test_names_what_is_missing(machine: Machine, tool: str, named: str, remedy: str) -> None:
    (machine.folder / tool).unlink()
    done = machine.check("build")
    assert (done.returncode, done.stdout) == (1, "")
    message, how = done.stderr.splitlines()
    assert message.startswith(f"spfemu: missing: {named}")
    assert remedy in how


def test_names_everything_at_once(machine: Machine) -> None:
    (machine.folder / "cc").unlink()
    (machine.folder / "cargo").unlink()
    assert machine.check("build").stderr.count("spfemu: missing:") == 2


def test_names_a_python_without_venv(machine: Machine) -> None:
    machine.add("python3", script='case "$2" in *venv*) exit 1;; esac')
    assert "the venv module of python3" in machine.check("build").stderr


def test_names_the_cargo_that_is_not_on_path(machine: Machine) -> None:
    installed = machine.folder / "home/.cargo/bin"
    installed.mkdir(parents=True)
    (machine.folder / "cargo").rename(installed / "cargo")
    assert f'export PATH="{installed}:$PATH"' in machine.check("build").stderr


def test_tests_need_rustfmt_and_clippy(machine: Machine) -> None:
    machine.add("cargo", script='[ "$1" != clippy ]')
    assert machine.check("build").returncode == 0
    done = machine.check("test")
    assert done.returncode == 1
    assert "rustup component add clippy" in done.stderr


def test_says_that_the_python_asked_for_is_too_old(machine: Machine) -> None:
    machine.add("old", script="exit 1")
    machine.env["PYTHON"] = "old"
    assert "PYTHON=old is not one" in machine.check("build").stderr
