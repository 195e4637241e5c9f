"""A worker that is lost while the cluster starts does not end a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster, SpecCluster

from pipeline.cluster.local import start_cluster
from pipeline.errors import ClusterError

DIES = """
import os, signal
from pathlib import Path
left = Path({left!r})
if number := int(left.read_text()):
    left.write_text(str(number - 1))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def dying(folder: Path, times: int) -> Callable[..., SpecCluster]:
    """A cluster whose worker process is killed while it starts, the first times."""
    (folder / "left").write_text(str(times))
    (folder / "dies.py").write_text(DIES.format(left=str(folder / "left")))

    def start(preload: list[str], **options: Any) -> SpecCluster:
        return LocalCluster(preload=[*preload, str(folder / "dies.py")], **options)

    return start


def test_a_cluster_starts_again_where_a_worker_was_killed(tmp_path: Path) -> None:
    with start_cluster(dying(tmp_path, 1), {}, n_workers=1, threads_per_worker=1) as client:
        assert client.submit(sum, (1, 2)).result() == 3


def test_a_worker_that_always_ends_at_its_start_is_an_error(tmp_path: Path) -> None:
    starting = start_cluster(dying(tmp_path, 1000), {}, n_workers=1, threads_per_worker=1)
    with pytest.raises(ClusterError, match=r"could not be started, 3 times.*fewer workers"), starting:
        pass
    assert (tmp_path / "left").read_text() == "997"
