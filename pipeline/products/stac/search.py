"""Searches the items of an edition by place, time, class share and confidence, without a server.

Arrow filters the rows of the stac-geoparquet, and only the rows that match become items: turning all 22 000 items of
the nation into JSON would take most of the time.
"""

import datetime as dt
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pystac
import rustac
from pystac.utils import str_to_datetime
from pystac_client.item_search import ItemSearch

from pipeline import legend
from pipeline.errors import ConfigError, ProductError
from pipeline.products.stac.collections import ITEM, ITEMS
from pipeline.products.stac.hrefs import absolute_href
from pipeline.products.tile.stac_item import CONFIDENCE, share_name

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
    """The items that match all conditions, in order of their ids.

    Args:
        path: a national product, one of its editions, or its `items.parquet`.
        domains: names such as `D064_2021`; None for all.
        bbox: matches items that intersect it or touch it.
        datetime: a day, month or year, or `START/END` with `..` for an open end; matches items whose time overlaps.
        min_share: class (a name such as `vineyard`, or a FLAIR value such as `9`) → lowest share of the mapped pixels,
            0..1.
        min_confidence: lowest mean confidence of the mapped pixels, 0..1. Tiles of older versions, whose items have
            no mean confidence, do not match.

    Returns:
        Items with absolute hrefs, which rasterio and rioxarray open.

    Raises:
        ConfigError: an invalid class, share, confidence, bbox or datetime.
        ProductError: there is no catalog at `path`, or it cannot be read.

    Example:
        >>> found = search("build/demo/national", domains=["D034_2021"], min_share={"vineyard": 0.0001})
        >>> {item.properties["landcover:domain"] for item in found}
        {'D034_2021'}
    """
    wanted = _Wanted.of(domains, bbox, datetime, min_share or {}, min_confidence)
    table = find_items(Path(path))
    return pystac.ItemCollection([_opened(item, table.parent) for item in _read(table, wanted)])


def _read(table: Path, wanted: "_Wanted") -> list[dict[str, Any]]:
    """The matching items of a table, in the table's order, which is that of their ids."""
    try:
        columns = set(pq.read_schema(table).names)
        if ITEM not in columns:
            raise ProductError(f"{table}: has no column {ITEM} with the paths of the items; publish again")
        if wanted.least.keys() - columns:
            return []  # no item has the class, or a mean confidence
        rows = pq.read_table(table, filters=wanted.expression)
        items: list[dict[str, Any]] = rustac.from_arrow(rows)["features"] if rows.num_rows else []
    except (pa.ArrowException, rustac.RustacError, OSError, KeyError) as error:
        raise ProductError(f"{table}: cannot be read as stac-geoparquet: {error}; publish again") from error
    return items


def find_items(path: Path) -> Path:
    """The `items.parquet` of a national product's current edition, of an edition, or the given file itself.

    Symbolic links are resolved, so that a later publish does not mix two editions.

    Raises:
        ProductError: there is none.
    """
    for place in (path, path / "catalog" / ITEMS, path / "current" / "catalog" / ITEMS):
        if place.is_file():
            return place.resolve()
    raise ProductError(
        f"{path}: expected a national product with a catalog (current/catalog/{ITEMS}); `landcover publish` writes it"
    )


@dataclass(frozen=True)
class _Wanted:
    """Checked conditions on the properties of items."""

    domains: frozenset[str] | None
    bbox: Box | None
    start: dt.datetime | None
    end: dt.datetime | None
    least: Mapping[str, float]
    """Item property → lowest value."""

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

    @property
    def expression(self) -> pc.Expression | None:
        """True for rows that match all conditions; a missing value does not match. None without conditions."""
        west, south, east, north = (pc.field("bbox", side) for side in ("xmin", "ymin", "xmax", "ymax"))
        conditions = [pc.field(name) >= value for name, value in self.least.items()]
        if self.domains is not None:
            conditions.append(pc.field("collection").isin(pa.array(sorted(self.domains), pa.string())))
        if b := self.bbox:
            conditions += [west <= b[2], east >= b[0], south <= b[3], north >= b[1]]
        if self.start:
            conditions.append(pc.field("end_datetime") >= self.start)
        if self.end:
            conditions.append(pc.field("start_datetime") <= self.end)
        return reduce(and_, conditions) if conditions else None


def _class_value(name: str) -> int:
    """The FLAIR value of `vineyard`, `pervious surface`, `pervious_surface` or `9`."""
    for c in legend.FLAIR:
        if name in (c.name, c.slug, str(c.value)):
            return c.value
    raise ConfigError(f"unknown class {name!r}; expected one of {', '.join(c.slug for c in legend.FLAIR)}")


def _interval(datetime: str | None) -> tuple[dt.datetime | None, dt.datetime | None]:
    if not datetime:
        return None, None
    if not all(_MOMENT.fullmatch(part) for part in datetime.split("/")) or datetime.count("/") > 1:
        raise ConfigError(f"datetime {datetime!r}: expected a day, a month, a year or START/END, as 2021-06/2021-08")
    try:
        # pystac-client turns `2021` and the like into an interval; nothing is requested from the address.
        text = str(ItemSearch("http://localhost", datetime=datetime).get_parameters()["datetime"])
        # In UTC like the table, because Arrow does not compare times of different offsets.
        parts = [None if p in ("", "..") else str_to_datetime(p).astimezone(dt.UTC) for p in text.split("/")]
    except ValueError as error:
        raise ConfigError(f"datetime {datetime!r}: not a valid date: {error}") from error
    return parts[0], parts[-1]


def _opened(item: dict[str, Any], folder: Path) -> pystac.Item:
    """An item with absolute hrefs, also after the product was moved; `folder` is that of its table."""
    opened: pystac.Item = pystac.Item.from_dict(item, preserve_dict=False)
    home = Path(absolute_href(opened.properties.pop(ITEM), folder))
    for asset in opened.assets.values():
        asset.href = str(home.with_name(Path(asset.href).name))
    opened.set_self_href(str(home))
    return opened
