"""The catalogue on the command line: an entry explored by its name, and the two lists."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import spfemu
from spfemu.catalogue import entries, load_scenario, scenario_names
from spfemu.cli import main


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[str]:
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert err == ""
    return str(out).splitlines()


def told_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    return json.loads("\n".join(told(capsys, *arguments, "--json", status=status)))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return str(err)


class TestByName:
    @pytest.mark.parametrize("name", ["A7", "no-second-check"])
    def test_a_mutant_is_searched_as_the_catalogue_says(
        self, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        lines = told(capsys, "explore", "--mutant", name, status=1)
        assert lines[:3] == [
            "A7: write_against_munmap; dfs, at most 2 preemptions; memory model sc; x86; "
            "without A7, all else fixed",
            "the catalogue: breaks mapcount, rss-count, use-after-free",
            "624 schedules, 201,951 steps, complete within 2 preemptions, 3 violations",
        ]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--mutant", "A7"],
            ["--mutant", "A11a"],
            ["--mutant", "A27"],
            ["--mutant", "M2"],
            ["--variant", "B2=v12"],
            ["--variant", "speculative-pte-alloc=v12"],
        ],
        ids=lambda arguments: arguments[1],
    )
    def test_its_replay_command_is_complete(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str]
    ) -> None:
        lines = told(capsys, "explore", *arguments, status=1)
        (replay, *_) = (line for line in lines if line.startswith("replay  "))
        (token, *_) = (line.split()[1] for line in lines if line.startswith("token "))
        whole = shlex.split(replay.removeprefix("replay  spfemu "))
        assert whole[1] in scenario_names()
        for command in (whole, ["explore", *arguments, "--replay", token]):
            (finding,) = told_json(capsys, *command, status=1)["violations"]
            assert finding["token"] == token

    def test_one_variant_is_as_posted_and_all_others_cured(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = told_json(capsys, "explore", "--variant", "B2=v12", status=1)
        assert {one["entry"] for one in found["violations"]} == {"B2"}
        assert found["settings"]["variants_default"] == "fixed"

    def test_what_the_command_line_says_goes_before(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def settings(*more: str, mutant: str = "A7") -> dict[str, Any]:
            found = told_json(capsys, "explore", "--mutant", mutant, *more, status=1)
            return {"arch": found["arch"], "seed": found["seed"], **found["settings"]}

        def differ(first: dict[str, Any], second: dict[str, Any]) -> set[str]:
            return {name for name, value in first.items() if second[name] != value}

        own = settings()
        assert (own["preemptions"], own["memory_model"]) == (2, "sc")
        for option, value, name in (
            ("--preemptions", "1", "preemptions"),
            ("--memory-model", "tso", "memory_model"),
            ("--variants", "v12", "variants_default"),
            ("--variant", "B1=v12", "variants"),
            ("--hazard", "tlb-refill", "hazards"),
            ("--arch", "arm64", "arch"),
        ):
            assert differ(own, settings(option, value)) == {name}
        drawn = settings("--strategy", "pct", "--schedules", "300")
        assert differ(own, drawn) == {"strategy", "preemptions", "schedules", "depth"}
        # The same strategy with other bounds.
        few = settings("--schedules", "2000", mutant="A1a")
        assert (few["strategy"], few["schedules"], few["seed"]) == ("pct", 2000, 0)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "PROGRAM: missing (allowed: left out with one --mutant NAME, or one --variant "),
            (["--mutant", "A7", "--mutant", "A6"], "PROGRAM: missing (allowed: "),
            (["--variant", "B1=v12", "--variant", "B2=v12"], "PROGRAM: missing (allowed: "),
            (["--variant", "B1=fixed"], "PROGRAM: missing (allowed: "),
            (["--mutant", "A1"], 'entry "A1" (allowed: A1a, A1b, '),
            (["--mutant", "A5"], 'entry "A5" has no scenario: No mutant of its own: '),
            (["--mutant", "B2"], 'mutant "B2" (allowed: '),
            (["--variant", "A7=v12"], 'variant "A7" (allowed: '),
        ],
    )
    def test_without_one_entry_a_program_is_needed(
        self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
    ) -> None:
        assert refused(capsys, "explore", *arguments).startswith(f"spfemu: {message}")

    def test_a_minimised_program_of_an_entry_breaks_the_same(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        small = tmp_path / "small.json"
        lines = told(capsys, "explore", "--mutant", "A15", "--minimise", str(small), status=1)
        replay = [line for line in lines if line.startswith("replay  ")][-1]
        again = shlex.split(replay.removeprefix("replay  spfemu "))
        assert again[1] == str(small)
        (finding,) = told_json(capsys, *again, status=1)["violations"]
        assert (finding["invariant"], finding["entry"]) == ("vma-bounds", "A15")


class TestScenariosAsPrograms:
    @pytest.mark.parametrize(
        "command",
        [["run"], ["explain"], ["check"], ["explore", "--variants", "fixed"], ["stat", "--"]],
        ids=lambda command: command[0],
    )
    def test_a_scenarios_name_is_a_program(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
    ) -> None:
        path = tmp_path / "p.json"
        load_scenario("split").save(path)
        by_name = told(capsys, *command, "split")
        by_path = [line.replace(str(path), "split") for line in told(capsys, *command, str(path))]
        # Times are of the clock, and of this run.
        known = [line for line in by_name if "elapsed" not in line]
        assert known == [line for line in by_path if "elapsed" not in line]

    def test_it_goes_before_a_file_of_that_name(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        load_scenario("refused_write").save("split.json")
        Path("split.json").rename("split")
        assert told(capsys, "run", "split") != told(capsys, "run", "./split")


class TestLists:
    @pytest.mark.parametrize("what", ["mutants", "variants"])
    def test_every_entry_says_everything(
        self, capsys: pytest.CaptureFixture[str], what: str
    ) -> None:
        found = told_json(capsys, what)
        assert found == entries(what)
        texts = ["name", "source", "oracle", "models"]
        texts += ["removed", "race"] if what == "mutants" else ["what"]
        for entry in found:
            assert set(entry) >= {*texts, "entry", "cpus", "scenarios", "verdict"}
            if entry["name"] is not None:
                assert all(entry[key] for key in texts)
                assert entry["scenarios"]
                assert entry["cpus"] >= 1

    @pytest.mark.parametrize("what", ["mutants", "variants"])
    def test_one_entry_in_full(self, capsys: pytest.CaptureFixture[str], what: str) -> None:
        for entry in entries(what):
            names = {entry["entry"], entry["name"]} - {None}
            for name in names:
                lines = told(capsys, what, name)
                assert max(map(len, lines)) <= 100
                text = " ".join(" ".join(lines).split())
                keys = ("removed", "race", "what", "source", "oracle", "verdict")
                assert all(entry[key] in text for key in keys if entry.get(key))
                for scenario in entry["scenarios"]:
                    assert f"scenario {scenario['program']}; " in text
                    assert f"breaks {', '.join(scenario['breaks']) or 'nothing'}" in text
                assert told_json(capsys, what, name) == [entry]

    def test_a_group_is_all_of_its_entries(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = told_json(capsys, "mutants", "A1")
        assert [one["entry"] for one in found] == ["A1a", "A1b", "A1c", "A1d"]

    def test_what_there_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert refused(capsys, "mutants", "B1").startswith(
            'spfemu: mutant "B1" (allowed: A1, A1a, '
        )
        assert 'variant "A1" (allowed: B1, ' in refused(capsys, "variants", "A1")

    def test_the_command_that_finds_it_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        for what, entry in (("mutants", "A9"), ("variants", "C3")):
            last = told(capsys, what, entry)[-1]
            command = shlex.split(last.strip().removeprefix("find").strip())
            found = told_json(capsys, *command[1:], status=1)
            assert {one["entry"] for one in found["violations"]} == {entry}


def test_the_table_of_the_documentation_is_the_index() -> None:
    page = (Path(__file__).parent.parent / "docs/exploring.md").read_text()
    for what in ("mutants", "variants"):
        for entry in entries(what):
            if entry["scenarios"] and entry["entry"][0] != "M":
                for one in entry["scenarios"]:
                    assert row(entry["entry"], one) in page


def row(entry: str, one: dict[str, Any]) -> str:
    """A line of the table."""
    settings = one["settings"]
    bound = settings.get("preemptions", settings.get("strategy"))
    more = [f"with {mutant}" for mutant in settings.get("mutants", [])[1:]]
    more += [f"`{hazard}`" for hazard in settings.get("hazards", [])]
    what = ", ".join([f"`{one['program']}`", *more])
    return f"| {entry} | {what} | {bound} | {', '.join(one['breaks']) or 'nothing'} |"


class TestFromPython:
    def test_names_and_entries(self) -> None:
        a7 = spfemu.scenario("A7")
        assert spfemu.scenario("no-second-check") == a7
        assert spfemu.scenario("C1").settings["variants"] == {"C1": "v12"}
        assert a7.program.to_dict() == load_scenario("write_against_munmap").to_dict()

    @pytest.mark.parametrize(
        ("entry", "message"),
        [("A5", 'entry "A5" has no scenario: No mutant'), ("Z1", 'entry "Z1" (allowed: A1a, ')],
    )
    def test_what_has_none(self, entry: str, message: str) -> None:
        with pytest.raises(spfemu.EngineError) as error:
            spfemu.scenario(entry)
        assert str(error.value).startswith(message)
