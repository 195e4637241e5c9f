"""Finds class maps on disk and reads them by windows: a GeoTIFF, a folder of COGs, or the national Zarr."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from pipeline.errors import ProductError
from pipeline.geobox import lattice_geobox
from pipeline.grid import Window
from pipeline.products.national.edition_record import MAPPED, Edition, current_edition
from pipeline.products.national.generalised.layer import LAYER_STORE, read_layer
from pipeline.products.national.grid import lost_files
from pipeline.products.national.zarr_store import check_whole, read_zarr, refuse
from pipeline.products.tile.cog import open_cog, read_cog
from pipeline.sources.delivery.header_problems import placement_problem

_SUFFIX = "-landcover.tif"


@dataclass(frozen=True)
class ClassMap:
    """A raster of FLAIR values, or a tile of the national Zarr. Its file is opened when it is read."""

    path: Path
    """The GeoTIFF, or the Zarr."""
    name: str
    domain: str
    """`D064_2021`; empty if the file's name has no domain."""
    window: Window
    """Its pixels in the file, from the file's own corner."""
    geobox: GeoBox
    """Geobox of the whole file; `geobox[window.slices]` is that of a window."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """The classes of a window inside `.window`: uint8 (y, x), FLAIR values, 0 no data.

        Raises:
            ProductError: it cannot be read.
        """
        if self.path.suffix == ".zarr":
            return read_zarr(self.path / "landcover", window)
        return read_cog(self.path, window)

    @property
    def confidence(self) -> Path | None:
        """The file or array of the map's confidence; None where there is none."""
        if self.path.suffix == ".zarr":
            return self.path / "confidence"
        if not self.path.name.endswith(_SUFFIX):
            return None
        beside = self.path.with_name(f"{self.path.name.removesuffix(_SUFFIX)}-confidence.tif")
        return beside if beside.is_file() else None

    def read_confidence(self, window: Window) -> NDArray[np.uint8]:
        """The confidence of a window inside `.window`: uint8 (y, x), 0..255.

        Raises:
            ProductError: there is none, it cannot be read, or it has another shape than the map.
        """
        path = self.confidence
        if path is None:
            raise ProductError(f"{self.path}: has no map of confidence beside it")
        found = read_zarr(path, window) if self.path.suffix == ".zarr" else read_cog(path, window)
        if found.shape != window.shape:
            raise ProductError(f"{path}: expected {window.shape} px at {window}, found {found.shape}")
        return found


def find_maps(place: Path) -> tuple[ClassMap, ...]:
    """The class maps of a GeoTIFF, of a folder of `…-landcover.tif` at any depth, or of a national product.

    Raises:
        ProductError: there is none, a raster is not a class map, or the national store is not complete.
    """
    if place.is_file():
        return (_of_file(place),)
    edition = current_edition(place) if place.is_dir() else None
    if edition is not None:
        check_whole(edition)
        return tuple(_of_nation(edition))
    found = tuple(_of_file(path) for path in sorted(place.rglob(f"*{_SUFFIX}")))
    if not found:
        raise ProductError(f"{place}: no class maps there; expected a GeoTIFF, *{_SUFFIX}, or a national product")
    return found


def find_generalised(place: Path) -> tuple[ClassMap, ...]:
    """The generalised map of a national product, in the tiles of `find_maps`; empty where there is none.

    Raises:
        ProductError: it is not complete.
    """
    edition = current_edition(place) if place.is_dir() else None
    layer = None if edition is None else read_layer(edition.path)
    if edition is None or layer is None:
        return ()
    store = layer.folder / LAYER_STORE
    refuse(edition, lost_files([store / "landcover" / "c"], edition.digests))
    return tuple(replace(one, path=store.absolute()) for one in _of_nation(edition))


def _of_file(path: Path) -> ClassMap:
    with open_cog(path) as cog:
        file = cog.dataset
        if file.count != 1 or file.dtypes[0] != "uint8" or file.crs is None:
            raise ProductError(
                f"{path}: has {file.count} bands of {file.dtypes[0]}, CRS {file.crs}; expected one of uint8 classes"
            )
        if placed := placement_problem(tuple(file.transform)[:6]):
            raise ProductError(f"{path}: {placed}")
        stem = path.name.removesuffix(_SUFFIX)
        domain = "_".join(stem.split("-")[0].split("_")[:2]) if stem.startswith("D") else ""
        geobox = GeoBox.from_rio(file)
        return ClassMap(path.absolute(), stem, domain, Window(0, 0, *geobox.shape), geobox)


def _of_nation(edition: Edition) -> Iterator[ClassMap]:
    grid, store = edition.grid, edition.store.absolute()
    geobox = lattice_geobox(grid.extent, grid.crs)
    coverage = read_zarr(store / "coverage", Window(0, 0, *grid.tiles_shape))
    for row, col in np.argwhere(coverage == MAPPED).tolist():
        window = Window(row * grid.tile, col * grid.tile, grid.tile, grid.tile)
        yield ClassMap(store, f"tile {row}, {col}", "", window, geobox)
