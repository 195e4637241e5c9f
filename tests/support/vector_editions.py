"""Editions of any class raster, without COGs and levels, and campaigns that name them, for tests of vectors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.grid import Window
from pipeline.products.national.edition_record import MAPPED, STORE_LAYERS
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_store import create_store, write_layer

DOMAINS = (Domain("D033_2021"), Domain("D040_2022"))


def write_edition(
    national: Path, classes: NDArray[np.uint8], *, tile: int, corner: tuple[int, int] = (-34_000_000, 2_000_000)
) -> Path:
    """Writes a map as the current edition 1; returns its folder.

    The western half belongs to the first domain, the eastern half to the second. Confidence follows the place.

    Args:
        national: a new folder.
        classes: (y, x); 0 is added to whole tiles.
        tile: side of a tile in pixels, which is a shard and a chunk too.
        corner: about the row and column of the first pixel, the same for all sizes that divide it.
    """
    row, col = corner
    # The extent begins at a whole tile; the map lies where `corner` says, whatever the size of tiles is.
    top, left = row // tile * tile, col // tile * tile
    height = -(-(row - top + classes.shape[0]) // tile) * tile
    width = -(-(col - left + classes.shape[1]) // tile) * tile
    grid = NationalGrid(Window(top, left, height, width), tile, tile, tile)
    whole = np.zeros((height, width), np.uint8)
    whole[row - top : row - top + classes.shape[0], col - left : col - left + classes.shape[1]] = classes
    y, x = np.indices(whole.shape)
    confidence = ((y + top) * 7 + (x + left) * 13) % 251 + 1
    domain = np.where(x + left < col + classes.shape[1] // 2, *(d.code for d in DOMAINS))
    values: dict[str, Any] = {
        "landcover": whole,
        "confidence": np.where(whole, confidence, 0).astype(np.uint8),
        "domain": np.where(whole, domain, 0).astype(np.uint16),
    }
    folder = national / "editions" / "000001"
    folder.mkdir(parents=True)
    store, tiles = folder / "product.zarr", [(int(i), int(j)) for i, j in np.ndindex(grid.tiles_shape)]
    table = [{"code": d.code, "name": d, "year": d.year, "acquired": ["2021-06-14", "2021-08-02"]} for d in DOMAINS]
    coverage = np.full(grid.tiles_shape, MAPPED, np.uint8)
    create_store(store, grid, domains=table, coverage=coverage, coordinates_from=None)
    for layer in STORE_LAYERS:
        for i, j in tiles:
            (store / layer / "c" / str(i)).mkdir(parents=True, exist_ok=True)
            pixels = values[layer][i * tile : (i + 1) * tile, j * tile : (j + 1) * tile]
            write_layer(store, layer, (i, j), shard=tile, pixels=pixels)
    record = {
        "number": 1,
        "created": "",
        "grid": grid.to_json(),
        "domains": [{"name": d} for d in DOMAINS],
        "metadata": "",
        "shards": {f"{i}/{j}": "x" for i, j in tiles},
    }
    (folder / "edition.json").write_text(json.dumps(record))
    (national / "current").symlink_to(Path("editions", "000001"))
    return folder
