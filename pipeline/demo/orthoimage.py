"""Renders a scene as a four-band orthoimage in the radiometry of one vintage."""

from dataclasses import dataclass
from math import cos, radians, sin, tan

import numpy as np
from numpy.typing import NDArray

from pipeline.demo import landscape
from pipeline.demo.landscape import Landscape, Scene
from pipeline.demo.noise import Float, fractal, uniform
from pipeline.grid import PIXELS_PER_M, Window

_TALLEST_M = 25.0
"""No object in a landscape is higher."""
_RAY_STEP_M = 0.5

# For each FLAIR value: red, green, blue and near infrared in 0..255 before the radiometry of a vintage; how much they
# change with the tint and with dryness; the strength of mottling over metres and of grain over decimetres. The values
# were chosen by eye beside BD ORTHO, and similar classes overlap on purpose.
_COLOURS: dict[int, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]] = {
    landscape.BUILDING: ((158, 122, 104, 124), (26, 2, -14, 14), (0, 0, 0, 0), 4, 7),
    landscape.PERVIOUS: ((194, 184, 162, 172), (9, 9, 9, 9), (3, 2, 0, 0), 7, 10),
    landscape.IMPERVIOUS: ((128, 129, 131, 120), (10, 10, 10, 10), (0, 0, 0, 0), 6, 5),
    landscape.BARE: ((176, 146, 112, 164), (10, 10, 9, 9), (6, 4, 2, 2), 13, 5),
    landscape.WATER: ((54, 74, 80, 30), (8, 8, 4, 6), (6, 4, -4, 2), 5, 3),
    landscape.CONIFEROUS: ((58, 76, 60, 114), (8, 8, 6, 14), (4, 2, 2, -6), 4, 10),
    landscape.DECIDUOUS: ((80, 104, 64, 172), (12, 10, 6, 18), (12, 4, 2, -14), 5, 11),
    landscape.BRUSHWOOD: ((106, 114, 80, 146), (8, 8, 6, 10), (12, 6, 4, -10), 15, 13),
    landscape.VINEYARD: ((152, 134, 108, 150), (12, 10, 8, 8), (6, 4, 2, -4), 6, 7),
    landscape.HERBACEOUS: ((106, 124, 78, 172), (9, 6, 6, 12), (18, 6, 6, -14), 12, 9),
    landscape.AGRICULTURAL: ((168, 164, 104, 192), (15, 7, 11, -6), (6, 2, 3, -3), 4, 4),
    landscape.PLOWED: ((132, 108, 90, 118), (11, 10, 9, 9), (4, 3, 2, 2), 6, 7),
}
_VINE_COLOUR = np.array([82, 102, 62, 168], np.float32)


def _table(part: int) -> Float:
    """One part of `_COLOURS` as a table: float32 (band or 1, value 0..12)."""
    rows = [np.zeros_like(np.atleast_1d(_COLOURS[1][part]))] + [
        np.atleast_1d(_COLOURS[v][part]) for v in landscape.CLASSES
    ]
    return np.array(rows, np.float32).T


_BASE, _TINT, _DRY, _MOTTLE, _GRAIN = (_table(part) for part in range(5))


@dataclass(frozen=True)
class Radiometry:
    """The radiometry of one vintage's images; tuples are red, green, blue, near infrared."""

    gain: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    offset: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Haze, in levels of uint8."""
    gamma: float = 1.0
    dryness: float = 0.0
    """From -1 in spring to 1 in late summer."""
    sun_azimuth_deg: float = 160.0
    """Direction of the sun, clockwise from north."""
    sun_elevation_deg: float = 52.0
    noise: float = 2.5
    """Standard deviation of the sensor's noise, in levels of uint8."""
    seed: int = 0

    @property
    def margin(self) -> int:
        """Pixels around a window from which shadow or blur can reach it."""
        return int(_TALLEST_M / tan(radians(self.sun_elevation_deg)) * PIXELS_PER_M) + 8


def photograph(country: Landscape, window: Window, *, radiometry: Radiometry) -> tuple[Scene, NDArray[np.uint8]]:
    """The scene of a lattice window, and its image.

    Returns:
        the scene, and uint8 (band, y, x): red, green, blue, near infrared. Values are 1..254, since black or white
        would be read as fill.
    """
    wide = window.grow(radiometry.margin)
    scene = country.scene(wide)
    inside = window.slices_in(wide)
    image = render(scene, wide, radiometry=radiometry)[:, inside[0], inside[1]]
    ground, height, tint, across = (a[inside].copy() for a in (scene.ground, scene.height, scene.tint, scene.across))
    return Scene(scene.truth[inside].copy(), ground, height, tint, across), image.copy()


def render(scene: Scene, window: Window, *, radiometry: Radiometry) -> NDArray[np.uint8]:
    """Renders the image of a scene that covers `window`: uint8 (band, y, x).

    Its outer `radiometry.margin` pixels lack the shadows of objects outside.
    """
    from scipy import ndimage

    colours = _reflectance(scene, window, radiometry)
    colours *= _light(scene, radiometry)
    for band, (gain, offset) in enumerate(zip(radiometry.gain, radiometry.offset, strict=True)):
        plane = np.clip(ndimage.gaussian_filter(colours[band], 0.6, truncate=3), 0, 255) / 255
        colours[band] = (
            255 * gain * plane**radiometry.gamma
            + offset
            + radiometry.noise * _white_noise(window, radiometry.seed + band)
        )
    return np.clip(np.rint(colours), 1, 254).astype(np.uint8)


def _reflectance(scene: Scene, window: Window, radiometry: Radiometry) -> Float:
    """Light that the ground reflects, before sun and sensor: float32 (band, y, x)."""
    truth, p = scene.truth, PIXELS_PER_M
    ys, xs = np.arange(window.row, window.bottom) / p, np.arange(window.col, window.right) / p
    mottle = fractal(ys, xs, cell=7.0, octaves=3, seed=radiometry.seed + 11)
    grain = fractal(ys, xs, cell=0.7, octaves=2, seed=radiometry.seed + 12)
    texture = _MOTTLE[0][truth] * mottle + _GRAIN[0][truth] * grain + _field_lines(scene)
    colours = np.empty((4, *truth.shape), np.float32)
    for band in range(4):
        table = _BASE[band] + radiometry.dryness * _DRY[band]
        colours[band] = table[truth] + _TINT[band][truth] * scene.tint + texture
    vines = (truth == landscape.VINEYARD) & (scene.height > 0)
    colours[:, vines] = _VINE_COLOUR[:, None] + texture[vines]
    return colours


def _field_lines(scene: Scene) -> Float:
    """Brightness of the furrows of plowed land, and of the tramlines and drill rows of crops: float32 (y, x)."""
    across = scene.across
    furrows = 15 * np.sin(across * np.float32(2 * np.pi / 1.2))
    wheels = (across % 15.0 < 2.2) & ((across % 15.0 < 0.5) | (across % 15.0 > 1.7))
    drills = 7 * np.sin(across * np.float32(2 * np.pi / 0.8)) - 16 * wheels
    lines = np.where(scene.truth == landscape.PLOWED, furrows, 0)
    return np.where(scene.truth == landscape.AGRICULTURAL, drills, lines).astype(np.float32)


def _light(scene: Scene, radiometry: Radiometry) -> Float:
    """Sunlight on each pixel: 1 on open flat ground, more on slopes towards the sun, less in shadows."""
    azimuth, rise = radians(radiometry.sun_azimuth_deg), tan(radians(radiometry.sun_elevation_deg))
    south, east = -cos(azimuth), sin(azimuth)
    height = scene.height
    slope_y, slope_x = np.gradient(height + scene.ground, 1 / PIXELS_PER_M)
    shade = np.clip(1 - 0.22 * (slope_y * south + slope_x * east), 0.6, 1.25)
    blocked = np.zeros(height.shape, np.bool_)
    reach = radiometry.margin
    padded = np.pad(height, reach)
    for away in np.arange(_RAY_STEP_M, _TALLEST_M / rise, _RAY_STEP_M):
        # An object this far towards the sun casts its shadow here if it is higher than the ray.
        rows, cols = round(away * south * PIXELS_PER_M), round(away * east * PIXELS_PER_M)
        towards_sun = padded[Window(reach + rows, reach + cols, *height.shape).slices]
        blocked |= towards_sun > height + np.float32(away * rise)
    light: Float = (shade * np.where(blocked, 0.55, 1.0)).astype(np.float32)
    return light


def _white_noise(window: Window, seed: int) -> Float:
    """Independent noise for each pixel, about normal, with mean 0 and deviation 1: float32 (y, x)."""
    rows, cols = np.arange(window.row, window.bottom)[:, None], np.arange(window.col, window.right)
    return np.float32(2.449) * (uniform(rows, cols, seed=seed + 21) + uniform(rows, cols, seed=seed + 22) - 1)
