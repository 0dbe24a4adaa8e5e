"""Building one task from Python: one method for each operation, each appends one record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from spfemu.program.ops import (
    ACCESSES,
    ADVICES,
    GIVEN,
    MMAP_FLAGS,
    MODES,
    MREMAP_FLAGS,
    ORDERS,
    POLICIES,
)
from spfemu.program.task_records import Address, TaskRecords
from spfemu.program.values import to_i64

__all__ = ["Address", "TaskBuilder"]

_ACCESS: Final = {name: code for code, name in enumerate(ACCESSES)}
_ADVICE: Final = {name: code for code, name in enumerate(ADVICES)}
_MODE: Final = {name: code for code, name in enumerate(MODES)}
_ORDER: Final = {name: code for code, name in enumerate(ORDERS)}
_POLICY: Final = {name: code for code, name in enumerate(POLICIES)}


class TaskBuilder(TaskRecords):
    """The operations of one task of a ``ProgramBuilder``, appended in order.

    Source: the program format. Every method appends one operation; its arguments are the keys of
    the format with the same defaults. Addresses are numbers, ``"id+0x10"`` or ``("id", 16)``;
    lengths are bytes. Names that are not allowed raise ProgramError here; everything else is
    checked by ``ProgramBuilder.build``.
    """

    __slots__ = ()

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

    def mremap(
        self,
        addr: Address,
        old_length: int,
        new_length: int,
        *,
        flags: Iterable[str] = (),
        new_addr: Address | None = None,
        id: str | None = None,  # noqa: A002 - the format's own word
    ) -> None:
        """Appends ``mremap``. ``flags``: names."""
        bits, base2, addr2 = 0, -1, 0
        for flag in flags:
            bits |= self._choice("flags", flag, MREMAP_FLAGS)
        base, offset = self._address(addr)
        if new_addr is not None:
            base2, addr2 = self._address(new_addr)
            bits |= GIVEN
        self.record(
            4,
            bits,
            base=base,
            addr=offset,
            length=old_length,
            base2=base2,
            addr2=addr2,
            length2=new_length,
            aux=self._define(id) + 1,
        )

    def madvise(self, addr: Address, length: int, advice: str) -> None:
        """Appends ``madvise``."""
        base, offset = self._address(addr)
        code = self._choice("advice", advice, _ADVICE)
        self.record(5, advice=code, base=base, addr=offset, length=length)

    def mlock(self, addr: Address, length: int, *, onfault: bool = False) -> None:
        """Appends ``mlock``; ``onfault``: pages are locked once they are there."""
        base, offset = self._address(addr)
        self.record(6, int(onfault), base=base, addr=offset, length=length)

    def munlock(self, addr: Address, length: int) -> None:
        """Appends ``munlock``."""
        base, offset = self._address(addr)
        self.record(7, base=base, addr=offset, length=length)

    def mbind(
        self, addr: Address, length: int, mode: str = "default", *, nodes: Iterable[int] = (0,)
    ) -> None:
        """Appends ``mbind``."""
        base, offset = self._address(addr)
        code, mask = self._choice("mode", mode, _POLICY), _mask(nodes)
        self.record(8, advice=code, base=base, addr=offset, length=length, value=mask)

    def set_mempolicy(self, mode: str = "default", *, nodes: Iterable[int] = (0,)) -> None:
        """Appends ``set_mempolicy``."""
        self.record(9, advice=self._choice("mode", mode, _POLICY), value=_mask(nodes))

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

    def exec(self, *, brk_start: int | None = None, stack: int = 0, stack_shift: int = 0) -> None:
        """Appends ``exec``: a fresh address space.

        ``stack``: bytes of arguments on its stack; 0 is none. ``stack_shift``: how many bytes below
        the top of user space the stack ends, 0 to 2^34.
        """
        flags = 0 if brk_start is None else GIVEN
        self.record(15, flags, addr=brk_start or 0, length=stack, length2=stack_shift)

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

    def collapse(self, addr: Address) -> None:
        """Appends ``collapse``: khugepaged on a PMD's range. Source: the program format."""
        base, offset = self._address(addr)
        self.record(31, base=base, addr=offset)

    def clear_refs(self, what: int) -> None:
        """Appends ``clear_refs``: 1 to 3 referenced bits, 4 soft-dirty ones. Source: the format."""
        self.record(34, value=what)

    def oom_reap(self) -> None:
        """Appends ``oom_reap``: the OOM reaper takes private memory. Source: the format."""
        self.record(37)

    def rebind(self, nodes: Iterable[int]) -> None:
        """Appends ``rebind``: the task's cpuset gets these nodes. Source: the program format."""
        self.record(38, value=_mask(nodes))

    def notifier(self, *, on: bool) -> None:
        """Appends ``notifier``: registers or unregisters an mmu notifier. Source: the format."""
        self.record(39, int(on))

    def truncate(self, file: str, length: int) -> None:
        """Appends ``truncate``: the file becomes so long. Source: the program format."""
        self.record(36, aux=self._owner.file_number(file), length=length)

    def uffd_register(self, addr: Address, length: int) -> None:
        """Appends ``uffd_register``: the emulator brings missing pages. Source: the format."""
        base, offset = self._address(addr)
        self.record(40, base=base, addr=offset, length=length)

    def uffd_unregister(self, addr: Address, length: int) -> None:
        """Appends ``uffd_unregister``: takes that back. Source: the program format."""
        base, offset = self._address(addr)
        self.record(41, base=base, addr=offset, length=length)

    def note(self, text: str) -> None:
        """Appends ``note``: a comment."""
        self.record(29, aux=self._owner.texts.number(text))

    def migrate(self, addr: Address, length: int, node: int) -> None:
        """Appends ``migrate``: pages go to other frames. Source: the program format."""
        base, offset = self._address(addr)
        self.record(35, base=base, addr=offset, length=length, value=node)

    def swap_out(self, addr: Address, length: int, *, keep_cache: bool = False) -> None:
        """Appends ``swap_out``; ``keep_cache``: the pages stay in memory, in the swap cache."""
        base, offset = self._address(addr)
        self.record(30, int(keep_cache), base=base, addr=offset, length=length)

    def numa_scan(self, addr: Address, length: int) -> None:
        """Appends ``numa_scan``."""
        base, offset = self._address(addr)
        self.record(32, base=base, addr=offset, length=length)

    def ksm_scan(self, addr: Address, length: int) -> None:
        """Appends ``ksm_scan``: KSM merges equal pages. Source: the program format."""
        base, offset = self._address(addr)
        self.record(33, base=base, addr=offset, length=length)


def _mask(nodes: Iterable[int]) -> int:
    return sum(1 << node for node in set(nodes))
