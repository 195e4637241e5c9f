"""A national edition of France's size for `view`: every tile at 50 m and coarser, four tiles at full resolution.

The files of 50 m of all tiles are links to one tile's, so that the store is written in minutes.
"""

import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.development.publish import synthetic_map
from pipeline.bench.development.synthetic_domains import DELIVERED_TILE
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.legend import LAYERS
from pipeline.products.national.edition_record import MAPPED, STORE_LAYERS, Edition, read_edition
from pipeline.products.national.grid import GridIndex, NationalGrid
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.edition_root import write_root
from pipeline.products.national.pyramid.levels import SHARES, groups, pyramid_of
from pipeline.products.national.pyramid.overviews import write_overviews
from pipeline.products.national.pyramid.store import begin_pyramid
from pipeline.products.national.pyramid.tile_writer import write_tile
from pipeline.products.national.zarr_store import create_store, write_layer

_NORTH_WEST_KM = (90, 7120)
"""(x, y) of metropolitan France's extent."""
_SIDES = {False: (220, 230, 84), True: (6, 6, 3)}
"""Whether the store is small → rows and columns of tiles, and the radius of the disc of tiles that are mapped."""
_EVERYWHERE = "4"
"""The finest level that every tile has."""


def write_nation_store(national: Path, *, quick: bool) -> Edition:
    """Writes the edition of a disc of 22 000 tiles of 25 000 px, or of a few tiles of 5 000 px.

    Args:
        national: a folder to be.
        quick: whether it is the small one.
    """
    rows, cols, radius = _SIDES[quick]
    tile = 5_000 if quick else DELIVERED_TILE
    left, top = (km * 1000 * PIXELS_PER_M for km in _NORTH_WEST_KM)
    grid = NationalGrid(Window(-top, left, rows * tile, cols * tile), tile=tile, shard=tile, chunk=1_000)
    y, x = np.mgrid[:rows, :cols]
    coverage = np.where((y - rows // 2) ** 2 + (x - cols // 2) ** 2 < radius**2, MAPPED, 0).astype(np.uint8)
    tiles = [(int(i), int(j)) for i, j in np.argwhere(coverage)]
    edition = national / "editions" / "000001"
    edition.mkdir(parents=True)
    target = Target(edition / "product.zarr", grid, None)
    create_store(target.store, grid, domains=[], coverage=coverage, coordinates_from=None)
    fine = [(rows // 2 - i, cols // 2 - j) for i in (1, 0) for j in (1, 0)]
    _write_level_0(target, fine[0], synthetic_map(1, tile))
    begin_pyramid(target, former=None, tiles=tiles, changed=tiles)
    cells = write_tile(target, fine[0])
    write_overviews(target, dict.fromkeys(tiles, cells), former=None, tiles=tiles)
    _link(edition, grid, fine, tiles)
    write_root(target.store, grid)
    record = {"number": 1, "created": "", "grid": grid.to_json(), "domains": [], "metadata": "", "shards": {}}
    (edition / "edition.json").write_text(json.dumps(record))
    return read_edition(edition)


def _write_level_0(target: Target, tile: GridIndex, pixels: NDArray[np.uint8]) -> None:
    for layer in STORE_LAYERS:
        (target.store / layer / "c" / str(tile[0])).mkdir(parents=True)
        values = 1 if layer == "domain" else pixels[LAYERS.index(layer)]
        write_layer(target.store, layer, tile, shard=target.grid.tile, pixels=values)


def _link(edition: Path, grid: NationalGrid, fine: list[GridIndex], tiles: list[GridIndex]) -> None:
    """Gives the other tiles the files of the first fine one."""
    pyramid = pyramid_of(edition)
    places = {edition / "product.zarr" / layer / "c": fine for layer in STORE_LAYERS}
    for name in groups(grid):
        there = tiles if name in (_EVERYWHERE, SHARES) else fine
        parts = [Path("count", "c", "0")] if name == SHARES else [Path(layer, "c") for layer in LAYERS]
        places |= {pyramid / name / part: there for part in parts}
    for folder, wanted in places.items():
        first = folder.joinpath(*map(str, fine[0]))
        for row, col in wanted:
            (folder / str(row)).mkdir(exist_ok=True)
            if (row, col) != fine[0]:
                os.link(first, folder / str(row) / str(col))
