"""The plot and the page of a sweep: axes, lines, and the published points beside ours."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import spfemu
from spfemu.engines import core_list
from spfemu.sweeping.beside import PUBLISHED_AS, beside
from spfemu.sweeping.overview import shares

pytest.importorskip("matplotlib")

SOURCE = "spfemu 0, virtual time"
PNG = b"\x89PNG\r\n\x1a\n"


def made_up(
    cpus: list[int],
    handlers: tuple[str, ...] = ("classic", "spf"),
    machines: tuple[str, ...] = ("x86-48",),
    spread: float | None = None,
) -> spfemu.Sweep:
    """Returns a table with numbers that are easy to see in a plot."""
    rows = []
    for machine in machines:
        for ncpus in cpus:
            for handler in handlers:
                speculative = handler == "spf"
                for metric, value, unit in (
                    ("records/s", 100.0 * ncpus * (1 + speculative), "records/s"),
                    ("count:faults", 1000.0, "events"),
                    ("count:spf", 900.0 * speculative, "events"),
                    ("count:spf_vma_changed", 80.0 * speculative, "events"),
                    ("count:spf_vma_notsup", 0.0, "events"),
                ):
                    row = spfemu.Row(
                        SOURCE, machine, "x86_64", ncpus, "ebizzy -mTt <nrcpus> -S 0.2", handler,
                        metric, value, unit, ncpus, spread, "seed 0",
                    )  # fmt: skip
                    rows.append(row)
    return spfemu.Sweep(tuple(rows), "ebizzy -mTt {cpus} -S 0.2")


def labels(axes: Any) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in axes.get_legend().get_texts()]


def curve(axes: Any, label: str) -> list[tuple[float, float]]:
    """Returns the points of the line that the legend calls so."""
    handles, names = axes.get_legend_handles_labels()
    handle = handles[names.index(label)]
    line = handle.lines[0] if hasattr(handle, "lines") else handle
    return [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]


class TestPlot:
    def test_a_rate_and_shares_over_cpus(self) -> None:
        rates, parts = made_up([1, 2, 24, 48]).figure().axes
        assert rates.get_ylabel() == "records/s"
        assert parts.get_ylabel() == "share of all faults, spf run (%)"
        assert parts.get_xlabel() == "CPUs"
        for axes in (rates, parts):
            assert (axes.get_xscale(), axes.xaxis.get_transform().base) == ("log", 2)
        assert [tick.get_text() for tick in parts.get_xticklabels()] == ["1", "2", "24", "48"]
        assert rates.get_ylim()[0] == 0
        assert curve(rates, "classic (mmap_sem)") == [(n, 100 * n) for n in (1, 2, 24, 48)]
        assert curve(rates, "speculative") == [(n, 200 * n) for n in (1, 2, 24, 48)]
        assert curve(parts, "handled speculatively") == [(n, 90) for n in (1, 2, 24, 48)]
        assert curve(parts, "aborted: VMA changed") == [(n, 8) for n in (1, 2, 24, 48)]

    def test_published_points_stand_beside_ours(self) -> None:
        rates, parts = made_up([24, 48]).figure().axes
        measured = "measured: v12 cover letter, x86 node"
        assert labels(rates) == [
            "classic (mmap_sem)",
            "speculative",
            f"classic, {measured}",
            f"speculative, {measured}",
        ]
        assert curve(rates, f"classic, {measured}") == [(24, 5492.69)]
        assert curve(rates, f"speculative, {measured}") == [(24, 9383.07)]
        assert labels(parts)[-1] == measured
        points = [line.get_data() for line in parts.lines if line.get_marker() == "D"]
        shown = {round(float(y[0]), 1) for x, y in points if len(x) and x[0] == 48}
        assert shown == {91.9, 8.1}

    def test_no_published_points_for_another_benchmark_or_machine(self) -> None:
        table = made_up([24])
        for rows in (
            tuple(row._replace(benchmark="ebizzy -Mt <nrcpus>") for row in table.rows),
            tuple(row._replace(machine="other") for row in table.rows),
        ):
            assert beside(rows) == []
            rates, _ = spfemu.Sweep(rows, table.label).figure().axes
            assert labels(rates) == ["classic (mmap_sem)", "speculative"]

    def test_published_points_of_other_kernels_are_called_by_their_name(self) -> None:
        rows = tuple(
            row._replace(machine="zen5-256", benchmark="pft -t <nrcpus>", metric="faults/s")
            for row in made_up([4, 48], machines=("zen5-256",)).rows
            if row.metric == "records/s"
        )
        others = {row.ncpus: row.value for row in beside(rows)}
        assert len(others) == 10
        assert others[4] == pytest.approx(2.61e6, rel=0.01)
        rates = spfemu.Sweep(rows, "x").figure(metric="faults/s").axes[0]
        (label,) = [label for label in labels(rates) if "measured: " in label]
        assert label.startswith("per-VMA lock as vm_refcnt")
        # Those from 4 to 48 alone.
        assert [number for number, _ in curve(rates, label)] == [4, 7, 12, 21, 30, 48]

    @pytest.mark.parametrize(
        ("handlers", "names"),
        [(("classic",), ["classic (mmap_sem)"]), (("spf",), ["speculative"])],
    )
    def test_one_handler(self, handlers: tuple[str, ...], names: list[str]) -> None:
        rows = tuple(row._replace(machine="m") for row in made_up([1, 2], handlers).rows)
        axes = spfemu.Sweep(rows, "x").figure().axes
        assert labels(axes[0]) == names
        assert len(axes) == (2 if "spf" in handlers else 1)
        assert axes[-1].get_xlabel() == "CPUs"

    def test_machines_have_a_line_each(self) -> None:
        rates, parts = made_up([1, 2], machines=("x86-48", "power8-80")).figure().axes
        assert labels(rates)[:4] == [
            f"{machine}, {handler}"
            for machine in ("x86-48", "power8-80")
            for handler in ("classic (mmap_sem)", "speculative")
        ]
        assert curve(parts, "handled speculatively, power8-80") == [(1, 90), (2, 90)]

    def test_deviations_are_bars(self) -> None:
        def bars(table: spfemu.Sweep) -> int:
            return len(table.figure().axes[0].collections)

        assert (bars(made_up([1, 2])), bars(made_up([1, 2], spread=5.0))) == (0, 2)

    def test_a_metric_of_ones_choice(self) -> None:
        table = made_up([1, 2])
        assert table.figure("count:spf").axes[0].get_ylabel() == "count:spf (events)"
        with pytest.raises(spfemu.EngineError, match=r'metric "speed" \(allowed: records/s'):
            table.figure("speed")

    @pytest.mark.parametrize("cpus", [[1], list(range(1, 49)), [1 << n for n in range(11)], [3, 5]])
    def test_few_and_many_numbers_of_cpus(self, cpus: list[int]) -> None:
        axes = made_up(cpus).figure().axes[-1]
        ticks = [int(text.get_text()) for text in axes.get_xticklabels()]
        assert ticks
        assert len(ticks) <= 12
        assert set(ticks) <= set(cpus)


class TestMatching:
    def test_every_name_is_of_a_machine_and_of_published_rows(self) -> None:
        known = {entry["name"] for entry in core_list("machines")}
        named = {row.machine for row in spfemu.published()}
        assert set(PUBLISHED_AS) <= known
        assert {name for names in PUBLISHED_AS.values() for name in names} <= named

    def test_published_shares_are_the_founding_documents(self) -> None:
        found = shares(beside(made_up([48]).rows))
        told = {event: round(points[0].value, 1) for event, points in found.items()}
        assert told.pop("count:spf_vma_notsup") < 0.3
        assert told == {"count:spf": 91.9, "count:spf_vma_changed": 8.1}


class Reader(HTMLParser):
    """Collects a page's texts by tag, and what it would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        for name, value in attrs:
            external = name in ("src", "href", "xlink:href") and not (value or "").startswith("#")
            if tag in ("script", "link", "img") or (external and tag != "a"):
                self.loads.append(f"{tag} {value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.setdefault(self.open[-1], []).append(data.strip())


class TestFiles:
    def test_png(self, tmp_path: Path) -> None:
        path = tmp_path / "t.png"
        made_up([1, 2]).save(path)
        assert path.read_bytes().startswith(PNG)

    def test_page(self, tmp_path: Path) -> None:
        path = tmp_path / "t.html"
        table = made_up([24, 48])
        table = spfemu.Sweep(table.rows, "a<b {cpus}")
        table.save(path)
        reader = Reader()
        reader.feed(path.read_text())
        reader.close()
        assert reader.open == []
        assert reader.loads == []
        assert reader.texts["h1"] == ["spfemu sweep: a<b N"]
        cells = reader.texts["td"]
        assert cells[:6] == ["24", "2,400", "4,800", "2.000", "90.00", "8.00"]
        assert cells[12:17] == ["x86 node, 24 CPUs", "24", "classic", "records/s", "5,493"]
        assert cells[-2:] == ["spf_vma_notsup %", "0.01"]
        assert reader.texts["a"] == ["v12 cover = founding document"] * 5
        assert reader.texts["h2"] == ["Measured by others"]
        assert path.read_text().count("<svg") == 1

    @pytest.mark.parametrize("suffix", [".csv", ".html", ".png", ".parquet"])
    def test_the_same_table_is_the_same_file(self, tmp_path: Path, suffix: str) -> None:
        paths = [tmp_path / f"{number}{suffix}" for number in (1, 2)]
        for path in paths:
            made_up([1, 2]).save(path)
        assert paths[0].read_bytes() == paths[1].read_bytes()

    @pytest.mark.parametrize("name", ["t.xlsx", "t", "csv"])
    def test_another_suffix(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(spfemu.EngineError, match=r"allowed: .csv, .parquet, .html, .png"):
            made_up([1]).save(tmp_path / name)
        assert not (tmp_path / name).exists()

    def test_a_place_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(spfemu.ProgramError, match="cannot be written: No such file"):
            made_up([1]).save(tmp_path / "none" / "t.csv")
