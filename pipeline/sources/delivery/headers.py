"""Headers of raster files, and checks that the files are complete; no pixel is decoded."""

import stat
import struct
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from rasterio import crs as rasterio_crs
from rasterio.errors import CRSError, RasterioIOError

from pipeline.errors import DeliveryError, SourceError
from pipeline.grid import Affine6
from pipeline.sources.delivery.names import OVERSEAS
from pipeline.sources.gdal_open import environment, open_dataset
from pipeline.sources.validity import Validity, tiff_blocks

_LATTICES = frozenset({2154, *OVERSEAS.values()})
CRSMatch = Literal["code", "parameters", "absent", "other"]

_DRIVERS = {".jp2": "JP2OpenJPEG", ".tif": "GTiff", ".tiff": "GTiff", ".asc": "AAIGrid"}
"""The only driver that may open a file with this suffix. Going by content, GDAL would also open a virtual raster under
such a name, and follow it to other files."""

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_END_OF_CODESTREAM = b"\xff\xd9"


@dataclass(frozen=True)
class Header:
    """A raster's header."""

    transform: Affine6
    shape: tuple[int, int]
    """(height, width)."""
    count: int
    """Bands."""
    dtype: str
    """numpy's name of the sample type; several where the bands differ."""
    block: tuple[int, int]
    """(height, width) of the internal blocks."""
    nodata: float | None
    crs: CRSMatch
    crs_text: str
    """The lattice's code if the CRS is one of ours, by code or by parameters; else the file's own CRS, shortened."""
    colours: tuple[str, ...] = ()
    """Each band's colour interpretation, by rasterio's names: `red`, `nir`, `alpha`, `undefined`."""
    validity: Validity = field(default_factory=Validity)
    """What it states about which pixels are valid."""
    local: bool = False
    """True for a CRS without a place on the Earth (LOCAL_CS), as some programs write for Lambert-93."""

    @property
    def colour_bands(self) -> int:
        """Number of bands that are not transparency."""
        return self.count - (self.validity.alpha is not None)

    @property
    def north_up(self) -> bool:
        """True where rows run south and columns east, without rotation."""
        return is_north_up(self.transform)


def is_north_up(transform: Affine6) -> bool:
    """True where rows run south and columns east, without rotation."""
    a, b, _, d, e, _ = transform
    return b == 0 and d == 0 and a > 0 and e < 0


def read_header(path: Path) -> Header:
    """Reads a raster's header and checks, without decoding, that the file is complete.

    JPEG 2000: the boxes fit the file and the codestream ends with its marker. TIFF: every block lies in the file.
    Esri ASCII: there are at least two bytes for each value, and the last row is complete.

    Raises:
        DeliveryError: it does not have the format of its suffix, is truncated, or exceeds a limit.
    """
    try:
        check_codestream(path)
        with environment([path], georeference=True), open_dataset(path, driver=_DRIVERS[path.suffix.lower()]) as file:
            check_complete(path, file)
            return header_of(file)
    except SourceError as error:
        raise DeliveryError(str(error)) from error
    except (RasterioIOError, OSError) as error:
        raise DeliveryError(f"{path}: cannot be opened as a raster: {error}; download the file again") from error


def check_codestream(path: Path) -> None:
    """Checks, without opening it, that a file named `.jp2` is a complete JPEG 2000 file.

    Raises:
        SourceError: it is not, or it is truncated.
    """
    if path.suffix.lower() == ".jp2":
        _check_jp2_boxes(path)


def check_complete(path: Path, file: Any) -> None:
    """Checks, without decoding, that the file of an open TIFF or Esri ASCII raster is complete.

    Raises:
        SourceError: it is truncated.
    """
    if file.driver == "GTiff":
        _check_tiff_blocks(path, file)
    elif file.driver == "AAIGrid":
        _check_ascii_rows(path, file)


def peek_header(path: Path) -> Header:
    """Reads a raster's header alone.

    Raises:
        DeliveryError: it does not have the format of its suffix.
    """
    try:
        with environment([path], georeference=True), open_dataset(path, driver=_DRIVERS[path.suffix.lower()]) as file:
            return header_of(file)
    except (RasterioIOError, SourceError, OSError, KeyError) as error:
        raise DeliveryError(f"{path}: cannot be opened as a raster: {error}; download the file again") from error


def header_of(file: Any) -> Header:
    """The header of an open raster."""
    types = sorted(set(file.dtypes))
    match, crs_text = match_crs(file.crs)
    return Header(
        transform=tuple(file.transform)[:6],
        shape=(file.height, file.width),
        count=file.count,
        dtype=", ".join(types),
        block=tuple(file.block_shapes[0]),
        nodata=file.nodata,
        crs=match,
        crs_text=crs_text,
        colours=tuple(c.name for c in file.colorinterp),
        validity=Validity.of(file),
        local=bool(file.crs) and file.crs.to_wkt().startswith(("LOCAL_CS", "ENGCRS")),
    )


@lru_cache(maxsize=256)  # PROJ takes milliseconds to tens of them, and all files of a delivery have the same CRS
def match_crs(crs: rasterio_crs.CRS | None) -> tuple[CRSMatch, str]:
    """Compares a CRS with those of the lattices, by its EPSG code and then by its projection's parameters.

    Returns:
        How it matches, and `EPSG:…` of the lattice, or the CRS itself, shortened, where none matches.
    """
    if crs is None or not crs:
        return "absent", "no CRS"
    try:
        code = crs.to_epsg()
        if code in _LATTICES:
            return "code", f"EPSG:{code}"
        found = crs.to_dict(projjson=False)
    except CRSError:
        return "other", _short(crs)
    # Lambert-93 has other codes too: with heights (5698, in some LiDAR HD files) and for later realisations of RGF93
    # (9794), centimetres apart. UTM zones with other codes have the datums of other continents.
    coded = code is not None and found.get("proj") != "lcc"
    if not coded and (lattice := _lattices_by_parameters().get(_parameters(found))):
        return "parameters", f"EPSG:{lattice}"
    return "other", _short(crs)


@cache
def _lattices_by_parameters() -> dict[tuple[object, ...], int]:
    return {_parameters(rasterio_crs.CRS.from_epsg(code).to_dict(projjson=False)): code for code in _LATTICES}


def _parameters(found: dict[str, Any]) -> tuple[object, ...]:
    """PROJ's parameters of a projection, equal for the same one: the order of standard parallels does not matter."""
    ellipsoid = found.get("ellps", found.get("datum", "GRS80"))
    # The two differ by 0.1 mm; programs that lose the datum write WGS84.
    ellipsoid = "GRS80" if ellipsoid == "WGS84" else ellipsoid
    numbers = [round(float(found.get(key, 0)), 9) for key in ("zone", "south", "lat_0", "lon_0", "x_0", "y_0")]
    parallels = sorted(round(float(found.get(key, 0)), 9) for key in ("lat_1", "lat_2"))
    return (found.get("proj"), found.get("units"), ellipsoid, *numbers, *parallels)


def _short(crs: rasterio_crs.CRS) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else f"{crs.to_wkt()[:60]}…"


def _check_jp2_boxes(path: Path) -> None:
    """Follows the boxes of a JP2 file (ISO/IEC 15444-1, annex I) to the end of its codestream."""
    state = path.stat()
    size = state.st_size
    if not stat.S_ISREG(state.st_mode):
        raise DeliveryError(f"{path}: is not a regular file")
    with path.open("rb") as file:
        if file.read(12) != _JP2_SIGNATURE:
            raise SourceError(f"{path}: not a JPEG 2000 file: its first 12 bytes are not the JP2 signature")
        start, codestream = 12, False
        while start < size:
            file.seek(start)
            length, kind, head = _box(file.read(16))
            # A length of 0 means: to the end of the file.
            end = size if length == 0 else start + length
            if end > size or (length and length < head):
                raise _truncated(path, f"box {kind!r} ends at byte {end}, the file at {size}")
            if kind == b"jp2c":
                codestream = True
                file.seek(end - 2)
                if file.read(2) != _END_OF_CODESTREAM:
                    raise _truncated(path, "the codestream does not end with its marker FFD9")
            start = end
    if not codestream:
        raise _truncated(path, "there is no codestream")


def _box(head: bytes) -> tuple[int, bytes, int]:
    """(length with head, type, bytes of the head) of a box; `head` is its first 16 bytes, or fewer at the end."""
    if len(head) < 8:
        return len(head) + 1, b"", 8
    length, kind = struct.unpack(">I4s", head[:8])
    if length == 1 and len(head) == 16:
        return struct.unpack(">Q", head[8:])[0], kind, 16
    return length, kind, 8


def _check_tiff_blocks(path: Path, file: Any) -> None:
    """Compares the end of each block with the file's size; blocks that were never written have no offset."""
    size = path.stat().st_size
    for _, row, col, offset, length in tiff_blocks(file):
        if offset is not None and (end := offset + length) > size:
            raise _truncated(path, f"block {row}, {col} ends at byte {end}, the file at {size}")


def _check_ascii_rows(path: Path, file: Any) -> None:
    size = path.stat().st_size
    if size < 2 * file.width * file.height:
        raise _truncated(path, f"{size} bytes are too few for {file.height} × {file.width} values")
    # A number has at most 32 bytes in such files, so these bytes contain the whole last row.
    tail = min(size, 32 * file.width)
    with path.open("rb") as text:
        text.seek(size - tail)
        last = text.read(tail).rstrip().split(b"\n")[-1].split()
    if len(last) not in (1, file.width) and len(last) < file.width:
        raise _truncated(path, f"the last row has {len(last)} values of {file.width}")


def _truncated(path: Path, what: str) -> SourceError:
    return SourceError(f"{path}: is truncated: {what}; download the file again")
