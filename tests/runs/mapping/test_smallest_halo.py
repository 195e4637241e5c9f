"""A halo that is smaller than the recipe's smallest is refused where windows meet, unless it is accepted by name."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from typer.testing import CliRunner

import pipeline
from pipeline.cli import app
from pipeline.config import config_folder, load_recipe
from pipeline.errors import ConfigError
from pipeline.evaluation.seams import SeamRatio
from pipeline.halo import Layout
from pipeline.model import Model
from pipeline.model.saving import save_recipe
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.quality.quality_metrics import seam_remedy
from tests.support.campaigns import RECIPE, make_campaign
from tests.support.networks import STRIDE, Strided, exact_recipe

SMALL = Layout(core=16, halo=4, window=24, stride=STRIDE)


def image(side: int) -> xr.DataArray:
    return xr.DataArray(np.zeros((5, side, side), np.uint8), dims=("band", "y", "x"))


def model(smallest: int | None) -> Model:
    return Model.in_memory(Strided(5, 5), exact_recipe().model_copy(update={"smallest_halo": smallest}))


def test_a_campaign_with_too_small_a_halo_is_refused_unless_accepted(tmp_path: Path) -> None:
    made = make_campaign(tmp_path, at=[(0, 0)])
    before = [t.fingerprint for t in make_plan(made.campaign).domains[0].tiles]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"smallest_halo": 33}))
    with pytest.raises(
        ConfigError,
        match=r"halo of 32 px is too small for recipe tiny, which needs 33 .*use halo 33 and window 224 \(core 125\)"
        r".*accept_limits: \[halo\]",
    ):
        make_plan(made.campaign)
    accepted = make_plan(made.change(accept_limits=["halo"]).campaign)
    assert [t.fingerprint for t in accepted.domains[0].tiles] == before, "neither key changes what is mapped"
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"smallest_halo": 32}))
    assert make_plan(made.change(accept_limits=[]).campaign).todo == 1


@pytest.mark.parametrize("chunks", [None, 16])
def test_predict_refuses_too_small_a_halo_where_windows_meet(chunks: int | None) -> None:
    def predict(side: int, smallest: int | None, accept: tuple[str, ...] = ()) -> object:
        array = image(side) if chunks is None else image(side).chunk({"y": chunks, "x": chunks})
        return pipeline.predict(array, model(smallest), layout=SMALL, engine="torch", accept=accept)  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"a halo of 4 px is too small for recipe exact, which needs 5 .*accept="):
        predict(17, 5)
    for side, smallest, accept in ((17, 4, ()), (17, None, ()), (16, 5, ()), (17, 5, ("halo",))):
        predict(side, smallest, accept)


def test_the_command_predict_refuses_and_accepts(shared_data: Path, tmp_path: Path) -> None:
    weights = shared_data / "weights" / "mini_resnet34-unet_weights.pth"
    patch = next((shared_data / "flair_patches").glob("IMG_*.tif"))
    given = ["predict", str(patch), "--weights", str(weights), "--out", str(tmp_path / "out"), "--engine", "torch"]
    refused = CliRunner().invoke(app, [*given, "--window", "512", "--halo", "96"])
    assert isinstance(refused.exception, ConfigError), "several cores of 320 px"
    assert "needs 160 or more" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    unknown = CliRunner().invoke(app, [*given, "--accept", "halos"])
    assert "unknown limit halos" in str(unknown.exception)
    taken = [*given, "--window", "512", "--halo", "96", "--accept", "halo", "--accept", "radiometry"]
    assert CliRunner().invoke(app, taken).exit_code == 0


def test_every_shipped_recipe_states_its_smallest_halo(tmp_path: Path) -> None:
    recipes = [load_recipe(path.stem) for path in (config_folder() / "models").glob("*.yaml")]
    assert len(recipes) == 23
    for recipe in recipes:
        assert recipe.smallest_halo is not None
        assert recipe.smallest_halo <= recipe.layout().halo, "its default windows are enough"
        assert "smallest_halo" not in recipe.model_dump(), "fingerprints are made of this"
        save_recipe(tmp_path / "saved.yaml", recipe)
        assert load_recipe(str(tmp_path / "saved.yaml")) == recipe


@pytest.mark.parametrize(
    ("smallest", "ratio", "limit", "remedy"),
    [
        (64, 2.6, None, "halo 64 and window 288"),
        (16, 2.6, None, "halo 64 and window 288"),  # wide enough by the recipe: one stride more
        (None, 2.6, 1.5, "halo 64 and window 288"),
        (96, 1.05, None, ""),
        (96, 2.6, 3.0, ""),
    ],
)
def test_verify_names_the_halo_that_lessens_seams(
    tmp_path: Path, smallest: int | None, ratio: float, limit: float | None, remedy: str
) -> None:
    made = make_campaign(tmp_path, at=[(0, 0)]).change(limits={"seam_ratio": limit})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | {"smallest_halo": smallest}))
    found = seam_remedy(made.campaign, SeamRatio(ratio, 0.01))
    assert (remedy in found) if remedy else found == ""
    assert seam_remedy(made.campaign, None) == ""


@pytest.mark.parametrize(
    ("centred", "remedy"), [(False, "set centred_upsampling: true"), (True, "no halo lessens them")]
)
def test_verify_names_the_head_that_moves_borders(tmp_path: Path, *, centred: bool, remedy: str) -> None:
    made = make_campaign(tmp_path, at=[(0, 0)])
    pooling = {"architecture": "upernet", "centred_upsampling": centred, "smallest_window": None}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | pooling))
    assert remedy in seam_remedy(made.campaign, SeamRatio(2.6, 0.01))
