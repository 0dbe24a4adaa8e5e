"""The operations of one task while they are written: packed records that may still be patched."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from spfemu.program import OP_DTYPE, OPS, SITE_DTYPE

__all__ = ["CODE", "Tape"]

CODE: Final = {name: op.code for name, op in OPS.items()}
"""Operation names to the codes of the array form."""

_RECORD: Final = struct.Struct("<HIBBBBiqQiqQQI")
_SITE: Final = struct.Struct("<QII")
_CHUNK_BITS: Final = 14
_CHUNK: Final = 1 << _CHUNK_BITS
"""The records of a chunk: a long tape is cut without ever being there twice."""
_I64: Final = 1 << 63
_U64: Final = 1 << 64


class Tape:
    """The records of one task, 62 bytes each, with where each came from.

    Posts are set against operations that already stand on the tape and go in between when it is
    cut. Source: the array form of the program format.
    """

    __slots__ = ("_chunks", "_front", "_posts", "_records", "_sites", "index", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.index = 0  # of the next operation
        self._chunks: list[tuple[bytearray, bytearray]] = []
        self._records = bytearray()  # those of the last chunk
        self._sites = bytearray()
        self._posts: dict[int, int] = {}
        self._front: list[tuple[int, int]] = []

    def append(
        self,
        op: int,
        *,
        flags: int = 0,
        prot: int = 0,
        mode: int = 0,
        advice: int = 0,
        addr: int = 0,
        length: int = 0,
        addr2: int = 0,
        value: int = 0,
        aux: int = 0,
        site: tuple[int, int, int] = (0, 0, 0),
    ) -> int:
        """Appends an operation of code ``op`` and returns its index.

        The fields are those of the array form; ``site`` is instruction pointer, comm and mapping.
        Source: ours.
        """
        if addr >= _I64:
            addr -= _U64
        if not self.index & (_CHUNK - 1):
            self._records, self._sites = bytearray(), bytearray()
            self._chunks.append((self._records, self._sites))
        self._records += _RECORD.pack(
            op, flags, prot, 0, mode, advice, -1, addr, length, -1, addr2, 0, value, aux
        )
        self._sites += _SITE.pack(*site)
        self.index += 1
        return self.index - 1

    def patch(self, index: int, **fields: int) -> None:
        """Sets fields of an operation that stands on the tape. Source: ours."""
        records = self._chunks[index >> _CHUNK_BITS][0]
        record = np.frombuffer(records, OP_DTYPE, 1, (index & (_CHUNK - 1)) * OP_DTYPE.itemsize)
        for name, value in fields.items():
            record[name] = value

    def post(self, index: int, name: int) -> int:
        """Has a post follow an operation; returns its name's number: ``name``, or that of the post
        there. Source: ours.
        """
        return self._posts.setdefault(index, name)

    def start_first(self, op: int, child: int) -> None:
        """Has the task start another before anything it does of its own (but for an exec it begins
        with). Source: ours.
        """
        self._front.append((op, child))

    @property
    def nr_posts(self) -> int:
        """The number of posts. Source: ours."""
        return len(self._posts)

    def cut(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.void]]:
        """Returns the records and their sites, posts included, as read-only arrays. Source:
        ours.
        """
        added = self._added()
        where = np.array([place for place, _, _ in added], np.int64)
        records = np.empty(self.index + len(added), OP_DTYPE)
        sites = np.zeros(len(records), SITE_DTYPE)
        chunks, start = self._chunks[::-1], 0
        self._chunks.clear()
        self._records, self._sites = bytearray(), bytearray()
        while chunks:
            chunk_records, chunk_sites = chunks.pop()
            numbers = np.arange(start, start + len(chunk_records) // OP_DTYPE.itemsize)
            start += len(numbers)
            to = numbers + np.searchsorted(where, numbers, "right")
            records[to] = np.frombuffer(chunk_records, OP_DTYPE)
            sites[to] = np.frombuffer(chunk_sites, SITE_DTYPE)
        to = where + np.arange(len(added))
        new = np.zeros(len(added), OP_DTYPE)
        new["base"] = new["base2"] = -1
        new["op"] = [op for _, op, _ in added]
        new["aux"] = [aux for _, _, aux in added]
        records[to] = new
        if self.index:
            before = np.maximum(where - 1, 0)
            sites["comm"][to] = sites["comm"][before + np.searchsorted(where, before, "right")]
        records.flags.writeable = sites.flags.writeable = False
        return records, sites

    def _added(self) -> list[tuple[int, int, int]]:
        """What goes in between: before which operation, its code and ``aux``. Source: ours."""
        first = self._chunks[0][0][:2] if self._chunks else b""
        after_exec = 1 if int.from_bytes(first, "little") == CODE["exec"] else 0
        added = [(after_exec, op, child) for op, child in self._front]
        added += [(index + 1, CODE["post"], name) for index, name in sorted(self._posts.items())]
        return sorted(added, key=lambda one: one[0])
