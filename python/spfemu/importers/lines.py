"""Text lines out of a recording: plain, gzip or Zstandard by content, or standard input, in bounded
memory.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import zstandard

from spfemu.errors import TraceError

__all__ = ["LineReader", "Progress"]

Progress = Callable[[int], None]
"""Called now and then with the number of bytes read from the file so far."""

_CHUNK: Final = 1 << 16
# Zstandard packs a run of equal bytes some 10,000 fold and its object takes no output limit, so it
# is fed little at a time.
_FEED: Final = 1 << 8
_LINE_LIMIT: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZST: Final = b"\x28\xb5\x2f\xfd"
_EXPECTED: Final = "expected the text that perf script or strace prints"
_PERF_DATA: Final = (b"PERFILE2", b"2ELIFREP")


class _Unpacker(Protocol):
    """What zlib's and zstandard's decompression objects have in common. Source: ours."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class LineReader:
    """Iterates over the lines of one recording, and knows where it is.

    ``name`` is what messages call the file, ``line`` the number of the last line given out (from
    1). A file is unpacked by its content, whatever its suffix says; ``"-"`` is standard input.
    Memory stays bounded whatever the size of the file. Source: ours. Iterating raises TraceError,
    with the line reached, for a missing or empty file, for one that is binary, cut short or
    damaged, and for a line over 1 MiB.

    >>> import gzip, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory, "t.txt")
    ...     _ = path.write_bytes(gzip.compress(b"one\\ntwo\\n"))
    ...     list(LineReader(path))
    ['one', 'two']
    """

    def __init__(self, path: str | Path, progress: Progress | None = None) -> None:
        self.name = "<stdin>" if str(path) == "-" else str(path)
        self.line = 0
        self._path = path
        self._progress = progress
        self._read = 0
        self._first: list[str] = []
        self._all = self._opened()

    def peek(self) -> str:
        """Returns the first line that is neither empty nor a comment (``#``); iterating begins with
        it. Source: ours.
        """
        for line in self._all:
            if line.strip() and not line.startswith("#"):
                self._first.append(line)
                return line
        raise self.error(f"holds no events; {_EXPECTED}")

    def error(self, message: str) -> TraceError:
        """Returns (does not raise) the error that says ``message`` about the line reached. Source:
        ours.
        """
        return TraceError(self.name, self.line, message)

    def __iter__(self) -> Iterator[str]:
        if self._first:
            yield self._first.pop()
        yield from self._all

    def _opened(self) -> Iterator[str]:
        if str(self._path) == "-":
            yield from self._lines(sys.stdin.buffer)
            return
        try:
            file = open(self._path, "rb")  # noqa: SIM115 (opening and reading fail with different words)
        except OSError as error:
            raise self.error(f"cannot be opened: {error.strerror or error}") from error
        with file:
            yield from self._lines(file)

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        rest = b""
        for chunk in self._unpacked(file):
            if b"\0" in chunk:
                self.line += chunk[: chunk.index(b"\0")].count(b"\n") + 1
                raise self.error(f"holds binary data; {_EXPECTED}")
            lines, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                for line in lines.decode("utf-8", "backslashreplace").split("\n"):
                    self.line += 1
                    yield line
            if len(rest) > _LINE_LIMIT:
                self.line += 1
                raise self.error(f"a line is longer than 1 MiB; {_EXPECTED}")
        if rest:
            self.line += 1
            yield rest.decode("utf-8", "backslashreplace")

    def _unpacked(self, file: BinaryIO) -> Iterator[bytes]:
        first = self._get(file)
        if not first:
            raise self.error(f"is empty; {_EXPECTED}")
        if first.startswith(_PERF_DATA):
            raise self.error("is a perf.data file; give the text that `perf script` prints from it")
        if first.startswith(_GZIP):
            yield from self._unpack(file, first, lambda: zlib.decompressobj(wbits=31), "gzip")
        elif first.startswith(_ZST):
            make = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
            yield from self._unpack(file, first, make, "Zstandard")
        else:
            while first:
                yield first
                first = self._get(file)

    def _unpack(
        self, file: BinaryIO, data: bytes, make: Callable[[], _Unpacker], kind: str
    ) -> Iterator[bytes]:
        """Unpacks one stream after the other to the end of the file. Source: ours."""
        unpacker = make()
        empty = True
        for piece in self._pieces(file, data):
            while piece:
                if unpacker.eof:
                    unpacker = make()
                try:
                    text = unpacker.decompress(piece)
                except (zlib.error, zstandard.ZstdError) as error:
                    message = f"the {kind} data is damaged after this line: {error}"
                    raise self.error(message) from error
                if text:
                    empty = False
                    yield text
                piece = unpacker.unused_data if unpacker.eof else b""
        if not unpacker.eof:
            raise self.error(f"the {kind} data ends early after this line; the file is cut short")
        if empty:
            raise self.error(f"is empty; {_EXPECTED}")

    def _pieces(self, file: BinaryIO, data: bytes) -> Iterator[bytes]:
        while data:
            for at in range(0, len(data), _FEED):
                yield data[at : at + _FEED]
            data = self._get(file)

    def _get(self, file: BinaryIO) -> bytes:
        try:
            data = file.read(_CHUNK)
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror or error}") from error
        self._read += len(data)
        if self._progress is not None:
            self._progress(self._read)
        return data
