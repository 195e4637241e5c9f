"""One worker seals a tile while it infers the next one."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.inference import block_mapping, predictor_for
from pipeline.products.tile import seal as item
from pipeline.products.tile.seal import SealedTile
from pipeline.runs.mapping import run as run_module
from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import make_campaign
from tests.support.dask_client import in_process_client

SEALING, FORWARD_MEANWHILE = threading.Event(), threading.Event()


def seal_after_a_forward(*args: Any, **kwargs: Any) -> SealedTile:
    """The first seal ends only after a forward pass that began and ended meanwhile."""
    if not SEALING.is_set():
        SEALING.set()
        assert FORWARD_MEANWHILE.wait(120), "no forward while a tile was sealed"
    return item.seal(*args, **kwargs)


class WatchedPredictor:
    """The engine's predictor. It notices a forward pass that begins and ends while a tile is sealed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._predictor = predictor_for(*args, **kwargs)

    def __call__(self, pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        sealing = SEALING.is_set()
        layers = self._predictor(pixels, valid)
        if sealing:
            FORWARD_MEANWHILE.set()
        return layers


def test_a_worker_infers_the_next_tile_while_it_seals_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_campaign(tmp_path, at=((0, 0), (0, 1)))
    assert made.campaign.cluster.threads == made.campaign.cluster.tiles_in_flight == 2, "the defaults are enough"
    SEALING.clear()
    FORWARD_MEANWHILE.clear()
    monkeypatch.setattr(run_module, "seal", seal_after_a_forward)
    monkeypatch.setattr(block_mapping, "predictor_for", WatchedPredictor)
    with in_process_client(threads=made.campaign.cluster.threads) as client:
        # A seal that waits in vain fails its tile, and so the run.
        assert len(run_module.run(make_plan(made.campaign), client=client)) == 2
    assert FORWARD_MEANWHILE.is_set()
