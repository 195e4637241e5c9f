"""Forwards of an engine as the benches time and compare them."""

import time

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.imagery import Imagery, mirrored
from pipeline.grid import Window
from pipeline.inference import Predictor


def window_image(imagery: Imagery, side: int) -> NDArray[np.uint8]:
    """One window of the mirrored patches as a batch: uint8 (1, band, side, side)."""
    return mirrored(imagery.patches, Window(0, 0, side, side))[None]


def forward_seconds(predictor: Predictor, images: NDArray[np.uint8]) -> float:
    """Seconds that the predictor takes for a batch (n, band, y, x) in which every pixel is valid."""
    valid = np.ones((len(images), *images.shape[2:]), np.bool_)
    start = time.perf_counter()
    predictor(images, valid)
    return time.perf_counter() - start


def class_maps(predictor: Predictor, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Maps patches one by one: uint8 (patch, band, y, x) → FLAIR values, uint8 (patch, y, x)."""
    valid = np.ones((1, *patches.shape[2:]), np.bool_)
    return np.stack([predictor(patch[None], valid)[0, 0] for patch in patches])


def agreement(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Share of pixels that have the same class in both maps, 0..1."""
    return float((a == b).mean())
