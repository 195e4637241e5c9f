"""Tiles by place, time, class share and confidence, from the stac-geoparquet of an edition: no server is asked.

What is asked is compared column by column, and only rows that fit become items: of a nation's 22 000, most of the time
would go into the JSON of those that do not.
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
from pipeline.products.stac.hrefs import absolute
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
    return pystac.ItemCollection([_opened(item, table.parent) for item in _read(table, wanted)])


def _read(table: Path, wanted: "_Wanted") -> list[dict[str, Any]]:
    """The items of a table that fit, in its order, which is that of their ids."""
    try:
        columns = set(pq.read_schema(table).names)
        if ITEM not in columns:
            raise ProductError(f"{table}: no item says where its tile lies ({ITEM}); publish again")
        if wanted.least.keys() - columns:
            return []  # no tile has the class, or none says how sure it is
        rows = pq.read_table(table, filters=wanted.expression)
        items: list[dict[str, Any]] = rustac.from_arrow(rows)["features"] if rows.num_rows else []
    except (pa.ArrowException, rustac.RustacError, OSError, KeyError) as error:
        raise ProductError(f"{table}: cannot be read as stac-geoparquet: {error}; publish again") from error
    return items


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

    @property
    def expression(self) -> pc.Expression | None:
        """True of rows for which all conditions hold; None where nothing is asked. What a row does not say is not."""
        west, south, east, north = (pc.field("bbox", side) for side in ("xmin", "ymin", "xmax", "ymax"))
        asked = [pc.field(name) >= value for name, value in self.least.items()]
        if self.domains is not None:
            asked.append(pc.field("collection").isin(pa.array(sorted(self.domains), pa.string())))
        if b := self.bbox:
            asked += [west <= b[2], east >= b[0], south <= b[3], north >= b[1]]
        if self.start:
            asked.append(pc.field("end_datetime") >= self.start)
        if self.end:
            asked.append(pc.field("start_datetime") <= self.end)
        return reduce(and_, asked) if asked else None


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
        # In UTC as the table has it: Arrow compares no two offsets.
        parts = [None if p in ("", "..") else str_to_datetime(p).astimezone(dt.UTC) for p in text.split("/")]
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
