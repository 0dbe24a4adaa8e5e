"""``--perfetto``: what a trace of virtual time says, read back with the published schema."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import spfemu
from spfemu.cli import main
from spfemu.cli.course import write_course
from spfemu.perfetto import COUNTERS, write_perfetto
from spfemu.workloads import make_job
from tests.test_cli import told

schema = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")

EBIZZY = ["ebizzy", "-mTt", "16", "-S", "0.004"]


@dataclass
class Slice:
    """A slice, or an instant."""

    name: str
    begin: int
    end: int
    parents: tuple[str, ...]
    args: dict[str, Any]


@dataclass
class Trace:
    """A trace as a reader of TrackEvent understands it."""

    processes: dict[int, str] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    counters: set[int] = field(default_factory=set)
    slices: dict[int, list[Slice]] = field(default_factory=lambda: defaultdict(list))
    instants: dict[int, list[Slice]] = field(default_factory=lambda: defaultdict(list))
    values: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    begun: dict[int, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[int, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    def track(self, process: str, name: str) -> int:
        """The track of a name in the process whose name begins so."""
        (found,) = [
            uuid
            for uuid, known in self.names.items()
            if known == name and self.processes[self.parents[uuid]].startswith(process)
        ]
        return found

    def all_slices(self, process: str) -> Iterator[tuple[int, Slice]]:
        for uuid, slices in self.slices.items():
            if self.processes[self.parents[uuid]].startswith(process):
                yield from ((uuid, one) for one in slices)


class Reader:
    """Reads packets in order of time, those of one moment in the file's order, as Perfetto does."""

    def __init__(self, data: bytes) -> None:
        self.trace = Trace()
        self.texts: dict[str, dict[int, str]] = defaultdict(dict)
        self.open: dict[int, list[tuple[str, int, dict[str, Any]]]] = defaultdict(list)
        packets = schema.Trace.FromString(data).packet
        first = packets[0]
        assert first.sequence_flags == schema.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        for packet in packets:
            assert packet.trusted_packet_sequence_id != 0
            self.describe(packet)
        events = [packet for packet in packets if packet.HasField("track_event")]
        for packet in sorted(events, key=lambda packet: packet.timestamp):
            assert packet.sequence_flags == schema.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
            self.take(packet.timestamp, packet.track_event)
        assert not any(self.open.values()), "every slice ends"

    def describe(self, packet: Any) -> None:
        for kind in ("event_names", "debug_annotation_names"):
            for entry in getattr(packet.interned_data, kind):
                self.texts[kind][entry.iid] = entry.name
        for entry in packet.interned_data.debug_annotation_string_values:
            self.texts["values"][entry.iid] = entry.str.decode()
        if not packet.HasField("track_descriptor"):
            return
        track, trace = packet.track_descriptor, self.trace
        assert track.uuid not in trace.names | trace.processes
        if track.HasField("process"):
            trace.processes[track.uuid] = track.process.process_name
            return
        assert track.parent_uuid in trace.processes
        trace.parents[track.uuid] = track.parent_uuid
        trace.names[track.uuid] = track.name
        if track.HasField("counter"):
            trace.counters.add(track.uuid)

    def args(self, event: Any) -> dict[str, Any]:
        found = {}
        for note in event.debug_annotations:
            which = note.WhichOneof("value")
            value = getattr(note, which)
            if which == "string_value_iid":
                value = self.texts["values"][value]
            found[self.texts["debug_annotation_names"][note.name_iid]] = value
        return found

    def take(self, time: int, event: Any) -> None:
        trace, types, uuid = self.trace, schema.TrackEvent, event.track_uuid
        assert uuid in trace.names
        if event.type == types.TYPE_COUNTER:
            assert uuid in trace.counters
            trace.values[uuid].append((time, event.counter_value))
            return
        assert uuid not in trace.counters
        stack = self.open[uuid]
        parents = tuple(name for name, _, _ in stack)
        if event.type == types.TYPE_SLICE_END:
            name, begin, args = stack.pop()
            trace.slices[uuid].append(
                Slice(name, begin, time, parents[:-1], args | self.args(event))
            )
            return
        name = self.texts["event_names"][event.name_iid]
        for flow in event.flow_ids:
            trace.begun[flow].append((time, name))
        for flow in event.terminating_flow_ids:
            trace.ended[flow].append((time, name))
        if event.type == types.TYPE_SLICE_BEGIN:
            stack.append((name, time, self.args(event)))
        else:
            assert event.type == types.TYPE_INSTANT
            trace.instants[uuid].append(Slice(name, time, time, parents, self.args(event)))


def recorded(command: list[str], handler: str, **options: Any) -> spfemu.Result:
    program = make_job(command).build()
    return spfemu.run(program, engine="vtime", handler=handler, spans=True, **options)


def read(tmp_path: Path, *results: spfemu.Result) -> Trace:
    write_perfetto(results, tmp_path / "t.pftrace")
    return Reader((tmp_path / "t.pftrace").read_bytes()).trace


@pytest.fixture(scope="module")
def results() -> dict[str, spfemu.Result]:
    return {handler: recorded(EBIZZY, handler) for handler in ("classic", "spf")}


@pytest.fixture(scope="module")
def trace(results: dict[str, spfemu.Result], tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return read(tmp_path_factory.mktemp("trace"), *results.values())


class TestTracks:
    def test_a_process_for_each_run_and_a_track_for_each_cpu(
        self, trace: Trace, results: dict[str, spfemu.Result]
    ) -> None:
        cpus = results["spf"].settings["cpus"]
        assert cpus == len(results["spf"].program.tasks) >= 16
        assert list(trace.processes.values()) == ["classic, x86-48", "spf, x86-48"]
        for process in trace.processes:
            names = [n for uuid, n in trace.names.items() if trace.parents[uuid] == process]
            assert names == [*COUNTERS, *(f"CPU {cpu}" for cpu in range(cpus))]

    def test_every_fault_is_a_slice_in_an_operation(
        self, trace: Trace, results: dict[str, spfemu.Result]
    ) -> None:
        for handler, result in results.items():
            slices = [one for _, one in trace.all_slices(handler)]
            faults = [one for one in slices if one.name == "fault"]
            assert len(faults) == result.counters["faults"]
            assert all(one.parents[0] in ("touch", "write", "read") for one in faults)
            assert all(one.args["address"] for one in faults)
            names = Counter(one.name for one in slices)
            attempts = [one for one in slices if one.name == "speculative"]
            handled = [one for one in attempts if one.args["outcome"] == "handled"]
            assert len(handled) == result.counters["spf"]
            assert names["classic"] == len(faults) - len(handled)
            for one in slices:
                if one.name in ("speculative", "classic"):
                    assert one.parents[-1] == "fault"
                if one.name == "clear_page":
                    assert "fault" in one.parents
            # Each fault brings a zeroed page here.
            assert names["clear_page"] >= result.counters["minor-faults"]

    def test_a_task_that_sleeps_for_mmap_sem_leaves_its_cpu_idle(self, trace: Trace) -> None:
        waits = [one for _, one in trace.all_slices("classic") if one.name == "wait for mmap_sem"]
        assert waits
        assert {one.parents[0] for one in waits} >= {"mmap", "munmap", "touch"}
        idle = [one for _, one in trace.all_slices("classic") if one.name == "idle"]
        assert any("wait for mmap_sem" in one.parents for one in idle)

    def test_a_flush_interrupts_other_cpus(self, trace: Trace) -> None:
        names = Counter(one.name for _, one in trace.all_slices("spf"))
        assert names["flush_tlb_others"]
        assert names["flush_tlb_func"] > names["flush_tlb_others"]

    def test_all_fits_into_the_run(self, trace: Trace, results: dict[str, spfemu.Result]) -> None:
        for handler, result in results.items():
            ends = [one.end for _, one in trace.all_slices(handler)]
            assert max(ends) == result.elapsed_ns


class TestFlows:
    def test_each_begins_once_and_ends_once_later(self, trace: Trace) -> None:
        assert trace.begun.keys() == trace.ended.keys()
        assert trace.begun
        for flow, begun in trace.begun.items():
            ((begin, writer),) = begun
            ((end, abort),) = trace.ended[flow]
            assert begin <= end
            assert writer in ("vm_write_begin", "mmap", "munmap", "mprotect")
            assert abort == "spf_vma_changed"

    def test_most_changed_vmas_have_one_and_no_other_abort(
        self, trace: Trace, results: dict[str, spfemu.Result]
    ) -> None:
        changed = results["spf"].counters["pagefault:spf_vma_changed"]
        assert changed > 50
        assert 0.9 * changed <= len(trace.begun) <= changed

    def test_aborts_are_instants_in_the_attempt_and_its_outcome(
        self, trace: Trace, results: dict[str, spfemu.Result]
    ) -> None:
        aborts: Counter[str] = Counter()
        for uuid, instants in trace.instants.items():
            for one in instants:
                if one.name.startswith("spf_"):
                    aborts[one.name] += 1
                    assert one.parents[-1] == "speculative"
                    assert one.args["vm_start"]
                    around = [s for s in trace.slices[uuid] if s.begin <= one.begin <= s.end]
                    assert any(s.args.get("outcome") == one.name for s in around)
        assert aborts
        for name, count in aborts.items():
            assert count == results["spf"].counters[f"pagefault:{name}"]


class TestCounters:
    def test_counts_end_with_the_counters_of_the_run(
        self, trace: Trace, results: dict[str, spfemu.Result]
    ) -> None:
        for handler, result in results.items():
            last = [trace.values[trace.track(handler, name)][-1][1] for name in COUNTERS]
            events = result.counters.items()
            aborts = sum(count for event, count in events if event.startswith("pagefault:"))
            assert last == [result.counters["faults"], result.counters["spf"], aborts, 0]

    def test_they_never_go_back(self, trace: Trace) -> None:
        for handler in ("classic", "spf"):
            for name in COUNTERS[:3]:
                points = trace.values[trace.track(handler, name)]
                assert points == sorted(points)

    def test_who_waits_for_mmap_sem_at_each_moment(self, trace: Trace) -> None:
        waits = [one for _, one in trace.all_slices("classic") if one.name == "wait for mmap_sem"]
        points = trace.values[trace.track("classic", "waiting for mmap_sem")]
        for time, value in points[:: len(points) // 50]:
            assert value == sum(one.begin <= time < one.end for one in waits)
        assert max(value for _, value in points) > 5


class TestSharedCpus:
    def test_slices_of_tasks_that_share_a_cpu_nest_all_the_same(self, tmp_path: Path) -> None:
        """12 tasks on 4 CPUs: what another task cuts goes on later."""
        result = recorded(["ebizzy", "-mTt", "12", "-S", "0.004"], "spf", cpus=4)
        trace = read(tmp_path, result)
        slices = [one for _, one in trace.all_slices("spf")]
        again = [one for one in slices if one.args.get("continued")]
        assert again
        begun = [one for one in slices if not one.args.get("continued") and one.name == "fault"]
        assert len(begun) == result.counters["faults"]
        tasks = {one.args["task"] for one in slices if not one.parents and "task" in one.args}
        assert tasks >= {task.name for task in result.program.tasks}


class TestResults:
    @pytest.mark.parametrize("handler", ["classic", "spf"])
    @pytest.mark.parametrize("cpus", [3, 16])
    def test_nothing_else_changes(self, handler: str, cpus: int) -> None:
        program = make_job(EBIZZY).build()
        plain, told = (
            spfemu.run(
                program, engine="vtime", handler=handler, cpus=cpus, seed=3, spans=on, lock_stat=on
            )
            for on in (False, True)
        )
        assert plain.elapsed_ns == told.elapsed_ns
        assert plain.counters == told.counters
        assert plain.ops.tobytes() == told.ops.tobytes()
        assert (plain.maps, plain.rounds) == (told.maps, told.rounds)
        assert len(told.spans) > 1000
        assert (len(plain.spans), plain.span_names, plain.lock_stat) == (0, (), None)

    def test_the_same_run_gives_the_same_bytes(self, tmp_path: Path) -> None:
        texts = []
        for name in ("a", "b"):
            write_perfetto([recorded(EBIZZY, "spf")], tmp_path / name)
            texts.append((tmp_path / name).read_bytes())
        assert texts[0] == texts[1]

    def test_what_does_not_fit_is_said(
        self,
        results: dict[str, spfemu.Result],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        whole = results["spf"]
        cut = replace(whole, spans=whole.spans[:1000], spans_cut=True)
        write_course(tmp_path / "t", [whole, cut])
        err = capsys.readouterr().err
        assert err.startswith(f"spfemu: {tmp_path / 't'}: the first ")
        assert err.endswith(" seconds with spf only: 1,000 entries\n")
        assert err.count("\n") == 1


class TestCommandLine:
    def test_stat_writes_both_runs_and_prints_the_same(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "t.pftrace"
        plain = told(capsys, "stat", "--", *EBIZZY)
        assert told(capsys, "stat", "--perfetto", str(path), "--", *EBIZZY) == plain
        processes = Reader(path.read_bytes()).trace.processes
        assert list(processes.values()) == ["classic, x86-48", "spf, x86-48"]

    def test_run_writes_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        program, path = tmp_path / "p.json", tmp_path / "t.pftrace"
        make_job(["brk1", "-t", "2", "-s", "1e-5"]).build().save(program)
        run = ["run", str(program), "--engine", "vtime"]
        assert told(capsys, *run, "--perfetto", str(path)) == told(capsys, *run)
        assert list(Reader(path.read_bytes()).trace.processes.values()) == ["spf, x86-48"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--engine", "native"], "--perfetto: engine native (allowed: vtime)"),
            (["-r", "2"], "--perfetto: -r 2 (allowed: one run)"),
            (["-o", "t.pftrace"], "t.pftrace: is read, or written twice"),
        ],
    )
    def test_refused(
        self,
        arguments: list[str],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["stat", "--perfetto", "t.pftrace", *arguments, "--", "brk1"]) == 2
        assert capsys.readouterr().err.startswith(f"spfemu: {message}")
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["stat", "--perfetto", "/none/t", "--", "brk1"]) == 2
        err = capsys.readouterr().err
        assert err == "spfemu: /none/t: cannot be written: No such file or directory\n"

    def test_a_package_that_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "perfetto", None)
        for name in [name for name in sys.modules if name.startswith("perfetto.")]:
            monkeypatch.delitem(sys.modules, name)
        assert main(["stat", "--perfetto", "t", "--", "brk1"]) == 2
        err = capsys.readouterr().err
        assert err == "spfemu: perfetto is not installed; pip install spfemu[perfetto]\n"

    def test_a_result_that_was_not_asked_for_its_course(self, tmp_path: Path) -> None:
        builder = spfemu.ProgramBuilder()
        builder.task().compute(1)
        result = spfemu.run(builder.build(), engine="vtime")
        with pytest.raises(spfemu.EngineError, match=r"without spans \(allowed: run\(spans=True\)"):
            write_perfetto([result], tmp_path / "t")
