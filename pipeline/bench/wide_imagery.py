"""A domain of one tile that is as wide as IGN's: in it blocks are small beside the tile, and reads overlap.

<imagery>/wide/delivery/…     RVB, IRC, surface and terrain models
<imagery>/wide/catalog/…      the input catalog
<imagery>/wide/complete.json  written last: a folder that has it is used again
"""

import os
from pathlib import Path

from pipeline.bench.codestream import repeat_tiles, small_side
from pipeline.bench.imagery import PatchStack, mirrored, write_height_models
from pipeline.config import Recipe
from pipeline.demo.country import VINTAGES
from pipeline.demo.delivery_writer import IMAGE_BLOCK, write_imagery
from pipeline.durable import write_json
from pipeline.grid import PIXELS_PER_M, Tile, Window
from pipeline.progress import OnMessage
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.untrusted.own_files import remove_own

_DOMAIN = VINTAGES[0].domain
_CORNER = (-6_880_000 * PIXELS_PER_M, 600_000 * PIXELS_PER_M)
"""(row, col) of the tile's north-west corner: a multiple of 5 km."""
_MODEL_SIDE = 5_000
"""Side of the files of surface and terrain models, 1 km as in LiDAR HD, in pixels of the lattice."""


def wide_mosaic(folder: Path, patches: PatchStack, recipe: Recipe, *, side: int, on_message: OnMessage) -> Mosaic:
    """Opens the domain below the folder of the benches' imagery, and makes it first if it is missing or incomplete.

    Args:
        folder: of the imagery.
        patches: the image is made from them.
        recipe: its bands.
        side: of the tile, in pixels.
        on_message: gets a line if the domain is made.

    Raises:
        StorageError: the folder cannot be written.
    """
    root = folder / "wide"
    if not (root / "complete.json").is_file():
        if os.path.lexists(root):
            remove_own(root, pattern="wide", kind="folder")
        on_message(f"imagery: writing a tile of {side} px into {root}")
        _deliver(root / "delivery", patches, side)
        index([root / "delivery"], domain=_DOMAIN, catalog=root / "catalog", tile_size=side)
        write_json(root / "complete.json", {})
    return Mosaic.of(read_domain(root / "catalog", _DOMAIN, tile_size=side), bands=recipe.bands)


def _deliver(delivery: Path, patches: PatchStack, side: int) -> None:
    tile = Tile.at(_CORNER[0] // side * side, _CORNER[1] // side * side, side)
    small = small_side(side, IMAGE_BLOCK)
    write_imagery(delivery, tile, VINTAGES[0], mirrored(patches, Window(0, 0, small, small))[:4])
    for path in delivery.rglob("*.jp2"):
        repeat_tiles(path, side=side, tile=IMAGE_BLOCK)
    model_side = min(side, _MODEL_SIDE)
    heights = mirrored(patches, Window(0, 0, model_side, model_side))[4]
    for part in tile.window.split(model_side):
        write_height_models(delivery, Tile.at(part.row, part.col, model_side), heights)
