"""Runs the cells of a table, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from statistics import fmean
from typing import Any

from spfemu.engines import run
from spfemu.profiles import arch as arch_of
from spfemu.reproducing.rows import Cell, Figures
from spfemu.workloads import make_job

__all__ = ["run_cells"]

Progress = Callable[[float], object]
_Key = tuple[Cell, int]


def run_cells(
    cells: Iterable[Cell],
    *,
    seeds: Sequence[int],
    machine_of: Callable[[str], Any],
    progress: Progress | None = None,
) -> dict[Cell, Figures]:
    """Runs each cell once for each seed and returns the means.

    Source: ours. ``machine_of`` gives what ``run`` takes as the machine of a name. Virtual time
    runs outside Python's lock, so threads suffice. Deterministic. An exception, Ctrl-C included,
    leaves what has not begun.
    """
    keys = [(cell, seed) for cell in dict.fromkeys(cells) for seed in seeds]
    done: dict[_Key, Figures] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {
            pool.submit(_run_cell, cell, seed, machine_of): (cell, seed) for cell, seed in keys
        }
        try:
            _collect(futures, done, progress)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {cell: _mean([done[cell, seed] for seed in seeds]) for cell, _ in keys}


def _collect(
    futures: Mapping[Future[Figures], _Key],
    done: dict[_Key, Figures],
    progress: Progress | None,
) -> None:
    left = set(futures)
    while left:
        ready, left = wait(left, return_when=FIRST_COMPLETED)
        for future in ready:
            done[futures[future]] = future.result()
        if progress is not None:
            progress(len(done) / len(futures))


def _run_cell(cell: Cell, seed: int, machine_of: Callable[[str], Any]) -> Figures:
    arch = arch_of(_arch_name(cell.machine))
    job = make_job(cell.workload, cpus=cell.cpus)
    result = run(
        job.build(page_size=arch.page_size, seed=seed),
        engine="vtime",
        handler=cell.handler,
        arch=arch,
        machine=machine_of(cell.machine),
        cpus=cell.cpus,
        seed=seed,
        record=False,
        settings={"downgrade": cell.downgrade},
    )
    return Figures(job.figures(result), dict(result.counters))


def _arch_name(machine: str) -> str:
    from spfemu.engines import core_list

    return next(str(entry["arch"]) for entry in core_list("machines") if entry["name"] == machine)


def _mean(figures: Sequence[Figures]) -> Figures:
    def means(maps: list[Mapping[str, float]]) -> dict[str, float]:
        return {name: fmean(one[name] for one in maps) for name in maps[0]}

    return Figures(means([f.results for f in figures]), means([f.counters for f in figures]))
