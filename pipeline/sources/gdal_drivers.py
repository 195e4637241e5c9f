"""Drivers and version of the installed GDAL."""

import rasterio
from rasterio.env import Env

NEEDED = ("JP2OpenJPEG", "VRT", "GTiff", "COG")
"""Drivers that deliveries, the elevation mosaic and products require."""
LISTED = (*NEEDED, "GTI", "Zarr")
"""Drivers that `landcover doctor` lists; nothing fails without the last two."""


def gdal_version() -> str:
    """GDAL's version, such as `3.10.3`."""
    return str(rasterio.__gdal_version__)


def gdal_drivers() -> frozenset[str]:
    """Short names of the drivers in this process."""
    with Env() as environment:
        return frozenset(environment.drivers())
