"""Holds programs that nobody has seen against the host's kernel, with `spfemu check` alone.

usage: python scripts/check_host.py [COUNT]    (default: 200; others each time)

A program that differs stays in a file. Ends with status 1 if any does.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings

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


def drawn(count: int) -> list[str]:
    """Returns that many programs, no two the same. Source: ours."""
    found: dict[str, None] = {}

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
        return f"refused: {err.getvalue().strip().rpartition(': ')[2]}"
    found = json.loads(out.getvalue())
    if found["differences"]:
        return "different"
    excused = sorted({entry["exception"] for entry in found.get("excused", ())})
    return f"the same, but for {', '.join(excused)}" if excused else "the same"


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    kept = Path(tempfile.mkdtemp(prefix="spfemu-check-"))
    verdicts: Counter[str] = Counter()
    with progress_bar(f"{count:,} programs", quiet=False, left=True) as progress:
        for number, text in enumerate(drawn(count)):
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
    print(f"{sum(verdicts.values()):>6,}  checks in all")
    if not verdicts["different"]:
        kept.rmdir()
    return int(verdicts["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
