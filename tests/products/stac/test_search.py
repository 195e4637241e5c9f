"""A search in columns finds what a loop over all items finds."""

import datetime as dt
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rustac
from hypothesis import given
from hypothesis import strategies as st
from pystac.utils import str_to_datetime

from pipeline.domain import Domain
from pipeline.errors import ProductError
from pipeline.products.stac.collections import ITEM, write_items
from pipeline.products.stac.nothing_found import catalog_content
from pipeline.products.stac.search import search
from pipeline.products.tile.stac_item import CONFIDENCE, share_name

CLASSES = {"vineyard": 9, "water": 5, "greenhouse": 18}
"""The last is in no item."""
DOMAINS = (Domain("D001_2019"), Domain("D034_2021"), Domain("D034_2024"))
VINEYARD, WATER = share_name(9), share_name(5)


def made_up(count: int) -> list[dict[str, Any]]:
    """Items anywhere in a square of 1°, of any day, some without confidence or without a class."""
    rng = np.random.default_rng(4)
    items = []
    for number in range(count):
        west, south = rng.integers(0, 8, 2) / 8
        domain = DOMAINS[rng.integers(3)]
        first = dt.datetime(int(domain[-4:]), 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=int(rng.integers(360)))
        last = first + dt.timedelta(days=int(rng.integers(9)), seconds=-1)
        said: dict[str, Any] = {
            "datetime": None,
            "start_datetime": first.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "end_datetime": last.strftime("%Y-%m-%dT%H:%M:%SZ"),
            ITEM: f"../../products/{domain}/{number}.json",
            VINEYARD: rng.integers(0, 5) / 4,
        }
        said |= {name: float(rng.random()) for name in (CONFIDENCE, WATER) if rng.random() < 0.7}
        ring = [[west, south], [west + 0.1, south], [west + 0.1, south + 0.1], [west, south + 0.1], [west, south]]
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.1.0",
                "id": f"{number:03d}",
                "collection": domain,
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "bbox": [west, south, west + 0.1, south + 0.1],
                "properties": said,
                "links": [{"rel": "derived_from", "href": f"https://host/{number}.jp2"}],
                "assets": {"landcover": {"href": f"./{number}.tif", "roles": ["data"]}},
            }
        )
    return items


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "items.parquet"
    write_items(path, made_up(80))
    return path


@cache
def everything(table: Path) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = rustac.read_sync(str(table), format="parquet")["features"]
    return items


def test_the_content_of_a_catalog_names_extent_days_and_the_nearest_tile(table: Path) -> None:
    # The helper's items have no name of a tile.
    named = rustac.read_sync(str(table), format="parquet")
    for item in named["features"]:
        item["properties"]["landcover:tile"] = f"tile {item['id']}"
    path = table.with_name("named.parquet")
    write_items(path, named["features"])
    items = everything(table)
    content = catalog_content(path, bbox=(3, 0.2, 4, 0.3), figures=[VINEYARD, share_name(18)])
    assert content.tiles == len(items)
    assert content.domains == DOMAINS
    assert content.bbox == pytest.approx((0, 0, 0.975, 0.975))
    assert content.days[0] == min(i["properties"]["start_datetime"] for i in items)[:10]
    assert content.highest == ((VINEYARD, 1.0), (share_name(18), None))
    assert content.nearest is not None
    domain, tile, distance = content.nearest
    assert (domain, tile) in {
        (i["collection"], f"tile {i['id']}") for i in items if i["bbox"][2] == pytest.approx(0.975)
    }
    assert distance == pytest.approx(111.2 * (3 - 0.975), rel=1e-3)
    assert catalog_content(path, bbox=(0.5, 0.5, 0.6, 0.6)).nearest is None


@given(
    domains=st.none() | st.sets(st.sampled_from([*DOMAINS, "D099_2020"])),
    corners=st.none() | st.tuples(*[st.integers(0, 16)] * 4),
    days=st.none() | st.tuples(*[st.none() | st.dates(dt.date(2019, 1, 1), dt.date(2024, 12, 31))] * 2),
    least=st.dictionaries(st.sampled_from([*CLASSES, None]), st.integers(0, 4)),
)
def test_columns_give_what_a_loop_over_all_items_gives(
    domains: set[str] | None,
    corners: tuple[int, int, int, int] | None,
    days: tuple[dt.date | None, dt.date | None] | None,
    least: dict[str | None, int],
    table: Path,
) -> None:
    box = None
    if corners is not None:
        (west, east), (south, north) = sorted(corners[:2]), sorted(corners[2:])
        box = (west / 16, south / 16, east / 16, north / 16)
    first, last = days or (None, None)
    if first and last and last < first:
        first, last = last, first
    asked = {share_name(value): least[name] / 4 for name, value in CLASSES.items() if name in least}
    if None in least:
        asked[CONFIDENCE] = least[None] / 4

    def fits(item: dict[str, Any]) -> bool:
        said, b = item["properties"], item["bbox"]
        start, end = (str_to_datetime(said[key]).date() for key in ("start_datetime", "end_datetime"))
        return (
            (domains is None or item["collection"] in domains)
            and (box is None or (b[0] <= box[2] and b[2] >= box[0] and b[1] <= box[3] and b[3] >= box[1]))
            and (first is None or end >= first)
            and (last is None or start <= last)
            and all(name in said and said[name] is not None and said[name] >= value for name, value in asked.items())
        )

    found = search(
        table,
        domains=domains,
        bbox=box,
        datetime=f"{first or '..'}/{last or '..'}" if first or last else None,
        min_share={name: n / 4 for name, n in least.items() if name is not None},
        min_confidence=asked.get(CONFIDENCE),
    )
    expected = [item for item in everything(table) if fits(item)]
    assert [item.id for item in found] == [item["id"] for item in expected]
    for item, plain in zip(found, expected, strict=True):
        kept = {key: value for key, value in plain["properties"].items() if key != ITEM}
        assert item.properties == kept
        assert [link.href for link in item.get_links("derived_from")] == [plain["links"][0]["href"]]
        assert item.assets["landcover"].href.endswith(f"/products/{plain['collection']}/{int(plain['id'])}.tif")


def test_a_moment_is_the_same_by_any_clock_and_to_its_fraction(table: Path) -> None:
    start = everything(table)[7]["properties"]["start_datetime"]
    moment = str_to_datetime(start)
    elsewhere = moment.astimezone(dt.timezone(dt.timedelta(hours=-3))).isoformat()
    found, shifted = (search(table, datetime=f"../{when}") for when in (start, elsewhere))
    assert "007" in {item.id for item in found}
    assert [item.id for item in shifted] == [item.id for item in found]
    before = (moment - dt.timedelta(microseconds=1)).isoformat()
    assert "007" not in {item.id for item in search(table, datetime=f"../{before}")}


def test_a_table_that_says_not_where_tiles_lie_is_refused(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "items.parquet"
    pq.write_table(pq.read_table(table).drop_columns([ITEM]), other)
    with pytest.raises(ProductError, match=r"has no column landcover:item"):
        search(other)
