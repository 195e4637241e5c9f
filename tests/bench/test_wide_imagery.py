"""A wide file is made of a small file's encoded tiles, and every reader decodes it."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.bench.codestream import repeat_tiles, small_side
from pipeline.demo.delivery_writer import write_raster
from pipeline.grid import Tile
from pipeline.sources.delivery.headers import check_codestream

BLOCK = 256
"""Side of the files' internal tiles in pixels: a quarter of IGN's."""
INTERNAL = {"TILED": "YES", "BLOCKXSIZE": BLOCK, "BLOCKYSIZE": BLOCK}
AS_DELIVERED = INTERNAL | {"driver": "JP2OpenJPEG", "CODEC": "JP2", "QUALITY": 12.5, "REVERSIBLE": "NO"}


@pytest.mark.parametrize("side", [1_125, 1_024, 500])
def test_a_repeated_tile_has_the_pixels_of_the_small_file(tmp_path: Path, side: int) -> None:
    small = small_side(side, BLOCK)
    ramp = np.add.outer(np.arange(small), 2 * np.arange(small)) // 15
    image = np.stack([(ramp + 40 * band) % 251 for band in range(3)]).astype(np.uint8)
    path = tmp_path / "irc.jp2"
    write_raster(path, image, transform=Tile.at(0, 0, 5_000).window.transform, **AS_DELIVERED)
    with rasterio.open(path) as file:
        before, place = file.read(), file.transform
    repeat_tiles(path, side=side, tile=BLOCK)
    check_codestream(path)
    with rasterio.open(path) as file:
        after = file.read()
        assert (file.shape, file.transform) == ((side, side), place)
    edges = range(0, side, BLOCK)
    for row in edges:
        for col in edges:
            rows, cols = (min(BLOCK, side - start) for start in (row, col))
            from_row, from_col = (
                small - size if start + BLOCK > side else start % (3 * BLOCK)
                for start, size in ((row, rows), (col, cols))
            )
            np.testing.assert_array_equal(
                after[:, row : row + rows, col : col + cols],
                before[:, from_row : from_row + rows, from_col : from_col + cols],
            )
