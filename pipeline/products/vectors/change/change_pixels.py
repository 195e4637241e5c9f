"""Reads the pixels that become polygons of change: from which class to which, and the lower confidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Window
from pipeline.legend import FLAIR
from pipeline.products.analysis.edition_change.comparison import LAND, MAP
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_store import read_zarr
from pipeline.products.vectors.coverage.regions import Ints
from pipeline.products.vectors.edition_pixels import WindowLayers

_BASE = max(c.value for c in FLAIR) + 1
"""Classes and kinds of change are the digits of a number in this base."""


@dataclass(frozen=True)
class ChangePixels:
    """The raster of a change. A pixel's class says from which class to which it changed, and which kind of change."""

    store: Path
    grid: NationalGrid

    def read(self, window: Window) -> WindowLayers:
        """The layers of a window of the lattice; 0 where nothing changed.

        Raises:
            ProductError: a file cannot be read.
        """
        own = window.within(self.grid.extent)
        kind, before, after = (read_zarr(self.store / name, own).astype(np.uint16) for name in ("change", "from", "to"))
        changed = (kind == LAND) | (kind == MAP)
        classes: NDArray[np.uint16] = np.where(changed, (kind * _BASE + before) * _BASE + after, 0).astype(np.uint16)
        return WindowLayers(classes, read_zarr(self.store / "confidence", own), np.zeros(classes.shape, np.uint16))


def kinds_of(classes: Ints) -> tuple[Ints, Ints, Ints]:
    """(kind of change, class before, class after) of the classes of `ChangePixels`."""
    kind, pair = np.divmod(classes, _BASE**2)
    return kind, *np.divmod(pair, _BASE)


def changed_windows(parts: Sequence[Window], kinds: Ints) -> list[Window]:
    """Windows of the lattice that contain all changed pixels, and one pixel south and east, whose cells own borders.

    Args:
        parts: windows that cover the raster.
        kinds: int64 (part, 5): their pixels of each kind.
    """
    changed = np.flatnonzero(kinds[:, [LAND, MAP]].any(axis=1)).tolist()
    return [Window(w.row, w.col, w.height + 1, w.width + 1) for w in (parts[at] for at in changed)]
