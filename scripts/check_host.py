"""Holds programs that nobody has seen against the host's kernel, with `spfemu check` alone.

usage: python scripts/check_host.py [COUNT] [--seed N]

COUNT is 200 unless told, and the seed another one each time; it is said in the end, and the same
one draws the same programs. A program that differs stays in a file. Ends with status 1 if any does.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from spfemu import Program
from spfemu.cli import main as spfemu
from spfemu.cli.output import progress_bar
from spfemu.testing import programs

CHECK: Final = ("check", "--against", "kernel", "--json")
_INTERRUPTED: Final = 130
ENGINES: Final = (
    ("--engine", "native", "--handler", "spf"),
    ("--engine", "reference", "--handler", "classic"),
)


def drawn(count: int, seed: int) -> list[str]:
    """Returns that many programs, no two the same. Source: ours."""
    found: dict[str, None] = {}

    @seeded(seed)
    @settings(
        max_examples=4 * count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(host=True))
    def look(program: Program) -> None:
        found[json.dumps(program.to_dict())] = None

    look()
    return list(found)[:count]


def verdict(how: tuple[str, ...], path: Path) -> str:
    """Returns what `spfemu check` says of a program. Source: ours."""
    out, err = io.StringIO(), io.StringIO()
    # In this process: to start one for each takes ten times as long as the check itself.
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = spfemu([*CHECK, *how, str(path)])
    if status == _INTERRUPTED:
        raise KeyboardInterrupt
    if not out.getvalue():
        why = err.getvalue().strip().partition(f"{path.name}: ")[2]
        return f"refused: {re.sub(r'0x[0-9a-f]+|[0-9]+', 'N', why)}"
    found = json.loads(out.getvalue())
    if found["differences"]:
        return "different"
    excused = sorted({entry["exception"] for entry in found.get("excused", ())})
    same = "the same up to where they part" if found.get("cut") else "the same"
    return f"{same}, but for {', '.join(excused)}" if excused else same


def at_least(least: int) -> Callable[[str], int]:
    """Returns what reads a number that is not below ``least``. Source: ours."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"value {text!r} (allowed: {least} or more)")
        return int(text)

    return read


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", nargs="?", type=at_least(1), default=200, metavar="COUNT")
    parser.add_argument("--seed", type=at_least(0), default=random.SystemRandom().getrandbits(32))
    asked = parser.parse_args()
    count, seed = asked.count, asked.seed
    kept = Path(tempfile.mkdtemp(prefix="spfemu-check-"))
    verdicts: Counter[str] = Counter()
    with progress_bar(f"{count:,} programs", quiet=False, left=True) as progress:
        for number, text in enumerate(drawn(count, seed)):
            path = kept / f"{number}.json"
            path.write_text(text)
            said = [verdict(how, path) for how in ENGINES]
            verdicts.update(said)
            if "different" in said:
                print(f"{path}: {dict(zip(ENGINES, said, strict=True))}")
            else:
                path.unlink()
            if progress is not None:
                progress((number + 1) / count)
    for one, times in verdicts.most_common():
        print(f"{times:>6,}  {one}")
    print(f"{sum(verdicts.values()):>6,}  checks in all (--seed {seed})")
    if not verdicts["different"]:
        kept.rmdir()
    return int(verdicts["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
