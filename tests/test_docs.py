"""The examples of the documentation are true: docstrings, the stub, and the pages in Markdown.

A page is run from top to bottom as one session. Its ``python`` blocks are executed, prompts or not;
where a ``text`` block follows a block without prompts, it holds exactly what that block prints.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import spfemu
from tests.host_kernel import REFUSAL

ROOT = Path(__file__).parent.parent
STUBS = sorted((ROOT / "python/spfemu").rglob("*.pyi"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ ]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, at ``line``; ``output`` is the text block right after it."""

    line: int
    code: str
    output: str | None


def modules() -> list[ModuleType]:
    names = [found.name for found in pkgutil.walk_packages(spfemu.__path__, "spfemu.")]
    # `__main__` would run the command line.
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def module_examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name: test for module in [spfemu, *modules()] for test in finder.find(module)}
    return [found[name] for name in sorted(found) if found[name].examples]


def stub_examples() -> list[doctest.DocTest]:
    """Returns the examples of the stubs; what a stub describes has no docstring of its own."""
    tests = []
    for path in STUBS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                name = f"{path.name}::{getattr(node, 'name', 'module')}"
                line = getattr(node, "lineno", 1)
                tests.append(doctest.DocTestParser().get_doctest(text, {}, name, str(path), line))
    return [test for test in tests if test.examples]


def blocks(page: str) -> Iterator[Block]:
    """Yields the ``python`` blocks of a page in Markdown."""
    found = list(FENCE.finditer(page))
    for block, after in zip_longest(found, found[1:]):
        if block[1] != "python":
            continue
        output = None
        if after and after[1] == "text" and not page[block.end() : after.start()].strip():
            output = after[2]
        yield Block(page.count("\n", 0, block.start(2)) + 1, block[2], output)


def run_examples(test: doctest.DocTest) -> None:
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    runner.run(test, out=report.write, clear_globs=False)
    assert runner.failures == 0, report.getvalue()


def run_block(block: Block, page: str, names: dict[str, Any]) -> None:
    if ">>> " in block.code:
        parser = doctest.DocTestParser()
        test = parser.get_doctest(block.code, names, page, page, block.line - 1)
        run_examples(test)
        names.update(test.globs)
        return
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.code, page, "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    if block.output is not None:
        assert printed.getvalue() == block.output


@pytest.fixture
def checkout_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test in a folder that reads like the checkout, and can be written to."""
    for entry in ROOT.iterdir():
        if not entry.name.startswith("."):
            (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)


def asks_the_host(name: str) -> None:
    """Skips what needs the host's kernel where it cannot be asked."""
    if REFUSAL and re.search(r"\boracle\b|\bhosting\b", name):
        pytest.skip(REFUSAL)


@pytest.mark.parametrize("test", module_examples() + stub_examples(), ids=lambda test: test.name)
@pytest.mark.usefixtures("checkout_like")
def test_example(test: doctest.DocTest) -> None:
    asks_the_host(test.name)
    run_examples(test)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
@pytest.mark.usefixtures("checkout_like")
def test_page(path: Path) -> None:
    asks_the_host(path.stem)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(path.read_text()):
        run_block(block, str(path), names)


class TestTheCheckItself:
    def test_pairs_a_block_with_the_text_right_after_it(self) -> None:
        page = """a
```python
print(1)
```

```text
1
```
```python
x
```
so
```text
2
```
"""
        assert list(blocks(page)) == [Block(3, "print(1)\n", "1\n"), Block(10, "x\n", None)]

    def test_notices_output_that_differs(self) -> None:
        with pytest.raises(AssertionError):
            run_block(Block(1, "print(1)\n", "2\n"), "page", {})
        with pytest.raises(AssertionError):
            run_block(Block(1, ">>> 1 + 1\n3\n", None), "page", {})

    def test_a_page_is_one_session(self) -> None:
        names: dict[str, Any] = {}
        run_block(Block(1, ">>> x = 2\n", None), "page", names)
        run_block(Block(4, "print(x)\n", "2\n"), "page", names)
