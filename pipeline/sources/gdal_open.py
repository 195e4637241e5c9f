"""The one way in which rasters from outside are opened: by named drivers, in an environment of our own.

Left alone, GDAL goes by a file's content: under the name `ortho.tif` it opens a virtual raster and follows it to other
files and servers, or looks for overviews where a tag or a file beside the raster says. Here a file is opened only by
the drivers of its purpose, its overviews and masks come from the file itself (a mask beside it is refused),
options in the user's environment do not matter, and what a header declares is compared with limits before pixels are
read.
"""

import ctypes
import math
import os
import struct
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.env import getenv, hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader

from pipeline.errors import MALFORMED, SourceError, TransientReadError
from pipeline.sources.gdal_drivers import linked_library
from pipeline.sources.http_client import HEADERS_VARIABLE, UnavailableError, auth_headers, origin
from pipeline.sources.http_path import WebPath
from pipeline.untrusted.escape import for_terminal
from pipeline.untrusted.limits import RASTER_BLOCK_BYTES, RASTER_PIXELS
from pipeline.untrusted.own_files import open_regular

_SIGNATURES = {
    "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JP2OpenJPEG": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "HFA": (b"EHFA_HEADER_TAG",),
}
"""Driver → first bytes of the files that it may open. These formats name no other file, but for overviews."""
_BY_SUFFIX = {".jp2": "JP2OpenJPEG", ".tif": "GTiff", ".tiff": "GTiff", ".asc": "AAIGrid"}

_NO_SIDE_FILES = {
    # No .ovr, .msk or world file beside a raster changes its pixels or place, and no folder of thousands is listed.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
}
_GEOREFERENCE = {
    # World files and .aux.xml are found by name. Use it for headers only: GDAL looks there for overviews and masks too.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_PAM_ENABLED": "YES",
}
_ALWAYS: dict[str, Any] = {
    # One thread a reader: two decode 1.24 times faster for 1.42 times the CPU, and readers are many.
    "GDAL_NUM_THREADS": 1,
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE": "SIBLING_OR_CHILD_OF_VRT_PATH",
    "GDAL_MEM_ENABLE_OPEN": "NO",
    "GDAL_HTTP_HEADERS": "",
    "GDAL_HTTP_HEADER_FILE": "",
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
    # A server that sends next to nothing is not waited for.
    "GDAL_HTTP_CONNECTTIMEOUT": 15,
    "GDAL_HTTP_LOW_SPEED_TIME": 60,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 100,
    # This file system does not heed the list of allowed names below.
    "SWIFT_STORAGE_URL": "",
    "SWIFT_AUTH_V1_URL": "",
    "OS_IDENTITY_API_VERSION": "",
    "CPL_VSIL_CURL_AUTHORIZATION_HEADER_ALLOWED_IF_REDIRECT": "NO",
}
_CREDENTIALS = ("GDAL_HTTP_USERPWD", "GDAL_HTTP_COOKIE", "GDAL_HTTP_COOKIEFILE")
"""GDAL would send these to every server. Those of `.netrc` go to their own host only."""
_NO_NETWORK = {"CPL_VSIL_CURL_ALLOWED_FILENAME": "/vsicurl/none"}

# rasterio warns of a missing georeference. Here it is read once, with the header, and its absence is an error or does
# not matter: pixels are read without the files that may state it. Only this module's own calls are silent.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning, module=__name__.replace(".", r"\."))

_NETWORK_DRIVERS = (
    "WMS WMTS WCS HTTP OGCAPI PLMOSAIC PLSCENES DAAS EEDA EEDAI STACIT STACTA NGW PostGISRaster WFS OAPIF CSW Carto "
    "AmigoCloud Elasticsearch PostgreSQL MySQL"
)


_TIFF_LAYOUTS = {
    order.encode() * 2 + struct.pack(sign + "H", version): (at, sign + offset, sign + number, entry)
    for order, sign in (("I", "<"), ("M", ">"))
    for version, at, offset, number, entry in ((42, 4, "I", "H", 12), (43, 8, "Q", "Q", 20))
}
"""First bytes of a TIFF → where the offset of its directory is, the types of it and of the number of tags, and the
bytes of a tag. Version 43 is BigTIFF."""
_MOST_TAGS = 1000


def environment(web: Iterable[Path] = (), *, georeference: bool = False, network: bool = False, **more: Any) -> Any:
    """GDAL's environment for input from outside, as a context manager.

    Args:
        web: files that will be read. Only if some are on the web, GDAL may send requests, with the credentials of
            `LANDCOVER_STAC_HEADERS` to exactly these files.
        georeference: whether files beside a raster on disk may say where it lies.
        network: whether requests without credentials are allowed in any case.
        more: further options.

    Raises:
        SourceError: while there are credentials: a file on the web cannot be reached, redirects to another origin, or
            the files are of several origins.
    """
    _remove_network_drivers()
    on_web = [p for p in web if isinstance(p, WebPath)]
    _check_one_origin(on_web)
    for path in on_web:
        try:
            _set_headers(str(path), path.gdal_headers())
        except UnavailableError as error:
            raise TransientReadError(str(error)) from error
        except OSError as error:
            raise SourceError(str(error)) from error
    curl = {} if on_web or network else _NO_NETWORK
    side = _GEOREFERENCE if georeference and not on_web else _NO_SIDE_FILES
    # Empty ones are sent too, so only those that are set are emptied.
    none = {name: "" for name in _CREDENTIALS if name in os.environ}
    options = {**_ALWAYS, **none, **side, **curl, **more}
    # Entering an environment takes as long as opening a file.
    same = not on_web and hasenv() and options.items() <= getenv().items()
    return nullcontext() if same else rasterio.Env(**options)


def open_dataset(path: Path, *, driver: str | None = None, allow_vrt: bool = False, **options: Any) -> Any:
    """Opens a raster; call it inside of `environment`.

    Args:
        path: a file, or a `WebPath`.
        driver: the only driver that may open it; by default that of its first bytes, on the web that of its suffix.
        allow_vrt: whether it may be a virtual raster, which names other files.
        options: of rasterio.

    Returns:
        The rasterio dataset.

    Raises:
        RasterioIOError: it cannot be opened, has another format, or names a file of overviews elsewhere.
        SourceError: a limit is exceeded, or its mask is in a file beside it.
    """
    if driver is None:
        driver = _driver_of(path, allow_vrt=allow_vrt)
    elif not isinstance(path, WebPath):
        _head(path)
    if driver == "GTiff" and not isinstance(path, WebPath):
        _check_tags(path)
    check_no_mask_beside(path)
    try:
        with ExitStack() as closing:
            file = closing.enter_context(DatasetReader(gdal_name(path), driver=driver, sharing=False, **options))
            _check_header(file, path)
            closing.pop_all()
    except RasterioIOError:
        raise
    except MALFORMED as error:  # such as a text in the header that is not UTF-8
        raise RasterioIOError(f"{path}: its header cannot be read: {type(error).__name__}: {error}") from error
    return file


def open_own_vrt(xml: str) -> Any:
    """Opens a virtual raster of `reading.vrt`.

    Raises:
        RasterioIOError: it cannot be opened.
    """
    return DatasetReader(xml, driver="VRT", sharing=False)


def _driver_of(path: Path, *, allow_vrt: bool) -> str:
    by_suffix = _BY_SUFFIX.get(path.suffix.lower())
    if isinstance(path, WebPath):
        if by_suffix is None:
            raise RasterioIOError(f"{path.url}: expected a name that ends in {', '.join(_BY_SUFFIX)}")
        return by_suffix
    head = _head(path)
    for driver, signatures in _SIGNATURES.items():
        if head.startswith(signatures):
            return driver
    if by_suffix == "AAIGrid":
        return by_suffix
    if head.lstrip().startswith((b"<VRTDataset", b"<?xml")) and b"<VRTDataset" in head:
        if allow_vrt:
            return "VRT"
        raise RasterioIOError(
            "it is a virtual raster (VRT), which names other files and servers; if you trust its author, "
            "`landcover predict --allow-vrt` reads it; gdal_translate makes a GeoTIFF of it"
        )
    raise RasterioIOError("expected a GeoTIFF or JPEG 2000 file; its first bytes are of neither")


def _head(path: Path) -> bytes:
    """The first bytes of a regular file: GDAL would wait for those of a named pipe."""
    try:
        with open_regular(Path(gdal_name(path))) as file:
            return file.read(1024)
    except OSError as error:
        raise RasterioIOError(f"{path}: {error.strerror or error}") from error


def _check_tags(path: Path) -> None:
    """Refuses a TIFF whose tags do not ascend, as TIFF 6.0, section 2, requires.

    libtiff reads one, such as after a damage of a single tag, with a warning and perhaps other pixels.
    """
    with open_regular(Path(gdal_name(path))) as file:
        head = file.read(16)
        if head[:4] not in _TIFF_LAYOUTS:
            return
        at, offset, number, entry = _TIFF_LAYOUTS[head[:4]]
        try:
            file.seek(struct.unpack_from(offset, head, at)[0])
            count = struct.unpack(number, file.read(struct.calcsize(number)))[0]
            entries = file.read(entry * min(count, _MOST_TAGS))
        except (struct.error, OverflowError):
            return  # the directory lies outside the file, which GDAL reports
    starts = range(0, len(entries) - entry + 1, entry)
    tags = [struct.unpack_from(number[0] + "H", entries, start)[0] for start in starts]
    if tags != sorted(set(tags)):
        raise SourceError(f"{path}: is damaged: the tags of its header are not in ascending order; restore the file")


def _check_header(file: Any, path: object) -> None:
    """Compares what an open raster declares with the limits, and refuses overviews in another file.

    Raises:
        RasterioIOError: it names a file of overviews.
        SourceError: a limit is exceeded.
    """
    what = f"its header declares {file.height} × {file.width} px,"
    RASTER_PIXELS.check(file.width * file.height, path, SourceError, what=what)
    # Values that rasterio reads when they are asked for; what is wrong with them is found here.
    if not all(math.isfinite(number) for number in (*file.transform, *file.bounds)):
        raise RasterioIOError(f"{path}: its header declares the transform {tuple(file.transform)[:6]}")
    file.crs, file.nodatavals, file.tags()
    # Before the first request for overviews, at which GDAL would open that file, with any driver and anywhere.
    if file.tags(ns="OVERVIEWS"):
        raise RasterioIOError(
            f"{path}: names another file as its overviews, which is not allowed; remove the .aux.xml beside it, or the "
            "tag OVERVIEW_FILE in it: gdal_translate -co COPY_SRC_MDD=NO writes a file without"
        )
    bands = file.count if file.interleaving is not None and file.interleaving.name == "pixel" else 1
    for (height, width), dtype in zip(file.block_shapes, file.dtypes, strict=True):
        size = height * width * bands * np.dtype(dtype).itemsize
        RASTER_BLOCK_BYTES.check(size, path, SourceError, what="its header declares")


def gdal_name(path: Path) -> str:
    """The name for GDAL: an absolute path, so that it is neither XML nor a driver's connection string.

    Raises:
        SourceError: it is one of GDAL's virtual files.
    """
    if isinstance(path, WebPath):
        return str(path)
    name = os.path.abspath(path)  # noqa: PTH100  (resolves `..`, and no symbolic links)
    if is_virtual(name):
        archive = name.lower().startswith(("/vsizip", "/vsitar", "/vsigzip", "/vsi7z", "/vsirar"))
        remedy = "unpack the archive first (`unzip ARCHIVE.zip`)" if archive else "copy the file to a disk first"
        raise SourceError(
            f"{for_terminal(path)}: is one of GDAL's virtual files; expected the path of a plain file: {remedy} and "
            "name the file itself"
        )
    return name


def is_virtual(name: object) -> bool:
    """True for the name of one of GDAL's virtual files, such as `/vsizip/ortho.zip/ortho.tif`."""
    return str(name).lower().startswith("/vsi")


def check_no_mask_beside(path: Path) -> None:
    """Refuses a raster whose mask is in a file beside it: it would be ignored, because no such file is read.

    Raises:
        SourceError: there is such a file.
    """
    if isinstance(path, WebPath):
        return
    for suffix in (".msk", ".MSK"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            raise SourceError(
                f"{path}: its mask is in the file {beside.name} beside it, which is not read; write it into the file: "
                f"`GDAL_TIFF_INTERNAL_MASK=YES rio convert {path.name} NEW.tif`"
            )


def _check_one_origin(paths: Sequence[WebPath]) -> None:
    origins = sorted({origin(p.url) for p in paths if auth_headers(p.url)})
    if len(origins) > 1:
        raise SourceError(
            f"files are on {', '.join(origins)}; refused while {HEADERS_VARIABLE} is set, because its headers belong "
            "to one origin: name it by a line with its URL in this variable"
        )


@cache
def _gdal() -> ctypes.CDLL:
    """GDAL's C functions that rasterio has no functions for."""
    gdal = linked_library()
    gdal.GDALGetDriverByName.restype = ctypes.c_void_p
    gdal.GDALDeregisterDriver.argtypes = [ctypes.c_void_p]
    return gdal


@cache
def _remove_network_drivers() -> None:
    """Removes GDAL's drivers for servers from this process: a file of any name may contain their connection strings.

    Virtual rasters open their files with any driver, so a list of drivers at the call does not reach those.
    """
    with rasterio.Env():
        for name in _NETWORK_DRIVERS.split():
            if driver := _gdal().GDALGetDriverByName(name.encode()):
                _gdal().GDALDeregisterDriver(driver)


_sent: dict[str, str] = {}
"""GDAL's name of a web file → headers that GDAL sends for it."""


def _set_headers(name: str, headers: str) -> None:
    """Makes GDAL send headers for exactly one name, whatever else it requests."""
    if _sent.get(name, "") == headers:
        return
    _gdal().VSIClearPathSpecificOptions(name.encode())
    if headers:
        _gdal().VSISetPathSpecificOption(name.encode(), b"GDAL_HTTP_HEADERS", headers.encode())
    _sent[name] = headers
