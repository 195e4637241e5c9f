"""Reads a domain back from the input catalog, from its STAC items to plain values. Opens no raster."""

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator

from pipeline.config import LimitName
from pipeline.domain import Domain
from pipeline.errors import CatalogError, GridError
from pipeline.grid import CRS, PIXELS_PER_M, Affine6, Tile, union
from pipeline.sources.delivery.attribution import DomainDescription, Origin
from pipeline.sources.delivery.names import OVERSEAS, Kind
from pipeline.sources.domain_inputs import Asset, DomainInputs, Fill, InputTile, Ring
from pipeline.sources.http_path import WebPath
from pipeline.sources.validity import Validity
from pipeline.untrusted.documents import Document, DocumentError, read_model
from pipeline.untrusted.in_threads import map_in_threads

_Read = TypeVar("_Read", bound=Document)

ASSET_FIELDS = {
    "data_type": "dtype",
    "file:size": "size",
    "proj:shape": "shape",
    "proj:transform": "transform",
    "landcover:kind": "kind",
    "landcover:signature": "signature",
    "landcover:mtime_ns": "mtime_ns",
    "landcover:block": "block",
}
"""Field of an item's asset → attribute of `Asset`."""
_LATTICES = (CRS, *(f"EPSG:{code}" for code in OVERSEAS.values()))
_SAME_M = 1e-6
"""Largest difference of two positions that are the same, in metres."""
_FINEST_M, _COARSEST_M = 0.001, 1_000.0
"""Sides of pixels that a file may have."""
_FAR_M = 200.0
"""Farther from its tile than any file of elevation; imagery begins at the tile's corner, to a metre."""


def _lattice(crs: str) -> str:
    if crs not in _LATTICES:
        raise ValueError(f"expected one of {', '.join(_LATTICES)}, found {crs!r:.40}")
    return crs


_Size = Annotated[int, Field(ge=1, le=1_000_000)]
_Number = Annotated[int | float, Field(ge=-1e12, le=1e12)]
_Affine = tuple[_Number, _Number, _Number, _Number, _Number, _Number]


class _Link(Document):
    rel: str
    href: str


class _Collection(Document):
    """What is read of a domain's collection."""

    type: Literal["Collection"]
    links: tuple[_Link, ...]
    licence: str = Field(alias="license")
    attribution: str = Field(default="", alias="landcover:attribution")
    citation: str = Field(default="", alias="sci:citation")
    doi: str = Field(default="", alias="sci:doi")
    crs: Annotated[str, AfterValidator(_lattice)] = Field(default=CRS, alias="landcover:crs")
    limits: tuple[LimitName, ...] = Field(default=(), alias="landcover:accepted_limits")
    acquired: tuple[dt.date, dt.date] | None = Field(default=None, alias="landcover:acquired")


class _Validity(Document):
    """See `validity.Validity`."""

    masks: tuple[int, ...] = ()
    alpha: int | None = None
    nodata: tuple[int | None, ...] = ()
    unwritten: bool = False
    lossy: bool = False


class _Asset(Document):
    """A file behind a tile."""

    href: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    dtype: str = Field(alias="data_type")
    size: int = Field(alias="file:size", ge=0)
    shape: tuple[_Size, _Size] = Field(alias="proj:shape")
    transform: _Affine = Field(alias="proj:transform")
    kind: Kind = Field(alias="landcover:kind")
    signature: str = Field(alias="landcover:signature")
    mtime_ns: int = Field(alias="landcover:mtime_ns")
    block: tuple[_Size, _Size] = Field(alias="landcover:block")
    nodata: int | float | Literal["nan", "inf", "-inf"] | None = None
    validity: _Validity | None = Field(default=None, alias="landcover:validity")

    @field_validator("transform")
    @classmethod
    def _north_up(cls, transform: Affine6) -> Affine6:
        x, one, _, other, y, _ = transform
        if one or other or not _FINEST_M <= x <= _COARSEST_M or not _FINEST_M <= -y <= _COARSEST_M:
            raise ValueError("expected rows that run south and columns that run east, in metres")
        return transform


class _Geometry(Document):
    coordinates: tuple[tuple[tuple[tuple[_Number, _Number], ...], ...], ...]


class _Fill(Document):
    value: int = Field(ge=0, le=255)
    geometry: _Geometry

    @property
    def polygons(self) -> tuple[tuple[Ring, ...], ...]:
        return self.geometry.coordinates


class _Holes(Document):
    share: float = Field(ge=0, le=1)


class _Place(Document):
    domain: Domain = Field(alias="landcover:domain")
    tile: str = Field(alias="landcover:tile")
    shape: tuple[_Size, _Size] = Field(alias="proj:shape")
    transform: _Affine | None = Field(default=None, alias="proj:transform")


class _PlacedItem(Document):
    """What is read of an input tile's item where only the tile is wanted."""

    type: Literal["Feature"]
    properties: _Place


class _Properties(_Place):
    fill: tuple[_Fill, ...] = Field(alias="landcover:fill")
    holes: _Holes | None = Field(default=None, alias="landcover:height_holes")
    acquired: bool = Field(default=False, alias="landcover:acquired")
    start: dt.datetime | None = Field(default=None, alias="start_datetime")
    end: dt.datetime | None = Field(default=None, alias="end_datetime")


class _Item(_PlacedItem):
    """What is read of an input tile's item."""

    properties: _Properties
    assets: dict[str, _Asset]


def read_description(catalog: Path, domain: Domain) -> DomainDescription:
    """What all items of a domain share; reads only the domain's collection.

    Args:
        catalog: the catalog's folder.
        domain: such as `D064_2021`.

    Raises:
        CatalogError: no catalog, or no such domain in it.
    """
    return _read_collection(catalog, domain)[1]


def read_domain(catalog: Path, domain: Domain, *, tile_size: int | None = None) -> DomainInputs:
    """Reads a domain's tiles and files from the input catalog; opens no raster.

    Args:
        catalog: the catalog's folder.
        domain: such as `D064_2021`.
        tile_size: side of the campaign's tiles in pixels; by default that of the domain's first tile.

    Raises:
        CatalogError: no catalog, no such domain in it, or tiles of another size.

    Example:
        >>> inputs = read_domain(Path("catalog"), Domain("D064_2021"), tile_size=25_000)
    """
    collection, description = _read_collection(catalog, domain)
    tiles: list[InputTile] = []
    for path, item in _read_items(_Item, collection, catalog.absolute() / domain):
        tile = _tile_of(item, path, domain=domain, tile_size=tile_size)
        tiles.append(_input_tile(item, path, tile))
        tile_size = tile.window.height
    return DomainInputs(
        domain,
        union([t.tile.window for t in tiles]),
        tuple(sorted(tiles, key=lambda t: t.tile.name)),
        crs=description.crs,
        origin=description.origin,
        acquired=description.acquired,
        limits=description.limits,
    )


def read_tiles(catalog: Path, domain: Domain, *, tile_size: int) -> tuple[Tile, ...]:
    """The tiles of a domain in order; the files behind them are not looked at.

    Args:
        catalog: the catalog's folder.
        domain: such as `D064_2021`.
        tile_size: side of the campaign's tiles in pixels.

    Raises:
        CatalogError: as for `read_domain`.
    """
    collection, _ = _read_collection(catalog, domain)
    items = _read_items(_PlacedItem, collection, catalog.absolute() / domain)
    return tuple(sorted(_tile_of(item, path, domain=domain, tile_size=tile_size) for path, item in items))


def _read_items(kind: type[_Read], collection: _Collection, folder: Path) -> list[tuple[Path, _Read]]:
    paths = _item_paths(collection, folder)
    if not paths:
        raise CatalogError(f"{folder / 'collection.json'}: lists no tiles; index the domain again")
    return list(zip(paths, map_in_threads(lambda path: _read(kind, path), paths), strict=True))


def _read_collection(catalog: Path, domain: Domain) -> tuple[_Collection, DomainDescription]:
    root = catalog.absolute()
    path = root / domain / "collection.json"
    if not path.is_file():
        known = sorted(p.parent.name for p in root.glob("*/collection.json"))
        if not known:
            raise CatalogError(f"{root}: not an input catalog; write one with `landcover index`")
        raise CatalogError(f"{root}: has no domain {domain!r}; it has {', '.join(known)}")
    found = _read(_Collection, path)
    origin = Origin(found.attribution, found.licence, found.citation, found.doi)
    return found, DomainDescription(domain, origin, found.crs, found.limits, found.acquired)


def _read(kind: type[_Read], path: Path) -> _Read:
    try:
        return read_model(kind, path)
    except FileNotFoundError as error:
        raise CatalogError(f"{path}: is missing, collection.json lists it; index the domain again") from error
    except DocumentError as error:
        what = "collection" if kind is _Collection else "item"
        raise CatalogError(f"{path}: cannot be read as a STAC {what}: it {error}; index the domain again") from error


def _item_paths(collection: _Collection, folder: Path) -> list[Path]:
    """The items that a domain's collection names, as `index` wrote them: relative to its folder."""
    hrefs = [link.href for link in collection.links if link.rel == "item"]
    if odd := [href for href in hrefs if "://" in href or "\0" in href or not href.endswith(".json")]:
        raise CatalogError(f"{folder / 'collection.json'}: links to {odd[0]!r:.80}; expected a file; index it again")
    paths = [Path(os.path.normpath(folder / href)) for href in hrefs]
    if len(set(paths)) < len(paths):
        raise CatalogError(f"{folder / 'collection.json'}: lists an item twice; index the domain again")
    return paths


def _tile_of(item: _PlacedItem, path: Path, *, domain: Domain, tile_size: int | None) -> Tile:
    """The tile of an item. A `tile_size` of None accepts the item's own.

    Raises:
        CatalogError: the item has another tile size, or its fields contradict each other.
    """
    about = item.properties
    name, shape = about.tile, about.shape
    tile_size = tile_size or shape[0]
    if shape != (tile_size, tile_size):
        raise CatalogError(
            f"{path}: tile {name} has {shape[0]} × {shape[1]} px; expected grid.tile = {tile_size}: "
            f"set the campaign's tile to {shape[0]} (a command without a campaign takes `--tile-m "
            f"{shape[0] / PIXELS_PER_M:g}`), or index a delivery of tiles of {tile_size} px"
        )
    try:
        tile = Tile.named(name, tile_size)
    except GridError as error:
        raise CatalogError(f"{path}: {error}; index the domain again") from error
    place = tile.window.transform
    if about.domain != domain or (about.transform and not _same(about.transform, place)):
        raise CatalogError(
            f"{path}: is of domain {about.domain} at proj:transform {about.transform}; expected {domain} at {place}, "
            f"the place of tile {name}; index the domain again"
        )
    return tile


def _input_tile(item: _Item, path: Path, tile: Tile) -> InputTile:
    """What an item describes beside its tile; opens no raster.

    Raises:
        CatalogError: a file does not lie at the tile.
    """
    about = item.properties
    assets = sorted((_asset(a, path.parent) for a in item.assets.values()), key=lambda a: (a.kind, a.path))
    if far := [a.href for a in assets if not _at(a, tile)]:
        raise CatalogError(
            f"{path}: the proj:transform of {far[0]} does not lie at tile {tile.name}; index the domain again"
        )
    days = (about.start.date(), about.end.date()) if about.acquired and about.start and about.end else None
    fill = tuple(Fill(f.value, f.polygons) for f in about.fill)
    return InputTile(tile, tuple(assets), fill, days, None if about.holes is None else about.holes.share)


def _same(one: _Affine, other: _Affine) -> bool:
    return all(abs(a - b) <= _SAME_M for a, b in zip(one, other, strict=True))


def _at(asset: Asset, tile: Tile) -> bool:
    """Whether a file lies where the files of a tile do."""
    left, bottom, right, top = tile.window.bounds
    west, south, east, north = asset.bounds
    if asset.kind in ("dsm", "dtm"):
        return west < right + _FAR_M and east > left - _FAR_M and south < top + _FAR_M and north > bottom - _FAR_M
    return max(abs(west - left), abs(north - top)) < 1 and max(abs(east - right), abs(south - bottom)) < _FAR_M


def _asset(asset: _Asset, folder: Path) -> Asset:
    fields = {name: getattr(asset, name) for name in ASSET_FIELDS.values()}
    nodata = None if asset.nodata is None else str(asset.nodata)
    validity = None if asset.validity is None else Validity(**asset.validity.model_dump())
    return Asset(path=_path(asset.href, folder), nodata=nodata, validity=validity, **fields)


def _path(href: str, folder: Path) -> Path:
    if href.startswith(("http://", "https://")):
        return WebPath.at(href)
    # Paths are slow to make, and a nation has 66 000.
    return Path(os.path.normpath(os.path.join(folder, href)))  # noqa: PTH118
