"""Arch profiles: page size, page-table levels and address-space limits as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spfemu.errors import ProfileError
from spfemu.program.values import shown

__all__ = ["Arch", "Level", "arch", "arch_names", "profile_of"]

FAMILIES: Final = ("x86", "powerpc", "arm64")
"""Whose fault entry and permission rules a profile follows."""

_KEYS: Final = (
    "name", "family", "page_shift", "levels", "task_size", "mmap_base", "exec_only", "source",
)  # fmt: skip
_MAX_LEVELS: Final = 5


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the page table.

    Source: Linux's names. ``name`` is pgd, p4d, pud, pmd or pte; ``shift`` is log2 of the bytes
    that one entry maps; ``entries`` are the entries of one table.
    """

    name: str
    shift: int
    entries: int


@dataclass(frozen=True, slots=True)
class Arch:
    """An architecture as the protocol sees it; the user may make one.

    Source: Linux 5.1 for the profiles that come with the package; each says where its numbers are
    from in ``source``. ``family`` ("x86", "powerpc", "arm64") decides the fault entry and the
    permission rules. ``page_shift`` is log2 of the page size, 12 to 16. ``levels`` are top down
    and end with the table of PTEs. ``task_size`` is the first address beyond user space,
    ``mmap_base`` where top-down mmap begins, both in bytes. ``exec_only``: an execute-only mapping
    cannot be read; arm64's PTEs say so, on x86 and powerpc a protection key does. Raises
    ProfileError for a profile that cannot be; mend the field it names.

    >>> from spfemu.profiles import Arch, Level
    >>> small = Arch("small", "arm64", 14, (Level("pgd", 25, 2048), Level("pte", 14, 2048)),
    ...              task_size=1 << 36, mmap_base=1 << 35, exec_only=True)
    >>> small.page_size
    16384
    """

    name: str
    family: str
    page_shift: int
    levels: tuple[Level, ...]
    task_size: int
    mmap_base: int
    exec_only: bool = False
    source: str = "user"

    def __post_init__(self) -> None:
        if not self.name:
            self._fail("name", self.name, "a name")
        if self.family not in FAMILIES:
            self._fail("family", self.family, ", ".join(FAMILIES))
        if not _whole(self.page_shift, 12, 16):
            self._fail("page_shift", self.page_shift, "12 to 16")
        self._check_levels()
        covered = self.levels[0].entries << self.levels[0].shift
        self._check_limit("task_size", self.task_size, covered, "what the page table covers")
        self._check_limit("mmap_base", self.mmap_base, self.task_size, "task_size")

    def _fail(self, field: str, value: object, allowed: str) -> None:
        raise ProfileError(f"arch {self.name}: {field}: value {shown(value)} (allowed: {allowed})")

    def _check_levels(self) -> None:
        if not 2 <= len(self.levels) <= _MAX_LEVELS:
            self._fail("levels", len(self.levels), f"2 to {_MAX_LEVELS} of them")
        shift = self.page_shift
        for level in reversed(self.levels):
            field = f"levels: {level.name}"
            if level.shift != shift:
                self._fail(f"{field}.shift", level.shift, f"{shift}, what the level below covers")
            entries = level.entries
            if not _whole(entries, 2, 65536) or entries & (entries - 1):
                self._fail(f"{field}.entries", entries, "a power of two, 2 to 65536")
            shift += entries.bit_length() - 1
        if shift > 62:
            self._fail("levels", shift, "at most 62 bits of address in all")

    def _check_limit(self, field: str, value: int, highest: int, what: str) -> None:
        if not _whole(value, 1, highest) or value % self.page_size:
            self._fail(field, value, f"whole pages, at most {highest:#x}, {what}")

    @property
    def page_size(self) -> int:
        """The bytes of a page. Source: ``page_shift``."""
        return 1 << self.page_shift

    @classmethod
    def from_dict(cls, obj: Any) -> Arch:
        """Makes an arch from a JSON object with the fields' names.

        Source: ours. Raises ProfileError for an unknown or missing field, or a wrong value.
        """
        if not isinstance(obj, Mapping):
            raise ProfileError(f"arch: value {shown(obj)} (allowed: an object)")
        for key in obj:
            if key not in _KEYS:
                raise ProfileError(f"arch: {shown(key)}: unknown (allowed: {', '.join(_KEYS)})")
        fields = dict(obj)
        try:
            fields["levels"] = tuple(Level(**level) for level in fields["levels"])
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise ProfileError(f"arch: a field is missing or has a wrong type: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of this arch. Source: ours."""
        return {
            "name": self.name,
            "family": self.family,
            "page_shift": self.page_shift,
            "levels": [
                {"name": level.name, "shift": level.shift, "entries": level.entries}
                for level in self.levels
            ],
            "task_size": self.task_size,
            "mmap_base": self.mmap_base,
            "exec_only": self.exec_only,
            "source": self.source,
        }


def _whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _profiles() -> dict[str, Arch]:
    from spfemu import _core

    profiles = [Arch.from_dict(obj) for obj in json.loads(_core.arch_profiles())]
    return {profile.name: profile for profile in profiles}


def arch_names() -> tuple[str, ...]:
    """Returns the names of the profiles that come with the package. Source: Linux 5.1."""
    return tuple(_profiles())


def profile_of(arch: str | Arch) -> Arch:
    """Returns a profile that is given as one, or by its name. Source: ours.

    Raises ProfileError.
    """
    if isinstance(arch, Arch):
        return arch
    return _known(arch)


def arch(name: str) -> Arch:
    """Returns a profile that comes with the package.

    Source: Linux 5.1, as each profile's ``source`` says. Raises ProfileError for another name.

    >>> import spfemu
    >>> spfemu.arch("x86").page_size, spfemu.arch("powerpc").page_size
    (4096, 65536)
    """
    return _known(name)


def _known(name: object) -> Arch:
    profiles = _profiles()
    if not isinstance(name, str) or name not in profiles:
        raise ProfileError(f"arch {shown(name)} (allowed: {', '.join(profiles)})")
    return profiles[name]
