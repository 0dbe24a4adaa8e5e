"""v11's tree, which a reader-writer lock protects, beside v12's: the same outcomes, other waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import EngineError, Program, ProgramError
from spfemu.engines import TREES
from tests.schedules import GO, ON, Op, P, move, on, read, write
from tests.test_catalogue import MUTANTS, VARIANTS

CATALOGUE: Final = Path(spfemu.__file__).parent / "data/catalogue"
PROGRAMS: Final = sorted({(case.program, case.preemptions) for case in VARIANTS + MUTANTS})
TWO_PAGES: Final[list[Op]] = [
    {"op": "mmap", "length": 2 * P, "prot": "rw", "id": "p"},
    write(1),
]


def two_tasks(first: list[Op], second: list[Op]) -> Program:
    """t0 maps and writes, then both go on."""
    tasks: list[dict[str, Any]] = [
        {"name": "t0", "ops": [*TWO_PAGES, GO, *first]},
        {"name": "t1", "ops": [ON, *second]},
    ]
    return Program.from_dict({"format": "spfemu-program/1", "tasks": tasks})


AGAINST_MUNMAP: Final = two_tasks([on("munmap", 2)], [write(2, 1)])


@pytest.mark.parametrize(("program", "preemptions"), PROGRAMS)
def test_no_schedule_of_the_catalogue_breaks_anything(program: str, preemptions: int) -> None:
    found = spfemu.explore(
        Program.load(CATALOGUE / f"{program}.json"),
        tree="rwlock",
        variants_default="fixed",
        preemptions=preemptions,
    )
    assert (found["complete"], found["violations"]) == (True, [])
    assert found["settings"]["tree"] == "rwlock"


@pytest.mark.parametrize(
    "writer",
    [[on("munmap", 2)], [on("munmap", 1)], [on("mprotect", 2, prot="r"), read()], [move(2)]],
    ids=["munmap", "munmap-of-a-part", "mprotect", "mremap"],
)
def test_a_fault_beside_a_writer_breaks_nothing_within_two_preemptions(writer: list[Op]) -> None:
    program = two_tasks(writer, [write(2, 1)])
    found = spfemu.explore(program, tree="rwlock", variants_default="fixed", preemptions=2)
    assert (found["complete"], found["violations"]) == (True, [])


@pytest.mark.parametrize("entry", ["A23", "A24a"])
def test_a_walk_without_the_lock_or_a_late_reference_is_found(entry: str) -> None:
    # What the lock is there for; with v12's tree no schedule shows A23.
    found = spfemu.explore(
        AGAINST_MUNMAP, tree="rwlock", variants_default="fixed", mutants=[entry], preemptions=1
    )
    told = {(violation["invariant"], violation["entry"]) for violation in found["violations"]}
    assert told == {("use-after-free", entry)}


def test_v11s_look_up_never_had_the_bug_of_the_vmacache() -> None:
    # C1 is in v12's find_vma_rcu(); get_vma() of v11 leaves the vmacache out.
    program = Program.load(CATALOGUE / "second_fault_against_munmap.json")
    one: dict[str, Any] = {"variants_default": "fixed", "variants": {"C1": "v12"}, "preemptions": 2}
    rcu, rwlock = (spfemu.explore(program, tree=tree, **one) for tree in TREES)
    assert rcu["violations"] != []
    assert (rwlock["complete"], rwlock["violations"]) == (True, [])


def test_a_schedule_of_one_tree_is_none_of_the_other() -> None:
    how: dict[str, Any] = {"variants_default": "fixed", "mutants": ["A7"], "preemptions": 2}
    token = spfemu.explore(AGAINST_MUNMAP, tree="rwlock", **how)["violations"][0]["token"]
    del how["preemptions"]
    again = spfemu.explore(AGAINST_MUNMAP, tree="rwlock", replay=token, **how)
    assert len(again["violations"]) == 1
    with pytest.raises(ProgramError, match="token"):
        spfemu.explore(AGAINST_MUNMAP, replay=token, **how)


@pytest.mark.parametrize("engine", ["native", "vtime", "explore", "reference"])
@pytest.mark.parametrize("tree", TREES)
def test_a_result_says_what_the_tree_was(engine: str, tree: str) -> None:
    result = spfemu.run(AGAINST_MUNMAP, engine=engine, tree=tree)
    assert result.settings["tree"] == tree
    assert result.counters["faults"] > 0
    classic = spfemu.run(AGAINST_MUNMAP, engine=engine, handler="classic")
    assert "tree" not in classic.settings


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(EngineError, match=r'tree "btree" \(allowed: rcu, rwlock\)'):
        spfemu.run(AGAINST_MUNMAP, tree="btree")
    with pytest.raises(EngineError, match=r"tree rwlock: handler classic \(allowed: spf\)"):
        spfemu.run(AGAINST_MUNMAP, handler="classic", tree="rwlock")
    with pytest.raises(EngineError, match=r"tree: engine kernel \(allowed: native, "):
        spfemu.run(AGAINST_MUNMAP, engine="kernel", tree="rwlock")
    with pytest.raises(EngineError, match=r'tree "btree"'):
        spfemu.explore(AGAINST_MUNMAP, tree="btree")
    with pytest.raises(EngineError, match=r"tree rwlock: handler classic"):
        spfemu.sweep("brk1 -t {cpus} -s 1e-4", cpus="1", handler="classic", tree="rwlock")


def test_readers_of_the_lock_take_turns_for_its_line() -> None:
    # Threads that fault in regions of their own have no VMA in common: only the tree's lock.
    tables = {
        tree: spfemu.sweep(
            "pft -t {cpus} -p -m 1", cpus="1,256", machine="zen5-256", tree=tree, jobs=1
        )
        for tree in TREES
    }
    rates = {
        (tree, row.variant, row.ncpus): row.value
        for tree, table in tables.items()
        for row in table.rows
        if row.metric == "faults/s"
    }
    assert rates["rcu", "classic", 256] == rates["rwlock", "classic", 256]
    gains = [rates["rcu", "spf", cpus] / rates["rwlock", "spf", cpus] for cpus in (1, 256)]
    assert 1 < gains[0] < 1.05
    assert gains[1] > 1.02
    notes = [{row.note for row in table.rows} for table in tables.values()]
    assert notes == [{"seed 0"}, {"seed 0", "seed 0, tree rwlock"}]


def test_the_command_line_passes_it_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from spfemu.cli.app import app

    path = tmp_path / "program.json"
    AGAINST_MUNMAP.save(path)
    for command in (
        ["run", str(path), "--engine", "vtime"],
        ["check", str(path), "--engine", "explore"],
        ["explore", str(path), "--variants", "fixed"],
        ["stat", "--handler", "both", "--seed", "1"],
    ):
        tail = ["--", str(path)] if command[0] == "stat" else []
        app([*command, "--tree", "rwlock", "--json", *tail], standalone_mode=False)
        assert json.loads(capsys.readouterr().out)["settings"]["tree"] == "rwlock"
    app(["sweep", "--cpus", "1", "--tree", "rwlock", "--json", "--", "brk1", "-s", "1e-4"],
        standalone_mode=False)  # fmt: skip
    rows = json.loads(capsys.readouterr().out)
    assert {row["note"] for row in rows if row["variant"] == "spf"} == {"seed 0, tree rwlock"}
