"""What a campaign found: saved as a program, a token and a test that can be pasted."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spfemu.program import Program
from spfemu.testing.agreement import program_text

__all__ = ["Found", "known_keys"]


@dataclass(frozen=True, slots=True)
class Found:
    """One finding. Source: ours. ``key`` says what is the same; ``what`` what was seen;
    ``settings`` what was explored, ``how`` how it is seen again: the token of a schedule, or what
    ``differential`` is told. ``program`` is JSON text.
    """

    key: str
    what: str
    program: str
    settings: dict[str, Any]
    how: dict[str, Any]

    @property
    def name(self) -> str:
        """A short name that is the same for the same finding of the same program."""
        words = [word for word in self.key.split() if word.isidentifier() or "-" in word]
        told = "_".join(words[1:2] or words[:1]).replace("-", "_").rstrip(":")
        digest = hashlib.sha256(f"{self.key} {self.program}".encode()).hexdigest()[:8]
        return f"{told}_{digest}"

    @property
    def token(self) -> str | None:
        """The schedule, if there is one."""
        return self.how.get("replay")

    def test(self) -> str:
        """A test of this finding, ready to be pasted: it fails until that is mended."""
        lines = [line for line in self.what.splitlines() if line.strip()]
        head = lines[0].replace("\\", "\\\\").replace('"', "'")
        if self.token is None:
            arch, what = self.how["arch"], self.how["what"]
            used = "from spfemu.testing import differential"
            body = f"    differential(program, arches=({arch!r},), what={what!r})"
        else:
            told = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
            used = ""
            body = (
                f"    found = spfemu.explore(program, {told}{', ' if told else ''}"
                f"replay={self.token!r})\n"
                '    assert [one["what"] for one in found["violations"]] == []'
            )
        imports = "import spfemu\n" + (f"{used}\n" if used else "")
        return (
            f"{imports}\n\ndef test_{self.name}() -> None:\n"
            f'    """{head}"""\n'
            f'    program = spfemu.Program.loads(r"""\n{self.program}\n""")\n{body}\n'
        )

    def command(self, path: Path) -> str:
        """The command that shows it again."""
        if self.token is None:
            return shlex.join(["spfemu", "check", str(path), "--against", "reference"])
        words = ["spfemu", "explore", str(path)]
        for option in ("mutant", "hazard"):
            for name in self.settings.get(f"{option}s", ()):
                words += [f"--{option}", name]
        if "variants_default" in self.settings:
            words += ["--variants", self.settings["variants_default"]]
        return shlex.join([*words, "--replay", self.token])

    def save(self, folder: Path) -> Path:
        """Writes the program, its test beside it, and a line to the list; returns the program's
        path. Source: ours."""
        path = folder / "findings" / f"{self.name}.json"
        path.write_text(self.program + "\n", encoding="utf-8")
        path.with_name(f"test_{self.name}.py").write_text(self.test(), encoding="utf-8")
        with (folder / "findings.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(self)) + "\n")
        return path


def saved(folder: Path) -> Iterator[Found]:
    """Yields the findings of earlier campaigns in this folder. Source: ours."""
    try:
        text = (folder / "findings.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            yield Found(**json.loads(line))
        except (ValueError, TypeError):
            continue  # a crash has cut it short


def known_keys(folder: Path, settings: dict[str, Any]) -> set[str]:
    """The keys of what was found before with these settings. Source: ours."""
    return {
        found.key for found in saved(folder) if found.token is None or found.settings == settings
    }


def found_of(
    program: Program, key: str, what: str, settings: dict[str, Any], how: dict[str, Any]
) -> Found:
    """Makes a finding of what broke. Source: ours."""
    return Found(key, what, program_text(program), settings, how)
