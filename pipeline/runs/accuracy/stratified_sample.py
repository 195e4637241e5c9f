"""Draws a stratified sample for people to interpret, and estimates a map's accuracy and areas from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline import legend
from pipeline.cluster.parallel_map import parallel_map
from pipeline.domain import Domain
from pipeline.durable import replacing, write_json, write_text
from pipeline.errors import ProductError
from pipeline.evaluation.area_estimation import AreaEstimates, Estimate, allocate, estimate
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.html_page import render
from pipeline.products.assessment.class_maps import ClassMap, find_maps
from pipeline.products.assessment.reference_sample import (
    InterpretedSample,
    SamplePoint,
    blocks_of,
    count,
    draw,
    read_sample,
    write_sample,
)
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic

_CROP = 256
"""Pixels a side of a crop: 51 m."""
_ZOOM = 2
_M2_PER_HA = 10_000


@dataclass(frozen=True)
class DrawnSample:
    """A sample that was drawn and written."""

    path: Path
    units: dict[int, int]
    """FLAIR value → points."""
    crops: int


def sample_map(
    place: Path,
    *,
    out: Path,
    size: int,
    least: int = 50,
    catalog: Path | None = None,
    workers: int = 1,
    seed: int = 2022,
    progress: Progress = SILENT,
) -> DrawnSample:
    """Draws a stratified random sample of a map, its classes being the strata.

    Args:
        place: a GeoTIFF of FLAIR values, a folder of `…-landcover.tif`, or a national product.
        out: the GeoPackage.
        size: points in all.
        least: points of each class at least; the others follow the classes' areas.
        catalog: input catalog of the maps' domains, to cut a crop of imagery around each point into `<stem>-crops`.
        workers: processes that count pixels.
        seed: of the draw.
        progress: counts blocks.

    Raises:
        ProductError: no maps, or a domain that the map does not name where crops are wanted.
        EvaluationError: too few points for the classes.
        CatalogError, SourceError: imagery cannot be read.
        StorageError: the folder of `out` cannot be written.
    """
    maps = find_maps(place)
    blocks = blocks_of(maps)
    counts = np.zeros((len(blocks), len(legend.FLAIR) + 1), np.int64)
    progress.start(len(blocks))
    for at, values in progress.track(parallel_map(enumerate(blocks), _count, workers=workers)):
        counts[at] = values
    pixel_m2 = abs(maps[0].geobox.affine.determinant)
    mapped_m2 = {v: float(n) * pixel_m2 for v, n in enumerate(counts.sum(axis=0).tolist()) if v and n}
    units = allocate(mapped_m2, size, least=least)
    points = draw(blocks, counts, units, seed=seed)
    crops = _crop(points, out.with_name(f"{out.stem}-crops"), catalog) if catalog else [""] * len(points)
    write_sample(out, points, mapped_m2=mapped_m2, crops=crops)
    return DrawnSample(out, units, sum(bool(c) for c in crops))


def _count(job: tuple[int, tuple[ClassMap, Window]]) -> tuple[int, NDArray[np.int64]]:
    at, block = job
    return at, count(block)


def _crop(points: Sequence[SamplePoint], folder: Path, catalog: Path) -> list[str]:
    """A PNG around each point, the sampled pixel framed; returns paths from the GeoPackage's folder."""
    mosaics: dict[str, Mosaic] = {}
    written = []
    for number, point in enumerate(points, start=1):
        domain = point.map.domain
        if not domain:
            raise ProductError(
                f"{point.map.path}: the file name contains no domain, so its imagery is not known; leave out --catalog"
            )
        if domain not in mosaics:
            inputs = read_domain(catalog, Domain(domain), tile_size=point.map.window.height)
            mosaics[domain] = Mosaic.of(inputs, bands=("red", "green", "blue"))
        mosaic = mosaics[domain]
        x, y = point.xy
        row, col = math.floor(-y * PIXELS_PER_M), math.floor(x * PIXELS_PER_M)
        window = Window(row - _CROP // 2, col - _CROP // 2, _CROP, _CROP)
        part = window.intersect(mosaic.window)
        rgb = np.zeros((_CROP, _CROP, 3), np.uint8)
        rgb[part.slices_in(window)] = np.moveaxis(mosaic.read(part).bands, 0, -1)
        path = folder / f"{number:05d}.png"
        with replacing(path) as temporary:
            _framed(rgb).save(temporary, format="PNG")
        written.append(f"{folder.name}/{path.name}")
    return written


def _framed(rgb: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(rgb).resize((_CROP * _ZOOM, _CROP * _ZOOM), Image.Resampling.NEAREST)
    middle = _CROP * _ZOOM // 2
    box = (middle - 1, middle - 1, middle + _ZOOM, middle + _ZOOM)
    ImageDraw.Draw(picture).rectangle(tuple(b + d for b, d in zip(box, (-4, -4, 4, 4), strict=True)), outline="yellow")
    return picture


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


@dataclass(frozen=True)
class SampleAccuracy:
    """A map's accuracy, estimated from an interpreted sample."""

    overall: Estimate
    classes: tuple[ClassAccuracy, ...]
    report: Path


def evaluate_sample(path: Path, *, out: Path) -> SampleAccuracy:
    """Area-adjusted accuracy and areas from an interpreted sample, into `area.json` and `area.html`.

    Raises:
        ProductError: no sample, or one that is not interpreted completely.
        EvaluationError: a stratum with fewer than two points.
        StorageError: `out` cannot be written.
    """
    sample = read_sample(path)
    counts = sample.counts(sample.classes)
    found = estimate(counts, [sample.mapped_m2.get(value, 0.0) for value in sample.classes])
    classes = _by_class(sample, found)
    write_json(
        out / "area.json",
        {
            "overall": _json(found.overall),
            "classes": [
                {
                    "class": c.land_cover.name,
                    "mapped_ha": c.mapped_ha,
                    "area_ha": c.area_ha.value,
                    "area_ha_half_width": c.area_ha.half_width,
                    "users": _json(c.users),
                    "producers": _json(c.producers),
                }
                for c in classes
            ],
            "points": counts.tolist(),
            "method": "Olofsson et al. 2014, doi 10.1016/j.rse.2014.02.015; half widths of 95 % intervals",
        },
    )
    report = out / "area.html"
    page = render(
        "area.html",
        title="Accuracy from a sample",
        sample=path.name,
        points=len(sample.mapped),
        overall=found.overall,
        classes=classes,
    )
    write_text(report, page)
    return SampleAccuracy(found.overall, classes, report)


def _by_class(sample: InterpretedSample, found: AreaEstimates) -> tuple[ClassAccuracy, ...]:
    return tuple(
        ClassAccuracy(
            legend.BY_VALUE[value],
            int((sample.mapped == value).sum()),
            sample.mapped_m2.get(value, 0.0) / _M2_PER_HA,
            Estimate(found.areas[k].value / _M2_PER_HA, found.areas[k].half_width / _M2_PER_HA),
            found.users[k],
            found.producers[k],
        )
        for k, value in enumerate(sample.classes)
    )


def _json(estimate: Estimate) -> dict[str, float] | None:
    return None if math.isnan(estimate.value) else {"value": estimate.value, "half_width": estimate.half_width}
