"""A stratified random sample of a map: drawn, written as a GeoPackage for interpreters, and read again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.fingerprint import digest
from pipeline.grid import Window
from pipeline.legend import Language
from pipeline.products.assessment.answers import read_answers
from pipeline.products.assessment.class_maps import ClassMap
from pipeline.products.assessment.sample_design import SampleDesign, SampleRow, check_rows, parse_design
from pipeline.products.assessment.sample_form import add_form
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
    cluster: int = 0
    """Number of its square of 1 km, from 1; 0 where points were drawn from the whole map."""

    @property
    def xy(self) -> tuple[float, float]:
        """Its centre in the map's CRS."""
        x, y = self.map.geobox.pix2wld(self.col + 0.5, self.row + 0.5)
        return (x, y)


def blocks_of(maps: Sequence[ClassMap]) -> list[tuple[ClassMap, Window]]:
    """The parts in which maps are read, always in the same order."""
    return [(one, window) for one in maps for window in one.window.split(_BLOCK)]


def count(block: tuple[ClassMap, Window]) -> tuple[NDArray[np.int64], str]:
    """Pixels of a block by FLAIR value, int64 (20,), 0 is no data; and a digest of its pixels and their place."""
    one, window = block
    pixels = one.read(window)
    place = [*one.geobox[window.slices].affine[:6], *pixels.shape]
    content = hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()
    return count_values(pixels)[: len(legend.FLAIR) + 1], digest([place, content])


def draw(
    blocks: Sequence[tuple[ClassMap, Window]],
    counts: NDArray[np.int64],
    units: Mapping[int, int],
    *,
    seed: int,
    clusters: int = 0,
) -> list[SamplePoint]:
    """Draws pixels without replacement, all pixels of a class with the same probability.

    Ranks are drawn among all pixels of a class, and only blocks with a drawn rank are read again.

    Args:
        blocks: from `blocks_of`.
        counts: int64 (block, 20), pixels by value.
        units: FLAIR value → number of points, at most the number of its pixels.
        seed: of the random numbers.
        clusters: draw so many blocks first, and points in them only; 0 for points from all.

    Raises:
        ProductError: too few blocks, or a class has too few pixels, or a map changed since it was counted.
    """
    rng = np.random.default_rng(seed)
    if clusters:
        mapped = np.flatnonzero(counts[:, 1:].any(axis=1))
        if not 2 <= clusters <= len(mapped):
            raise ProductError(
                f"expected 2..{len(mapped)} clusters, squares of 1 km with mapped pixels; got {clusters}"
            )
        drawn = np.sort(rng.choice(mapped, clusters, replace=False))
        blocks, counts = [blocks[k] for k in drawn.tolist()], counts[drawn]
    wanted: dict[int, list[tuple[int, int]]] = {}
    for value, size in sorted(units.items()):
        ends = counts[:, value].cumsum()
        if size > ends[-1]:
            where = f" in the {clusters} drawn squares; draw more clusters" if clusters else ""
            raise ProductError(
                f"{legend.BY_VALUE[value].name} has {ends[-1]} pixels{where}; {size} points were to be drawn"
            )
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
            points.append(SamplePoint(one, window.row + row, window.col + col, value, at + 1 if clusters else 0))
    # In random order, so that interpreters cannot guess the map's class from the order.
    return [points[i] for i in rng.permutation(len(points))]


def write_sample(
    path: Path,
    points: Sequence[SamplePoint],
    *,
    design: SampleDesign,
    crops: Sequence[str],
    language: Language = "en",
) -> None:
    """Writes points with an empty attribute `reference` for interpreters, and a form in which QGIS shows them.

    Args:
        path: the GeoPackage.
        points: from maps in one CRS.
        design: how they were drawn; sealed into each.
        crops: path of each point's picture from the GeoPackage's folder; empty if there is none.
        language: of the form.

    Raises:
        StorageError: the folder cannot be written.
    """
    xy = np.array([p.xy for p in points])
    columns = {
        "point": np.arange(1, len(points) + 1),
        "map": [p.map.name for p in points],
        "mapped": np.array([p.mapped for p in points]),
        "mapped_m2": np.array([design.mapped_m2[p.mapped] for p in points]),
        "reference": np.zeros(len(points), np.int64),
        "crop": list(crops),
        "cluster": np.array([p.cluster for p in points]),
        "x": xy[:, 0],
        "y": xy[:, 1],
        "seal": [design.seal(k, p.mapped, p.cluster, p.xy) for k, p in enumerate(points, start=1)],
        "design": [design.text] * len(points),
    }
    sample = gpd.GeoDataFrame(columns, geometry=shapely.points(xy), crs=design.crs)
    form = partial(add_form, layer=LAYER, columns=list(columns), language=language)
    write_geopackage(path, sample, layer=LAYER, finish=form)


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
    cluster: NDArray[np.int64] | None = None
    """int64 (point,): number of the point's cluster, from 0; None where points were drawn one by one."""
    design: SampleDesign | None = None
    """How it was drawn; None where the file does not say so."""

    def counts(self, classes: Sequence[int], chosen: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.int64]:
        """int64 (map class, reference class) of the chosen points, of clusters (cluster, map class, reference class).

        Args:
            classes: ascending, with all that occur.
            chosen: all by default; clusters without a chosen point are left out.
        """
        rows, columns = (np.searchsorted(classes, v[chosen]) for v in (self.mapped, self.reference))
        _, cluster = np.unique(
            np.zeros_like(rows) if self.cluster is None else self.cluster[chosen], return_inverse=True
        )
        found = np.zeros((int(cluster.max(initial=0)) + 1, len(classes), len(classes)), np.int64)
        np.add.at(found, (cluster, rows, columns), 1)
        return found[0] if self.cluster is None else found

    @property
    def classes(self) -> tuple[int, ...]:
        """FLAIR values on the map or in the reference, ascending."""
        return tuple(sorted({*self.mapped.tolist(), *self.reference.tolist()}))

    def complete(self, classes: Sequence[int]) -> list[int]:
        """Positions of classes of which all of the map's pixels are points, because there are very few of them.

        Args:
            classes: as for `counts`.
        """
        if self.design is None or self.cluster is not None:
            return []
        pixel_m2, points = self.design.pixel_m**2, self.design.points
        return [k for k, v in enumerate(classes) if v in points and points[v] == round(self.mapped_m2[v] / pixel_m2)]


_NEEDED = ("mapped", "mapped_m2", "reference")
_SEALED = ("point", "x", "y", "cluster", "seal", "design")


def read_sample(path: Path, *, unsealed: bool = False, answers: Path | None = None) -> InterpretedSample:
    """The points of an interpreted sample, checked against the design that is sealed in them.

    Args:
        path: the GeoPackage.
        unsealed: accept a sample without a design: of an earlier version, or of another program. It needs the
            attributes `mapped`, `mapped_m2` and `reference`, and `cluster` if it was drawn in two stages.
        answers: a CSV file that the sample's page saved; it gives the classes of points without a reference.

    Raises:
        ProductError: it cannot be read, is not from `landcover sample`, has points without a reference, or differs from
            its design.
    """
    with reading_features(path, ProductError, expected="a sample of `landcover sample`") as name:
        meta, _, wkb, values = pyogrio.raw.read(name, layer=LAYER)
        columns = dict(zip(meta["fields"], values, strict=True))
        if lacking := [name for name in _NEEDED if name not in columns]:
            raise ProductError(
                f"{path}: attributes {', '.join(lacking)} are missing; expected {', '.join(_NEEDED)}, as from "
                "`landcover sample`"
            )
        places = shapely.from_wkb(wkb)
        if not len(places) or not all(shapely.get_type_id(places) == shapely.GeometryType.POINT):
            raise ProductError(f"{path}: expected points, found {len(places)} rows, not all of which are points")
        xy = shapely.get_coordinates(places)
        mapped, area, reference = (np.nan_to_num(np.asarray(columns[name], np.float64)) for name in _NEEDED)
        if len(xy) != len(mapped) or not np.isfinite(xy).all():
            raise ProductError(f"{path}: {len(mapped)} points have {len(xy)} finite places; expected one each")
        design = _design(path, columns, xy, crs=str(meta["crs"]), unsealed=unsealed)
    if answers is not None:
        reference = _with_answers(path, reference, columns, design, answers)
    odd = ~np.isin(reference, list(legend.BY_VALUE))
    if odd.any():
        raise ProductError(
            f"{path}: {int(odd.sum())} of {len(odd)} points have no FLAIR value 1..19 in `reference`; interpret all of "
            "them, because a sample without its difficult points is not random"
        )
    areas = {int(v): float(a) for v, a in zip(mapped, area, strict=True)} if design is None else design.mapped_m2
    named = columns.get("cluster")
    clustered = named is not None and (design is None or design.clusters > 0) and len(set(named.tolist())) > 1
    cluster = np.unique(named.astype(str), return_inverse=True)[1] if named is not None and clustered else None
    return InterpretedSample(xy, mapped.astype(np.int64), reference.astype(np.int64), areas, cluster, design)


def _with_answers(
    path: Path,
    reference: NDArray[np.float64],
    columns: Mapping[str, NDArray[Any]],
    design: SampleDesign | None,
    answers: Path,
) -> NDArray[np.float64]:
    if design is None:
        raise ProductError(f"{path}: its design is not sealed, so answers in {answers} cannot be matched to its points")
    given = read_answers(answers, design)
    own = np.array([given.get(int(number), 0) for number in columns["point"]], np.float64)
    differ = np.flatnonzero((own > 0) & (reference > 0) & (own != reference))
    if differ.size:
        at = differ[0]
        raise ProductError(
            f"{answers}: point {int(columns['point'][at])} has another class than in {path}: {int(own[at])}, expected "
            f"{int(reference[at])}; {differ.size} points differ. Keep one of both answers"
        )
    return np.where(own > 0, own, reference)


def _design(
    path: Path, columns: Mapping[str, NDArray[Any]], xy: NDArray[np.float64], *, crs: str, unsealed: bool
) -> SampleDesign | None:
    """The checked design; None for a sample without one, where that is accepted."""
    lacking = [name for name in _SEALED if name not in columns]
    if lacking and unsealed:
        return None
    if lacking:
        raise ProductError(
            f"{path}: its design is not sealed (attributes {', '.join(lacking)} are missing), so nobody can tell "
            "whether points were lost. If an earlier version or another program drew it, and you know that it is "
            "complete, accept it with --unsealed (in Python unsealed=True)"
        )
    design = parse_design([str(text) for text in columns["design"]], where=str(path))
    number, mapped, area, cluster, x, y = (
        np.nan_to_num(np.asarray(columns[name], np.float64))
        for name in ("point", "mapped", "mapped_m2", "cluster", "x", "y")
    )
    rows = [
        SampleRow(
            int(number[k]),
            int(mapped[k]),
            float(area[k]),
            int(cluster[k]),
            (float(xy[k, 0]), float(xy[k, 1])),
            (float(x[k]), float(y[k])),
            str(columns["seal"][k]),
        )
        for k in range(len(xy))
    ]
    check_rows(design, rows, crs=crs, where=str(path))
    return design
