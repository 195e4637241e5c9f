"""Every kind of bad delivery is refused with its cause: a table with one row per kind."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from pipeline.errors import SourceError
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.damaged_delivery import (
    DOMAIN,
    SIZE,
    Case,
    Damage,
    DamagedDelivery,
    check_case,
    huge_jp2,
    huge_tiff,
    write,
)
from tests.support.deliveries import SHARED_DATA, flat, write_relief


def not_utf8(delivery: DamagedDelivery) -> None:
    folder = os.fsencode(delivery.folder / "in") + b"/d\xe9partement"
    os.mkdir(folder)  # noqa: PTH102  (a name of bytes)
    shutil.move(delivery.file("irc"), os.fsdecode(folder))


def real(name: str) -> Damage:
    """Puts a real file of another kind in place of an RVB tile."""

    def damage(delivery: DamagedDelivery) -> None:
        source = SHARED_DATA / "band_order" / name
        if not source.is_file():
            pytest.skip(f"no real data at {source}")
        shutil.copy(source, delivery.file("rvb"))

    return damage


def deliver_again(delivery: DamagedDelivery, change: Callable[[Any], Any]) -> None:
    """Adds a second file of the same tile in another folder."""
    path = delivery.file("rvb")
    shutil.copytree(path.parent, delivery.folder / "in" / "again")
    delivery.rewrite("irc")
    with rasterio.open(delivery.folder / "in" / "again" / path.name, "r+") as file:
        file.write(change(file.read()))


def overlapping_surface(delivery: DamagedDelivery) -> None:
    corner = delivery.tiles[0].name.replace("-", "_")
    path = write_relief(delivery.folder / "in" / "more", "dsm", flat(130), corner=delivery.tiles[0].name, side_m=50)
    path.rename(path.with_name(f"LHD_FXX_{corner}_MNS_O_0M50_LAMB93_IGN69.tif"))


def infrared_first(pixels: Any) -> Any:
    return np.roll(pixels, 1, axis=0)


def virtual_raster(delivery: DamagedDelivery) -> None:
    write(delivery.file("rvb"), b'<VRTDataset rasterXSize="250" rasterYSize="250"></VRTDataset>')


ROTATED = Affine(0.2, 0.01, 770500, 0.01, -0.2, 6277600)
TINY = Affine(1e-310, 0, 770500, 0, -1e-310, 6277600)
SOUTH_UP = Affine(0.2, 0, 770500, 0, 0.2, 6277550)


DEEP = {"accept": ("bit_depth",)}

TABLE = (
    Case("an empty file", lambda d: write(d.file("rvb"), b""), "cannot be opened as a raster"),
    Case("an empty jp2", lambda d: write(d.file("rvb").with_suffix(".jp2"), b""), "not a JPEG 2000 file"),
    Case("a file of text", lambda d: write(d.file("irc"), b"<html>404</html>"), "cannot be opened as a raster"),
    Case("a virtual raster named as a TIFF", virtual_raster, "cannot be opened as a raster"),
    Case("half a TIFF", lambda d: d.truncate("rvb", 0.5), "is truncated"),
    Case("a TIFF without its end", lambda d: d.truncate("irc", 0.999), "is truncated"),
    Case("half an elevation file", lambda d: d.truncate("dsm", 0.5), "is truncated"),
    Case("a TIFF that declares 10^18 px", huge_tiff, "its header declares 1000000000 × 1000000000 px"),
    Case("a JPEG 2000 that declares 10^19 px", huge_jp2, "4000000000|cannot be opened"),
    Case(
        "another département",
        lambda d: d.rename("rvb", "34-2021", "30-2021"),
        "its name has département 30, vintage 2021",
    ),
    Case(
        "another vintage", lambda d: d.rename("irc", "34-2021", "34-2018"), "its name has département 34, vintage 2018"
    ),
    Case("a name of another corner", lambda d: d.rename("rvb", "077050", "077100"), "which is tile 077050-627760"),
    Case("south corner in the name", lambda d: d.rename("rvb", "627760", "627755"), "y in a name is the north edge"),
    Case("a corner that no tile has", lambda d: d.rename("rvb", "077050", "077051"), "077051-627760"),
    Case("a name of another resolution", lambda d: d.rename("rvb", "0M20", "0M50"), "its name says 0.5 m a pixel"),
    Case("elevation elsewhere", lambda d: d.rename("dsm", "077050", "077150"), "its name says that it lies in x 771.5"),
    Case("elevation of another resolution", lambda d: d.rename("dtm", "0M50", "1M00"), "its name says 1 m a pixel"),
    Case("infrared missing", lambda d: d.file("irc").unlink(), "has no IRC beside"),
    Case("colours missing", lambda d: d.file("rvb").unlink(), "has no RVB beside"),
    Case(
        "elevation missing", lambda d: [d.file(k).unlink() for k in ("dsm", "dtm")] and None, "neither a ready height"
    ),
    Case("two CRS in a domain", lambda d: d.rewrite("rvb", crs="EPSG:32631"), "CRS is EPSG:32631; expected EPSG:2154"),
    Case("no CRS", lambda d: d.rewrite("rvb", crs=None), "CRS is no CRS; expected EPSG:2154"),
    Case(
        "elevation in another CRS", lambda d: d.rewrite("dsm", crs="EPSG:3946"), "CRS is EPSG:3946; expected EPSG:2154"
    ),
    Case("a rotated raster", lambda d: d.rewrite("rvb", transform=ROTATED), "is rotated or not north-up"),
    Case("pixels of no size", lambda d: d.rewrite("rvb", transform=TINY), "cannot be placed"),
    Case("elevation of no size", lambda d: d.rewrite("dtm", transform=TINY), "cannot be placed"),
    Case("a south-up raster", lambda d: d.rewrite("rvb", transform=SOUTH_UP), "is rotated or not north-up"),
    Case("rotated elevation", lambda d: d.rewrite("dtm", transform=ROTATED), "is rotated or not north-up"),
    Case("0.5 m", lambda d: d.rewrite("rvb", lambda p: p[:, :100, :100], step=0.5), "resolution is 0.5 × 0.5 m"),
    Case("0.15 m", lambda d: d.rewrite("irc", step=0.15), "resolution is 0.15 × 0.15 m"),
    Case("elevation of 25 m", lambda d: d.rewrite("dtm", lambda p: p[:, :2, :2], step=25), "of at most 5 m"),
    Case(
        "a tile too small", lambda d: d.rewrite("rvb", lambda p: p[:, :200]), "is 200 × 250 px; expected tiles of 250"
    ),
    Case(
        "16 bits", lambda d: d.rewrite("rvb", lambda p: p.astype(np.uint16) * 257), "samples are uint16; expected uint8"
    ),
    Case(
        "signed 16 bits", lambda d: d.rewrite("rvb", lambda p: p.astype(np.int16)), "expected uint8 (uint16 where bit_"
    ),
    Case(
        "floats where bit_depth is accepted",
        lambda d: d.rewrite("irc", np.float32),
        "samples are float32",
        options=DEEP,
    ),
    Case("heights of 16 bits", lambda d: d.height(np.uint16(9)), "samples are uint16; expected uint8 in", options=DEEP),
    Case(
        "a projection in the name alone",
        lambda d: d.rename("rvb", "LA93", "U40S"),
        "CRS is EPSG:2154; expected EPSG:2975",
        options={"accept": ("territory",)},
    ),
    Case("floats", lambda d: d.rewrite("irc", lambda p: p / np.float32(255)), "samples are float32; expected uint8"),
    Case("elevation of 64-bit integers", lambda d: d.rewrite("dsm", np.int64), "samples are int64; expected metres"),
    Case("two bands of elevation", lambda d: d.rewrite("dsm", lambda p: np.repeat(p, 2, 0)), "has 2 bands; expected 1"),
    Case("one band of imagery", lambda d: d.rewrite("irc", lambda p: p[:1]), "has 1 band; expected 3"),
    Case(
        "four bands in one file",
        lambda d: d.rewrite("rvb", lambda p: p[[0, 1, 2, 0]], photometric="minisblack"),
        "has 4 bands",
    ),
    Case(
        "alpha for infrared",
        lambda d: d.rewrite("rvb", lambda p: p[[0, 1, 2, 2]], photometric="rgb", alpha="yes"),
        "of it are levels between; if it is infrared",
    ),
    Case("a real RGBA chip", real("rgba_alpha_is_not_nir.tif"), "CRS is EPSG:28992"),
    Case("a real chip of NIR, G, B, R", real("nir_g_b_r_1354.tif"), "CRS is EPSG:25832"),
    Case(
        "infrared first in the colours",
        lambda d: d.rewrite("rvb", infrared_first),
        "the RVB's bands are in another order",
    ),
    Case("infrared last in the IRC", lambda d: d.rewrite("irc", lambda p: p[[1, 2, 0]]), "not infrared"),
    Case(
        "infrared's red and green swapped", lambda d: d.rewrite("irc", lambda p: p[[0, 2, 1]]), "its bands 3 and 2 are"
    ),
    Case("colours for infrared", lambda d: shutil.copy(d.file("rvb"), d.file("irc")) and None, "not infrared"),
    Case(
        "another tile's infrared", lambda d: d.rewrite("irc", lambda p: p[:, ::-1].copy()), "has another place or date"
    ),
    Case("the same tile twice", lambda d: deliver_again(d, lambda p: p), "delivered twice, see"),
    Case(
        "two files of a tile with other pixels",
        lambda d: deliver_again(d, lambda p: 255 - p),
        "(other pixels); leave one",
    ),
    Case("two surfaces of a place with other pixels", overlapping_surface, "(other pixels); leave one"),
    Case("ready heights in metres", lambda d: d.height(np.arange(250, dtype=np.uint8) // 10), "they look like metres"),
    Case(
        "ready heights as floats", lambda d: d.height(np.float32(-1.5)), "samples are float32; expected uint8 in units"
    ),
    Case("ready heights of 0", lambda d: d.height(np.uint8(0)), "the ready heights are 0 everywhere"),
    Case("ready heights all at the end", lambda d: d.height(np.uint8(255)), "of the ready heights are 255"),
    Case(
        "surface and terrain swapped",
        lambda d: [d.rewrite("dsm", lambda p: p - 60, t) for t in (0, 1)] and None,
        "below the terrain",
    ),
    Case(
        "no terrain",
        lambda d: [d.rewrite("dtm", lambda p: p * 0, t) for t in (0, 1)] and None,
        "is the terrain missing",
    ),
    Case(
        "terrain for surface",
        lambda d: (
            [d.rewrite("dsm", lambda p: p * 0 + 9, t) and d.rewrite("dtm", lambda p: p * 0 + 9, t) for t in (0, 1)]
            and None
        ),
        "are equal everywhere",
    ),
    Case("a name that is not UTF-8", not_utf8, r"d\xe9partement/34-2021"),
    Case("an unreadable folder", lambda d: [d.folder / "nowhere"], "no such folder"),
    Case("a folder without imagery", lambda d: [d.folder / "in" / "DSM"], "no imagery under"),
)


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_a_bad_delivery_is_refused_with_its_cause(damaged: DamagedDelivery, case: Case) -> None:
    check_case(damaged, case)


CHANGES = (
    ("is removed", lambda path: path.unlink(), "it is missing", ": cannot be read"),
    ("is truncated", lambda path: path.write_bytes(path.read_bytes()[:9000]), "has changed since", " cannot be read"),
    ("becomes a folder", lambda path: (path.unlink(), path.mkdir()), "has changed since", " cannot be read"),
    (
        "is replaced",
        lambda path: shutil.copy(max(path.parent.iterdir()), path),
        "has changed since",
        None,
    ),
)


@pytest.mark.parametrize(
    ("change", "message", "read_error"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_a_file_that_changes_after_indexing_is_named(
    damaged: DamagedDelivery, change: Callable[[Path], Any], message: str, read_error: str | None
) -> None:
    index([damaged.folder / "in"], domain=DOMAIN, catalog=damaged.folder / "cat", tile_size=SIZE)
    inputs = read_domain(damaged.folder / "cat", DOMAIN, tile_size=SIZE)
    victim = damaged.file("rvb")
    change(victim)
    (sentence,) = inputs.changes(inputs.assets).values()
    assert sentence.startswith(str(victim))
    assert message in sentence
    if read_error:
        with pytest.raises(SourceError, match=f"{victim}{read_error}"):
            Mosaic.of(inputs, bands=("red",)).read(damaged.tiles[0].window)


def test_a_surface_slightly_below_the_terrain_is_accepted(damaged: DamagedDelivery) -> None:
    for tile in (0, 1):
        damaged.rewrite("dsm", lambda p: p - 1.5, tile)
    index([damaged.folder / "in"], domain=DOMAIN, catalog=damaged.folder / "cat", tile_size=SIZE)
