"""Draws a stratified sample for people to interpret, and estimates a map's accuracy and areas from it."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.durable import write_json, write_text
from pipeline.errors import ConfigError, ProductError
from pipeline.evaluation.area_estimation import AreaEstimates, Estimate, allocate, estimate, few_points
from pipeline.evaluation.model_assisted import RegressionEstimates, regression_estimates
from pipeline.html_page import render
from pipeline.legend import Language
from pipeline.products.assessment.reference_sample import InterpretedSample, draw, read_sample, write_sample
from pipeline.products.assessment.sample_design import SampleDesign
from pipeline.progress import SILENT, Progress
from pipeline.runs.accuracy.counted_map import CountedMap, count_map
from pipeline.runs.accuracy.sample_page import cut_pictures, write_sample_page
from pipeline.runs.accuracy.sample_size import SampleGoal, SamplePlan, plan_sample

_M2_PER_HA = 10_000


@dataclass(frozen=True)
class DrawnSample:
    """A sample that was drawn and written."""

    path: Path
    units: dict[int, int]
    """FLAIR value → points."""
    crops: int
    page: Path | None
    """On which the sample can be interpreted; None without imagery."""
    plan: SamplePlan | None = None
    """Of its size; None where the size was given."""


def sample_map(
    place: Path,
    *,
    out: Path,
    size: int | SampleGoal,
    least: int = 50,
    clusters: int = 0,
    catalog: Path | None = None,
    workers: int = 1,
    seed: int = 2022,
    language: Language = "en",
    progress: Progress = SILENT,
) -> DrawnSample:
    """Draws a stratified random sample of a map, its classes being the strata.

    Beside the GeoPackage it writes a page on which the sample can be interpreted, if there is imagery.

    Args:
        place: a GeoTIFF of FLAIR values, a folder of `…-landcover.tif`, or a national product.
        out: the GeoPackage.
        size: points in all; or an area that the sample is to give, for which the fewest points are drawn.
        least: points of each class at least, or all of its pixels; the others follow the classes' areas.
        clusters: draw so many squares of 1 km first, and points in them only: fewer places to visit, and wider
            intervals for as many points. 0 draws points from the whole map.
        catalog: input catalog of the maps' domains, to cut a crop of imagery around each point into `<stem>-crops`, and
            to write the page `<stem>.html`.
        workers: processes that count pixels.
        seed: of the draw.
        language: of the page, and of the form for QGIS.
        progress: counts blocks, then points.

    Raises:
        ProductError: no maps, or a domain that the map does not name where crops are wanted.
        ConfigError: a goal that the map has no class of, or with clusters.
        EvaluationError: too few points for the classes, or too many for the goal.
        CatalogError, SourceError: imagery cannot be read.
        StorageError: the folder of `out` cannot be written.
    """
    planned = isinstance(size, SampleGoal)
    if planned and clusters:
        raise ConfigError("a goal plans points that are drawn one by one; leave out the clusters, or give a size")
    counted = count_map(place, confidence=planned, workers=workers, progress=progress)
    plan = None
    if isinstance(size, SampleGoal):
        plan = plan_sample(size, counted, least=least)
        units = plan.units
    else:
        units = allocate(counted.mapped_m2, size, least=least, most=counted.pixels)
    points = draw(counted.blocks, counted.counts, units, seed=seed, clusters=clusters)
    folder = out.with_name(f"{out.stem}-crops")
    pictures = cut_pictures(points, folder, catalog, progress=progress) if catalog else []
    one = counted.blocks[0][0].geobox
    crs = f"EPSG:{one.crs.epsg}" if one.crs and one.crs.epsg else str(one.crs)
    design = SampleDesign(seed, clusters, units, counted.mapped_m2, one.resolution.x, crs, counted.digest)
    crops = [own.crop for own in pictures] or [""] * len(points)
    write_sample(out, points, design=design, crops=crops, language=language)
    page = out.with_suffix(".html") if pictures else None
    if page:
        write_sample_page(page, points, pictures, sample=design.identity, language=language)
    return DrawnSample(out, units, len(pictures), page, plan)


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy and area of one class, estimated from a sample."""

    land_cover: legend.LandCover
    points: int
    """Points that were drawn of this class on the map."""
    mapped_ha: float
    area_ha: Estimate
    """True area."""
    users: Estimate
    """Share of the mapped area that truly is this class, 0..1; NaN where unknown."""
    producers: Estimate
    """Share of the true area that is mapped as this class, 0..1; NaN where unknown."""
    regression_ha: Estimate | None = None
    """True area by regression on the map's confidence; None where it cannot be estimated."""


@dataclass(frozen=True)
class SampleAccuracy:
    """A map's accuracy, estimated from an interpreted sample."""

    overall: Estimate
    classes: tuple[ClassAccuracy, ...]
    report: Path
    design: str
    """How the sample was drawn, in a sentence."""
    notes: tuple[str, ...]
    """What readers of the figures must know: few points, a design that is not sealed."""
    regression: Estimate | None = None
    """Overall accuracy by regression on the map's confidence; None where it cannot be estimated."""


_UNSEALED = "The sample has no sealed design, so nobody can tell whether points were lost."


def evaluate_sample(
    path: Path,
    *,
    out: Path,
    place: Path | None = None,
    unsealed: bool = False,
    answers: Path | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
) -> SampleAccuracy:
    """Area-adjusted accuracy and areas from an interpreted sample, into `area.json` and `area.html`.

    Args:
        path: the sample.
        out: folder of the results.
        place: the map, to check that the sample was drawn from it, and to estimate by its confidences too.
        unsealed: accept a sample without a design, see `read_sample`.
        answers: a CSV file that the sample's page saved, see `read_sample`.
        workers: processes that read the map.
        progress: counts blocks of the map.

    Raises:
        ProductError: no sample, one that is not interpreted completely, or one that differs from its design or the map.
        EvaluationError: a stratum with fewer than two points, or with points in one cluster only.
        StorageError: `out` cannot be written.
    """
    sample = read_sample(path, unsealed=unsealed, answers=answers)
    regression = None
    if place is not None:
        counted = count_map(place, confidence=sample.cluster is None, workers=workers, progress=progress)
        _check_map(sample, counted, path, place)
        regression = _regression(sample, counted)
    counts = sample.counts(sample.classes)
    areas = [sample.mapped_m2.get(value, 0.0) for value in sample.classes]
    found = estimate(counts, areas, complete=sample.complete(sample.classes))
    done = SampleAccuracy(
        found.overall,
        _by_class(sample, found, regression),
        out / "area.html",
        _described(sample),
        _notes(sample),
        regression.overall if regression else None,
    )
    write_json(out / "area.json", _as_json(done, counts))
    page = render("area.html", title="Accuracy from a sample", sample=path.name, points=len(sample.mapped), done=done)
    write_text(done.report, page)
    return done


def _regression(sample: InterpretedSample, counted: CountedMap) -> RegressionEstimates | None:
    """Estimates by the map's confidences; None without confidences, or for points in clusters."""
    means = counted.mean_confidence
    if means is None or sample.cluster is not None:
        return None
    mapped, reference = (np.searchsorted(sample.classes, v) for v in (sample.mapped, sample.reference))
    return regression_estimates(
        mapped,
        reference,
        counted.confidence_at(sample.xy, sample.mapped),
        means=[means.get(value, 0.0) for value in sample.classes],
        areas=[sample.mapped_m2.get(value, 0.0) for value in sample.classes],
        complete=sample.complete(sample.classes),
    )


def _check_map(sample: InterpretedSample, found: CountedMap, path: Path, place: Path) -> None:
    """Raises ProductError if the map is not the one that was sampled."""
    design = sample.design
    if design is None:
        raise ProductError(f"{path}: the sample does not say from which map it was drawn; leave out {place}")
    if found.digest == design.map_digest:
        return
    values = sorted(design.mapped_m2.keys() | found.mapped_m2.keys())
    areas = {v: (design.mapped_m2.get(v, 0.0) / _M2_PER_HA, found.mapped_m2.get(v, 0.0) / _M2_PER_HA) for v in values}
    differ = [f"{legend.BY_VALUE[v].name} {a:.4f} ha, found {b:.4f} ha" for v, (a, b) in areas.items() if a != b]
    what = f"expected {'; '.join(differ[:3])}" if differ else "its classes have the same areas in other places"
    raise ProductError(
        f"{place}: not the map from which {path.name} was drawn: {what}. A sample says nothing about another map, and "
        "nothing about the same map after it was made again"
    )


def _described(sample: InterpretedSample) -> str:
    count = f"{len(sample.mapped)} points"
    if sample.cluster is None:
        return f"{count}, stratified by mapped class"
    return f"{count} in {len(np.unique(sample.cluster))} clusters (two stages), stratified by mapped class"


def _notes(sample: InterpretedSample) -> tuple[str, ...]:
    complete = sample.complete(sample.classes)
    values = [v for k, v in enumerate(sample.classes) if sample.mapped_m2.get(v, 0) and k not in complete]
    names = [legend.BY_VALUE[v].name for v in values]
    few = few_points(names, [int((sample.mapped == v).sum()) for v in values])
    return tuple(note for note in (few, "" if sample.design else _UNSEALED) if note)


def _as_json(done: SampleAccuracy, counts: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "overall": _json(done.overall),
        **({"overall_regression": _json(done.regression)} if done.regression else {}),
        "classes": [
            {
                "class": c.land_cover.name,
                "points": c.points,
                "mapped_ha": c.mapped_ha,
                "area_ha": _json(c.area_ha),
                **({"regression_ha": _json(c.regression_ha)} if c.regression_ha else {}),
                "users": _json(c.users),
                "producers": _json(c.producers),
            }
            for c in done.classes
        ],
        "points": counts.reshape(-1, *counts.shape[-2:]).sum(axis=0).tolist(),
        "design": done.design,
        "notes": done.notes,
        "method": "values: Olofsson et al. 2014, doi 10.1016/j.rse.2014.02.015; 95 % intervals: mid-P beta limits of "
        "weighted sums (after Fay and Feuer 1997, Fay and Kim 2017), producer's by MOVER (Donner and Zou 2012)"
        + ("; regression: on the map's confidence, by stratum (Särndal et al. 1992)" if done.regression else ""),
    }


def _by_class(
    sample: InterpretedSample, found: AreaEstimates, regression: RegressionEstimates | None
) -> tuple[ClassAccuracy, ...]:
    return tuple(
        ClassAccuracy(
            legend.BY_VALUE[value],
            int((sample.mapped == value).sum()),
            sample.mapped_m2.get(value, 0.0) / _M2_PER_HA,
            found.areas[k] * (1 / _M2_PER_HA),
            found.users[k],
            found.producers[k],
            regression.areas[k] * (1 / _M2_PER_HA) if regression else None,
        )
        for k, value in enumerate(sample.classes)
    )


def _json(estimate: Estimate) -> dict[str, float] | None:
    return None if math.isnan(estimate.value) else asdict(estimate)
