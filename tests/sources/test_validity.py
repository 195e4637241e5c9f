"""A pixel is valid where every band of imagery is, by mask, transparency, nodata value and presence of its block."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import pipeline
from pipeline.domain import Domain
from pipeline.errors import DeliveryError, SourceError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.reading.mosaic import Mosaic
from pipeline.sources.reading.raster import Raster
from pipeline.sources.reading.silent_failures import check_header
from pipeline.sources.validity import RIM_PX
from tests.support.deliveries import noise, tile_at, write_pair, write_raster
from tests.support.networks import STRIDE, exact_model

SIZE = 250
PIXELS = np.random.default_rng(0).integers(40, 220, (5, SIZE, SIZE), dtype=np.uint8)
ROWS, COLS = np.mgrid[:SIZE, :SIZE]
HOLE = (ROWS > 60) & (ROWS < 140) & (COLS > 30) & (COLS < 3 * ROWS - 60)
"""A wedge."""
IMAGERY = ("red", "green", "blue", "nir")


def write(path: Path, pixels: NDArray[np.uint8] = PIXELS, **profile: Any) -> Path:
    return write_raster(path, pixels, 500_000, 6_500_000, **profile)


def masked(path: Path, *, internal: bool = True, pixels: NDArray[np.uint8] = PIXELS, **profile: Any) -> Path:
    write(path, pixels, **profile)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(~HOLE)
    return path


def with_alpha(path: Path, **profile: Any) -> Path:
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    write(path, np.concatenate([PIXELS, alpha[None]]), **profile)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:5], rasterio.enums.ColorInterp.alpha]
    return path


def mask_and_nodata(path: Path) -> Path:
    """Only a part of the hole is in the mask, the rest has the nodata value in one band."""
    pixels = PIXELS.copy()
    pixels[1, HOLE & (ROWS < 100)] = 7
    write(path, pixels, nodata=7)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(~(HOLE & (ROWS >= 100)))
    return path


def nodata_by_band(path: Path) -> Path:
    values = (0, 255, 0, 255, 0)
    pixels = np.where(HOLE, np.array(values)[:, None, None], PIXELS).astype(np.uint8)
    pixels[4] = PIXELS[4]
    write(path, pixels)
    with rasterio.open(path, "r+") as file:
        file.update_tags(NODATA_VALUES=" ".join(map(str, values)))
    return path


def sparse(path: Path) -> Path:
    profile = {"tiled": True, "blockxsize": 16, "blockysize": 16, "SPARSE_OK": True, "interleave": "band"}
    transform = rasterio.Affine(0.2, 0, 500_000, 0, -0.2, 6_500_000)
    shape = {"count": 5, "height": SIZE, "width": SIZE, "dtype": "uint8", "crs": "EPSG:2154", "transform": transform}
    with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as file:
        for row, col in np.ndindex(16, 16):
            rows, cols = slice(16 * row, min(SIZE, 16 * row + 16)), slice(16 * col, min(SIZE, 16 * col + 16))
            window = rasterio.windows.Window.from_slices(rows, cols)
            for band in range(5):
                # Infrared lacks one block, colours a strip, and heights a block that decides nothing.
                missing = (band == 3 and (row, col) == (9, 9)) or (band < 3 and row == 4) or (band == 4 and col == 1)
                if not missing:
                    file.write(PIXELS[band, rows, cols], band + 1, window=window)
    return path


BLOCKS = (ROWS // 16 == 4) | ((ROWS // 16 == 9) & (COLS // 16 == 9))


@pytest.mark.parametrize(
    ("make", "hole"),
    [
        (masked, HOLE),
        (with_alpha, HOLE),
        (mask_and_nodata, HOLE),
        (nodata_by_band, HOLE),
        (sparse, BLOCKS),
        (lambda path: masked(path, compress="jpeg", interleave="band"), HOLE),
        (lambda path: masked(path, tiled=True, blockxsize=16, blockysize=16, compress="zstd"), HOLE),
        (lambda path: with_alpha(path, interleave="band"), HOLE),
    ],
    ids=[
        "mask",
        "alpha",
        "mask and nodata",
        "nodata by band",
        "sparse",
        "JPEG",
        "tiled mask",
        "planar alpha",
    ],
)
def test_a_raster_is_valid_where_its_header_and_blocks_say_so(
    tmp_path: Path, make: Callable[[Path], Path], hole: NDArray[np.bool_]
) -> None:
    source = Raster.open(make(tmp_path / "in.tif"), bands=BANDS)
    np.testing.assert_array_equal(source.read(source.window).valid, ~hole)
    part = Window(50, 33, 90, 120)
    np.testing.assert_array_equal(source.read(part).valid, ~hole[part.slices], "a window is a crop of the whole")
    image = pipeline.open_raster(tmp_path / "in.tif", block=100)
    np.testing.assert_array_equal(image.isel(x=slice(20, 200)).coords["valid"].values, ~hole[:, 20:200])


@pytest.mark.parametrize("photometric", ["YCBCR", "RGB"])
def test_the_rim_that_jpeg_adds_to_nodata_is_nodata(tmp_path: Path, shared_data: Path, photometric: str) -> None:
    with rasterio.open(shared_data / "flair_patches" / "IMG_000687.tif") as file:
        real = file.read([1, 2, 3], window=((0, SIZE), (0, SIZE)))
    pixels = np.where(HOLE, 0, real).astype(np.uint8)
    path = write(tmp_path / "in.tif", pixels, nodata=0, compress="jpeg", photometric=photometric)
    source = Raster.open(path, bands=BANDS[:3])
    read = source.read(source.window)
    changed = HOLE & (read.bands != 0).all(axis=0)
    assert changed.sum() > 100, "nodata alone would not find them"
    assert not read.valid[HOLE].any()
    assert read.valid[~HOLE].mean() > 0.999
    part = Window(55, 20, 60, 70)
    np.testing.assert_array_equal(source.read(part).valid, read.valid[part.slices])
    assert RIM_PX == 16


def virtual(folder: Path, band: str, *, more: str = "", count: int = 4) -> Path:
    """A virtual raster over `in.tif` with the bands' elements; `{i}` is a band's number."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}">{band.format(i=i, nodata=255 * (i % 2))}</VRTRasterBand>'
        for i in range(1, count + 1)
    )
    place = "<SRS>EPSG:2154</SRS><GeoTransform>500000, 0.2, 0, 6500000, 0, -0.2</GeoTransform>"
    path = folder / "in.vrt"
    path.write_text(f'<VRTDataset rasterXSize="{SIZE}" rasterYSize="{SIZE}">{place}{bands}{more}</VRTDataset>')
    return path


FILE = '<SourceFilename relativeToVRT="1">in.tif</SourceFilename>'
BAND = f"<SimpleSource>{FILE}<SourceBand>{{i}}</SourceBand></SimpleSource>"
HALF = f'<DstRect xOff="0" yOff="0" xSize="{SIZE}" ySize="100"/>'
TOP = f'<SrcRect xOff="0" yOff="0" xSize="{SIZE}" ySize="100"/>{HALF}'


def test_a_virtual_raster_is_valid_by_its_mask_band_or_nodata_values(tmp_path: Path) -> None:
    masked(tmp_path / "in.tif")
    source = f"<SimpleSource>{FILE}<SourceBand>mask,1</SourceBand></SimpleSource>"
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{source}</VRTRasterBand></MaskBand>'
    opened = Raster.open(virtual(tmp_path, BAND, more=mask), bands=IMAGERY, allow_vrt=True)
    np.testing.assert_array_equal(opened.read(opened.window).valid, ~HOLE)
    values = np.array([255, 0, 255, 0, 0])[:, None, None]
    write(tmp_path / "in.tif", np.where(HOLE, values, PIXELS).astype(np.uint8))
    opened = Raster.open(virtual(tmp_path, "<NoDataValue>{nodata}</NoDataValue>" + BAND), bands=IMAGERY, allow_vrt=True)
    np.testing.assert_array_equal(opened.read(opened.window).valid, ~HOLE)
    band = f"<NoDataValue>3</NoDataValue><SimpleSource>{FILE}<SourceBand>{{i}}</SourceBand>{TOP}</SimpleSource>"
    opened = Raster.open(virtual(tmp_path, band), bands=IMAGERY, allow_vrt=True)
    np.testing.assert_array_equal(opened.read(opened.window).valid, ROWS < 100)


@pytest.mark.parametrize(
    ("make", "band", "problem"),
    [
        (write, f"<SimpleSource>{FILE}<SourceBand>{{i}}</SourceBand>{TOP}</SimpleSource>", "do not cover it"),
        (masked, BAND, "states which of its pixels are valid"),
        (sparse, BAND, "states which of its pixels are valid"),
        (lambda path: write(path, nodata=0), BAND, "states which of its pixels are valid"),
        (lambda path: masked(path, internal=False), BAND, "its mask is in the file in.tif.msk"),
    ],
    ids=["uncovered", "masked", "sparse", "nodata", "mask beside"],
)
def test_a_virtual_raster_that_hides_what_its_files_state_is_refused(
    tmp_path: Path, make: Callable[[Path], Path], band: str, problem: str
) -> None:
    make(tmp_path / "in.tif")
    with pytest.raises(SourceError, match=problem):
        Raster.open(virtual(tmp_path, band), bands=IMAGERY, allow_vrt=True)


def test_a_mask_beside_a_raster_is_refused_with_the_command_that_writes_it_inside(tmp_path: Path) -> None:
    path = masked(tmp_path / "in.tif", internal=False)
    with pytest.raises(SourceError, match=r"GDAL_TIFF_INTERNAL_MASK=YES rio convert in\.tif NEW\.tif"):
        Raster.open(path, bands=BANDS)
    with rasterio.open(path) as file, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        rasterio.shutil.copy(file, tmp_path / "new.tif", driver="GTiff")
    source = Raster.open(tmp_path / "new.tif", bands=BANDS)
    np.testing.assert_array_equal(source.read(source.window).valid, ~HOLE)


def delivered(folder: Path, change: Callable[[Path], None], *, step: float = 0.2, **how: Any) -> Path:
    """A tile whose RVB is changed."""
    tile = tile_at(0, 0, SIZE)
    pixels = noise(tile) if step == 0.2 else np.repeat(np.repeat(noise(tile)[:, ::2, ::2], 1, 1), 1, 2)
    rvb, irc = write_pair(folder, tile, pixels, step=step, **how)
    if step != 0.2:
        rvb, irc = (p.rename(p.with_name(p.name.replace("0M20", "0M40"))) for p in (rvb, irc))
    change(rvb)
    return rvb


def mapped(folder: Path, *accept: str) -> NDArray[np.bool_]:
    options: dict[str, Any] = {"catalog": folder / "cat", "tile_size": SIZE, "bands": IMAGERY}
    index([folder], domain=Domain("D034_2021"), accept=accept, **options)  # type: ignore[arg-type]
    mosaic = Mosaic.of(read_domain(folder / "cat", Domain("D034_2021")), bands=IMAGERY)
    whole = mosaic.read(mosaic.window).valid
    part = Window(mosaic.window.row + 70, mosaic.window.col + 31, 60, 50)
    np.testing.assert_array_equal(mosaic.read(part).valid, whole[70:130, 31:81], "a window is a crop of the whole")
    return whole


def add_mask(path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(~HOLE)


def add_half_mask(path: Path) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(~HOLE[::2, ::2])


def rewrite(path: Path, pixels: NDArray[np.uint8], **profile: Any) -> None:
    with rasterio.open(path) as file:
        place = file.transform
    write_raster(path, pixels, place.c, place.f, **profile)


def add_alpha(path: Path) -> None:
    with rasterio.open(path) as file:
        pixels = file.read()
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    rewrite(path, np.concatenate([pixels, alpha[None]]), photometric="rgb", alpha="yes")


def add_nodata(path: Path) -> None:
    with rasterio.open(path) as file:
        pixels = file.read()
    pixels[1, HOLE] = 250
    rewrite(path, pixels, nodata=250)


def leave_out_blocks(path: Path) -> None:
    with rasterio.open(path) as file:
        pixels, place = file.read(), file.transform
    profile = {"tiled": True, "blockxsize": 16, "blockysize": 16, "SPARSE_OK": True, "driver": "GTiff"}
    shape = {"count": 3, "height": SIZE, "width": SIZE, "dtype": "uint8", "crs": "EPSG:2154", "transform": place}
    with rasterio.open(path, "w", **profile, **shape) as file:
        for row in (r for r in range(0, SIZE, 16) if r != 64):
            rows = slice(row, min(SIZE, row + 16))
            file.write(pixels[:, rows], window=rasterio.windows.Window.from_slices(rows, slice(0, SIZE)))


@pytest.mark.parametrize(
    ("change", "hole"),
    [(add_mask, HOLE), (add_alpha, HOLE), (add_nodata, HOLE), (leave_out_blocks, ROWS // 16 == 4)],
    ids=["mask", "alpha", "nodata", "sparse"],
)
def test_a_delivery_is_valid_where_its_files_say_so(
    tmp_path: Path, change: Callable[[Path], None], hole: NDArray[np.bool_]
) -> None:
    rvb = delivered(tmp_path, change)
    np.testing.assert_array_equal(mapped(tmp_path), ~hole)
    inputs = read_domain(tmp_path / "cat", Domain("D034_2021"))
    (asset,) = [a for a in inputs.assets if a.kind == "rvb"]
    assert "validity" in asset.content, "the fingerprint covers it"
    check_header(asset)
    plain = Path(shutil.copy(rvb, tmp_path / f"plain{rvb.suffix}"))
    rewrite(plain, noise(tile_at(0, 0, SIZE))[:3])
    with pytest.raises(SourceError, match="states which pixels are valid"):
        check_header(replace(asset, path=plain))
    assert "validity" not in next(a for a in inputs.assets if a.kind == "irc").content


def test_resampled_imagery_is_valid_where_all_pixels_around_are(tmp_path: Path) -> None:
    delivered(tmp_path, add_half_mask, step=0.4)
    invalid = ~mapped(tmp_path, "resolution")
    whole = np.repeat(np.repeat(HOLE[::2, ::2], 2, 0), 2, 1)[:SIZE, :SIZE]
    assert invalid[whole].all()
    grown = np.pad(whole, 2)
    around = np.any([grown[i : i + SIZE, j : j + SIZE] for i in range(5) for j in range(5)], axis=0)
    assert not invalid[~around].any(), "and no farther than a pixel of the file"


def test_a_mask_beside_a_file_of_a_delivery_is_refused(tmp_path: Path) -> None:
    def add(path: Path) -> None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
            file.write_mask(~HOLE)

    delivered(tmp_path, add)
    with pytest.raises(DeliveryError, match="GDAL_TIFF_INTERNAL_MASK=YES rio convert"):
        mapped(tmp_path)


@pytest.mark.parametrize("chunks", [None, 100])
def test_arrays_keep_which_pixels_are_valid_and_heights_decide_nothing(tmp_path: Path, chunks: int | None) -> None:
    masked(tmp_path / "in.tif")
    image = pipeline.open_raster(tmp_path / "in.tif", block=100).isel(y=slice(10, 200))
    image = image.chunk(chunks) if chunks else image.compute()
    how: dict[str, Any] = {"layout": Layout.for_window(96, 11, STRIDE), "engine": "torch", "checks": "ignore"}
    found = pipeline.predict(image, exact_model(), **how)
    np.testing.assert_array_equal(found.landcover.values == 0, HOLE[10:200])
    pixels = np.where(HOLE, 0, PIXELS).astype(np.uint8)
    pixels[4] = 9
    write(tmp_path / "tagged.tif", pixels, nodata=0)
    image = pipeline.open_raster(tmp_path / "tagged.tif", block=100).drop_vars("valid")
    found = pipeline.predict(image.chunk(chunks) if chunks else image.compute(), exact_model(), **how)
    np.testing.assert_array_equal(found.landcover.values == 0, HOLE)
