"""Just enough of Rust's syntax to check the tree: blanks out comments and texts, finds functions.

Lines and columns stay where they are, so what is found can be named by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TOKEN = re.compile(
    r"""
    (?P<line>//[^\n]*)
  | (?P<block>/\*)
  | (?P<raw>\b(?:b|c)?r(?P<hashes>\#*)"(?s:.*?)"(?P=hashes))
  | (?P<text>\b(?:b|c)?"(?s:\\.|[^"\\])*"|"(?s:\\.|[^"\\])*")
  | (?P<char>b?'(?:\\(?:u\{[0-9a-fA-F_]*\}|x[0-9a-fA-F]{2}|.)|[^'\\])')
    """,
    re.VERBOSE,
)
_NAME = re.compile(r"\s*([A-Za-z_]\w*)\s*(::)?")
_GROUP = re.compile(r"\s*\{")
_FUNCTION = re.compile(r"\bfn\s+([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True)
class Function:
    """A function with a body, from the line of its ``fn`` to that of its closing brace."""

    name: str
    first: int
    last: int

    @property
    def lines(self) -> int:
        return self.last - self.first + 1


def _block_comment_end(text: str, start: int) -> int:
    """Returns where the block comment at ``start`` ends; they nest."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return start + mark.end()
    return len(text)


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def code_only(text: str) -> str:
    """Returns ``text`` with comments, strings and character literals replaced by blanks."""
    parts: list[str] = []
    position = 0
    while token := _TOKEN.search(text, position):
        end = _block_comment_end(text, token.start()) if token["block"] else token.end()
        parts += [text[position : token.start()], _blank(text[token.start() : end])]
        position = end
    return "".join([*parts, text[position:]])


def line_of(code: str, position: int) -> int:
    """Returns the number, from 1, of the line that holds ``position``."""
    return code.count("\n", 0, position) + 1


def functions(code: str) -> Iterator[Function]:
    """Yields the functions of blanked ``code``; those without a body (in a trait) are left out."""
    for found in _FUNCTION.finditer(code):
        body = _body_start(code, found.end())
        if body is None:
            continue
        depth = 0
        for brace in re.finditer(r"[{}]", code[body:]):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                end = body + brace.start()
                yield Function(found[1], line_of(code, found.start()), line_of(code, end))
                break


def _body_start(code: str, position: int) -> int | None:
    """Returns where the body of the signature at ``position`` begins, None if it has none."""
    depth = 0
    for mark in re.finditer(r"[()\[\]{;]", code[position:]):
        if mark.group() in "([":
            depth += 1
        elif mark.group() in ")]":
            depth -= 1
        elif depth == 0:
            return position + mark.start() if mark.group() == "{" else None
    return None


def crate_paths(code: str, module: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields (line, path) for each path in blanked ``code`` that starts at the crate.

    ``module`` is where the code stands, ``("mm", "vma")`` for ``mm/vma.rs``; ``super::`` is
    resolved against it. Groups are taken apart: ``use crate::{mm::Vma, sync}`` gives two.
    """
    for found in re.finditer(r"(?<![\w:])(crate|(?:self::)?super(?:::super)*)\s*::\s*", code):
        ups = found[1].count("super")
        start = module[: len(module) - ups] if ups else ()
        for path in _tree(code, found.end()):
            if start + path:
                yield line_of(code, found.start()), start + path


def _tree(code: str, position: int) -> Iterator[tuple[str, ...]]:
    """Yields the paths of the use tree, or of the plain path, at ``position``."""
    names: list[str] = []
    while name := _NAME.match(code, position):
        names.append(name[1])
        position = name.end()
        if not name[2]:
            yield tuple(names)
            return
    group = _GROUP.match(code, position)
    if group is None:  # a glob
        yield tuple(names)
        return
    for branch in _branches(code, group.end()):
        for path in _tree(branch, 0):
            yield (*names, *path)


def _branches(code: str, position: int) -> Iterator[str]:
    """Yields the comma-separated parts of the group whose inside begins at ``position``."""
    depth, begin = 1, position
    for mark in re.finditer(r"[{},]", code[position:]):
        at = position + mark.start()
        if mark.group() == "{":
            depth += 1
        elif mark.group() == "}":
            depth -= 1
        if depth == 0 or (depth == 1 and mark.group() == ","):
            if part := code[begin:at].strip():
                yield part
            begin = at + 1
        if depth == 0:
            return


def rust_files(folder: Path) -> list[Path]:
    """Returns the Rust files below ``folder``, sorted."""
    return sorted(folder.rglob("*.rs"))
