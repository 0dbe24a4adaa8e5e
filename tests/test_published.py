"""The published results that come with the package: read whole, and with the right numbers."""

from __future__ import annotations

import csv
from importlib import resources

import pytest

import spfemu
from spfemu import published


def test_each_line_is_a_row_with_the_same_columns() -> None:
    text = resources.files("spfemu.data").joinpath("published.csv").read_text(encoding="utf-8")
    lines = list(csv.reader(text.splitlines()))
    assert tuple(lines[0]) == spfemu.Row._fields
    for row, line in zip(published(), lines[1:], strict=True):
        for field, cell in zip(row, line, strict=True):
            if isinstance(field, str) or field is None:
                assert (field or "") == cell
            else:
                assert field == float(cell)


@pytest.mark.parametrize(("ncpus", "ratio"), [(24, 1.7083), (1024, 2.02)])
def test_the_ratios_of_the_founding_document(ncpus: int, ratio: float) -> None:
    # It says 70.83 % and 102 % more records a second.
    ebizzy = {
        row.variant.split()[0]: row.value
        for row in published()
        if "founding document" in row.source and row[3:7:3] == (ncpus, "records/s")
    }
    assert ebizzy["SPF"] / ebizzy["mmap_sem"] == pytest.approx(ratio, abs=5e-3)


def test_the_shares_of_the_founding_document() -> None:
    # 91.9 % of the faults of 48 CPUs were speculative, 8.1 % found their VMA changed.
    counts = {
        row.metric: row.value
        for row in published()
        if (row.ncpus, row.benchmark) == (48, "ebizzy -mTt <nrcpus>") and row.unit == "events"
    }
    faults = counts["count:faults"]
    assert counts["count:spf"] / faults == pytest.approx(0.919, abs=5e-4)
    assert counts["count:spf_vma_changed"] / faults == pytest.approx(0.081, abs=5e-4)
