"""Who owns and who shows each pixel along borders, as shapely finds it; and what a publish touches."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.grid import Window
from pipeline.products.analysis.open_product import open_product
from pipeline.products.national.edition_record import STORE_LAYERS, Tally, current_edition
from pipeline.products.national.publish_plan import DomainProduct
from pipeline.products.tile.seal import seal
from tests.support.products import GRID, LIVE, NORTH, PROVENANCE, TILE, WEST, product, publish, stack_of, tile_at

A, B, OLD = Domain("D064_2021"), Domain("D065_2022"), Domain("D065_2019")
SHARD = GRID.shard


def at(row: float, col: float) -> tuple[float, float]:
    """Metres of a place in pixels of the grid."""
    return ((WEST + col) / 5, -(NORTH + row) / 5)


# A border that runs slantwise through tiles and shards; a strip along it that both polygons cover; a lake that is in
# neither. No pixel's centre lies on an edge.
WESTERN = shapely.Polygon([at(-50, -50), at(-50, 281.3), at(450, 207.7), at(450, -50)]).difference(
    shapely.Polygon([at(60.2, 60.3), at(60.2, 110.3), at(90.7, 110.3), at(90.7, 60.3)])
)
EASTERN = shapely.Polygon([at(-50, 261.3), at(-50, 650), at(450, 650), at(450, 187.7)])
TILES = {A: [(0, 0), (0, 1), (1, 0), (1, 1)], B: [(0, 1), (1, 1), (0, 2)], OLD: [(1, 1), (1, 2)]}
BOUNDARIES = {A: WESTERN, B: EASTERN, OLD: EASTERN}
SEEDS = {(name, tile): i for i, (name, tile) in enumerate(((n, t) for n, ts in TILES.items() for t in ts), start=1)}
EMPTY = {A: Window(0, 180, 2 * TILE, 70), B: Window(TILE // 2, 230, TILE, 90), OLD: Window(320, 0, 30, 300)}
"""Where a domain's delivery has no imagery, in pixels of the grid, besides the strip of `stack_of`."""
FAILED = {B: {(1, 1)}}


def layers_of(name: str, tile: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    stack = stack_of(seed)
    place = Window(tile[0] * TILE, tile[1] * TILE, TILE, TILE)
    gap = place.intersect(EMPTY[name])
    if gap.pixels:
        stack[(slice(None), *gap.slices_in(place))] = 0
    return stack


def domain(folder: Path, name: str, *, seeds: dict[tuple[str, tuple[int, int]], int] = SEEDS) -> DomainProduct:
    sealed = [
        seal(
            folder / name,
            domain=name,
            tile=tile_at(*tile),
            stack=layers_of(name, tile, seeds[name, tile]),
            fingerprint=f"f{seeds[name, tile]}",
            live=LIVE,
            provenance=PROVENANCE,
            inputs=[],
        )
        for tile in TILES[name]
    ]
    return DomainProduct(
        name=name,
        boundary=BOUNDARIES[name],
        sealed=tuple(sealed),
        expected=tuple(tile_at(*tile).name for tile in TILES[name]),
        failed=frozenset(tile_at(*tile).name for tile in FAILED.get(name, ())),
    )


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> list[DomainProduct]:
    folder = tmp_path_factory.mktemp("domains")
    return [domain(folder, name) for name in TILES]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, domains: list[DomainProduct]) -> Path:
    """All of them in one edition: to read only."""
    national = tmp_path_factory.mktemp("published") / "national"
    publish(national, domains)
    return national


@dataclasses.dataclass(frozen=True)
class Expected:
    """What follows for each pixel of the grid from its centre alone."""

    owner: NDArray[np.uint16]
    """Code, 0 nobody."""
    shown: NDArray[np.uint16]
    values: NDArray[np.uint8]
    """(layer, y, x)"""
    claims: NDArray[np.uint8]
    delivered: NDArray[np.bool_]


def covered() -> dict[str, NDArray[np.bool_]]:
    """Whose polygon covers which pixels' centres."""
    rows, cols = np.mgrid[: GRID.extent.height, : GRID.extent.width]
    x, y = (WEST + cols + 0.5) / 5, -(NORTH + rows + 0.5) / 5
    return {name: shapely.contains_xy(polygon, x, y) for name, polygon in BOUNDARIES.items()}


@pytest.fixture(scope="module")
def expected() -> Expected:
    shape, inside = GRID.extent.shape, covered()
    has = {name: np.zeros(shape, bool) for name in TILES}
    failed = {name: np.zeros(shape, bool) for name in TILES}
    pixels = {name: np.zeros((2, *shape), np.uint8) for name in TILES}
    for (name, tile), seed in SEEDS.items():
        part = tuple(slice(i * TILE, (i + 1) * TILE) for i in tile)
        has[name][part] = True
        failed[name][part] = tile in FAILED.get(name, ())
        pixels[name][(slice(None), *part)] = layers_of(name, tile, seed)
    owner, shown = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    values = np.zeros((2, *shape), np.uint8)
    newest_first = (B, A, OLD)
    for name in newest_first:
        owner[(owner == 0) & has[name] & inside[name]] = name.code
    lost = np.any([(owner == name.code) & failed[name] for name in TILES], axis=0)
    shown[:] = owner
    # The owner is the first that claims, so it comes first here too.
    for claims_it, name in ((claims_it, name) for claims_it in (True, False) for name in newest_first):
        takes = (owner > 0) & ~lost & (values[0] == 0) & has[name] & ~failed[name] & (pixels[name][0] > 0)
        takes &= inside[name] == claims_it
        shown[takes] = name.code
        values[:, takes] = pixels[name][:, takes]
    claims = sum((has[n] & inside[n]).astype(np.uint8) for n in TILES)
    return Expected(owner, shown, values, np.asarray(claims), np.any(list(has.values()), axis=0))


def test_every_pixel_shows_its_owner_or_who_has_imagery_where_the_owner_has_none(
    published: Path, expected: Expected
) -> None:
    nation = open_product(published)
    np.testing.assert_array_equal(nation.domain.values, expected.shown)
    np.testing.assert_array_equal(nation.landcover.values, expected.values[0])
    np.testing.assert_array_equal(nation.confidence.values, expected.values[1])
    # Each of the rule's cases is there.
    lost = np.isin(expected.owner, [B.code]) & (expected.values[0] == 0)
    assert {n.code for n in TILES} <= set(np.unique(expected.shown[expected.shown != expected.owner]))
    assert lost[TILE:].any()
    assert ((expected.shown == expected.owner) & (expected.owner > 0) & (expected.values[0] == 0)).any()


def test_pixels_are_counted_by_who_claims_and_who_shows_them(published: Path, expected: Expected) -> None:
    edition = current_edition(published)
    assert edition is not None
    codes = {name: name.code for name in sorted(TILES)}
    other = expected.shown != expected.owner
    counted = Tally(
        owned={name: int((expected.owner == code).sum()) for name, code in codes.items()},
        filled={name: n for name, code in codes.items() if (n := int((other & (expected.shown == code)).sum()))},
        several=int((expected.claims > 1).sum()),
        nobody=int((expected.delivered & (expected.owner == 0)).sum()),
    )
    assert edition.tally == counted
    assert min(counted.several, counted.nobody, sum(counted.filled.values())) > 100
    for index, tally in edition.tallies.items():
        here = tuple(slice(i * SHARD, (i + 1) * SHARD) for i in index)
        assert tally.several == int((expected.claims[here] > 1).sum())
        assert tally.owned == {n: int(k) for n, code in codes.items() if (k := (expected.owner[here] == code).sum())}


def test_what_a_polygon_covers_outside_its_domains_tiles_is_told(published: Path) -> None:
    edition = current_edition(published)
    assert edition is not None
    for name, polygon in BOUNDARIES.items():
        delivered = shapely.union_all([shapely.box(*tile_at(*tile).window.bounds) for tile in TILES[name]])
        outside = (polygon.area - polygon.intersection(delivered).area) / 1e6
        assert edition.undelivered_km2.get(name, 0.0) == pytest.approx(outside, abs=0.006)


def test_tiles_that_the_polygons_leave_to_nobody_count_as_nobodys(tmp_path: Path, domains: list[DomainProduct]) -> None:
    far = dataclasses.replace(domains[0], boundary=shapely.box(*tile_at(0, 0).window.bounds))
    publish(tmp_path, [far])
    edition = current_edition(tmp_path)
    assert edition is not None
    assert (edition.tally.nobody, edition.tally.owned) == (3 * TILE**2, {A: TILE**2})


def test_publishing_in_either_order_gives_the_same_bytes(
    tmp_path: Path, published: Path, domains: list[DomainProduct]
) -> None:
    for order in ([2, 1, 0], [1, 0, 2]):
        national = tmp_path / "".join(map(str, order))
        for count in (1, 2, 3):
            publish(national, [domains[i] for i in order[:count]], reverse=count == 2)
        assert bytes_of(national) == bytes_of(published)
        one, other = current_edition(national), current_edition(published)
        assert one is not None
        assert other is not None
        assert (one.tallies, one.tally, one.digests) == (other.tallies, other.tally, other.digests)


def bytes_of(national: Path) -> dict[str, bytes]:
    store = national / "current" / "product.zarr"
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def inodes(national: Path) -> dict[tuple[str, int, int], int]:
    store = national / "current" / "product.zarr"
    return {
        (layer, int(p.parent.name), int(p.name)): p.stat().st_ino
        for layer in STORE_LAYERS
        for p in store.glob(f"{layer}/c/*/*")
    }


@pytest.mark.parametrize("name", [A, B])
def test_publishing_a_domain_again_touches_only_shards_where_it_owns_pixels(
    tmp_path: Path, published: Path, domains: list[DomainProduct], name: str
) -> None:
    national = Path(shutil.copytree(published, tmp_path / "national", symlinks=True))
    before, parent = inodes(national), current_edition(national)
    anew = domain(tmp_path, name, seeds={key: seed + 100 for key, seed in SEEDS.items()})
    moved = shapely.affinity.translate(BOUNDARIES[name], 3.1, 0.7)
    plan = publish(national, [dataclasses.replace(anew, boundary=moved) if d.name == name else d for d in domains])
    after, edition = inodes(national), current_edition(national)
    assert parent is not None
    assert edition is not None
    # Where it shows what another lacks, the `domain` layer names it as well.
    its = {i for e in (parent, edition) for i, t in e.tallies.items() if name in t.owned or name in t.filled}
    touched = {key[1:] for key in after if after[key] != before[key]}
    assert touched <= its
    assert touched
    others = [key for key in after if key[1:] not in its]
    assert others
    store = national / "current" / "product.zarr"
    assert {(store / layer / "c" / str(r) / str(c)).stat().st_nlink for layer, r, c in others} == {2}
    assert len(plan.write) + len(plan.link) == len(edition.tallies)


def test_a_shard_that_a_neighbour_did_not_fill_stays_the_same_file(tmp_path: Path) -> None:
    west, east = (shapely.box(*Window(NORTH, WEST + TILE + col, TILE, 100).bounds) for col in (0, 100))
    # Neither has imagery of the tile's northernmost rows.
    a, b = (product(tmp_path, n, {tile_at(0, 1): s}, boundary=p) for n, s, p in ((A, 1, west), (B, 2, east)))
    publish(tmp_path / "national", [a, b])
    before = inodes(tmp_path / "national")
    plan = publish(tmp_path / "national", [a, product(tmp_path / "again", B, {tile_at(0, 1): 3}, boundary=east)])
    assert (0, 2) in [s.index for s in plan.write], "A lacks imagery in the tile, so B's is looked at"
    after = inodes(tmp_path / "national")
    assert {key[1:] for key in after if after[key] != before[key]} == {(0, 3), (1, 3)}
