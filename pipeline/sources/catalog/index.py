"""The input catalogue: from deliveries on disk or ready catalogues to one static STAC item a tile, and back.

    CAT/catalog.json
    CAT/<domain>/collection.json
    CAT/<domain>/<domain>-<tile>.json
    CAT/<domain>/seen.jsonl             what an index saw in each file; the next one need not look again

Everything is checked before anything of the catalogue is written; items come first, then the collection, then the
catalogue, each by rename, so a reader sees a domain as it was or as it is.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
from rasterio.errors import NotGeoreferencedWarning

from pipeline.config import LimitName, Recipe
from pipeline.domain import Domain
from pipeline.errors import DeliveryError
from pipeline.grid import Tile, union
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.reader import open_domain, read_about
from pipeline.sources.catalog.stac_query import Query, is_catalogue
from pipeline.sources.catalog.writer import Described, write_domain
from pipeline.sources.delivery.attribution import About, Acquired, Days, Origin, days_of, joined_days, of_files
from pipeline.sources.delivery.names import Delivered, Kind, check_domain, walk
from pipeline.sources.domain_inputs import BANDS, Asset, DomainInputs, Fill, InputTile
from pipeline.sources.inspection import band_pairing as pairing
from pipeline.sources.inspection import model_card_limits as limits
from pipeline.sources.inspection.elevation_coverage import Relief, notes, other_years
from pipeline.sources.inspection.height_sample import implausible_heights
from pipeline.sources.inspection.lowest_level import Look, look, look_key
from pipeline.sources.inspection.model_card_limits import Excess
from pipeline.sources.inspection.nodata_fill import outer_fill
from pipeline.sources.inspection.scan_cache import JOURNAL_FILE, Journal
from pipeline.sources.inspection.validation import Examined, Survey, examine, pair_problems, readable, survey
from pipeline.sources.staging.height_record import Record, made_from, records

if TYPE_CHECKING:
    from pipeline.sources.catalog.external_stac import Adopted

__all__ = ["Asset", "DomainInputs", "Fill", "IndexReport", "InputTile", "Query", "index", "open_domain", "read_about"]


_SHOWN = 20
"""Problems that an error lists; the rest it counts."""
_READERS = min(8, os.cpu_count() or 1)
"""Threads that read headers and lowest levels."""
_INDEX_CACHE_BYTES = 64 * 2**20
"""GDAL's cache while indexing: each file passes through it once."""


@dataclass(frozen=True)
class IndexReport:
    """What an index found and wrote."""

    domain: Domain
    catalog: Path
    """The catalogue's folder."""
    tiles: tuple[str, ...]
    """Names of the tiles, sorted."""
    files: int
    """Files behind them."""
    size_bytes: int
    """Bytes of these files."""
    ignored: tuple[Path, ...]
    """Rasters whose name is none of a delivery's."""
    notes: tuple[tuple[str, str], ...]
    """(tile, sentence) pairs of what was found and handled."""
    limits: tuple[LimitName, ...] = ()
    """Limits of the model's card that the domain passes and that were accepted."""


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
    """Reads deliveries and writes the domain's part of the catalogue; another domain's part is left as it is.

    Reads names, headers and the lowest resolution level of imagery, and a small sample of heights.

    Args:
        sources: folders where the delivery lies, in any order and depth; paths or URLs of static STAC
            catalogues (`….json`); URLs of STAC APIs.
        domain: `D064_2021`; the names' département and vintage must be its own.
        catalog: the catalogue's folder; made where it is missing.
        tile_size: pixels of a tile's side.
        bands: what will be read; without `nir` no IRC is asked for, without `elevation` no relief.
        recipe: takes `bands` from it, and compares the imagery with its training statistics.
        accept: limits of the model's card that may be passed.
        query: which items of catalogues and APIs.
        progress: counts files whose header is read, then tiles whose lowest level is read.

    Raises:
        DeliveryError: with all that does not hold, file by file; nothing is written then but what was seen.
        CatalogError: a source that is no catalogue, or names what may not be opened.
        StorageError: the catalogue cannot be written.
    """
    bands = tuple(recipe.bands) if recipe else bands
    year = domain.year
    found = _Found.at(sources, query or Query(), year=year, bands=bands)
    root = catalog.absolute()
    journal = Journal(root / domain / JOURNAL_FILE)
    progress.start(len(found.delivered) + sum(f.kind == "rvb" for f in found.delivered))
    crs, excess = limits.territory(found.delivered)
    problems = check_domain(found.delivered, domain)
    problems += pair_problems(found.delivered, infrared="nir" in bands)
    with rasterio.Env(GDAL_CACHEMAX=_INDEX_CACHE_BYTES), warnings.catch_warnings():
        # A file without a georeference is one of our own sentences.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        examined, broken = examine(found.delivered, journal=journal, readers=_READERS, progress=progress)
        surveyed = survey(examined, tile_size=tile_size, crs=crs)
        heights = Relief.of(surveyed.elevation)
        problems += broken + surveyed.problems
        if "elevation" in bands and not broken:
            problems += _lacking_elevation(surveyed, heights)
        excess = _settled(domain, sources, problems, excess + surveyed.excess, accept, tiles=len(surveyed.tiles))
        looks = _looks(surveyed, journal, progress)
        problems = _foreign_infrared(surveyed, looks) if "nir" in bands else []
        seen = limits.radiometry(reduce(add, (x.sums for x in looks.values())), recipe) if recipe else []
        if "elevation" in bands:
            seen += implausible_heights(surveyed.tiles, heights)
        excess += _settled(domain, sources, problems, seen, accept, tiles=len(looks))
        staged = records(surveyed.tiles, journal)
    acquired = joined_days(found.acquired.of(tile.name) for tile in surveyed.tiles)
    passed = tuple(sorted({e.limit for e in excess}))
    about = About(domain, year, found.origin(staged, year=year), crs, passed, acquired)
    fill = outer_fill(looks)
    described = [
        _described(
            tile,
            surveyed.tiles[tile],
            heights,
            about=about,
            fill=fill.get(tile, ()),
            said=[*found.acquired.notes, *(e.note for e in excess if e.tile in (None, tile.name))],
            staged=staged.get(tile),
            acquired=found.acquired.of(tile.name),
        )
        for tile in sorted(surveyed.tiles)
    ]
    write_domain(root, about, described)
    journal.drop_unused()
    return _report(about, root, described=described, ignored=found.ignored)


@dataclass(frozen=True)
class _Found:
    """What sources name, of the kinds that the bands want."""

    delivered: tuple[Delivered, ...]
    ignored: tuple[Path, ...]
    local: tuple[Delivered, ...]
    """Those of `delivered` that lie in folders."""
    adopted: tuple[Origin, ...]
    """What catalogues say of theirs."""
    acquired: Acquired = field(default_factory=Acquired)

    def origin(self, staged: Mapping[Tile, Record], *, year: int) -> Origin:
        """Of all files, and of the elevation files that staged heights stand for."""
        own = (*self.local, *(f for record in staged.values() for f in made_from(record)))
        return Origin.joined([*([of_files(own, year=year)] if self.local else []), *self.adopted])

    @classmethod
    def at(cls, sources: Sequence[str | Path], query: Query, *, year: int, bands: tuple[str, ...]) -> "_Found":
        folders = [Path(s) for s in sources if not is_catalogue(str(s))]
        wanted = {"rvb"} | ({"irc"} if "nir" in bands else set())
        wanted |= {"height", "dsm", "dtm"} if "elevation" in bands else set()
        walked = walk(folders)
        local = tuple(f for f in walked.delivered if f.kind in wanted)
        origins: list[Origin] = []
        acquired = days_of(folders, year=year)
        delivered, ignored = {f.path: f for f in local}, set(walked.ignored)
        days: dict[str, Days] = dict(acquired.tiles)
        for adopted in _adopted([str(s) for s in sources if is_catalogue(str(s))], query):
            delivered |= {p: f for p, f in adopted.delivered.items() if f.kind in wanted and p not in delivered}
            ignored |= adopted.ignored
            origins += adopted.origins
            days |= adopted.days
        return cls(
            tuple(sorted(delivered.values(), key=lambda f: (f.kind, str(f.path)))),
            tuple(Path(readable(p)) for p in sorted(ignored)),
            local,
            tuple(origins),
            replace(acquired, tiles=days),
        )


def _adopted(catalogues: Sequence[str], query: Query) -> "list[Adopted]":
    """What ready catalogues name."""
    if not catalogues:
        return []
    # pystac-client compiles the grammars of jsonschema's format checkers: seconds that no worker and no plan needs.
    from pipeline.sources.catalog.external_stac import adopt

    return [adopt(source, query) for source in catalogues]


def _settled(
    domain: Domain,
    sources: Sequence[str | Path],
    problems: Sequence[str],
    excess: Sequence[Excess],
    accept: Sequence[LimitName],
    *,
    tiles: int,
) -> list[Excess]:
    """What is passed and accepted; raises DeliveryError where there is a problem, or nothing to index."""
    refused, accepted = limits.settle(excess, accept)
    problems = [*problems, *refused]
    if problems:
        shown = "\n  ".join(problems[:_SHOWN])
        more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise DeliveryError(f"{domain}: {count} in the delivery, nothing was indexed:\n  {shown}{more}")
    if not tiles:
        where = ", ".join(str(s) for s in sources)
        raise DeliveryError(
            f"{domain}: no imagery under {where}; expected files such as 38-2024-0595-6890-LA93-0M20-E080.jp2"
        )
    return accepted


def _lacking_elevation(surveyed: Survey, heights: Relief) -> list[str]:
    return [
        f"tile {tile.name}: neither a ready height nor surface and terrain models meet it; deliver them, "
        "or index without the band elevation"
        for tile, files in sorted(surveyed.tiles.items())
        if "height" not in files and heights.share(tile) == 0
    ]


def _looks(surveyed: Survey, journal: Journal, progress: Progress) -> dict[Tile, Look]:
    """The lowest level of each tile's imagery; fill is connected across tiles, so all are held, packed.

    Raises:
        DeliveryError: a lowest level that cannot be read.
    """

    def seen(tile: Tile) -> Look:
        rvb, irc = surveyed.tiles[tile]["rvb"], surveyed.tiles[tile].get("irc")
        key = look_key(rvb.signature, irc.signature if irc else None)
        if entry := journal.get(key):
            return Look.of_json(entry)
        found = look(rvb.path, irc.path if irc else None)
        journal.put(key, found.as_json())
        return found

    with ThreadPoolExecutor(_READERS) as pool:
        tiles = sorted(surveyed.tiles)
        return dict(zip(tiles, progress.track(pool.map(seen, tiles)), strict=True))


def _foreign_infrared(surveyed: Survey, looks: Mapping[Tile, Look]) -> list[str]:
    names = {t: (str(f["rvb"].path), str(f["irc"].path)) for t, f in surveyed.tiles.items()}
    return pairing.foreign_infrared(looks, names)


def _described(
    tile: Tile,
    imagery: Mapping[Kind, Examined],
    heights: Relief,
    *,
    about: About,
    fill: tuple[Fill, ...],
    said: Sequence[str],
    staged: Record | None,
    acquired: Days | None,
) -> Described:
    elevation = heights.behind(tile)
    files: list[Examined] = [*imagery.values(), *elevation]
    year = acquired[0].year if acquired else about.year
    said = [*notes(imagery, elevation, crs=about.crs), *other_years(elevation, year), *said]
    if staged and staged.holes.note:
        said.append(staged.holes.note)
    if elevation and "height" in imagery:
        said.append("height: counts before the surface and terrain models that are there too")
    elif elevation and (share := heights.share(tile)) < 1:
        said.append(f"elevation: files are there for {share:.2%} of the tile; elsewhere the height is 0, the ground's")
    for part in fill:
        colour = "black" if part.value == 0 else "white"
        said.append(f"imagery: {colour} fill that is connected to the delivery's edge is no data")
    assets = tuple(sorted((f.asset for f in files), key=lambda a: (a.kind, a.path)))
    inputs = InputTile(tile, assets, fill, acquired, staged.holes.share if staged else None)
    return Described(inputs, tuple(dict.fromkeys(said)), staged.holes if staged else None)


def _report(about: About, root: Path, *, described: Sequence[Described], ignored: tuple[Path, ...]) -> IndexReport:
    tiles = tuple(d.tile for d in described)
    assets = DomainInputs(about.domain, union([t.tile.window for t in tiles]), tiles).assets
    return IndexReport(
        domain=about.domain,
        catalog=root,
        tiles=tuple(t.tile.name for t in tiles),
        files=len(assets),
        size_bytes=sum(a.size for a in assets),
        ignored=ignored,
        notes=tuple((d.tile.tile.name, sentence) for d in described for sentence in d.notes),
        limits=about.limits,
    )
