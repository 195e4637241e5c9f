"""The design of a sample: written into each of its points, and checked when the sample is read.

A sample is random only while all of its points are there, each where it was drawn and in the stratum that it was drawn
from. The design goes into a column of every row, because programs that copy a GeoPackage's layer keep columns and
lose metadata and other layers. It guards against mistakes, not against people who want to deceive.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyproj import CRS

from pipeline import legend
from pipeline.errors import ProductError
from pipeline.fingerprint import digest
from pipeline.untrusted.documents import Document, parse_model

_MOST_NAMED = 5
_WHY = "A sample that lost or changed points is not random. Restore the file as it was drawn, or draw another sample"


@dataclass(frozen=True)
class SampleDesign:
    """How a sample was drawn."""

    seed: int
    clusters: int
    """Squares of 1 km that were drawn first; 0 where points were drawn from the whole map."""
    points: Mapping[int, int]
    """FLAIR value, the stratum → points."""
    mapped_m2: Mapping[int, float]
    """FLAIR value → its area on the map."""
    pixel_m: float
    """Side of the map's pixels."""
    crs: str
    map_digest: str
    """Of the map's pixels and their places."""

    @property
    def text(self) -> str:
        """The content of the column `design`."""
        strata = {str(v): [n, self.mapped_m2[v]] for v, n in sorted(self.points.items())}
        own = {"seed": self.seed, "clusters": self.clusters, "pixel_m": self.pixel_m, "map": self.map_digest}
        return json.dumps(own | {"crs": self.crs, "strata": strata}, separators=(",", ":"))

    @property
    def identity(self) -> str:
        """A short name of the sample that was drawn, by which its answers are recognized."""
        return digest([self.text])[:16]

    def seal(self, number: int, value: int, cluster: int, xy: tuple[float, float]) -> str:
        """The seal of a point: a digest of the design, its number, stratum, cluster and place (to 1 mm)."""
        return digest([self.text, number, value, cluster, *(f"{c:.3f}" for c in xy)])[:16]


class _Content(Document):
    """The column `design`."""

    seed: int
    clusters: int
    pixel_m: float
    map: str
    crs: str
    strata: dict[str, tuple[int, float]]
    """FLAIR value → points, area in m²."""


@dataclass(frozen=True)
class SampleRow:
    """A point as it was found in the file."""

    number: int
    mapped: int
    mapped_m2: float
    cluster: int
    xy: tuple[float, float]
    drawn_xy: tuple[float, float]
    """Where it was drawn, by its attributes x and y."""
    seal: str


def parse_design(texts: Sequence[str], *, where: str) -> SampleDesign:
    """The design from the column `design`.

    Raises:
        ProductError: the column is damaged, or rows are from several samples.
    """
    kinds = Counter(texts)
    if len(kinds) != 1:
        raise ProductError(f"{where}: expected the points of one sample, found rows of {len(kinds)} designs. {_WHY}")
    try:
        found = parse_model(_Content, next(iter(kinds)))
        strata = {int(value): own for value, own in found.strata.items()}
    except ValueError as error:
        raise ProductError(f"{where}: the column design is damaged: {error}. {_WHY}") from error
    if not strata or strata.keys() - legend.BY_VALUE.keys():
        raise ProductError(f"{where}: the column design is damaged: strata {sorted(strata)}. {_WHY}")
    points, mapped_m2 = ({v: own[k] for v, own in strata.items()} for k in (0, 1))
    return SampleDesign(
        found.seed,
        found.clusters,
        {v: int(n) for v, n in points.items()},
        mapped_m2,
        found.pixel_m,
        found.crs,
        found.map,
    )


def check_rows(design: SampleDesign, rows: Sequence[SampleRow], *, crs: str, where: str) -> None:
    """Compares the points of a file with the design.

    Raises:
        ProductError: points are missing, repeated, moved or in another stratum or cluster, or areas or CRS changed.
    """
    _check_numbers(design, rows, where)
    for row in rows:
        if row.mapped_m2 != design.mapped_m2.get(row.mapped, row.mapped_m2):
            raise ProductError(
                f"{where}: point {row.number}: expected mapped_m2 {design.mapped_m2[row.mapped]:g}, the area of its "
                f"class on the map, found {row.mapped_m2:g}. {_WHY}"
            )
    if not CRS(crs).equals(CRS(design.crs), ignore_axis_order=True):
        raise ProductError(
            f"{where}: expected CRS {design.crs}, in which it was drawn, found {crs}; export it in that CRS"
        )
    changed = [text for row in rows if (text := _change(design, row))]
    if changed:
        more = f" and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        raise ProductError(f"{where}: {'; '.join(changed[:_MOST_NAMED])}{more}. {_WHY}")


def _check_numbers(design: SampleDesign, rows: Sequence[SampleRow], where: str) -> None:
    expected, found = sum(design.points.values()), Counter(row.number for row in rows)
    missing = sorted(set(range(1, expected + 1)) - found.keys())
    odd = sorted(number for number, times in found.items() if times > 1 or not 1 <= number <= expected)
    if not missing and not odd:
        return
    by_class = Counter(row.mapped for row in rows)
    differ = [
        f"{legend.BY_VALUE[v].name}: expected {n}, found {by_class[v]}"
        for v, n in sorted(design.points.items())
        if by_class[v] != n
    ]
    faults = [
        f"{len(numbers)} {what}: {', '.join(map(str, numbers[:_MOST_NAMED]))}{'…' * (len(numbers) > _MOST_NAMED)}"
        for what, numbers in (("points are missing", missing), ("points are repeated or not of this sample", odd))
        if numbers
    ]
    by = f" ({'; '.join(differ)})" if differ else ""
    raise ProductError(f"{where}: expected {expected} points, found {len(rows)}{by}; {'; '.join(faults)}. {_WHY}")


def _change(design: SampleDesign, row: SampleRow) -> str:
    """What changed of a point; empty where nothing did."""
    if max(abs(a - b) for a, b in zip(row.xy, row.drawn_xy, strict=True)) > design.pixel_m / 100:
        at, now = (f"{x:.2f}, {y:.2f}" for x, y in (row.drawn_xy, row.xy))
        return f"point {row.number} moved: expected {at}, found {now}"
    if row.seal == design.seal(row.number, row.mapped, row.cluster, row.drawn_xy):
        return ""
    for value in design.points:
        if row.seal == design.seal(row.number, value, row.cluster, row.drawn_xy):
            found = legend.BY_VALUE[row.mapped].name if row.mapped in legend.BY_VALUE else row.mapped
            return f"point {row.number}: expected stratum {legend.BY_VALUE[value].name}, found {found}"
    return f"point {row.number}: its seal does not fit its number, stratum, cluster and place"
