"""Lines out of files: what is unpacked, and what is refused with which words."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from spfemu.errors import TraceError
from spfemu.importers import import_trace, looks_like_trace
from spfemu.importers.lines import LineReader
from tests.importers.text import Recording

TEXT = "".join(f"line {number}\n" for number in range(1, 5001))


def refused(path: Path) -> TraceError:
    with pytest.raises(TraceError) as caught:
        list(LineReader(path))
    assert caught.value.file == str(path)
    assert str(caught.value).count("\n") == 0
    return caught.value


@pytest.mark.parametrize("pack", ["plain", "gzip", "zstd", "two-gzip", "two-zstd"])
def test_unpacks_by_content_whatever_the_name(tmp_path: Path, pack: str) -> None:
    half = TEXT.encode()[: len(TEXT) // 2], TEXT.encode()[len(TEXT) // 2 :]
    data = {
        "plain": TEXT.encode(),
        "gzip": gzip.compress(TEXT.encode()),
        "zstd": zstandard.compress(TEXT.encode()),
        "two-gzip": b"".join(map(gzip.compress, half)),
        "two-zstd": b"".join(map(zstandard.compress, half)),
    }[pack]
    path = tmp_path / "trace.txt"
    path.write_bytes(data)
    reader = LineReader(path)
    assert list(reader) == TEXT.splitlines()
    assert reader.line == 5000


def test_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(zstandard.compress(b"one\ntwo"))

    monkeypatch.setattr("sys.stdin", Stdin)
    reader = LineReader("-")
    assert list(reader) == ["one", "two"]
    assert reader.name == "<stdin>"


def test_a_peek_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("\n# comment\n\nfirst\nsecond\n")
    reader = LineReader(path)
    assert reader.peek() == "first"
    assert list(reader) == ["first", "second"]
    assert reader.line == 5


@pytest.mark.parametrize("kind", ["Zstandard", "gzip"])
@pytest.mark.parametrize("keep", [0.3, 0.999])
def test_a_cut_file_is_an_error(tmp_path: Path, kind: str, keep: float) -> None:
    text = TEXT.encode()
    whole = zstandard.compress(text) if kind == "Zstandard" else gzip.compress(text)
    path = tmp_path / "t.txt.zst"
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert f"the {kind} data ends early" in refused(path).message


@pytest.mark.parametrize("kind", ["Zstandard", "gzip"])
def test_a_damaged_file_is_an_error(tmp_path: Path, kind: str) -> None:
    text = TEXT.encode()
    checked = zstandard.ZstdCompressor(write_checksum=True)
    whole = checked.compress(text) if kind == "Zstandard" else gzip.compress(text)
    path = tmp_path / "t.txt"
    path.write_bytes(whole[:-6] + bytes(byte ^ 0xFF for byte in whole[-6:]))
    assert f"the {kind} data is damaged" in refused(path).message


def test_binary_data_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"one\ntwo\nth\0ree\n")
    error = refused(path)
    assert error.line == 3
    assert "binary" in error.message


@pytest.mark.parametrize(
    "data",
    [b"", gzip.compress(b""), zstandard.compress(b"")],
    ids=["text", "gzip", "zstd"],  # gzip's header has the time in it
)
def test_an_empty_file_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(data)
    assert "is empty" in refused(path).message


def test_a_perf_data_file_is_told_from_text(tmp_path: Path) -> None:
    path = tmp_path / "perf.data"
    path.write_bytes(b"PERFILE2" + bytes(100))
    assert "perf script" in refused(path).message


def test_an_endless_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"short\n" + b"x" * (3 << 20))
    error = refused(path)
    assert error.line == 2
    assert "longer than 1 MiB" in error.message


def test_a_missing_file_and_a_directory_are_errors(tmp_path: Path) -> None:
    assert "cannot be opened" in refused(tmp_path / "absent").message
    assert "cannot be opened" in refused(tmp_path).message


def test_bytes_that_are_no_utf8_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"caf\xe9\n")
    assert list(LineReader(path)) == ["caf\\xe9"]


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    # 6 MiB of lines that become nothing.
    recording = Recording()
    recording.exec(7)
    recording.fault(7, 7, 0x1000)
    head = "\n".join(recording.lines) + "\n"
    number = 6 << 20 >> 8
    draw = random.Random(1)
    noise = (f"a 7/7 [000] 1.9: probe:x: {draw.randbytes(112).hex()}\n" for _ in range(number))
    path = tmp_path / "t.zst"
    path.write_bytes(zstandard.compress((head + "".join(noise)).encode()))
    tracemalloc.start()
    try:
        program, summary = import_trace(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert summary.skipped["event probe:x"] == number
    assert program.nr_ops == 3
    assert peak < 2 << 20


def test_a_recording_is_told_from_other_files(tmp_path: Path) -> None:
    recording = Recording()
    recording.exec(7)
    trace, strace, other = (tmp_path / name for name in ("t", "s", "o"))
    trace.write_bytes(zstandard.compress("\n".join(recording.lines).encode()))
    strace.write_text('17 1.5 execve("/a", ["a"], 0x0) = 0\n')
    other.write_text('{"format": "spfemu-program/1"}\n')
    assert looks_like_trace(trace)
    assert looks_like_trace(str(strace))
    assert not looks_like_trace(other)
    assert not looks_like_trace(tmp_path / "absent")
    assert not looks_like_trace("-")
