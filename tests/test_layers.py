"""The rules of ARCHITECTURE.md that a machine can check: layers, unsafe, ambient state, length."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rust_source import code_only, crate_paths, functions, line_of, rust_files

ROOT = Path(__file__).parent.parent
CORE = ROOT / "rust/core/src"
PACKAGE = ROOT / "python/spfemu"

# A module may use those of its own number and of lower ones.
LAYERS = {
    "arch": 0,
    "events": 0,
    "platform": 1,
    "sync": 2,
    "mm": 3,
    "design": 3,
    "fault": 4,
    "ops": 4,
    "explore": 5,
    "vtime": 5,
    "program": 5,
}
# Where `unsafe` may stand: what talks to the hardware, the host kernel or Python.
UNSAFE = ("rust/core/src/platform/", "rust/oracle/", "rust/py/", "benches/native/os.rs")
# What makes a run depend on more than its inputs; only the platforms may know it.
AMBIENT = re.compile(
    r"\b(Instant|SystemTime|thread_local|HashMap|HashSet|RandomState|static\s+mut)\b"
)
MAX_FUNCTION_LINES = 59
MAX_FILE_LINES = 399

ALLOWED = tomllib.loads((ROOT / "tests/allowed.toml").read_text())


RUST = [*rust_files(ROOT / "rust"), *rust_files(ROOT / "benches")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> tuple[str, ...]:
    """Returns the module a file of the core holds: ``("mm", "vma")`` for ``mm/vma.rs``."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return parts[:-1] if parts[-1] in {"mod", "lib"} else parts


def upward_uses(module: tuple[str, ...], text: str) -> Iterator[str]:
    """Yields "line: path" for each path in ``text`` that leads to a higher layer."""
    for line, path in crate_paths(code_only(text), module):
        if path[0] in LAYERS and LAYERS[path[0]] > LAYERS[module[0]]:
            yield f"{line}: {'::'.join(path)}"


def undocumented_unsafe(text: str) -> Iterator[int]:
    """Yields the lines with an ``unsafe`` that no SAFETY note stands above."""
    lines = text.splitlines()
    code = code_only(text)
    for found in re.finditer(r"\bunsafe\b", code):
        line = line_of(code, found.start())
        if not has_safety_note(lines, line):
            yield line


def has_safety_note(lines: list[str], line: int) -> bool:
    """Whether ``line`` has a SAFETY note: on it, or in the comment right above its statement."""
    if "SAFETY:" in lines[line - 1]:
        return True
    for above in reversed(lines[: line - 1]):
        text = above.strip()
        if "SAFETY:" in text or text == "/// # Safety":
            return True
        # The `unsafe` may stand on a later line of its statement, under attributes or `let x =`.
        if not text.startswith(("//", "#[")) and not text.endswith(("=", "(", ",", "=>")):
            return False
    return False


def long_parts(path: Path) -> Iterator[tuple[str, int]]:
    """Yields (name, lines) of a file and of its functions, where they are too long."""
    text = path.read_text()
    if (total := text.count("\n")) > MAX_FILE_LINES:
        yield name_of(path), total
    spans = rust_functions(text) if path.suffix == ".rs" else python_functions(text)
    for function, lines in spans:
        if lines > MAX_FUNCTION_LINES:
            yield f"{name_of(path)}::{function}", lines


def rust_functions(text: str) -> Iterator[tuple[str, int]]:
    for function in functions(code_only(text)):
        yield function.name, function.lines


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yields (name, lines) of the functions of a Python file, docstrings not counted."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                assert docstring.end_lineno is not None
                lines -= docstring.end_lineno - docstring.lineno + 1
            yield node.name, lines


@pytest.mark.parametrize("path", rust_files(CORE), ids=name_of)
def test_no_module_uses_a_higher_layer(path: Path) -> None:
    module = module_of(path)
    if not module:  # lib.rs only lists the modules
        return
    assert module[0] in LAYERS, f"give {module[0]} its place in LAYERS"
    assert list(upward_uses(module, path.read_text())) == []


def test_unsafe_stands_only_where_it_may() -> None:
    found = [
        f"{name_of(path)}:{line_of(code, match.start())}"
        for path in RUST
        if not name_of(path).startswith(UNSAFE)
        for code in [code_only(path.read_text())]
        for match in re.finditer(r"\bunsafe\b", code)
    ]
    assert found == []


def test_each_unsafe_has_a_safety_note() -> None:
    found = [
        f"{name_of(path)}:{line}" for path in RUST for line in undocumented_unsafe(path.read_text())
    ]
    assert found == []


def test_nothing_ambient_outside_the_platforms() -> None:
    found = {
        f"{name_of(path)}: {match[1]}"
        for path in rust_files(CORE)
        if module_of(path)[:1] != ("platform",)
        for match in AMBIENT.finditer(code_only(path.read_text()))
    }
    assert found == set(ALLOWED["ambient"])


def test_long_functions_and_files_have_a_reason() -> None:
    long = {
        name: lines
        for path in [*RUST, *sorted(PACKAGE.rglob("*.py"))]
        if "tests" not in path.relative_to(ROOT).parts
        for name, lines in long_parts(path)
    }
    without_reason = {name: lines for name, lines in long.items() if name not in ALLOWED["long"]}
    assert without_reason == {}
    assert set(ALLOWED["long"]) - set(long) == set(), "short again: take these off the list"


class TestTheCheckItself:
    def test_sees_upward_uses_in_every_form(self) -> None:
        text = """
            //! crate::explore in a comment is no use
            use crate::{arch::Profile, ops::{munmap, mmap}, platform};
            use super::super::fault;
            fn f() { let text = "crate::vtime"; crate::explore::strategy::go::<'a'>('"'); }
            use crate::mm::page;
        """
        assert list(upward_uses(("mm", "vma"), text)) == [
            "3: ops::munmap",
            "3: ops::mmap",
            "4: fault",
            "5: explore::strategy::go",
        ]

    def test_asks_for_a_safety_note_right_above(self) -> None:
        text = """
            // SAFETY: 1. the slot is ours until the epoch ends.
            let a = unsafe { read(p) };
            // SAFETY: as above.
            #[inline]
            unsafe fn told() {}
            let b = unsafe { read(p) };
            // why
            unsafe impl Send for X {}
            // SAFETY: the pointer is from `new`.
            let c =
                unsafe { read(p) };
        """
        assert list(undocumented_unsafe(text)) == [7, 9]

    def test_measures_functions(self) -> None:
        rust = """trait T { fn a(&self) -> [u8; 4]; }
fn b(x: [u8; 2])
{
    if x { "}" } else { '}' };
}
"""
        assert list(rust_functions(rust)) == [("b", 4)]
        python = 'def f():\n    """One\n    two."""\n    return 1\n'
        assert list(python_functions(python)) == [("f", 2)]
