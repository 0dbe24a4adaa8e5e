"""spfemu reproduce: its arithmetic, what it writes, its errors, and its numbers at present."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import spfemu
from spfemu.errors import EngineError
from spfemu.reproducing.report import write_html
from spfemu.reproducing.rows import CASES, Limit, lines_of
from tests.test_cli import told, told_json


@pytest.fixture(scope="module")
def compared() -> tuple[spfemu.Compared, ...]:
    return spfemu.reproduce(seconds=1)


def test_each_published_number_of_ebizzy_has_a_line() -> None:
    told = {
        (line.case.name, line.what): line.published for case in CASES for line in lines_of(case)
    }
    assert told["v12, x86, 24 CPUs", "mmap_sem"] == 5492.69
    assert told["v12, x86, 24 CPUs", "speculative"] == 9383.07
    assert told["v12, POWER8, 1024 CPUs", "ratio"] == pytest.approx(2.02, abs=0.005)
    assert told["v12, x86, 48 CPUs", "spf"] == pytest.approx(91.9, abs=0.05)
    assert told["v12, x86, 48 CPUs", "spf_vma_changed"] == pytest.approx(8.1, abs=0.05)
    assert told["v12, POWER8, 1024 CPUs", "spf_vma_changed"] == pytest.approx(5.3, abs=0.05)
    assert told["v11, POWER8, 80 CPUs", "spf_vma_changed"] == pytest.approx(22.0, abs=0.05)


def test_the_speculative_handler_wins_wherever_it_did(
    compared: tuple[spfemu.Compared, ...],
) -> None:
    ratios = [line for line in compared if line.what == "ratio"]
    assert len(ratios) == 4
    assert all(line.ours > 1 < line.published for line in ratios)


def test_fitted_machines_are_within_their_limits(compared: tuple[spfemu.Compared, ...]) -> None:
    assert [(line.case, line.what) for line in compared if not line.within] == []


def test_runs_are_deterministic() -> None:
    assert spfemu.reproduce(seconds=0.02) == spfemu.reproduce(seconds=0.02)


@pytest.mark.parametrize(
    ("limit", "near", "far"),
    [
        (Limit(percent=20), 119.9, 120.1),
        (Limit(percent=20), 80.1, 79.9),
        (Limit(factor=1.5), 149.0, 151.0),
        (Limit(factor=1.5), 67.0, 66.0),
        (Limit(), 1e9, None),
    ],
)
def test_limits(limit: Limit, near: float, far: float | None) -> None:
    assert limit.holds(100, near)
    assert far is None or not limit.holds(100, far)


def test_other_machines_instead_of_the_packages(tmp_path: Path) -> None:
    """Slower faults on one machine: its cases change, and no other."""
    usual = spfemu.reproduce(seconds=0.01)
    path = tmp_path / "slow.toml"
    path.write_text('name = "slow"\nlike = "x86-48"\nfault_ns = 5000')
    slow = spfemu.reproduce(seconds=0.01, machines={"x86-48": path})
    for line, other in zip(usual, slow, strict=True):
        if line.machine != "x86-48":
            assert other == line
            continue
        assert (other.machine, other.kind) == ("slow", "predicted")
        if line.what in ("mmap_sem", "speculative"):
            assert other.ours < line.ours
    same = spfemu.machine("x86-48").replace(name="same")
    again = spfemu.reproduce(seconds=0.01, machines={"x86-48": same})
    assert [line.ours for line in again] == [line.ours for line in usual]
    assert [line.kind for line in again] == [line.kind for line in usual]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x86-48", '--machine: value "x86-48" (allowed: OF=MACHINE, as in x86-48=mine.toml)'),
        ("host=x86-48", 'machine "host" (allowed: x86-48, power8-1024, x86-vm16, power8-80)'),
        ("x86-48=pdp-11", 'machine "pdp-11" (allowed: x86-48, '),
        ("x86-48=none.toml", "none.toml: cannot be read: No such file or directory"),
        ("x86-48=x86-vm16", "machine x86-vm16: 16 CPUs (allowed instead of x86-48: 48 and more)"),
        ("x86-48=power8-80", "machine power8-80: arch powerpc (allowed instead of x86-48: x86)"),
    ],
)
def test_machines_that_cannot_be(
    given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from spfemu.cli.app import main

    assert main(["reproduce", "--machine", given]) == 2
    assert capsys.readouterr().err.startswith(f"spfemu: {message}")


def test_the_page_names_other_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, "reproduce", "-S", "0.01", "--machine", "x86-vm16=x86-48")
    assert "Instead of the package's machines: x86-vm16=x86-48." in " ".join(text.split())


def test_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, table = tmp_path / "r.html", tmp_path / "r.csv"
    text = told(capsys, "reproduce", "-S", "0.01", "--html", str(page), "--csv", str(table))
    assert text.splitlines()[0].split() == [
        "case", "what", "unit", "published", "spfemu", "error", "limit", "kind",
    ]  # fmt: skip
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["case"] for row in rows} == {case.name for case in CASES}
    first = rows[0]
    assert float(first["error_pct"]) == pytest.approx(
        100 * (float(first["spfemu"]) / float(first["published"]) - 1), abs=0.01
    )
    html = page.read_text()
    assert html.count("<tr") == len(rows) + 1
    assert "<svg" in html
    assert "<script" not in html
    assert "<link" not in html


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told_json(capsys, "reproduce", "-S", "0.01", "--json")
    assert {line["kind"] for line in lines} == {"fitted", "predicted"}
    assert json.dumps(lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds: value 0"),
        ({"seconds": -1.0}, "seconds: value -1.0"),
        ({"repeat": 0}, "repeat: value 0"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        spfemu.reproduce(**options)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    from spfemu.cli.app import main

    assert main(["reproduce", "--html", str(tmp_path / "no" / "r.html")]) == 2


def test_the_page_says_what_is_off(compared: tuple[spfemu.Compared, ...], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    write_html(compared, page, about="a < b")
    assert "a &lt; b" in page.read_text()
