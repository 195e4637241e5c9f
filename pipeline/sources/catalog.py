"""The input catalogue: from deliveries on disk to one static STAC item a tile, and back to plain values.

    CAT/catalog.json
    CAT/<domain>/collection.json
    CAT/<domain>/<domain>-<tile>.json

Everything is checked before anything is written; items come first, then the collection, then the
catalogue, each by rename, so a reader sees a domain as it was or as it is.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pystac
import rasterio

from pipeline.durable import sync, write_json
from pipeline.errors import CatalogError, DeliveryError
from pipeline.grid import Tile, union
from pipeline.sources.checks import Survey, examine, pair_problems, survey
from pipeline.sources.delivery import check_domain, split_domain, walk
from pipeline.sources.fill import coarse, outer_fill
from pipeline.sources.inputs import BANDS, Asset, DomainInputs, Fill, InputTile
from pipeline.sources.items import LICENCE, item_of, tile_of, vintage
from pipeline.sources.relief import Relief, notes

__all__ = ["Asset", "DomainInputs", "Fill", "IndexReport", "InputTile", "index", "open_domain"]

_SHOWN = 20
"""Problems that an error lists; the rest it counts."""
_READERS = min(8, os.cpu_count() or 1)
"""Threads that read headers and lowest levels."""
_INDEX_CACHE_BYTES = 256 * 2**20
"""GDAL's cache while indexing: each file passes through it once."""
_ATTRIBUTION = "IGN"


@dataclass(frozen=True)
class IndexReport:
    """What an index found and wrote."""

    domain: str
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


def index(
    folders: Sequence[Path],
    *,
    domain: str,
    catalog: Path,
    tile_size: int = 25_000,
    bands: tuple[str, ...] = BANDS,
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Walks deliveries and writes the domain's part of the catalogue; another domain's part is left as it is.

    Reads names, headers and the lowest resolution level of imagery.

    Args:
        folders: where the delivery lies, in any order and depth.
        domain: `D064_2021`; the names' département and vintage must be its own.
        catalog: the catalogue's folder; made where it is missing.
        tile_size: pixels of a tile's side.
        bands: what will be read; without `nir` no IRC is asked for, without `elevation` no relief.
        progress: called with (files done, files).

    Raises:
        DeliveryError: with all that does not hold, file by file; nothing is written then.
        CatalogError: the catalogue cannot be written.
    """
    _, year = split_domain(domain)
    found = walk(folders)
    problems = check_domain(found.delivered, domain) + pair_problems(found.delivered, infrared="nir" in bands)
    with rasterio.Env(GDAL_CACHEMAX=_INDEX_CACHE_BYTES):
        examined, broken = examine(found.delivered, readers=_READERS, progress=progress)
        surveyed = survey(examined, tile_size=tile_size)
        heights = Relief.of(surveyed.elevation if "elevation" in bands else [])
        problems += broken + surveyed.problems
        if "elevation" in bands and not broken:
            problems += _lacking_elevation(surveyed, heights)
        _refuse(domain, folders, problems, surveyed)
        fill = _fill_of(surveyed)
    described = [_described(tile, surveyed, heights, fill.get(tile, ())) for tile in sorted(surveyed.tiles)]
    root = catalog.absolute()
    _write(root, domain, year=year, described=described)
    return _report(domain, root, described=described, ignored=found.ignored)


Described = tuple[InputTile, list[str]]
"""A tile and what was found and handled, a sentence each."""


def _refuse(domain: str, folders: Sequence[Path], problems: Sequence[str], surveyed: Survey) -> None:
    """Raises DeliveryError where there is a problem, or nothing to index."""
    if problems:
        shown = "\n  ".join(problems[:_SHOWN])
        more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        raise DeliveryError(f"{domain}: {count} in the delivery, nothing was indexed:\n  {shown}{more}")
    if not surveyed.tiles:
        where = ", ".join(str(f) for f in folders)
        raise DeliveryError(
            f"{domain}: no imagery under {where}; expected files such as 38-2024-0595-6890-LA93-0M20-E080.jp2"
        )


def _lacking_elevation(surveyed: Survey, heights: Relief) -> list[str]:
    return [
        f"tile {tile.name}: neither a ready height nor surface and terrain models meet it; deliver them, "
        "or index without the band elevation"
        for tile, files in sorted(surveyed.tiles.items())
        if "height" not in files and heights.share(tile) == 0
    ]


def _fill_of(surveyed: Survey) -> dict[Tile, tuple[Fill, ...]]:
    """Fill of the whole delivery, which is connected across tiles.

    Raises:
        DeliveryError: a lowest level that cannot be read.
    """
    tiles = sorted(surveyed.tiles)
    with ThreadPoolExecutor(_READERS) as pool:
        files = [surveyed.tiles[t] for t in tiles]
        levels = pool.map(lambda f: coarse(f["rvb"].path, f["irc"].path if "irc" in f else None), files)
        return outer_fill(dict(zip(tiles, levels, strict=True)))


def _described(tile: Tile, surveyed: Survey, heights: Relief, fill: tuple[Fill, ...]) -> Described:
    imagery, elevation = surveyed.tiles[tile], heights.behind(tile)
    files = [*imagery.values(), *elevation]
    said = notes(imagery, elevation)
    if elevation and "height" in imagery:
        said.append("height: counts before the surface and terrain models that are there too")
    elif elevation and (share := heights.share(tile)) < 1:
        said.append(f"elevation: files are there for {share:.2%} of the tile; elsewhere the height is 0, the ground's")
    for part in fill:
        colour = "black" if part.value == 0 else "white"
        said.append(f"imagery: {colour} fill that is connected to the delivery's edge is no data")
    assets = tuple(sorted((f.asset for f in files), key=lambda a: (a.kind, a.path)))
    return InputTile(tile, assets, fill), said


def _report(domain: str, root: Path, *, described: Sequence[Described], ignored: tuple[Path, ...]) -> IndexReport:
    tiles = tuple(t for t, _ in described)
    assets = DomainInputs(domain, union([t.tile.window for t in tiles]), tiles).assets
    return IndexReport(
        domain=domain,
        catalog=root,
        tiles=tuple(t.tile.name for t in tiles),
        files=len(assets),
        size_bytes=sum(a.size for a in assets),
        ignored=ignored,
        notes=tuple((t.tile.name, sentence) for t, said in described for sentence in said),
    )


def _write(root: Path, domain: str, *, year: int, described: Sequence[Described]) -> None:
    """Items first, the collection that names them after, then what it no longer names goes."""
    folder = root / domain
    items = [
        item_of(
            tile,
            domain=domain,
            year=year,
            path=folder / f"{domain}-{tile.tile.name}.json",
            near=root.parent,
            notes=said,
            attribution=_ATTRIBUTION,
        )
        for tile, said in described
    ]
    catalog = _catalog_of(root, without=domain)
    collection = _collection_of(domain, year, items=items)
    catalog.add_child(collection)
    # add_child and add_item lay files out their own way; ours is set again.
    collection.set_self_href(str(folder / "collection.json"))
    for item in items:
        href = item.get_self_href()
        collection.add_item(item)
        item.set_self_href(href)
        write_json(folder / f"{item.id}.json", item.to_dict(include_self_link=False), indent=None)
    write_json(folder / "collection.json", collection.to_dict(include_self_link=False), indent=None)
    _drop_stale(folder, keep={f"{item.id}.json" for item in items})
    write_json(root / "catalog.json", catalog.to_dict(include_self_link=False))


def _catalog_of(root: Path, without: str) -> pystac.Catalog:
    """The catalogue with its domains but one; made anew from the folders, which are what counts."""
    catalog = pystac.Catalog(
        "landcover-inputs",
        "Imagery and elevation of BD ORTHO deliveries, one item a tile",
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
    )
    catalog.set_self_href(str(root / "catalog.json"))
    for path in sorted(root.glob("*/collection.json")):
        if path.parent.name == without:
            continue
        catalog.add_link(pystac.Link(pystac.RelType.CHILD, str(path), pystac.MediaType.JSON, title=path.parent.name))
    return catalog


def _collection_of(domain: str, year: int, *, items: Sequence[pystac.Item]) -> pystac.Collection:
    boxes = [item.bbox for item in items if item.bbox]
    west, south, east, north = zip(*boxes, strict=True)
    start, _, end = vintage(year)
    return pystac.Collection(
        domain,
        f"Tiles of {domain} as delivered: imagery, and elevation where there is any",
        extent=pystac.Extent(
            pystac.SpatialExtent([[min(west), min(south), max(east), max(north)]]),
            pystac.TemporalExtent([[start, end]]),
        ),
        license=LICENCE,
        providers=[pystac.Provider(_ATTRIBUTION, roles=[pystac.ProviderRole.PRODUCER])],
        extra_fields={"landcover:domain": domain},
    )


def _drop_stale(folder: Path, keep: set[str]) -> None:
    """Removes items of tiles that the domain no longer has."""
    try:
        for path in folder.glob(f"{folder.name}-*.json"):
            if path.name not in keep:
                path.unlink()
        sync(folder)
    except OSError as error:
        raise CatalogError(f"{folder}: old items cannot be removed: {error.strerror}") from error


def open_domain(catalog: Path, domain: str, *, tile_size: int) -> DomainInputs:
    """What the catalogue says about a domain; opens no raster.

    Args:
        catalog: the catalogue's folder.
        domain: `D064_2021`.
        tile_size: pixels of a tile's side that the campaign wants.

    Raises:
        CatalogError: no catalogue, no such domain (those there are, are listed), tiles of another size.
    """
    root = catalog.absolute()
    path = root / domain / "collection.json"
    if not path.is_file():
        known = sorted(p.parent.name for p in root.glob("*/collection.json"))
        if not known:
            raise CatalogError(f"{root} is no input catalogue: write one with `landcover index`")
        raise CatalogError(f"{root} has no domain {domain!r}; it has {', '.join(known)}")
    try:
        collection = pystac.Collection.from_file(str(path))
        tiles = [tile_of(item, tile_size=tile_size) for item in collection.get_items()]
    except (OSError, ValueError, KeyError, pystac.STACError) as error:
        raise CatalogError(f"{path}: cannot be read as STAC: {error}; index the domain again") from error
    if not tiles:
        raise CatalogError(f"{path}: the domain has no tiles; index it again")
    ordered = tuple(sorted(tiles, key=lambda t: t.tile.name))
    return DomainInputs(domain, union([t.tile.window for t in ordered]), ordered)
