"""Finds the fill of a delivery's imagery: uniform black or white that is connected to the delivery's edge.

It is found on the lowest resolution level, where a tile of 25 000² px has about 800² cells. A uniform area inside the
delivery (a roof, a lake) is not connected to an edge and remains data.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely.geometry import shape

from pipeline.grid import Tile
from pipeline.sources.domain_inputs import Fill
from pipeline.sources.inspection.lowest_level import FILL_VALUES, NEIGHBOURS, Labels, LowestLevel

_GROWN_CELLS = 2
"""Fill ends somewhere in the cell beyond the last uniform one, and a wavelet smooths over one more cell."""

_Side = tuple[int, int]
"""(rows, columns) of tiles to the neighbour that touches an edge."""
_ALL = slice(None)
_EDGES: dict[_Side, Any] = {(-1, 0): (0, _ALL), (1, 0): (-1, _ALL), (0, -1): (_ALL, 0), (0, 1): (_ALL, -1)}
"""Side → the place of its cells in a tile's array."""


def outer_fill(tiles: Mapping[Tile, LowestLevel]) -> dict[Tile, tuple[Fill, ...]]:
    """The fill of each tile that has any: regions that are connected, across tiles, to the delivery's edge."""
    found: dict[Tile, tuple[Fill, ...]] = {}
    for value in FILL_VALUES:
        edges = {tile: _edges(level.labels(value)) for tile, level in tiles.items() if level.packed[value]}
        for tile, numbers in sorted(_connected_outside(edges, tiles.keys()).items()):
            inside = np.isin(tiles[tile].labels(value), sorted(numbers))
            found[tile] = (*found.get(tile, ()), _polygons(tile, value, inside, cell_m=tiles[tile].cell_m))
    return found


def _edges(labels: Labels) -> dict[_Side, Labels]:
    """The four edges of a tile's regions, copied so that the unpacked regions are freed."""
    return {side: labels[at].copy() for side, at in _EDGES.items()}


def _connected_outside(edges: Mapping[Tile, Mapping[_Side, Labels]], tiles: Any) -> dict[Tile, set[int]]:
    """Tile → numbers of its regions that reach an edge without a neighbour, directly or through other tiles."""
    at = {(t.window.row, t.window.col): t for t in tiles}
    reached: dict[Tile, set[int]] = {}
    waiting: list[tuple[Tile, int]] = []
    links: dict[tuple[Tile, int], set[tuple[Tile, int]]] = {}
    for tile, sides in edges.items():
        size = tile.window.height
        for (down, right), edge in sides.items():
            neighbour = at.get((tile.window.row + down * size, tile.window.col + right * size))
            if neighbour is None:
                waiting += [(tile, int(n)) for n in np.unique(edge[edge > 0])]
            elif neighbour in edges:
                for pair in _pairs(edge, edges[neighbour][-down, -right]):
                    links.setdefault((tile, pair[0]), set()).add((neighbour, pair[1]))
    while waiting:
        tile, number = waiting.pop()
        if number not in reached.setdefault(tile, set()):
            reached[tile].add(number)
            waiting += links.get((tile, number), ())
    return reached


def _pairs(edge: Labels, other: Labels) -> set[tuple[int, int]]:
    """Numbers of regions that touch across two edges, which may differ in their number of cells."""
    aligned = other[np.arange(len(edge)) * len(other) // len(edge)]
    both = (edge > 0) & (aligned > 0)
    return {(int(a), int(b)) for a, b in zip(edge[both], aligned[both], strict=True)}


def _polygons(tile: Tile, value: int, inside: NDArray[np.bool_], *, cell_m: float) -> Fill:
    """The region grown by `_GROWN_CELLS`; inside it a pixel's own value decides."""
    from scipy import ndimage

    left, bottom, right, top = tile.window.bounds
    grown = ndimage.binary_dilation(inside, structure=NEIGHBOURS, iterations=_GROWN_CELLS)
    transform = Affine(cell_m, 0.0, left, 0.0, -cell_m, top)
    found = [shape(g) for g, _ in shapes(grown.astype(np.uint8), mask=grown, connectivity=4, transform=transform)]
    # The last cells may reach beyond the tile's edge.
    parts = shapely.get_parts(shapely.intersection(found, shapely.box(left, bottom, right, top)))
    polygons = sorted((p for p in parts if p.geom_type == "Polygon" and p.area > 0), key=lambda p: tuple(p.bounds))
    return Fill(value, tuple(tuple(_ring(r) for r in (p.exterior, *p.interiors)) for p in polygons))


def _ring(ring: Any) -> tuple[tuple[float, float], ...]:
    """A ring's points, rounded because corners of cells are multiples of 0.2 m."""
    return tuple((round(x, 1), round(y, 1)) for x, y in ring.coords)
