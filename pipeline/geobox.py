"""Windows of the lattice as odc-geo's `GeoBox`: shape, affine and CRS in one value, for files and people."""

from affine import Affine
from odc.geo.geobox import GeoBox

from pipeline.grid import PIXELS_PER_M, Window


def lattice_geobox(window: Window, crs: str, factor: int = 1) -> GeoBox:
    """The geobox of a window of the lattice.

    Args:
        window: on the lattice.
        crs: `EPSG:…` of the lattice.
        factor: lattice pixels a side of a cell; divides the window's height and width.

    Example:
        >>> lattice_geobox(Window(-34_450_000, 2_975_000, 25_000, 25_000), "EPSG:2154").boundingbox.bbox
        (595000.0, 6885000.0, 600000.0, 6890000.0)
    """
    left, _, _, top = window.bounds
    size = factor / PIXELS_PER_M
    shape = (window.height // factor, window.width // factor)
    return GeoBox(shape, Affine(size, 0.0, left, 0.0, -size, top), crs)
