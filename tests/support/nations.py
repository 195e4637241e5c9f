"""A small national edition without COGs: the layout that publishing leaves, and any classes in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.products.national.edition_record import MAPPED, STORE_LAYERS
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.publish_plan import Target
from pipeline.products.national.pyramid.edition_root import write_root
from pipeline.products.national.pyramid.overviews import write_overviews
from pipeline.products.national.pyramid.store import begin_pyramid
from pipeline.products.national.pyramid.tile_writer import write_tile
from pipeline.products.national.zarr_store import create_store, write_layer


def write_nation(national: Path, grid: NationalGrid, classes: NDArray[np.uint8], *, number: int = 1) -> Path:
    """Writes a map of the whole extent, its levels and shares, as the current edition; returns its folder.

    One shard a tile.
    """
    edition = national / "editions" / f"{number:06d}"
    edition.mkdir(parents=True)
    store, tiles = edition / "product.zarr", [(int(i), int(j)) for i, j in np.ndindex(grid.tiles_shape)]
    create_store(store, grid, domains=[], coverage=np.full(grid.tiles_shape, MAPPED, np.uint8), coordinates_from=None)
    values: dict[str, Any] = {"landcover": classes, "confidence": np.where(classes, 200, 0), "domain": 6421}
    for layer in STORE_LAYERS:
        whole = np.broadcast_to(values[layer], classes.shape)
        for tile in tiles:
            rows, cols = (slice(k * grid.tile, (k + 1) * grid.tile) for k in tile)
            (store / layer / "c" / str(tile[0])).mkdir(parents=True, exist_ok=True)
            write_layer(store, layer, tile, shard=grid.shard, pixels=whole[rows, cols])
    begin_pyramid(Target(store, grid, None), former=None, tiles=tiles, changed=tiles)
    cells = {tile: write_tile(Target(store, grid, None), tile) for tile in tiles}
    write_overviews(Target(store, grid, None), cells, former=None, tiles=tiles)
    write_root(store, grid)
    shards = {f"{i}/{j}": "x" for i, j in tiles}
    record = {"number": number, "created": "", "grid": grid.to_json(), "domains": [], "metadata": "", "shards": shards}
    (edition / "edition.json").write_text(json.dumps(record))
    (national / "current").unlink(missing_ok=True)
    (national / "current").symlink_to(edition.relative_to(national))
    return edition
