"""Where a delivery's imagery is fill: uniform black or white that is connected to the delivery's edge.

Seen on the lowest resolution level, where a tile of 25 000² px has some 800²; a uniform field inside the
delivery (a roof, a lake) is connected to no edge of it and stays data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.features import shapes
from scipy import ndimage
from shapely.geometry import box, shape

from pipeline.errors import DeliveryError
from pipeline.grid import RESOLUTION_M, Tile
from pipeline.sources.inputs import Fill

VALUES = (0, 255)
"""Black and white: what IGN's deliveries are filled with beyond the border."""

_TOLERANCE = 2
"""Levels by which lossy compression lets a uniform field ring."""

_COARSE_CELLS = 1024
"""At most so many cells a side are read, where a file has no level so low."""

_GROWN_CELLS = 2
"""Pixels are fill up to somewhere in the cell beyond a uniform one, and a wavelet smooths over one cell more."""

_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)
"""Cells that touch at a corner are connected."""

Labels = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Coarse:
    """Uniform regions of a tile that touch the tile's edge."""

    factor: int
    """Pixels of the tile a cell's side."""
    labels: Mapping[int, Labels]
    """Value → int32 (y, x): 0 = none, others number the regions."""


def coarse(rvb: Path, irc: Path | None) -> Coarse:
    """Reads the lowest resolution level of a tile's imagery; all components must be uniform.

    Raises:
        DeliveryError: a file cannot be read.
    """
    levels = [_lowest_level(path) for path in (rvb, irc) if path is not None]
    factor = max(f for f, _, _ in levels)
    # Two files of one tile may have other levels: the finer one is thinned to the coarser.
    stack = [_thinned(pixels, finer=f, factor=factor, size=size) for f, size, pixels in levels]
    height, width = (min(p.shape[axis] for p in stack) for axis in (1, 2))
    labels = {}
    for value in VALUES:
        uniform = np.ones((height, width), np.bool_)
        for pixels in stack:
            difference = pixels[:, :height, :width] if value == 0 else 255 - pixels[:, :height, :width]
            uniform &= (difference <= _TOLERANCE).all(axis=0)
        labels[value] = _touching_edge(uniform)
    return Coarse(factor, labels)


def _touching_edge(uniform: NDArray[np.bool_]) -> Labels:
    if not uniform.any():
        return np.zeros(uniform.shape, np.int32)
    labels: Labels
    labels, _ = ndimage.label(uniform, structure=_NEIGHBOURS, output=np.int32)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    labels[~np.isin(labels, edge)] = 0
    return labels


def _lowest_level(path: Path) -> tuple[int, tuple[int, int], NDArray[np.uint8]]:
    """(pixels a cell's side, (height, width) of the file, uint8 (band, y, x)) of a file's lowest level."""
    try:
        with rasterio.Env(GDAL_NUM_THREADS=1):
            with rasterio.open(path) as file:
                levels, size = file.overviews(1), file.shape
            options: dict[str, Any] = {"overview_level": len(levels) - 1} if levels else {}
            factor = levels[-1] if levels else 1
            with rasterio.open(path, **options) as file:
                step = -(-max(file.shape) // _COARSE_CELLS)
                out = (file.count, -(-file.height // step), -(-file.width // step))
                pixels: NDArray[np.uint8] = file.read(out_shape=out, resampling=Resampling.nearest)
    except RasterioIOError as error:
        cause = error.__cause__ or error
        raise DeliveryError(f"{path}: its lowest level cannot be read: {cause}; deliver the file again") from error
    return factor * step, size, pixels


def _thinned(pixels: NDArray[np.uint8], *, finer: int, factor: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cells of `finer` pixels as cells of `factor` pixels, by the cell at the middle."""
    if finer == factor:
        return pixels
    rows, cols = (
        np.minimum((np.arange(-(-extent // factor)) * factor + factor // 2) // finer, cells - 1)
        for extent, cells in zip(size, pixels.shape[1:], strict=True)
    )
    thinned: NDArray[np.uint8] = pixels[:, rows][:, :, cols]
    return thinned


def outer_fill(tiles: Mapping[Tile, Coarse]) -> dict[Tile, tuple[Fill, ...]]:
    """The fill of each tile that has some: regions connected, across tiles, to where the delivery ends."""
    found: dict[Tile, tuple[Fill, ...]] = {}
    for value in VALUES:
        regions = {tile: c.labels[value] for tile, c in tiles.items() if c.labels[value].any()}
        for tile, numbers in sorted(_connected_outside(regions, tiles.keys()).items()):
            inside = np.isin(regions[tile], sorted(numbers))
            found[tile] = (*found.get(tile, ()), _polygons(tile, value, inside, factor=tiles[tile].factor))
    return found


def _connected_outside(regions: Mapping[Tile, Labels], tiles: Any) -> dict[Tile, set[int]]:
    """Tile → its regions' numbers that reach an edge without a neighbour, directly or through neighbours."""
    at = {(t.window.row, t.window.col): t for t in tiles}
    reached: dict[Tile, set[int]] = {}
    waiting: list[tuple[Tile, int]] = []
    links: dict[tuple[Tile, int], set[tuple[Tile, int]]] = {}
    for tile, labels in regions.items():
        size = tile.window.height
        for (down, right), own, other in _SIDES:
            edge = labels[own]
            neighbour = at.get((tile.window.row + down * size, tile.window.col + right * size))
            if neighbour is None:
                waiting += [(tile, int(n)) for n in np.unique(edge[edge > 0])]
            elif neighbour in regions:
                for pair in _pairs(edge, regions[neighbour][other]):
                    links.setdefault((tile, pair[0]), set()).add((neighbour, pair[1]))
    while waiting:
        tile, number = waiting.pop()
        if number not in reached.setdefault(tile, set()):
            reached[tile].add(number)
            waiting += links.get((tile, number), ())
    return reached


_ALL = slice(None)
_SIDES: tuple[tuple[tuple[int, int], Any, Any], ...] = (
    ((-1, 0), (0, _ALL), (-1, _ALL)),
    ((1, 0), (-1, _ALL), (0, _ALL)),
    ((0, -1), (_ALL, 0), (_ALL, -1)),
    ((0, 1), (_ALL, -1), (_ALL, 0)),
)
"""(rows down, columns right) to the neighbour in tiles, the own edge, and the neighbour's edge that touches it."""


def _pairs(edge: Labels, other: Labels) -> set[tuple[int, int]]:
    """Numbers of regions that touch across two edges, which may have other numbers of cells."""
    aligned = other[np.arange(len(edge)) * len(other) // len(edge)]
    both = (edge > 0) & (aligned > 0)
    return {(int(a), int(b)) for a, b in zip(edge[both], aligned[both], strict=True)}


def _polygons(tile: Tile, value: int, inside: NDArray[np.bool_], *, factor: int) -> Fill:
    """The region grown by `_GROWN_CELLS`: where a pixel's own value decides."""
    left, bottom, right, top = tile.window.bounds
    side_m = factor * RESOLUTION_M
    grown = ndimage.binary_dilation(inside, structure=_NEIGHBOURS, iterations=_GROWN_CELLS)
    transform = Affine(side_m, 0.0, left, 0.0, -side_m, top)
    found = [shape(g) for g, _ in shapes(grown.astype(np.uint8), mask=grown, connectivity=4, transform=transform)]
    # The last cells may pass the tile's edge.
    tile_box = box(left, bottom, right, top)
    parts = [p for polygon in found for p in _parts(polygon.intersection(tile_box))]
    return Fill(value, tuple(tuple(_ring(r) for r in (p.exterior, *p.interiors)) for p in sorted(parts, key=_corner)))


def _parts(geometry: Any) -> list[Any]:
    if geometry.geom_type == "Polygon":
        return [geometry] if geometry.area > 0 else []
    return [g for g in geometry.geoms if g.geom_type == "Polygon"] if hasattr(geometry, "geoms") else []


def _corner(polygon: Any) -> tuple[float, ...]:
    return tuple(polygon.bounds)


def _ring(ring: Any) -> tuple[tuple[float, float], ...]:
    """Corners of cells are multiples of 0.2 m."""
    return tuple((round(x, 1), round(y, 1)) for x, y in ring.coords)
