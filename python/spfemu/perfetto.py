"""The course of a run in virtual time as a trace for https://ui.perfetto.dev."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spfemu.errors import EngineError, ProgramError
from spfemu.results import Result

__all__ = ["COUNTERS", "check_perfetto", "write_perfetto"]

_BEGIN, _END, _INSTANT, _AGAIN, _CUT = range(5)
_SEQUENCE: Final = 1
_PROCESS: Final = 1 << 32
"""Numbers of tracks: those of the first process begin here, those of the next at twice this."""

_COUNTER: Final = 1 << 16
_SAMPLES: Final = 1000
_AT_ONCE: Final = 20_000
COUNTERS: Final = ("faults", "handled speculatively", "aborts", "waiting for mmap_sem")
"""What has a counter track. The first three are counts so far, the last is how many tasks wait."""


def check_perfetto() -> Any:
    """Returns the published schema of traces, as Python has it.

    Source: the package perfetto, of the authors. Raises EngineError where it is not installed.
    """
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError:
        raise EngineError("perfetto is not installed; pip install spfemu[perfetto]") from None
    return perfetto_trace_pb2


def write_perfetto(results: Sequence[Result], path: str | Path) -> None:
    """Writes what runs with ``spans`` did as a trace, a process for each.

    Each CPU has a track. Its slices are operations, and in them faults; in a fault the speculative
    attempt, with its outcome, and the classic one, the waits for locks by the kernel's name, the
    clearing and copying of pages; the flush of other CPUs' TLBs and its interrupt there; and when
    the CPU is idle. An arrow leads from each ``vm_write_begin`` to the attempt that it aborts.
    ``COUNTERS`` have tracks, too.

    Source: Perfetto's protocol buffers, TrackEvent. ``results`` are of ``run(spans=True)``; open
    the file at https://ui.perfetto.dev. Raises EngineError where the package perfetto is missing
    (``spfemu[perfetto]``) or a result has no spans, ProgramError for a file that cannot be written.
    Deterministic: the same bytes for the same results.
    """
    schema = check_perfetto()
    for result in results:
        if not result.span_names:
            raise EngineError("perfetto: a result without spans (allowed: run(spans=True))")
    writer = _Writer(schema, results)
    try:
        with Path(path).open("wb") as file:
            file.writelines(writer.parts())
    except OSError as error:
        raise ProgramError(f"{path}: cannot be written: {error.strerror}") from None


class _Writer:
    """Makes the packets of one trace."""

    def __init__(self, schema: Any, results: Sequence[Result]) -> None:
        self.schema = schema
        self.results = results
        texts = (text for result in results for text in result.span_names)
        self.numbers = {text: number for number, text in enumerate(dict.fromkeys(texts), 1)}
        self.flows = itertools.count(1)

    def parts(self) -> Iterator[bytes]:
        """Yields the trace in pieces: one after another they are one message."""
        trace = self.schema.Trace()
        self._describe(trace)
        packets: Iterator[None] = itertools.chain.from_iterable(
            itertools.chain(self._counters(trace, number), self._slices(trace, number))
            for number in range(len(self.results))
        )
        for done, _ in enumerate(packets, 1):
            if done % _AT_ONCE == 0:
                yield trace.SerializeToString(deterministic=True)
                trace.Clear()
        yield trace.SerializeToString(deterministic=True)

    def _packet(self, trace: Any, flags: int = 2) -> Any:
        packet = trace.packet.add()
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.sequence_flags = flags
        return packet

    def _describe(self, trace: Any) -> None:
        """Adds the tracks and the texts that packets name by number."""
        interned = self._packet(trace, flags=1).interned_data
        for text, number in self.numbers.items():
            interned.event_names.add(iid=number, name=text)
            interned.debug_annotation_string_values.add(iid=number, str=text.encode())
        names = ("address", "vm_start", "outcome", "task", "continued")
        for number, name in enumerate(names, 1):
            interned.debug_annotation_names.add(iid=number, name=name)
        for number, result in enumerate(self.results, 1):
            base = number * _PROCESS
            process = self._packet(trace).track_descriptor
            process.uuid = base
            process.process.pid = number
            process.process.process_name = f"{result.handler}, {result.machine}"
            process.child_ordering = self.schema.TrackDescriptor.EXPLICIT
            for place, name in enumerate(COUNTERS):
                track = self._packet(trace).track_descriptor
                track.uuid, track.parent_uuid, track.name = base + _COUNTER + place, base, name
                track.sibling_order_rank = place
                track.counter.unit = self.schema.CounterDescriptor.UNIT_COUNT
            for cpu in range(result.settings["cpus"]):
                track = self._packet(trace).track_descriptor
                track.uuid, track.parent_uuid, track.name = base + 1 + cpu, base, f"CPU {cpu}"
                track.sibling_order_rank = len(COUNTERS) + cpu

    def _counters(self, trace: Any, number: int) -> Iterator[None]:
        base = (number + 1) * _PROCESS + _COUNTER
        for place, (times, values) in enumerate(_counts(self.results[number])):
            for time, value in zip(times.tolist(), values.tolist(), strict=True):
                packet = self._packet(trace)
                packet.timestamp = time
                event = packet.track_event
                event.type = self.schema.TrackEvent.TYPE_COUNTER
                event.track_uuid = base + place
                event.counter_value = value
                yield

    def _slices(self, trace: Any, number: int) -> Iterator[None]:
        result = self.results[number]
        spans = result.spans
        names = [self.numbers[text] for text in result.span_names]
        begins, ends = _arrows(spans, self.flows)
        tasks = [task.name for task in result.program.tasks]
        depth = [0] * result.settings["cpus"]
        types = self.schema.TrackEvent
        kind = {
            _BEGIN: types.TYPE_SLICE_BEGIN,
            _AGAIN: types.TYPE_SLICE_BEGIN,
            _END: types.TYPE_SLICE_END,
            _CUT: types.TYPE_SLICE_END,
            _INSTANT: types.TYPE_INSTANT,
        }
        base = (number + 1) * _PROCESS + 1
        for place, entry in enumerate(spans.tolist()):
            time, arg, _, cpu, task, name, how, phase = entry
            packet = self._packet(trace)
            packet.timestamp = time
            event = packet.track_event
            event.type = kind[phase]
            event.track_uuid = base + cpu
            if phase in (_END, _CUT):
                depth[cpu] -= 1
                if how:
                    event.debug_annotations.add(name_iid=3, string_value_iid=names[how])
                yield
                continue
            event.name_iid = names[name]
            if arg:
                what = 2 if phase == _INSTANT else 1
                event.debug_annotations.add(name_iid=what, pointer_value=arg)
            if phase != _INSTANT:
                if depth[cpu] == 0:
                    event.debug_annotations.add(name_iid=4, string_value=tasks[task])
                if phase == _AGAIN:
                    event.debug_annotations.add(name_iid=5, bool_value=True)
                depth[cpu] += 1
            event.flow_ids.extend(begins.get(place, ()))
            event.terminating_flow_ids.extend(ends.get(place, ()))
            yield


def _arrows(
    spans: npt.NDArray[np.void], numbers: Iterator[int]
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Returns which arrows begin and which end at each entry.

    A CPU may be ahead of others, by ``tick_slack_ns``: where an abort seems to come before the
    write that made it, the arrow begins with the operation that wrote, or there is none.
    """
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    times = spans["time_ns"]
    for place in np.flatnonzero(spans["cause"]).tolist():
        cause = int(spans["cause"][place]) - 1
        if times[cause] > times[place]:
            cause = _operation(spans, cause)
        if times[cause] <= times[place]:
            number = next(numbers)
            begins.setdefault(cause, []).append(number)
            ends.setdefault(place, []).append(number)
    return begins, ends


def _operation(spans: npt.NDArray[np.void], place: int) -> int:
    """Returns where the outermost slice around an entry begins."""
    cpu = spans["cpu"][place]
    own = np.flatnonzero(spans["cpu"][:place] == cpu)
    steps = np.array([1, -1, 0, 1, -1])[spans["phase"][own]]
    # Behind the last moment at which nothing was open.
    outside = np.flatnonzero(np.cumsum(steps) == 0)
    first = outside[-1] + 1 if len(outside) else 0
    return int(own[first])


def _counts(
    result: Result,
) -> Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yields times and values of each of ``COUNTERS``."""
    spans = result.spans
    names = np.array(result.span_names)

    def times(phase: int, column: str, *texts: str) -> npt.NDArray[np.int64]:
        numbers = np.flatnonzero(np.isin(names, texts))
        found = spans["time_ns"][(spans["phase"] == phase) & np.isin(spans[column], numbers)]
        return np.sort(found.astype(np.int64))

    aborts = [name for name in result.span_names if name.startswith("spf_")]
    for counted in (
        times(_BEGIN, "name", "fault"),
        times(_END, "how", "handled"),
        times(_END, "how", *aborts),
    ):
        yield _sampled(counted)
    begin, end = (times(phase, "name", "wait for mmap_sem") for phase in (_BEGIN, _END))
    at = np.unique(np.concatenate([[0], begin, end]))
    waiting = np.searchsorted(begin, at, "right") - np.searchsorted(end, at, "right")
    yield at, waiting


def _sampled(
    times: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns how often something has happened, now and then."""
    last = int(times[-1]) if len(times) else 0
    at = np.unique(np.linspace(0, last, _SAMPLES + 1).astype(np.int64))
    return at, np.searchsorted(times, at, "right")
