"""From lines to a timeline: what a task did between its events, and system calls put where they
take effect.
"""

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
from spfemu.importers.state import page_up

__all__ = ["with_calls", "with_gaps"]

_TAKES: Final = frozenset({"munmap", "mremap"})
"""Calls that take addresses away, which another task may be given before they return."""
_MAPS: Final = frozenset({"mmap", "mprotect", "pkey_mprotect", "brk", "mremap"})
"""Calls in which perf reports a mapping."""
_FIXED: Final = 0x10  # MAP_FIXED: the caller says where, whatever is there
_HELD: Final = 1 << 16


def with_gaps(events: Iterable[Event]) -> Iterator[Event]:
    """Says for each event what its task did since its event before: compute, or sleep.

    A gap is computing only while no other task has an event on that CPU, else sleeping. Where the
    recording has ``sched_switch``, a gap is sleeping from when the task left its CPU until another
    task is seen to hand it one, or else to its end. The time inside a system call is neither.
    Source: ours.
    """
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

    That is where perf reports the mapping inside the call, or else where it ends. A munmap (and the
    old place of an mremap, which becomes a ``Call`` of its own, marked ``begins``) may take effect
    long before its end is logged: it comes before a mapping that another task got at its addresses
    meanwhile, and before one that ends where it began, since they would have merged. Events wait,
    in order, for a call that has taken effect and not ended, but never more than 65,536 of them; a
    call whose end never comes has no result. An ``Exit`` without ``Enter`` is passed on. Source:
    ours.
    """
    return _Pairing().run(events)


class _Pairing:
    """The state of ``with_calls``: tasks' calls that have begun, and the events held until they
    end.

    ``placed`` are calls that stand among the held events and have not ended, by task; ``takers``
    those that take memory away and stand nowhere yet, by process and task; ``early`` are ends that
    were printed with their beginnings. Source: ours.
    """

    def __init__(self) -> None:
        self.held: deque[Event] = deque()
        self.entered: dict[int, Enter] = {}
        self.placed: dict[int, list[Call]] = {}
        self.takers: dict[int, dict[int, Call]] = {}
        self.early: dict[int, Exit] = {}

    def run(self, events: Iterable[Event]) -> Iterator[Event]:
        held = self.held
        for event in events:
            if self.early:
                self._end_early(event)
            if isinstance(event, Enter):
                self._enter(event)
            elif isinstance(event, Exit):
                if event.early:
                    self.early[event.tid] = event
                else:
                    self._exit(event)
            elif isinstance(event, Mapped) and event.tid in self.entered:
                self._mapped(event, self.entered[event.tid])
            else:
                if isinstance(event, Forked) and event.flags is None:
                    entered = self.entered.get(event.parent)
                    event.flags = entered.args.get("clone_flags") if entered else None
                elif isinstance(event, Ended):
                    self._forget(event.child)
                held.append(event)
            if len(held) > _HELD:
                self._forget(held[0].tid)
            while held and not (isinstance(held[0], Call) and not held[0].done):
                yield held.popleft()
        for event in [*self.early.values()]:
            self._exit(event)
        for event in held:
            if not (isinstance(event, Call) and not event.done):
                yield event

    def _end_early(self, event: Event) -> None:
        """Ends calls printed on one line: at the next line of a call, or at the next thing its task
        does. Source: strace.
        """
        if isinstance(event, Enter | Exit):
            ended = list(self.early.values())
        elif isinstance(event, Mapped | Forked | NewTask | Renamed) or event.tid not in self.early:
            return
        else:
            ended = [self.early[event.tid]]
        for end in ended:
            del self.early[end.tid]
            self._exit(end)

    def _enter(self, event: Enter) -> None:
        self._forget(event.tid)
        self.entered[event.tid] = event
        if event.name in _TAKES:
            call = _call(event)
            call.begins = event.name == "mremap"
            self.takers.setdefault(event.pid, {})[event.tid] = call

    def _place(self, call: Call, before: Call | None = None) -> None:
        """Has a call take effect here, or before another that has. Source: ours."""
        if before is None:
            self.held.append(call)
        else:
            self.held.insert(self.held.index(before), call)
        self.placed.setdefault(call.tid, []).append(call)

    def _mapped(self, event: Mapped, entered: Enter) -> None:
        if entered.name not in _MAPS:
            self.held.append(event)
            return
        takers = self.takers.get(event.pid, {})
        if event.tid in takers:
            self._place(takers.pop(event.tid))
        if any(not call.begins for call in self.placed.get(event.tid, ())):
            return
        end = event.start + event.length
        for tid, taker in list(takers.items()):
            low, high = _range(taker)
            if low == end or high == event.start:
                self._place(takers.pop(tid))
        call = _call(entered)
        call.mapped = event
        self._place(call)

    def _exit(self, event: Exit) -> None:
        entered = self.entered.get(event.tid)
        if entered is None or entered.name != event.name:
            self._forget(event.tid)
            self.held.append(event)
            return
        taker = self.takers.get(event.pid, {}).pop(event.tid, None)
        if taker is not None:
            self._place(taker)
        calls = self.placed.get(event.tid, [])
        if event.name != "munmap" and not any(not call.begins for call in calls):
            self._place(_call(entered))
            calls = self.placed[event.tid]
        for call in calls:
            call.result, call.ended, call.done = event.result, event.time, True
        del self.entered[event.tid], self.placed[event.tid]
        if event.name in _MAPS and event.result >= 0:
            self._make_room(calls[-1])

    def _make_room(self, call: Call) -> None:
        """Puts what took the addresses of a new mapping away before it. Source: ours."""
        length = call.args.get("len", call.args.get("new_len", 0))
        if call.name not in ("mmap", "mremap") or call.args.get("flags", 0) & _FIXED:
            return
        start = call.result or 0
        takers = self.takers.get(call.pid, {})
        late = [taker for taker in takers.values() if _overlap(taker, start, length)]
        for taker in late:
            del takers[taker.tid]
            self._place(taker, call)
        at = self.held.index(call)
        for event in [*self.held][at + 1 :]:
            if not isinstance(event, Call) or event.name not in _TAKES:
                continue
            if event.pid == call.pid and event.tid != call.tid and _overlap(event, start, length):
                self.held.remove(event)
                self.held.insert(at, event)

    def _forget(self, tid: int) -> None:
        """Gives up waiting for the end of a call of this task: its result stays unknown. Source:
        ours.
        """
        entered = self.entered.pop(tid, None)
        if entered is not None:
            taker = self.takers.get(entered.pid, {}).pop(tid, None)
            if taker is not None:
                self._place(taker)
        for call in self.placed.pop(tid, ()):
            call.done = True


def _call(event: Enter) -> Call:
    call = Call(event.time, event.tid, event.pid, event.cpu, event.comm, event.name, event.args)
    call.compute_ns, call.sleep_ns = event.compute_ns, event.sleep_ns
    event.compute_ns = event.sleep_ns = 0  # a second call of the same beginning has no gap
    return call


def _range(call: Call) -> tuple[int, int]:
    """The addresses that a munmap or mremap takes away. Source: ours."""
    start = call.args.get("addr", 0)
    length = call.args.get("len", call.args.get("old_len", 0))
    return start, start + page_up(length)


def _overlap(call: Call, start: int, length: int) -> bool:
    low, high = _range(call)
    return low < start + length and start < high
