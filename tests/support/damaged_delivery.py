"""A good delivery that a test damages, and cases of damage with the error that follows."""

import json
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
from pipeline.errors import DeliveryError, LandcoverError
from pipeline.grid import Tile
from pipeline.sources.catalog.index import index
from pipeline.sources.delivery.names import height_name
from tests.support.deliveries import noise, write_raster

SIZE = 250
DOMAIN = Domain("D034_2021")


@dataclass(frozen=True)
class DamagedDelivery:
    """A good delivery of two tiles, to be damaged."""

    folder: Path
    """The delivery lies in `in`, its catalog in `cat`."""
    tiles: tuple[Tile, ...]

    def file(self, kind: str, tile: int = 0) -> Path:
        """The file of a kind (`rvb`, `irc`, `dsm`, `dtm`) behind a tile."""
        name = self.tiles[tile].name
        corner = name.replace("-", "_") if kind in ("dsm", "dtm") else name
        place = {"rvb": "OHR_RVB", "irc": "OHR_IRC", "dsm": "/DSM/", "dtm": "/DTM/"}[kind]
        (path,) = (p for p in (self.folder / "in").rglob(f"*{corner}*") if place in str(p))
        return path

    def rewrite(self, kind: str, change: Callable[[Any], Any] = lambda p: p, tile: int = 0, **profile: Any) -> Path:
        """Writes a file again with changed pixels (band, y, x) or profile; `step` sets the resolution."""
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
        """Writes a ready height for each tile, of values (y, x)."""
        for tile in self.tiles:
            name = height_name(tile.name, departement="34", year=2021)
            left, _, _, top = tile.window.bounds
            write_raster(self.folder / "in" / name, np.broadcast_to(values, (1, SIZE, SIZE)), left, top)

    def item(self, change: Callable[[dict[str, Any]], None]) -> list[str | Path]:
        """Indexes the delivery and changes the first item's JSON; returns the catalog as the source."""
        index([self.folder / "in"], domain=DOMAIN, catalog=self.folder / "cat", tile_size=SIZE)
        path = min((self.folder / "cat" / DOMAIN).glob(f"{DOMAIN}-*.json"))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return [str(self.folder / "cat" / "catalog.json")]


Damage = Callable[[DamagedDelivery], Any]


@dataclass(frozen=True)
class Case:
    """A kind of damage, and the error that follows."""

    name: str
    damage: Damage
    """Damages the delivery; may return the sources to index instead of its folder."""
    message: str
    """Part of the error; several alternatives are separated by `|`."""
    error: type[LandcoverError] = DeliveryError
    options: dict[str, Any] = field(default_factory=dict)


def check_case(delivery: DamagedDelivery, case: Case) -> None:
    """Damages and indexes the delivery; checks the error, and that nothing was indexed."""
    sources = case.damage(delivery)
    if not isinstance(sources, list):
        sources = [delivery.folder / "in"]
    catalog = delivery.folder / "new"
    with pytest.raises(case.error) as caught:
        index(sources, domain=DOMAIN, catalog=catalog, tile_size=SIZE, **case.options)
    message = str(caught.value)
    assert any(part in message for part in case.message.split("|")), message
    assert not list(catalog.rglob("*.json")), "nothing is indexed"
    message.encode()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def huge_tiff(delivery: DamagedDelivery) -> None:
    """Only a TIFF header, of 10^9 × 10^9 px: little-endian, with one directory."""
    entries = [(256, 4, 1, 10**9), (257, 4, 1, 10**9), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 200), (278, 4, 1, 10**9), (279, 4, 1, 100)]
    body = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
    write(delivery.file("rvb"), body + bytes(400))


def huge_jp2(delivery: DamagedDelivery) -> None:
    """A JPEG 2000 file whose header boxes declare 4·10^9 px a side."""
    path = delivery.file("rvb")
    jp2 = write_raster(path.with_suffix(".jp2"), noise(delivery.tiles[0])[:3], 0, 0)
    path.unlink()
    content = bytearray(jp2.read_bytes())
    at = content.index(b"ihdr") + 4
    content[at : at + 8] = struct.pack(">II", 4 * 10**9, 4 * 10**9)
    at = content.index(b"\xff\x4f\xff\x51") + 8  # SIZ: after marker, length and capabilities
    content[at : at + 8] = struct.pack(">II", 4 * 10**9, 4 * 10**9)
    jp2.write_bytes(content)
