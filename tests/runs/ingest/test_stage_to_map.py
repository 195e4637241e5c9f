"""From archives as IGN ships them to a verified map, with the commands that a user types."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import load_campaign
from pipeline.domain import Domain
from pipeline.grid import Tile, Window
from pipeline.runs.mapping.predict import predict
from pipeline.runs.planning.plan import resolve
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.delivery.names import imagery_folder, imagery_name
from pipeline.sources.domain_inputs import BANDS
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.archives import make_archives, pack
from tests.support.campaigns import RECIPE, TILE, write_weights
from tests.support.deliveries import write_raster

DOMAIN = Domain("D034_2021")
WEIGHTS = "weights/mini_resnet34-unet_weights.pth"


def landcover(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return re.sub(r"\s+", " ", result.output)


def write_campaign(folder: Path, window: Window, **sections: Any) -> Path:
    """Writes a campaign over `window` whose catalog is `folder/catalog`."""
    content = {
        "name": "delivered",
        "catalog": "catalog",
        "domains": [{"name": str(DOMAIN)}],
        "engine": "torch",
        "output": {"extent_km": [edge / 1000 for edge in window.bounds], "chunk": 50},
        "cluster": {"gdal_cache_mb": 64, "decoded_cache_mb": 64},
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(content | sections))
    return path


def unstaged_map(config: Path, folder: Path, catalog: Path) -> NDArray[np.uint8]:
    """The map of the whole domain from the unpacked delivery, without stage, cluster and COGs."""
    settings = resolve(load_campaign(config))
    size = settings.campaign.grid.tile
    index([folder], domain=DOMAIN, catalog=catalog, tile_size=size)
    mosaic = Mosaic.of(read_domain(catalog, DOMAIN, tile_size=size), bands=BANDS)
    block = settings.campaign.grid.block
    mapped = predict(mosaic, settings.model, layout=settings.layout, block=block, engine="torch")
    classes: NDArray[np.uint8] = mapped.compute(scheduler="synchronous").landcover.values
    return classes


def products(folder: Path, tiles: tuple[Tile, ...], window: Window) -> NDArray[np.uint8]:
    """The mosaic of the land cover of the sealed tiles."""
    classes = np.zeros(window.shape, np.uint8)
    for tile in tiles:
        with rasterio.open(folder / f"{DOMAIN}-{tile.name}-landcover.tif") as cog:
            assert tuple(cog.transform)[:6] == tile.window.transform
            classes[tile.window.slices_in(window)] = cog.read(1)
    return classes


@pytest.mark.slow
def test_a_synthetic_delivery_goes_from_archives_to_a_verified_map(
    tmp_path: Path, scheduler_option: tuple[str, str]
) -> None:
    delivery, archives = make_archives(tmp_path / "shipped", at=[(0, 0), (0, 1)], size=TILE, suffix="jp2")
    out, catalog = tmp_path / "staged", tmp_path / "catalog"
    options = ("--domain", DOMAIN)
    printed = landcover("stage", *archives, *options, "--out", out, "--holes", "leave", "--remove-small")
    assert "2 height files written" in printed
    assert f"next: landcover index {out} --domain {DOMAIN}" in printed
    # The command that stage ends with, as it stands there.
    command = re.search(r"next: landcover (index .* --catalog catalog)", printed)
    assert command
    assert "2 tiles, 6 files" in landcover(*command[1].replace("catalog catalog", f"catalog {catalog}").split())

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    write_weights(tmp_path / "weights.pth", tmp_path / "tiny.yaml")
    grid = {"tile": TILE, "block": 250, "core": 250, "halo": 16, "window": 320}
    model = {"weights": "weights.pth", "recipe": "tiny.yaml"}
    config = write_campaign(tmp_path, delivery.window, model=model, grid=grid)
    assert "not mapped yet" in landcover("plan", config)
    assert f"{DOMAIN}: 2 tiles sealed" in landcover("run", config, *scheduler_option)
    assert f"{DOMAIN}: 2 tiles, 4 files read; 0 missing, 0 problems" in landcover("verify", config)
    assert "nothing to do" in landcover("run", config, *scheduler_option)

    found = products(tmp_path / "products" / DOMAIN, delivery.tiles, delivery.window)
    expected = unstaged_map(config, delivery.folder, tmp_path / "unstaged")
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 2, "more than one class"


TILE_50_M = Tile.named("077055-627760", 250)
"""The 50 m of the real elevation file `…_77055_627760_…`; the real imagery covers one more pixel on each side."""


def unpack_montpellier(data: Path, folder: Path) -> NDArray[np.uint8]:
    """The real files as a delivery of one tile of 50 m; returns RVB and IRC (6, y, x)."""
    left, _, _, top = TILE_50_M.window.bounds
    levels = []
    for infrared, file in ((False, "rvb.tif"), (True, "irc.tif")):
        with rasterio.open(data / file) as image:
            assert (image.bounds.left, image.bounds.top) == (left - 0.2, top + 0.2)
            levels.append(image.read()[:, 1:-1, 1:-1])
        name = imagery_name(TILE_50_M.name, departement="34", year=2021, infrared=infrared)
        where = folder / imagery_folder(departement="34", year=2021, infrared=infrared)
        write_raster(where / name, levels[-1], left, top)
    for kind in ("DSM", "DTM"):
        (folder / kind).mkdir()
        for path in sorted((data / kind).glob("*.tif")):
            (folder / kind / path.name).write_bytes(path.read_bytes())
    return np.concatenate(levels)


@pytest.mark.slow
def test_the_real_files_go_from_archives_to_a_verified_map(
    tmp_path: Path, shared_data: Path, scheduler_option: tuple[str, str]
) -> None:
    below = tmp_path / "unpacked"
    levels = unpack_montpellier(shared_data / "bdortho_montpellier", below)
    members = {p.relative_to(below).as_posix(): p for p in sorted(below.rglob("*")) if p.is_file()}
    archives = pack(tmp_path / "BDORTHO_2-0_D034.7z", members, volume=200_000)
    assert len(archives) > 1
    out = tmp_path / "staged"
    landcover("stage", archives[0], "--domain", DOMAIN, "--tile-m", 50, "--out", out, "--remove-small")
    printed = landcover("index", out, "--domain", DOMAIN, "--tile-m", 50, "--catalog", tmp_path / "catalog")
    assert "1 tile, " in printed
    grid = {"tile": 250, "block": 250, "core": 250, "halo": 16, "window": 320}
    model = {"weights": str(shared_data / WEIGHTS)}
    config = write_campaign(tmp_path, TILE_50_M.window, model=model, grid=grid, accept_limits=["halo"])
    landcover("run", config, *scheduler_option)
    assert "0 missing, 0 problems" in landcover("verify", config)

    found = products(tmp_path / "products" / DOMAIN, (TILE_50_M,), TILE_50_M.window)
    np.testing.assert_array_equal(found, unstaged_map(config, below, tmp_path / "unstaged"))
    mosaic = Mosaic.of(read_domain(tmp_path / "catalog", DOMAIN, tile_size=250), bands=BANDS)
    read = mosaic.read(TILE_50_M.window).bands
    np.testing.assert_array_equal(read[:4], levels[:4])
    with rasterio.open(shared_data / "bdortho_montpellier/DHM/test_data_77055_627760_LA93_IGN69_50CM_TIN.tif") as file:
        height_m = file.read(1)
    known = height_m != file.nodata
    # Compares with IGN's own height model, at the lattice pixels that contain the centres of its pixels.
    centres = read[4][1::5, 1::5][:50, :50] * 0.2
    assert np.corrcoef(centres[known[::2, ::2]], height_m[::2, ::2][known[::2, ::2]])[0, 1] > 0.9
