"""7z archives as IGN ships them, and bad ones."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import py7zr
import rasterio
from numpy.typing import NDArray

from pipeline.grid import Tile
from pipeline.sources.delivery.names import imagery_folder
from tests.support.dbase import write_table
from tests.support.deliveries import Delivery, hills, make_delivery, roofs, write_relief

STORED = [{"id": py7zr.FILTER_COPY}]
LZMA = [{"id": py7zr.FILTER_LZMA, "preset": 0}]
LZMA2 = [{"id": py7zr.FILTER_LZMA2, "preset": 0}]
BZIP2 = [{"id": py7zr.FILTER_BZIP2}]


def pack(
    base: Path,
    members: Mapping[str, bytes | Path],
    *,
    volume: int | None = None,
    filters: list[dict[str, int]] | None = None,
    md5: bool = True,
    **how: Any,
) -> list[Path]:
    """Writes `base` (NAME.7z), cut into volumes of `volume` bytes where given, and its `.md5`; returns the volumes."""
    base.parent.mkdir(parents=True, exist_ok=True)
    filters = filters or (None if "password" in how else LZMA2)
    with py7zr.SevenZipFile(base, "w", filters=filters, **how) as archive:
        for name, content in members.items():
            if isinstance(content, Path):
                archive.write(content, name)
            else:
                # The checked way refuses the names that a test of bad names is about.
                archive._writestr(content, name)
    volumes = [base]
    if volume is not None:
        whole = base.read_bytes()
        base.unlink()
        volumes = []
        for number, start in enumerate(range(0, len(whole), volume), start=1):
            volumes.append(base.with_name(f"{base.name}.{number:03d}"))
            volumes[-1].write_bytes(whole[start : start + volume])
    if md5:
        lines = [f"{hashlib.md5(v.read_bytes()).hexdigest()}  ./{v.name}\n" for v in volumes]  # noqa: S324  as IGN does
        base.with_name(f"{base.name}.md5").write_text("".join(lines))
    return volumes


def noise_bytes(count: int, seed: int) -> bytes:
    """Bytes that no method makes smaller."""
    return np.random.default_rng(seed).bytes(count)


def files_of(folder: Path) -> dict[str, bytes]:
    """Path below the folder → content, of all files but stage's own."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".stage" not in p.parts
    }


def make_archives(
    folder: Path, *, at: Iterable[tuple[int, int]] = ((0, 0), (0, 1)), size: int = 500, suffix: str = "tif"
) -> tuple[Delivery, list[Path]]:
    """A delivery in `folder/unpacked`, and the same as one archive of imagery and one of elevation.

    Imagery in volumes with an md5 list, and `dalles.shp` whose names start with `./`; surfaces named as LiDAR HD,
    terrain as RGE ALTI and shifted by half a pixel, in files of half a tile's side.
    """
    below = folder / "unpacked"
    delivery = make_delivery(below, at=at, size=size, suffix=suffix, surface=None, terrain=None)
    half = size // 2
    for tile in delivery.tiles:
        for place in tile.window.split(half):
            corner = Tile.at(place.row, place.col, half).name
            hole = (slice(10, 18), slice(20, 31))
            write_relief(below / "LIDARHD", "dsm", roofs, corner=corner, side_m=half / 5, hole=hole)
            write_relief(below / "RGEALTI", "dtm", hills, corner=corner, side_m=half / 5, step=1.0, as_rge_alti=True)
    departement, year = delivery.domain.departement, delivery.domain.year
    rvb = below / imagery_folder(departement=departement, year=year)
    write_dalles(rvb / "dalles.shp", sorted(p.name for p in rvb.iterdir()))
    names = {p.relative_to(below).as_posix(): p for p in sorted(below.rglob("*")) if p.is_file()}
    imagery = {n: p for n, p in names.items() if n.startswith("BDORTHO")}
    relief = {n: p for n, p in names.items() if n not in imagery}
    archives = pack(
        folder / "BDORTHO_2-0_D034.7z", imagery, volume=sum(p.stat().st_size for p in imagery.values()) // 4
    )
    return delivery, [*archives, *pack(folder / "ELEVATION_D034.7z", relief, filters=LZMA)]


def write_dalles(path: Path, names: list[str]) -> None:
    """The shapefile of a delivery's tiles, without geometry: dBASE with one column, NOM, each name after `./`."""
    write_table(path.with_suffix(".dbf"), {"NOM": 80}, [(f"./{name}",) for name in names])
    path.write_bytes(struct.pack(">I20xI", 9994, 50) + struct.pack("<II", 1000, 0) + bytes(64))


def peak_kib() -> int:
    """The most memory that this process had resident; unlike getrusage without what it was forked from."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0])


def height_of(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(units, known) of a height file."""
    with rasterio.open(path) as file:
        return file.read(1), file.read_masks(1) > 0
