"""Holds the reference and native, each with both handlers, against the host's kernel.

usage: python scripts/campaign_host.py COUNT [--seed N]

Runs that many different programs, some 500 a minute on one core. The same seed (0 unless told)
draws the same ones. A program that differs stays in a file, and the campaign goes on. Ends with
what was excused, and with status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from spfemu import Program, ProgramError
from spfemu.cli.output import progress_bar
from spfemu.testing import against_host, programs, with_maps

# Hypothesis remembers what it has drawn: so many at a time.
_BATCH: Final = 500


@dataclass
class Campaign:
    """What was run, and what came of it. Source: ours."""

    count: int
    kept: Path
    seen: set[bytes] = field(default_factory=set)
    refused: int = 0
    comparisons: int = 0
    cut: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    different: list[Path] = field(default_factory=list)

    def is_done(self) -> bool:
        """Whether all programs have run. Source: ours."""
        return self.run >= self.count

    @property
    def run(self) -> int:
        """How many programs have run. Source: ours."""
        return len(self.seen) - self.refused

    def look(self, program: Program) -> None:
        """Runs a program everywhere if it is a new one. Source: ours."""
        key = hashlib.blake2b(json.dumps(program.to_dict()).encode(), digest_size=16).digest()
        if self.is_done() or key in self.seen:
            return
        self.seen.add(key)
        try:
            found = against_host(program)
        except AssertionError as error:
            self.different.append(self.kept / f"{len(self.different)}.txt")
            self.different[-1].write_text(f"{error}\n")
            print(f"\n{self.different[-1]}")
            return
        except ProgramError as error:
            if "which the engine needs" not in str(error):
                raise
            self.refused += 1
            return
        self.comparisons += len(found)
        self.cut += sum(bool(one.cut) for one in found)
        self.excused.update({entry.exception for one in found for entry in one.excused})


def batch(campaign: Campaign, seed: int) -> None:
    """Runs up to 500 programs more; every other batch has the maps looked at often."""
    drawn = programs(host=True)

    @seeded(seed)
    @settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn.map(with_maps) if seed % 2 else drawn)
    def look(program: Program) -> None:
        campaign.look(program)

    look()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", type=int, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for name, value, least in (("COUNT", asked.count, 1), ("--seed", asked.seed, 0)):
        if value < least:
            parser.error(f"{name}: value {value} (allowed: {least} or more)")
    campaign = Campaign(asked.count, Path(tempfile.mkdtemp(prefix="spfemu-campaign-")))
    # Campaigns with seeds beside each other share nothing.
    seed = asked.seed << 32
    with progress_bar(f"{asked.count:,} programs", quiet=False, left=True) as progress:
        while not campaign.is_done():
            batch(campaign, seed)
            seed += 1
            if progress is not None:
                progress(campaign.run / campaign.count)
    for name, times in campaign.excused.most_common():
        print(f"{times:>7,}  programs had something excused by {name}")
    print(
        f"{campaign.run:,} different programs, {campaign.comparisons:,} comparisons, "
        f"{campaign.cut:,} of them up to where the two part (--seed {asked.seed}); "
        f"{campaign.refused:,} programs refused, {len(campaign.different):,} differ"
    )
    if not campaign.different:
        campaign.kept.rmdir()
    return int(bool(campaign.different))


if __name__ == "__main__":
    sys.exit(main())
