"""Programs on disk: JSON text and ``.npz`` archives, told apart by their content."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from spfemu.errors import ProgramError
from spfemu.program.doubles import key_twice
from spfemu.program.expect import normal_expect
from spfemu.program.model import DEFAULT_EXPECT_FOR, FileSpec, Program, Task
from spfemu.program.ops import FORMAT
from spfemu.program.reader import read_program, read_system
from spfemu.program.values import shown
from spfemu.program.writer import json_lines

__all__ = ["load", "loads", "looks_like_program", "save"]

_ZIP: Final = b"PK"
_BOM: Final = "\ufeff"
"""What some editors put before a text."""
_MAX_DIGITS: Final = 64
_BINARY: Final = "not a program: neither JSON text (UTF-8) nor an .npz archive"
_META: Final = "meta"
_META_KEYS: Final = (
    "format", "page_size", "scale_pages", "cpus", "ids", "names", "texts", "files", "system",
    "tasks", "expect", "expect_for", "comms", "vmas",
)  # fmt: skip


def _fail(source: str, message: str) -> NoReturn:
    raise ProgramError(f"{source}: {message}")


def looks_like_program(head: bytes) -> bool:
    """Says whether the first bytes of a file can be those of a program: ``{`` or an archive.

    Source: ours.
    """
    return head.startswith(_ZIP) or head.removeprefix(_BOM.encode()).lstrip()[:1] == b"{"


def load(path: str | Path) -> Program:
    """Loads a program from a file; ``"-"`` is standard input. Source: the program format.

    Raises ProgramError.
    """
    if str(path) == "-":
        return loads(sys.stdin.buffer.read(), "<stdin>")
    source = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        _fail(source, f"cannot be read: {error.strerror}")
    return loads(data, source)


def loads(text: str | bytes, source: str) -> Program:
    """Loads a program from text or bytes. Source: the program format. Raises ProgramError."""
    if not isinstance(text, str | bytes):
        _fail(source, f"value {shown(text)} (allowed: a text, or the bytes of a file)")
    if isinstance(text, bytes):
        if text.startswith(_ZIP):
            return _load_npz(text, source)
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            _fail(source, _BINARY)
    text = text.removeprefix(_BOM)
    if "\0" in text:
        _fail(source, _BINARY)
    if not text.strip():
        _fail(source, "the file is empty (allowed: a program, JSON text or .npz)")
    if text.lstrip()[0] != "{":
        _fail(
            source,
            "not a program: it does not begin with { (a recorded trace is read by `spfemu import`)",
        )
    return read_program(_json(text, source), source)


def _json(text: str, source: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        obj = dict(items)
        if len(obj) != len(items):
            _fail(source, key_twice(text))
        return obj

    def integer(digits: str) -> Any:
        # What no key can hold stays a text, which the key that has it refuses with its place.
        return int(digits) if len(digits) < _MAX_DIGITS else digits

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_int=integer)
    except json.JSONDecodeError as error:
        _fail(source, f"line {error.lineno} column {error.colno}: not JSON: {error.msg}")
    except RecursionError:
        _fail(source, "not a program: nested too deeply")
    except ProgramError:
        raise  # a key twice
    except ValueError as error:
        _fail(source, f"not JSON: {error}")


def _load_npz(data: bytes, source: str) -> Program:
    arrays = _npz_arrays(data, source)
    meta = _npz_meta(arrays, source)
    tasks = []
    for number, head in enumerate(_list(meta, "tasks", source)):
        place = f"tasks[{number}]"
        if not isinstance(head, dict) or not isinstance(head.get("name"), str):
            _fail(source, f"meta: {place}: value {shown(head)} (allowed: an object with a name)")
        ops = arrays.pop(f"ops{number}", None)
        if ops is None:
            _fail(source, f"array 'ops{number}' is missing (allowed: one for each task)")
        tasks.append(Task(head["name"], head.get("start"), ops, arrays.pop(f"sites{number}", None)))
    if arrays:
        _fail(source, f"array {shown(min(arrays))} belongs to no task")
    return _from_meta(meta, tuple(tasks), source).checked()


def _npz_arrays(data: bytes, source: str) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = np.asarray(archive[name])  # of other files it gives the bytes
    except Exception as error:  # zipfile, NumPy and each way to pack raise errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        _fail(source, f"not an .npz archive of a program: {reason}")
    return arrays


def _npz_meta(arrays: dict[str, npt.NDArray[Any]], source: str) -> dict[str, Any]:
    raw = arrays.pop(_META, None)
    if raw is None or raw.dtype != np.uint8:
        _fail(source, "array 'meta' is missing (allowed: bytes of one JSON text)")
    try:
        text = raw.tobytes().decode("utf-8")
    except UnicodeDecodeError:
        _fail(source, "array 'meta' is not UTF-8")
    meta = _json(text, f"{source}: meta")
    if not isinstance(meta, dict):
        _fail(source, "array 'meta' holds no JSON object")
    if meta.get("format") != FORMAT:
        _fail(source, f"key 'format': value {shown(meta.get('format'))} (allowed: \"{FORMAT}\")")
    for key in meta:
        if key not in _META_KEYS:
            _fail(source, f"meta: key '{key}': unknown (allowed: {', '.join(_META_KEYS)})")
    return meta


def _list(meta: dict[str, Any], key: str, source: str) -> list[Any]:
    value = meta.get(key, [])
    if not isinstance(value, list):
        _fail(source, f"meta: key '{key}': value {shown(value)} (allowed: a list)")
    return value


def _strings(meta: dict[str, Any], key: str, source: str) -> tuple[str, ...]:
    values = _list(meta, key, source)
    for value in values:
        if not isinstance(value, str):
            _fail(source, f"meta: key '{key}': value {shown(value)} (allowed: texts)")
    return tuple(values)


def _from_meta(meta: dict[str, Any], tasks: tuple[Task, ...], source: str) -> Program:
    files = []
    for number, file in enumerate(_list(meta, "files", source)):
        spec = _file_spec(file)
        if spec is None:
            allowed = "name, length, kind, cached"
            _fail(source, f"meta: files[{number}]: value {shown(file)} (allowed: {allowed})")
        files.append(spec)
    expect = {}
    for number, entry in enumerate(_list(meta, "expect", source)):
        try:
            key = (int(entry["task"]), int(entry["index"]))
            expect[key] = normal_expect(entry["expect"])
        except (TypeError, KeyError, ValueError):
            _fail(
                source,
                f"meta: expect[{number}]: value {shown(entry)} (allowed: task, index, expect)",
            )
    expect_for = meta.get("expect_for", dict(DEFAULT_EXPECT_FOR))
    if not isinstance(expect_for, dict) or set(expect_for) != set(DEFAULT_EXPECT_FOR):
        _fail(source, f"meta: key 'expect_for': value {shown(expect_for)} (allowed: handler, arch)")
    page_size = meta.get("page_size", 4096)
    scale_pages = meta.get("scale_pages", False)
    if type(page_size) is not int or not isinstance(scale_pages, bool):
        _fail(source, "meta: key 'page_size' or 'scale_pages': not a number, or not true or false")
    return Program(
        tasks=tasks,
        page_size=page_size,
        ids=_strings(meta, "ids", source),
        names=_strings(meta, "names", source),
        texts=_strings(meta, "texts", source),
        files=tuple(files),
        system=read_system(meta.get("system", {}), f"{source}: meta"),
        expect=expect,
        expect_for=expect_for,
        scale_pages=scale_pages,
        cpus=meta.get("cpus"),
        comms=_strings(meta, "comms", source),
        vmas=_strings(meta, "vmas", source),
        source=source,
    )


def _file_spec(value: Any) -> FileSpec | None:
    """Returns the file of an entry of ``meta``, None for anything that is not one."""
    kinds = {"name": str, "length": int, "kind": str, "cached": bool}
    if not isinstance(value, dict) or not {"name", "length"} <= value.keys() <= kinds.keys():
        return None
    if any(type(value[key]) is not kinds[key] for key in value):
        return None
    return FileSpec(**value)


def save(program: Program, path: str | Path) -> None:
    """Writes a program to a file as its suffix says. Source: the program format.

    Raises ProgramError.
    """
    if str(path) == "-":
        sys.stdout.writelines(json_lines(program))
        return
    target = Path(path)
    if target.suffix not in (".json", ".npz"):
        _fail(str(path), f"suffix {shown(target.suffix)} (allowed: .json, .npz)")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.suffix == ".json":
            with unfinished.open("w", encoding="utf-8") as file:
                file.writelines(json_lines(program))
        else:
            _save_npz(program, unfinished)
        unfinished.replace(target)
    except OSError as error:
        _fail(str(path), f"cannot be written: {error.strerror}")
    finally:
        unfinished.unlink(missing_ok=True)


def _save_npz(program: Program, path: Path) -> None:
    """Writes the archive with the fastest compression: loading is what has to be quick."""
    meta = json.dumps(program.meta(), ensure_ascii=False).encode()
    arrays: dict[str, npt.NDArray[Any]] = {_META: np.frombuffer(meta, dtype=np.uint8)}
    for number, task in enumerate(program.tasks):
        arrays[f"ops{number}"] = task.ops
        if task.sites is not None:
            arrays[f"sites{number}"] = task.sites
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
