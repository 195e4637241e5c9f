"""The first component, decoded alone, has the samples that GDAL gives; otherwise it is not decoded alone."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError

from pipeline.sources.catalog.index import index
from pipeline.sources.domain_inputs import IMAGERY
from pipeline.sources.reading.openjpeg import Codestream, can_select_components, first_component, tiles_are_alike
from tests.support.deliveries import make_delivery, noise, tile_at, write_pair

PLACE = {"crs": "EPSG:2154", "transform": rasterio.Affine(0.2, 0, 770_000, 0, -0.2, 6_280_000)}


def write(path: Path, pixels: NDArray[np.generic], **options: object) -> Path:
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    how = {
        "YCC": "NO",
        "TILED": "YES",
        "BLOCKXSIZE": 256,
        "BLOCKYSIZE": 256,
        "QUALITY": 20,
        "REVERSIBLE": "NO",
    } | options
    with rasterio.open(path, "w", driver="JP2OpenJPEG", **size, **PLACE, **how) as file:
        file.write(pixels)
    return path


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    """Three smooth bands of 700 × 600 px."""
    y, x = np.mgrid[:700, :600]
    return np.stack([128 + 100 * np.sin(x / (20 + 9 * b)) * np.cos(y / 31) for b in range(3)]).astype(np.uint8)


@pytest.mark.parametrize("how", [{}, {"QUALITY": 100, "REVERSIBLE": "YES"}, {"QUALITY": 3, "RESOLUTIONS": 3}])
def test_each_tile_has_the_samples_that_gdal_gives(
    tmp_path: Path, pixels: NDArray[np.uint8], how: dict[str, object]
) -> None:
    path = write(tmp_path / "irc.jp2", pixels, **how)
    found = Codestream.of(path)
    assert can_select_components()
    assert found
    assert (found.shape, found.tile, found.colour_transform) == ((700, 600), (256, 256), False)
    assert found.independent
    assert tiles_are_alike(path, found)
    with rasterio.open(path) as file:
        whole = file.read(1)
    alone = np.block([[first_component(path, found, row=row, col=col) for col in range(3)] for row in range(3)])
    np.testing.assert_array_equal(alone, whole)


def test_samples_beyond_8_bits_are_cut_off_as_gdal_does(tmp_path: Path) -> None:
    """Lossy compression of black beside white overshoots."""
    path = write(tmp_path / "irc.jp2", (noise(tile_at(0, 0))[:3] > 125).astype(np.uint8) * 255, QUALITY=5)
    found = Codestream.of(path)
    assert found
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(first_component(path, found, row=0, col=0), file.read(1))


def own_coding(content: bytes) -> bytes:
    """The codestream with a copy of its COD marker in the header of its second tile."""
    start = content.index(b"\xff\x52")
    return in_second_tile(content, content[start : start + 2 + struct.unpack_from(">H", content, start + 2)[0]])


def in_second_tile(content: bytes, segment: bytes) -> bytes:
    """The codestream with one more marker segment in the header of its second tile."""
    at = content.index(b"\xff\x90\x00\x0a\x00\x01")
    length = struct.pack(">I", struct.unpack_from(">I", content, at + 6)[0] + len(segment))
    made = content[: at + 6] + length + content[at + 10 : at + 12] + segment + content[at + 12 :]
    box = made.index(b"jp2c") - 4
    return made[:box] + bytes(4) + made[box + 4 :]


def test_tiles_with_their_own_coding_are_not_decoded_alone(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "irc.jp2", pixels)
    path.write_bytes(own_coding(path.read_bytes()))
    with rasterio.open(path) as file:
        assert file.read(1).any(), "the file is valid"
    found = Codestream.of(path)
    assert found
    assert not tiles_are_alike(path, found)


def test_tile_headers_may_be_long(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    """As lists of packet lengths (PLT) make them."""
    path = write(tmp_path / "irc.jp2", pixels)
    comment = b"\xff\x64" + struct.pack(">HH", 5_004, 1) + bytes(5_000)
    path.write_bytes(in_second_tile(path.read_bytes(), comment))
    found = Codestream.of(path)
    assert found
    assert tiles_are_alike(path, found)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(first_component(path, found, row=0, col=1), file.read(1)[:256, 256:512])


def test_a_colour_transform_or_other_samples_are_not_decoded_alone(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    files = {
        "a colour transform": write(tmp_path / "a.jp2", pixels, YCC="YES"),
        "16 bits": write(tmp_path / "b.jp2", pixels.astype(np.uint16) * 256),
        "one component": write(tmp_path / "c.jp2", pixels[:1]),
        "transparency": write(tmp_path / "d.jp2", np.stack([*pixels, pixels[0]]), PHOTOMETRIC="RGB", ALPHA="YES"),
    }
    found = {name: Codestream.of(path) for name, path in files.items()}
    assert [name for name, each in found.items() if each is None or each.independent] == []


@pytest.mark.parametrize("content", [b"", b"\xff\x4f\xff\x51", b"\0" * 100, b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 99])
def test_other_bytes_have_no_codestream(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jp2").write_bytes(content)
    assert Codestream.of(tmp_path / "x.jp2") is None


def test_a_damaged_tile_is_an_error(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "irc.jp2", pixels)
    found, content = Codestream.of(path), path.read_bytes()
    assert found
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(RasterioIOError, match=r"irc\.jp2: tile \(2, 2\) of its codestream cannot be decoded"):
        first_component(path, found, row=2, col=2)


@pytest.mark.parametrize(("transform", "stated"), [("YES", True), ("NO", False)])
def test_the_catalog_says_whether_infrared_has_a_colour_transform(tmp_path: Path, transform: str, stated: bool) -> None:
    made = make_delivery(tmp_path / "in", at=[(0, 0)], surface=None, terrain=None)
    for path in list(made.folder.rglob("*.tif")):
        path.unlink()
    write_pair(made.folder, made.tiles[0], made.imagery, suffix="jp2", YCC=transform)
    index([made.folder], domain=made.domain, catalog=tmp_path / "cat", tile_size=250, bands=IMAGERY)
    (item,) = (tmp_path / "cat").rglob(f"{made.domain}-*.json")
    assets = json.loads(item.read_text())["assets"]
    assert assets["irc"]["landcover:colour_transform"] is stated
    assert "landcover:colour_transform" not in assets["rvb"]
