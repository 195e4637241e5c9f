"""The 1 km elevation files that written heights stand for: which of them may go, and what is kept of them.

What is removed is listed in `REMOVED` first, with size and CRC, so that a later `stage` of the same archive does not
unpack it again as long as the heights that replaced it are there.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import shapely

from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import StorageError
from pipeline.grid import Tile
from pipeline.sources.staging.domain_heights import HeightsReport, height_path
from pipeline.sources.staging.unpack import Known, crc_of

REMOVED = "removed-elevation.json"
"""In the staging folder: path → size, CRC-32 and the heights that stand for it."""


def read_removed(out: Path) -> Known:
    """Files that stage removed and whose heights are all still there: path below `out` → (size, CRC-32).

    Raises:
        StorageError: the list is damaged.
    """
    kept: dict[str, bool] = {}

    def there(name: str) -> bool:
        if name not in kept:
            kept[name] = (out / name).is_file()
        return kept[name]

    return {
        path: (entry["size"], entry["crc32"])
        for path, entry in _read(out).items()
        if all(there(name) for name in entry["heights"])
    }


def _read(out: Path) -> dict[str, Any]:
    path = out / REMOVED
    try:
        entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for entry in entries.values():
            _ = entry["size"], entry["crc32"], entry["heights"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: cannot be read ({error}); remove it and stage again") from error
    return entries


def removable(report: HeightsReport, *, out: Path, tile_size: int) -> dict[Path, tuple[str, ...]]:
    """Elevation files below `out` that lie wholly in tiles whose heights `stage` wrote → the names of these tiles.

    An edge within one of the file's own pixels of the tiles counts as inside: RGE ALTI is shifted by half of one.
    """
    tiles = [Tile.named(name, tile_size) for name, _ in report.holes]
    own = [e for e in report.elevation if e.path.is_relative_to(out)]
    boxes = shapely.box(*zip(*(t.window.bounds for t in tiles), strict=True)) if tiles else []
    area, tree = shapely.union_all(boxes), shapely.STRtree(boxes)
    shapely.prepare(area)
    found = {}
    for file in own:
        step = file.header.transform[0]
        left, bottom, right, top = file.header.bounds
        inner = shapely.box(left + step, bottom + step, right - step, top - step)
        if area.covers(inner):
            meeting = tree.query(shapely.box(left, bottom, right, top), predicate="intersects")
            found[file.path] = tuple(sorted(tiles[i].name for i in meeting))
    return found


def remove(files: dict[Path, tuple[str, ...]], *, out: Path, domain: Domain) -> int:
    """Lists the files in `REMOVED`, on the disk, and then removes them; returns their number.

    Args:
        files: what `removable` gave.
        out: the staging folder.
        domain: `D064_2021`.

    Raises:
        StorageError: the list cannot be written, or a file not be removed.
    """
    if not files:
        return 0
    try:
        new = {path.relative_to(out).as_posix(): _entry(path, tiles, out, domain) for path, tiles in files.items()}
        write_json(out / REMOVED, dict(sorted((_read(out) | new).items())), indent=0)
        for path in files:
            path.unlink()
    except OSError as error:
        raise StorageError(f"{error.filename}: cannot be removed: {error.strerror}") from error
    return len(files)


def _entry(path: Path, tiles: Sequence[str], out: Path, domain: Domain) -> dict[str, Any]:
    names = [height_path(out, domain, tile).relative_to(out).as_posix() for tile in tiles]
    return {"size": path.stat().st_size, "crc32": crc_of(path), "heights": names}
