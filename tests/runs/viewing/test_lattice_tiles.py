"""Tiles of the page on the lattice: where they lie, and which addresses are none."""

import pytest

from pipeline.grid import Tile, Window
from pipeline.runs.viewing.lattice_tiles import LatticeTile

CORNER = Window(-34_450_000, 3_000_000, 2_000, 3_000)


def test_an_address_counts_from_the_north_west_corner() -> None:
    finest = LatticeTile.parse("6/2/1", CORNER)
    assert finest == LatticeTile(Window(CORNER.row + 512, CORNER.col + 1024, 512, 512), 1)
    assert LatticeTile.parse("0/0/0", CORNER) == LatticeTile(Window(CORNER.row, CORNER.col, 32_768, 32_768), 64)


@pytest.mark.parametrize(
    "address", ["", "7/0/0", "6/0/4", "6/6/0", "6/-1/0", "6/0/0/0", "6/0/0.png", "6/0/1234567", "٦/0/0"]
)
def test_other_addresses_are_no_tile(address: str) -> None:
    assert LatticeTile.parse(address, CORNER) is None


def test_it_knows_the_product_tiles_below_it_and_their_place() -> None:
    tile = LatticeTile(Window(CORNER.row + 256, CORNER.col + 256, 512, 512), 2)
    below = tile.product_tiles(500)
    assert below == [Tile.at(CORNER.row + i, CORNER.col + j, 500) for i in (0, 500) for j in (0, 500)]
    assert tile.slices(below[3].window.intersect(tile.window)) == (slice(122, 256), slice(122, 256))
