"""Runs the cells of a table, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from statistics import fmean

from spfemu.engines import run
from spfemu.profiles import arch as arch_of
from spfemu.reproducing.cases import Cell, Figures
from spfemu.workloads import make_job

__all__ = ["run_cells"]

Progress = Callable[[float], object]
_Key = tuple[Cell, int]


def run_cells(
    cells: Iterable[Cell],
    *,
    seeds: Sequence[int],
    progress: Progress | None = None,
) -> dict[Cell, Figures]:
    """Runs each cell once for each seed and returns the means.

    Source: ours. Virtual time runs outside Python's lock, so threads suffice. Deterministic. An
    exception, Ctrl-C included, ends what runs and leaves what has not begun.
    """
    from spfemu.sweeping.pool import local_jobs

    keys = [(cell, seed) for cell in dict.fromkeys(cells) for seed in seeds]
    done: dict[_Key, Figures] = {}
    stop = threading.Event()
    with ThreadPoolExecutor(local_jobs()) as pool:
        futures = {pool.submit(_run_cell, *key, stop): key for key in keys}
        try:
            for future in as_completed(futures):
                done[futures[future]] = future.result()
                if progress is not None:
                    progress(len(done) / len(futures))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {cell: _mean([done[cell, seed] for seed in seeds]) for cell, _ in keys}


def _run_cell(cell: Cell, seed: int, stop: threading.Event) -> Figures:
    def go_on(_: float) -> None:
        if stop.is_set():
            raise KeyboardInterrupt

    arch = arch_of(cell.machine.arch)
    seed += cell.shift
    job = make_job(cell.workload, cpus=cell.cpus)
    result = run(
        job.build(page_size=arch.page_size),
        engine="vtime",
        handler=cell.handler,
        tree=cell.tree,
        arch=arch,
        machine=cell.machine,
        cpus=cell.cpus,
        seed=seed,
        record=False,
        settings=_settings(cell),
        progress=go_on,
    )
    return Figures(job.figures(result), dict(result.counters))


def _settings(cell: Cell) -> dict[str, int]:
    settings: dict[str, int] = dict.fromkeys(cell.without, False)
    return settings | {"tick_slack_ns": 0} if cell.strict else settings


def _mean(figures: Sequence[Figures]) -> Figures:
    def means(maps: list[Mapping[str, float]]) -> dict[str, float]:
        return {name: fmean(one[name] for one in maps) for name in maps[0]}

    return Figures(means([f.results for f in figures]), means([f.counters for f in figures]))
