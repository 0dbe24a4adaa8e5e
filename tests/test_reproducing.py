"""spfemu reproduce: its arithmetic, what it writes, its errors, and its numbers at present."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import spfemu
from spfemu.errors import EngineError
from spfemu.reproducing import CASES, ablate, kernbench, mechanisms, sensitivity
from spfemu.reproducing.cases import Limit
from spfemu.reproducing.moved import moved_rows, still
from spfemu.reproducing.report import write_html
from spfemu.reproducing.running import run_cells
from spfemu.reproducing.varying import ABLATIONS, NUMBERS
from tests.test_cli import told, told_json


def test_each_published_number_of_ebizzy_has_a_line() -> None:
    told = {
        (line.case.name, line.what): line.published
        for cases in CASES.values()
        for case in cases
        for line in case.lines()
    }
    assert told["v12, x86, 24 CPUs", "mmap_sem"] == 5492.69
    assert told["v12, x86, 24 CPUs", "speculative"] == 9383.07
    assert told["v12, POWER8, 1024 CPUs", "ratio"] == pytest.approx(2.02, abs=0.005)
    assert told["v12, x86, 48 CPUs", "spf"] == pytest.approx(91.9, abs=0.05)
    assert told["v12, x86, 48 CPUs", "spf_vma_changed"] == pytest.approx(8.1, abs=0.05)
    assert told["v12, POWER8, 1024 CPUs", "spf_vma_changed"] == pytest.approx(5.3, abs=0.05)
    assert told["v11, POWER8, 80 CPUs", "spf_vma_changed"] == pytest.approx(22.0, abs=0.05)
    assert told["kernbench -j 24, x86, 48 CPUs", "elapsed, ratio"] == 56.256 / 56.52
    assert told["kernbench -j 48, x86, 48 CPUs", "spf"] == pytest.approx(0.46, abs=0.005)
    assert told["rwsem, x86, 80 CPUs", "2 threads"] == 4730
    assert told["TLB flush, x86, 72 CPUs", "1 thread"] == 315
    assert told["TLB flush, x86, 72 CPUs", "72 threads"] == 609


@pytest.mark.timeout(900)
def test_ebizzys_numbers_as_long_as_it_was_measured() -> None:
    """One run for all of them: ten seconds of virtual time take a minute and more."""
    compared = spfemu.reproduce(groups=["ebizzy"])
    # The speculative handler wins wherever it did.
    ratios = [line for line in compared if line.what == "ratio"]
    assert len(ratios) == 6
    assert all(line.ours > 1 < line.published for line in ratios)
    assert [(line.case, line.what) for line in compared if line.within is False] == []
    # v11's tree loses more races than v12's, and is slower.
    ours = {(line.case, line.what): line.ours for line in compared}
    for name in ("v11, x86 VM, 16 CPUs", "v11, POWER8, 80 CPUs"):
        rwlock, rcu = name, f"{name}, on v12's tree"
        assert ours[rwlock, "speculative"] < ours[rcu, "speculative"]
        assert ours[rwlock, "spf_vma_changed"] > ours[rcu, "spf_vma_changed"]
        assert {line.limit for line in compared if line.case == rcu} == {""}


def test_one_tree_for_all_runs() -> None:
    of = {
        tree: spfemu.reproduce(seconds=0.02, groups=["ebizzy"], tree=tree)
        for tree in (None, "rcu", "rwlock")
    }
    speculative = {
        tree: [line.ours for line in lines if line.what == "speculative"]
        for tree, lines in of.items()
    }
    usual, rcu, rwlock = speculative.values()
    assert usual[:3] == rcu[:3] != rwlock[:3]
    assert rcu[3] == rcu[4] == usual[4] != rwlock[3] == rwlock[4] == usual[3]
    with pytest.raises(EngineError, match=r'tree "btree" \(allowed: rcu, rwlock\)'):
        spfemu.reproduce(tree="btree")
    with pytest.raises(EngineError, match=r'group "lmbench" \(allowed: ebizzy, kernbench, '):
        spfemu.reproduce(groups=["lmbench"])


def test_the_handler_makes_no_difference_to_a_kernels_compilation() -> None:
    case = kernbench.CASES[0]
    cells = case.cells(spfemu.machine(case.machine), 1)
    figures = run_cells(cells, seeds=(0,))
    ratio, spf, _ = (line.ours([figures[cell] for cell in cells]) for line in case.lines())
    assert ratio == pytest.approx(1, abs=0.01)
    assert spf == 0


def test_flushes_by_interrupt_scale_as_they_were_measured() -> None:
    # Up to some threads more of them do more, and then no more: a sender waits for its targets.
    lines = spfemu.reproduce(seconds=0.5, groups=["mechanisms"])
    ours, published = (
        [getattr(line, what) for line in lines if line.case.startswith("TLB")]
        for what in ("ours", "published")
    )
    assert len(ours) == len(mechanisms.CASES[2].threads()) == 8
    for rates in (ours, published):
        assert rates[0] < rates[1] < rates[2]
        assert max(rates) < 4 * rates[0]


def test_readers_that_sleep_make_the_semaphore_slow() -> None:
    lines = spfemu.reproduce(seconds=0.2, groups=["mechanisms"])
    ours = {(line.case, line.what): line.ours for line in lines}
    for threads in ("2 threads", "80 threads"):
        assert ours["rwsem, x86, 80 CPUs", threads] < ours["rwsem, wake-ups free", threads] / 5


def test_what_is_taken_away_moves_what_the_study_says() -> None:
    moved = ablate(seconds=0.1, case="v12, x86, 24")
    assert len(moved) == (len(ABLATIONS) + 1) * len(NUMBERS)
    percent = {(one.change, one.what): one.percent for one in moved}
    # Nothing is changed behind a fault's back that has a VMA of its own.
    assert percent["no merging of VMAs", "spf_vma_changed"] == -100
    assert percent["no merging of VMAs", "ratio"] > 0
    assert percent["munmap without downgrade", "mmap_sem"] < -10
    assert percent["no lock stealing", "spf_vma_changed"] < -20
    assert percent["scheduling free", "speculative"] > 10
    assert percent["v11's tree: rwlock", "mmap_sem"] == 0
    assert percent["v11's tree: rwlock", "speculative"] < 0
    assert ablate(seconds=0.1, case="v12, x86, 24") == moved
    assert ("v12, x86, 24 CPUs", "no merging of VMAs") in {row[:2] for row in moved_rows(moved)}


def test_a_study_of_the_constants(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "s.csv"
    told_so = ("reproduce", "--sensitivity", "-S", "0.002", "--case", "16 CPUs")
    text = told(capsys, *told_so, "--csv", str(table))
    assert text.splitlines()[0].split() == ["case", "change", *NUMBERS]
    assert "swap_io_ns" in text.splitlines()[-1]
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["case"] for row in rows} == {"v11, x86 VM, 16 CPUs"}
    assert {row["factor"] for row in rows} == {"0.5", "2.0", "0.0"}
    assert {row["change"] for row in rows} > {"line_die_ns", "wakeup_ns", "another seed"}
    lines = told_json(capsys, *told_so, "--json")
    assert {line["change"] for line in lines} == {row["change"] for row in rows}


def test_what_stands_still_is_named() -> None:
    moved = sensitivity(seconds=0.002, case="16 CPUs")
    assert "swap_io_ns" in still(moved)
    assert still([one for one in moved if one.change == "zap_page_ns"]) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ablate", "--sensitivity"], "--ablate and --sensitivity (allowed: one of them)"),
        (["--ablate", "--html", "r.html"], "--html (allowed: without --ablate)"),
        (["--sensitivity", "-r", "2"], "-r (allowed: without --sensitivity)"),
        (["--ablate", "--tree", "rcu"], "--tree (allowed: without --ablate)"),
        (["--ablate", "-S", "0"], "seconds: value 0"),
        (["--ablate", "--case", "vax"], 'case "vax" (allowed: part of v12, x86, 24 CPUs; '),
        (["--case", "v12"], "--case (allowed: with --ablate and --sensitivity)"),
        (["--group", "lmbench"], 'group "lmbench" (allowed: ebizzy, kernbench, mechanisms)'),
    ],
)
def test_studies_that_cannot_be(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from spfemu.cli.app import main

    assert main(["reproduce", *options]) == 2
    assert capsys.readouterr().err.startswith(f"spfemu: {message}")


def test_runs_are_deterministic() -> None:
    one, other = (spfemu.reproduce(seconds=0.02, groups=["ebizzy", "mechanisms"]) for _ in "ab")
    assert one == other


@pytest.mark.parametrize(
    ("limit", "near", "far"),
    [
        (Limit(percent=20), 119.9, 120.1),
        (Limit(percent=20), 80.1, 79.9),
        (Limit(factor=1.5), 149.0, 151.0),
        (Limit(factor=1.5), 67.0, 66.0),
        (Limit(percent=1, of_one=True), 1.009, 1.011),
        (Limit(percent=1, of_one=True), 0.991, 0.989),
        (Limit(most=1), 1.0, 1.01),
        (Limit(), 1e9, None),
    ],
)
def test_limits(limit: Limit, near: float, far: float | None) -> None:
    assert limit.holds(100, near)
    assert far is None or not limit.holds(100, far)


def test_a_limit_of_the_rest() -> None:
    limit = Limit(factor=1.5, of_rest=True)
    assert [limit.holds(90, ours) for ours in (84.9, 85.1, 93.3, 93.4)] == [
        False,
        True,
        True,
        False,
    ]


def test_other_machines_instead_of_the_packages(tmp_path: Path) -> None:
    """Slower faults on one machine: its cases change, and no other."""
    usual = spfemu.reproduce(seconds=0.01, groups=["ebizzy"])
    path = tmp_path / "slow.toml"
    path.write_text('name = "slow"\nlike = "x86-48"\nfault_ns = 5000')
    slow = spfemu.reproduce(seconds=0.01, groups=["ebizzy"], machines={"x86-48": path})
    for line, other in zip(usual, slow, strict=True):
        if line.machine != "x86-48":
            assert other == line
            continue
        assert (other.machine, other.kind) == ("slow", "predicted")
        if line.what in ("mmap_sem", "speculative"):
            assert other.ours < line.ours
    same = spfemu.machine("x86-48").replace(name="same")
    again = spfemu.reproduce(seconds=0.01, groups=["ebizzy"], machines={"x86-48": same})
    assert [line.ours for line in again] == [line.ours for line in usual]
    assert [line.kind for line in again] == [line.kind for line in usual]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("x86-48", '--machine: value "x86-48" (allowed: OF=MACHINE, as in x86-48=mine.toml)'),
        (
            "host=x86-48",
            'machine "host" (allowed: x86-48, power8-1024, x86-vm16, power8-80, skylake-80, ',
        ),
        ("x86-48=host --machine x86-48=x86-48", '--machine: "x86-48" twice (allowed: once)'),
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

    assert main(["reproduce", *f"--machine {given}".split()]) == 2
    assert capsys.readouterr().err.startswith(f"spfemu: {message}")


def test_the_page_names_other_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = told(
        capsys, "reproduce", "--group", "ebizzy", "-S", "0.01", "--machine", "x86-vm16=x86-48"
    )
    # Without being told where it writes both.
    assert text.splitlines()[-1] == "Written: report.html, report.csv"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.csv"}
    assert "Instead of the package's machines: x86-vm16=x86-48." in " ".join(text.split())


def test_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, table = tmp_path / "r.html", tmp_path / "r.csv"
    text = told(
        capsys,
        "reproduce",
        "--group",
        "ebizzy",
        "--group",
        "mechanisms",
        "-S",
        "0.01",
        "--html",
        str(page),
        "--csv",
        str(table),
    )
    assert text.splitlines()[0].split() == [
        "case", "what", "unit", "published", "spfemu", "error", "limit", "kind",
    ]  # fmt: skip
    rows = list(csv.DictReader(table.read_text().splitlines()))
    cases = [*CASES["ebizzy"], *CASES["mechanisms"]]
    assert {row["case"] for row in rows} == {case.name for case in cases}
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
    lines = told_json(capsys, "reproduce", "--group", "ebizzy", "-S", "0.01", "--json")
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


def test_the_page_says_what_is_off(tmp_path: Path) -> None:
    compared = spfemu.reproduce(seconds=0.02, groups=["ebizzy"])
    page = tmp_path / "r.html"
    write_html(compared, page, about="a < b")
    assert "a &lt; b" in page.read_text()
