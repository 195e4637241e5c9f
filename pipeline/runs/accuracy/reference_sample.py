"""A sample to be interpreted by people, and what it then says of a map's accuracy and of areas."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline import legend
from pipeline.cluster import spread
from pipeline.domain import Domain
from pipeline.durable import replacing, write_json
from pipeline.errors import ProductError
from pipeline.evaluation.area_estimation import AreaEstimates, Estimate, allocate, estimate
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.products.assessment.class_maps import ClassMap, find_maps
from pipeline.products.assessment.reference_sample import (
    Interpreted,
    SamplePoint,
    blocks_of,
    count,
    draw,
    read_sample,
    write_sample,
)
from pipeline.progress import SILENT, Progress
from pipeline.sources.catalog.index import open_domain
from pipeline.sources.reading.mosaic import Mosaic

_CROP = 256
"""Pixels a side of a crop: 51 m."""
_ZOOM = 2
_M2_PER_HA = 10_000


@dataclass(frozen=True)
class Sampled:
    """What was drawn."""

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
) -> Sampled:
    """Draws a stratified random sample of a map, its classes being the strata.

    Args:
        place: a GeoTIFF of FLAIR values, a folder of `…-landcover.tif`, or a national product.
        out: the GeoPackage.
        size: points in all.
        least: points of each class at least; the others follow the classes' areas.
        catalog: input catalogue of the maps' domains, to cut a crop of imagery around each point into `<stem>-crops`.
        workers: processes that count pixels.
        seed: of the draw.
        progress: counts blocks.

    Raises:
        ProductError: no maps, or a domain that the map does not name where crops are wanted.
        EvaluationError: too few points for the classes.
        CatalogError, SourceError: imagery that cannot be had.
        StorageError: the folder of `out` cannot be written.
    """
    maps = find_maps(place)
    blocks = blocks_of(maps)
    counts = np.zeros((len(blocks), len(legend.FLAIR) + 1), np.int64)
    progress.start(len(blocks))
    for at, values in progress.track(spread(enumerate(blocks), _count, workers=workers)):
        counts[at] = values
    pixel_m2 = abs(maps[0].geobox.affine.determinant)
    mapped_m2 = {v: float(n) * pixel_m2 for v, n in enumerate(counts.sum(axis=0).tolist()) if v and n}
    units = allocate(mapped_m2, size, least=least)
    points = draw(blocks, counts, units, seed=seed)
    crops = _crop(points, out.with_name(f"{out.stem}-crops"), catalog) if catalog else [""] * len(points)
    write_sample(out, points, mapped_m2=mapped_m2, crops=crops)
    return Sampled(out, units, sum(bool(c) for c in crops))


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
            raise ProductError(f"{point.map.path}: its name says no domain, whose imagery is to be cropped")
        if domain not in mosaics:
            inputs = open_domain(catalog, Domain(domain), tile_size=point.map.window.height)
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


@dataclass(frozen=True, eq=False)
class Estimated:
    """What an interpreted sample says."""

    sample: Interpreted
    estimates: AreaEstimates
    report: Path


def evaluate_sample(path: Path, *, out: Path) -> Estimated:
    """Area-adjusted accuracy and areas from an interpreted sample, into `area.json` and `area.html`.

    Raises:
        ProductError: no sample, or one that is not interpreted to its end.
        EvaluationError: a stratum with fewer than two points.
        StorageError: `out` cannot be written.
    """
    sample = read_sample(path)
    found = estimate(sample.counts, sample.mapped_m2)
    names = [legend.BY_VALUE[v].name for v in sample.classes]
    rows = [
        {
            "class": name,
            "mapped_ha": mapped / _M2_PER_HA,
            "area_ha": area.value / _M2_PER_HA,
            "area_ha_half_width": area.half_width / _M2_PER_HA,
            "users": _json(users),
            "producers": _json(producers),
        }
        for name, mapped, area, users, producers in zip(
            names, sample.mapped_m2, found.areas, found.users, found.producers, strict=True
        )
    ]
    write_json(
        out / "area.json",
        {
            "overall": _json(found.overall),
            "classes": rows,
            "points": sample.counts.tolist(),
            "method": "Olofsson et al. 2014, doi 10.1016/j.rse.2014.02.015; half widths of 95 % intervals",
        },
    )
    report = out / "area.html"
    with replacing(report) as temporary:
        temporary.write_text(_page(path, sample, found), encoding="utf-8")
    return Estimated(sample, found, report)


def _json(given: Estimate) -> dict[str, float] | None:
    return None if np.isnan(given.value) else {"value": given.value, "half_width": given.half_width}


def _page(path: Path, sample: Interpreted, found: AreaEstimates) -> str:
    lines = []
    for k, value in enumerate(sample.classes):
        c, area = legend.BY_VALUE[value], found.areas[k]
        lines.append(
            f'<tr><td><i style="background:{c.colour}"></i>{c.name}<td>{sample.counts[k].sum()}'
            f"<td>{_percent(found.users[k])}<td>{_percent(found.producers[k])}"
            f"<td>{sample.mapped_m2[k] / _M2_PER_HA:,.2f}"
            f"<td>{area.value / _M2_PER_HA:,.2f} ± {area.half_width / _M2_PER_HA:,.2f}"
        )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Accuracy from a sample</title><style>
body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}th,td{{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #ddd}}
th:first-child,td:first-child{{text-align:left}}
i{{display:inline-block;width:.9em;height:.9em;margin-right:.4em;border:1px solid #888;vertical-align:-.1em}}</style>
<h1>Accuracy from a sample</h1>
<p>{int(sample.counts.sum())} points of {html.escape(path.name)}, weighted by the strata's areas on the map.
Overall accuracy {_percent(found.overall)} %. Each ± is half of a 95 % interval (Olofsson et al. 2014).</p>
<table><tr><th>class<th>points<th>user's accuracy, %<th>producer's accuracy, %<th>mapped, ha<th>estimated, ha</tr>
{"".join(lines)}</table></html>
"""


def _percent(given: Estimate) -> str:
    return "–" if np.isnan(given.value) else f"{100 * given.value:.1f} ± {100 * given.half_width:.1f}"
