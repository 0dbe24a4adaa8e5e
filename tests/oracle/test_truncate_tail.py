"""The rest of the page that a file ends in: the host and the emulator clear the same of it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.oracle.play import BASE, PAGE, compared, mmap, op, program, result

WORD: Final = 0x1122_3344_5566_7788
LOW: Final = {n: WORD & ((1 << 8 * n) - 1) for n in range(9)}


def of_file(pages: int = 1, sharing: str = "shared", **keys: Any) -> dict[str, Any]:
    return mmap(pages, flags=[sharing, "fixed"], file="f", **keys)


def cut(length: int) -> dict[str, Any]:
    return {"op": "truncate", "file": "f", "length": length}


def seen(kind: str, length: int, *ops: dict[str, Any]) -> list[int]:
    """What the reads gave, on the host and on the emulator, which must be the same."""
    given = program([*ops], files={"f": {"length": length, "kind": kind}})
    for handler in ("classic", "spf"):
        found = compared(given, handler)
        assert (found.differences, found.excused, found.cut) == ([], [], "")
    return [outcome["value"] for outcome in result(given).outcomes() if outcome["op"] == "read"]


KINDS: Final = pytest.mark.parametrize("kind", ["regular", "shmem"])


@KINDS
@pytest.mark.parametrize("length", range(1, 10))
def test_a_shorter_file_keeps_the_bytes_before_its_end(kind: str, length: int) -> None:
    ops = [of_file(), op("write", value=WORD), cut(length), op("read"), cut(PAGE), op("read")]
    assert seen(kind, PAGE, *ops) == [LOW[min(length, 8)]] * 2


@KINDS
def test_of_a_later_page_and_through_every_mapping(kind: str) -> None:
    other = of_file(3, "private", addr=hex(BASE + 16 * PAGE), id="q")
    last = "p+0x2000"
    ops = [of_file(3), other, op("write", last, value=WORD), op("write", "p", value=WORD)]
    ops += [cut(2 * PAGE + 3), op("read", last), op("read", "q+0x2000"), op("read", "q")]
    assert seen(kind, 3 * PAGE, *ops) == [LOW[3], LOW[3], WORD]


@KINDS
def test_a_private_copy_of_the_page_stays(kind: str) -> None:
    ops = [of_file(1, "private"), op("write", value=WORD), cut(3), op("read")]
    assert seen(kind, PAGE, *ops) == [WORD]


@KINDS
@pytest.mark.parametrize("length", [3, 5, 100, PAGE, PAGE + 5, 8 * PAGE])
def test_what_was_stored_beyond_the_end_when_the_file_grows(kind: str, length: int) -> None:
    # 5.1 clears it when the page is written back, newer kernels at the latest when the file grows.
    kept = WORD if kind == "shmem" and length > 3 else LOW[3]
    ops = [of_file(), op("write", value=WORD), cut(length), op("read"), cut(2), op("read")]
    assert seen(kind, 3, *ops) == [kept, LOW[2]]
