"""Change between two editions is what plain code finds on whole images, for any size of files and order of tiles."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401 (registers .rio)
import shapely
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.domain import Domain
from pipeline.grid import Window
from pipeline.products.analysis.change import change
from pipeline.products.analysis.edition_change.change_store import (
    PolygonCounts,
    create_change,
    figures_of,
    write_tables,
)
from pipeline.products.analysis.edition_change.comparison import (
    LAND,
    MAP,
    NONE,
    STABLE,
    UNSURE,
    ChangeJob,
    ChangeTarget,
    EditionLayers,
    TileChange,
    ZoneChange,
    write_change,
)
from pipeline.products.analysis.edition_change.imagery import same_inputs
from pipeline.products.analysis.edition_change.places import draw_places
from pipeline.products.analysis.edition_change.zones import zoning
from pipeline.products.national.edition_record import Edition, Tally
from pipeline.products.national.grid import NationalGrid
from pipeline.products.national.zarr_store import create_store, read_zarr, write_layer
from pipeline.products.stac.collections import write_domain, write_edition
from pipeline.products.tile.seal import seal
from tests.support.products import LIVE, NORTH, PROVENANCE, WEST, stack_of, tile_at

TILE = 200
GRID = NationalGrid(Window(NORTH, WEST, 2 * TILE, 2 * TILE), tile=TILE, shard=TILE, chunk=50)
WHOLE = Window(0, 0, *GRID.extent.shape)
LEAST, UNIT = 60, 40
PAIRS = frozenset({(3421, 3021)})
NAMES = ("landcover", "confidence", "domain")


def write_map(store: Path, seed: int, codes: tuple[int, int]) -> EditionLayers:
    """Patches of four classes with some nodata, any confidence, and two domains side by side."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 5, (80, 80), np.uint8).repeat(5, 0).repeat(5, 1)
    classes = np.where(rng.random(GRID.extent.shape) < 0.05, 1, fine).astype(np.uint8)
    domain = np.full(classes.shape, codes[0], np.uint16)
    domain[:, 150 + 30 * seed :] = codes[1]
    values = {"landcover": classes, "confidence": rng.integers(1, 256, classes.shape, np.uint8), "domain": domain}
    create_store(store, GRID, domains=[], coverage=np.ones((2, 2), np.uint8), coordinates_from=None)
    for row, col in np.ndindex(2, 2):
        part = (slice(row * TILE, (row + 1) * TILE), slice(col * TILE, (col + 1) * TILE))
        for layer in NAMES:
            write_layer(store, layer, (int(row), int(col)), shard=TILE, pixels=values[layer][part])
    return EditionLayers(*(store / layer for layer in NAMES))


@pytest.fixture(scope="module")
def editions(tmp_path_factory: pytest.TempPathFactory) -> tuple[EditionLayers, EditionLayers]:
    folder = tmp_path_factory.mktemp("editions")
    return write_map(folder / "1.zarr", 1, (3421, 6421)), write_map(folder / "2.zarr", 2, (3021, 6421))


ZONES = zoning("commune", [("west", shapely.box(*Window(NORTH, WEST, 400, 130).bounds)), ("none", shapely.Point(0, 0))])


def compare(
    folder: Path, editions: tuple[EditionLayers, EditionLayers], side: int, *, unit: int = UNIT
) -> tuple[ChangeTarget, list[TileChange], ZoneChange]:
    """All tiles in any order; the target, the tiles in order, and their sum."""
    target = ChangeTarget(*editions, folder / "change.zarr", GRID, side, LEAST, unit)
    create_change(target.store, GRID, side=side, coordinates_from=editions[1].domain.parent)
    tiles = [(int(row), int(col)) for row, col in np.ndindex(2, 2)]
    found = {}
    for row, col in random.Random(side).sample(tiles, 4):
        window = Window(NORTH + row * TILE, WEST + col * TILE, TILE, TILE)
        job = ChangeJob((row, col), PAIRS, {"commune": ZONES.meeting(window)})
        found[row, col] = write_change(target, job)
    ordered = [found[tile] for tile in tiles]
    total = ordered[0].zones["all", 0]
    for tile in ordered[1:]:
        total += tile.zones["all", 0]
    return target, ordered, total


def plainly(editions: tuple[EditionLayers, EditionLayers], unit: int) -> dict[str, NDArray[np.generic]]:
    """The same on the whole images."""
    (a, p, d), (b, q, e) = ([read_zarr(getattr(one, name), WHOLE) for name in NAMES] for one in editions)
    known, lesser = (a > 0) & (b > 0), np.minimum(p, q)
    sure = known & (lesser >= LEAST)
    differ = sure & (a != b)
    patches, count = ndimage.label(differ)
    small = np.bincount(patches.ravel(), minlength=count + 1)[patches] < unit
    same = (d == e) | ((d == 3421) & (e == 3021))
    kind = np.select(
        [~known, sure & (a == b), differ & ~small & ~same, differ & ~small & same], [NONE, STABLE, LAND, MAP], UNSURE
    )
    changed = differ & ~small
    return {"a": a, "b": b, "p": p, "q": q, "same": same, "kind": kind, "lesser": lesser, "changed": changed}


Compared = tuple[ChangeTarget, list[TileChange], ZoneChange]


@pytest.fixture(scope="module")
def compared(editions: tuple[EditionLayers, EditionLayers], tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """In files of 100 px: to read only."""
    return compare(tmp_path_factory.mktemp("compared"), editions, 100)


@pytest.mark.parametrize("side", [100, 200])
def test_the_raster_and_the_figures_are_those_of_whole_images(
    editions: tuple[EditionLayers, EditionLayers], compared: Compared, tmp_path: Path, side: int
) -> None:
    target, _, total = compared if side == 100 else compare(tmp_path, editions, side)
    plain = plainly(editions, UNIT)
    assert sorted(np.unique(plain["kind"]).tolist()) == [NONE, STABLE, LAND, MAP, UNSURE]
    np.testing.assert_array_equal(read_zarr(target.store / "change", WHOLE), plain["kind"])
    for layer, values in (("from", plain["a"]), ("to", plain["b"]), ("confidence", plain["lesser"])):
        np.testing.assert_array_equal(read_zarr(target.store / layer, WHOLE), np.where(plain["changed"], values, 0))
    for at, kind in enumerate((LAND, MAP)):
        here = plain["kind"] == kind
        pairs = np.zeros((20, 20), np.int64)
        np.add.at(pairs, (plain["a"][here], plain["b"][here]), 1)
        np.testing.assert_array_equal(total.classes[at], pairs)


def test_the_shares_are_those_of_cover_change(editions: tuple[EditionLayers, EditionLayers], tmp_path: Path) -> None:
    *_, total = compare(tmp_path, editions, 200, unit=1)
    plain = plainly(editions, 1)
    # `.cover.change` knows no imagery: the pixels with the same are left out as no data.
    products = [
        xr.Dataset(
            {"landcover": (("y", "x"), np.where(plain["same"], 0, c)), "confidence": (("y", "x"), s)},
            coords={"y": 100 - 0.2 * np.arange(400), "x": 0.2 * np.arange(400)},
        ).rio.write_crs(2154)
        for c, s in ((plain["a"], plain["p"]), (plain["b"], plain["q"]))
    ]
    expected = change(*products, min_confidence=LEAST / 255)
    figures = figures_of(total, PolygonCounts.none())
    assert figures["land_change_share"] == pytest.approx(expected.changed_share)
    assert figures["if_independent"] == pytest.approx(expected.if_independent, rel=1e-5)
    assert figures["if_together"] == pytest.approx(expected.if_together, rel=1e-5)
    assert figures["land_change_ha"] == pytest.approx(
        expected.matrix.to_numpy().sum() - np.trace(expected.matrix.to_numpy()), abs=1e-4
    )


def test_tables_have_zones_and_places_lie_in_their_stratum(
    editions: tuple[EditionLayers, EditionLayers], compared: Compared, tmp_path: Path
) -> None:
    target, tiles, _ = compared
    zones: dict[tuple[str, int], ZoneChange] = {}
    for tile in tiles:
        for key, zone in tile.zones.items():
            zones[key] = zones[key] + zone if key in zones else zone
    write_tables(tmp_path, [ZONES], zones, {})
    plain = plainly(editions, UNIT)
    areas = pd.read_csv(tmp_path / "areas.csv").set_index("zone")
    assert list(areas.index) == ["all", "west"]
    assert areas.loc["west", "land_change_ha"] == pytest.approx(
        (plain["kind"][:, :130] == LAND).sum() / 250_000, abs=1e-4
    )
    classes = pd.read_csv(tmp_path / "classes.csv")
    assert set(classes.change) == {"land_change", "map_change"}
    assert classes[classes.zone == "all"].ha.sum() == pytest.approx(plain["changed"].sum() / 250_000, abs=2e-3)

    parts = [
        part
        for row, col in np.ndindex(2, 2)
        for part in Window(NORTH + row * TILE, WEST + col * TILE, TILE, TILE).split(100)
    ]
    places = draw_places(target, parts, np.concatenate([tile.kinds for tile in tiles]), size=30, seed=1)
    assert places.stratum.value_counts().to_dict() == {"stable": 30, "land_change": 30, "map_change": 30}
    assert len(set(places.geometry)) == 90
    for place in places.itertuples():
        at = (int(-place.y * 5 // 1) - NORTH, int(place.x * 5 // 1) - WEST)
        assert plain["kind"][at] == {"stable": STABLE, "land_change": LAND, "map_change": MAP}[place.stratum]
        assert (place.confidence, place.to) == (plain["lesser"][at], plain["b"][at])
    again = draw_places(target, parts, np.concatenate([tile.kinds for tile in tiles]), size=30, seed=1)
    assert again.equals(places)


def test_domains_that_were_mapped_from_the_same_files_are_found(tmp_path: Path) -> None:
    def edition(number: int, inputs: dict[str, str]) -> Edition:
        domains = {}
        for name, digest in inputs.items():
            provenance = dataclasses.replace(PROVENANCE, depends_on=(("weights", f"{number}"), ("inputs", digest)))
            sealed = seal(
                tmp_path / f"{number}" / name,
                domain=Domain(name),
                tile=tile_at(0, 1),
                stack=stack_of(number),
                fingerprint="f",
                live=LIVE,
                provenance=provenance,
                inputs=[],
            )
            domains[Domain(name)] = (
                write_domain(sealed.item_path.parent, [sealed], recipe=load_recipe(DEFAULT_RECIPE)),
                [sealed],
            )
        path = tmp_path / "editions" / f"{number:06d}"
        write_edition(path / "catalog", domains, number=number)
        return Edition(path, number, "", GRID, (), "", {}, {}, Tally(), {})

    first = edition(1, {"D034_2021": "imagery", "D030_2024": "other"})
    second = edition(2, {"D030_2021": "imagery", "D034_2024": "third"})
    assert same_inputs(first, second) == {(0, 1): frozenset({(3421, 3021)})}
