"""Building one task from Python: one method for each operation, each appends one record."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from spfemu.errors import ProgramError
from spfemu.program.model import Task
from spfemu.program.ops import (
    ACCESSES,
    ADVICES,
    GIVEN,
    MMAP_FLAGS,
    MODES,
    OP_DTYPE,
    OPS,
    ORDERS,
    SITE_DTYPE,
)
from spfemu.program.values import ID_PATTERN, parse_address, parse_prot, shown, to_i64

if TYPE_CHECKING:
    from spfemu.program.builder import ProgramBuilder

__all__ = ["Address", "TaskBuilder"]

Address: TypeAlias = int | str | tuple[str, int]
"""An address: a number, ``"id+0x10"``, or ``("id", 16)``."""

_RECORD: Final = struct.Struct("<HIBBBBiqQiqQQI")
_SITE: Final = struct.Struct("<QII")
_ACCESS: Final = {name: code for code, name in enumerate(ACCESSES)}
_ADVICE: Final = {name: code for code, name in enumerate(ADVICES)}
_MODE: Final = {name: code for code, name in enumerate(MODES)}
_ORDER: Final = {name: code for code, name in enumerate(ORDERS)}
_CODE: Final = {name: op.code for name, op in OPS.items()}


class TaskBuilder:
    """The operations of one task of a ``ProgramBuilder``, appended in order.

    Source: the program format. Every method appends one operation; its arguments are the keys of
    the format with the same defaults. Addresses are numbers, ``"id+0x10"`` or ``("id", 16)``;
    lengths are bytes. Names that are not allowed raise ProgramError here; everything else is
    checked by ``ProgramBuilder.build``.
    """

    __slots__ = (
        "_depth",
        "_fixups",
        "_owner",
        "_records",
        "_site",
        "_sites",
        "name",
        "number",
        "start",
    )

    def __init__(self, owner: ProgramBuilder, name: str, start: str | None, number: int) -> None:
        self._owner = owner
        self._records = bytearray()
        self._sites = bytearray()
        self._site = b""
        self._fixups: list[tuple[int, str]] = []
        self._depth = 0
        self.name = name
        self.start = start
        self.number = number

    def __len__(self) -> int:
        """The number of records so far, brackets included."""
        return len(self._records) // _RECORD.size

    def record(
        self,
        op: int,
        flags: int = 0,
        prot: int = 0,
        access: int = 0,
        mode: int = 0,
        advice: int = 0,
        base: int = -1,
        addr: int = 0,
        length: int = 0,
        base2: int = -1,
        addr2: int = 0,
        length2: int = 0,
        value: int = 0,
        aux: int = 0,
    ) -> None:
        """Appends one raw record of the array form.

        Source: the program format, "The array form".
        """
        try:
            self._records += _RECORD.pack(
                op,
                flags,
                prot,
                access,
                mode,
                advice,
                base,
                addr,
                length,
                base2,
                addr2,
                length2,
                value,
                aux,
            )
        except struct.error as error:
            place = f"task {self.name!r}, record {len(self)}"
            raise ProgramError(f"<builder>: {place}: a field is out of range: {error}") from None
        if self._site:
            self._sites += self._site

    def site(self, *, ip: int = 0, comm: str | None = None, vma: str | None = None) -> None:
        """Says where the following operations came from, until it is called again.

        Source: ours. ``ip`` is the instruction pointer (0 unknown), ``comm`` the thread's name,
        ``vma`` a label of the mapping.
        """
        owner = self._owner
        if not self._site:
            self._sites += bytes(_SITE.size * len(self))
        self._site = _SITE.pack(
            ip,
            0 if comm is None else owner.comms.number(comm) + 1,
            0 if vma is None else owner.vmas.number(vma) + 1,
        )

    def expect(self, expect: Mapping[str, Any]) -> None:
        """States what must come out of the operation appended last.

        Source: the program format, "Expectations".
        """
        self._owner.expect[self.number, len(self) - 1] = dict(expect)

    def _address(self, addr: Address) -> tuple[int, int]:
        if type(addr) is int:
            if 0 <= addr < 1 << 64:
                return -1, addr if addr < 1 << 63 else addr - (1 << 64)
        elif isinstance(addr, tuple):
            return self._owner.ids.number(addr[0]), addr[1]
        try:
            name, offset = parse_address(addr)
        except ValueError as error:
            raise self._bad("addr", addr, str(error)) from None
        if name is None:
            return -1, to_i64(offset)
        return self._owner.ids.number(name), offset

    def _bad(self, key: str, value: object, allowed: str) -> ProgramError:
        place = f"task {self.name!r}, record {len(self)}"
        return ProgramError(
            f"<builder>: {place}: key {key!r}: value {shown(value)} (allowed: {allowed})"
        )

    def _choice(self, key: str, value: str, choices: Mapping[str, int]) -> int:
        try:
            return choices[value]
        except KeyError:
            raise self._bad(key, value, ", ".join(choices)) from None

    def _prot(self, prot: str | int) -> int:
        if isinstance(prot, int):
            return prot
        try:
            return parse_prot(prot)
        except ValueError as error:
            raise self._bad("prot", prot, str(error)) from None

    def _define(self, name: str | None) -> int:
        if name is None:
            return -1
        if not ID_PATTERN.match(name):
            raise self._bad(
                "id", name, "a name of letters, digits, _ and ., not beginning with a digit"
            )
        return self._owner.ids.number(name)

    def _child(self, op: str, child: str | TaskBuilder, flags: int = 0) -> None:
        name = child if isinstance(child, str) else child.name
        self._fixups.append((len(self), name))
        self.record(_CODE[op], flags)

    def mmap(
        self,
        length: int,
        *,
        prot: str | int = "rw",
        flags: Iterable[str] | int | None = None,
        addr: Address | None = None,
        file: str | None = None,
        offset: int = 0,
        id: str | None = None,  # noqa: A002 - the format's own word
    ) -> None:
        """Appends ``mmap``.

        ``flags``: names or bits; by default private, and anonymous when no file is given.
        """
        bits = 0
        if flags is None:
            bits = 5 if file is None else 1
        elif isinstance(flags, int):
            bits = flags
        else:
            for flag in flags:
                bits |= self._choice("flags", flag, MMAP_FLAGS)
        base, offset_of = -1, 0
        if addr is not None:
            base, offset_of = self._address(addr)
            bits |= GIVEN
        self.record(
            1,
            bits,
            self._prot(prot),
            base=base,
            addr=offset_of,
            length=length,
            base2=self._define(id),
            value=offset,
            aux=0 if file is None else self._owner.file_number(file) + 1,
        )

    def munmap(self, addr: Address, length: int) -> None:
        """Appends ``munmap``."""
        base, offset = self._address(addr)
        self.record(2, base=base, addr=offset, length=length)

    def mprotect(self, addr: Address, length: int, prot: str | int) -> None:
        """Appends ``mprotect``."""
        base, offset = self._address(addr)
        self.record(3, prot=self._prot(prot), base=base, addr=offset, length=length)

    def madvise(self, addr: Address, length: int, advice: str) -> None:
        """Appends ``madvise``."""
        base, offset = self._address(addr)
        code = self._choice("advice", advice, _ADVICE)
        self.record(5, advice=code, base=base, addr=offset, length=length)

    def brk(
        self,
        delta: int = 0,
        *,
        id: str | None = None,  # noqa: A002 - the format's own word
        start: int | None = None,
    ) -> None:
        """Appends ``brk``: moves the break by ``delta`` bytes; ``start``: where the heap begins."""
        flags = 0 if start is None else GIVEN
        self.record(10, flags, addr=delta, base2=self._define(id), addr2=start or 0)

    def fork(self, child: str | TaskBuilder, *, wait: bool = False) -> None:
        """Appends ``fork`` of a task whose start is "fork"; ``wait``: until it has ended."""
        self._child("fork", child, int(wait))

    def vfork(self, child: str | TaskBuilder, *, wait: bool = False) -> None:
        """Appends ``vfork`` of a task whose start is "vfork"."""
        self._child("vfork", child, int(wait))

    def clone(self, child: str | TaskBuilder) -> None:
        """Appends ``clone``: starts a thread of this process, a task whose start is "clone"."""
        self._child("clone", child)

    def wait(self, child: str | TaskBuilder) -> None:
        """Appends ``wait`` until that task has ended."""
        self._child("wait", child)

    def exec(self, *, brk_start: int | None = None) -> None:
        """Appends ``exec``: a fresh address space."""
        self.record(15, 0 if brk_start is None else GIVEN, addr=brk_start or 0)

    def exit(self) -> None:
        """Appends ``exit``: the task ends here."""
        self.record(16)

    def read(self, addr: Address, *, mode: str = "user") -> None:
        """Appends ``read`` of one word."""
        base, offset = self._address(addr)
        self.record(17, mode=self._choice("mode", mode, _MODE), base=base, addr=offset)

    def write(self, addr: Address, value: int = 1, *, mode: str = "user") -> None:
        """Appends ``write`` of one word."""
        base, offset = self._address(addr)
        self.record(18, mode=self._choice("mode", mode, _MODE), base=base, addr=offset, value=value)

    def execute(self, addr: Address, *, mode: str = "user") -> None:
        """Appends ``execute``: an instruction fetch."""
        base, offset = self._address(addr)
        self.record(19, mode=self._choice("mode", mode, _MODE), base=base, addr=offset)

    def touch(
        self,
        addr: Address,
        length: int,
        *,
        stride: int | None = None,
        access: str = "write",
        order: str = "forward",
        seed: int = 0,
        mode: str = "user",
        value: int = 1,
    ) -> None:
        """Appends ``touch``: one access every ``stride`` bytes (default: a page) of a range."""
        base, offset = self._address(addr)
        self.record(
            20,
            self._choice("order", order, _ORDER),
            access=self._choice("access", access, _ACCESS),
            mode=self._choice("mode", mode, _MODE),
            base=base,
            addr=offset,
            length=length,
            addr2=to_i64(seed),
            length2=0 if stride is None else stride,
            value=value,
        )

    def compute(self, ns: int) -> None:
        """Appends ``compute``: so many nanoseconds on the CPU."""
        self.record(21, value=ns)

    def sleep(self, ns: int) -> None:
        """Appends ``sleep``: so many nanoseconds off the CPU."""
        self.record(22, value=ns)

    def barrier(self, name: str) -> None:
        """Appends ``barrier``: waits for every task that names it and has not ended."""
        self.record(23, aux=self._owner.names.number(name))

    def post(self, name: str) -> None:
        """Appends ``post``."""
        self.record(24, aux=self._owner.names.number(name))

    def await_(self, name: str) -> None:
        """Appends ``await``: until every ``post`` of that name has run once."""
        self.record(25, aux=self._owner.names.number(name))

    @contextmanager
    def repeat(
        self, *, count: int | None = None, for_ns: int | None = None, max_count: int | None = None
    ) -> Iterator[None]:
        """Repeats what is appended inside: ``count`` rounds, or as many as begin within ``for_ns``.

        Source: the program format. Raises ProgramError unless exactly one of ``count`` and
        ``for_ns`` is given.

        >>> from spfemu.program import ProgramBuilder
        >>> b = ProgramBuilder()
        >>> t = b.task("t0")
        >>> with t.repeat(count=3):
        ...     t.mmap(4096, id="p")
        ...     t.write("p")
        ...     t.munmap("p", 4096)
        >>> [int(op) for op in b.build().tasks[0].ops["op"]]
        [26, 1, 18, 2, 27]
        """
        if (count is None) == (for_ns is None):
            raise self._bad("count", count, "exactly one of count and for_ns")
        if count is not None:
            self.record(26, value=count)
        else:
            self.record(26, 1, length=for_ns or 0, length2=max_count or 0)
        self._depth += 1
        yield
        self._depth -= 1
        self.record(27)

    def sysctl(self, name: str, value: int) -> None:
        """Appends ``sysctl``: sets a sysctl."""
        self.record(28, addr=value, aux=self._owner.texts.number(name))

    def note(self, text: str) -> None:
        """Appends ``note``: a comment."""
        self.record(29, aux=self._owner.texts.number(text))

    def finished(self, numbers: Mapping[str, int]) -> Task:
        """Returns the task as it is, children's names resolved with ``numbers``. Source: ours."""
        ops = np.frombuffer(self._records, dtype=OP_DTYPE)
        for index, child in self._fixups:
            if child not in numbers:
                raise ProgramError(
                    f"<builder>: task {self.name!r}, record {index}: key 'child': "
                    f"value {shown(child)} (allowed: {', '.join(numbers)})"
                )
            ops["aux"][index] = numbers[child]
        ops.flags.writeable = False
        sites = None
        if self._site:
            sites = np.frombuffer(self._sites, dtype=SITE_DTYPE)
            sites.flags.writeable = False
        return Task(self.name, self.start, ops, sites)
