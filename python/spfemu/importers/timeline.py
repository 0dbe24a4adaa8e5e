"""From lines to a timeline: what a task did between its events, and system calls put where they
take effect."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from spfemu.importers.events import (
    Call,
    Ended,
    Enter,
    Event,
    Exit,
    Forked,
    Mapped,
    NewTask,
    Renamed,
    Switched,
)

__all__ = ["with_calls", "with_gaps"]

_AT_ENTER: Final = frozenset({"munmap", "madvise"})
"""What these calls take away, another task may be given before they return."""
_MAPPING: Final = frozenset({"mmap", "mprotect", "pkey_mprotect", "brk", "mremap"})
"""Calls in which perf reports a mapping."""
_HELD: Final = 1 << 16


def with_gaps(events: Iterable[Event]) -> Iterator[Event]:
    """Says for each event what its task did since its event before: compute, or sleep.

    A gap is computing only while no other task has an event on that CPU, else sleeping. Where the
    recording has ``sched_switch``, a gap is sleeping from when the task left its CPU until another
    task is seen to hand it one, or else to its end. The time inside a system call is neither.
    Source: ours."""
    at: dict[int, tuple[int, int]] = {}  # tid -> time, CPU of its event before
    on: dict[int, int] = {}  # CPU -> tid of its latest event
    off: dict[int, int] = {}  # tid -> when it was switched out, the first time
    slept: dict[int, int] = {}  # tid -> how long it was switched out before that
    for event in events:
        if not event.time:  # what was there before the recording, as perf describes it
            yield event
            continue
        tid, cpu = event.tid, event.cpu
        if isinstance(event, Switched):
            back = off.pop(event.successor, None)
            if back is not None:
                slept[event.successor] = slept.get(event.successor, 0) + event.time - back
            off.setdefault(tid, event.time)
            on[cpu] = event.successor
            continue
        before = at.get(tid)
        out, asleep = off.pop(tid, None), slept.pop(tid, 0)
        if before is not None and not isinstance(event, Exit):
            gap = max(event.time - before[0], 0)
            if out is not None or asleep:
                asleep += event.time - out if out is not None else 0
                event.sleep_ns = min(max(asleep, 0), gap)
                event.compute_ns = gap - event.sleep_ns
            elif before[1] == cpu and on.get(cpu) == tid:
                event.compute_ns = gap
            else:
                event.sleep_ns = gap
        at[tid] = (event.time, cpu)
        on[cpu] = tid
        if isinstance(event, NewTask | Forked):
            at[event.child] = (event.time, -2)  # on no CPU yet
        elif isinstance(event, Ended):
            at.pop(event.child, None)
            off.pop(event.child, None)
            slept.pop(event.child, None)
        yield event


def with_calls(events: Iterable[Event]) -> Iterator[Event]:
    """Puts each ``Enter`` and its ``Exit`` together to a ``Call`` where the call takes effect.

    munmap and madvise take effect where they begin: what they free may be handed out again before
    they return. mmap, mprotect, brk and mremap take effect where perf reports the mapping inside
    them, or where they end; mremap gives an extra ``Call``, marked ``begins``, where it begins.
    Every other call stands where it ends. Events wait, in order, for a call that has begun and not
    ended, but never more than 65,536 of them; a call that took effect and whose end never comes has
    no result. An ``Exit`` without ``Enter`` is passed on. Source: ours."""
    return _Pairing().run(events)


class _Pairing:
    """The state of ``with_calls``. Source: ours."""

    def __init__(self) -> None:
        self.held: deque[Event] = deque()
        self.entered: dict[int, Enter] = {}
        self.placed: dict[
            int, list[Call]
        ] = {}  # tid -> calls that stand in ``held`` and have not ended
        self.early: dict[int, Exit] = {}  # tid -> an end that was printed with its beginning

    def run(self, events: Iterable[Event]) -> Iterator[Event]:
        held = self.held
        for event in events:
            tid = event.tid
            if tid in self.early and not isinstance(event, Mapped | Forked | NewTask | Renamed):
                self._exit(self.early.pop(tid))
            if isinstance(event, Enter):
                self._enter(event)
            elif isinstance(event, Exit):
                if event.early:
                    self.early[tid] = event
                else:
                    self._exit(event)
            elif isinstance(event, Mapped) and tid in self.entered:
                self._mapped(event)
            else:
                if isinstance(event, Forked) and event.flags is None:
                    entered = self.entered.get(event.parent)
                    event.flags = entered.args.get("clone_flags") if entered else None
                elif isinstance(event, Ended):
                    self._forget(event.child)
                held.append(event)
            while held and not (isinstance(held[0], Call) and not held[0].done):
                yield held.popleft()
            if len(held) > _HELD:
                first = held[0]
                assert isinstance(first, Call)
                self._forget(first.tid)
        for tid in list(self.early):
            self._exit(self.early.pop(tid))
        for event in held:
            if not (isinstance(event, Call) and not event.done):
                yield event

    def _enter(self, event: Enter) -> None:
        self._forget(event.tid)
        self.entered[event.tid] = event
        if event.name in _AT_ENTER:
            self._place(event)
        elif event.name == "mremap":
            self._place(event).begins = True

    def _place(self, event: Enter) -> Call:
        call = Call(event.time, event.tid, event.pid, event.cpu, event.comm, event.name, event.args)
        call.compute_ns, call.sleep_ns = event.compute_ns, event.sleep_ns
        self.held.append(call)
        self.placed.setdefault(event.tid, []).append(call)
        return call

    def _mapped(self, event: Mapped) -> None:
        entered = self.entered[event.tid]
        if entered.name not in _MAPPING:
            self.held.append(event)
            return
        if not any(not call.begins for call in self.placed.get(event.tid, ())):
            self._place(entered).mapped = event

    def _exit(self, event: Exit) -> None:
        entered = self.entered.get(event.tid)
        if entered is None or entered.name != event.name:
            self._forget(event.tid)
            self.held.append(event)
            return
        del self.entered[event.tid]
        calls = self.placed.pop(event.tid, [])
        if not any(not call.begins for call in calls):
            calls.append(self._place(entered))
            self.placed.pop(event.tid)
        for call in calls:
            call.result, call.ended, call.done = event.result, event.time, True

    def _forget(self, tid: int) -> None:
        """Gives up waiting for the end of a call of this task: its result stays unknown. Source:
        ours."""
        self.entered.pop(tid, None)
        for call in self.placed.pop(tid, ()):
            call.done = True
