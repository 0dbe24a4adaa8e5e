"""A campaign: workers in processes of their own, and what they tell put together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from spfemu.errors import EngineError
from spfemu.fuzzing.findings import Found, known_keys
from spfemu.fuzzing.plan import Plan
from spfemu.program import Program

__all__ = ["Campaign", "fuzz"]

_LOOK_S: Final = 0.2
_PATIENCE_S: Final = 10.0
"""How long a worker may go on with its example when the campaign ends."""


@dataclass(slots=True)
class Campaign:
    """How a campaign stands. Source: ours. ``programs`` were checked in ``runs`` schedules and
    engine runs; ``coverage`` counts what they did that others had not: pairs of accesses that
    raced, and kinds of outcomes. ``before`` of the coverage is from earlier campaigns in this
    folder; ``known`` findings too. ``interrupted``: Ctrl-C.
    """

    plan: Plan
    elapsed_s: float = 0.0
    programs: int = 0
    runs: int = 0
    coverage: int = 0
    before: int = 0
    known: int = 0
    interrupted: bool = False
    findings: list[Found] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The JSON form. Source: ours."""
        return {
            "elapsed_s": round(self.elapsed_s, 3),
            "programs": self.programs,
            "runs": self.runs,
            "coverage": self.coverage,
            "before": self.before,
            "known": self.known,
            "interrupted": self.interrupted,
            "settings": {
                "time_s": self.plan.time_s, "workers": self.plan.workers,
                "mutants": list(self.plan.mutants), "variants": self.plan.variants,
                "db": self.plan.db, "folder": str(self.plan.folder), "seed": self.plan.seed,
                "hazards": list(self.plan.hazards),
            },
            "findings": [
                {
                    "name": found.name, "key": found.key, "what": found.what,
                    "token": found.token, "program": json.loads(found.program),
                    "path": str(self.plan.folder / "findings" / f"{found.name}.json"),
                    "test": found.test(),
                }
                for found in self.findings
            ],
        }  # fmt: skip


class _Covered:
    """What was covered, with a program for each first time: the corpus in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "corpus"
        self.items: set[str] = set()
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                self.items |= set(json.loads(path.read_text(encoding="utf-8"))["covers"])

    def add(self, items: list[str], example: dict[str, Any]) -> None:
        new = [item for item in items if item not in self.items]
        if not new:
            return
        self.items |= set(new)
        text = json.dumps({"covers": new, "how": example["how"], "program": example["program"]})
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        (self.folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def fuzz(
    plan: Plan,
    *,
    progress: Callable[[Campaign], object] | None = None,
    on_finding: Callable[[Found, Path], object] | None = None,
) -> Campaign:
    """Runs a campaign until its time is up, or until it is interrupted.

    Source: ours. ``progress`` is called a few times a second, ``on_finding`` with each new finding
    and the path of its program. What was found before in the same folder is known, and not found
    again.

    Returns how it stands in the end; KeyboardInterrupt ends it, and is in ``interrupted``. Raises
    EngineError or ProgramError for a plan that cannot be carried out. Determinism: with a seed,
    and nothing in the folder, each worker draws the same programs in the same order until another
    worker finds something; how many is up to the time. A finding's program and token fix all.
    """
    plan = plan.checked()
    covered = _Covered(plan.folder)
    known = known_keys(plan.folder, plan.explored_with())
    campaign = Campaign(plan, before=len(covered.items), known=len(known))
    begun = time.monotonic()
    with _workers(plan) as (pipes, end):
        try:
            while pipes and (plan.time_s is None or campaign.elapsed_s < plan.time_s):
                _listen(pipes, campaign, covered, known, on_finding)
                campaign.elapsed_s = time.monotonic() - begun
                if progress is not None:
                    progress(campaign)
        except KeyboardInterrupt:
            campaign.interrupted = True
        end.set()
        # What they were at ends first, and may yet be a finding.
        patience = time.monotonic() + _PATIENCE_S
        with contextlib.suppress(KeyboardInterrupt):
            while pipes and time.monotonic() < patience:
                _listen(pipes, campaign, covered, known, on_finding)
    campaign.elapsed_s = time.monotonic() - begun
    if progress is not None:
        progress(campaign)
    return campaign


@contextmanager
def _workers(plan: Plan) -> Iterator[tuple[list[Connection], Any]]:
    """Gives the workers' pipes, and the event that ends them."""
    # Started afresh: a fork of a process that has threads may hang.
    context = multiprocessing.get_context("spawn")
    from spfemu.fuzzing.worker import work

    end = context.Event()
    pipes: list[Connection] = []
    processes: list[BaseProcess] = []
    try:
        for number in range(plan.workers):
            mine, theirs = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(target=work, args=(plan, number, theirs, end))
            process.start()
            theirs.close()
            pipes.append(mine)
            processes.append(process)
        yield pipes, end
    finally:
        end.set()
        for process in processes:
            process.join(0 if process.exitcode is None and pipes else 1)
            process.terminate()
            process.join()


def _listen(
    pipes: list[Connection],
    campaign: Campaign,
    covered: _Covered,
    known: set[str],
    on_finding: Callable[[Found, Path], object] | None,
) -> None:
    """Takes in what the workers have told, and waits a moment if that is nothing."""
    for pipe in wait(pipes, _LOOK_S):
        assert isinstance(pipe, Connection)
        try:
            what, *told = pipe.recv()
        except EOFError:
            pipes.remove(pipe)
            continue
        if what == "ran":
            campaign.programs += told[0]
            campaign.runs += told[1]
        elif what == "corpus":
            covered.add(*told)
            campaign.coverage = len(covered.items)
        elif what == "failed":
            raise EngineError(f"a worker has failed: {told[0]}")
        elif told[0].key not in known:
            found = told[0]
            known.add(found.key)
            campaign.findings.append(found)
            path = found.save(campaign.plan.folder)
            Program.load(path)
            if on_finding is not None:
                on_finding(found, path)
