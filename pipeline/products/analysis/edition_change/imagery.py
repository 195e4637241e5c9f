"""Which domains of two editions were mapped from the same input files, tile by tile."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.domain import Domain
from pipeline.errors import MALFORMED, product_error
from pipeline.grid import Tile
from pipeline.products.national.edition_record import Edition
from pipeline.products.national.grid import GridIndex
from pipeline.products.stac.search import find_items

_COLUMNS = ("landcover:domain", "landcover:tile", "landcover:depends_on")


def same_inputs(first: Edition, second: Edition) -> dict[GridIndex, frozenset[tuple[int, int]]]:
    """Tile → codes of domains (of the first edition, of the second) whose items name the same input files there.

    Raises:
        ProductError: the catalog of an edition cannot be read.
    """
    one, other = _inputs(first), _inputs(second)
    return {
        tile: frozenset((a, b) for a, mine in one[tile].items() for b, theirs in other[tile].items() if mine == theirs)
        for tile in one.keys() & other.keys()
    }


def _inputs(edition: Edition) -> Mapping[GridIndex, dict[int, str]]:
    """Tile → code of a domain → digest of its input files; those of older versions have none."""
    table = find_items(edition.path)
    found: dict[GridIndex, dict[int, str]] = {}
    with product_error(f"{table}: cannot be read as stac-geoparquet; publish again", pa.ArrowException, *MALFORMED):
        columns = set(pq.read_schema(table).names)
        if not columns.issuperset(_COLUMNS):
            return found
        for row in pq.read_table(table, columns=list(_COLUMNS)).to_pylist():
            domain, tile, depends_on = (row[name] for name in _COLUMNS)
            if depends_on and depends_on.get("inputs"):
                index = edition.grid.tile_index(Tile.named(tile, edition.grid.tile))
                found.setdefault(index, {})[Domain(domain).code] = depends_on["inputs"]
    return found
