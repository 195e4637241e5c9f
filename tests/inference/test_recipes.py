"""Every shipped recipe maps a domain from the files that its bands need, and a wrong recipe is refused by name."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from pipeline.config import Architecture, Recipe, config_folder, load_recipe
from pipeline.errors import WeightsError
from pipeline.halo import Layout
from pipeline.model import load_model
from pipeline.model.network import build_network
from pipeline.runs.mapping.predict import predict
from pipeline.sources.catalog.index import index
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.deliveries import Delivery, make_delivery

SIZE = 100
"""Side of a tile in pixels; one window contains it with its halo."""
CARD = {
    "red": (105.08, 52.17),
    "green": (110.87, 45.38),
    "blue": (101.82, 44.00),
    "nir": (106.38, 39.69),
    "elevation": (53.26, 79.30),
}
"""Band → mean and deviation, from the card of FLAIR-INC_rgbie_12cl_resnet34-unet."""
NAMES = sorted(path.stem for path in (config_folder() / "models").glob("flair-inc_*.yaml"))


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Delivery:
    return make_delivery(tmp_path_factory.mktemp("recipes") / "in", at=[(0, 0), (0, 1), (1, 0)], size=SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Random weights in half precision, as in FLAIR-INC files; 12 and 15 classes have the same tensors."""
    folder = tmp_path_factory.mktemp("weights")

    def written(name: str) -> Path:
        recipe = load_recipe(name)
        path = folder / f"{len(recipe.bands)}-{recipe.architecture}.pth"
        if not path.exists():
            torch.manual_seed(0)
            state = {n: t.half() if t.is_floating_point() else t for n, t in build_network(recipe).state_dict().items()}
            torch.save(OrderedDict((f"model.seg_model.{n}", t) for n, t in state.items()), path)
        return path

    return written


def test_the_shipped_recipes_are_those_of_the_model_cards() -> None:
    unets = {f"flair-inc_{b}_{c}cl_resnet34-unet" for b in ("rgb", "rgbi", "rgbie") for c in (12, 15)}
    assert set(NAMES) == unets | {f"flair-inc_rgbie_{c}cl_resnet34-fpn" for c in (12, 15)}
    for recipe in map(load_recipe, NAMES):
        fifteen = (*range(1, 15), 18)
        assert recipe.live == (fifteen if "_15cl_" in recipe.name else tuple(range(1, 13)))
        assert len(recipe.bands) == {"rgb": 3, "rgbi": 4, "rgbie": 5}[recipe.name.split("_")[1]]
        assert dict(zip(recipe.bands, zip(recipe.mean, recipe.std, strict=True), strict=True)).items() <= CARD.items()
        source = (config_folder() / "models" / f"{recipe.name}.yaml").read_text(encoding="utf-8")
        assert "over the training images, in levels 0..255" in source, "each file says where its numbers come from"


@pytest.mark.parametrize("name", NAMES)
def test_a_domain_of_several_tiles_is_mapped_with_each_recipe(
    tmp_path: Path, delivery: Delivery, weights: Callable[[str], Path], name: str
) -> None:
    recipe = load_recipe(name)
    index([delivery.folder], domain=delivery.domain, catalog=tmp_path / "cat", tile_size=SIZE, recipe=recipe)
    inputs = read_domain(tmp_path / "cat", delivery.domain, tile_size=SIZE)
    kinds = {a.kind for a in inputs.assets}
    assert ("irc" in kinds) == ("nir" in recipe.bands)
    assert ("dsm" in kinds) == ("elevation" in recipe.bands)
    mosaic = Mosaic.of(inputs, bands=recipe.bands)
    assert mosaic.read(mosaic.window).bands.shape[0] == len(recipe.bands)
    model = load_model(weights(name), recipe)
    layout = Layout(core=SIZE, halo=16, window=160, stride=32)
    lazy = predict(mosaic, model, layout=layout, block=SIZE, engine="torch", accept=["halo"])
    mapped = lazy.compute(scheduler="synchronous")
    assert mapped.landcover.shape == mosaic.window.shape == (2 * SIZE, 2 * SIZE)
    classes, confidence = mapped.landcover.values[delivery.covered], mapped.confidence.values[delivery.covered]
    assert set(np.unique(classes)) <= set(recipe.live)
    assert (confidence > 0).all()
    assert not mapped.landcover.values[~delivery.covered].any()
    assert not mapped.confidence.values[~delivery.covered].any()


@pytest.mark.parametrize(
    ("given", "recipe", "said"),
    [
        (
            "flair-inc_rgb_12cl_resnet34-unet",
            "flair-inc_rgbie_12cl_resnet34-unet",
            "its input has 3 channels, the recipe 5",
        ),
        ("flair-inc_rgbie_12cl_resnet34-unet", "flair-inc_rgbi_12cl_resnet34-unet", "5 channels, the recipe 4"),
        ("flair-inc_rgbie_12cl_resnet34-fpn", "flair-inc_rgbie_12cl_resnet34-unet", "does not fit recipe"),
        ("flair-inc_rgbie_15cl_resnet34-unet", "flair-inc_rgbie_15cl_resnet34-fpn", "does not fit recipe"),
    ],
)
def test_weights_of_another_recipe_are_refused_with_its_name(
    weights: Callable[[str], Path], given: str, recipe: str, said: str
) -> None:
    with pytest.raises(WeightsError, match=rf"{said}.*of the shipped recipes, .*{given}.* has exactly these tensors"):
        load_model(weights(given), recipe)


def test_twelve_and_fifteen_classes_differ_only_in_the_file_name(
    tmp_path: Path, weights: Callable[[str], Path]
) -> None:
    path = tmp_path / "FLAIR-INC_rgbie_15cl_resnet34-unet_weights.pth"
    path.symlink_to(weights("flair-inc_rgbie_15cl_resnet34-unet"))
    with pytest.raises(WeightsError, match="by its name it belongs to recipe flair-inc_rgbie_15cl_resnet34-unet"):
        load_model(path, "flair-inc_rgbie_12cl_resnet34-unet")
    assert load_model(path, "flair-inc_rgbie_15cl_resnet34-unet").recipe.live[-1] == 18


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_only_decoders_that_pool_the_window_see_a_change_far_away(architecture: Architecture) -> None:
    recipe = Recipe(
        name="r", architecture=architecture, encoder="resnet18", bands=("red",), mean=(0,), std=(1,), live=(1, 2)
    )
    torch.manual_seed(0)
    network = build_network(recipe).eval()
    image = torch.randn(1, 1, 128, 1024)
    changed = image.clone()
    changed[..., 960:] += 3
    with torch.inference_mode():
        here, there = (network(i)[..., :64] for i in (image, changed))
    # The FPN's group norm is over the whole window too. This small effect is documented.
    assert torch.equal(here, there) != (recipe.pools_whole_window or architecture == "fpn")
