"""What a campaign is to do."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from spfemu.engines import VARIANT_VALUES, catalogue_names, one_of
from spfemu.errors import EngineError, ProgramError
from spfemu.exploring import hazard_names
from spfemu.program.values import shown

__all__ = ["KINDS", "Plan", "example_database"]

KINDS: Final = ("differential", "exploring")
_REDIS: Final = ("redis://", "rediss://", "unix://")
_MAX_WORKERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """Source: ours. ``time_s``: None is no end; ``workers``: processes; ``mutants``: checks to
    remove, by name or entry, and ``variants``, "fixed" or "v12", both only of what is explored;
    ``db``: a folder for what is found, for the corpus, and for hypothesis' examples, or a Redis
    URL for these alone (the rest is in ``folder``); ``seed``: None, or 0 to 2^64-1, fixes what
    each worker draws; ``hazards``: as ``spfemu.explore`` has them.
    """

    time_s: float | None = None
    workers: int = 1
    mutants: tuple[str, ...] = ()
    variants: str = "fixed"
    db: str | None = None
    seed: int | None = None
    hazards: tuple[str, ...] = ()

    def checked(self) -> Plan:
        """Returns it with the mutants' names. Raises EngineError or ProgramError, saying what is
        allowed. Source: ours."""
        if self.time_s is not None and not 0 < self.time_s <= 1e9:
            raise EngineError(f"time: value {self.time_s:g} (allowed: above 0, to 1e9 seconds)")
        if type(self.workers) is not int or not 0 < self.workers <= _MAX_WORKERS:
            what = f"workers: value {shown(self.workers)} (allowed: 1 to {_MAX_WORKERS})"
            raise EngineError(what)
        if self.seed is not None and (type(self.seed) is not int or not 0 <= self.seed < 1 << 64):
            raise EngineError(f"seed: value {shown(self.seed)} (allowed: 0 to 2^64-1)")
        one_of("variants", self.variants, VARIANT_VALUES)
        library("hypothesis", "spfemu[testing]")
        names = tuple(catalogue_names("mutant", list(self.mutants)))
        plan = replace(self, mutants=names, hazards=tuple(hazard_names(self.hazards)))
        plan.make_folder()
        if self.db is not None and self.db.startswith(_REDIS):
            _reach(self.db)
        return plan

    @property
    def folder(self) -> Path:
        """Where findings and corpus are. Source: ours."""
        return Path("spfemu-fuzz" if self.db is None or self.db.startswith(_REDIS) else self.db)

    def make_folder(self) -> None:
        """Makes the folder. Source: ours. Raises ProgramError where that cannot be."""
        try:
            for part in ("findings", "corpus", "examples"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProgramError(f"{self.folder}: cannot be written: {error.strerror}") from None
        if not os.access(self.folder, os.W_OK):
            raise ProgramError(f"{self.folder}: cannot be written: Permission denied")

    def kind_of(self, worker: int, turn: int) -> str:
        """Which of ``KINDS`` a worker is at in its n-th round. Source: ours."""
        return KINDS[1] if self.mutants else KINDS[(worker + turn) % 2]

    def explored_with(self) -> dict[str, Any]:
        """What ``spfemu.explore`` is told of mutants, variants and hazards. Source: ours."""
        told: dict[str, Any] = {}
        if self.variants != "v12":
            told["variants_default"] = self.variants
        if self.mutants:
            told["mutants"] = list(self.mutants)
        if self.hazards:
            told["hazards"] = list(self.hazards)
        return told


def library(name: str, package: str) -> Any:
    """Returns a library that the package does not depend on. Raises EngineError. Source: ours."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise EngineError(f"{name} is not installed; pip install {package}") from None


def example_database(plan: Plan) -> Any:
    """Returns hypothesis' database of failing examples. Source: ours."""
    database = library("hypothesis.database", "spfemu[testing]")
    if plan.db is not None and plan.db.startswith(_REDIS):
        redis = library("redis", "redis")
        redis_database = library("hypothesis.extra.redis", "redis").RedisExampleDatabase
        return redis_database(redis.Redis.from_url(plan.db))
    return database.DirectoryBasedExampleDatabase(plan.folder / "examples")


def _reach(url: str) -> None:
    redis = library("redis", "redis")
    try:
        redis.Redis.from_url(url).ping()
    except (redis.RedisError, ValueError) as error:
        raise EngineError(
            f"db: value {shown(url)}: {error} (allowed: a folder, or a Redis that answers)"
        ) from None
