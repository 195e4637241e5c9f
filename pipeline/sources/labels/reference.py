"""A reference to judge maps by, or to cut labels from: a raster or polygons of any nomenclature, on any grid."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import pyproj
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FieldError
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from pipeline import legend
from pipeline.errors import SourceError
from pipeline.grid import Affine6
from pipeline.legend import Nomenclature
from pipeline.sources.reading.dataset_cache import gdal_options

_UNKNOWN = 255
"""No number of a class in any nomenclature; 0 is one in FLAIR-HUB."""
_RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")


@dataclass(frozen=True)
class Grid:
    """Pixels to be labelled."""

    shape: tuple[int, int]
    """(rows, columns)."""
    transform: Affine6
    crs: str
    """WKT or `EPSG:…`."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in the CRS; north is up."""
        a, _, c, _, e, f = self.transform
        rows, columns = self.shape
        return (c, f + e * rows, c + a * columns, f)


@dataclass(frozen=True)
class Reference:
    """One file of labels."""

    path: Path
    nomenclature: Nomenclature = "flair19"
    """What its numbers mean."""
    field: str = ""
    """Of polygons: the attribute that holds the number. Empty for a raster."""

    @classmethod
    def open(cls, path: Path, *, nomenclature: Nomenclature = "flair19", field: str = "") -> "Reference":
        """Checks that it is there and what it seems to be.

        Raises:
            SourceError: it cannot be opened, a raster has no CRS or more than a band of integers, or polygons have no
                such attribute.
        """
        reference = cls(path, nomenclature, "" if path.suffix.lower() in _RASTERS else field)
        if path.suffix.lower() in _RASTERS:
            reference._check_raster()
        else:
            reference._check_polygons(field)
        return reference

    def read(self, grid: Grid) -> NDArray[np.uint8]:
        """The labels on a grid: uint8 (y, x) of FLAIR values, 0 where nothing is known or FLAIR has no such class.

        A raster's nearest pixel counts, and the polygon that holds a pixel's centre; of several the last one.

        Raises:
            SourceError: it cannot be read.
        """
        numbers = self._rasterised(grid) if self.field else self._warped(grid)
        table = np.zeros(256, np.uint8)
        for number, value in legend.to_flair(self.nomenclature).items():
            table[number] = value
        return table[numbers]

    def _check_raster(self) -> None:
        with _opened(self.path) as file:
            if file.crs is None or file.count != 1 or file.dtypes[0] != "uint8":
                raise SourceError(
                    f"{self.path}: has {file.count} bands of {file.dtypes[0]}, CRS {file.crs}; expected one band of "
                    "uint8 classes with a CRS"
                )

    def _check_polygons(self, field: str) -> None:
        try:
            info = pyogrio.read_info(self.path)
        except (DataSourceError, DataLayerError) as error:
            raise SourceError(f"{self.path}: is neither a raster nor polygons that can be opened: {error}") from error
        if field not in info["fields"]:
            raise SourceError(
                f"{self.path}: has no attribute {field!r} with the class; name one of {', '.join(info['fields'])}"
            )
        if not info["crs"]:
            raise SourceError(f"{self.path}: has no CRS")

    def _warped(self, grid: Grid) -> NDArray[np.uint8]:
        height, width = grid.shape
        with gdal_options(), _opened(self.path) as file:
            options = {"crs": grid.crs, "transform": Affine(*grid.transform), "height": height, "width": width}
            with WarpedVRT(file, resampling=Resampling.nearest, nodata=_UNKNOWN, **options) as warped:
                try:
                    return warped.read(1)  # type: ignore[no-any-return]
                except RasterioIOError as error:
                    raise SourceError(f"{self.path}: cannot be read: {error.__cause__ or error}") from error

    def _rasterised(self, grid: Grid) -> NDArray[np.uint8]:
        try:
            crs = pyogrio.read_info(self.path)["crs"]
            box = transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=21)
            _, _, wkb, (numbers,) = pyogrio.raw.read(self.path, columns=[self.field], bbox=box)
        except (DataSourceError, DataLayerError, FieldError) as error:
            raise SourceError(f"{self.path}: cannot be read: {error}") from error
        known = legend.to_flair(self.nomenclature)
        if odd := sorted({str(n) for n in numbers if _number(n) not in known})[:10]:
            raise SourceError(
                f"{self.path}: attribute {self.field} has {', '.join(odd)}; expected numbers of {self.nomenclature}: "
                f"{min(known)}..{max(known)}"
            )
        shapes = shapely.from_wkb(wkb)
        if not pyproj.CRS(crs).equals(pyproj.CRS(grid.crs)):
            to_grid = pyproj.Transformer.from_crs(crs, grid.crs, always_xy=True)
            shapes = shapely.transform(shapes, lambda xy: np.column_stack(to_grid.transform(*xy.T)))
        labelled = [(shape, _number(n)) for shape, n in zip(shapes, numbers, strict=True) if not shape.is_empty]
        if not labelled:
            return np.full(grid.shape, _UNKNOWN, np.uint8)
        numbered: NDArray[np.uint8] = rasterize(
            labelled, out_shape=grid.shape, transform=Affine(*grid.transform), fill=_UNKNOWN, dtype="uint8"
        )
        return numbered


def _number(given: object) -> int:
    """A class's number in an attribute that may be text or, beside missing values, a float; −1 for what is none."""
    text = str(given).removesuffix(".0")
    return int(text) if text.isascii() and text.isdigit() else -1


def _opened(path: Path) -> rasterio.DatasetReader:
    try:
        return rasterio.open(path)
    except RasterioIOError as error:
        raise SourceError(f"{path}: cannot be opened as a raster: {error}") from error
