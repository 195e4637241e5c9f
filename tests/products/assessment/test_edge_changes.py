"""Seams of sealed tiles and of the national store: each kind of edge by itself, no data left out, borders apart."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.evaluation.seams import Cuts
from pipeline.grid import Tile
from pipeline.products.assessment.edge_changes import Seams, between_tiles, border_seams, neighbours, tile_seams
from pipeline.products.national.edition_record import current_edition
from pipeline.products.tile.seal import SealedTile, seal
from tests.support.products import GRID, LIVE, NORTH, PROVENANCE, TILE, WEST, product, publish, tile_at

CUTS = Cuts(block=100, core=50, stride=8)


def sealed_with(folder: Path, tile: Tile, classes: NDArray[np.uint8]) -> SealedTile:
    """A tile of these classes (y, x)."""
    return seal(
        folder,
        domain=Domain("D064_2021"),
        tile=tile,
        stack=np.stack([classes, np.where(classes == 0, 0, 200).astype(np.uint8)]),
        fingerprint="f0",
        live=LIVE,
        provenance=PROVENANCE,
        inputs=[],
    )


def country(seed: int = 0, size: int = 2 * TILE) -> NDArray[np.uint8]:
    """Classes with changes everywhere alike, uint8 (y, x), a part without data."""
    classes = np.random.default_rng(seed).integers(1, 4, (size, size), np.uint8)
    classes[:37, 61:150] = 0
    return classes


def four(folder: Path, classes: NDArray[np.uint8]) -> list[SealedTile]:
    """Two by two tiles of a country."""
    return [
        sealed_with(folder, tile_at(r, c), classes[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE])
        for r in range(2)
        for c in range(2)
    ]


def counted(tiles: list[SealedTile]) -> Seams:
    return sum(
        (between_tiles(a, b, cuts=CUTS) for a, b in neighbours(tiles)),
        sum((tile_seams(t, cuts=CUTS) for t in tiles), Seams()),
    )


def plain(classes: NDArray[np.uint8], edge: int, *, size: int) -> tuple[int, int, int, int]:
    """(changes, pairs) across columns at `edge`, and beside it, of one tile or two, pixel by pixel."""
    found = [0, 0, 0, 0]
    for column in [edge] + [edge + s * d for d in CUTS.beside for s in (-1, 1)]:
        at = 0 if column == edge else 2
        for row in range(size):
            a, b = int(classes[row, column - 1]), int(classes[row, column])
            if a and b:
                found[at] += a != b
                found[at + 1] += 1
    return (found[0], found[1], found[2], found[3])


def test_each_kind_of_edge_is_counted_once_and_no_data_not_at_all(tmp_path: Path) -> None:
    classes = country()
    found = counted(four(tmp_path, classes))
    edges = {"window": (50, 150, 250, 350), "block": (100, 300), "tile": (200,)}
    for kind, places in edges.items():
        both = [plain(of, p, size=2 * TILE) for p in places for of in (classes, classes.T)]
        assert getattr(found, kind).sums.tolist() == np.sum(both, axis=0).tolist(), kind
    assert found.tile.segments == 2 * 4
    assert all(ratio is not None and not ratio.exceeds(1.0) for ratio in found.ratios.values())


@pytest.mark.parametrize(("kind", "edge"), [("window", 50), ("block", 100), ("tile", 200)])
def test_a_seam_shows_in_its_own_kind_and_in_no_other(tmp_path: Path, kind: str, edge: int) -> None:
    steps = np.random.default_rng(1).random((2 * TILE, 2 * TILE)) < 0.05
    clean = (np.cumsum(steps, axis=1) % 3 + 1).astype(np.uint8)
    seamed = clean.copy()
    seamed[:, edge:] = seamed[:, edge:] % 3 + 1  # every class becomes the next one: changes inside stay as they were
    before, after = (counted(four(tmp_path / name, of)) for name, of in (("clean", clean), ("seamed", seamed)))
    for other in ("window", "block", "tile"):
        was, now = getattr(before, other).sums, getattr(after, other).sums
        assert now[1:].tolist() == was[1:].tolist()
        assert now[0] - was[0] == pytest.approx(0.95 * 2 * TILE if other == kind else 0, abs=25 * (other == kind))


def test_where_core_block_and_tile_are_one_there_are_edges_between_tiles_alone(tmp_path: Path) -> None:
    tiles = four(tmp_path, country())
    cuts = Cuts(block=TILE, core=TILE, stride=8)
    assert tile_seams(tiles[0], cuts=cuts).ratios == dict.fromkeys(("window", "block", "tile"))
    assert between_tiles(tiles[0], tiles[1], cuts=cuts).tile.segments == 1


def test_a_tile_that_cannot_be_read_is_an_error_and_no_count(tmp_path: Path) -> None:
    tile = four(tmp_path, country())[0]
    tile.file("landcover").path.write_bytes(b"II*\0 cut")
    with pytest.raises(ProductError, match=r"landcover\.tif: cannot be read"):
        tile_seams(tile, cuts=CUTS)


def test_borders_of_the_nation_are_counted_where_owners_change_and_only_there(tmp_path: Path) -> None:
    left, top = WEST / 5, -NORTH / 5
    line = left + 1.37 * TILE / 5  # through the second column of tiles, off every edge
    west = shapely.box(left - 1, top - 1000, line, top + 1)
    east = shapely.box(line, top - 1000, left + 1000, top + 1)
    own = {
        Domain("D064_2021"): {tile_at(r, c): 10 * r + c for r in range(2) for c in (0, 1)},
        Domain("D040_2021"): {tile_at(r, c): 50 + 10 * r + c for r in range(2) for c in (1, 2)},
    }
    domains = [
        product(tmp_path, Domain("D064_2021"), own["D064_2021"], boundary=west),
        product(tmp_path, Domain("D040_2021"), own["D040_2021"], boundary=east),
    ]
    publish(tmp_path / "national", domains)
    edition = current_edition(tmp_path / "national")
    assert edition is not None
    assert edition.grid == GRID
    found = border_seams(edition, {d.name: [s.tile for s in d.sealed] for d in domains}, cuts=CUTS)
    # A vertical line through two tiles; each tile's upper twentieth has no data.
    assert found.pairs == 2 * (TILE - TILE // 20)
    only = border_seams(edition, {Domain("D064_2021"): [s.tile for s in domains[0].sealed]}, cuts=CUTS)
    assert only.segments == 0, "a domain has no border with itself"
