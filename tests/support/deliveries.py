"""Deliveries small enough for tests, named and laid out as IGN's are."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from pipeline.domain import Domain
from pipeline.grid import PIXELS_PER_M, Tile, Window, union
from pipeline.sources.delivery import names as delivery
from tests.support.paths import SHARED_DATA

MONTPELLIER = SHARED_DATA / "bdortho_montpellier"

Surface = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""(x, y) in metres of EPSG:2154 → metres above the sea."""


def tile_at(row: int, col: int, size: int = 250) -> Tile:
    """Tile (row, col) of a small grid near Montpellier; rows run south."""
    return Tile.at(-31_388_000 // size * size + row * size, 3_852_500 // size * size + col * size, size)


def noise(tile: Tile, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 (6, y, x): three RVB and three IRC components, 10..240, other for each tile; IRC repeats red and green."""
    rng = np.random.default_rng([seed, -tile.window.row, tile.window.col])
    pixels = rng.integers(10, 241, (6, *tile.window.shape), dtype=np.uint8)
    pixels[4:] = pixels[:2]
    return pixels


def write_raster(
    path: Path,
    pixels: NDArray[Any],
    left: float,
    top: float,
    *,
    step: float = 0.2,
    lossless: bool = True,
    **profile: Any,
) -> Path:
    """Writes (band, y, x) by the suffix: .jp2 (OpenJPEG), .asc (Esri ASCII) or .tif; north-west corner in metres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".asc":
        return _write_grid(path, pixels[0], left, top, step, nodata=profile.get("nodata", -99_999.0))
    options: dict[str, Any] = {"crs": "EPSG:2154", "transform": Affine(step, 0, left, 0, -step, top)} | profile
    if path.suffix == ".jp2":
        options |= {"QUALITY": 100, "REVERSIBLE": "YES"} if lossless else {"QUALITY": 25, "REVERSIBLE": "NO"}
    driver = "JP2OpenJPEG" if path.suffix == ".jp2" else "GTiff"
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver=driver, count=count, height=height, width=width, dtype=pixels.dtype, **options
    ) as file:
        file.write(pixels)
    return path


def _write_grid(path: Path, values: NDArray[Any], left: float, top: float, step: float, *, nodata: float) -> Path:
    height, width = values.shape
    head = f"ncols {width}\nnrows {height}\nxllcorner {left}\nyllcorner {top - height * step}\ncellsize {step}\n"
    rows = "\n".join(" ".join(f"{v:.4f}" for v in row) for row in values)
    path.write_text(f"{head}NODATA_value {nodata:.2f}\n{rows}\n", encoding="ascii")
    return path


def write_pair(
    folder: Path,
    tile: Tile,
    pixels: NDArray[np.uint8],
    *,
    domain: Domain = Domain("D034_2021"),
    suffix: str = "tif",
    **how: Any,
) -> tuple[Path, Path]:
    """A tile's RVB and IRC from uint8 (6, y, x), in IGN's folders; returns their paths."""
    departement, year = domain.departement, domain.year
    left, _, _, top = tile.window.bounds
    paths = []
    for infrared in (False, True):
        name = delivery.imagery_name(tile.name, departement=departement, year=year, infrared=infrared, suffix=suffix)
        below = delivery.imagery_folder(departement=departement, year=year, infrared=infrared)
        part = pixels[3:] if infrared else pixels[:3]
        paths.append(write_raster(folder / below / name, part, left, top, **how))
    return paths[0], paths[1]


def write_relief(
    folder: Path,
    kind: Literal["dsm", "dtm"],
    surface: Surface,
    *,
    corner: str,
    side_m: float,
    step: float = 0.5,
    as_rge_alti: bool = False,
    hole: tuple[slice, slice] | None = None,
    **profile: Any,
) -> Path:
    """One elevation file of `surface` at its pixel centres: LiDAR HD, or RGE ALTI with its shift of half a pixel."""
    unit = 10.0 ** (7 - len(corner.split("-", maxsplit=1)[0]))
    left, top = (int(part) * unit for part in corner.split("-"))
    if as_rge_alti:
        left, top = left - step / 2, top + step / 2
    count = round(side_m / step)
    x = left + (np.arange(count) + 0.5) * step
    y = top - (np.arange(count) + 0.5) * step
    values = np.broadcast_to(surface(x[None, :], y[:, None]), (count, count)).astype(np.float32)
    nodata = -99_999.0 if as_rge_alti else -9999.0
    if hole is not None:
        values[hole] = nodata
    name = delivery.terrain_name(corner) if as_rge_alti else delivery.lidar_name(corner, kind=kind)
    return write_raster(folder / kind.upper() / name, values[None], left, top, step=step, nodata=nodata, **profile)


@dataclass(frozen=True, eq=False)
class Delivery:
    """A delivery on disk and what is in it."""

    folder: Path
    domain: str
    tiles: tuple[Tile, ...]
    window: Window
    imagery: NDArray[np.uint8]
    """uint8 (6, y, x) over `window`; 0 outside tiles."""
    covered: NDArray[np.bool_]
    """bool (y, x): True inside tiles."""

    @property
    def tile_size(self) -> int:
        """Pixels a side."""
        return self.tiles[0].window.height


def flat(height_m: float) -> Surface:
    """The same height everywhere."""
    return lambda x, y: np.full(np.broadcast_shapes(x.shape, y.shape), height_m)


def hills(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth terrain around 100 m."""
    return 100 + 3 * np.sin(x / 40) + 2 * np.cos(y / 25)


def roofs(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The terrain of `hills` and what stands on it: 0..20 m."""
    return hills(x, y) + 10 * (1 + np.sin(x / 7) * np.cos(y / 9))


def make_delivery(
    folder: Path,
    *,
    at: Iterable[tuple[int, int]] = ((0, 0), (0, 1), (1, 0)),
    size: int = 250,
    domain: Domain = Domain("D034_2021"),
    suffix: str = "tif",
    pixels: Callable[[Tile], NDArray[np.uint8]] = noise,
    surface: Surface | None = roofs,
    terrain: Surface | None = hills,
    lossless: bool = True,
) -> Delivery:
    """Tiles of `size` px at (row, col) places, each with an elevation file of either kind where a surface is given."""
    tiles = tuple(tile_at(row, col, size) for row, col in at)
    window = union([t.window for t in tiles])
    imagery = np.zeros((6, *window.shape), np.uint8)
    covered = np.zeros(window.shape, np.bool_)
    for tile in tiles:
        part = tile.window.slices_in(window)
        imagery[:, *part], covered[part] = pixels(tile), True
        write_pair(folder, tile, imagery[:, *part], domain=domain, suffix=suffix, lossless=lossless)
        side_m = size / PIXELS_PER_M
        if surface is not None:
            write_relief(folder, "dsm", surface, corner=tile.name, side_m=side_m)
        if terrain is not None:
            write_relief(folder, "dtm", terrain, corner=tile.name, side_m=side_m)
    return Delivery(folder, domain, tuple(sorted(tiles)), window, imagery, covered)
