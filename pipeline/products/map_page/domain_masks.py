"""Where each domain of an edition owns pixels, as the map page needs it to draw one domain at coarse zooms.

Level 0 has a layer of the owners, coarser levels have none. So the page draws there what the owners follow from
(`products.national.ownership`): the tiles that a domain owns pixels of, and polygons in order of rank.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shapely

from pipeline.domain import Domain
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.ownership import read_boundary

_TOLERANCE_M = 10.0
"""A boundary's points may move by so much: less than a pixel of the screen, where the polygons are used."""


def domain_masks(edition: Edition, boundaries: Mapping[Domain, Path]) -> list[dict[str, Any]]:
    """The domains with pixels, those of higher rank first, as JSON-able content.

    Args:
        edition: finished.
        boundaries: the campaign's own files of polygons. A domain without one claims all of its tiles.

    Returns:
        Of each domain `name`; `tiles`, the first of some successive tiles and their number, again and again, counted
        row by row from the north-west; `rings` of its polygon in metres, [x, y, x, y, …] each, or None.

    Raises:
        ProductError: a boundary cannot be read.
    """
    tiles = _tiles(edition)
    ranked = sorted(map(Domain, tiles), key=lambda name: (name not in boundaries, -name.year, name))
    crs = edition.grid.crs
    return [
        {
            "name": name,
            "tiles": _runs(tiles[name]),
            "rings": _rings(read_boundary(boundaries[name], crs=crs)) if name in boundaries else None,
        }
        for name in ranked
    ]


def _tiles(edition: Edition) -> dict[str, set[int]]:
    """Domain → numbers of the tiles that it owns pixels of."""
    found: dict[str, set[int]] = {}
    shards_a_side, columns = edition.grid.tile // edition.grid.shard, edition.grid.tiles_shape[1]
    for (row, col), tally in edition.tallies.items():
        for name in tally.owned:
            found.setdefault(name, set()).add(row // shards_a_side * columns + col // shards_a_side)
    return found


def _runs(numbers: set[int]) -> list[int]:
    runs: list[int] = []
    for number in sorted(numbers):
        if runs and number == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += [number, 1]
    return runs


def _rings(polygon: shapely.Geometry) -> list[list[int]]:
    simple = shapely.simplify(polygon, _TOLERANCE_M)
    rings = shapely.get_rings(shapely.get_parts(simple))
    return [[round(v) for v in shapely.get_coordinates(ring).ravel().tolist()] for ring in rings]
