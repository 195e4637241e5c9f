"""Writes the input catalog: from deliveries on disk or external catalogs to one static STAC item per tile.

    CAT/catalog.json
    CAT/<domain>/collection.json
    CAT/<domain>/<domain>-<tile>.json
    CAT/<domain>/seen.jsonl             scan cache: what was read from each file, so that the next index skips it

Everything is checked before anything of the catalog is written. Items come first, then the collection, then the
catalog, each by rename, so a reader sees a domain as it was or as it is.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import rasterio

from pipeline.config import LimitName, Recipe
from pipeline.domain import Domain
from pipeline.errors import DeliveryError
from pipeline.grid import Tile
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.external_stac import Query
from pipeline.sources.catalog.source_files import SourceFiles, find_source_files
from pipeline.sources.catalog.writer import TileDescription, write_domain
from pipeline.sources.delivery.acquisition_dates import join_days, season_notes
from pipeline.sources.delivery.attribution import DomainDescription
from pipeline.sources.delivery.names import Kind, check_domain
from pipeline.sources.domain_inputs import BANDS, IMAGERY, Fill, InputTile
from pipeline.sources.inspection import model_card_limits as limits
from pipeline.sources.inspection.band_pairing import mismatched_infrared
from pipeline.sources.inspection.elevation_coverage import ElevationCoverage, header_notes, year_notes
from pipeline.sources.inspection.height_sample import implausible_heights
from pipeline.sources.inspection.inspected_files import INSPECTION_THREADS, InspectedFile, inspect_files
from pipeline.sources.inspection.lowest_level import LowestLevel, cache_key, read_lowest_level
from pipeline.sources.inspection.model_card_limits import ExceededCardLimit
from pipeline.sources.inspection.nodata_fill import outer_fill
from pipeline.sources.inspection.scan_cache import CACHE_FILE, ScanCache
from pipeline.sources.inspection.validation import pair_problems, unsplit_infrared, validate
from pipeline.sources.short_lists import first_lines
from pipeline.sources.staging.height_record import HeightRecord, read_records

_GDAL_CACHE_BYTES = 64 * 2**20
"""GDAL's cache while indexing: each file is read once."""


@dataclass(frozen=True)
class IndexReport:
    """What an index found and wrote."""

    domain: Domain
    catalog: Path
    """The catalog's folder."""
    tiles: tuple[str, ...]
    """Names of the tiles, sorted."""
    files: int
    """Number of files behind them."""
    size_bytes: int
    """Bytes of these files."""
    ignored: tuple[Path, ...]
    """Rasters with an unknown name."""
    notes: tuple[tuple[str, str], ...]
    """(tile, sentence) pairs of what was found and handled."""
    limits: tuple[LimitName, ...] = ()
    """Limits of the model card that the domain exceeds and that were accepted."""


@dataclass(frozen=True)
class _Request:
    """The arguments of an index that several steps need."""

    sources: Sequence[str | Path]
    domain: Domain
    tile_size: int
    bands: tuple[str, ...]
    recipe: Recipe | None
    accept: Sequence[LimitName]
    cache: ScanCache
    progress: Progress


@dataclass(frozen=True)
class _CheckedFiles:
    """Files whose names and headers agree."""

    crs: str
    tiles: dict[Tile, dict[Kind, InspectedFile]]
    coverage: ElevationCoverage
    exceeded: list[ExceededCardLimit]
    """Limits that were exceeded and accepted."""


def index(
    sources: Sequence[str | Path],
    *,
    domain: Domain,
    catalog: Path,
    tile_size: int = 25_000,
    bands: tuple[str, ...] = BANDS,
    recipe: Recipe | None = None,
    accept: Sequence[LimitName] = (),
    query: Query | None = None,
    progress: Progress = SILENT,
) -> IndexReport:
    """Checks deliveries and writes the domain's part of the catalog; other domains remain as they are.

    Reads names, headers, the lowest resolution level of imagery, and a small sample of heights.

    Args:
        sources: folders of deliveries, in any order and depth; paths or URLs of static STAC catalogs (`….json`); URLs
            of STAC APIs.
        domain: such as `D064_2021`; the names must have its département and vintage.
        catalog: the catalog's folder; made if it is missing.
        tile_size: side of a tile in pixels.
        bands: what will be read; without `nir` no IRC is needed, without `elevation` no elevation.
        recipe: replaces `bands` by its own, and the imagery is compared with its training statistics.
        accept: limits of the model card that may be exceeded.
        query: which items of catalogs and APIs.
        progress: counts files whose header is read, then tiles whose lowest level is read.

    Raises:
        DeliveryError: lists every problem, file by file; only the scan cache is written then.
        CatalogError: a source that is not a catalog, or names files that may not be opened.
        StorageError: the catalog cannot be written.

    Example:
        >>> report = index(["/data/BDORTHO_D064"], domain=Domain("D064_2021"), catalog=Path("catalog"))
    """
    root = catalog.absolute()
    bands, cache = tuple(recipe.bands) if recipe else bands, ScanCache(root / domain / CACHE_FILE)
    request = _Request(sources, domain, tile_size, bands, recipe, accept, cache, progress)
    found = find_source_files(sources, query or Query(), year=domain.year, bands=bands)
    progress.start(len(found.delivered) + sum(f.kind == "rvb" for f in found.delivered))
    with rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_BYTES):
        files = _check_headers(request, found)
        levels = _read_lowest_levels(request, files)
        exceeded = [*files.exceeded, *_check_pixels(request, files, levels)]
        staged = read_records(files.tiles, cache)
    description = DomainDescription(
        domain,
        found.origin(staged.values(), year=domain.year),
        files.crs,
        tuple(sorted({e.limit for e in exceeded})),
        join_days(found.acquired.of(tile.name) for tile in files.tiles),
    )
    tiles = _describe_tiles(description, found, files, exceeded=exceeded, fill=outer_fill(levels), staged=staged)
    write_domain(root, description, tiles)
    cache.drop_unused()
    return _report(description, root, tiles, found.ignored)


def _check_headers(request: _Request, found: SourceFiles) -> _CheckedFiles:
    """Compares names with headers.

    Raises:
        DeliveryError: lists every problem.
    """
    crs, exceeded = limits.territory(found.delivered)
    problems = check_domain(found.delivered, request.domain)
    problems += pair_problems(found.delivered, infrared="nir" in request.bands)
    inspected, unreadable = inspect_files(found.delivered, cache=request.cache, progress=request.progress)
    valid = validate(inspected, tile_size=request.tile_size, crs=crs)
    coverage = ElevationCoverage(valid.elevation)
    problems += unreadable + valid.problems
    problems += unsplit_infrared(valid.tiles) if "nir" in request.bands else []
    if "elevation" in request.bands and not unreadable:
        problems += [
            f"tile {tile.name}: neither a ready height nor surface and terrain models cover it; add them, or index "
            "without the band elevation"
            for tile, files in sorted(valid.tiles.items())
            if "height" not in files and coverage.share(tile) == 0
        ]
    exceeded += valid.exceeded
    _refuse(request, problems, exceeded)
    if not valid.tiles:
        where = ", ".join(str(s) for s in request.sources)
        raise DeliveryError(
            f"{request.domain}: no imagery under {where}; expected files such as 38-2024-0595-6890-LA93-0M20-E080.jp2"
        )
    return _CheckedFiles(crs, valid.tiles, coverage, exceeded)


def _read_lowest_levels(request: _Request, files: _CheckedFiles) -> dict[Tile, LowestLevel]:
    """The lowest level of each tile's imagery. Fill is connected across tiles, so all are in memory, compressed.

    Raises:
        DeliveryError: a lowest level cannot be read.
    """

    def read(tile: Tile) -> LowestLevel:
        rvb, irc = files.tiles[tile]["rvb"], files.tiles[tile].get("irc")
        stated = any(f.header.validity.stated for f in (rvb, irc) if f)
        key = cache_key(rvb.signature, irc.signature if irc else None, stated=stated)
        made = request.cache.get_or_make(key, lambda: read_lowest_level(rvb.path, irc.path if irc else None).to_json())
        return LowestLevel.from_json(made)

    with ThreadPoolExecutor(INSPECTION_THREADS) as pool:
        tiles = sorted(files.tiles)
        return dict(zip(tiles, request.progress.track(pool.map(read, tiles)), strict=True))


def _check_pixels(
    request: _Request, files: _CheckedFiles, levels: Mapping[Tile, LowestLevel]
) -> list[ExceededCardLimit]:
    """Compares infrared with colours, levels with the training images, and heights with their unit.

    Returns:
        Limits that were exceeded and accepted.

    Raises:
        DeliveryError: lists every problem.
    """
    problems: list[str] = []
    if "nir" in request.bands:
        names = {t: (str(f["rvb"].path), str(f["irc"].path)) for t, f in files.tiles.items()}
        problems = mismatched_infrared(levels, names)
    exceeded: list[ExceededCardLimit] = []
    if request.recipe:
        sums = reduce(add, (level.sums for level in levels.values()))
        imagery = tuple(b for b in request.bands if b in IMAGERY)
        exceeded += limits.radiometry(sums, request.recipe)
        exceeded += limits.band_order(sums.select([IMAGERY.index(b) for b in imagery]), imagery)
    if "elevation" in request.bands:
        exceeded += implausible_heights(files.tiles, files.coverage)
    _refuse(request, problems, exceeded)
    return exceeded


def _refuse(request: _Request, problems: Sequence[str], exceeded: Sequence[ExceededCardLimit]) -> None:
    """Raises DeliveryError where there is a problem, or a limit that is exceeded and not accepted."""
    if problems := [*problems, *(e.refusal for e in exceeded if e.limit not in request.accept)]:
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise DeliveryError(f"{request.domain}: {count} in the delivery, nothing was indexed:{first_lines(problems)}")


def _describe_tiles(
    domain: DomainDescription,
    found: SourceFiles,
    files: _CheckedFiles,
    *,
    exceeded: Sequence[ExceededCardLimit],
    fill: Mapping[Tile, tuple[Fill, ...]],
    staged: Mapping[Tile, HeightRecord],
) -> list[TileDescription]:
    """Every tile with its files, fill, days and notes."""
    described = []
    for tile, imagery in sorted(files.tiles.items()):
        elevation, holes = files.coverage.behind(tile), staged[tile].holes if tile in staged else None
        acquired = found.acquired.of(tile.name)
        notes = [
            *header_notes(imagery, elevation, crs=domain.crs),
            *year_notes(elevation, acquired[0].year if acquired else domain.domain.year),
            *season_notes(acquired),
            *found.acquired.notes,
            *(e.note for e in exceeded if e.tile in (None, tile.name)),
            *([holes.note] if holes and holes.note else []),
            *_coverage_notes(tile, imagery, files.coverage),
            *(_fill_note(part) for part in fill.get(tile, ())),
        ]
        assets = sorted((f.asset for f in (*imagery.values(), *elevation)), key=lambda a: (a.kind, a.path))
        inputs = InputTile(tile, tuple(assets), fill.get(tile, ()), acquired, holes.share if holes else None)
        described.append(TileDescription(inputs, tuple(dict.fromkeys(notes)), holes))
    return described


def _coverage_notes(tile: Tile, imagery: Mapping[Kind, InspectedFile], coverage: ElevationCoverage) -> list[str]:
    if not coverage.behind(tile):
        return []
    if "height" in imagery:
        return ["height: the ready height is used, not the surface and terrain models that are there too"]
    share = coverage.share(tile)
    return [] if share == 1 else [f"elevation: files cover {share:.2%} of the tile; elsewhere the height is 0"]


def _fill_note(part: Fill) -> str:
    colour = "black" if part.value == 0 else "white"
    return f"imagery: {colour} fill that is connected to the delivery's edge is nodata"


def _report(
    domain: DomainDescription, root: Path, described: Sequence[TileDescription], ignored: tuple[Path, ...]
) -> IndexReport:
    assets = {asset for each in described for asset in each.tile.assets}
    return IndexReport(
        domain=domain.domain,
        catalog=root,
        tiles=tuple(d.tile.tile.name for d in described),
        files=len(assets),
        size_bytes=sum(a.size for a in assets),
        ignored=ignored,
        notes=tuple((d.tile.tile.name, sentence) for d in described for sentence in d.notes),
        limits=domain.limits,
    )
