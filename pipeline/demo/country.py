"""The demo's country on disk: two domains of different vintage, delivered as by IGN, and the true map of each.

<root>/deliveries/<domain>/BDORTHO_…/…/34-2021-07850-62850-LA93-0M20-E080.jp2   and IRC, MNS, MNT
<root>/boundaries/<domain>.geojson
<root>/truth/<domain>.tif
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline import legend
from pipeline.demo.delivery_writer import Vintage, write_checksums, write_raster, write_tile
from pipeline.demo.domain_borders import Points, border, polygon
from pipeline.demo.landscape import Landscape
from pipeline.demo.orthoimage import Radiometry, photograph
from pipeline.domain import Domain
from pipeline.durable import write_json
from pipeline.errors import ConfigError, DeliveryError
from pipeline.grid import PIXELS_PER_M, Tile, Window, union
from pipeline.products.tile.cog import open_cog
from pipeline.progress import SILENT, Progress

ORIGIN = (-6_285_000 * PIXELS_PER_M, 785_000 * PIXELS_PER_M)
"""(row, col) of the country's north-west corner, near the Vidourle where Hérault and Gard meet."""

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
    root: Path,
    *,
    seed: int = 2022,
    rows: int = 3,
    columns: int = 5,
    tile_size: int = 1000,
    threads: int = 2,
    progress: Progress = SILENT,
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
        progress: counts tiles.

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
    plans = [_DomainPlan.of(root, side, rows=rows, columns=columns, tile_size=tile_size) for side in (0, 1)]
    for plan in plans:
        if plan.folder.exists():
            raise DeliveryError(
                f"{plan.folder}: a delivery exists already, and files of two countries must not mix; remove the folder"
            )
    line = border(union([t.window for t in plans[0].tiles]).intersect(union([t.window for t in plans[1].tiles])))
    progress.start(sum(len(p.tiles) for p in plans))
    return Country(root, tile_size, tuple(_write(p, seed, line, threads=threads, progress=progress) for p in plans))


@dataclass(frozen=True)
class _DomainPlan:
    """The tiles of the domain on one side of the border."""

    root: Path
    side: int
    """0 is west of the border, 1 is east."""
    tiles: tuple[Tile, ...]
    training: tuple[Tile, ...]

    @classmethod
    def of(cls, root: Path, side: int, *, rows: int, columns: int, tile_size: int) -> Self:
        """Takes the columns up to the middle one, or from it; every second tile is for fitting, as on a chessboard."""
        middle = columns // 2
        own = range(middle + 1) if side == 0 else range(middle, columns)
        at = {
            (r, c): Tile.at(ORIGIN[0] + r * tile_size, ORIGIN[1] + c * tile_size, tile_size)
            for r in range(rows)
            for c in own
        }
        # Both domains cover the middle column, so its tiles are not for fitting.
        training = [t for (r, c), t in at.items() if c != middle and (r + c) % 2 == 0]
        return cls(root, side, tuple(sorted(at.values())), tuple(sorted(training)))

    @property
    def vintage(self) -> Vintage:
        return VINTAGES[self.side]

    @property
    def folder(self) -> Path:
        return self.root / "deliveries" / self.vintage.domain


def _write(plan: _DomainPlan, seed: int, line: Points, *, threads: int, progress: Progress) -> DeliveredDomain:
    """Writes one domain's delivery, boundary and truth."""
    name, window = plan.vintage.domain, union([t.window for t in plan.tiles])
    boundary = plan.root / "boundaries" / f"{name}.geojson"
    truth = plan.root / "truth" / f"{name}.tif"
    classes = _deliver(plan, Landscape(seed, plan.vintage.year), threads=threads, progress=progress)
    write_raster(
        truth,
        classes[None],
        transform=window.transform,
        palette=True,
        driver="GTiff",
        nodata=legend.NODATA,
        COMPRESS="DEFLATE",
        TILED="YES",
    )
    _write_boundary(boundary, name, polygon(window, line, west=plan.side == 0))
    tiles, training = (tuple(t.name for t in some) for some in (plan.tiles, plan.training))
    return DeliveredDomain(name, plan.folder, boundary, truth, tiles, training)


def _deliver(plan: _DomainPlan, landscape: Landscape, *, threads: int, progress: Progress) -> NDArray[np.uint8]:
    """Writes all files of a domain's delivery, and returns the truth (y, x) over all tiles."""
    window = union([t.window for t in plan.tiles])
    truth = np.zeros(window.shape, np.uint8)

    def deliver(tile: Tile) -> None:
        scene, image = photograph(landscape, tile.window, radiometry=plan.vintage.radiometry)
        truth[tile.window.slices_in(window)] = scene.truth
        write_tile(plan.folder, tile, vintage=plan.vintage, landscape=landscape, scene=scene, image=image)
        progress.advance()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(deliver, plan.tiles))
    write_checksums(plan.folder)
    return truth


def _write_boundary(path: Path, name: str, ring: list[tuple[float, float]]) -> None:
    """Writes a GeoJSON feature whose polygon is one ring of (longitude, latitude)."""
    feature = {
        "type": "Feature",
        "properties": {"domain": name},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    write_json(path, {"type": "FeatureCollection", "features": [feature]}, indent=1)
