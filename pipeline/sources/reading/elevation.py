"""Height above ground in the model's units, from surface and terrain models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Window
from pipeline.sources.domain_inputs import CELL, Asset, whole_cells
from pipeline.sources.reading import vrt
from pipeline.sources.reading.dataset_cache import read_band


@dataclass(frozen=True)
class Elevation:
    """DSM − DTM on the lattice; two virtual rasters in metres."""

    surface: str
    """VRT of the surface models, empty text where there are none."""
    terrain: str
    """VRT of the terrain models, empty text where there are none."""

    @classmethod
    def of(cls, assets: Sequence[Asset]) -> "Elevation":
        """From all surface and terrain files among `assets`."""
        return cls(
            vrt.elevation([a for a in assets if a.kind == "dsm"]),
            vrt.elevation([a for a in assets if a.kind == "dtm"]),
        )

    def read_into(self, out: NDArray[np.uint8], window: Window, *, step_m: float) -> NDArray[np.bool_]:
        """Writes heights of a lattice `window` into `out` (uint8, (y, x) of its shape), in units of `step_m` metres.

        Where surface or terrain is unknown nothing is written. Cell by cell, see `inputs.CELL`.

        Returns:
            bool (y, x), True where both are known.

        Raises:
            rasterio.errors.RasterioIOError: a file behind the window cannot be read.
        """
        both_known = np.zeros(window.shape, np.bool_)
        if not (self.surface and self.terrain):
            return both_known
        for cell in whole_cells(window).split(CELL):
            part = cell.intersect(window)
            inside = part.slices_in(cell)
            units, known = height_units(
                read_band(self.surface, cell)[inside], read_band(self.terrain, cell)[inside], step_m=step_m
            )
            if known.all():
                out[part.slices_in(window)] = units
            else:
                np.copyto(out[part.slices_in(window)], units, where=known)
            both_known[part.slices_in(window)] = known
        return both_known


def height_units(
    surface: NDArray[np.float32], terrain: NDArray[np.float32], *, step_m: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(DSM − DTM) / `step_m`, rounded, clipped to 0..255, and where both are known.

    FLAIR's fifth band: one unit is 0.20 m, so 255 units are 51 m (the FLAIR-INC model card).

    Args:
        surface, terrain: float32 (y, x), metres; `vrt.NODATA_M` or not finite where unknown.

    Returns:
        uint8 (y, x), 0 where unknown; bool (y, x), True where both are known.
    """
    height = surface - terrain
    known = (surface != vrt.NODATA_M) & (terrain != vrt.NODATA_M) & np.isfinite(height)
    if not known.all():
        height[~known] = 0
    # In place: reading beside inferring has no core to spare for copies.
    height /= np.float32(step_m)
    np.rint(height, out=height)
    np.clip(height, 0, 255, out=height)
    return height.astype(np.uint8), known
