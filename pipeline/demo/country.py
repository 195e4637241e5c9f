"""The demo's country on disk: two domains of different vintage, delivered as by IGN, and the true map of each.

<root>/deliveries/<domain>/BDORTHO_…/…/34-2021-07850-62850-LA93-0M20-E080.jp2   and IRC, MNS, MNT
<root>/boundaries/<domain>.geojson
<root>/truth/<domain>.tif
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.warp import transform

from pipeline import legend
from pipeline.demo.delivery_writer import Vintage, write_checksums, write_raster, write_tile
from pipeline.demo.landscape import Landscape
from pipeline.demo.orthoimage import Radiometry, photograph
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import ConfigError, DeliveryError
from pipeline.grid import CRS, PIXELS_PER_M, Tile, Window, union
from pipeline.products.tile.cog import open_cog

ORIGIN = (-6_285_000 * PIXELS_PER_M, 785_000 * PIXELS_PER_M)
"""(row, col) of the country's north-west corner, near the Vidourle where Hérault and Gard meet."""

_BEYOND_M = 100.0
"""A domain's polygon extends this far beyond its tiles, except along the border."""

VINTAGES = (
    Vintage(
        "34",
        2021,
        Radiometry(
            gain=(1.08, 1.06, 1.00, 1.04),
            offset=(4, 4, 6, 2),
            gamma=0.95,
            dryness=0.5,
            sun_azimuth_deg=150,
            sun_elevation_deg=56,
            seed=1,
        ),
        lidar=False,
    ),
    Vintage(
        "30",
        2024,
        Radiometry(
            gain=(0.96, 1.00, 1.04, 0.98),
            offset=(12, 14, 20, 8),
            gamma=1.08,
            dryness=-0.4,
            sun_azimuth_deg=195,
            sun_elevation_deg=44,
            seed=2,
        ),
        lidar=True,
    ),
)
"""West, a dry summer in warm light, and east, a hazy spring with a lower sun."""


@dataclass(frozen=True)
class DeliveredDomain:
    """The files of one domain of the country."""

    name: Domain
    delivery: Path
    """Folder to index."""
    boundary: Path
    """GeoJSON polygon, EPSG:4326."""
    truth: Path
    """GeoTIFF over all tiles of the domain: FLAIR values 1..12, uint8."""
    tiles: tuple[str, ...]
    """Names of all tiles, sorted."""
    training: tuple[str, ...]
    """Names of the tiles to fit on, which do not overlap the other domain."""

    @property
    def held_out(self) -> tuple[str, ...]:
        """Names of the tiles that are not for fitting, sorted."""
        return tuple(t for t in self.tiles if t not in self.training)

    def read_truth(self, window: Window) -> NDArray[np.uint8]:
        """Reads the true classes of a lattice window: uint8 (y, x), 0 outside the domain's tiles."""
        truth = np.full(window.shape, legend.NODATA, np.uint8)
        with open_cog(self.truth) as cog:
            own = Window.from_bounds(tuple(cog.dataset.bounds))
            part = window.intersect(own)
            if part.pixels:
                truth[part.slices_in(window)] = cog.read(part.within(own))
        return truth


@dataclass(frozen=True)
class Country:
    """The demo's country on disk."""

    root: Path
    tile_size: int
    """Side of a tile in pixels."""
    domains: tuple[DeliveredDomain, ...]
    """West and east; both deliver the tiles along their border."""

    @property
    def window(self) -> Window:
        """The window of all tiles of all domains."""
        return union([Tile.named(t, self.tile_size).window for d in self.domains for t in d.tiles])


def make_country(
    root: Path, *, seed: int = 2022, rows: int = 3, columns: int = 5, tile_size: int = 1000, threads: int = 2
) -> Country:
    """Makes the country: writes its deliveries, boundaries and truth below `root`.

    It has `rows` × `columns` tiles. The middle column lies on the border, and both domains deliver it, each with its
    own radiometry and the crops of its own year.

    Args:
        root: folder; holds no deliveries yet.
        seed: decides the landscape.
        rows: number of rows, at least 1.
        columns: number of columns, odd and at least 3.
        tile_size: side of a tile in pixels, a multiple of 50.
        threads: number of tiles made at once.

    Raises:
        ConfigError: `rows` or `columns` is not as above.
        GridError: `tile_size` is not a multiple of 50 px.
        DeliveryError: a delivery exists already.
        StorageError: `root` cannot be written.
    """
    if rows < 1 or columns < 3 or columns % 2 == 0:
        raise ConfigError(
            f"the country needs at least one row and an odd number of columns from 3; got {rows} × {columns}"
        )
    at = {
        (r, c): Tile.at(ORIGIN[0] + r * tile_size, ORIGIN[1] + c * tile_size, tile_size)
        for r in range(rows)
        for c in range(columns)
    }
    middle = columns // 2
    line = _border(union([tile.window for (_, c), tile in at.items() if c == middle]))
    # Both domains cover the middle column, so its tiles are not for fitting. Of the others every second one is, as on
    # a chessboard.
    fitting = {tile.name for (r, c), tile in at.items() if c != middle and (r + c) % 2 == 0}
    west = [tile for (_, c), tile in sorted(at.items()) if c <= middle]
    east = [tile for (_, c), tile in sorted(at.items()) if c >= middle]
    folders = [root / "deliveries" / vintage.domain for vintage in VINTAGES]
    for folder in folders:
        if folder.exists():
            raise DeliveryError(
                f"{folder}: a delivery exists already, and files of two countries must not mix; remove the folder"
            )
    domains = []
    for vintage, folder, own in zip(VINTAGES, folders, (west, east), strict=True):
        name, window = vintage.domain, union([tile.window for tile in own])
        truth = _deliver(folder, own, vintage, seed=seed, threads=threads)
        domain = DeliveredDomain(
            name,
            delivery=folder,
            boundary=root / "boundaries" / f"{name}.geojson",
            truth=root / "truth" / f"{name}.tif",
            tiles=tuple(sorted(tile.name for tile in own)),
            training=tuple(sorted(tile.name for tile in own if tile.name in fitting)),
        )
        options: dict[str, Any] = {"driver": "GTiff", "nodata": legend.NODATA, "COMPRESS": "DEFLATE", "TILED": "YES"}
        write_raster(domain.truth, truth[None], transform=window.transform, palette=True, **options)
        _write_boundary(domain.boundary, name, _polygon(window, line, west=own is west))
        domains.append(domain)
    return Country(root, tile_size, tuple(domains))


def _deliver(folder: Path, tiles: list[Tile], vintage: Vintage, *, seed: int, threads: int) -> NDArray[np.uint8]:
    """Writes all files of a domain's delivery, and returns the truth (y, x) over all tiles."""
    landscape, window = Landscape(seed, vintage.year), union([tile.window for tile in tiles])
    truth = np.zeros(window.shape, np.uint8)

    def deliver(tile: Tile) -> None:
        scene, image = photograph(landscape, tile.window, radiometry=vintage.radiometry)
        truth[tile.window.slices_in(window)] = scene.truth
        write_tile(folder, tile, vintage=vintage, landscape=landscape, scene=scene, image=image)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(deliver, tiles))
    write_checksums(folder)
    return truth


def _border(middle: Window) -> list[tuple[float, float]]:
    """The winding border through the window `middle`, from north to south, as (x, y) in metres of EPSG:2154."""
    left, bottom, right, top = middle.bounds
    reach = (right - left) / 2
    y = np.linspace(top + _BEYOND_M, bottom - _BEYOND_M, 200)
    s = (top - y) / reach
    x = (left + right) / 2 + reach * (0.45 * np.sin(2.1 * s + 0.4) + 0.16 * np.sin(5.3 * s))
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _polygon(window: Window, line: list[tuple[float, float]], *, west: bool) -> list[tuple[float, float]]:
    """The ring of a domain on one side of the border, closed and counter-clockwise, as (longitude, latitude).

    Both domains share the vertices of the border, so they neither overlap nor leave a gap.
    """
    left, bottom, right, top = window.bounds
    south, north = bottom - _BEYOND_M, top + _BEYOND_M
    if west:
        far = left - _BEYOND_M
        ring = [(far, north), (far, south), *reversed(line), (far, north)]
    else:
        far = right + _BEYOND_M
        ring = [*line, (far, south), (far, north), line[0]]
    longitudes, latitudes = transform(CRS, "EPSG:4326", *zip(*ring, strict=True))
    return list(zip(longitudes, latitudes, strict=True))


def _write_boundary(path: Path, name: str, ring: list[tuple[float, float]]) -> None:
    """Writes a GeoJSON feature whose polygon is one ring of (longitude, latitude)."""
    feature = {
        "type": "Feature",
        "properties": {"domain": name},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    write_json(path, {"type": "FeatureCollection", "features": [feature]}, indent=1)
