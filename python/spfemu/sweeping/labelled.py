"""A sweep as an xarray Dataset: a variable for each metric, over machine, variant and CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from spfemu.data import Row
from spfemu.sweeping.table import library

__all__ = ["dataset", "variable_name"]

_DIMS: Final = ("machine", "variant", "ncpus")


def dataset(rows: Sequence[Row], label: str) -> Any:
    """Returns the Dataset of ``Sweep.to_xarray``. Source: ours."""
    places: dict[str, list[Any]] = {
        dim: list(dict.fromkeys(getattr(row, dim) for row in rows)) for dim in _DIMS
    }
    places["ncpus"].sort()
    variables: dict[str, Any] = {}
    threads = np.zeros(len(places["ncpus"]), dtype=np.int64)
    for row in rows:
        at = tuple(places[dim].index(getattr(row, dim)) for dim in _DIMS)
        threads[at[2]] = row.threads or 0
        numbers = [(variable_name(row.metric), row.value, row.unit)]
        if row.stddev_pct is not None:
            numbers.append((f"{variable_name(row.metric)}_stddev_pct", row.stddev_pct, "%"))
        for name, value, unit in numbers:
            if name not in variables:
                empty = np.full([len(places[dim]) for dim in _DIMS], np.nan)
                variables[name] = (_DIMS, empty, {"unit": unit})
            variables[name][1][at] = value
    attrs = {"benchmark": label, "source": rows[0].source if rows else ""}
    coords = {**places, "threads": ("ncpus", threads)}
    return library("xarray").Dataset(variables, coords=coords, attrs=attrs)


def variable_name(metric: str) -> str:
    """Returns a metric's name as Python and netCDF take it.

    Source: ours.

    >>> from spfemu.sweeping.labelled import variable_name
    >>> variable_name("records/s"), variable_name("count:spf")
    ('records_per_s', 'count_spf')
    """
    return metric.replace("/", "_per_").replace(":", "_").replace("-", "_").replace(" ", "_")
