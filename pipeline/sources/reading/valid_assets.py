"""Where the files of a delivery state that pixels are valid, on the lattice."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import PIXELS_PER_M, Window
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.reading.dataset_cache import open_here


def valid_in_asset(
    asset: Asset, part: Window, *, indexes: Sequence[int], pixels: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """The rule of `validity` for a part of the lattice inside a file of imagery.

    Args:
        asset: the file; its catalog says what it states.
        part: position on the lattice, inside of the file's tile.
        indexes: the file's bands that are used, counted from 1.
        pixels: uint8 (band, y, x): these bands of the part.

    Returns:
        bool (y, x). Where pixels are resampled, one is valid if all pixels of the file around it are.

    Raises:
        rasterio.errors.RasterioIOError: the file cannot be read.
    """
    if asset.validity is None:
        return np.ones(part.shape, np.bool_)
    rows = _reach(part.row, part.bottom, first=-asset.bounds[3], step=asset.resolution_m, asset=asset, size=0)
    cols = _reach(part.col, part.right, first=asset.bounds[0], step=asset.resolution_m, asset=asset, size=1)
    own = Window.from_edges(int(rows[0][0]), int(cols[0][0]), int(rows[1][-1]), int(cols[1][-1]))
    as_read = pixels if not (asset.resampled or asset.deep) else None
    with open_here(asset.path, version=asset.signature) as file:
        valid = asset.validity.valid(file, own, indexes=indexes, pixels=as_read)
    if not asset.resampled:
        return valid
    # Number of invalid pixels above and left of each corner: a rectangle has none where four of them cancel out.
    invalid = np.zeros((own.height + 1, own.width + 1), np.int64)
    invalid[1:, 1:] = np.cumsum(np.cumsum(~valid, axis=0), axis=1)
    top, bottom = (at - own.row for at in rows)
    left, right = (at - own.col for at in cols)
    inner = invalid[np.ix_(bottom, right)] + invalid[np.ix_(top, left)]
    return np.asarray(inner == invalid[np.ix_(top, right)] + invalid[np.ix_(bottom, left)])


def _reach(
    start: int, stop: int, *, first: float, step: float, asset: Asset, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, end) of the file's rows or columns on which each of some lattice rows or columns depends.

    Args:
        start, stop: of the lattice.
        first: position of the file's edge in metres, in the direction in which they count.
        step: side of the file's pixels in metres.
        asset: the file.
        size: 0 for rows, 1 for columns.
    """
    at = np.arange(start, stop)
    if not asset.resampled:
        low = at - round(first * PIXELS_PER_M)
        return low, low + 1
    # Resampling uses the pixels that a lattice pixel covers, and bilinearly those beside it.
    edges = ((at / PIXELS_PER_M - first) / step, ((at + 1) / PIXELS_PER_M - first) / step)
    margin = 0.5 if step * PIXELS_PER_M > 1 else 0.0
    low = np.floor(np.round(edges[0] - margin, 6)).astype(np.int64)
    high = np.ceil(np.round(edges[1] + margin, 6)).astype(np.int64)
    return low.clip(0, asset.shape[size] - 1), high.clip(1, asset.shape[size])
