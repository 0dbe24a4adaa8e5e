"""Gaps between events, and where system calls take effect."""

from __future__ import annotations

from pathlib import Path

from spfemu.importers.events import Call, Enter, Event, Exit, Fault, Forked, Mapped, Switched
from spfemu.importers.timeline import with_calls, with_gaps
from tests.importers.text import THREAD, Recording, ops


def fault(time: int, tid: int, cpu: int) -> Fault:
    return Fault(time, tid, 1, cpu, "a", address=0, ip=0, access=1)


def gaps(*events: Event) -> list[tuple[int, int]]:
    return [(event.compute_ns, event.sleep_ns) for event in with_gaps(events)]


def test_a_gap_is_compute_while_the_task_has_its_cpu_to_itself() -> None:
    assert gaps(fault(10, 1, 0), fault(15, 2, 1), fault(30, 1, 0)) == [(0, 0), (0, 0), (20, 0)]


def test_a_gap_is_sleep_when_another_task_was_on_the_cpu() -> None:
    assert gaps(fault(10, 1, 0), fault(15, 2, 0), fault(30, 1, 0))[2] == (0, 20)


def test_a_gap_is_sleep_when_the_task_comes_back_elsewhere() -> None:
    assert gaps(fault(10, 1, 0), fault(30, 1, 1))[1] == (0, 20)


def test_a_new_task_sleeps_until_its_first_event() -> None:
    forked = Forked(10, 1, 1, 0, "a", child=2, child_pid=1, parent=1, parent_pid=1)
    assert gaps(forked, fault(17, 2, 0))[1] == (0, 7)


def test_the_time_inside_a_call_is_no_gap() -> None:
    enter = Enter(20, 1, 1, 0, "a", name="brk", args={})
    end = Exit(50, 1, 1, 0, "a", name="brk", result=0)
    assert gaps(fault(10, 1, 0), enter, end, fault(60, 1, 0)) == [(0, 0), (10, 0), (0, 0), (10, 0)]


def test_what_was_there_before_the_recording_has_no_time() -> None:
    assert gaps(fault(0, 1, 0), fault(60, 1, 0)) == [(0, 0), (0, 0)]


def test_a_switch_tells_computing_from_waiting() -> None:
    #  t1 on the CPU  10..14, off 14..20 (t2), on 20..25, off 25..
    switches = [
        Switched(14, 1, 1, 0, "a", successor=2),
        Switched(20, 2, 1, 0, "a", successor=1),
        Switched(25, 1, 1, 0, "a", successor=0),
    ]
    assert gaps(fault(10, 1, 0), *switches[:2], fault(24, 1, 0))[-1] == (8, 6)
    assert gaps(fault(10, 1, 0), *switches, fault(30, 1, 0))[-1] == (9, 11)


def test_the_sums_of_the_gaps_are_in_the_summary(tmp_path: Path) -> None:
    recording = Recording()
    recording.exec(7)
    recording.mmap(7, 7, 0x10000, 0x3000)
    recording.fault(7, 7, 0x10000)
    recording.time += 5000
    recording.fault(7, 7, 0x11000)
    recording.fault(7, 7, 0x12000, cpu=1)
    imported = recording.load(tmp_path)
    summary = imported.summary
    assert ops(imported, gaps=True)[-3:] == ["write", "sleep", "write"]
    assert summary.sleep_ns == 1000
    assert summary.compute_ns == 9000  # all other gaps but those inside calls
    assert (summary.nr_computes, summary.nr_sleeps) == (3, 1)
    assert summary.cpus == 2


def order(*events: Event) -> list[str]:
    found = []
    for event in with_calls(events):
        if isinstance(event, Call):
            found.append(f"{event.name}{event.tid}{'-' if event.begins else ''}")
        else:
            found.append(type(event).__name__.lower() + str(event.tid))
    return found


def enter(tid: int, name: str, **args: int) -> Enter:
    return Enter(1, tid, 1, 0, "a", name=name, args=args)


def done(tid: int, name: str, result: int = 0) -> Exit:
    return Exit(2, tid, 1, 0, "a", name=name, result=result)


def mapped(tid: int, start: int, length: int) -> Mapped:
    return Mapped(1, tid, 1, 0, "a", start, length, 0, 3, False, "//anon", 1)


def test_a_mapping_takes_effect_where_perf_reports_it() -> None:
    events = [enter(1, "mmap", len=0x1000), mapped(1, 0x8000, 0x1000), fault(1, 2, 0)]
    assert order(*events, done(1, "mmap", 0x8000)) == ["mmap1", "fault2"]
    assert order(events[0], events[2], done(1, "mmap", 0x8000)) == ["fault2", "mmap1"]


def test_a_munmap_takes_effect_where_it_ends() -> None:
    # Another task's mapping merges with what is still there.
    assert order(
        enter(1, "munmap", addr=0x8000, len=0x1000),
        enter(2, "mmap", len=0x1000),
        mapped(2, 0x7000, 0x2000),
        done(2, "mmap", 0x7000),
        done(1, "munmap"),
    ) == ["mmap2", "munmap1"]


def test_a_munmap_comes_before_a_mapping_at_its_addresses() -> None:
    # The end of the munmap is logged after the other task has got the addresses and used them.
    assert order(
        enter(1, "munmap", addr=0x8000, len=0x1000),
        enter(2, "mmap", len=0x1000),
        mapped(2, 0x7000, 0x2000),
        fault(1, 3, 0),
        done(2, "mmap", 0x8000),
        fault(1, 2, 0),
        done(1, "munmap"),
    ) == ["munmap1", "mmap2", "fault3", "fault2"]


def test_a_munmap_comes_before_a_mapping_that_did_not_merge_with_it() -> None:
    assert order(
        enter(1, "munmap", addr=0x8000, len=0x1000),
        enter(2, "mmap", len=0x1000),
        mapped(2, 0x7000, 0x1000),
        done(2, "mmap", 0x7000),
        done(1, "munmap"),
    ) == ["munmap1", "mmap2"]


def test_a_munmap_that_has_ended_still_makes_room() -> None:
    assert order(
        enter(2, "mmap", len=0x1000),
        enter(1, "munmap", addr=0x8000, len=0x1000),
        mapped(2, 0x7000, 0x2000),
        done(1, "munmap"),
        done(2, "mmap", 0x8000),
    ) == ["munmap1", "mmap2"]


def test_a_fixed_mapping_makes_no_room() -> None:
    assert order(
        enter(1, "munmap", addr=0x8000, len=0x1000),
        enter(2, "mmap", len=0x1000, flags=0x32),
        done(2, "mmap", 0x8000),
        done(1, "munmap"),
    ) == ["mmap2", "munmap1"]


def test_an_mremap_has_two_places() -> None:
    args = {"addr": 0x8000, "old_len": 0x1000, "new_len": 0x2000}
    events = [enter(1, "mremap", **args), done(1, "mremap", 0x3000)]
    assert order(*events) == ["mremap1-", "mremap1"]
    # Another task got the old place before the end was logged.
    other = [enter(2, "mmap", len=0x1000), mapped(2, 0x8000, 0x1000), done(2, "mmap", 0x8000)]
    assert order(events[0], *other, events[1]) == ["mremap1-", "mmap2", "mremap1"]


def test_a_call_whose_end_never_comes_holds_nothing_up_for_ever() -> None:
    events: list[Event] = [enter(1, "mmap", len=0x1000), mapped(1, 0x8000, 0x1000)]
    events += [fault(1, 2, 0) for _ in range(1 << 17)]
    found = list(with_calls(events))
    assert len(found) == (1 << 17) + 1
    assert isinstance(found[0], Call)
    assert found[0].result is None


def test_the_end_of_a_task_ends_its_call(tmp_path: Path) -> None:
    recording = Recording()
    recording.exec(7)
    recording.mmap(7, 7, 0x10000, 0x3000)
    recording.clone(7, 7, 8, THREAD)
    recording.enter(7, 8, "munmap", addr=0x10000, len=0x1000)
    recording.end(7, 8)
    recording.fault(7, 7, 0x11000)
    imported = recording.load(tmp_path)
    assert ops(imported, 1) == ["munmap", "exit"]
    assert not imported.summary.unresolved
