"""Refuses a virtual raster whose valid pixels cannot be told: it names files, and leaves out what they state."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader
from shapely import box, union_all

from pipeline.errors import SourceError
from pipeline.sources.gdal_open import check_no_mask_beside
from pipeline.sources.validity import Validity

_REMEDY = (
    "make it again with gdalbuildvrt, which writes a mask band or nodata values, or write a GeoTIFF with a mask: "
    "`GDAL_TIFF_INTERNAL_MASK=YES rio convert`"
)
_SOURCES = "Source"
"""End of the names of a band's elements that name a file: SimpleSource, ComplexSource and others."""


def check_sources(file: Any, stated: Validity, path: Path) -> None:
    """Compares what a virtual raster states about its valid pixels with its files.

    Args:
        file: the open virtual raster.
        stated: what it states itself.
        path: its file, for messages.

    Raises:
        SourceError: its files do not cover it, or exclude pixels, and it states neither mask nor nodata.
    """
    if stated.masks or stated.alpha is not None:
        return
    root = ET.fromstring(file.tags(ns="xml:VRT")["xml:VRT"])  # noqa: S314  (GDAL's own text of what it parsed)
    bands = root.findall("VRTRasterBand")
    for band, nodata in zip(bands, stated.nodata or (None,) * len(bands), strict=False):
        if nodata is None and not _covered(band, file.width, file.height):
            raise SourceError(
                f"{path}: its files do not cover it, and it has neither a mask nor nodata for the rest; {_REMEDY}"
            )
    # A source with <NODATA> leaves those pixels out, so they have the virtual raster's own value.
    own = {v for v in stated.nodata if v is not None}
    replaced = root.find(".//NODATA") is not None and bool(own)
    for name in file.files[1:]:
        found = _stated_by(Path(name))
        values = {v for v in found.nodata if v is not None}
        if found.masks or found.alpha is not None or found.unwritten or not (replaced or values <= own):
            raise SourceError(
                f"{path}: {name} states which of its pixels are valid (a mask, transparency, nodata values or blocks "
                f"that were never written), and the virtual raster does not; {_REMEDY}"
            )


def _covered(band: ET.Element, width: int, height: int) -> bool:
    """True if the files of a band cover all of its pixels."""
    places = [s.find("DstRect") for s in band if s.tag.endswith(_SOURCES)]
    edges = [[float(p.get(key, 0)) for key in ("xOff", "yOff", "xSize", "ySize")] for p in places if p is not None]
    if len(edges) < len(places):
        return True  # a source without a place fills the band
    area = union_all([box(x, y, x + w, y + h) for x, y, w, h in edges]).intersection(box(0, 0, width, height)).area
    return bool(area > width * height - 0.5)


def _stated_by(path: Path) -> Validity:
    check_no_mask_beside(path)
    try:
        with DatasetReader(str(path), sharing=False) as file:
            return Validity.of(file)
    except RasterioIOError as error:
        raise SourceError(f"{path}: cannot be opened for a virtual raster: {error}") from error
