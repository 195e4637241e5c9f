"""Removes the 1 km elevation files that written heights replace.

Removed files are first listed in `REMOVED_LIST`, with size and CRC, so that a later `stage` of the same archive does
not unpack them again as long as the heights that replace them exist.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapely
from pydantic import Field

from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import StorageError
from pipeline.grid import Tile
from pipeline.sources.staging.domain_heights import HeightsReport, height_path
from pipeline.sources.staging.unpack import RemovedFiles, file_crc32
from pipeline.untrusted.documents import Document, DocumentError, read_model
from pipeline.untrusted.own_files import is_own

REMOVED_LIST = "removed-elevation.json"
"""In the staging folder: path → size, CRC-32 and the heights that replace it."""


class _Removed(Document):
    size: int = Field(ge=0)
    crc32: int
    heights: tuple[str, ...]


def read_removed(out: Path) -> RemovedFiles:
    """The removed files whose heights all still exist: path below `out` → (size, CRC-32).

    Raises:
        StorageError: the list is damaged.
    """
    entries = _read_list(out)
    try:
        existing = {name: (out / name).is_file() for name in {n for entry in entries.values() for n in entry.heights}}
    except (OSError, ValueError) as error:
        raise StorageError(f"{out / REMOVED_LIST}: {error}; remove it and stage again") from error
    return {
        path: (entry.size, entry.crc32)
        for path, entry in entries.items()
        if all(existing[name] for name in entry.heights)
    }


def _read_list(out: Path) -> dict[str, _Removed]:
    path = out / REMOVED_LIST
    try:
        return read_model(dict[str, _Removed], path)
    except FileNotFoundError:
        return {}
    except DocumentError as error:
        raise StorageError(f"{path}: {error}; remove it and stage again") from error


def removable_elevation(report: HeightsReport, *, out: Path, tile_size: int) -> dict[Path, tuple[str, ...]]:
    """Elevation files below `out` that lie wholly in tiles with heights written by `stage` → names of these tiles.

    A file may extend beyond the tiles by one of its own pixels: RGE ALTI is shifted by half a pixel. Files that a link
    leads to, and those of other users, stay.
    """
    tiles = [Tile.named(name, tile_size) for name, _ in report.holes]
    own = [e for e in report.elevation if e.path.is_relative_to(out) and _is_staged(e.path, out)]
    boxes = shapely.box(*zip(*(t.window.bounds for t in tiles), strict=True)) if tiles else []
    area, tree = shapely.union_all(boxes), shapely.STRtree(boxes)
    shapely.prepare(area)
    found = {}
    for file in own:
        step = file.header.transform[0]
        left, bottom, right, top = file.asset.bounds
        inner = shapely.box(left + step, bottom + step, right - step, top - step)
        if area.covers(inner):
            meeting = tree.query(shapely.box(left, bottom, right, top), predicate="intersects")
            found[file.path] = tuple(sorted(tiles[i].name for i in meeting))
    return found


def _is_staged(path: Path, out: Path) -> bool:
    """Whether a file below `out` is this user's, without a link on the way to it."""
    place = out.resolve() / path.relative_to(out)
    return place.resolve() == place and is_own(place, kind="file")


def remove_elevation(files: dict[Path, tuple[str, ...]], *, out: Path, domain: Domain) -> int:
    """Writes the files into `REMOVED_LIST`, then removes them; returns their number.

    Args:
        files: from `removable_elevation`.
        out: the staging folder.
        domain: such as `D064_2021`.

    Raises:
        StorageError: the list cannot be written, or a file cannot be removed.
    """
    if not files:
        return 0
    try:
        new = {path.relative_to(out).as_posix(): _entry(path, tiles, out, domain) for path, tiles in files.items()}
        former = {path: entry.model_dump() for path, entry in _read_list(out).items()}
        write_json(out / REMOVED_LIST, dict(sorted((former | new).items())), indent=0)
        for path in files:
            path.unlink()
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be removed: {error.strerror}; check its permissions") from error
    return len(files)


def _entry(path: Path, tiles: Sequence[str], out: Path, domain: Domain) -> dict[str, Any]:
    names = [height_path(out, domain, tile).relative_to(out).as_posix() for tile in tiles]
    return {"size": path.stat().st_size, "crc32": file_crc32(path), "heights": names}
