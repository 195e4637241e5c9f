"""Planned reads give the files' own pixels, decode each internal tile once, and keep to their memory."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.grid import Window
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import IMAGERY
from pipeline.sources.reading import decoded_tiles
from pipeline.sources.reading.decoded_tiles import _File, has_tiles
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.openjpeg import Codestream
from tests.support.deliveries import Delivery, make_delivery, noise, tile_at, write_pair, write_raster

SIZE, BLOCK = 250, 64
PLACES = [(0, 0), (0, 1), (1, 0)]
PLENTY = 1 << 30


INTERNAL = {"TILED": "YES", "BLOCKXSIZE": BLOCK, "BLOCKYSIZE": BLOCK}


def deliver(folder: Path, suffix: str, *, at: Sequence[tuple[int, int]] = PLACES, **options: object) -> Delivery:
    """Tiles in files with internal tiles of 64 px."""
    made = make_delivery(folder, at=at, size=SIZE, suffix=suffix, surface=None, terrain=None)
    for tile in made.tiles:
        pixels = made.imagery[:, *tile.window.slices_in(made.window)]
        write_pair(folder, tile, pixels, suffix=suffix, **INTERNAL, **options)
    return made


def mosaic_of(delivery: Delivery, catalog: Path) -> Mosaic:
    size = delivery.tile_size
    index([delivery.folder], domain=delivery.domain, catalog=catalog, tile_size=size, bands=IMAGERY)
    return Mosaic.of(read_domain(catalog, delivery.domain, tile_size=size), bands=IMAGERY)


@pytest.fixture(scope="module", params=["jp2", "jp2 without transform", "tif"])
def mosaic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mosaic:
    folder = tmp_path_factory.mktemp("delivery")
    suffix, *without = request.param.split(" ", 1)
    return mosaic_of(deliver(folder / "in", suffix, **({"YCC": "NO"} if without else {})), folder / "cat")


@pytest.fixture(autouse=True)
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[tuple[Path, Window]]]:
    """(file, part) → how often it was decoded. Blocks of a test are as small as its files."""
    monkeypatch.setattr(decoded_tiles, "_UNIT", BLOCK)
    # A run of another test that was stopped may have left tiles in this process.
    monkeypatch.setattr(decoded_tiles, "_KEPT", type(decoded_tiles._KEPT)())
    counts: Counter[tuple[Path, Window]] = Counter()
    read = _File.read

    def counted(file: _File, part: Window, *, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        counts[file._asset.path, next(iter(file.tiles(part)))] += 1
        return read(file, part, out=out)

    monkeypatch.setattr(_File, "read", counted)
    yield counts
    assert not decoded_tiles._KEPT._tiles, "tiles are kept that nobody will read"


def overlapping(window: Window, *, block: int = 125, halo: int = 20) -> list[Window]:
    return [part.grow(halo).intersect(window) for part in window.split(block)]


@cache
def pixels_of(path: Path) -> NDArray[np.uint8]:
    """All pixels of a file, read by rasterio alone."""
    with rasterio.open(path) as file:
        pixels: NDArray[np.uint8] = file.read()
    return pixels


def from_files(mosaic: Mosaic, window: Window) -> NDArray[np.uint8]:
    """Red, green, blue and nir of each file."""
    out = np.zeros((4, *window.shape), np.uint8)
    for asset in mosaic.inputs.assets:
        part = Window.from_bounds(asset.bounds).intersect(window)
        if asset.kind in ("rvb", "irc") and part.pixels:
            rows, cols = part.slices_in(Window.from_bounds(asset.bounds))
            own = pixels_of(asset.path)[:, rows, cols]
            bands = slice(0, 3) if asset.kind == "rvb" else slice(3, 4)
            out[bands, *part.slices_in(window)] = own[: bands.stop - bands.start]
    return out


def read_all(mosaic: Mosaic, windows: Sequence[Window], *, threads: int) -> None:
    """Reads windows and compares each with the files."""

    def check(window: Window) -> None:
        np.testing.assert_array_equal(mosaic.read(window).bands[:4], from_files(mosaic, window))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(check, windows))


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("order", ["by row", "by column", "random"])
def test_in_any_order_each_tile_is_decoded_once(
    mosaic: Mosaic, decoded: Counter[tuple[Path, Window]], order: str, threads: int, seed: int
) -> None:
    windows = overlapping(mosaic.window)
    if order == "by column":
        windows.sort(key=lambda w: (w.col, w.row))
    elif order == "random":
        random.Random(seed).shuffle(windows)
    read_all(mosaic.planned(windows, PLENTY), windows, threads=threads)
    assert set(decoded.values()) == {1}
    assert len(decoded) == sum(len(list(_File(a, (1,)).tiles(mosaic.window))) for a in mosaic.inputs.assets)


def test_neighbouring_files_are_decoded_once_by_plans_that_follow(
    mosaic: Mosaic, decoded: Counter[tuple[Path, Window]]
) -> None:
    """A run plans a tile together with the next one."""
    first, second, _ = (
        [part.grow(20).intersect(mosaic.window) for part in tile.tile.window.split(125)] for tile in mosaic.inputs.tiles
    )
    beside = [w for w in second if w.intersect(mosaic.inputs.tiles[0].tile.window.grow(20)).pixels]
    read_all(mosaic.planned([*first, *beside], PLENTY), first, threads=2)
    assert decoded_tiles._KEPT._tiles, "the strip between them waits for the second tile"
    read_all(mosaic.planned(second, PLENTY), second, threads=2)
    assert set(decoded.values()) == {1}


@pytest.mark.parametrize("tiles", [0, 5])
def test_with_too_little_memory_tiles_are_decoded_again(
    mosaic: Mosaic, decoded: Counter[tuple[Path, Window]], tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, kept = tiles * 3 * BLOCK**2, []
    fill = decoded_tiles._KeptTiles.fill

    def filled(store: decoded_tiles._KeptTiles, *arguments: object) -> None:
        fill(store, *arguments)  # type: ignore[arg-type]
        kept.append(sum(t.pixels.result().nbytes for t in store._tiles.values() if t.pixels.done()))

    monkeypatch.setattr(decoded_tiles._KeptTiles, "fill", filled)
    windows = overlapping(mosaic.window)
    read_all(mosaic.planned(windows, memory), windows, threads=1)
    assert max(kept, default=0) <= memory
    assert max(decoded.values()) > 1
    decoded_tiles._KEPT._tiles.clear()  # reads that were made before their tiles were decoded again never come back


def test_a_read_that_nobody_planned_keeps_nothing(mosaic: Mosaic) -> None:
    other = mosaic.window.grow(-15)
    read_all(mosaic.planned([], PLENTY), [other, other], threads=2)


def test_bands_in_another_order_are_those_of_the_files(mosaic: Mosaic) -> None:
    bands = ("blue", "nir", "red")
    windows = overlapping(mosaic.window, block=150)
    turned = replace(mosaic, bands=bands).planned(windows, PLENTY)
    for window in windows:
        np.testing.assert_array_equal(turned.read(window).bands, from_files(mosaic, window)[[2, 3, 0]])


def test_infrared_without_a_colour_transform_is_decoded_alone(
    mosaic: Mosaic, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles: list[tuple[int, int]] = []
    decode = decoded_tiles.first_component

    def noted(path: Path, codestream: Codestream, *, row: int, col: int) -> NDArray[np.uint8]:
        assert "-IRC-" in path.name
        tiles.append((row, col))
        return decode(path, codestream, row=row, col=col)

    monkeypatch.setattr(decoded_tiles, "first_component", noted)
    windows = overlapping(mosaic.window)
    read_all(mosaic.planned(windows, PLENTY), windows, threads=2)
    assert bool(tiles) == (request.node.callspec.params["mosaic"] == "jp2 without transform")


def test_strips_of_rows_are_read_by_windows(tmp_path: Path) -> None:
    mosaic = mosaic_of(make_delivery(tmp_path / "in", at=[(0, 0)]), tmp_path / "cat")
    assert not any(has_tiles(a) for a in mosaic.inputs.assets)
    windows = overlapping(mosaic.window)
    read_all(mosaic.planned(windows, PLENTY), windows, threads=2)


def test_resampled_and_deep_imagery_is_read_by_windows(mosaic: Mosaic) -> None:
    asset = mosaic.inputs.assets[0]
    step = (0.1, *asset.transform[1:4], -0.1, asset.transform[5])
    assert has_tiles(asset)
    assert not any(has_tiles(a) for a in (replace(asset, transform=step), replace(asset, dtype="uint16")))


def test_a_damaged_file_is_named_and_read_again_when_it_is_restored(tmp_path: Path) -> None:
    mosaic = mosaic_of(deliver(tmp_path / "in", "jp2", at=PLACES[:1]), tmp_path / "cat")
    path = next(a.path for a in mosaic.inputs.tiles[0].assets if a.kind == "rvb")
    pixels_of(path)
    content = path.read_bytes()
    windows = overlapping(mosaic.window)
    planned = mosaic.planned(windows, PLENTY)
    path.write_bytes(content[: len(content) // 3] + bytes(len(content) - len(content) // 3))
    with pytest.raises(SourceError, match=rf"{path.name} cannot be read"):
        read_all(planned, windows, threads=4)
    decoded_tiles._KEPT._tiles.clear()
    path.write_bytes(content)
    read_all(planned, windows, threads=4)


def test_a_file_of_another_shape_is_an_error(tmp_path: Path) -> None:
    made = deliver(tmp_path / "in", "tif", at=PLACES[:1])
    mosaic = mosaic_of(made, tmp_path / "cat")
    path = next(a.path for a in mosaic.inputs.tiles[0].assets if a.kind == "rvb")
    left, _, _, top = made.tiles[0].window.bounds
    write_raster(path, noise(tile_at(0, 0, 200))[:3], left, top, **INTERNAL)
    with pytest.raises(SourceError, match=r"\(250, 250\),.* \(200, 200\),.*; index the domain again"):
        mosaic.planned([mosaic.window], PLENTY).read(mosaic.window)


def test_blocks_that_are_read_together_stay_within_the_largest_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of a wide file would otherwise be kept in parts of 77 MB."""
    monkeypatch.setattr(decoded_tiles, "_UNIT", 1_024)
    found = {block: decoded_tiles._unit(block) for block in [(256, 256), (1_024, 1_024), (2_048, 2_048), (64, 25_000)]}
    assert found == {(256, 256): (1_024, 1_024)} | {block: block for block in list(found)[1:]}
