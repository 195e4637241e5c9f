"""What a catalog has, for a search that found nothing: its extent, its days, its highest figures, the nearest tile."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import product_error
from pipeline.products.stac.search import Box, find_items

_KM_A_DEGREE = 111.2
"""Of latitude; of longitude at the equator."""


@dataclass(frozen=True)
class CatalogContent:
    """The items of a catalog together."""

    tiles: int
    domains: tuple[str, ...]
    bbox: Box
    days: tuple[str, str]
    """First and last, `2021-05-03`."""
    highest: tuple[tuple[str, float | None], ...]
    """(item property, its highest value), of the requested ones; None where no item has it."""
    nearest: tuple[str, str, float] | None
    """(domain, tile, kilometres to the requested box); None where no box was requested, or the nearest meets it."""


def catalog_content(
    path: Path | str, *, bbox: Box | None = None, domains: Collection[str] | None = None, figures: Collection[str] = ()
) -> CatalogContent:
    """Reads what a search compares, of all items.

    Args:
        path: as for `search`.
        bbox: the requested box; the nearest tile is the one nearest to it.
        domains: of which the nearest tile is wanted; all when None.
        figures: item properties whose highest values are wanted.

    Raises:
        ProductError: there is no catalog at `path`, or it cannot be read.
    """
    table = find_items(Path(path))
    with product_error(f"{table}: cannot be read as stac-geoparquet; publish again", pa.ArrowException, KeyError):
        known = [name for name in figures if name in pq.read_schema(table).names]
        columns = ["collection", "landcover:tile", "bbox", "start_datetime", "end_datetime", *known]
        rows = pq.read_table(table, columns=columns)
        boxes = [(b["xmin"], b["ymin"], b["xmax"], b["ymax"]) for b in rows["bbox"].to_pylist()]
        west, south, east, north = zip(*boxes, strict=True)
        names = rows["collection"].to_pylist()
        places = zip(names, rows["landcover:tile"].to_pylist(), boxes, strict=True)
        near = [(_distance_km(box, bbox), d, t) for d, t, box in places if bbox and d in (domains or names)]
        first, last = pc.min(rows["start_datetime"]), pc.max(rows["end_datetime"])
        highest = {name: pc.max(rows[name]).as_py() for name in known}
    distance, domain, tile = min(near, default=(0.0, "", ""))
    return CatalogContent(
        rows.num_rows,
        tuple(sorted(set(names))),
        (min(west), min(south), max(east), max(north)),
        (_day(first), _day(last)),
        tuple((name, highest.get(name)) for name in figures),
        (domain, tile, distance) if distance else None,
    )


def _day(moment: Any) -> str:
    return str(moment.as_py())[:10]


def _distance_km(one: Box, other: Box) -> float:
    """Kilometres between two boxes, on a sphere; 0 where they meet."""
    across = max(0.0, one[0] - other[2], other[0] - one[2])
    along = max(0.0, one[1] - other[3], other[1] - one[3])
    latitude = math.radians((one[1] + one[3]) / 2)
    return math.hypot(across * math.cos(latitude), along) * _KM_A_DEGREE
