"""A reference to compare maps with, or to cut labels from: a raster or polygons of any nomenclature."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT

from pipeline import legend
from pipeline.errors import SourceError
from pipeline.legend import Nomenclature
from pipeline.sources.gdal_open import environment
from pipeline.sources.reading.dataset_cache import gdal_options
from pipeline.sources.reading.raster import open_raster_file
from pipeline.untrusted.polygons import check_polygons
from pipeline.untrusted.vector_files import errors_named, reading_features

_UNKNOWN = 255
"""No number of a class in any nomenclature; 0 is one in FLAIR-HUB."""
_RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")


@dataclass(frozen=True)
class Reference:
    """One file of labels."""

    path: Path
    nomenclature: Nomenclature = "flair19"
    """The nomenclature of its numbers."""
    field: str = ""
    """For polygons: the attribute with the number. Empty for a raster."""

    @classmethod
    def open(cls, path: Path, *, nomenclature: Nomenclature = "flair19", field: str = "") -> "Reference":
        """Opens and checks a file.

        Raises:
            SourceError: it cannot be opened, a raster has no CRS or is not one band of uint8, or polygons have no
                such attribute.
        """
        reference = cls(path, nomenclature, "" if path.suffix.lower() in _RASTERS else field)
        if path.suffix.lower() in _RASTERS:
            reference._check_raster()
        else:
            reference._check_polygons(field)
        return reference

    def read(self, geobox: GeoBox) -> NDArray[np.uint8]:
        """The labels of a geobox's pixels: uint8 (y, x) of FLAIR values, 0 where none or no such class is known.

        Takes a raster's nearest pixel, or the polygon around a pixel's centre, the last one of several.

        Raises:
            SourceError: it cannot be read.
        """
        numbers = self._rasterised(geobox) if self.field else self._warped(geobox)
        table = np.zeros(256, np.uint8)
        for number, value in legend.to_flair(self.nomenclature).items():
            table[number] = value
        return table[numbers]

    def _opened(self) -> AbstractContextManager[Any]:
        """The raster. One that its user names `.vrt` may be virtual, but reads no server and runs no code."""
        return open_raster_file(self.path, allow_vrt=self.path.suffix.lower() == ".vrt")

    def _check_raster(self) -> None:
        with environment(georeference=True), self._opened() as file:
            if file.crs is None or file.count != 1 or file.dtypes[0] != "uint8":
                raise SourceError(
                    f"{self.path}: has {file.count} bands of {file.dtypes[0]}, CRS {file.crs}; expected one band of "
                    "uint8 classes with a CRS"
                )

    def _check_polygons(self, field: str) -> None:
        with reading_features(self.path, SourceError, expected="a raster or polygons") as name:
            info = pyogrio.read_info(name)
        if field not in info["fields"]:
            raise SourceError(
                f"{self.path}: has no attribute {field!r} with the class; name one of {', '.join(info['fields'])}"
            )
        if not info["crs"]:
            raise SourceError(f"{self.path}: has no CRS")

    def _warped(self, geobox: GeoBox) -> NDArray[np.uint8]:
        with gdal_options(), self._opened() as file:
            place = {"crs": str(geobox.crs), "transform": geobox.affine, "height": geobox.height, "width": geobox.width}
            with WarpedVRT(file, resampling=Resampling.nearest, nodata=_UNKNOWN, **place) as warped:
                return warped.read(1)  # type: ignore[no-any-return]

    def _rasterised(self, geobox: GeoBox) -> NDArray[np.uint8]:
        # With points along the edges, because they are bent in another CRS.
        outline = geobox.extent.segmented(geobox.boundingbox.span_x / 20)
        area = gpd.GeoSeries([outline.geom], crs=str(geobox.crs))
        with reading_features(self.path, SourceError) as name:
            polygons = gpd.read_file(name, columns=[self.field], bbox=area)
            check_polygons(polygons.geometry, self.path, SourceError)
            polygons = polygons.to_crs(str(geobox.crs))
        numbers, known = polygons[self.field], legend.to_flair(self.nomenclature)
        if odd := sorted({str(n) for n in numbers if _number(n) not in known})[:10]:
            raise SourceError(
                f"{self.path}: attribute {self.field} has {', '.join(odd)}; expected numbers of {self.nomenclature}: "
                f"{min(known)}..{max(known)}"
            )
        places = zip(polygons.geometry, numbers, strict=True)
        labelled = [(shape, _number(n)) for shape, n in places if shape and not shape.is_empty]
        if not labelled:
            return np.full(geobox.shape, _UNKNOWN, np.uint8)
        with errors_named(self.path, SourceError, expected="polygons"):
            numbered: NDArray[np.uint8] = rasterize(
                labelled, out_shape=geobox.shape, transform=geobox.affine, fill=_UNKNOWN, dtype="uint8"
            )
        return numbered


def _number(given: object) -> int:
    """A class's number from an attribute that may be text or a float; −1 if it is not a number."""
    text = str(given).removesuffix(".0")
    return int(text) if text.isascii() and text.isdigit() else -1
