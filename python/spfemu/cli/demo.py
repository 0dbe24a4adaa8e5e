"""``make demo``: a recorded memcached, ebizzy, and what a race of a fault and munmap breaks.

Every step prints the command that does the same; the last line says whether all came out as it
should.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from spfemu.cli.app import main as spfemu
from spfemu.cli.exploration import print_exploration
from spfemu.cli.output import error_line
from spfemu.errors import SpfemuError
from spfemu.exploring import PREEMPTIONS, explore
from spfemu.program.builder import ProgramBuilder
from spfemu.program.model import Program

__all__ = ["main", "race_program"]

TRACE: Final = Path("tests", "traces", "memcached.perf.txt.zst")
EBIZZY: Final = ("ebizzy", "-mTt", "4", "-S", "0.1")


def race_program() -> Program:
    """Returns one write fault against munmap of its mapping.

    The first thread writes to one page, so that there is an anon_vma, starts the second and unmaps
    both pages; the second writes to the other. No other mapping needs the page table, so the
    munmap frees it. Source: ours.

    >>> from spfemu.cli.demo import race_program
    >>> [len(task.ops) for task in race_program().tasks]
    [4, 1]
    """
    builder = ProgramBuilder(source="race.json")
    first = builder.task("unmapper")
    first.mmap(8192, id="p")
    first.write("p")
    first.clone("writer")
    first.munmap("p", 8192)
    builder.task("writer", "clone").write(("p", 4096), 2)
    return builder.build()


def _say(text: str) -> None:
    print(f"\n=== {text}\n", flush=True)


def _stat(arguments: Sequence[str]) -> bool:
    command = ["stat", "--", *arguments]
    print(f"$ spfemu {shlex.join(command)}", flush=True)
    return spfemu(command) == 0


def _explore(path: Path, variants: str, mutants: Sequence[str]) -> dict[str, Any]:
    program = Program.load(path)
    command = ["spfemu", "explore", str(path), "--variants", variants]
    for name in mutants:
        command += ["--mutant", name]
    print(f"$ {shlex.join(command)}", flush=True)
    exploration = explore(program, variants_default=variants, mutants=mutants)
    names = [task.name for task in program.tasks]
    print_exploration(exploration, command, names, timelines=1)
    return exploration


def _replays(path: Path, mutant: str, violation: dict[str, Any]) -> bool:
    token = violation["token"]
    print(f"\n$ spfemu explore {path} --variants fixed --mutant {mutant} --replay {token}")
    again = explore(
        Program.load(path),
        variants_default="fixed",
        mutants=[mutant],
        replay=token,
    )
    found = [one["invariant"] for one in again["violations"]]
    same = violation["invariant"] in found
    print(f"the schedule of the token breaks {'the same invariant' if same else found} again")
    return same


def _verdict(good: bool, text: str, verdicts: list[bool]) -> None:
    verdicts.append(good)
    print(f"--> {'yes' if good else 'NO'}: {text}", flush=True)


def _steps(path: Path) -> list[bool]:
    verdicts: list[bool] = []
    if TRACE.exists():
        _say("memcached, as perf recorded it, with the classic and with the speculative handler")
        _verdict(_stat([str(TRACE)]), "the recording replays", verdicts)
    _say("ebizzy: four threads that map, touch and unmap")
    _verdict(_stat(EBIZZY), "ebizzy runs", verdicts)

    bounds = f"every schedule of at most {PREEMPTIONS} preemptions is covered"
    _say("one write fault against munmap of its mapping, the known bugs of v12 cured")
    fixed = _explore(path, "fixed", [])
    good = fixed["complete"] and not fixed["violations"]
    _verdict(good, f"{bounds}, and none breaks an invariant", verdicts)

    _say("the same with v12 as it was posted")
    v12 = _explore(path, "v12", [])
    entries = {str(one["entry"]) for one in v12["violations"]}
    known = v12["complete"] and entries == {"B2", "B3"}
    found = "the bugs B2 and B3 of v12 are found and named, and nothing else"
    _verdict(known, f"{bounds}: {found}", verdicts)

    for mutant, what in (("A7", "the re-check under the PTE lock"), ("A6", "the tree-node test")):
        _say(f"without one check: {what} ({mutant})")
        broken = _explore(path, "fixed", [mutant])["violations"]
        named = bool(broken) and {one["entry"] for one in broken} == {mutant}
        _verdict(named, "it is found out, and named, that the check is missing", verdicts)
        if broken:
            _verdict(_replays(path, mutant, broken[0]), "the token replays", verdicts)
    return verdicts


def main() -> int:
    """Runs the demonstration. Source: ours. Returns 0 when all came out as it should, else 1."""
    # It stays, so that the replay commands above can be typed: one, however often this runs.
    path = Path(tempfile.gettempdir(), f"spfemu-demo-{os.getuid()}", "race.json")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        race_program().save(path)
        verdicts = _steps(path)
    except SpfemuError as error:
        error_line(str(error))
        return 2
    except OSError as error:
        error_line(f"{path}: {error.strerror}")
        return 2
    except KeyboardInterrupt:
        error_line("interrupted")
        return 130
    print(f"\n{sum(verdicts)} of {len(verdicts)} came out as they should")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
