"""A tile is sealed beside the next tile's forwards: in one worker, whose threads take what is ready."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from numpy.typing import NDArray

from pipeline.config import Campaign
from pipeline.inference import halo, predictor_for
from pipeline.products.tile import seal as item
from pipeline.products.tile.seal import SealedTile
from pipeline.runs.mapping import run as domain
from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import make_campaign

SEALING, FORWARD_MEANWHILE = threading.Event(), threading.Event()


def seal_once_a_forward_came(*args: Any, **kwargs: Any) -> SealedTile:
    """The first tile's seal ends only after a whole forward that began after it."""
    if not SEALING.is_set():
        SEALING.set()
        assert FORWARD_MEANWHILE.wait(120), "no forward while a tile was sealed"
    return item.seal(*args, **kwargs)


class Watched:
    """The engine, and whether a forward both begins and ends while a tile is sealed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._predictor = predictor_for(*args, **kwargs)

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        sealing = SEALING.is_set()
        layers = self._predictor(pixels, valid)
        if sealing:
            FORWARD_MEANWHILE.set()
        return layers


@contextmanager
def one_worker_here(campaign: Campaign, *, workers: int | None = None) -> Iterator[Client]:  # noqa: ARG001  (open_cluster's)
    """A worker as the campaign says, but in this process, where the test sees it."""
    threads = campaign.cluster.threads
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=threads, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def test_a_worker_infers_the_next_tile_while_it_seals_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_campaign(tmp_path, at=((0, 0), (0, 1)))
    assert made.campaign.cluster.threads == made.campaign.cluster.tiles_in_flight == 2, "the defaults suffice"
    SEALING.clear()
    FORWARD_MEANWHILE.clear()
    monkeypatch.setattr(domain, "open_cluster", one_worker_here)
    monkeypatch.setattr(domain, "seal", seal_once_a_forward_came)
    monkeypatch.setattr(halo, "predictor_for", Watched)
    # A seal that waits in vain fails its tile, and so the run.
    assert len(domain.run(make_plan(made.campaign))) == 2
    assert FORWARD_MEANWHILE.is_set()
