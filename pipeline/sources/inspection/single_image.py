"""The checks of `index` for a single raster or array: place, resolution, bit depth, radiometry, bands and heights."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from pipeline.config import Recipe
from pipeline.errors import DeliveryError, EngineError, SourceError
from pipeline.grid import CRS, RESOLUTION_M, Window
from pipeline.sources.bit_depth import DEEP
from pipeline.sources.delivery.header_problems import DEEP_SENTENCE, OUTSIDE, other_resolution, placement_problem
from pipeline.sources.domain_inputs import IMAGERY
from pipeline.sources.inspection.lowest_level import BandSums, check_transparency
from pipeline.sources.inspection.model_card_limits import (
    ExceededCardLimit,
    band_order,
    outside_france,
    radiometry,
    ready_heights,
)
from pipeline.sources.reading.raster import Raster, Source

_SAMPLES, _SIDE = 6, 256
"""Windows along each side of an image that are read, and their side in pixels: 2.4 Mpx, seconds even of JPEG 2000."""
_LARGE_KM2 = 1.0
"""Heights of smaller images say nothing about their unit: a field may have nothing over 10 m."""
_SCALE = 0.01
"""How much a projection may stretch lengths. Lambert-93 does by 0.3 %, UTM by 0.1 %, Web Mercator by 44 % in Paris."""
_RESAMPLE = f"`rio warp IN OUT --dst-crs {CRS} --res {RESOLUTION_M:g}`"
_DOUBTFUL = 0.001
"""Share of pixels with nodata in some bands only from which a message says so."""


@dataclass(frozen=True)
class Place:
    """Where an image lies."""

    crs: pyproj.CRS
    transform: Affine
    shape: tuple[int, int]
    """(height, width)."""

    @property
    def area_km2(self) -> float:
        """Its area."""
        return abs(float(self.transform.determinant)) * self.shape[0] * self.shape[1] / 1e6

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of a north-up image."""
        left, top = self.transform.c, self.transform.f
        return (left, top + self.transform.e * self.shape[0], left + self.transform.a * self.shape[1], top)


def place_of(image: xr.DataArray) -> Place | None:
    """Where an array (…, y, x) lies; None where it has no CRS or no coordinates.

    Raises:
        EngineError: its rows do not run south or its columns not east.
    """
    if image.rio.crs is None:
        return None
    transform = Affine(*tuple(image.rio.transform())[:6])
    shape = (int(image.sizes["y"]), int(image.sizes["x"]))
    if transform == Affine(1, 0, 0, 0, 1, 0) and min(shape) > 1:
        return None
    if wrong := placement_problem(tuple(transform)[:6]):
        raise EngineError(f"the array {wrong}; `image.sortby('y', ascending=False)` turns one whose rows run north")
    return Place(pyproj.CRS.from_user_input(image.rio.crs.to_wkt()), transform, shape)


def check_raster(raster: Raster, recipe: Recipe) -> list[ExceededCardLimit]:
    """Limits of the model's card that a raster exceeds; reads a sample of its pixels.

    Raises:
        SourceError: the sample cannot be read, or its valid pixels cannot be told.
    """
    return check_raster_pixels(raster, recipe)[0]


def check_raster_pixels(raster: Raster, recipe: Recipe) -> tuple[list[ExceededCardLimit], list[str]]:
    """Limits of the model's card that a raster exceeds, and doubts about it, a sentence each.

    Raises:
        SourceError: the sample cannot be read, or its valid pixels cannot be told.
    """
    place = Place(pyproj.CRS(str(raster.geobox.crs)), raster.geobox.affine, raster.window.shape)
    deep = [ExceededCardLimit("bit_depth", DEEP_SENTENCE)] if raster.header.dtype == DEEP else []
    _check_alpha(raster)
    sample = _sample(raster)
    if not sample.valid.any() and sample.whole:
        raise SourceError(f"{raster.path}: no pixel is valid by its mask, transparency or nodata values")
    exceeded = [*deep, *_place_limits(place), *_pixel_limits(sample, recipe, place.area_km2)]
    return exceeded, [*_nodata_doubts(raster, sample), *_height_doubts(sample, recipe, place.area_km2)]


def check_array(place: Place | None, source: Source | None, recipe: Recipe) -> list[ExceededCardLimit]:
    """Limits of the model's card that an array exceeds.

    Args:
        place: where it lies, if that is known.
        source: its pixels, in the recipe's bands; None leaves them out.
        recipe: of the network.
    """
    exceeded = _place_limits(place) if place else []
    if source is not None:
        exceeded += _pixel_limits(_sample(source), recipe, place.area_km2 if place else 0.0)
    return exceeded


def _place_limits(place: Place) -> list[ExceededCardLimit]:
    found = []
    if other := other_resolution(place.transform.a, -place.transform.e):
        remedy = (
            f"accepted imagery is mapped in its own pixels; `rio warp IN OUT --dst-crs {CRS} --res {RESOLUTION_M:g}`"
        )
        found.append(ExceededCardLimit("resolution", f"{other}; {remedy} resamples it"))
    elif abs((scale := _scale(place)) - 1) > _SCALE:
        size = place.transform.a / scale
        found.append(
            ExceededCardLimit(
                "resolution",
                f"{place.crs.name} stretches lengths {scale:.2f} times here, so a pixel has {size:.3f} m on the "
                f"ground; expected {RESOLUTION_M:g} m: {_RESAMPLE} resamples it",
            )
        )
    if outside_france(_bounds_in_france(place)):
        found.append(ExceededCardLimit("territory", f"{OUTSIDE}, in {place.crs.name}"))
    return found


def _scale(place: Place) -> float:
    """How many metres of the map a metre on the ground is, at the image's centre; 1 where that is not known."""
    x, y = place.transform * (place.shape[1] / 2, place.shape[0] / 2)
    projection = pyproj.Proj(place.crs)
    factors: Any = projection.get_factors(*projection(x, y, inverse=True))
    scale = float(np.sqrt(abs(factors.areal_scale)))
    return scale if np.isfinite(scale) else 1.0


def _bounds_in_france(place: Place) -> tuple[float, float, float, float]:
    if place.crs.to_epsg() == 2154:
        return place.bounds
    transformer = pyproj.Transformer.from_crs(place.crs, CRS, always_xy=True)
    try:
        left, bottom, right, top = transformer.transform_bounds(*place.bounds)
    except pyproj.exceptions.ProjError:
        left = bottom = right = top = np.inf
    return left, bottom, right, top


@dataclass(frozen=True, eq=False)
class _Sample:
    levels: NDArray[np.uint8]
    """(band, n) of the windows that were read."""
    valid: NDArray[np.bool_]
    """(n,)."""
    whole: bool
    """True where the windows cover the image."""


def _sample(source: Source) -> _Sample:
    """Pixels of windows that are evenly spaced."""
    extent = source.window
    read = [source.read(window) for window in _windows(extent)]
    levels = np.concatenate([r.bands.reshape(len(r.bands), -1) for r in read], axis=1)
    valid = np.concatenate([r.valid.ravel() for r in read])
    return _Sample(levels, valid, max(extent.shape) <= _SAMPLES * _SIDE)


def _windows(extent: Window) -> list[Window]:
    starts = [(row, col) for row in _starts(extent.height) for col in _starts(extent.width)]
    return [Window(extent.row + row, extent.col + col, _SIDE, _SIDE).intersect(extent) for row, col in starts]


def _starts(length: int) -> list[int]:
    number = min(_SAMPLES, -(-length // _SIDE))
    return [int(start) for start in np.linspace(0, max(0, length - _SIDE), number)]


def _pixel_limits(sample: _Sample, recipe: Recipe, area_km2: float) -> list[ExceededCardLimit]:
    levels = sample.levels[:, sample.valid]
    if not levels.size:
        return []
    sums = BandSums.of(levels)
    if permuted := band_order(sums, recipe.bands):
        return permuted
    # In the order of a delivery's files; levels of bands that the recipe lacks are not looked at.
    colours = np.zeros((len(IMAGERY), levels.shape[1]), np.uint8)
    for i, band in enumerate(recipe.bands):
        if band in IMAGERY:
            colours[IMAGERY.index(band)] = levels[i]
    return radiometry(BandSums.of(colours), recipe, area_km2=area_km2) + (
        ready_heights(_heights(levels, recipe)) if area_km2 >= _LARGE_KM2 else []
    )


def _heights(levels: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.int64]:
    """How often each height occurs: int64 (256,)."""
    if "elevation" not in recipe.bands:
        return np.zeros(256, np.int64)
    return np.bincount(levels[recipe.bands.index("elevation")], minlength=256)


def _height_doubts(sample: _Sample, recipe: Recipe, area_km2: float) -> list[str]:
    if area_km2 >= _LARGE_KM2 or not sample.valid.any():
        return []
    return [
        f"{e.sentence} (not refused: the image is small, so this may be true)"
        for e in ready_heights(_heights(sample.levels[:, sample.valid], recipe))
    ]


def _nodata_doubts(raster: Raster, sample: _Sample) -> list[str]:
    stated = raster.header.validity.nodata
    values = [(i, stated[i]) for i in raster.imagery if stated and stated[i] is not None]
    if not values or raster.header.dtype == DEEP:
        return []
    equal = np.stack([sample.levels[i] == value for i, value in values])
    share = float((equal.any(axis=0) & ~equal.all(axis=0)).mean())
    if share < _DOUBTFUL:
        return []
    sentence = f"{share:.1%} of a sample have the nodata value in some bands only, and are nodata in the map"
    return [f"{sentence}; if it is a level of the imagery, remove the tag: `rio edit-info --unset-nodata FILE`"]


def _check_alpha(raster: Raster) -> None:
    """Raises SourceError where the band of transparency has the levels of imagery."""
    if raster.header.validity.alpha is None:
        return
    parts = [raster.transparency(window) for window in _windows(raster.window)]
    try:
        check_transparency(raster.path, raster.header.validity.alpha, np.concatenate([p.ravel() for p in parts]))
    except DeliveryError as error:
        raise SourceError(str(error)) from error
