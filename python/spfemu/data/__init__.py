"""Measured results that others have published, as rows of the form that a sweep has too."""

from __future__ import annotations

import csv
from importlib import resources
from typing import NamedTuple

__all__ = ["Row", "published"]


class Row(NamedTuple):
    """One number of a benchmark and where it was measured: a row of a tidy table.

    Source: ours. ``source`` is a text or an address; ``machine`` and ``arch`` (as ``uname -m`` has
    it) are its words for them, ``ncpus`` its CPUs; ``benchmark`` is the command, in which
    ``<nrcpus>`` stands for the number of CPUs; ``variant`` says which kernel; ``value`` is the
    figure called ``metric`` in ``unit`` (``count:EVENT`` in events is what perf counted);
    ``threads`` is None where there is no such number; ``stddev_pct`` is the standard deviation in
    percent of the value, None where it was not given.
    """

    source: str
    machine: str
    arch: str
    ncpus: int
    benchmark: str
    variant: str
    metric: str
    value: float
    unit: str
    threads: int | None
    stddev_pct: float | None
    note: str


def published() -> tuple[Row, ...]:
    """Returns the published results: those of the series' cover letters, and of single mechanisms.

    Source: each row's ``source``. Deterministic: the rows of ``published.csv``, in its order.

    >>> import spfemu
    >>> [(row.ncpus, row.variant, row.value) for row in spfemu.published()][:2]
    [(24, 'mmap_sem (v5.1-rc4-mmotm)', 5492.69), (24, 'SPF v12 (RCU+vma refcount)', 9383.07)]
    """
    text = resources.files(__name__).joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_row(fields) for fields in csv.DictReader(text.splitlines()))


def _row(fields: dict[str, str]) -> Row:
    return Row(
        source=fields["source"],
        machine=fields["machine"],
        arch=fields["arch"],
        ncpus=int(fields["ncpus"]),
        benchmark=fields["benchmark"],
        variant=fields["variant"],
        metric=fields["metric"],
        value=float(fields["value"]),
        unit=fields["unit"],
        threads=int(fields["threads"]) if fields["threads"] else None,
        stddev_pct=float(fields["stddev_pct"]) if fields["stddev_pct"] else None,
        note=fields["note"],
    )
