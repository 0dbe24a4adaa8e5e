"""Findings as a page that one steps through, and what their timelines say."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest

import spfemu
from spfemu import Program
from spfemu.cli import main
from spfemu.cli.demo import race_program
from spfemu.cli.stepping import page
from spfemu.cli.timeline import step_text
from spfemu.exploring import explore
from spfemu.invariants import MEANINGS

VOID: Final = {"meta", "col", "input"}
CORE: Final = Path(__file__).parent.parent / "rust" / "core" / "src"
NAMES: Final = ["mapper", "<writer> & co"]


class Page(HTMLParser):
    """What a browser makes of a page, as far as the tests look."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [str(named[name]) for name in ("src", "href") if name in named]
        if tag not in VOID:
            self.open.append(tag)
        if "data-n" in named:
            self.rows.append(named)
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.texts and "tr" in self.open:
            self.texts[-1] += data


@pytest.fixture(scope="module")
def exploration() -> dict[str, Any]:
    return explore(race_program(), variants_default="fixed", mutants=["A7"])


class TestPage:
    def test_every_step_is_there_in_the_column_of_its_cpu(
        self, exploration: dict[str, Any]
    ) -> None:
        findings = [{**one, "replay": ["replay", "<it>"]} for one in exploration["violations"]]
        text = page("title <&>", "summary", findings, NAMES)
        parsed = Page(text)
        assert parsed.open == ["doctype"] or not parsed.open
        steps = [step for finding in findings for step in finding["timeline"]]
        assert len(findings) > 1
        assert [row["data-cpu"] for row in parsed.rows] == [str(step["cpu"]) for step in steps]
        for row, told, step in zip(parsed.rows, parsed.texts, steps, strict=True):
            assert str(row["class"]).split()[0] == step["access"]
            assert ("data-value" in row) == ("new" in step)
            what = str(step["what"]).removeprefix("vm_area_struct").split(": ")[-1].split(".[")[0]
            assert what.replace("mm_struct[", "mm[").replace("vm_area_struct[", "vma[") in told
        for finding in findings:
            assert finding["timeline"][finding["fired"]]["access"] == "finding"
        assert "&lt;writer&gt; &amp; co" in text
        assert "title &lt;&amp;&gt;" in text

    def test_nothing_is_fetched(self, exploration: dict[str, Any]) -> None:
        findings = [{**one, "replay": []} for one in exploration["violations"]]
        text = page("title", "summary", findings, NAMES)
        assert Page(text).addresses == []
        assert re.findall(r"https?:|url\(|import\b|fetch\(", text) == []

    def test_nothing_found_is_a_page_too(self) -> None:
        assert Page(page("title", "0 violations", [], NAMES)).rows == []

    def test_an_empty_timeline_has_nothing_to_step_with(self, exploration: dict[str, Any]) -> None:
        (first, *_) = exploration["violations"]
        text = page("title", "1 violation", [{**first, "timeline": [], "replay": []}], NAMES)
        assert Page(text).rows == []
        assert html.escape(first["why"]) in text
        assert "nothing to step through" in text
        assert re.findall(r"<(?:button|input|table)\b", text) == []

    def test_the_command_writes_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        race_program().save(tmp_path / "race.json")
        command = ["explore", str(tmp_path / "race.json"), "--variants", "fixed"]
        target = tmp_path / "found.html"
        assert main([*command, "--mutant", "A7", "--html", str(target)]) == 1
        told = capsys.readouterr().out
        parsed = Page(target.read_text(encoding="utf-8"))
        assert len(parsed.rows) > 100
        token = re.search(r"--replay (\S+)", told)
        assert token is not None
        assert token[0] in target.read_text(encoding="utf-8")

    @pytest.mark.parametrize("where", ["", "none/found.html", "race.json"])
    def test_a_file_that_cannot_be_written_is_refused_before_the_search(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
    ) -> None:
        race_program().save(tmp_path / "race.json")
        # Without a bound, so that a search would be noticed.
        command = ["explore", str(tmp_path / "race.json"), "--strategy", "random"]
        command += ["--schedules", "1000000000", "--html", str(tmp_path / where)]
        assert main(command) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert str(tmp_path / where) in err


class TestWhy:
    def test_every_invariant_has_a_meaning(self) -> None:
        call = r'(?:\bfind(?:ing)?\(|invariant:|invariant =)\s*(?:cpu,\s*)?"([a-z]+(?:-[a-z]+)*)"'
        named = {name for file in CORE.rglob("*.rs") for name in re.findall(call, file.read_text())}
        assert named - {"replay"} <= set(MEANINGS)  # a wrong token is an error, not a finding
        assert len(named) > 40

    def test_a_finding_says_what_it_means_and_what_explains_it(
        self, exploration: dict[str, Any]
    ) -> None:
        whys = {one["invariant"]: one["why"] for one in exploration["violations"]}
        assert whys["mapcount"].startswith(
            "A page's map count is not the number of PTEs that map it: without the second "
            "vma_has_changed, under the PTE lock, in pte_map_lock and pte_spinlock (A7). "
        )

    def test_a_timeline_names_functions_of_the_kernel_and_what_checks_compared(
        self, exploration: dict[str, Any]
    ) -> None:
        steps = exploration["violations"][0]["timeline"]
        functions = {step["function"] for step in steps}
        assert {"find_vma_rcu", "__handle_speculative_fault", "pte_map_lock", "do_anonymous_page",
                "put_vma", "munmap", "unmap_page_range", "free_pgtables"} <= functions  # fmt: skip
        checks = [step for step in steps if step["access"] in ("passed", "failed")]
        assert {"cpu": 1, "function": "__handle_speculative_fault", "access": "passed",
                "what": "H2: vm_sequence 0x2 is even"} in checks  # fmt: skip


class TestWords:
    @pytest.mark.parametrize(
        ("step", "text"),
        [
            ({"access": "event", "what": "sleeps on line 0 +0x0"},
             "sleeps until another task lets it go on"),
            ({"access": "event", "what": "sleeps on mm_struct[0].sem_count"},
             "sleeps on mm[0].sem_count"),
            # 5.1's rwsem.h: the task, RWSEM_READER_OWNED 1 and RWSEM_ANONYMOUSLY_OWNED 2.
            ({"access": "store", "what": "mm_struct[0].sem_owner", "value": "0x7", "new": "0x8"},
             "store mm[0].sem_owner CPU 0 (reads) -> CPU 1"),
            ({"access": "load", "what": "anon_vma[3].sem_owner", "value": "0x0", "text": "0x0"},
             "load anon_vma[3].sem_owner = none"),
            ({"access": "store", "what": "pte[0][5]", "value": "0x0", "text": "none",
              "new": "0x3b067", "new_text": "page 59 present write"},
             "store pte[0][5] none -> page 59 present write"),
        ],
    )  # fmt: skip
    def test_a_step_says_what_a_word_means(self, step: dict[str, Any], text: str) -> None:
        assert step_text(step) == text

    def test_the_page_says_it_too(self) -> None:
        program = Path(spfemu.__file__).parent / "data/catalogue/write_against_munmap.json"
        (found, *_) = explore(Program.load(program), variants_default="fixed", mutants=["A7"])[
            "violations"
        ]
        parsed = Page(page("title", "summary", [{**found, "replay": []}], NAMES))
        owners = [row for row in parsed.rows if row.get("data-word") == "mm[0].sem_owner"]
        assert {"CPU 0", "CPU 0 (reads)", "CPU 1 (reads)"} == {row["data-value"] for row in owners}
