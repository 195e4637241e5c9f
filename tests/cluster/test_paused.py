"""Workers that stay paused count as lost, and a stop ends a run whatever its workers do."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Event, LocalCluster, Status

from pipeline.cluster import bounded_submission
from pipeline.cluster.bounded_submission import submit_bounded
from pipeline.cluster.connection import paused_workers
from pipeline.cluster.local import start_cluster
from pipeline.errors import ClusterError, ConfigError, RunStopped
from pipeline.runs.mapping.events import RunStarted
from pipeline.runs.mapping.run import run
from pipeline.runs.mapping.shutdown import StopRequest
from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import make_campaign
from tests.support.waiting import wait_until


def pause(dask_worker: Any) -> None:
    dask_worker.status = Status.paused


def resume(dask_worker: Any) -> None:
    dask_worker.status = Status.running


def _map(client: Client, number: int, *, lost_s: float, **how: Any) -> int:
    def submit(job: int) -> Any:
        return client.submit(abs, job, pure=False)

    return sum(1 for _ in submit_bounded(range(number), submit, client=client, limit=lambda: 4, lost_s=lost_s, **how))


def test_work_ends_where_all_workers_stay_paused(dask_client: Client) -> None:
    dask_client.run(pause)
    try:
        wait_until(lambda: len(paused_workers(dask_client)[1]) == 1)
        with pytest.raises(ClusterError, match=r"no worker for 2 s .*the 1 there are paused.*memory"):
            _map(dask_client, 3, lost_s=2)
    finally:
        dask_client.run(resume)
    assert _map(dask_client, 3, lost_s=60) == 3


def test_a_worker_that_stays_paused_is_started_again() -> None:
    no_stealing = {"distributed.scheduler.work-stealing": False}
    with start_cluster(LocalCluster, no_stealing, n_workers=2, threads_per_worker=1, memory_limit=0) as client:
        held = next(iter(client.scheduler_info()["workers"]))
        client.run(pause, workers=[held])
        wait_until(lambda: held in paused_workers(client)[1])

        def submit(job: int) -> Any:
            if job == 0:
                return client.submit(abs, -1, workers=[held], allow_other_workers=True, pure=False)
            return client.submit(time.sleep, 0.5, pure=False)

        done = [job for job, _ in submit_bounded(range(4), submit, client=client, limit=lambda: 3, lost_s=1)]
        assert sorted(done) == list(range(4))


def test_a_paused_worker_that_still_computes_is_not_lost(dask_client: Client) -> None:
    gate = Event("gate", client=dask_client)
    future = dask_client.submit(lambda: Event("gate").wait(), pure=False)

    def counts() -> dict[str, int]:
        (worker,) = dask_client.scheduler_info()["workers"].values()
        found: dict[str, int] = worker["metrics"]["task_counts"]
        return found

    try:
        wait_until(lambda: counts().get("executing"))
        dask_client.run(pause)
        assert paused_workers(dask_client) == (1, frozenset())
        gate.set()
        future.result()
    finally:
        dask_client.run(resume)


def test_after_a_stop_jobs_that_never_end_are_abandoned(dask_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_submission, "_STOP_S", 2.0)
    gate = Event("never", client=dask_client)

    def submit(_: int) -> Any:
        return dask_client.submit(lambda: Event("never").wait(), pure=False)

    try:
        with pytest.raises(ClusterError, match="no job has ended within 2 s after the request to stop"):
            list(submit_bounded([0], submit, client=dask_client, limit=lambda: 1, lost_s=60, stopping=lambda: True))
    finally:
        gate.set()


@pytest.mark.parametrize("workers", [None, 2])
def test_a_run_does_not_start_below_its_projected_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None
) -> None:
    made = make_campaign(tmp_path, at=((0, 0),))
    plan = make_plan(made.campaign)
    enough = (plan.resolved.memory.total >> 20) + 1
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "700" if workers is None else str(2 * enough - 100))
    with pytest.raises(ConfigError, match=r"its share of the memory here is \d\.\d\d GB. Use fewer --workers"):
        run(plan, workers=workers)
    assert not made.products.exists()


def test_a_stop_ends_a_run_whose_workers_stay_paused(tmp_path: Path, dask_client: Client) -> None:
    made = make_campaign(tmp_path, at=((0, 0),))
    made.change(cluster={"gdal_cache_mb": 64, "decoded_cache_mb": 64, "lost_s": 2})
    stop = StopRequest()

    def on_event(event: object) -> None:
        if isinstance(event, RunStarted):
            dask_client.run(pause)
            threading.Timer(1, stop.request, ["SIGTERM"]).start()

    try:
        with pytest.raises(RunStopped, match="stopped by SIGTERM: 0 tiles are sealed, 1 are still to map"):
            run(make_plan(made.campaign), client=dask_client, on_event=on_event, stop=stop)
    finally:
        dask_client.run(resume)
