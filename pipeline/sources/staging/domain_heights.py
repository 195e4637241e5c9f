"""The heights of a domain: one file for each of its imagery tiles, made again only where its inputs changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio
from rasterio.errors import RasterioIOError

from pipeline.domain import Domain
from pipeline.durable import remove_temporaries
from pipeline.errors import DeliveryError, GridError
from pipeline.grid import Tile
from pipeline.progress import SILENT, Progress
from pipeline.sources.delivery.names import Walk, height_name, walk
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.inspection.elevation_coverage import Relief
from pipeline.sources.inspection.model_card_limits import territory
from pipeline.sources.inspection.scan_cache import Journal
from pipeline.sources.inspection.validation import Examined, examine, survey
from pipeline.sources.staging.height_cog import Holes, Record, Treatment, inputs_of, read_record, write_height
from pipeline.sources.staging.unpack import JOURNAL

_READERS = 4
"""Threads that read headers."""
_SHOWN = 20


@dataclass(frozen=True)
class HeightsReport:
    """What became of a domain's heights."""

    folder: Path
    """Where the height files are."""
    holes: tuple[tuple[str, Holes], ...]
    """(tile, holes) of every height that `stage` wrote, now or before."""
    written: tuple[str, ...]
    """Names of the tiles whose height was written now."""
    delivered: tuple[str, ...]
    """Names of the tiles that have a height of another origin: left as it is."""
    lacking: tuple[str, ...]
    """Names of the tiles that no pair of surface and terrain files meets."""
    elevation: tuple[Examined, ...]
    """The elevation files."""


def heights_folder(out: Path, domain: Domain) -> Path:
    """`OUT/HAUTEUR_0M20_LAMB93_D064_2021`."""
    return out / f"HAUTEUR_0M20_LAMB93_{domain}"


def height_path(out: Path, domain: Domain, tile: str) -> Path:
    """The height file of a tile."""
    departement, year = domain.departement, domain.year
    return heights_folder(out, domain) / height_name(tile, departement=departement, year=year)


def write_heights(
    folders: Sequence[Path],
    *,
    domain: Domain,
    out: Path,
    tile_size: int,
    treatment: Treatment,
    work: Path,
    progress: Progress = SILENT,
) -> HeightsReport:
    """Writes the height of every imagery tile in `folders` from the elevation files in them.

    A height that is there is kept when all elevation files behind the tile that are still there are among those that
    it was made from: the others may have been removed since.

    Args:
        folders: unpacked deliveries, in any order and depth.
        domain: `D064_2021`.
        out: the staging folder.
        tile_size: pixels of a tile's side.
        treatment: of holes.
        work: folder for what is made on the way.
        progress: counts tiles.

    Raises:
        DeliveryError: elevation files that are not what they promise, or that are needed again and gone.
        SourceError: an elevation file cannot be read.
        StorageError: a height cannot be written.
    """
    remove_temporaries(heights_folder(out, domain), ".")
    found = walk(folders)
    crs, _ = territory(found.delivered)
    elevation = _elevation(found, tile_size, crs, Journal(work / JOURNAL))
    tiles, relief = _tiles(found, tile_size), Relief.of(elevation)
    elsewhere = {
        d.corner for d in found.delivered if d.kind == "height" and d.path.parent != heights_folder(out, domain)
    }
    holes, written, delivered, lacking = [], [], [], []
    progress.start(len(tiles))
    for tile in progress.track(tiles):
        path = height_path(out, domain, tile.name)
        record, files = _record(path), [e.asset for e in relief.behind(tile)]
        if tile.name in elsewhere:
            delivered.append(tile.name)
        elif record and _current(path, record, files, treatment):
            holes.append((tile.name, record.holes))
        elif relief.share(tile) > 0:
            holes.append((tile.name, write_height(path, tile, files, treatment=treatment, work=work, crs=crs)))
            written.append(tile.name)
        else:
            lacking.append(tile.name)
    return HeightsReport(
        heights_folder(out, domain), tuple(holes), tuple(written), tuple(delivered), tuple(lacking), tuple(elevation)
    )


def _elevation(found: Walk, tile_size: int, crs: str, journal: Journal) -> list[Examined]:
    files = [d for d in found.delivered if d.kind in ("dsm", "dtm")]
    examined, problems = examine(files, journal=journal, readers=_READERS, progress=SILENT)
    journal.drop_unused()
    surveyed = survey(examined, tile_size=tile_size, crs=crs)
    if problems := [*problems, *surveyed.problems]:
        more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DeliveryError("no height was written:\n  " + "\n  ".join(problems[:_SHOWN]) + more)
    return surveyed.elevation


def _tiles(found: Walk, tile_size: int) -> list[Tile]:
    """The imagery's tiles, by the names of its RVB files."""
    tiles = set()
    for file in found.delivered:
        if file.kind == "rvb" and file.corner is not None:
            try:
                tiles.add(Tile.named(file.corner, tile_size))
            except GridError as error:
                raise DeliveryError(f"{file.path}: {error}; is --tile-m what the delivery has?") from error
    return sorted(tiles)


def _record(path: Path) -> Record | None:
    """The record of a height that is there and whole enough to be opened."""
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            return read_record(path) if path.is_file() else None
    except RasterioIOError:
        return None


def _current(path: Path, record: Record, files: Sequence[Asset], treatment: Treatment) -> bool:
    """True when the height is what would be written today.

    Raises:
        DeliveryError: it is not, and some of the files that it was made from are gone.
    """
    there = inputs_of(files)
    if record.holes.treatment == treatment and there.items() <= record.inputs.items():
        return True
    if gone := sorted(record.inputs.keys() - there.keys()):
        news = sorted(k for k, v in there.items() if record.inputs.get(k) != v)
        why = f"{news[0]} is new" if news else f"it was made with --holes {record.holes.treatment}"
        raise DeliveryError(
            f"{path}: would have to be made again, because {why}, but {gone[0]} and {len(gone) - 1} more files that it "
            "was made from are gone: remove this file and stage the archives again"
        )
    return False
