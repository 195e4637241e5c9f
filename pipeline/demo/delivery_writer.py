"""Writes a tile's files as IGN delivers them: BD ORTHO in JPEG 2000, surface and terrain models."""

import hashlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline import legend
from pipeline.demo.landscape import Landscape, Scene
from pipeline.demo.noise import Float, Mask
from pipeline.demo.orthoimage import Radiometry
from pipeline.domain import Domain
from pipeline.durable import replacing, write_text
from pipeline.grid import CRS, Affine6, Tile
from pipeline.sources.delivery import names as delivery

_QUALITY = 80
"""IGN's E080, which keeps one byte in eight."""
IMAGE_BLOCK = 1024
"""Side of the internal blocks of BD ORTHO's JPEG 2000, in pixels."""
_RGE_ALTI_NODATA_M = -99_999
_NODATA_M = -9_999.0


@dataclass(frozen=True)
class Vintage:
    """The département, year, radiometry and kind of elevation of one domain's delivery."""

    departement: str
    year: int
    radiometry: Radiometry
    lidar: bool
    """True: both models are LiDAR HD. False: MNS-Correl with holes, and RGE ALTI."""

    @property
    def domain(self) -> Domain:
        """`D034_2021`."""
        return Domain(f"D{self.departement:0>3}_{self.year}")


def write_tile(
    folder: Path, tile: Tile, *, vintage: Vintage, landscape: Landscape, scene: Scene, image: NDArray[np.uint8]
) -> None:
    """Writes all files of a tile below the `folder` of a delivery.

    Args:
        scene: the scene of the tile's window.
        image: its image, uint8 (band, y, x): red, green, blue, near infrared.

    Raises:
        StorageError: the folder cannot be written.
    """
    write_imagery(folder, tile, vintage, image)
    surface = to_half_metres(scene.ground + scene.height)
    if vintage.lidar:
        _write_lidar(folder, tile, landscape, surface)
    else:
        _write_mns_correl(folder / "MNS-CORREL", tile, vintage, surface)
        _write_rge_alti(folder / "RGEALTI", tile, landscape)


def write_checksums(folder: Path) -> None:
    """Writes `<name of the folder>.md5`, as `md5sum -c` reads it, into each folder below `folder` that has files.

    Raises:
        StorageError: the folder cannot be written.
    """
    files = sorted((f for f in folder.rglob("*") if f.is_file()), key=lambda f: (f.parent, f.name))
    for below, inside in groupby(files, key=lambda f: f.parent):
        sums = [(hashlib.md5(f.read_bytes(), usedforsecurity=False).hexdigest(), f.name) for f in inside]
        write_text(below / f"{below.name}.md5", "".join(f"{checksum}  {name}\n" for checksum, name in sums))


def write_raster(
    path: Path, bands: NDArray[Any], *, transform: Affine6, palette: bool = False, **options: str | float
) -> None:
    """Writes a raster (band, y, x) in EPSG:2154, by a temporary name and a rename.

    Args:
        transform: its six affine coefficients.
        palette: gives band 1 the colours of the classes.
        options: driver, nodata and the driver's creation options.

    Raises:
        StorageError: the folder cannot be written.
    """
    count, height, width = bands.shape
    profile = {"width": width, "height": height, "count": count, "dtype": bands.dtype, "crs": CRS}
    with (
        replacing(path) as temporary,
        # Keeps all metadata in the file itself, without an `.aux.xml` beside it.
        rasterio.Env(GDAL_PAM_ENABLED="NO"),
        rasterio.open(temporary, "w", transform=rasterio.Affine(*transform), **profile, **options) as file,
    ):
        file.write(bands)
        if palette:
            file.write_colormap(1, legend.colormap())


def write_imagery(folder: Path, tile: Tile, vintage: Vintage, image: NDArray[np.uint8]) -> None:
    """Writes the RVB and the IRC file (near infrared, red, green) of a tile into IGN's folders below `folder`.

    Args:
        image: uint8 (band, y, x): red, green, blue, near infrared.

    Raises:
        StorageError: the folder cannot be written.
    """
    for infrared, bands in ((False, [0, 1, 2]), (True, [3, 0, 1])):
        name = delivery.imagery_name(
            tile.name, departement=vintage.departement, year=vintage.year, infrared=infrared, quality=_QUALITY
        )
        below = delivery.imagery_folder(departement=vintage.departement, year=vintage.year, infrared=infrared)
        write_raster(
            folder / below / name,
            image[bands],
            transform=tile.window.transform,
            driver="JP2OpenJPEG",
            # By the suffix of the temporary name GDAL would write a codestream without a georeference.
            CODEC="JP2",
            QUALITY=1000 / _QUALITY,
            REVERSIBLE="NO",
            RESOLUTIONS=6,
            BLOCKXSIZE=IMAGE_BLOCK,
            BLOCKYSIZE=IMAGE_BLOCK,
        )


def _write_lidar(folder: Path, tile: Tile, landscape: Landscape, surface: Float) -> None:
    """Writes both models of LiDAR HD, at 0.50 m."""
    left, _, _, top = tile.window.bounds
    centres = (np.arange(surface.shape[0], dtype=np.float64) + 0.5) / 2
    terrain = landscape.ground(centres - top, centres + left)
    write_half_metre_model(folder / "LHD_MNS" / delivery.lidar_name(tile.name, kind="dsm"), tile, surface)
    write_half_metre_model(folder / "LHD_MNT" / delivery.lidar_name(tile.name, kind="dtm"), tile, terrain)


def _write_mns_correl(folder: Path, tile: Tile, vintage: Vintage, surface: Float) -> None:
    """Writes an MNS-Correl: image matching rounds edges off, and leaves holes over restricted zones."""
    from scipy import ndimage

    matched: Float = ndimage.gaussian_filter(surface, 0.7)
    matched[_holes(matched.shape)] = _NODATA_M
    name = delivery.surface_name(tile.name, departement=vintage.departement, year=vintage.year)
    write_half_metre_model(folder / name, tile, matched)


def write_half_metre_model(path: Path, tile: Tile, metres: Float) -> None:
    """Writes a surface or terrain model (y, x) of a tile at 0.50 m, in metres rounded to the centimetre.

    It is not compressed, like the delivered models.

    Raises:
        StorageError: the folder cannot be written.
    """
    left, _, _, top = tile.window.bounds
    write_raster(
        path, np.round(metres, 2)[None], transform=(0.5, 0.0, left, 0.0, -0.5, top), driver="GTiff", nodata=_NODATA_M
    )


def _write_rge_alti(folder: Path, tile: Tile, landscape: Landscape) -> None:
    """Writes an RGE ALTI: cells of 1 m centred on whole metres, whose bounds lie half a cell to the north-west."""
    left, bottom, right, top = tile.window.bounds
    rows, cols = (np.arange(round(n), dtype=np.float64) for n in (top - bottom, right - left))
    grid = landscape.ground(rows - top, cols + left)
    head = (
        f"ncols        {cols.size}\nnrows        {rows.size}\n"
        f"xllcorner    {left - 0.5:.12f}\nyllcorner    {bottom + 0.5:.12f}\n"
        f"cellsize     1.000000000000\nNODATA_value  {_RGE_ALTI_NODATA_M:.2f}\n"
    )
    body = "".join(" " + " ".join(f"{v:.2f}" for v in row) + "\n" for row in grid)
    write_text(folder / delivery.terrain_name(tile.name), head + body)


def to_half_metres(values: Float) -> Float:
    """Resamples from 0.20 m to means over cells of 0.50 m, which are 2.5 × 2.5 px; the sides are multiples of 5 px."""
    fine = values.repeat(2, axis=0).repeat(2, axis=1)
    h, w = fine.shape
    means: Float = fine.reshape(h // 5, 5, w // 5, 5).mean(axis=(1, 3))
    return means


def _holes(shape: tuple[int, ...]) -> Mask:
    """Two round holes in a surface model: bool (y, x), True in a hole."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    first = np.hypot(y - shape[0] * 0.3, x - shape[1] * 0.7) < shape[0] * 0.03
    second = np.hypot(y - shape[0] * 0.85, x - shape[1] * 0.2) < shape[0] * 0.02
    holes: Mask = first | second
    return holes
