"""A wide file is made of a small file's encoded tiles, and every reader decodes it."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from pipeline.bench.codestream import repeat_tiles, small_side
from pipeline.demo.country import VINTAGES
from pipeline.demo.delivery_writer import IMAGE_BLOCK, write_imagery
from pipeline.grid import Tile
from pipeline.sources.delivery.headers import check_codestream


@pytest.mark.parametrize("side", [4_500, 4_096, 2_000])
def test_a_repeated_tile_has_the_pixels_of_the_small_file(tmp_path: Path, side: int) -> None:
    small = small_side(side, IMAGE_BLOCK)
    ramp = np.add.outer(np.arange(small), 2 * np.arange(small)) // 60
    image = np.stack([(ramp + 40 * band) % 251 for band in range(4)]).astype(np.uint8)
    write_imagery(tmp_path, Tile.at(0, 0, 5_000), VINTAGES[0], image)
    path = next(tmp_path.rglob("*-IRC-*.jp2"))
    with rasterio.open(path) as file:
        before, place = file.read(), file.transform
    repeat_tiles(path, side=side, tile=IMAGE_BLOCK)
    check_codestream(path)
    with rasterio.open(path) as file:
        after = file.read()
        assert (file.shape, file.transform) == ((side, side), place)
    edges = range(0, side, IMAGE_BLOCK)
    for row in edges:
        for col in edges:
            rows, cols = (min(IMAGE_BLOCK, side - start) for start in (row, col))
            from_row, from_col = (
                small - size if start + IMAGE_BLOCK > side else start % (3 * IMAGE_BLOCK)
                for start, size in ((row, rows), (col, cols))
            )
            np.testing.assert_array_equal(
                after[:, row : row + rows, col : col + cols],
                before[:, from_row : from_row + rows, from_col : from_col + cols],
            )
