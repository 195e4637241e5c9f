"""`landcover predict`: what it refuses and why, names of files, and what it writes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import LandcoverError, ProductError
from pipeline.products.assessment.class_maps import find_maps
from pipeline.sources.catalog.index import index
from pipeline.sources.delivery.names import parse_name
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.reading.raster import Raster
from tests.support.deliveries import make_delivery, noise, tile_at, write_raster

DOMAIN = Domain("D034_2021")
WEIGHTS = "weights/mini_resnet34-unet_weights.pth"


@pytest.fixture
def patch(shared_data: Path) -> NDArray[np.uint8]:
    with rasterio.open(shared_data / "flair_patches" / "IMG_002115.tif") as file:
        pixels: NDArray[np.uint8] = file.read(window=((0, 64), (0, 96)))
    return pixels


def predict(shared_data: Path, raster: Path | str, out: Path, *options: str) -> str:
    """What the command prints, or the message with which it ends; anything else than these is raised."""
    given = ["predict", str(raster), "--weights", str(shared_data / WEIGHTS), "--out", str(out), "--engine", "torch"]
    result = CliRunner().invoke(app, [*given, "--window", "64", "--halo", "0", "--accept", "halo", *options])
    if isinstance(result.exception, LandcoverError):
        return f"error: {result.exception}"
    if result.exception is not None:
        raise result.exception
    return result.output


def write(path: Path, pixels: NDArray[Any], **how: Any) -> Path:
    return write_raster(path, pixels, 700_000, 6_600_000, **how)


def test_all_real_files_that_are_not_imagery_of_five_bands_are_refused(shared_data: Path, tmp_path: Path) -> None:
    reasons = {}
    for path in sorted(p for p in shared_data.rglob("*") if p.is_file() and not p.name.startswith("IMG_")):
        reasons[path.relative_to(shared_data).as_posix()] = predict(shared_data, path, tmp_path / "out")
    assert all(reason.startswith("error: ") for reason in reasons.values()), json.dumps(reasons, indent=1)
    assert "declared as transparency, not nir" in reasons["band_order/rgba_alpha_is_not_nir.tif"]
    assert "expected a GeoTIFF or JPEG 2000 file" in reasons["admin_france/etalab_tables/communes.csv"]
    assert "rio edit-info --crs EPSG:2154" in reasons["flair_patches/MSK_000687.tif"]
    assert not (tmp_path / "out").exists()


def test_the_real_image_with_alpha_is_refused_by_each_recipe_and_reason(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "band_order" / "rgba_alpha_is_not_nir.tif"
    infrared = ("--recipe", "flair-inc_rgbi_12cl_resnet34-unet")
    assert "its band 4 is declared as transparency, not nir" in predict(shared_data, path, tmp_path, *infrared)
    colours = ("--recipe", "flair-inc_rgb_12cl_resnet34-unet")
    both = predict(shared_data, path, tmp_path, *colours)
    assert "resolution is 0.193475 × 0.193475 m; expected 0.2 m" in both
    assert "lies outside metropolitan France, in Amersfoort / RD New" in both
    assert "resolution is" not in predict(shared_data, path, tmp_path, *colours, "--accept", "resolution")
    assert "unknown limit colour" in predict(shared_data, path, tmp_path, *colours, "--accept", "colour")


def test_probabilities_have_a_band_for_each_class(shared_data: Path, tmp_path: Path, patch: NDArray[np.uint8]) -> None:
    patch[:, :10] = 0
    path = write(tmp_path / "in.tif", patch, nodata=0)
    plain, more = tmp_path / "plain", tmp_path / "more"
    predict(shared_data, path, plain, "--accept", "radiometry")
    assert "in-probabilities.tif" in predict(shared_data, path, more, "--probabilities", "--accept", "radiometry")
    for layer in ("landcover", "confidence"):
        assert (plain / f"in-{layer}.tif").read_bytes() == (more / f"in-{layer}.tif").read_bytes()
    with rasterio.open(more / "in-probabilities.tif") as file, rasterio.open(more / "in-landcover.tif") as classes:
        shares, landcover = file.read().astype(float), classes.read(1)
        assert (len(shares), file.descriptions[0], file.nodata) == (12, "building", 0)
    assert ((shares == 0) == (landcover == 0)).all()
    data = landcover > 0
    assert 0 < data.sum() < data.size
    assert np.abs(((shares - 1) / 254).sum(axis=0)[data] - 1).max() <= 12 * 0.51 / 254
    chosen = np.take_along_axis(shares, np.maximum(landcover, 1).astype(int)[None] - 1, axis=0)[0]
    np.testing.assert_array_equal(chosen[data], shares.max(axis=0)[data])


def test_an_accepted_limit_is_mapped_and_said(shared_data: Path, tmp_path: Path, patch: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "in.tif", patch, step=0.25)
    assert "add --accept resolution" in predict(shared_data, path, tmp_path / "out")
    assert predict(shared_data, path, tmp_path / "out", "--accept", "resolution").count("landcover.tif") == 1


def test_files_with_one_stem_do_not_overwrite_each_other(
    shared_data: Path, tmp_path: Path, patch: NDArray[np.uint8]
) -> None:
    for name in ("a.tif", "a.jp2", "a.TIF", "a.tiff", "A.JP2"):
        made = write(tmp_path / name.lower(), patch)
        predict(shared_data, made.rename(tmp_path / name), tmp_path / "out")
    written = {p.name.removesuffix("-landcover.tif") for p in (tmp_path / "out").glob("*-landcover.tif")}
    assert written == {"a", "a.jp2", "a.TIF", "a.tiff", "A.JP2"}
    (tmp_path / "elsewhere").mkdir()
    other = write_raster(tmp_path / "elsewhere" / "a.tif", patch, 800_000, 6_600_000)
    before = (tmp_path / "out" / "a-landcover.tif").read_bytes()
    assert "is the map of another raster with this name" in predict(shared_data, other, tmp_path / "out")
    assert (tmp_path / "out" / "a-landcover.tif").read_bytes() == before


def test_jpeg_2000_with_a_world_file_or_table_names_the_command_that_places_it(
    tmp_path: Path, shared_data: Path, patch: NDArray[np.uint8]
) -> None:
    unplaced = {"crs": None, "transform": None, "GeoJP2": "NO", "GMLJP2": "NO"}
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "in.jp2", patch, **unplaced)
    assert "has no georeference, and CRS is no CRS" in predict(shared_data, path, tmp_path / "out")
    corners = [
        ((0, 0), (700_000.0, 6_600_000.0)),
        ((96, 0), (700_019.2, 6_600_000.0)),
        ((0, 64), (700_000.0, 6_599_987.2)),
    ]
    points = ",\n".join(f'  ({x},{y}) ({col},{row}) Label "Pt"' for (col, row), (x, y) in corners)
    path.with_suffix(".tab").write_text(f'!table\nDefinition Table\n  File "in.jp2"\n  Type "RASTER"\n{points}\n')
    message = predict(shared_data, path, tmp_path / "out")
    assert "in.tab beside it has its place" in message
    (command,) = [part for part in message.split("`") if part.startswith("rio edit-info")]
    rio = Path(sys.executable).with_name("rio")
    words = command.replace("'", "").split("--transform ")
    place, name = words[1].rsplit(" ", 1)
    edit = [rio, "edit-info", "--crs", "EPSG:2154", "--transform", place, name]
    subprocess.run(edit, cwd=tmp_path, check=True, capture_output=True)
    path.with_suffix(".tab").unlink()
    assert Raster.open(path, bands=BANDS).geobox.affine == rasterio.Affine(0.2, 0, 700_000, 0, -0.2, 6_600_000)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "world.jp2", patch, **unplaced)
    path.with_suffix(".j2w").write_text("0.2\n0\n0\n-0.2\n700000.1\n6599999.9\n")
    assert "`rio edit-info --crs EPSG:2154 FILE`" in predict(shared_data, path, tmp_path / "out")
    subprocess.run([rio, "edit-info", "--crs", "EPSG:2154", path], check=True, capture_output=True)
    assert Raster.open(path, bands=BANDS).geobox.affine == rasterio.Affine(0.2, 0, 700_000, 0, -0.2, 6_600_000)


def test_a_raster_in_an_archive_or_on_a_server_is_refused_with_what_to_do(
    tmp_path: Path, shared_data: Path, patch: NDArray[np.uint8]
) -> None:
    write(tmp_path / "in.tif", patch)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(tmp_path / "in.tif", "in.tif")
    zipped = f"/vsizip/{tmp_path}/in.zip/in.tif"
    assert "unpack the archive first (`unzip ARCHIVE.zip`)" in predict(shared_data, zipped, tmp_path / "out")
    assert "copy the file to a disk first" in predict(shared_data, "/vsicurl/http://host/in.tif", tmp_path / "out")
    assert "'absent.tif' does not exist" in predict(shared_data, "absent.tif", tmp_path / "out")
    with pytest.raises(LandcoverError, match="unpack the archive with `landcover stage`"):
        index([f"/vsizip/{tmp_path}/in.zip"], domain=DOMAIN, catalog=tmp_path / "cat")


def test_a_raster_placed_by_files_beside_it_is_mapped_without_warnings(
    tmp_path: Path, shared_data: Path, patch: NDArray[np.uint8]
) -> None:
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "in.tif", patch, crs=None, transform=None)
    path.with_suffix(".tfw").write_text("0.2\n0\n0\n-0.2\n700000.1\n6599999.9\n")
    wkt = rasterio.CRS.from_epsg(2154).to_wkt()
    (tmp_path / "in.tif.aux.xml").write_text(f"<PAMDataset><SRS>{wkt.replace('&', '&amp;')}</SRS></PAMDataset>")
    program = "from pipeline.cli import main; main()"
    command = ["predict", path, "--weights", shared_data / WEIGHTS, "--out", tmp_path, "--engine", "torch"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, command)], check=True, capture_output=True, text=True
    )
    assert "Warning" not in done.stderr + done.stdout
    with rasterio.open(tmp_path / "in-landcover.tif") as file:
        assert file.transform == rasterio.Affine(0.2, 0, 700_000, 0, -0.2, 6_600_000)


def rotated(path: Path, pixels: NDArray[Any]) -> Path:
    turned = (
        rasterio.Affine.translation(700_000, 6_600_000) @ rasterio.Affine.rotation(3) @ rasterio.Affine.scale(0.2, -0.2)
    )
    return write(path, pixels, transform=turned)


def test_a_rotated_raster_or_map_is_refused_with_the_command_that_turns_it(
    tmp_path: Path, shared_data: Path, patch: NDArray[np.uint8]
) -> None:
    message = predict(shared_data, rotated(tmp_path / "in.tif", patch), tmp_path / "out")
    assert "is rotated or not north-up" in message
    assert "`rio warp IN OUT --dst-crs EPSG:2154 --res 0.2`" in message
    for made in (rotated(tmp_path / "map.tif", patch[:1]), rotated(tmp_path / "x-landcover.tif", patch[:1])):
        with pytest.raises(ProductError, match="is rotated or not north-up"):
            find_maps(made)
    flipped = write(tmp_path / "up.tif", patch, transform=rasterio.Affine(0.2, 0, 700_000, 0, 0.2, 6_600_000))
    assert "is rotated or not north-up" in predict(shared_data, flipped, tmp_path / "out")


@pytest.mark.parametrize("declared", ["infrared", "transparency"])
def test_four_bands_in_one_file_are_refused_with_the_commands_that_split_them(tmp_path: Path, declared: str) -> None:
    tile = tile_at(0, 0)
    left, _, _, top = tile.window.bounds
    how = {"photometric": "rgb", "alpha": "yes"} if declared == "transparency" else {"photometric": "minisblack"}
    name = f"34-2021-{tile.name}-LA93-0M20-RVBI-E080.tif"
    write_raster(tmp_path / "in" / name, noise(tile)[:4], left, top, **how)
    bands: dict[str, Any] = {"bands": BANDS[:4], "tile_size": 250, "catalog": tmp_path / "cat"}
    with pytest.raises(LandcoverError) as caught:
        index([tmp_path / "in"], domain=DOMAIN, **bands)
    commands = [part.split() for part in str(caught.value).split("`") if part.startswith("rio stack")]
    assert len(commands) == 2
    rio = Path(sys.executable).with_name("rio")
    for words in commands:
        subprocess.run([rio, *words[1:]], cwd=tmp_path / "in", check=True, capture_output=True)
    (tmp_path / "in" / name).unlink()
    assert index([tmp_path / "in"], domain=DOMAIN, **bands).files == 2


@pytest.mark.parametrize("suffix", [".tiff", ".TIF", ".TIFF"])
def test_deliveries_may_have_other_spellings_of_tif(tmp_path: Path, suffix: str) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    for path in list(delivery.folder.rglob("*.tif")):
        path.rename(path.with_suffix(suffix))
    report = index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=250)
    assert (report.files, report.ignored) == (4, ())


def test_imagery_in_other_formats_is_named_as_ignored(tmp_path: Path) -> None:
    delivery = make_delivery(tmp_path / "in", at=[(0, 0)])
    name = next(delivery.folder.rglob("*-IRC-*")).with_suffix(".ecw")
    name.write_bytes(b"ECW")
    name.with_name("preview.jpg").write_bytes(b"JPEG")
    assert parse_name(name) is None
    report = index([delivery.folder], domain=DOMAIN, catalog=tmp_path / "cat", tile_size=250)
    assert [p.name for p in report.ignored] == [name.name]
