"""Files for GIS: an index of all COGs as one raster (GTI), QGIS styles, and a quick-look picture.

A GTI (GDAL ≥ 3.9) is a GeoPackage with a rectangle and a relative path for each COG. It does not know the owners of
pixels: where tiles of several domains overlap, the newest vintage is drawn on top, then the first name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from pipeline import legend
from pipeline.durable import replacing
from pipeline.errors import ProductError
from pipeline.grid import RESOLUTION_M, union
from pipeline.legend import LAYERS, Layer, Palette
from pipeline.products.gis.geopackage import write_geopackage
from pipeline.products.gis.legend_files import write_legend
from pipeline.products.stac.hrefs import relative_href
from pipeline.products.tile.seal import SealedTile

QUICK_LOOK_PX = 1600
"""Longer side of a quick-look in pixels, at most."""
STYLES: Mapping[str, Palette] = {"landcover.qml": "flair", "landcover-colour-blind.qml": "safe"}
"""Names of the styles beside a raster index; `landcover legend` writes others."""
_INSET_M = 0.01
"""Each rectangle of the index is this much smaller than its COG, because GDAL 3.10 reads no data where a window only
touches the rectangle of another tile. The index has the whole extent, so no pixel is lost."""


def write_gis(folder: Path, sealed: Sequence[SealedTile], *, quick_look: NDArray[np.uint8], prefix: str = "") -> None:
    """Writes `landcover.gti.gpkg`, `confidence.gti.gpkg`, the styles and `quicklook.png` of these tiles.

    Args:
        folder: of the files; created if missing. Paths of COGs are relative to it, so it must not be moved alone.
        sealed: at least one tile, all on one lattice.
        quick_look: uint8 (y, x) of FLAIR values, 0 for no data.
        prefix: of the names of index and style, such as `D064_2021-`.

    Raises:
        ProductError: no tile is given.
        StorageError: the folder cannot be written.
    """
    if not sealed:
        raise ProductError(f"{folder}: there is no sealed tile to index; `landcover run` maps them")
    for layer in LAYERS:
        write_index(folder / f"{prefix}{layer}.gti.gpkg", sealed, layer=layer)
    for name, palette in STYLES.items():
        write_legend(folder / f"{prefix}{name}", palette=palette)
    write_quick_look(folder / "quicklook.png", quick_look)


def _drawn(sealed: Sequence[SealedTile]) -> list[SealedTile]:
    """Tiles in drawing order, the top ones last."""
    by_name = sorted(sealed, key=lambda s: (s.domain, s.tile.name), reverse=True)
    return sorted(by_name, key=lambda s: s.domain.year)


def write_index(path: Path, sealed: Sequence[SealedTile], *, layer: Layer) -> None:
    """Writes the GTI of one layer, which GDAL and QGIS open as one raster.

    Args:
        path: ends in `.gti.gpkg`, by which GDAL recognizes it.
        sealed: at least one tile, all on one lattice.
        layer: of the COGs.

    Raises:
        StorageError: it cannot be written.
    """
    drawn = _drawn(sealed)
    left, bottom, right, top = union([s.tile.window for s in drawn]).bounds
    boxes = [shapely.box(*s.tile.window.bounds).buffer(-_INSET_M, join_style="mitre") for s in drawn]
    columns = {
        "location": [relative_href(s.file(layer).path, path.parent) for s in drawn],
        "domain": [s.domain for s in drawn],
        "tile": [s.tile.name for s in drawn],
        "z": np.arange(len(drawn), dtype=np.int32),
    }
    place = {"MINX": left, "MINY": bottom, "MAXX": right, "MAXY": top, "RESX": RESOLUTION_M, "RESY": RESOLUTION_M}
    metadata = {key: repr(value) for key, value in place.items()} | {"SORT_FIELD": "z"}
    index = gpd.GeoDataFrame(columns, geometry=boxes, crs=drawn[0].crs)
    write_geopackage(path, index, layer=layer, metadata=metadata)


def write_quick_look(path: Path, classes: NDArray[np.uint8]) -> None:
    """Writes a PNG with a palette: the class colours, no data transparent.

    Args:
        path: ends in `.png`.
        classes: uint8 (y, x) of FLAIR values, 0 for no data.

    Raises:
        StorageError: it cannot be written.
    """
    image = Image.fromarray(classes, "P")
    colours = legend.colormap()
    image.putpalette([part for value in range(256) for part in colours.get(value, (0, 0, 0, 0))[:3]])
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", transparency=legend.NODATA, optimize=True)
