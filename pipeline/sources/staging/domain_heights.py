"""Writes the heights of a domain: one file per imagery tile, written again only if its inputs changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rasterio.errors import RasterioIOError

from pipeline.domain import Domain
from pipeline.durable import remove_temporaries
from pipeline.errors import DeliveryError, GridError
from pipeline.grid import Tile
from pipeline.progress import SILENT, Progress
from pipeline.sources.delivery.names import DeliveredFile, find_files, height_name
from pipeline.sources.domain_inputs import Asset
from pipeline.sources.inspection.elevation_coverage import ElevationCoverage
from pipeline.sources.inspection.inspected_files import InspectedFile, inspect_files
from pipeline.sources.inspection.model_card_limits import territory
from pipeline.sources.inspection.scan_cache import ScanCache
from pipeline.sources.inspection.validation import validate
from pipeline.sources.short_lists import first_lines
from pipeline.sources.staging.height_cog import write_height
from pipeline.sources.staging.height_record import HeightHoles, HeightRecord, Treatment, inputs_of, read_record
from pipeline.sources.staging.unpack import SCAN_CACHE


@dataclass(frozen=True)
class HeightsReport:
    """The heights of a domain after `write_heights`."""

    folder: Path
    """Folder of the height files."""
    holes: tuple[tuple[str, HeightHoles], ...]
    """(tile, holes) of every height that `stage` wrote, now or before."""
    written: tuple[str, ...]
    """Names of the tiles whose height was written now."""
    delivered: tuple[str, ...]
    """Names of the tiles with a height of another origin, which is left as it is."""
    without_elevation: tuple[str, ...]
    """Names of the tiles that no pair of surface and terrain files covers."""
    elevation: tuple[InspectedFile, ...]
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

    An existing height is kept if it was made from all elevation files that are behind the tile now; others may have
    been removed since.

    Args:
        folders: unpacked deliveries, in any order and depth.
        domain: such as `D064_2021`.
        out: the staging folder.
        tile_size: side of a tile in pixels.
        treatment: of holes.
        work: folder for temporary files.
        progress: counts tiles.

    Raises:
        DeliveryError: elevation files whose headers contradict their names, or that are needed again and missing.
        SourceError: an elevation file cannot be read.
        StorageError: a height cannot be written.
    """
    remove_temporaries(heights_folder(out, domain), ".")
    (found, _), folder = find_files(folders), heights_folder(out, domain)
    crs, _ = territory(found)
    models = [f for f in found if f.kind in ("dsm", "dtm")]
    elevation = _inspect(models, tile_size, crs, ScanCache(work / SCAN_CACHE))
    tiles, coverage = _tiles(found, tile_size), ElevationCoverage(elevation)
    elsewhere = {d.corner for d in found if d.kind == "height" and d.path.parent != folder}
    holes, written, delivered, without = [], [], [], []
    progress.start(len(tiles))
    for tile in progress.track(tiles):
        path = height_path(out, domain, tile.name)
        record, files = _readable_record(path), [e.asset for e in coverage.behind(tile)]
        if tile.name in elsewhere:
            delivered.append(tile.name)
        elif record and _is_current(path, record, files, treatment):
            holes.append((tile.name, record.holes))
        elif coverage.share(tile) > 0:
            holes.append((tile.name, write_height(path, tile, files, treatment=treatment, work=work, crs=crs)))
            written.append(tile.name)
        else:
            without.append(tile.name)
    return HeightsReport(folder, tuple(holes), tuple(written), tuple(delivered), tuple(without), tuple(elevation))


def _inspect(files: Sequence[DeliveredFile], tile_size: int, crs: str, cache: ScanCache) -> list[InspectedFile]:
    inspected, unreadable = inspect_files(files, cache=cache, progress=SILENT)
    cache.drop_unused()
    valid = validate(inspected, tile_size=tile_size, crs=crs)
    if problems := [*unreadable, *valid.problems]:
        raise DeliveryError(f"no height was written:{first_lines(problems)}")
    return valid.elevation


def _tiles(found: Sequence[DeliveredFile], tile_size: int) -> list[Tile]:
    """The imagery's tiles, by the names of the RVB files."""
    tiles = set()
    for file in found:
        if file.kind == "rvb" and file.corner is not None:
            try:
                tiles.add(Tile.named(file.corner, tile_size))
            except GridError as error:
                raise DeliveryError(f"{file.path}: {error}; is --tile-m the side of the delivery's tiles?") from error
    return sorted(tiles)


def _readable_record(path: Path) -> HeightRecord | None:
    """The record of an existing height; None if there is none or it cannot be opened."""
    try:
        return read_record(path) if path.is_file() else None
    except RasterioIOError:
        return None


def _is_current(path: Path, record: HeightRecord, files: Sequence[Asset], treatment: Treatment) -> bool:
    """True if the height is the one that would be written now.

    Raises:
        DeliveryError: it is not, and some of the files that it was made from are missing.
    """
    existing = inputs_of(files)
    if record.holes.treatment == treatment and existing.items() <= record.inputs.items():
        return True
    if missing := sorted(record.inputs.keys() - existing.keys()):
        changed = sorted(k for k, v in existing.items() if record.inputs.get(k) != v)
        why = f"{changed[0]} is new" if changed else f"it was made with --holes {record.holes.treatment}"
        raise DeliveryError(
            f"{path}: must be written again, because {why}, but {missing[0]} and {len(missing) - 1} more of its source "
            "files are missing: remove this file and stage the archives again"
        )
    return False
