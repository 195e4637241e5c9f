"""Tiles by place, time, class share and confidence, from the stac-geoparquet of an edition: no server is asked."""

import datetime as dt
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
import rustac
from pystac.utils import str_to_datetime
from pystac_client.item_search import ItemSearch

from pipeline import legend
from pipeline.errors import ConfigError, ProductError
from pipeline.products.catalogue import ITEM, ITEMS
from pipeline.products.links import absolute
from pipeline.products.stac import CONFIDENCE, share_name

Box = tuple[float, float, float, float]
"""(west, south, east, north) in degrees."""
_MOMENT = re.compile(r"(\.\.)?|\d{4}(-\d\d(-\d\d(T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d))?)?)?")


def search(
    path: Path | str,
    *,
    domains: Collection[str] | None = None,
    bbox: Box | None = None,
    datetime: str | None = None,
    min_share: Mapping[str, float] | None = None,
    min_confidence: float | None = None,
) -> pystac.ItemCollection:
    """The items that fit all that is asked, in order of their ids.

    Args:
        path: a national product, one of its editions, or its `items.parquet`.
        domains: names such as `D064_2021`; None for all.
        bbox: items that meet it; touching is enough.
        datetime: a day, month or year, or `START/END` with `..` for an open end; items whose time meets it.
        min_share: class (name as `vineyard`, or FLAIR value as `9`) → least share of the mapped pixels, 0..1.
        min_confidence: least mean confidence of the mapped pixels, 0..1. Tiles that were sealed before items had it
            do not fit.

    Returns:
        Items with absolute hrefs, which rasterio and rioxarray open.

    Raises:
        ConfigError: a class, share, confidence, bbox or datetime that cannot be.
        ProductError: there is no catalogue at `path`, or it cannot be read.
    """
    wanted = _Wanted.of(domains, bbox, datetime, min_share or {}, min_confidence)
    table = find_items(Path(path))
    try:
        found = rustac.read_sync(str(table), format="parquet")["features"]
    except (rustac.RustacError, KeyError) as error:
        raise ProductError(f"{table}: cannot be read as stac-geoparquet: {error}; publish again") from error
    return pystac.ItemCollection([_opened(item, table.parent) for item in found if wanted.has(item)])


def find_items(path: Path) -> Path:
    """The `items.parquet` of a national product (its current edition), of an edition, or itself.

    The pointer is followed once, so that a later publish does not mix two editions.

    Raises:
        ProductError: there is none.
    """
    for place in (path, path / "catalog" / ITEMS, path / "current" / "catalog" / ITEMS):
        if place.is_file():
            return place.resolve()
    raise ProductError(
        f"{path}: expected a national product with a catalogue (current/catalog/{ITEMS}); `landcover publish` writes it"
    )


@dataclass(frozen=True)
class _Wanted:
    """What is asked, checked and in the words of the items."""

    domains: frozenset[str] | None
    bbox: Box | None
    start: dt.datetime | None
    end: dt.datetime | None
    least: Mapping[str, float]
    """Item property → least value."""

    @classmethod
    def of(
        cls,
        domains: Collection[str] | None,
        bbox: Box | None,
        datetime: str | None,
        min_share: Mapping[str, float],
        min_confidence: float | None,
    ) -> "_Wanted":
        if bbox and (bbox[0] > bbox[2] or bbox[1] > bbox[3]):
            raise ConfigError(f"bbox {bbox}: expected (west, south, east, north) in degrees, from west to east and up")
        least = {share_name(_class_value(name)): share for name, share in min_share.items()}
        if min_confidence is not None:
            least[CONFIDENCE] = min_confidence
        for name, value in least.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name.removeprefix('landcover:')} of at least {value}: expected a share of 0..1")
        start, end = _interval(datetime)
        return cls(None if domains is None else frozenset(domains), bbox, start, end, least)

    def has(self, item: Mapping[str, Any]) -> bool:
        """True where all conditions hold."""
        said = item["properties"]
        if self.domains is not None and item["collection"] not in self.domains:
            return False
        west, south, east, north = item["bbox"]
        b = self.bbox
        if b and (west > b[2] or east < b[0] or south > b[3] or north < b[1]):
            return False
        if self.start and str_to_datetime(said["end_datetime"]) < self.start:
            return False
        if self.end and str_to_datetime(said["start_datetime"]) > self.end:
            return False
        return all((v := said.get(name)) is not None and v >= value for name, value in self.least.items())


def _class_value(name: str) -> int:
    """The FLAIR value of `vineyard`, `pervious surface`, `pervious_surface` or `9`."""
    for c in legend.FLAIR:
        if name in (c.name, c.slug, str(c.value)):
            return c.value
    raise ConfigError(f"no class {name!r}; expected one of {', '.join(c.slug for c in legend.FLAIR)}")


def _interval(datetime: str | None) -> tuple[dt.datetime | None, dt.datetime | None]:
    if not datetime:
        return None, None
    if not all(_MOMENT.fullmatch(part) for part in datetime.split("/")) or datetime.count("/") > 1:
        raise ConfigError(f"datetime {datetime!r}: expected a day, a month, a year or START/END, as 2021-06/2021-08")
    try:
        # pystac-client writes `2021` and the like out as an interval; nothing is asked of the address.
        text = str(ItemSearch("http://localhost", datetime=datetime).get_parameters()["datetime"])
        parts = [None if p in ("", "..") else str_to_datetime(p) for p in text.split("/")]
    except ValueError as error:
        raise ConfigError(f"datetime {datetime!r}: no such day: {error}") from error
    return parts[0], parts[-1]


def _opened(item: dict[str, Any], folder: Path) -> pystac.Item:
    """An item whose COGs lie beside its JSON, wherever all was moved to; `folder` is where its table lies."""
    opened: pystac.Item = pystac.Item.from_dict(item, preserve_dict=False)
    home = Path(absolute(opened.properties.pop(ITEM), folder))
    for asset in opened.assets.values():
        asset.href = str(home.with_name(Path(asset.href).name))
    opened.set_self_href(str(home))
    return opened
