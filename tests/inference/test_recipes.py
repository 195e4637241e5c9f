"""Every shipped recipe maps a domain, with no more of a delivery than its bands; a wrong one is refused by name."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import config_folder, load_recipe
from pipeline.errors import WeightsError
from pipeline.grid import Layout
from pipeline.inference import predict
from pipeline.model import load
from pipeline.model.network import build
from pipeline.sources import Mosaic, index, open_domain
from tests.deliveries import Delivery, make_delivery

SIZE = 250
NAMES = sorted(path.stem for path in (config_folder() / "models").glob("*.yaml"))


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    return make_delivery(tmp_path_factory.mktemp("recipes") / "in", at=[(0, 0)], size=SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Random weights as FLAIR-INC has them, half precision; 12 and 15 classes have the same tensors."""
    folder = tmp_path_factory.mktemp("weights")

    def written(name: str) -> Path:
        recipe = load_recipe(name)
        path = folder / f"{len(recipe.bands)}-{recipe.architecture}.pth"
        if not path.exists():
            torch.manual_seed(0)
            state = {n: t.half() if t.is_floating_point() else t for n, t in build(recipe).state_dict().items()}
            torch.save(OrderedDict((f"model.seg_model.{n}", t) for n, t in state.items()), path)
        return path

    return written


def test_the_family_is_there() -> None:
    unets = {f"flair-inc_{b}_{c}cl_resnet34-unet" for b in ("rgb", "rgbi", "rgbie") for c in (12, 15)}
    assert set(NAMES) == unets | {f"flair-inc_rgbie_{c}cl_resnet34-fpn" for c in (12, 15)}
    for recipe in map(load_recipe, NAMES):
        fifteen = (*range(1, 15), 18)
        assert recipe.live == (fifteen if "_15cl_" in recipe.name else tuple(range(1, 13)))
        assert len(recipe.bands) == {"rgb": 3, "rgbi": 4, "rgbie": 5}[recipe.name.split("_")[1]]
        whole = load_recipe("flair-inc_rgbie_12cl_resnet34-unet")
        assert (recipe.mean, recipe.std) == (whole.mean[: len(recipe.bands)], whole.std[: len(recipe.bands)])


@pytest.mark.parametrize("name", NAMES)
def test_a_domain_is_mapped_with_each_recipe(
    tmp_path: Path, delivery: Delivery, weights: Callable[[str], Path], name: str
) -> None:
    recipe = load_recipe(name)
    index([delivery.folder], domain=delivery.domain, catalog=tmp_path / "cat", tile_size=SIZE, recipe=recipe)
    inputs = open_domain(tmp_path / "cat", delivery.domain, tile_size=SIZE)
    kinds = {a.kind for a in inputs.assets}
    assert ("irc" in kinds) == ("nir" in recipe.bands)
    assert ("dsm" in kinds) == ("elevation" in recipe.bands)
    mosaic = Mosaic.of(inputs, bands=recipe.bands)
    assert mosaic.read(mosaic.window).bands.shape[0] == len(recipe.bands)
    model = load(weights(name), recipe)
    layout = Layout(core=SIZE, halo=16, window=320, stride=32)
    mapped = predict(mosaic, model, layout=layout, block=SIZE, engine="torch").compute(scheduler="synchronous")
    assert mapped.landcover.shape == mosaic.window.shape
    assert set(np.unique(mapped.landcover)) <= set(recipe.live)
    assert (mapped.confidence.values > 0).all()


@pytest.mark.parametrize(
    ("given", "recipe", "said"),
    [
        (
            "flair-inc_rgb_12cl_resnet34-unet",
            "flair-inc_rgbie_12cl_resnet34-unet",
            "its input has 3 channels, the recipe 5",
        ),
        ("flair-inc_rgbie_12cl_resnet34-unet", "flair-inc_rgbi_12cl_resnet34-unet", "5 channels, the recipe 4"),
        ("flair-inc_rgbie_12cl_resnet34-fpn", "flair-inc_rgbie_12cl_resnet34-unet", "missing tensors: decoder.blocks"),
        ("flair-inc_rgbie_15cl_resnet34-unet", "flair-inc_rgbie_15cl_resnet34-fpn", "missing tensors: decoder.p5"),
    ],
)
def test_weights_of_another_recipe_are_refused_with_the_one_that_fits(
    weights: Callable[[str], Path], given: str, recipe: str, said: str
) -> None:
    with pytest.raises(WeightsError, match=rf"{said}.*of the shipped recipes, .*{given}.* has just these tensors"):
        load(weights(given), recipe)


def test_twelve_and_fifteen_classes_differ_in_the_files_name_alone(
    tmp_path: Path, weights: Callable[[str], Path]
) -> None:
    path = tmp_path / "FLAIR-INC_rgbie_15cl_resnet34-unet_weights.pth"
    path.symlink_to(weights("flair-inc_rgbie_15cl_resnet34-unet"))
    with pytest.raises(WeightsError, match="its name says that it is of recipe flair-inc_rgbie_15cl_resnet34-unet"):
        load(path, "flair-inc_rgbie_12cl_resnet34-unet")
    assert load(path, "flair-inc_rgbie_15cl_resnet34-unet").recipe.live[-1] == 18
