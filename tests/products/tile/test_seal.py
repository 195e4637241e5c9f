"""The tile is the transaction: done is what has an item, and the item tells the truth."""

import json
import math
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import ProductError
from pipeline.fingerprint import file_sha256
from pipeline.grid import Tile
from pipeline.products.tile import seal as item
from pipeline.products.tile.seal import list_sealed, matches, read_sealed, remove_unfinished, seal
from pipeline.products.tile.verify import check
from tests.support.products import LIVE, PROVENANCE, TILE, sealed_at, stack_of, tile_at

DOMAIN = Domain("D064_2021")


def reseal(folder: Path, tile: Tile, stack: Any, **changes: Any) -> Any:
    given = {"domain": DOMAIN, "fingerprint": "f1", "live": LIVE, "provenance": PROVENANCE, "inputs": []}
    return seal(folder, tile=tile, stack=stack, **(given | changes))


def test_a_sealed_tile_is_read_back_and_whole(tmp_path: Path) -> None:
    tile, stack = tile_at(0, 0), stack_of(4)
    sealed = sealed_at(tmp_path, tile, seed=4)
    assert read_sealed(tmp_path, DOMAIN, tile) == sealed
    assert matches(sealed) == []
    assert check(sealed) == []
    values, counts = np.unique(stack[0], return_counts=True)
    assert sealed.class_pixels == dict(zip(values.tolist(), counts.tolist(), strict=True))
    for facts, pixels in zip(sealed.files, stack, strict=True):
        assert facts.sha256 == file_sha256(facts.path)
        with rasterio.open(facts.path) as dataset:
            np.testing.assert_array_equal(dataset.read(1), pixels)
            assert dataset.bounds == tile.window.bounds
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{DOMAIN}-{tile.name}-confidence.tif",
        f"{DOMAIN}-{tile.name}-landcover.tif",
        f"{DOMAIN}-{tile.name}.json",
    ]


def degrees(x: float, y: float) -> tuple[float, float]:
    """Longitude and latitude of a point of Lambert-93, by the formulas and constants of IGN's note NT/G 71."""
    n, c, e = 0.7256077650532670, 11754255.42609601, 0.08181919104281579
    east, south = x - 700_000, 12655612.049875975 - y
    longitude = math.radians(3) + math.atan(east / south) / n
    isometric = -math.log(math.hypot(east, south) / c) / n
    latitude = 0.0
    for _ in range(20):
        latitude = math.asin(math.tanh(isometric + e * math.atanh(e * math.sin(latitude))))
    return math.degrees(longitude), math.degrees(latitude)


def test_the_item_passes_pystacs_core_validation_and_says_where_and_how(tmp_path: Path) -> None:
    tile = tile_at(1, 2)
    sealed = sealed_at(tmp_path, tile)
    content = json.loads(sealed.item_path.read_bytes())
    JsonSchemaSTACValidator().validate_core(content, pystac.STACObjectType.ITEM, "1.1.0")
    read = pystac.Item.from_file(sealed.item_path)
    assert read.ext.proj.code == "EPSG:2154"
    assert tuple(read.ext.proj.transform) == tile.window.transform
    assert read.assets["landcover"].ext.file.size == sealed.files[0].size
    assert read.assets["landcover"].ext.file.checksum == "1220" + sealed.files[0].sha256
    assert read.ext.sci.doi == PROVENANCE.doi
    assert Path(read.assets["confidence"].get_absolute_href()) == sealed.files[1].path
    assert read.properties["start_datetime"] == "2021-01-01T00:00:00Z"
    assert read.properties["end_datetime"] == "2021-12-31T23:59:59Z"
    assert [c["value"] for c in read.assets["landcover"].extra_fields["classification:classes"]] == [0, *LIVE]
    outline = shapely.geometry.shape(read.geometry)
    left, bottom, right, top = tile.window.bounds
    corners = shapely.MultiPoint([degrees(x, y) for x in (left, right) for y in (bottom, top)])
    assert outline.hausdorff_distance(corners.convex_hull) < 1e-7
    assert outline.exterior.is_ccw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.astype(np.int16), "uint8"),
        (lambda s: s[:, :-1], "shape"),
        (lambda s: s[:1], "shape"),
        (lambda s: np.where(s == 5, np.uint8(13), s), r"classes \[13\] occur"),
        (lambda s: np.stack([s[0], s[1] * (np.arange(TILE) != 7)]), "column 7 has class"),
        (lambda s: np.stack([s[0] * (np.arange(TILE) != 7), s[1]]), "class 0 with confidence"),
    ],
)
def test_a_stack_that_cannot_be_is_refused_and_nothing_is_written(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ProductError, match=message):
        reseal(tmp_path, tile_at(0, 0), change(stack_of(4)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails_at", [0, 1])
def test_when_a_tile_is_sealed_again_its_item_goes_before_its_files_change(
    tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tile = tile_at(0, 0)
    former = sealed_at(tmp_path, tile, seed=1)
    calls = []

    def failing(path: Path, pixels: Any, **rest: Any) -> Any:
        calls.append(former.item_path.exists())
        if len(calls) > fails_at:
            raise ProductError("the disk is full")
        return item_write(path, pixels, **rest)

    item_write = item.write_cog
    monkeypatch.setattr(item, "write_cog", failing)
    with pytest.raises(ProductError, match="the disk is full"):
        reseal(tmp_path, tile, stack_of(2))
    assert not any(calls)
    assert read_sealed(tmp_path, DOMAIN, tile) is None
    monkeypatch.undo()
    reseal(tmp_path, tile, stack_of(1), fingerprint="f0")
    assert check(sealed_again := item_of(tmp_path, tile)) == []
    assert sealed_again.files == former.files


def item_of(folder: Path, tile: Tile) -> item.SealedTile:
    sealed = read_sealed(folder, DOMAIN, tile)
    assert sealed is not None
    return sealed


CHILD = """
import pickle, sys
from pipeline.products.tile.seal import seal
folder, given, stack = pickle.load(sys.stdin.buffer)
for number in range(1_000_000):
    seal(folder, stack=stack, fingerprint=str(number), **given)
"""


@pytest.mark.parametrize("wait", [0.0, 0.11])
def test_kill_9_at_any_moment_leaves_a_whole_tile_or_none(tmp_path: Path, wait: float) -> None:
    tile = tile_at(0, 0, 1000)
    given = {"domain": DOMAIN, "tile": tile, "live": LIVE, "provenance": PROVENANCE, "inputs": []}
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(pickle.dumps((tmp_path, given, stack_of(5, 1000))))
        child.stdin.close()
        while child.poll() is None and not any(tmp_path.glob("*.json")):
            time.sleep(0.005)
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    sealed = read_sealed(tmp_path, DOMAIN, tile)
    assert sealed is None or check(sealed) == []
    assert check(sealed_at(tmp_path, tile, seed=99)) == []
    assert len(list(tmp_path.iterdir())) == 3


def test_a_tile_without_item_does_not_exist(tmp_path: Path) -> None:
    sealed = sealed_at(tmp_path, tile_at(0, 0))
    sealed.item_path.unlink()
    assert read_sealed(tmp_path, DOMAIN, tile_at(0, 0)) is None
    assert read_sealed(tmp_path / "nowhere", DOMAIN, tile_at(0, 0)) is None
    assert list_sealed(tmp_path, DOMAIN, TILE) == ()


@pytest.mark.parametrize("damage", ["{", "[]", '{"properties": {}}', "other tile", "other checksum"])
def test_a_damaged_item_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    sealed = sealed_at(tmp_path, tile_at(0, 0))
    if damage == "other tile":
        damage = sealed.item_path.read_text().replace(sealed.tile.name, tile_at(0, 1).name)
    elif damage == "other checksum":
        damage = sealed.item_path.read_text().replace("1220", "1114")
    sealed.item_path.write_text(damage)
    with pytest.raises(ProductError, match=rf"{sealed.item_path.name}: damaged item.*landcover run"):
        read_sealed(tmp_path, DOMAIN, tile_at(0, 0))


def test_lists_the_tiles_of_one_domain_in_order(tmp_path: Path) -> None:
    tiles = [tile_at(0, 1), tile_at(0, 0)]
    for tile in tiles:
        sealed_at(tmp_path, tile)
    sealed_at(tmp_path, tile_at(0, 0), domain=Domain("D065_2021"))
    assert [s.tile for s in list_sealed(tmp_path, DOMAIN, TILE)] == sorted(tiles)
    assert list_sealed(tmp_path / "nowhere", DOMAIN, TILE) == ()


def rewrite_tiff(path: Path, **profile: Any) -> None:
    """The same pixels in another kind of TIFF."""
    with rasterio.open(path) as dataset:
        pixels, given = dataset.read(), dataset.profile | profile
    with rasterio.open(path, "w", **given) as dataset:
        dataset.write(pixels)


def adopt(sealed: item.SealedTile) -> item.SealedTile:
    """The item made to promise the files as they are now, so that only deeper checks can see the damage."""
    text = sealed.item_path.read_text()
    for facts in sealed.files:
        text = text.replace(facts.sha256, file_sha256(facts.path))
        text = text.replace(f'"file:size": {facts.size}', f'"file:size": {facts.path.stat().st_size}')
    write_json(sealed.item_path, json.loads(text), own_checksum=True)
    return item_of(sealed.item_path.parent, sealed.tile)


def test_the_cheap_look_sees_missing_and_cut_files(tmp_path: Path) -> None:
    sealed = sealed_at(tmp_path, tile_at(0, 0))
    with sealed.files[0].path.open("r+b") as file:
        file.truncate(100)
    sealed.files[1].path.unlink()
    assert [p.partition(": ")[2][:9] for p in matches(sealed)] == ["100 bytes", "missing; "]


def test_the_full_look_sees_a_changed_byte(tmp_path: Path) -> None:
    sealed = sealed_at(tmp_path, tile_at(0, 0))
    content = bytearray(sealed.files[1].path.read_bytes())
    content[-10] ^= 1
    sealed.files[1].path.write_bytes(content)
    assert matches(sealed) == []
    (problem,) = check(sealed)
    assert "confidence.tif: checksum mismatch" in problem


def test_the_full_look_sees_what_checksums_cannot(tmp_path: Path) -> None:
    tile = tile_at(0, 0)
    sealed = sealed_at(tmp_path, tile)
    rewrite_tiff(
        sealed.files[0].path, tiled=True, blockxsize=256, blockysize=256, transform=rasterio.Affine(1, 0, 5, 0, -1, 5)
    )
    text = " ".join(check(adopt(sealed)))
    assert "layout is None, expected COG" in text
    assert "block is (256, 256)" in text
    assert "transform is" in text

    sealed = sealed_at(tmp_path, tile)
    other = sealed_at(tmp_path / "other", tile, seed=9)
    other.files[0].path.replace(sealed.files[0].path)
    assert any("has class pixels" in p for p in check(adopt(sealed)))

    sealed = sealed_at(tmp_path, tile)
    write_json(sealed.item_path, json.loads(sealed.item_path.read_text()) | {"type": "Thing"}, own_checksum=True)
    assert any("not a valid STAC item" in p for p in check(sealed))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProductError, match="cannot be sealed there"):
        sealed_at(tmp_path / "file" / "D064_2021", tile_at(0, 0))


def test_what_a_killed_run_left_of_a_tile_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    mine = [".D064_2021-0595-6890-landcover.tif.1f.tmp", ".D064_2021-0595-6890-landcover.tif.1f.tmp.ovr.tmp"]
    mine.append(".D064_2021-0595-6890.json.2a.tmp")
    others = [".D064_2021-0600-6890-landcover.tif.1f.tmp", "D064_2021-0595-6890-landcover.tif"]
    for name in mine + others:
        (tmp_path / name).touch()
    removed = remove_unfinished(tmp_path, Domain("D064_2021"), Tile.named("0595-6890", 25_000))
    assert sorted(p.name for p in removed) == sorted(mine)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)
