"""A stratified random sample of a map: drawn, written as a GeoPackage for interpreters, and read again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.evaluation.metrics import confusion_matrix
from pipeline.grid import Window
from pipeline.products.assessment.class_maps import ClassMap
from pipeline.products.gis.geopackage import write_geopackage
from pipeline.products.tile.seal import count_values
from pipeline.untrusted.vector_files import reading_features

LAYER = "sample"
_BLOCK = 5_000


@dataclass(frozen=True)
class SamplePoint:
    """One sampled pixel."""

    map: ClassMap
    row: int
    """Row in the map's file."""
    col: int
    mapped: int
    """FLAIR value on the map."""

    @property
    def xy(self) -> tuple[float, float]:
        """Its centre in the map's CRS."""
        x, y = self.map.geobox.pix2wld(self.col + 0.5, self.row + 0.5)
        return (x, y)


def blocks_of(maps: Sequence[ClassMap]) -> list[tuple[ClassMap, Window]]:
    """The parts in which maps are read, always in the same order."""
    return [(one, window) for one in maps for window in one.window.split(_BLOCK)]


def count(block: tuple[ClassMap, Window]) -> NDArray[np.int64]:
    """Pixels of a block by FLAIR value: int64 (20,), 0 is no data."""
    one, window = block
    return count_values(one.read(window))[: len(legend.FLAIR) + 1]


def draw(
    blocks: Sequence[tuple[ClassMap, Window]],
    counts: NDArray[np.int64],
    units: Mapping[int, int],
    *,
    seed: int,
) -> list[SamplePoint]:
    """Draws pixels without replacement, all pixels of a class with the same probability.

    Ranks are drawn among all pixels of a class, and only blocks with a drawn rank are read again.

    Args:
        blocks: from `blocks_of`.
        counts: int64 (block, 20), pixels by value.
        units: FLAIR value → number of points, at most the number of its pixels.
        seed: of the random numbers.

    Raises:
        ProductError: a class has too few pixels, or a map changed since it was counted.
    """
    rng = np.random.default_rng(seed)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for value, size in sorted(units.items()):
        ends = counts[:, value].cumsum()
        if size > ends[-1]:
            raise ProductError(f"{legend.BY_VALUE[value].name} has {ends[-1]} pixels; {size} points were to be drawn")
        for rank in np.sort(rng.choice(int(ends[-1]), size, replace=False)).tolist():
            at = int(np.searchsorted(ends, rank, side="right"))
            wanted.setdefault(at, []).append((value, rank - int(ends[at] - counts[at, value])))
    points = []
    for at, ranks in sorted(wanted.items()):
        one, window = blocks[at]
        classes = one.read(window)
        for value, rank in ranks:
            places = np.flatnonzero(classes == value)
            if rank >= len(places):
                raise ProductError(f"{one.path}: changed while the sample was drawn; draw it again")
            row, col = divmod(int(places[rank]), window.width)
            points.append(SamplePoint(one, window.row + row, window.col + col, value))
    # In random order, so that interpreters cannot guess the map's class from the order.
    return [points[i] for i in rng.permutation(len(points))]


def write_sample(
    path: Path, points: Sequence[SamplePoint], *, mapped_m2: Mapping[int, float], crops: Sequence[str]
) -> None:
    """Writes points with an empty attribute `reference`, which interpreters fill with FLAIR values.

    Args:
        path: the GeoPackage.
        points: from maps in one CRS.
        mapped_m2: FLAIR value → its area on the map.
        crops: path of each point's picture from the GeoPackage's folder; empty if there is none.

    Raises:
        ProductError: the maps have several CRS.
        StorageError: the folder cannot be written.
    """
    if len({p.map.geobox.crs for p in points}) != 1:
        raise ProductError("the maps have several CRS; draw a sample from each")
    columns = {
        "point": np.arange(1, len(points) + 1),
        "map": [p.map.name for p in points],
        "mapped": np.array([p.mapped for p in points]),
        "mapped_m2": np.array([mapped_m2[p.mapped] for p in points]),
        "reference": np.zeros(len(points), np.int64),
        "crop": list(crops),
    }
    places = [shapely.Point(p.xy) for p in points]
    sample = gpd.GeoDataFrame(columns, geometry=places, crs=str(points[0].map.geobox.crs))
    write_geopackage(path, sample, layer=LAYER)


@dataclass(frozen=True, eq=False)
class InterpretedSample:
    """The points of an interpreted sample."""

    xy: NDArray[np.float64]
    """float64 (point, 2): metres of the map's CRS."""
    mapped: NDArray[np.int64]
    """int64 (point,): FLAIR value on the map, the point's stratum."""
    reference: NDArray[np.int64]
    """int64 (point,): true FLAIR value."""
    mapped_m2: Mapping[int, float]
    """FLAIR value → its area on the whole map that was sampled."""

    def counts(self, classes: Sequence[int], chosen: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.int64]:
        """int64 (map class, reference class) of the chosen points; `classes` ascending, with all that occur."""
        rows, columns = (np.searchsorted(classes, v[chosen]) for v in (self.mapped, self.reference))
        return confusion_matrix(rows, columns, len(classes))

    @property
    def classes(self) -> tuple[int, ...]:
        """FLAIR values on the map or in the reference, ascending."""
        return tuple(sorted({*self.mapped.tolist(), *self.reference.tolist()}))


def read_sample(path: Path) -> InterpretedSample:
    """The points of an interpreted sample.

    Raises:
        ProductError: it cannot be read, is not from `landcover sample`, or has points without a reference.
    """
    with reading_features(path, ProductError, expected="a sample of `landcover sample`") as name:
        _, _, places, columns = pyogrio.raw.read(name, layer=LAYER, columns=["mapped", "mapped_m2", "reference"])
        if len(columns) != 3:
            raise ProductError(
                f"{path}: expected attributes mapped, mapped_m2 and reference, as `landcover sample` writes"
            )
        mapped, area, reference = (np.nan_to_num(np.asarray(c, np.float64)) for c in columns)
        xy = shapely.get_coordinates(shapely.from_wkb(places))
        if len(xy) != len(mapped) or not np.isfinite(xy).all():
            raise ProductError(f"{path}: {len(mapped)} points have {len(xy)} finite places; expected one each")
    odd = ~np.isin(reference, list(legend.BY_VALUE))
    if odd.any():
        raise ProductError(
            f"{path}: {int(odd.sum())} of {len(odd)} points have no FLAIR value 1..19 in `reference`; interpret all of "
            "them, because a sample without its difficult points is not random"
        )
    areas = {int(v): float(a) for v, a in zip(mapped, area, strict=True)}
    return InterpretedSample(xy, mapped.astype(np.int64), reference.astype(np.int64), areas)
