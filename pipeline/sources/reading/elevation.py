"""Height above ground, in the units of the network, from surface and terrain models."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Window
from pipeline.sources.domain_inputs import CELL, Asset, whole_cells
from pipeline.sources.reading import vrt
from pipeline.sources.reading.dataset_cache import read_band


def read_heights(
    assets: Sequence[Asset], out: NDArray[np.uint8], window: Window, *, step_m: float
) -> NDArray[np.bool_]:
    """Writes the heights of a lattice window, DSM − DTM, into an array, except where one of the models is unknown.

    The window is read cell by cell, see `domain_inputs.CELL`.

    Args:
        assets: files, from whose surface and terrain models the heights are computed.
        out: uint8 (y, x) with the shape of the window.
        window: position on the lattice.
        step_m: metres of one unit.

    Returns:
        bool (y, x): True where both models are known.

    Raises:
        rasterio.errors.RasterioIOError: a file behind the window cannot be read.
    """
    surface, terrain = (vrt.elevation([a for a in assets if a.kind == kind]) for kind in ("dsm", "dtm"))
    both_known = np.zeros(window.shape, np.bool_)
    if not (surface and terrain):
        return both_known
    for cell in whole_cells(window).split(CELL):
        part = cell.intersect(window)
        inside = part.slices_in(cell)
        units, known = height_units(read_band(surface, cell)[inside], read_band(terrain, cell)[inside], step_m=step_m)
        if known.all():
            out[part.slices_in(window)] = units
        else:
            np.copyto(out[part.slices_in(window)], units, where=known)
        both_known[part.slices_in(window)] = known
    return both_known


def height_units(
    surface: NDArray[np.float32], terrain: NDArray[np.float32], *, step_m: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(DSM − DTM) / `step_m`, rounded and clipped to 0..255.

    FLAIR's fifth band: one unit is 0.20 m, so 255 units are 51 m (the FLAIR-INC model card).

    Args:
        surface: float32 (y, x) in metres; `vrt.NODATA_M` or not finite where unknown.
        terrain: likewise.
        step_m: metres of one unit.

    Returns:
        Heights as uint8 (y, x), 0 where unknown; and bool (y, x), True where both are known.
    """
    height = surface - terrain
    known = (surface != vrt.NODATA_M) & (terrain != vrt.NODATA_M) & np.isfinite(height)
    if not known.all():
        height[~known] = 0
    # In place, because reading runs beside inference and has no core to spare for copies.
    height /= np.float32(step_m)
    np.rint(height, out=height)
    np.clip(height, 0, 255, out=height)
    return height.astype(np.uint8), known
