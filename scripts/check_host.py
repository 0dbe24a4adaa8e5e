"""Holds programs that nobody has seen against the host's kernel, with `spfemu check` alone.

usage: python scripts/check_host.py [COUNT]    (default: 200; others each time)

A program that differs stays in a file. Ends with status 1 if any does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings

from spfemu import Program
from spfemu.testing import programs

CHECK: Final = (sys.executable, "-m", "spfemu", "check", "--against", "kernel", "--json")
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
    done = subprocess.run([*CHECK, *how, path], capture_output=True, text=True, check=False)
    if not done.stdout:
        return f"refused: {done.stderr.strip().rpartition(': ')[2]}"
    found = json.loads(done.stdout)
    if found["differences"]:
        return "different"
    excused = sorted({entry["exception"] for entry in found.get("excused", ())})
    return f"the same, but for {', '.join(excused)}" if excused else "the same"


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    kept = Path(tempfile.mkdtemp(prefix="spfemu-check-"))
    verdicts: Counter[str] = Counter()
    for number, text in enumerate(drawn(count)):
        path = kept / f"{number}.json"
        path.write_text(text)
        said = [verdict(how, path) for how in ENGINES]
        verdicts.update(said)
        if "different" in said:
            print(f"{path}: {dict(zip(ENGINES, said, strict=True))}")
        else:
            path.unlink()
    for one, times in verdicts.most_common():
        print(f"{times:>6,}  {one}")
    print(f"{sum(verdicts.values()):>6,}  checks in all")
    if not verdicts["different"]:
        kept.rmdir()
    return int(verdicts["different"] > 0)


if __name__ == "__main__":
    sys.exit(main())
