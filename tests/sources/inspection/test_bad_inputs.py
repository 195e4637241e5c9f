"""Every kind of bad input is refused by name: one row of a table each, with the error and what it says."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from pipeline.domain import Domain
from pipeline.errors import CatalogError, DeliveryError, LandcoverError, SourceError
from pipeline.grid import Tile
from pipeline.sources import Mosaic, index, open_domain
from pipeline.sources.delivery.names import height_name
from tests.support.deliveries import SHARED_DATA, Delivery, flat, make_delivery, noise, write_raster, write_relief

SIZE = 250
DOMAIN = Domain("D034_2021")


@dataclass(frozen=True)
class Bad:
    """A good delivery of two tiles, to be spoiled."""

    folder: Path
    """What is indexed lies in `in`, its catalogue in `cat`."""
    tiles: tuple[Tile, ...]

    def file(self, kind: str, tile: int = 0) -> Path:
        """The file of a kind (`rvb`, `irc`, `dsm`, `dtm`) behind a tile."""
        name = self.tiles[tile].name
        corner = name.replace("-", "_") if kind in ("dsm", "dtm") else name
        place = {"rvb": "OHR_RVB", "irc": "OHR_IRC", "dsm": "/DSM/", "dtm": "/DTM/"}[kind]
        (path,) = (p for p in (self.folder / "in").rglob(f"*{corner}*") if place in str(p))
        return path

    def rewrite(self, kind: str, change: Callable[[Any], Any] = lambda p: p, tile: int = 0, **profile: Any) -> Path:
        """Writes a file anew with changed pixels (band, y, x) or profile; a keyword `step` sets the resolution."""
        path = self.file(kind, tile)
        with rasterio.open(path) as file:
            pixels, old = change(file.read()), file.profile
        count, height, width = pixels.shape
        step = profile.pop("step", None)
        if step:
            profile["transform"] = Affine(step, 0, old["transform"].c, 0, -step, old["transform"].f)
        keep = {k: old[k] for k in ("crs", "transform", "nodata")}
        path.unlink()
        shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
        with rasterio.open(path, "w", driver="GTiff", **(keep | shape | profile)) as file:
            file.write(pixels)
        return path

    def rename(self, kind: str, old: str, new: str) -> None:
        path = self.file(kind)
        path.rename(path.with_name(path.name.replace(old, new)))

    def truncate(self, kind: str, share: float) -> None:
        path = self.file(kind)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    def height(self, values: Any) -> None:
        """A ready height for each tile, of values (y, x)."""
        for tile in self.tiles:
            name = height_name(tile.name, departement="34", year=2021)
            left, _, _, top = tile.window.bounds
            write_raster(self.folder / "in" / name, np.broadcast_to(values, (1, SIZE, SIZE)), left, top)

    def item(self, change: Callable[[dict[str, Any]], None]) -> list[str | Path]:
        """Indexes it, changes the first item's JSON, and gives the catalogue as the source."""
        index([self.folder / "in"], domain=DOMAIN, catalog=self.folder / "cat", tile_size=SIZE)
        path = min((self.folder / "cat" / DOMAIN).glob(f"{DOMAIN}-*.json"))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return [str(self.folder / "cat" / "catalog.json")]


Spoil = Callable[[Bad], Any]


@dataclass(frozen=True)
class Row:
    """A kind of harm, and what is said about it."""

    name: str
    spoil: Spoil
    """Spoils the delivery; may return the sources to index instead of its folder."""
    says: str
    error: type[LandcoverError] = DeliveryError
    options: dict[str, Any] = field(default_factory=dict)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def huge_tiff(bad: Bad) -> None:
    """A TIFF header of 10^9 × 10^9 px and nothing else: little-endian, one directory of seven entries."""
    entries = [(256, 4, 1, 10**9), (257, 4, 1, 10**9), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 200), (278, 4, 1, 10**9), (279, 4, 1, 100)]
    body = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    write(bad.file("rvb"), body + bytes(400))


def huge_jp2(bad: Bad) -> None:
    """A JPEG 2000 file whose header boxes claim 4·10^9 px a side."""
    path = bad.file("rvb")
    jp2 = write_raster(path.with_suffix(".jp2"), noise(bad.tiles[0])[:3], 0, 0)
    path.unlink()
    content = bytearray(jp2.read_bytes())
    at = content.index(b"ihdr") + 4
    content[at : at + 8] = struct.pack(">II", 4 * 10**9, 4 * 10**9)
    at = content.index(b"\xff\x4f\xff\x51") + 8  # SIZ: after marker, length and capabilities
    content[at : at + 8] = struct.pack(">II", 4 * 10**9, 4 * 10**9)
    jp2.write_bytes(content)


def not_utf8(bad: Bad) -> None:
    folder = os.fsencode(bad.folder / "in") + b"/d\xe9partement"
    os.mkdir(folder)  # noqa: PTH102  (a name of bytes)
    shutil.move(bad.file("irc"), os.fsdecode(folder))


def real(name: str) -> Spoil:
    """A real file of another make under the name of an RVB tile."""

    def spoil(bad: Bad) -> None:
        source = SHARED_DATA / "band_order" / name
        if not source.is_file():
            pytest.skip(f"no real data at {source}")
        shutil.copy(source, bad.file("rvb"))

    return spoil


def again(bad: Bad, change: Callable[[Any], Any]) -> None:
    """A second file of the same tile, elsewhere."""
    path = bad.file("rvb")
    shutil.copytree(path.parent, bad.folder / "in" / "again")
    bad.rewrite("irc")
    with rasterio.open(bad.folder / "in" / "again" / path.name, "r+") as file:
        file.write(change(file.read()))


def overlapping_relief(bad: Bad) -> None:
    corner = bad.tiles[0].name.replace("-", "_")
    path = write_relief(bad.folder / "in" / "more", "dsm", flat(130), corner=bad.tiles[0].name, side_m=50)
    path.rename(path.with_name(f"LHD_FXX_{corner}_MNS_O_0M50_LAMB93_IGN69.tif"))


def looping(bad: Bad) -> list[str]:
    sources = bad.item(lambda _: None)
    path = bad.folder / "cat" / DOMAIN / "collection.json"
    content = json.loads(path.read_text())
    content["links"].append({"rel": "child", "href": "../catalog.json"})
    path.write_text(json.dumps(content))
    return [str(s) for s in sources]


def endless(bad: Bad) -> list[str]:
    """A chain of catalogues, each another file, longer than any real one."""
    for depth in range(30):
        link = {"rel": "child", "href": f"{depth + 1}.json"}
        content = {"type": "Catalog", "id": "c", "stac_version": "1.1.0", "description": "c", "links": [link]}
        write(bad.folder / f"{depth}.json", json.dumps(content).encode())
    return [str(bad.folder / "0.json")]


def href(value: str) -> Spoil:
    def change(item: dict[str, Any]) -> None:
        item["assets"]["rvb"]["href"] = value

    return lambda bad: bad.item(change)


def no_catalogue(content: bytes) -> Spoil:
    def spoil(bad: Bad) -> list[str]:
        write(bad.folder / "other.json", content)
        return [str(bad.folder / "other.json")]

    return spoil


def infrared_first(pixels: Any) -> Any:
    return np.roll(pixels, 1, axis=0)


def disguised(bad: Bad) -> None:
    write(bad.file("rvb"), b'<VRTDataset rasterXSize="250" rasterYSize="250"></VRTDataset>')


ROTATED = Affine(0.2, 0.01, 770500, 0.01, -0.2, 6277600)
SOUTH_UP = Affine(0.2, 0, 770500, 0, 0.2, 6277550)
RGBE = ("red", "green", "blue", "elevation")

DEEP = {"accept": ("bit_depth",)}

TABLE = (
    Row("an empty file", lambda b: write(b.file("rvb"), b""), "cannot be opened as a raster"),
    Row("an empty jp2", lambda b: write(b.file("rvb").with_suffix(".jp2"), b""), "is no JPEG 2000 file"),
    Row("a file of text", lambda b: write(b.file("irc"), b"<html>404</html>"), "cannot be opened as a raster"),
    Row("a virtual raster in disguise", disguised, "cannot be opened as a raster"),
    Row("half a TIFF", lambda b: b.truncate("rvb", 0.5), "is truncated"),
    Row("a TIFF without its end", lambda b: b.truncate("irc", 0.999), "is truncated"),
    Row("half an elevation file", lambda b: b.truncate("dsm", 0.5), "is truncated"),
    Row("a TIFF that claims 10^18 px", huge_tiff, "its header claims 1000000000 × 1000000000 px"),
    Row("a JPEG 2000 that claims 10^19 px", huge_jp2, "4000000000|cannot be opened"),
    Row("another département", lambda b: b.rename("rvb", "34-2021", "30-2021"), "is of département 30, vintage 2021"),
    Row("another vintage", lambda b: b.rename("irc", "34-2021", "34-2018"), "is of département 34, vintage 2018"),
    Row("a name of another corner", lambda b: b.rename("rvb", "077050", "077100"), "which is tile 077050-627760"),
    Row("south corner in the name", lambda b: b.rename("rvb", "627760", "627755"), "y in a name is the north edge"),
    Row("a corner that is no tile's", lambda b: b.rename("rvb", "077050", "077051"), "077051-627760"),
    Row("a name of another resolution", lambda b: b.rename("rvb", "0M20", "0M50"), "its name says 0.5 m a pixel"),
    Row("elevation elsewhere", lambda b: b.rename("dsm", "077050", "077150"), "its name says that it lies in x 771.5"),
    Row("elevation of another resolution", lambda b: b.rename("dtm", "0M50", "1M00"), "its name says 1 m a pixel"),
    Row("infrared missing", lambda b: b.file("irc").unlink(), "has no IRC beside"),
    Row("colours missing", lambda b: b.file("rvb").unlink(), "has no RVB beside"),
    Row("elevation missing", lambda b: [b.file(k).unlink() for k in ("dsm", "dtm")] and None, "neither a ready height"),
    Row("two CRS in a domain", lambda b: b.rewrite("rvb", crs="EPSG:32631"), "CRS is EPSG:32631; expected EPSG:2154"),
    Row("no CRS", lambda b: b.rewrite("rvb", crs=None), "CRS is no CRS; expected EPSG:2154"),
    Row(
        "elevation in another CRS", lambda b: b.rewrite("dsm", crs="EPSG:3946"), "CRS is EPSG:3946; expected EPSG:2154"
    ),
    Row("a rotated raster", lambda b: b.rewrite("rvb", transform=ROTATED), "is rotated or not north-up"),
    Row("a south-up raster", lambda b: b.rewrite("rvb", transform=SOUTH_UP), "is rotated or not north-up"),
    Row("rotated elevation", lambda b: b.rewrite("dtm", transform=ROTATED), "is rotated or not north-up"),
    Row("0.5 m", lambda b: b.rewrite("rvb", lambda p: p[:, :100, :100], step=0.5), "resolution is 0.5 × 0.5 m"),
    Row("0.15 m", lambda b: b.rewrite("irc", step=0.15), "resolution is 0.15 × 0.15 m"),
    Row("elevation of 25 m", lambda b: b.rewrite("dtm", lambda p: p[:, :2, :2], step=25), "of at most 5 m"),
    Row("a tile too small", lambda b: b.rewrite("rvb", lambda p: p[:, :200]), "is 200 × 250 px; expected tiles of 250"),
    Row(
        "16 bits", lambda b: b.rewrite("rvb", lambda p: p.astype(np.uint16) * 257), "samples are uint16; expected uint8"
    ),
    Row(
        "signed 16 bits", lambda b: b.rewrite("rvb", lambda p: p.astype(np.int16)), "expected uint8 (uint16 where bit_"
    ),
    Row(
        "floats where bit_depth is accepted",
        lambda b: b.rewrite("irc", np.float32),
        "samples are float32",
        options=DEEP,
    ),
    Row("heights of 16 bits", lambda b: b.height(np.uint16(9)), "samples are uint16; expected uint8 in", options=DEEP),
    Row(
        "a projection in the name alone",
        lambda b: b.rename("rvb", "LA93", "U40S"),
        "CRS is EPSG:2154; expected EPSG:2975",
        options={"accept": ("territory",)},
    ),
    Row("floats", lambda b: b.rewrite("irc", lambda p: p / np.float32(255)), "samples are float32; expected uint8"),
    Row("elevation of 64-bit integers", lambda b: b.rewrite("dsm", np.int64), "samples are int64; expected metres"),
    Row("two bands of elevation", lambda b: b.rewrite("dsm", lambda p: np.repeat(p, 2, 0)), "has 2 bands; expected 1"),
    Row("one band of imagery", lambda b: b.rewrite("irc", lambda p: p[:1]), "has 1 bands; expected 3"),
    Row(
        "four bands in one file",
        lambda b: b.rewrite("rvb", lambda p: p[[0, 1, 2, 0]], photometric="minisblack"),
        "has 4 bands",
    ),
    Row(
        "alpha for infrared",
        lambda b: b.rewrite("rvb", lambda p: p[[0, 1, 2, 2]], photometric="rgb", alpha="yes"),
        "transparency, no infrared",
    ),
    Row("a real RGBA chip", real("rgba_alpha_is_not_nir.tif"), "has 4 bands (the last is transparency, no infrared)"),
    Row("a real chip of NIR, G, B, R", real("nir_g_b_r_1354.tif"), "CRS is EPSG:25832"),
    Row(
        "infrared first in the colours",
        lambda b: b.rewrite("rvb", infrared_first),
        "the RVB's bands are in another order",
    ),
    Row("infrared last in the IRC", lambda b: b.rewrite("irc", lambda p: p[[1, 2, 0]]), "no infrared"),
    Row(
        "infrared's red and green swapped", lambda b: b.rewrite("irc", lambda p: p[[0, 2, 1]]), "its bands 3 and 2 are"
    ),
    Row("colours for infrared", lambda b: shutil.copy(b.file("rvb"), b.file("irc")) and None, "no infrared"),
    Row("another tile's infrared", lambda b: b.rewrite("irc", lambda p: p[:, ::-1].copy()), "another place's"),
    Row("the same tile twice", lambda b: again(b, lambda p: p), "delivered twice, see"),
    Row("two files of a tile with other pixels", lambda b: again(b, lambda p: 255 - p), "(other pixels); leave one"),
    Row("two surfaces of a place with other pixels", overlapping_relief, "(other pixels); leave one"),
    Row("ready heights in metres", lambda b: b.height(np.arange(250, dtype=np.uint8) // 10), "they look like metres"),
    Row(
        "ready heights as floats", lambda b: b.height(np.float32(-1.5)), "samples are float32; expected uint8 in units"
    ),
    Row("ready heights of 0", lambda b: b.height(np.uint8(0)), "the ready heights are 0 everywhere"),
    Row("ready heights all at the end", lambda b: b.height(np.uint8(255)), "of the ready heights are 255"),
    Row(
        "surface and terrain swapped",
        lambda b: [b.rewrite("dsm", lambda p: p - 60, t) for t in (0, 1)] and None,
        "below the terrain",
    ),
    Row(
        "no terrain",
        lambda b: [b.rewrite("dtm", lambda p: p * 0, t) for t in (0, 1)] and None,
        "is the terrain missing",
    ),
    Row(
        "terrain for surface",
        lambda b: (
            [b.rewrite("dsm", lambda p: p * 0 + 9, t) and b.rewrite("dtm", lambda p: p * 0 + 9, t) for t in (0, 1)]
            and None
        ),
        "are equal everywhere",
    ),
    Row("a name that is not UTF-8", not_utf8, r"d\xe9partement/34-2021", DeliveryError),
    Row("an unreadable folder", lambda b: [b.folder / "nowhere"], "no such folder"),
    Row("a folder without imagery", lambda b: [b.folder / "in" / "DSM"], "no imagery under"),
    Row(
        "an href out of its root",
        href("../../../../etc/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "leaves the catalogue's root",
        CatalogError,
    ),
    Row(
        "an href of another scheme",
        href("ftp://host/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "has the scheme 'ftp'",
        CatalogError,
    ),
    Row(
        "an href of the cloud",
        href("s3://bucket/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "has the scheme 's3'",
        CatalogError,
    ),
    Row(
        "an href of the web on disk",
        href("http://host/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "has the scheme 'http'",
        CatalogError,
    ),
    Row(
        "an href into GDAL's virtual files",
        href("/vsicurl/http://host/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "is one of GDAL's virtual files",
        CatalogError,
    ),
    Row(
        "an item without its file",
        href("../../in/34-2021-077050-627760-LA93-0M20-E080.tif"),
        "cannot be read: No such file",
    ),
    Row("a catalogue that loops", looping, "is reached again", CatalogError),
    Row("a catalogue without end", endless, "lie over 16 deep", CatalogError),
    Row("a catalogue that is no JSON", no_catalogue(b"<html>"), "cannot be read as a STAC catalogue", CatalogError),
    Row("a catalogue that is no STAC", no_catalogue(b'{"type": "Topology"}'), "is of type 'Topology'", CatalogError),
    Row(
        "an API that is not there",
        lambda _: ["http://127.0.0.1:9/"],
        "cannot be read as a STAC catalogue",
        CatalogError,
    ),
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    return make_delivery(tmp_path_factory.mktemp("good") / "in", at=[(0, 0), (0, 1)])


@pytest.fixture
def bad(good: Delivery, tmp_path: Path) -> Bad:
    shutil.copytree(good.folder, tmp_path / "in")
    return Bad(tmp_path, good.tiles)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_what_is_bad_is_refused_by_name(bad: Bad, row: Row) -> None:
    sources = row.spoil(bad)
    if not isinstance(sources, list):
        sources = [bad.folder / "in"]
    catalog = bad.folder / "new"
    with pytest.raises(row.error) as caught:
        index(sources, domain=DOMAIN, catalog=catalog, tile_size=SIZE, **row.options)
    message = str(caught.value)
    assert any(part in message for part in row.says.split("|"))
    assert not list(catalog.rglob("*.json")), "nothing is indexed"
    message.encode()


def test_the_table_is_long_and_its_rows_are_of_many_kinds() -> None:
    assert len({row.name for row in TABLE}) == len(TABLE) >= 40


AFTER = (
    ("vanishes", lambda path: path.unlink(), "cannot be read: No such file", "cannot be read"),
    ("is cut", lambda path: path.write_bytes(path.read_bytes()[:9000]), "no longer what was indexed", "cannot be read"),
    ("becomes a folder", lambda path: (path.unlink(), path.mkdir()), "no longer what was indexed", "cannot be read"),
    (
        "is another",
        lambda path: shutil.copy(max(path.parent.iterdir()), path),
        "no longer what",
        None,
    ),
)


@pytest.mark.parametrize(("harm", "planned", "read"), [row[1:] for row in AFTER], ids=[row[0] for row in AFTER])
def test_a_file_that_changes_between_index_and_run_is_named(
    bad: Bad, harm: Callable[[Path], Any], planned: str, read: str | None
) -> None:
    index([bad.folder / "in"], domain=DOMAIN, catalog=bad.folder / "cat", tile_size=SIZE)
    inputs = open_domain(bad.folder / "cat", DOMAIN, tile_size=SIZE)
    victim = bad.file("rvb")
    harm(victim)
    (sentence,) = inputs.changed(inputs.assets)
    assert sentence.startswith(str(victim))
    assert planned in sentence
    if read:
        with pytest.raises(SourceError, match=f"{victim} {read}"):
            Mosaic.of(inputs, bands=("red",)).read(bad.tiles[0].window)


def test_a_surface_that_errs_below_the_ground_is_no_swapped_pair(bad: Bad) -> None:
    for tile in (0, 1):
        bad.rewrite("dsm", lambda p: p - 1.5, tile)
    index([bad.folder / "in"], domain=DOMAIN, catalog=bad.folder / "cat", tile_size=SIZE)
