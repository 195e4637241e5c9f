"""A domain finds the tiles near a window and the files that changed, without opening a raster."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.grid import Tile, Window, union
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import DomainInputs, InputTile
from tests.sources.catalog.test_index import DOMAIN, SIZE, indexed
from tests.support.deliveries import make_delivery

places = st.integers(-4, 4)
edges = st.integers(-700, 700)


@given(st.sets(st.tuples(places, places), min_size=1), edges, edges, st.integers(0, 500), st.integers(0, 500))
def test_meeting_returns_the_tiles_that_share_a_pixel_with_the_window(
    at: set[tuple[int, int]], row: int, col: int, height: int, width: int
) -> None:
    # Corners are multiples of 50 px, but not on a common grid of tiles.
    tiles = tuple(
        InputTile(Tile(f"{r}-{c}", Window(r * 100 + 50 * (c % 2), c * 100, 100, 100)), ()) for r, c in sorted(at)
    )
    inputs = DomainInputs("D001_2021", union([t.tile.window for t in tiles]), tiles)
    window = Window(row, col, height, width)
    expected = [
        t
        for t in tiles
        if max(t.tile.window.row, row) < min(t.tile.window.bottom, row + height)
        and max(t.tile.window.col, col) < min(t.tile.window.right, col + width)
    ]
    assert list(inputs.meeting(window)) == expected
    nowhere = inputs.around(Window(row + 5_000, col, 10, 10))
    assert nowhere.meeting(window) == nowhere.behind(window) == ()


def test_a_changed_file_behind_several_tiles_is_reported_once(tmp_path: Path) -> None:
    indexed(make_delivery(tmp_path / "in"), tmp_path / "cat")
    inputs = read_domain(tmp_path / "cat", DOMAIN, tile_size=SIZE)
    missing, other, touched = inputs.assets[:3]
    missing.path.unlink()
    other.path.write_bytes(bytes(other.size))
    os.utime(touched.path, (0, 0))
    changes = inputs.changes([*inputs.assets, *reversed(inputs.assets)])
    assert list(changes) == [missing, other], "another date is not another content"
    assert "it is missing" in changes[missing]
    assert "has changed since it was indexed" in changes[other]
