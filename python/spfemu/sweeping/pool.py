"""Running cells: here one after the other, in processes of this computer, or by any executor."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from spfemu.errors import EngineError
from spfemu.sweeping.cells import Cell, Outcome, run_cell

__all__ = ["local_jobs", "run_cells"]


def local_jobs() -> int:
    """Returns how many CPUs of this computer the process may use. Source: the operating system."""
    return len(os.sched_getaffinity(0))


def run_cells(
    cells: Sequence[Cell],
    executor: Executor | None,
    jobs: int,
    progress: Callable[[int, float], object] | None,
) -> Generator[tuple[int, Outcome], None, None]:
    """Yields (number, outcome) of each cell as it is done.

    Source: ours. Large cells begin first, for the cores to be done together. ``progress`` is called
    with the number of the cell at work and the share of it that is done, where it runs in this
    process. Whoever stops asking ends what still runs in our own processes, and takes back what an
    executor has not begun.
    """
    order = sorted(range(len(cells)), key=lambda number: -cells[number].cpus)
    if executor is not None:
        futures: dict[Future[Outcome], int] = {}
        try:
            yield from _submitted(cells, order, executor, futures, nullcontext())
        finally:
            for future in futures:
                future.cancel()
    elif min(jobs, len(cells)) < 2:
        for number in order:
            part = None if progress is None else partial(progress, number)
            yield number, run_cell(cells[number], part)
    else:
        with _processes(min(jobs, len(cells))) as pool:
            # These are not cancelled: the pool ends whole, and trips over what is cancelled then.
            yield from _submitted(cells, order, pool, {}, _interrupts_wait())


def _submitted(
    cells: Sequence[Cell],
    order: Sequence[int],
    executor: Executor,
    futures: dict[Future[Outcome], int],
    asking: AbstractContextManager[None],
) -> Iterator[tuple[int, Outcome]]:
    """Yields what comes back, and leaves in ``futures`` what was asked, ``asking`` around that."""
    try:
        with asking:
            for number in order:
                futures[executor.submit(run_cell, cells[number])] = number
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise EngineError("a worker process has ended; is there enough memory?") from None


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Holds Ctrl-C back for a moment: processes that are started then never see it, not even while
    they import.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _processes(jobs: int) -> Iterator[Executor]:
    """Gives a pool of processes that end with the block, whatever they are at.

    They are started afresh: a fork of a process that has threads may hang.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_follow_parent)
    try:
        yield pool
    except BaseException:
        # shutdown() would wait for the cells at work; there is no public way before Python 3.14.
        workers = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        raise
    pool.shutdown()


def _follow_parent() -> None:
    """Lets a worker end when its parent has gone, to which it leaves interrupts."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
