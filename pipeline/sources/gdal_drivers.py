"""What the installed GDAL can read and write."""

import rasterio
from rasterio.env import Env

NEEDED = ("JP2OpenJPEG", "VRT", "GTiff", "COG")
"""Drivers that deliveries, the elevation mosaic and products go through."""
LISTED = (*NEEDED, "GTI", "Zarr")
"""Drivers that are told besides; nothing fails without them."""


def gdal_version() -> str:
    """GDAL's version, `3.10.3`."""
    return str(rasterio.__gdal_version__)


def gdal_drivers() -> frozenset[str]:
    """Short names of the drivers that this process has."""
    with Env() as environment:
        return frozenset(environment.drivers())
