"""Hectares of each class in polygons, to the fraction of a pixel, on the map and on the ellipsoid.

The product is read in blocks, each once for all polygons that meet it. A block is divided into cells of `CELL` pixels.
A cell that lies in a polygon is counted from the share cube, or from its pixels if there is no cube. A cell on a
polygon's edge is counted pixel by pixel, each weighted by its share inside. Both are exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from shapely.geometry.base import BaseGeometry

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.grid import Window, union
from pipeline.products.analysis.dataset_geobox import geobox_of, in_pixels, true_area, window_boxes, window_touched
from pipeline.products.analysis.lazy_zarr import open_group
from pipeline.products.analysis.pixel_fractions import Floats, fractions
from pipeline.products.national.edition_record import OUTSIDE
from pipeline.products.national.pyramid.downsample import CLASSES
from pipeline.progress import SILENT, Progress

CELL = 500
"""Pixels a side of a cell: the 100 m of the share cube at level 0."""
_BLOCK = 10 * CELL


@dataclass(frozen=True, eq=False)
class ZoneAreas:
    """Areas of the classes in each zone; class 0 is no data."""

    plane_m2: Floats
    """float64 (zone, class): square metres of the map's projection."""
    ellipsoid_m2: Floats
    """float64 (zone, class): square metres on the ellipsoid."""


@dataclass(frozen=True, eq=False)
class Counted:
    """A product to count, and its share cube if there is one."""

    landcover: xr.DataArray
    """uint8 (y, x), lazy."""
    geobox: GeoBox
    cube: xr.DataArray | None
    """uint32 (class, y, x): counts in cells from the same corner; None to count pixels."""
    outside: NDArray[np.bool_] | None = None
    """bool (tile_y, tile_x): True where the nation has no tile, and so the cube no cells; None without a cube."""

    @classmethod
    def of(cls, product: xr.Dataset, shares: Path | None) -> "Counted":
        """Takes a Dataset and, if it is the unchanged level 0 of an edition, the group of its share cube.

        Raises:
            ProductError: the cube does not lie on the product.
        """
        geobox = geobox_of(product)
        if shares is None:
            return cls(product["landcover"], geobox, None)
        cube = open_group(shares.parent, shares.name)
        cells = geobox_of(cube)
        corners = [(g.affine.c, g.affine.f) for g in (cells, geobox)]
        if [n * CELL for n in cells.shape] != list(geobox.shape) or corners[0] != corners[1]:
            raise ProductError(f"{shares}: its cells, {cells}, do not lie on the product's pixels, {geobox}")
        counts = cube["count"].reindex({"class": np.arange(CLASSES)}, fill_value=0)
        return cls(product["landcover"], geobox, counts, product["coverage"].to_numpy() == OUTSIDE)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Classes of a window: uint8 (y, x), 0..19.

        Raises:
            ProductError: there is another value, or a file cannot be read.
        """
        rows, cols = window.slices
        classes: NDArray[np.uint8] = self.landcover.isel(y=rows, x=cols).to_numpy()
        if classes.size and classes.max() >= CLASSES:
            raise ProductError(f"land cover has the value {classes.max()} in {window}; expected 0..{CLASSES - 1}")
        return classes

    def cells(self, block: Window, wanted: NDArray[np.bool_]) -> Floats:
        """float64 (cell, class): pixels of a block's cells from the cube; 0 where a cell is not `wanted`.

        Raises:
            ProductError: cells are lost, which Zarr itself reads as empty.
        """
        if self.cube is None or self.outside is None:
            raise ProductError("the product has no share cube")
        rows, cols = (slice(s.start // CELL, s.stop // CELL) for s in block.slices)
        counts = self.cube.isel(y=rows, x=cols).to_numpy().reshape(CLASSES, -1).T.astype(np.float64)
        lacking = wanted & (counts.sum(axis=1) != CELL * CELL)
        if lacking.any():
            tile = self.geobox.shape[0] // len(self.outside)
            tiles = [(c.row // tile, c.col // tile) for c in block.split(CELL)]
            nothing = np.array([bool(self.outside[t]) for t in tiles])
            if (lacking & ~nothing).any():
                at = tiles[int(np.argmax(lacking & ~nothing))]
                raise ProductError(f"the share cube lacks cells of the tile in row, column {at}; publish again")
            counts[nothing, legend.NODATA] = CELL * CELL
        counts[~wanted] = 0
        return counts


@dataclass(frozen=True, eq=False)
class _Read:
    """The pixels of a part of a block."""

    window: Window
    classes: NDArray[np.uint8]

    def count(self, window: Window, weights: Floats | None = None) -> Floats:
        """float64 (class,): pixels of a window inside, each counted as its weight (y, x)."""
        chosen = self.classes[window.slices_in(self.window)].ravel()
        counts = np.bincount(chosen, None if weights is None else weights.ravel(), minlength=CLASSES)
        return counts.astype(np.float64)


def count_zones(counted: Counted, zones: NDArray[np.object_], *, progress: Progress = SILENT) -> ZoneAreas:
    """Counts all zones in one pass over the product.

    Memory: one block, the zones, and 40 numbers for each zone.

    Args:
        zones: valid polygons of the product's CRS; they may overlap.
        progress: counts rows of blocks.

    Raises:
        ProductError: the product cannot be read, or its CRS is not projected.
    """
    found = ZoneAreas(np.zeros((len(zones), CLASSES)), np.zeros((len(zones), CLASSES)))
    tree = shapely.STRtree(zones)
    reach = window_touched(counted.geobox, tuple(shapely.total_bounds(zones))) if len(zones) else Window(0, 0, 0, 0)
    stripes = list(_stripes(Window(0, 0, *counted.geobox.shape), reach))
    progress.start(len(stripes))
    for blocks in progress.track(stripes):
        block, zone = tree.query(window_boxes(counted.geobox, blocks), predicate="intersects")
        for k in np.unique(block):
            _count_block(counted, blocks[k], zones, zone[block == k], found)
    return found


def _stripes(whole: Window, reach: Window) -> Iterator[list[Window]]:
    """Rows of blocks that meet a window, aligned with the product's corner, as the cube is."""
    for row in range(reach.row // _BLOCK * _BLOCK, reach.bottom, _BLOCK):
        columns = range(reach.col // _BLOCK * _BLOCK, reach.right, _BLOCK)
        yield [Window(row, col, _BLOCK, _BLOCK).intersect(whole) for col in columns]


def _count_block(
    counted: Counted, block: Window, zones: NDArray[np.object_], here: NDArray[np.integer], found: ZoneAreas
) -> None:
    """Adds the counts of one block to the zones that meet it."""
    geobox = counted.geobox
    cells = list(block.split(CELL))
    boxes = window_boxes(geobox, cells)
    pieces = shapely.intersection(zones[here], window_boxes(geobox, [block])[0])
    shapely.prepare(pieces)
    covered = shapely.covers(pieces[:, None], boxes[None])
    cut = shapely.intersects(pieces[:, None], boxes[None]) & ~covered
    centres = shapely.centroid(boxes)
    ellipsoid = true_area(geobox, shapely.get_x(centres), shapely.get_y(centres))
    inside, to_read = covered.any(axis=0), cut.any(axis=0)
    if counted.cube is None:
        to_read |= inside
    region = union([cells[k] for k in np.flatnonzero(to_read)]) if to_read.any() else Window(block.row, block.col, 0, 0)
    pixels = _Read(region, counted.read(region) if region.pixels else np.zeros((0, 0), np.uint8))
    counts = _cell_counts(counted, block, inside, pixels)
    pixel_m2 = geobox.resolution.x**2
    for k, zone in enumerate(here):
        whole = counts[covered[k]] * pixel_m2
        found.plane_m2[zone] += whole.sum(axis=0)
        found.ellipsoid_m2[zone] += ellipsoid[covered[k]] @ whole
        for cell in np.flatnonzero(cut[k]):
            part = _cut_cell(geobox, shapely.intersection(pieces[k], boxes[cell]), cells[cell], pixels) * pixel_m2
            found.plane_m2[zone] += part
            found.ellipsoid_m2[zone] += part * ellipsoid[cell]


def _cell_counts(counted: Counted, block: Window, inside: NDArray[np.bool_], pixels: _Read) -> Floats:
    """float64 (cell, class): counts of the cells in `inside`, from the cube or from the pixels."""
    if counted.cube is not None and inside.any():
        return counted.cells(block, inside)
    counts = np.zeros((len(inside), CLASSES))
    for k, cell in enumerate(block.split(CELL)):
        if inside[k]:
            counts[k] = pixels.count(cell)
    return counts


def _cut_cell(geobox: GeoBox, part: BaseGeometry, cell: Window, pixels: _Read) -> Floats:
    """float64 (class,): pixels of a cell inside a part of a polygon, in fractions of a pixel."""
    if part.is_empty:
        return np.zeros(CLASSES)
    window = window_touched(geobox, part.bounds).intersect(cell)
    return pixels.count(window, fractions(in_pixels(geobox[window.slices], part), window.shape))
