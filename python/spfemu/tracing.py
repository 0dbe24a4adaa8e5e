"""What the series' tracepoints recorded, in ftrace's text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from spfemu.program.ops import EVENTS
from spfemu.results import Result

__all__ = ["trace_lines"]

_HEAD: Final = """\
# tracer: nop
#
# entries-in-buffer/entries-written: {kept}/{written}   #P:{cpus}
#
#                              _-----=> irqs-off
#                             / _----=> need-resched
#                            | / _---=> hardirq/softirq
#                            || / _--=> preempt-depth
#                            ||| /     delay
#           TASK-PID   CPU#  ||||    TIMESTAMP  FUNCTION
#              | |       |   ||||       |         |"""
_NS: Final = 1_000_000_000
_COMM: Final = 15


def trace_lines(result: Result) -> Iterator[str]:
    """Yields the lines of ``/sys/kernel/debug/tracing/trace``, the head first.

    Source: ``kernel/trace/trace_output.c``, v5.1, and the series' ``pagefault.h`` (P24). A task's
    name stands for its comm, its number from 1 for its PID. ``ip`` is 0: no code of the kernel has
    an address here. Empty but for the head unless ``run`` had ``trace``.

    >>> import spfemu
    >>> builder = spfemu.ProgramBuilder()
    >>> task, other = builder.task(), builder.task(start="clone")
    >>> task.clone(other)
    >>> task.mmap(8192, addr=0x100000, flags=("private", "anonymous", "fixed"))
    >>> task.write(0x101000)
    >>> result = spfemu.run(builder.build(), engine="explore", trace=True)
    >>> list(spfemu.trace_lines(result))[-1].split(": ", 1)[1]
    'spf_vma_notsup: ip:0 vma:100000-102000 address:101000'
    """
    entries = result.trace
    cpus = result.settings.get("cpus", len(result.program.tasks))
    yield from _HEAD.format(kept=len(entries), written=result.trace_written, cpus=cpus).splitlines()
    names = [task.name[:_COMM] for task in result.program.tasks]
    events = [event.removeprefix("pagefault:") for event in EVENTS]
    for entry in entries.tolist():
        time_ns, vm_start, vm_end, address, cpu, task, event, irqs_off = entry
        seconds, rest = divmod(time_ns, _NS)
        yield (
            f"{names[task]:>16}-{task + 1:<5d} [{cpu:03d}] {'d' if irqs_off else '.'}..."
            f" {seconds:5d}.{rest // 1000:06d}: {events[event]}: "
            f"ip:0 vma:{vm_start:x}-{vm_end:x} address:{address:x}"
        )
