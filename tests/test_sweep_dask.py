"""Cells of a sweep on a cluster: two workers of dask.distributed, reached over TCP."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import spfemu

distributed = pytest.importorskip("distributed", exc_type=ImportError)

SHORT = "ebizzy -mTt {cpus} -S 0.001"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the cluster's own start has to say
        cluster = distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            protocol="tcp://",
            dashboard_address=None,
            host="127.0.0.1",
        )
        with cluster, distributed.Client(cluster) as client:
            yield client


def test_a_cluster_gives_the_same_table(client: Any) -> None:
    addresses = client.scheduler_info()["workers"]
    assert len(addresses) == 2
    assert all(address.startswith("tcp://") for address in addresses)
    with client.get_executor(pure=False) as executor:
        table = spfemu.sweep(SHORT, cpus="1,2,4..8", executor=executor)
    assert table == spfemu.sweep(SHORT, cpus="1,2,4..8", jobs=1)


def test_both_workers_take_part(client: Any) -> None:
    with client.get_executor(pure=False) as executor:
        spfemu.sweep(SHORT, cpus="1,2", repeat=8, executor=executor)
    done = client.run(lambda dask_worker: dask_worker.state.executed_count)
    assert all(done.values())


def test_an_error_of_a_cell_comes_back(client: Any, tmp_path: Any) -> None:
    path = tmp_path / "p.json"
    builder = spfemu.ProgramBuilder()
    builder.task().compute(1)
    builder.build().save(path)
    executor = client.get_executor(pure=False)

    class Removing:
        """Takes the file away before the workers look for it."""

        def submit(self, *args: Any) -> Any:
            path.unlink(missing_ok=True)
            return executor.submit(*args)

    with executor, pytest.raises(spfemu.ProgramError, match="workload"):
        spfemu.sweep([str(path)], cpus="1", executor=Removing())  # type: ignore[arg-type]
