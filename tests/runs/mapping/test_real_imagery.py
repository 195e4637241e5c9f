"""Real files go the same way as made-up ones: bands, order, normalisation and class offset, and the whole path."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.grid import Tile
from pipeline.model.network import _import_smp
from pipeline.products.analysis.open_product import open_product
from pipeline.sources.delivery import names as delivery
from tests.support.deliveries import write_raster

WEIGHTS = "weights/mini_resnet34-unet_weights.pth"
MONTPELLIER_TILE = Tile.named("0770-6278", 5000)


def landcover(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def predicted(shared_data: Path, out: Path, patch: Path, *options: object) -> NDArray[np.uint8]:
    landcover("predict", patch, "--weights", shared_data / WEIGHTS, "--out", out, *options)
    with rasterio.open(out / f"{patch.stem}-landcover.tif") as cog, rasterio.open(patch) as image:
        assert cog.transform == image.transform
        assert cog.crs == image.crs
        with rasterio.open(out / f"{patch.stem}-confidence.tif") as confidence:
            assert (confidence.read(1) > 0).all()
        classes: NDArray[np.uint8] = cog.read(1)
    return classes


def plain_forward(shared_data: Path, patch: Path) -> NDArray[np.uint8]:
    """The model card's own arithmetic, without a line of ours."""
    state = torch.load(shared_data / WEIGHTS, weights_only=True)
    smp = _import_smp()  # the library itself, where torchvision's operators are not compiled for this torch
    network = smp.Unet("resnet34", encoder_weights=None, in_channels=5, classes=19).eval()
    prefix = "model.seg_model."
    network.load_state_dict({k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)})
    mean = torch.tensor([105.08, 110.87, 101.82, 106.38, 53.26]).view(1, 5, 1, 1)
    std = torch.tensor([52.17, 45.38, 44.00, 39.69, 79.30]).view(1, 5, 1, 1)
    with rasterio.open(patch) as image, torch.inference_mode():
        logits = network((torch.from_numpy(image.read())[None].float() - mean) / std)
    classes: NDArray[np.uint8] = (logits[0, :12].argmax(0) + 1).numpy().astype(np.uint8)
    return classes


def test_the_five_real_patches_are_mapped_as_their_masks_say(shared_data: Path, tmp_path: Path) -> None:
    """The network saw them: this proves bands, order, normalisation and class offset, and no more."""
    right = total = 0
    for patch in sorted((shared_data / "flair_patches").glob("IMG_*.tif")):
        classes = predicted(shared_data, tmp_path, patch, "--engine", "torch")
        with rasterio.open(patch.with_name(patch.name.replace("IMG", "MSK"))) as mask:
            truth = mask.read(1)
        right, total = right + int((classes == truth).sum()), total + truth.size
    assert total == 5 * 512 * 512
    assert right / total >= 0.80


@pytest.mark.parametrize("name", ["IMG_000687", "IMG_034217"])
def test_one_window_without_halo_is_one_plain_forward_pixel_for_pixel(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    patch = shared_data / "flair_patches" / f"{name}.tif"
    classes = predicted(shared_data, tmp_path, patch, "--window", 512, "--halo", 0, "--engine", "torch")
    np.testing.assert_array_equal(classes, plain_forward(shared_data, patch))


def deliver_montpellier(shared_data: Path, folder: Path) -> None:
    """The real extract in a tile of 1 km under IGN's names: black fill around 50 m of imagery, six elevation files."""
    source = shared_data / "bdortho_montpellier"
    left, _, _, top = MONTPELLIER_TILE.window.bounds
    for infrared, file in ((False, "rvb.tif"), (True, "irc.tif")):
        with rasterio.open(source / file) as image:
            pixels = np.zeros((3, 5000, 5000), np.uint8)
            row, col = round((top - image.bounds.top) * 5), round((image.bounds.left - left) * 5)
            pixels[:, row : row + 252, col : col + 252] = image.read()
        name = delivery.imagery_name(MONTPELLIER_TILE.name, departement="34", year=2021, infrared=infrared)
        where = folder / delivery.imagery_folder(departement="34", year=2021, infrared=infrared)
        write_raster(where / name, pixels, left, top, lossless=False)
    for kind in ("DSM", "DTM"):
        (folder / kind).mkdir()
        for file in sorted((source / kind).glob("*.tif")):
            (folder / kind / file.name).write_bytes(file.read_bytes())


@pytest.mark.slow
def test_the_real_bd_ortho_extract_goes_from_delivery_to_the_national_store(
    shared_data: Path, tmp_path: Path, scheduler_option: tuple[str, str]
) -> None:
    deliver_montpellier(shared_data, tmp_path / "delivery")
    folders = ("index", tmp_path / "delivery", "--domain", "D034_2021", "--catalog", tmp_path / "catalog")
    assert "1 tile, " in landcover(*folders, "--tile-m", 1000)
    config = tmp_path / "campaign.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "name": "montpellier",
                "catalog": "catalog",
                "model": {"weights": str(shared_data / WEIGHTS)},
                "domains": [{"name": "D034_2021"}],
                "grid": {"tile": 5000, "block": 1000, "core": 500, "halo": 160, "window": 864},
                "output": {"extent_km": [770, 6277, 771, 6278]},
            }
        )
    )
    landcover("run", config, *scheduler_option)
    landcover("publish", config, *scheduler_option)
    assert "0 problems" in landcover("verify", config)

    with rasterio.open(shared_data / "bdortho_montpellier" / "rvb.tif") as image:
        bounds = image.bounds
    national = open_product(tmp_path / "national")
    here = national.sel(x=slice(bounds.left, bounds.right), y=slice(bounds.top, bounds.bottom))
    assert here.landcover.shape == (252, 252)
    assert (here.landcover.values > 0).mean() > 0.999
    assert set(np.unique(here.landcover)) <= {0, *load_recipe(DEFAULT_RECIPE).live}
    # Lossy JPEG 2000 rings into the fill beside the imagery; a few pixels beyond its edge all is no data.
    around = national.landcover.values.copy()
    rows, cols = (national.get_index(d).get_indexer(here[d].values) for d in ("y", "x"))
    around[rows[0] - 8 : rows[-1] + 9, cols[0] - 8 : cols[-1] + 9] = 0
    assert not around.any()
    assert float(here.x[0]) == pytest.approx(bounds.left + 0.1, abs=1e-6)
    assert float(here.y[0]) == pytest.approx(bounds.top - 0.1, abs=1e-6)

    opened = xr.open_zarr(tmp_path / "national" / "current" / "product.zarr")
    assert opened.rio.crs.to_epsg() == 2154
    (cog,) = (tmp_path / "products").rglob("*-landcover.tif")
    tile = rioxarray.open_rasterio(cog)
    np.testing.assert_array_equal(tile.values[0], opened.landcover.values)
    np.testing.assert_allclose(tile.x, opened.x, atol=1e-6)
    np.testing.assert_allclose(tile.y, opened.y, atol=1e-6)
