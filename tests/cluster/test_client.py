import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, Worker, WorkerPlugin

from pipeline.cluster.bounded_submission import map_jobs, submit_bounded
from pipeline.cluster.client import open_cluster, register_plugin
from pipeline.cluster.connection import worker_count
from pipeline.cluster.local import keep_log
from pipeline.config import Campaign
from pipeline.errors import ClusterError
from tests.support.campaigns import campaign_with_cluster
from tests.support.dask_processes import scheduler, worker
from tests.support.waiting import LONGEST_S


def _open(campaign: Campaign, **where: Any) -> None:
    with open_cluster(campaign.on_cluster(**where)):
        pytest.fail("it opened")


def _work(client: Client, *, lost_s: float, jobs: int = 200) -> None:
    def submit(_: int) -> object:
        return client.submit(time.sleep, 0.1, pure=False)

    for _ in submit_bounded(range(jobs), submit, client=client, limit=lambda: 2, lost_s=lost_s):
        pass


def test_a_lost_scheduler_or_no_workers_end_the_work_with_an_error(tmp_path: Path) -> None:
    campaign = campaign_with_cluster(tmp_path, wait_s=LONGEST_S, lost_s=5)
    with scheduler(tmp_path) as (file, started):
        with worker(file) as only, open_cluster(campaign.on_cluster(scheduler=str(file))) as client:
            assert worker_count(client) == 1
            only.kill()
            with pytest.raises(ClusterError, match="no worker for 5 s"):
                _work(client, lost_s=5)
        with worker(file), open_cluster(campaign.on_cluster(scheduler=str(file))) as client:
            started.kill()
            with pytest.raises(ClusterError, match="run again"):
                _work(client, lost_s=60)


class Deadly(WorkerPlugin):
    """Kills the first worker that sets it up; the others leave a file."""

    name = "deadly"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def setup(self, worker: Worker) -> None:  # noqa: ARG002  (Dask's signature)
        try:
            (self._folder / "died").mkdir()
        except FileExistsError:
            (self._folder / str(os.getpid())).touch()
        else:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_while_it_sets_up_a_plugin_is_replaced(tmp_path: Path) -> None:
    seen, campaign = tmp_path / "seen", campaign_with_cluster(tmp_path, wait_s=LONGEST_S)
    seen.mkdir()
    with (
        scheduler(tmp_path) as (file, _),
        worker(file),
        worker(file),
        open_cluster(campaign.on_cluster(scheduler=str(file))) as client,
    ):
        client.wait_for_workers(2, timeout=LONGEST_S)
        register_plugin(client, Deadly(seen))
        assert worker_count(client) == 1
        assert len(list(seen.iterdir())) == 2


def test_a_cluster_that_does_not_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = campaign_with_cluster(tmp_path, wait_s=0.3)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with scheduler(tmp_path) as (file, _), pytest.raises(ClusterError, match=r"no worker came within 0\.3 s"):
        _open(campaign, scheduler=str(file))
    with pytest.raises(ClusterError, match=r"neither an address .* nor a file"):
        _open(campaign, scheduler="nowhere")
    with pytest.raises(ClusterError, match="SLURM_JOB_ID is not set"):
        _open(campaign, kind="slurm")


def test_the_number_of_submitted_jobs_follows_the_limit() -> None:
    """The peak of jobs at once follows a limit that grows from one to three."""
    limits = iter([1, 1, 1, *[3] * 20])
    started, peaks = 0, []
    with Client(n_workers=1, threads_per_worker=8, processes=False, dashboard_address="127.0.0.1:0") as client:

        def submit(_: int) -> object:
            nonlocal started
            started += 1
            return client.submit(time.sleep, 0.02, pure=False)

        flying = submit_bounded(range(12), submit, client=client, limit=lambda: next(limits), lost_s=60)
        for ended, (_, future) in enumerate(flying, start=1):
            assert future.done()
            peaks.append(started - ended + 1)
    assert started == len(peaks) == 12
    assert peaks[:3] == [1, 1, 1]
    assert max(peaks) == 3


def test_a_ready_client_is_used_as_it_is_and_left_open(tmp_path: Path, dask_client: Client) -> None:
    with open_cluster(campaign_with_cluster(tmp_path), client=dask_client) as client:
        assert client is dask_client
    assert worker_count(dask_client) == 1


def test_closing_a_bounded_submission_releases_the_jobs_that_are_left(dask_client: Client) -> None:
    def submit(seconds: float) -> object:
        return dask_client.submit(time.sleep, seconds, pure=False)

    flying = submit_bounded([0.0, 0.1, 0.1, 0.1], submit, client=dask_client, limit=lambda: 3, lost_s=60)
    next(flying)
    assert dask_client.futures
    flying.close()
    deadline = time.monotonic() + 60
    while dask_client.futures:
        assert time.monotonic() < deadline, dask_client.futures
        time.sleep(0.01)


def test_jobs_are_mapped_on_workers_and_their_errors_are_raised(dask_client: Client) -> None:
    given = {"client": dask_client, "per_worker": 2, "lost_s": 60}
    assert dict(map_jobs(["1", "2", "3"], int, **given)) == {"1": 1, "2": 2, "3": 3}
    with pytest.raises(ValueError, match="invalid literal"):
        dict(map_jobs(["1", "x"], int, **given))


def test_the_first_error_is_raised_after_the_jobs_beside_it_have_ended(tmp_path: Path, dask_client: Client) -> None:
    def write_late(job: int) -> None:
        if job == 0:
            raise ValueError("at once")
        time.sleep(0.5)
        (tmp_path / str(job)).touch()

    with pytest.raises(ValueError, match="at once"):
        dict(map_jobs(range(20), write_late, client=dask_client, per_worker=2, lost_s=60))
    written = set(tmp_path.iterdir())
    time.sleep(1)
    assert set(tmp_path.iterdir()) == written
    assert len(written) < 19


def test_a_worker_that_does_not_end_in_time_leaves_no_traceback_in_the_log() -> None:
    def kept(message: str, error: Exception) -> bool:
        given = (type(error), error, None)
        return keep_log(logging.LogRecord("tornado.application", logging.ERROR, "", 0, message, (), given))

    assert not kept("Exception in callback <SpecCluster._correct_state_internal()>", TimeoutError())
    assert kept("Exception in callback <SpecCluster._correct_state_internal()>", ValueError())
    assert kept("Exception in callback <another>", TimeoutError())
    assert keep_log in logging.getLogger("tornado.application").filters
