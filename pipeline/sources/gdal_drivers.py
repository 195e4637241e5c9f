"""Drivers and version of the installed GDAL and OpenJPEG."""

import ctypes

import rasterio
import rasterio._base
from rasterio.env import Env

NEEDED = ("JP2OpenJPEG", "VRT", "GTiff", "COG")
"""Drivers that deliveries, the elevation mosaic and products require."""
LISTED = (*NEEDED, "GTI", "Zarr")
"""Drivers that `landcover doctor` lists; nothing fails without the last two."""


def gdal_version() -> str:
    """GDAL's version, such as `3.10.3`."""
    return str(rasterio.__gdal_version__)


def linked_library() -> ctypes.CDLL:
    """The C functions of GDAL and of the libraries that it is linked with, where rasterio has no function for them."""
    return ctypes.CDLL(rasterio._base.__file__)  # noqa: SLF001  (the extension module itself)


def openjpeg_version() -> str:
    """The version of the OpenJPEG that decodes JPEG 2000, such as `2.5.3`; empty where GDAL contains it unnamed."""
    library = linked_library()
    if not hasattr(library, "opj_version"):
        return ""
    library.opj_version.restype = ctypes.c_char_p
    return str(library.opj_version().decode())


def gdal_drivers() -> frozenset[str]:
    """Short names of the drivers in this process."""
    with Env() as environment:
        return frozenset(environment.drivers())
