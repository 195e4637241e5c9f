"""Searches the items of an edition by place, time, class share and confidence, without a server.

Arrow filters the rows of the stac-geoparquet, and only the rows that match become items: turning all 22 000 items of
the nation into JSON would take most of the time.
"""

import datetime as dt
import re
from collections.abc import Collection, Mapping
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

from pipeline import legend
from pipeline.errors import MALFORMED, ConfigError, ProductError, product_error
from pipeline.products.manifest import check_sealed_file
from pipeline.products.stac.collections import ITEM, ITEMS
from pipeline.products.stac.hrefs import absolute_href
from pipeline.products.tile.stac_item import CONFIDENCE, NOVELTY, share_name

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
    min_novelty: float | None = None,
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
        min_novelty: lowest novelty score; above 1 the imagery is unlike that of the training. Tiles without a score do
            not match.

    Returns:
        Items with absolute hrefs, which rasterio and rioxarray open.

    Raises:
        ConfigError: an invalid class, share, confidence, bbox or datetime.
        ProductError: there is no catalog at `path`, or it cannot be read.

    Examples:
        >>> found = search("build/demo/national", domains=["D034_2021"], min_share={"vineyard": 0.0001})
        >>> {item.properties["landcover:domain"] for item in found}
        {'D034_2021'}
    """
    conditions = [*_of_place(bbox), *_of_time(datetime)]
    if domains is not None:
        conditions.append(pc.field("collection").isin(pa.array(sorted(domains), pa.string())))
    least = _least(min_share or {}, min_confidence)
    if min_novelty is not None:
        least[NOVELTY] = min_novelty
    table = find_items(Path(path))
    return pystac.ItemCollection([_opened(item, table.parent) for item in _read(table, conditions, least)])


def _read(table: Path, conditions: list[pc.Expression], least: Mapping[str, float]) -> list[dict[str, Any]]:
    """The items of a table that match all conditions, in order of their ids; a missing value does not match.

    Args:
        table: stac-geoparquet.
        conditions: on its columns.
        least: item property → lowest value.
    """
    kinds = (pa.ArrowException, rustac.RustacError, *MALFORMED)
    with product_error(f"{table}: cannot be read as stac-geoparquet; publish again", *kinds):
        columns = set(pq.read_schema(table).names)
        if ITEM not in columns:
            raise ProductError(f"{table}: has no column {ITEM} with the paths of the items; publish again")
        if least.keys() - columns:
            return []  # no item has the class, or a mean confidence
        wanted = [*conditions, *(pc.field(name) >= value for name, value in least.items())]
        rows = pq.read_table(table, filters=reduce(and_, wanted) if wanted else None)
        items: list[dict[str, Any]] = rustac.from_arrow(rows)["features"] if rows.num_rows else []
        return items


def find_items(path: Path) -> Path:
    """The `items.parquet` of a national product's current edition, of an edition, or the given file itself.

    Symbolic links are resolved, so that a later publish does not mix two editions.

    Raises:
        ProductError: there is none, or it differs from the checksum in its edition.
    """
    for place in (path, path / "catalog" / ITEMS, path / "current" / "catalog" / ITEMS):
        if place.is_file():
            table = place.resolve()
            if table.parent.name == "catalog":
                check_sealed_file(table.parents[1], f"catalog/{table.name}")
            return table
    raise ProductError(
        f"{path}: expected a national product with a catalog (current/catalog/{ITEMS}); `landcover publish` writes it"
    )


def _least(min_share: Mapping[str, float], min_confidence: float | None) -> dict[str, float]:
    """Item property → lowest value."""
    least = {class_property(name): share for name, share in min_share.items()}
    if min_confidence is not None:
        least[CONFIDENCE] = min_confidence
    for name, value in least.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name.removeprefix('landcover:')} of at least {value}: expected a share of 0..1")
    return least


def _of_place(bbox: Box | None) -> list[pc.Expression]:
    if not bbox:
        return []
    if bbox[0] > bbox[2] or bbox[1] > bbox[3]:
        raise ConfigError(f"bbox {bbox}: expected (west, south, east, north) in degrees, from west to east and up")
    west, south, east, north = (pc.field("bbox", side) for side in ("xmin", "ymin", "xmax", "ymax"))
    return [west <= bbox[2], east >= bbox[0], south <= bbox[3], north >= bbox[1]]


def class_property(name: str) -> str:
    """The item property with the share of `vineyard`, `pervious surface`, `pervious_surface` or `9`.

    Raises:
        ConfigError: there is no such class.
    """
    for c in legend.FLAIR:
        if name in (c.name, c.slug, str(c.value)):
            return share_name(c.value)
    raise ConfigError(f"unknown class {name!r}; expected one of {', '.join(c.slug for c in legend.FLAIR)}")


def _of_time(datetime: str | None) -> list[pc.Expression]:
    if not datetime:
        return []
    if not all(_MOMENT.fullmatch(part) for part in datetime.split("/")) or datetime.count("/") > 1:
        raise ConfigError(f"datetime {datetime!r}: expected a day, a month, a year or START/END, as 2021-06/2021-08")
    # It imports jsonschema, whose optional format checkers take a second.
    from pystac_client.item_search import ItemSearch

    try:
        # pystac-client turns `2021` and the like into an interval; nothing is requested from the address.
        text = str(ItemSearch("http://localhost", datetime=datetime).get_parameters()["datetime"])
        # In UTC like the table, because Arrow does not compare times of different offsets.
        parts = [None if p in ("", "..") else str_to_datetime(p).astimezone(dt.UTC) for p in text.split("/")]
    except ValueError as error:
        raise ConfigError(f"datetime {datetime!r}: not a valid date: {error}") from error
    start, end = parts[0], parts[-1]
    from_start = [pc.field("end_datetime") >= start] if start else []
    return from_start + ([pc.field("start_datetime") <= end] if end else [])


def _opened(item: dict[str, Any], folder: Path) -> pystac.Item:
    """An item with absolute hrefs, also after the product was moved; `folder` is that of its table."""
    opened: pystac.Item = pystac.Item.from_dict(item, preserve_dict=False)
    home = Path(absolute_href(opened.properties.pop(ITEM), folder))
    for asset in opened.assets.values():
        asset.href = str(home.with_name(Path(asset.href).name))
    opened.set_self_href(str(home))
    return opened
