"""The records of one task in the making: what every method that appends an operation needs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from spfemu.errors import ProgramError
from spfemu.program.model import Task
from spfemu.program.ops import OP_DTYPE, OPS, SITE_DTYPE
from spfemu.program.values import ID_PATTERN, parse_address, parse_prot, shown, to_i64

if TYPE_CHECKING:
    from spfemu.program.builder import ProgramBuilder

__all__ = ["Address", "TaskRecords"]

Address: TypeAlias = int | str | tuple[str, int]
"""An address: a number, ``"id+0x10"``, or ``("id", 16)``."""

_RECORD: Final = struct.Struct("<HIBBBBiqQiqQQI")
_SITE: Final = struct.Struct("<QII")
_CODE: Final = {name: op.code for name, op in OPS.items()}


class TaskRecords:
    """One task's records, as bytes, and what they point into.

    Source: ours. ``number`` is the task's in its program.
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

    def _child(self, op: str, child: str | TaskRecords, flags: int = 0) -> None:
        name = child if isinstance(child, str) else child.name
        self._fixups.append((len(self), name))
        self.record(_CODE[op], flags)

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
