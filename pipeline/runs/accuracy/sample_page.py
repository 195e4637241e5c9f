"""The page on which people interpret a sample: one HTML file with the imagery around each point, and no requests.

The page is blind: it knows nothing of the map's classes. Answers stay in the browser until they are saved as a CSV
file, which `products.assessment.answers` reads.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline import legend
from pipeline.domain import Domain
from pipeline.durable import replacing, write_text
from pipeline.errors import ProductError
from pipeline.grid import PIXELS_PER_M, Window
from pipeline.html_page import Wording, picture_uri, render
from pipeline.legend import Language
from pipeline.products.assessment.reference_sample import SamplePoint
from pipeline.progress import Progress
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic

_CROP = 256
"""Pixels a side of a crop: 51 m."""
_CONTEXT = 1024
"""Pixels a side of the surroundings: 205 m."""
_CONTEXT_ZOOM = 4
"""Pixels of the imagery a side of a pixel of the surroundings."""
_NOTHING = 221
"""Grey of places without imagery."""
_ZOOM = 2
_KEYS = "123456789abcdefghij"
"""Key → class: the first is that of FLAIR value 1."""
_MAIN = 12
"""Classes that the published networks map; the others have buttons of their own below."""


@dataclass(frozen=True)
class PointPictures:
    """A point as its interpreter sees it."""

    crop: str
    """Path of the crop from the GeoPackage's folder."""
    page_crop: bytes
    """The same without a frame, as JPEG."""
    context: bytes
    """The surroundings, as JPEG."""


def cut_pictures(
    points: Sequence[SamplePoint], folder: Path, catalog: Path, *, progress: Progress
) -> list[PointPictures]:
    """Cuts the imagery around each point, and writes a PNG of it with the sampled pixel framed.

    Args:
        points: of one sample.
        folder: of the PNGs.
        catalog: input catalog of the maps' domains.
        progress: counts points.

    Raises:
        ProductError: the name of a map contains no domain.
        CatalogError, SourceError: imagery cannot be read.
        StorageError: the folder cannot be written.
    """
    mosaics: dict[str, Mosaic] = {}
    cut = []
    progress.start(len(points))
    for number, point in enumerate(progress.track(points), start=1):
        domain = point.map.domain
        if not domain:
            raise ProductError(
                f"{point.map.path}: the file name contains no domain, so its imagery is not known; leave out --catalog"
            )
        if domain not in mosaics:
            inputs = read_domain(catalog, Domain(domain), tile_size=point.map.window.height)
            mosaics[domain] = Mosaic.of(inputs, bands=("red", "green", "blue"))
        around = _read_around(mosaics[domain], point)
        edge = (_CONTEXT - _CROP) // 2
        crop = around[edge : edge + _CROP, edge : edge + _CROP]
        path = folder / f"{number:05d}.png"
        with replacing(path) as temporary:
            _framed(crop).save(temporary, format="PNG")
        small = Image.fromarray(around).reduce(_CONTEXT_ZOOM)
        cut.append(PointPictures(f"{folder.name}/{path.name}", _jpeg(Image.fromarray(crop), 92), _jpeg(small, 85)))
    return cut


def _read_around(mosaic: Mosaic, point: SamplePoint) -> NDArray[np.uint8]:
    """uint8 rgb (y, x, 3) of the surroundings; the point's pixel is right below the middle. Grey is no imagery."""
    x, y = point.xy
    row, col = math.floor(-y * PIXELS_PER_M), math.floor(x * PIXELS_PER_M)
    window = Window(row - _CONTEXT // 2, col - _CONTEXT // 2, _CONTEXT, _CONTEXT)
    part = window.intersect(mosaic.window)
    rgb = np.full((*window.shape, 3), _NOTHING, np.uint8)
    rgb[part.slices_in(window)] = np.moveaxis(mosaic.read(part).bands, 0, -1)
    return rgb


def _framed(rgb: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(rgb).resize((_CROP * _ZOOM, _CROP * _ZOOM), Image.Resampling.NEAREST)
    middle = _CROP * _ZOOM // 2
    box = (middle - 1, middle - 1, middle + _ZOOM, middle + _ZOOM)
    ImageDraw.Draw(picture).rectangle(tuple(b + d for b, d in zip(box, (-4, -4, 4, 4), strict=True)), outline="yellow")
    return picture


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def write_sample_page(
    path: Path,
    points: Sequence[SamplePoint],
    pictures: Sequence[PointPictures],
    *,
    sample: str,
    language: Language = "en",
) -> None:
    """Writes the page.

    Args:
        path: the HTML file.
        points: of the sample, in its order.
        pictures: of each point.
        sample: `SampleDesign.identity`, by which answers are recognized.
        language: of the page.

    Raises:
        StorageError: it cannot be written.
    """
    say = Wording(language)
    data = {
        "sample": sample,
        "file": f"{path.stem}-answers.csv",
        "side": _CROP,
        "points": [
            {
                "point": number,
                "place": ", ".join(say.decimal(c, 1) for c in point.xy),
                "crop": picture_uri(own.page_crop),
                "context": picture_uri(own.context),
            }
            for number, (point, own) in enumerate(zip(points, pictures, strict=True), start=1)
        ],
        "words": {
            "of": say("%(done)s of %(all)s answered", done="{done}", all="{all}"),
            "point": say("Point %(number)s", number="{number}"),
            "saved": say("Saved:"),
            "loaded": say("Answers loaded:"),
            "other": say("This file has answers of another sample."),
            "wrong": say("This file has no answers."),
            "volatile": say("This browser keeps no answers: save them before you close the page."),
            "finished": say("All points are answered: save the answers."),
        },
    }
    keys = [(entry, _KEYS[entry.value - 1]) for entry in legend.FLAIR]
    page = render(
        "sample.html",
        language=language,
        title=say("Interpret a sample"),
        data=data,
        main=keys[:_MAIN],
        others=keys[_MAIN:],
        crop_m=round(_CROP / PIXELS_PER_M),
        context_m=round(_CONTEXT / PIXELS_PER_M),
        share=_CROP / _CONTEXT,
    )
    write_text(path, page)
