"""A stratified random sample of changed and stable places, for people to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from pipeline.errors import product_error
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.products.analysis.edition_change.comparison import KINDS, LAND, MAP, STABLE, ChangeTarget
from pipeline.products.gis.geopackage import write_geopackage
from pipeline.products.national.zarr_store import read_zarr

STRATA = (STABLE, LAND, MAP)
LAYER = "places"


def draw_places(
    target: ChangeTarget, parts: Sequence[Window], kinds: NDArray[np.int64], *, size: int, seed: int
) -> gpd.GeoDataFrame:
    """Draws pixels of each stratum without replacement, all of a stratum with the same probability.

    Args:
        target: the change, written.
        parts: windows of the lattice that cover it, each of a file.
        kinds: int64 (part, 5): their pixels of each kind.
        size: places of each stratum; of a smaller stratum all pixels.
        seed: of the random numbers.

    Returns:
        Points at the centres of pixels, in random order: `place`, `stratum`, `from`, `to`, `confidence` (0..255), `x`,
        `y`; `stratum_m2`, the area that the places of the stratum are drawn from, and `stratum_places`, their number;
        empty `reference_from` and `reference_to`.

    Raises:
        ProductError: a file cannot be read.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for stratum in STRATA:
        ends = kinds[:, stratum].cumsum()
        total = int(ends[-1]) if len(ends) else 0
        ranks = np.sort(rng.choice(total, min(size, total), replace=False)) if total else np.zeros(0, np.int64)
        owners = np.searchsorted(ends, ranks, side="right")
        for at in np.unique(owners).tolist():
            inside = ranks[owners == at] - (ends[at] - kinds[at, stratum])
            rows += [
                {**row, "stratum_m2": total / PIXELS_PER_M**2, "stratum_places": len(ranks)}
                for row in _places(target, parts[at], stratum, inside)
            ]
    table = gpd.GeoDataFrame(rows, geometry=shapely.points([(r["x"], r["y"]) for r in rows]), crs=target.grid.crs)
    mixed = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    mixed.insert(0, "place", np.arange(1, len(mixed) + 1))
    return mixed


def _places(target: ChangeTarget, part: Window, stratum: int, ranks: NDArray[np.int64]) -> list[Mapping[str, object]]:
    place = part.within(target.grid.extent)
    where = np.flatnonzero(read_zarr(target.store / "change", place) == stratum)[ranks]
    first, second = (read_zarr(edition.landcover, place).ravel()[where] for edition in (target.first, target.second))
    sure = [read_zarr(edition.confidence, place).ravel()[where] for edition in (target.first, target.second)]
    rows, cols = np.divmod(where, part.width)
    return [
        {
            "stratum": KINDS[stratum],
            "from": int(first[k]),
            "to": int(second[k]),
            "confidence": int(min(sure[0][k], sure[1][k])),
            "reference_from": 0,
            "reference_to": 0,
            "x": (part.col + int(cols[k]) + 0.5) / PIXELS_PER_M,
            "y": -(part.row + int(rows[k]) + 0.5) / PIXELS_PER_M,
        }
        for k in range(len(where))
    ]


def write_places(path: Path, places: gpd.GeoDataFrame) -> None:
    """Writes them as a GeoPackage.

    Raises:
        ProductError, StorageError: it cannot be written.
    """
    with product_error(f"{path}: cannot be written", ValueError, RuntimeError):
        write_geopackage(path, places, layer=LAYER)
