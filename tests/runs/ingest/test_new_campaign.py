"""`landcover init`: a campaign for what lies in folders, which plans as it is; and refusals that name the remedy."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
import yaml
from distributed import Client
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import DEFAULT_RECIPE, load_campaign, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError, DeliveryError, WeightsError
from pipeline.model.matching_recipe import matching_recipe
from pipeline.model.network import build_network
from pipeline.model.saving import save_recipe
from pipeline.products.national.ownership import read_boundary
from pipeline.progress import SILENT
from pipeline.runs.ingest.campaign_text import fitting_grid
from pipeline.runs.ingest.found_deliveries import named_delivery
from pipeline.runs.ingest.new_campaign import NewCampaign, init
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.sources.inspection.model_card_limits import check_halo, check_windows
from tests.support.campaigns import RECIPE, write_weights
from tests.support.deliveries import make_delivery
from tests.support.flair_hub import CONVNEXT, hub_names, random_network, recipe_of, written
from tests.support.paths import SHARED_DATA

SECOND = Domain("D030_2024")
SQUARE = shapely.box(760_000, 6_270_000, 780_000, 6_290_000)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains in one folder, ADMIN EXPRESS beside them, and weights beside their recipe; tests copy it."""
    folder = tmp_path_factory.mktemp("given")
    make_delivery(folder / "data" / "D034_2021", at=[(0, 0), (0, 1)])
    make_delivery(folder / "data" / SECOND, at=[(0, 2)], domain=SECOND)
    borders = folder / "data" / "borders" / "ADMIN-EXPRESS_4-0__GPKG_LAMB93_FXX_2026-01-15" / "ADMIN-EXPRESS"
    borders.mkdir(parents=True)
    polygons = gpd.GeoDataFrame({"INSEE_DEP": ["34", "01"]}, geometry=[SQUARE, SQUARE], crs="EPSG:2154")
    polygons.to_file(borders / "ADE_4-0_GPKG_LAMB93_FXX-ED2026-01-15.gpkg", layer="departement")
    (folder / "model").mkdir()
    (folder / "model" / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    write_weights(folder / "model" / "weights.pth", folder / "model" / "tiny.yaml")
    return folder


def make(given: Path, out: Path, *folders: Path, force: bool = False) -> NewCampaign:
    weights = str(given / "model" / "weights.pth")
    return init(folders, weights=weights, out=out, force=force, bar=lambda _: nullcontext(SILENT))


def test_the_campaign_of_two_deliveries_plans_all_their_tiles(given: Path, tmp_path: Path) -> None:
    new = make(given, tmp_path / "campaign.yaml", given / "data")
    campaign = load_campaign(tmp_path / "campaign.yaml")
    assert [d.name for d in campaign.domains] == [SECOND, "D034_2021"]
    assert make_plan(campaign).todo == 3
    assert (campaign.grid.tile, campaign.recipe().name) == (250, "tiny")
    assert len(new.indexed) == 2
    boundary = campaign.domain("D034_2021").boundary
    assert boundary is not None
    assert read_boundary(boundary).symmetric_difference(SQUARE).area < 1
    assert campaign.domain(SECOND).boundary is None


def test_an_indexed_catalog_is_enough_and_is_not_indexed_again(given: Path, tmp_path: Path) -> None:
    make(given, tmp_path / "campaign.yaml", given / "data" / "D034_2021")
    again = make(given, tmp_path / "other.yaml", tmp_path / "catalog")
    assert again.indexed == ()
    assert make_plan(load_campaign(tmp_path / "other.yaml")).todo == 2


def test_the_command_names_what_is_there_and_keeps_an_existing_file(given: Path, tmp_path: Path) -> None:
    out = tmp_path / "my campaign.yaml"
    words = ["init", str(given / "data"), "--weights", str(given / "model" / "weights.pth"), "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "D034_2021: 2 tiles of 0.05 km, 8 files" in done.output
    assert "imagery: colour and infrared; elevation: surface models and terrain models" in done.output
    assert "boundary: not found" in done.output
    before = out.read_text()
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, ConfigError)
    assert "--force" in str(refused.exception)
    out.write_text("# changed\n")
    assert CliRunner().invoke(app, [*words, "--force"]).exit_code == 0
    assert out.read_text() == before


def test_what_is_no_delivery_is_refused_with_a_remedy(given: Path, tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "BDORTHO_D034.7z.001").write_bytes(b"")
    with pytest.raises(DeliveryError, match="landcover stage"):
        make(given, tmp_path / "campaign.yaml", tmp_path / "archives")
    with pytest.raises(DeliveryError, match="no imagery and no input catalog"):
        make(given, tmp_path / "campaign.yaml", given / "model")
    mixed = tmp_path / "mixed"
    for domain in ("D034_2021", SECOND):
        for path in (given / "data" / domain).rglob("*E080.tif"):
            mixed.mkdir(exist_ok=True)
            shutil.copy(path, mixed)
    with pytest.raises(DeliveryError, match="a folder of its own"):
        make(given, tmp_path / "campaign.yaml", mixed)


@pytest.mark.parametrize("tile", [25_000, 5_000, 1_000, 500, 250, 1_250, 50])
def test_the_sizes_of_any_tile_divide_each_other(tile: int) -> None:
    grid = fitting_grid(tile, load_recipe(DEFAULT_RECIPE))
    grid.layout(32)
    assert (grid.tile, grid.halo) == (tile, 160)


@pytest.mark.parametrize("tile", [25_000, 5_000, 1_000])
@pytest.mark.parametrize("name", ["ir_convnextv2tiny-upernet", "ir_swinbase-upernet", "ir_swintiny-unet"])
def test_a_new_campaign_has_the_windows_of_its_recipe(tile: int, name: str) -> None:
    recipe = load_recipe(f"flair-hub_lc-a_{name}")
    grid = fitting_grid(tile, recipe)
    layout = grid.layout(recipe.stride)
    check_windows(recipe, layout, ())
    check_halo(recipe, layout, ())


def test_a_flair_hub_model_maps_a_delivery_without_elevation(tmp_path: Path, dask_client: Client) -> None:
    delivery = make_delivery(tmp_path / "data", at=[(0, 0), (0, 1)], surface=None)
    recipe = recipe_of(CONVNEXT, "upernet").model_copy(update={"smallest_halo": 160, "smallest_window": 608})
    state = random_network(recipe, earlier_upernet=True).state_dict()
    written(tmp_path / "small.safetensors", hub_names(state, prefix="model."))
    save_recipe(tmp_path / "small.yaml", recipe)
    out = tmp_path / "campaign.yaml"
    new = init(
        [delivery.folder], weights=str(tmp_path / "small.safetensors"), out=out, bar=lambda _: nullcontext(SILENT)
    )
    assert {asset.kind for asset in new.parts.domains[0].inputs.assets} == {"rvb", "irc"}
    campaign = load_campaign(out)
    assert (campaign.grid.core, campaign.grid.window, campaign.accept_limits) == (250, 608, ())
    run(make_plan(campaign), client=dask_client)
    maps = sorted((tmp_path / "products").rglob("*landcover*.tif"))
    assert len(maps) == 2
    for path in maps:
        with rasterio.open(path) as file:
            found = set(np.unique(file.read(1)))
        assert 0 not in found
        assert found <= set(recipe.live)


def test_a_shipped_recipe_follows_from_the_name_of_the_weights(tmp_path: Path) -> None:
    if not SHARED_DATA.is_dir():
        pytest.skip("no real weights")
    real = SHARED_DATA / "weights" / "mini_resnet34-unet_weights.pth"
    named = tmp_path / f"{DEFAULT_RECIPE.upper()}_weights.pth"
    named.symlink_to(real)
    assert matching_recipe(str(named)) == DEFAULT_RECIPE
    with pytest.raises(WeightsError, match="choose one with --recipe"):
        matching_recipe(str(real))


def test_weights_that_no_recipe_fits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    state = build_network(load_recipe(str(tmp_path / "tiny.yaml"))).state_dict()
    (tmp_path / "elsewhere").mkdir()
    torch.save(state, tmp_path / "elsewhere" / "weights.pth")
    with pytest.raises(WeightsError, match="write a recipe"):
        matching_recipe(str(tmp_path / "elsewhere" / "weights.pth"))


def test_a_delivery_is_found_by_the_name_of_its_departement(tmp_path: Path) -> None:
    (tmp_path / "deliveries" / "D034_2021").mkdir(parents=True)
    (tmp_path / "D030_2024").mkdir()
    (tmp_path / "deliveries" / "D030_2021").mkdir()
    assert named_delivery("herault", tmp_path) == tmp_path / "deliveries" / "D034_2021"
    with pytest.raises(ConfigError, match=r"D030_2024, .*D030_2021; give one"):
        named_delivery("Gard", tmp_path)
    with pytest.raises(ConfigError, match="landcover fetch D011"):
        named_delivery("Aude", tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        named_delivery("deliverys", tmp_path)
