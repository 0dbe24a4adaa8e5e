"""``make demo``: a recorded memcached, ebizzy, and the race that one missing check causes.

Every step prints the command that does the same; the last line says whether all came out as it
should.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from spfemu.cli.app import main as spfemu
from spfemu.cli.explore import print_exploration
from spfemu.cli.output import error_line
from spfemu.errors import SpfemuError
from spfemu.exploring import explore
from spfemu.program.builder import ProgramBuilder
from spfemu.program.model import Program

__all__ = ["main", "race_program"]

TRACE: Final = Path("tests", "traces", "memcached.perf.txt.zst")
EBIZZY: Final = ("ebizzy", "-mTt", "4", "-S", "0.1")


def race_program() -> Program:
    """Returns one write fault against munmap of that page.

    The first thread makes a mapping with an anon_vma and no page, starts the second and unmaps;
    the second writes. A page beside it keeps the page table in place. Source: ours.

    >>> from spfemu.cli.demo import race_program
    >>> [len(task.ops) for task in race_program().tasks]
    [7, 1]
    """
    builder = ProgramBuilder(source="race.json")
    first = builder.task("unmapper")
    first.mmap(4096, prot="r", id="beside")
    first.read("beside")
    first.mmap(4096, id="p")
    first.write("p")
    first.madvise("p", 4096, "dontneed")
    first.clone("writer")
    first.munmap("p", 4096)
    builder.task("writer", "clone").write("p", 2)
    return builder.build()


def _say(text: str) -> None:
    print(f"\n=== {text}\n", flush=True)


def _stat(arguments: Sequence[str]) -> bool:
    command = ["stat", "--", *arguments]
    print(f"$ spfemu {shlex.join(command)}", flush=True)
    return spfemu(command) == 0


def _explore(path: Path, variants: str, mutants: Sequence[str]) -> dict[str, Any]:
    command = ["spfemu", "explore", str(path), "--variants", variants]
    for name in mutants:
        command += ["--mutant", name]
    print(f"$ {shlex.join(command)}", flush=True)
    exploration = explore(
        Program.load(path),
        variants_default=variants,
        mutants=mutants,
    )
    print_exploration(exploration, command)
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

    _say("one write fault against munmap of its page, the known bugs of v12 cured")
    fixed = _explore(path, "fixed", [])
    good = fixed["complete"] and not fixed["violations"]
    _verdict(good, "every interleaving was tried and none breaks an invariant", verdicts)

    _say("the same with v12 as it was posted")
    v12 = _explore(path, "v12", [])
    known = all(str(one["entry"] or "").startswith("B") for one in v12["violations"])
    _verdict(known, "nothing but bugs that are known", verdicts)

    for mutant, what in (("A7", "the re-check under the PTE lock"), ("A6", "the tree-node test")):
        _say(f"without one check: {what} ({mutant})")
        broken = _explore(path, "fixed", [mutant])["violations"]
        _verdict(bool(broken), "the missing check is found out", verdicts)
        if broken:
            _verdict(_replays(path, mutant, broken[0]), "the token replays", verdicts)
    return verdicts


def main() -> int:
    """Runs the demonstration. Source: ours. Returns 0 when all came out as it should, else 1."""
    # It stays, so that the replay commands above can be typed.
    path = Path(tempfile.mkdtemp(prefix="spfemu-demo-"), "race.json")
    try:
        race_program().save(path)
        verdicts = _steps(path)
    except SpfemuError as error:
        error_line(str(error))
        return 2
    except KeyboardInterrupt:
        error_line("interrupted")
        return 130
    print(f"\n{sum(verdicts)} of {len(verdicts)} came out as they should")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
