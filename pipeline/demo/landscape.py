"""The landscape of the demo's country: land cover and heights at any place, computed from the place and a seed.

Fields are the cells of a Voronoi map, and woods are where a noise is high. Rivers meander from west to east. Roads are
the edges of a coarser Voronoi map, and houses stand along them where another noise makes a village.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.demo.noise import Float, Mask, Metres, VoronoiCells, fractal, jittered, smooth, uniform, voronoi
from pipeline.grid import PIXELS_PER_M, Window

BUILDING, PERVIOUS, IMPERVIOUS, BARE, WATER, CONIFEROUS, DECIDUOUS, BRUSHWOOD = 1, 2, 3, 4, 5, 6, 7, 8
VINEYARD, HERBACEOUS, AGRICULTURAL, PLOWED = 9, 10, 11, 12
CLASSES = tuple(range(1, 13))
"""FLAIR values in a landscape: the classes of the 12-class models."""

_CROPS = ((AGRICULTURAL, 0.27), (PLOWED, 0.22), (VINEYARD, 0.20), (HERBACEOUS, 0.16), (BARE, 0.15))
"""Share of the parcels that have each cover."""
_CHANGING = 0.25
"""Share of the parcels whose crop is drawn again for each vintage."""
_PARCEL_DIRECTION = 0.42
"""In radians."""
_RIVER_EVERY_M = 600.0
"""Distance from one river to the next, north to south."""
_ROW_SPACING_M = 2.4
"""Distance from one row of vines to the next."""
_ROW_WIDTH_M = 0.9


@dataclass(frozen=True, eq=False)
class Scene:
    """The landscape in a window; every array is (y, x) and covers the window."""

    truth: NDArray[np.uint8]
    """FLAIR values 1..12, constant over 2 × 2 px as in the real masks."""
    ground: Float
    """Elevation of the bare ground, metres."""
    height: Float
    """Height of what stands on the ground, metres."""
    tint: Float
    """Variation of colour from one parcel, house or tree to the next, -1..1."""
    across: Float
    """Position across the parcel's rows or furrows in metres, modulo 360 m."""


@dataclass(frozen=True)
class Landscape:
    """The landscape of a seed, as it is in a vintage."""

    seed: int
    vintage: int = 0
    """Some parcels have another crop in another vintage; nothing else changes."""

    def scene(self, window: Window) -> Scene:
        """The scene of a lattice window; each part of it equals the scene of that part.

        The truth is drawn at 0.4 m, and heights at 0.2 m.
        """
        half = Window.from_edges(window.row // 2, window.col // 2, -(-window.bottom // 2), -(-window.right // 2))
        canvas = _Canvas.blank(half)
        self._draw_fields(canvas)
        self._draw_woods(canvas)
        self._draw_waters(canvas)
        self._draw_roads(canvas)
        self._draw_houses(canvas)
        self._draw_lone_trees(canvas)
        inside = window.slices_in(Window(2 * half.row, 2 * half.col, 2 * half.height, 2 * half.width))
        truth = np.ascontiguousarray(canvas.truth.repeat(2, axis=0).repeat(2, axis=1)[inside])
        tint, angle, roof = (
            a.repeat(2, axis=0).repeat(2, axis=1)[inside].copy() for a in (canvas.tint, canvas.angle, canvas.roof)
        )
        ys, xs = _centres(window, 1)
        across = ((np.cos(angle) * xs + np.sin(angle) * ys[:, None]) % 360.0).astype(np.float32)
        height = np.where(truth == BUILDING, roof, 0).astype(np.float32)
        scene = Scene(truth, self.ground(ys, xs), height, tint, across)
        self._add_vegetation(scene, ys, xs)
        return scene

    def ground(self, ys: Metres, xs: Metres) -> Float:
        """Elevation of the bare ground in metres at the grid of `ys` (n,) and `xs` (m,): float32 (n, m)."""
        hills = 62 + 14 * fractal(ys, xs, cell=260.0, octaves=3, seed=self.seed + 11)
        valley = np.exp(-((self._to_river(ys, xs) / 45.0) ** 2))
        ground: Float = (hills - 7 * valley).astype(np.float32)
        return ground

    def _draw_fields(self, canvas: "_Canvas") -> None:
        parcels = self._parcels(canvas.ys, canvas.xs)
        drawn = parcels.random(self.seed + 21)
        anew = parcels.random(self.seed + 22) < _CHANGING
        drawn = np.where(anew, parcels.random(self.seed + 23 + 101 * self.vintage), drawn)
        bounds = np.cumsum([share for _, share in _CROPS])
        crops = np.array([value for value, _ in _CROPS] + [HERBACEOUS], np.uint8)
        canvas.truth[:] = crops[np.searchsorted(bounds, drawn)]
        canvas.tint[:] = 2 * parcels.random(self.seed + 24 + 101 * self.vintage) - 1
        canvas.angle[:] = _PARCEL_DIRECTION + np.pi / 2 * (parcels.random(self.seed + 25) < 0.5) + 0.1 * canvas.tint
        canvas.paint(parcels.edge < 0.9, HERBACEOUS, 0.3)
        canvas.paint((parcels.edge < 1.7) & (parcels.pair < 0.36), PERVIOUS, 0.0)
        canvas.paint((parcels.edge < 2.6) & (parcels.pair > 0.80), DECIDUOUS, -0.2)

    def _draw_woods(self, canvas: "_Canvas") -> None:
        wood = self._wood(canvas.ys, canvas.xs)
        kind = fractal(canvas.ys, canvas.xs, cell=70.0, octaves=3, seed=self.seed + 32)
        canvas.paint(wood > 0, BRUSHWOOD, 0.0)
        canvas.paint(wood > 0.14, DECIDUOUS, 0.0)
        canvas.paint((wood > 0.14) & (kind > -0.05), CONIFEROUS, 0.0)

    def _draw_waters(self, canvas: "_Canvas") -> None:
        ys, xs = canvas.ys, canvas.xs
        river = self._to_river(ys, xs)
        width = 10 + 3 * smooth(ys, xs, cell=60.0, seed=self.seed + 41)
        pond = self._pond(ys, xs)
        trees = smooth(ys, xs, cell=25.0, seed=self.seed + 43) > -0.1
        canvas.paint((river < width + 9) & trees, DECIDUOUS, 0.2)
        canvas.paint((river < width + 2.5) | (pond > -0.04), BARE, 0.6)
        canvas.paint((river < width) | (pond > 0), WATER, 0.0)

    def _draw_roads(self, canvas: "_Canvas") -> None:
        roads = self._road_map(canvas.ys[:, None], canvas.xs[None, :])
        verge = (roads.edge < 4.3) & (canvas.truth != WATER)
        canvas.paint(verge, HERBACEOUS, 0.0)
        lane = roads.edge < np.where(roads.pair < 0.3, 2.0, 3.1)
        canvas.paint(lane, IMPERVIOUS, 0.0)

    def _draw_houses(self, canvas: "_Canvas") -> None:
        """Draws all yards, then all houses, so that no yard cuts into a neighbour's house."""
        houses = self._house_sites(canvas)
        for site in houses:
            ground = PERVIOUS if site.draw < 0.45 else IMPERVIOUS if site.draw < 0.65 else HERBACEOUS
            where, inside = canvas.rectangle(site, 3.5)
            inside &= canvas.truth[where] != IMPERVIOUS
            canvas.truth[where][inside] = ground
            canvas.tint[where][inside] = 2 * site.draw - 1
        for site in houses:
            where, inside = canvas.rectangle(site, 0.0)
            canvas.truth[where][inside] = BUILDING
            canvas.tint[where][inside] = 2 * (site.draw * 7.3 % 1) - 1
            canvas.roof[where][inside] = site.height_m

    def _house_sites(self, canvas: "_Canvas") -> "list[_Site]":
        """Sites of houses: along roads, in villages, on dry open ground."""
        spacing = 19.0
        low, high = canvas.reach(25.0)
        i, j, points = jittered(low / spacing, high / spacing, jitter=0.4, seed=self.seed + 51)
        y, x = points[:, 0] * spacing, points[:, 1] * spacing
        roads = self._road_map(y, x)
        # The diagonal of a grid over all points holds the values at the points.
        village = np.diagonal(smooth(y, x, cell=85.0, seed=self.seed + 52))
        dry = (np.diagonal(self._to_river(y, x)) > 32) & (np.diagonal(self._pond(y, x)) < -0.3)
        keep = (roads.edge > 11) & (roads.edge < 28) & (village > 0.12) & dry & (np.diagonal(self._wood(y, x)) < 0)
        long, wide, draw = (uniform(i, j, seed=self.seed + k).astype(np.float64) for k in (53, 54, 55))
        sites = np.stack([y, x, roads.normal, 4.0 + 3.5 * wide, 5.0 + 5.5 * long, 3.0 + 12.0 * draw**2, draw], axis=-1)
        return [_Site(*site) for site in sites[keep].tolist()]

    def _draw_lone_trees(self, canvas: "_Canvas") -> None:
        spacing = 13.0
        low, high = canvas.reach(5.0)
        i, j, points = jittered(low / spacing, high / spacing, jitter=0.9, seed=self.seed + 61)
        size = uniform(i, j, seed=self.seed + 62)
        grown = uniform(i, j, seed=self.seed + 63) < 0.22
        for k in np.flatnonzero(grown):
            y, x = points[k] * spacing
            where, distance = canvas.around(float(y), float(x), 4.5)
            crown = (distance < 2.0 + 2.2 * size[k]) & (canvas.truth[where] == HERBACEOUS)
            canvas.truth[where][crown] = DECIDUOUS

    def _add_vegetation(self, scene: Scene, ys: Metres, xs: Metres) -> None:
        """Adds heights of trees, shrubs and vines to the scene, and a tint for each tree."""
        truth, height = scene.truth, scene.height
        stand = 0.5 + 0.5 * smooth(ys, xs, cell=40.0, seed=self.seed + 71)
        for value, spacing, pointed in ((CONIFEROUS, 4.2, True), (DECIDUOUS, 6.2, False)):
            r, c = np.nonzero(truth == value)
            if r.size:
                crown, tree = _crowns(ys[r], xs[c], spacing, pointed=pointed, seed=self.seed + 72 + value)
                height[r, c] = np.clip((8 + 18 * stand[r, c]) * crown, 4, 25)
                scene.tint[r, c] = tree
        shrubs = fractal(ys, xs, cell=3.2, octaves=3, seed=self.seed + 81)
        np.copyto(height, np.clip(1.1 + 1.3 * shrubs, 0.5, 2.0), where=truth == BRUSHWOOD)
        in_row = scene.across % _ROW_SPACING_M < _ROW_WIDTH_M
        height[(truth == VINEYARD) & in_row & (shrubs > -0.75)] = 1.5

    def _parcels(self, ys: Metres, xs: Metres) -> VoronoiCells:
        """Parcels of about 58 × 36 m, with `edge` in approximate metres."""
        bend = 5 * smooth(ys, xs, cell=55.0, seed=self.seed + 26)
        y, x = ys[:, None] + bend, xs[None, :] + bend
        u = (np.cos(_PARCEL_DIRECTION) * x + np.sin(_PARCEL_DIRECTION) * y) / 58.0
        v = (np.cos(_PARCEL_DIRECTION) * y - np.sin(_PARCEL_DIRECTION) * x) / 36.0
        cells = voronoi(v, u, jitter=0.55, seed=self.seed + 27)
        return VoronoiCells(cells.i, cells.j, cells.edge * 45, cells.pair, cells.normal)

    def _road_map(self, y: Metres, x: Metres) -> VoronoiCells:
        """The blocks between roads at the places to which `y` and `x` broadcast, with `edge` in metres."""
        y, x = np.broadcast_arrays(y, x)
        bent_y = y + 9 * np.sin(x / 41.0)
        bent_x = x + 9 * np.sin(y / 37.0)
        cells = voronoi(bent_y / 170.0, bent_x / 170.0, jitter=0.75, seed=self.seed + 28)
        return VoronoiCells(cells.i, cells.j, cells.edge * 170, cells.pair, cells.normal)

    def _wood(self, ys: Metres, xs: Metres) -> Float:
        """Positive in scrub, and higher in woods: float32 (n, m)."""
        return fractal(ys, xs, cell=120.0, octaves=4, seed=self.seed + 31) - np.float32(0.28)

    def _pond(self, ys: Metres, xs: Metres) -> Float:
        """Positive in ponds: float32 (n, m)."""
        return fractal(ys, xs, cell=110.0, octaves=2, seed=self.seed + 42) - np.float32(0.76)

    def _to_river(self, ys: Metres, xs: Metres) -> Float:
        """Approximate distance to the middle of the nearest river in metres: float32 (n, m)."""
        bend = 62 * np.sin(xs / 97.0 + self.seed) + 26 * np.sin(xs / 39.0 + 2.1 * self.seed)
        slope = 62 / 97.0 * np.cos(xs / 97.0 + self.seed) + 26 / 39.0 * np.cos(xs / 39.0 + 2.1 * self.seed)
        offset = (ys[:, None] - bend[None, :]) % _RIVER_EVERY_M - _RIVER_EVERY_M / 2
        distance: Float = (np.abs(offset) / np.hypot(1, slope)[None, :]).astype(np.float32)
        return distance


@dataclass(frozen=True)
class _Site:
    """A house: its centre, the direction across it, its half sides across and along, its height; metres, radians."""

    y: float
    x: float
    normal: float
    half_across: float
    half_along: float
    height_m: float
    draw: float
    """A random number in [0, 1) that decides yard, tint and height."""


@dataclass(frozen=True, eq=False)
class _Canvas:
    """The land cover while it is drawn: arrays (y, x) at 0.4 m, on which later paint covers earlier."""

    ys: Metres
    xs: Metres
    truth: NDArray[np.uint8]
    tint: Float
    angle: Float
    roof: Float

    @classmethod
    def blank(cls, half: Window) -> Self:
        ys, xs = _centres(half, 2)
        return cls(ys, xs, np.zeros(half.shape, np.uint8), *(np.zeros(half.shape, np.float32) for _ in range(3)))

    def paint(self, where: Mask, value: int, tint: float) -> None:
        self.truth[where] = value
        self.tint[where] = tint

    def reach(self, margin_m: float) -> tuple[Metres, Metres]:
        """The smallest and the largest (y, x) of the canvas, with a margin."""
        return (np.array([self.ys[0], self.xs[0]]) - margin_m, np.array([self.ys[-1], self.xs[-1]]) + margin_m)

    def around(self, y: float, x: float, radius_m: float) -> tuple[tuple[slice, slice], Float]:
        """The slices around a place that contain a radius, and the distance from the place in them."""
        rows = slice(*np.searchsorted(self.ys, (y - radius_m, y + radius_m)))
        cols = slice(*np.searchsorted(self.xs, (x - radius_m, x + radius_m)))
        return (rows, cols), np.hypot(self.ys[rows, None] - y, self.xs[cols] - x).astype(np.float32)

    def rectangle(self, site: _Site, margin_m: float) -> tuple[tuple[slice, slice], Mask]:
        """The slices around a house, and the mask of the house with a margin in them."""
        where, _ = self.around(site.y, site.x, np.hypot(site.half_across, site.half_along) + margin_m)
        dy, dx = self.ys[where[0], None] - site.y, self.xs[where[1]] - site.x
        across = np.abs(np.cos(site.normal) * dx + np.sin(site.normal) * dy)
        along = np.abs(np.cos(site.normal) * dy - np.sin(site.normal) * dx)
        return where, (across < site.half_across + margin_m) & (along < site.half_along + margin_m)


def _centres(window: Window, pixels: int) -> tuple[Metres, Metres]:
    """Centres of rows and columns in metres; a row and a column are `pixels` lattice pixels wide."""
    unit = pixels / PIXELS_PER_M
    rows, cols = np.arange(window.row, window.bottom), np.arange(window.col, window.right)
    return (rows.astype(np.float64) + 0.5) * unit, (cols.astype(np.float64) + 0.5) * unit


def _crowns(y: Metres, x: Metres, spacing: float, *, pointed: bool, seed: int) -> tuple[Float, Float]:
    """Relative height 0..1 and tint -1..1 of the highest crown over each place (n,); crowns are cones or domes."""
    from scipy.spatial import cKDTree

    places = np.stack([y, x], axis=-1) / spacing
    i, j, points = jittered(places.min(axis=0) - 2, places.max(axis=0) + 2, jitter=0.8, seed=seed)
    distance, nearest = cKDTree(points).query(places, k=3)
    radius = 0.55 + 0.3 * uniform(i, j, seed=seed + 1)
    top = 0.65 + 0.35 * uniform(i, j, seed=seed + 2)
    inside = np.clip(1 - (distance / radius[nearest]) ** (1 if pointed else 2), 0, 1)
    profile = top[nearest] * (0.3 + 0.7 * (inside if pointed else np.sqrt(inside)))
    highest = profile.argmax(axis=1)[:, None]
    tree = np.take_along_axis(nearest, highest, axis=1)[:, 0]
    return (
        np.take_along_axis(profile, highest, axis=1)[:, 0].astype(np.float32),
        2 * uniform(i, j, seed=seed + 3)[tree] - 1,
    )
