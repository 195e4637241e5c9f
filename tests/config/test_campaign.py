"""Configuration is read once, and what is wrong with it is said by key."""

from pathlib import Path

import pytest
import yaml

from pipeline.config import DEFAULT_RECIPE, Recipe, config_folder, load_campaign, load_recipe
from pipeline.errors import ConfigError

MINIMAL = {"name": "test", "catalog": "catalog", "model": {"weights": "w.pth"}, "domains": [{"name": "D064_2021"}]}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | changes))
    return path


def test_paths_are_meant_from_the_yamls_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, output={"domains": "out", "national": "/elsewhere"})
    monkeypatch.chdir("/")
    campaign = load_campaign(path)
    assert campaign.catalog == tmp_path / "catalog"
    assert campaign.weights == str(tmp_path / "w.pth")
    assert campaign.output.domains == tmp_path / "out"
    assert campaign.output.national == Path("/elsewhere")
    assert load_campaign(write(tmp_path)).output.national == tmp_path / "national", "a default is no other place"


def test_weights_of_a_hub_stay_what_they_are(tmp_path: Path) -> None:
    campaign = load_campaign(write(tmp_path, model={"weights": "hf://IGNF/FLAIR-INC"}))
    assert campaign.weights == "hf://IGNF/FLAIR-INC"


def test_the_default_extent_holds_france_in_whole_tiles(tmp_path: Path) -> None:
    extent = load_campaign(write(tmp_path)).extent
    assert extent.height % 25_000 == extent.width % 25_000 == 0
    assert extent.bounds == (90_000.0, 6_040_000.0, 1_250_000.0, 7_120_000.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle": {}}, "unknown key 'modle'"),
        ({"grid": {"tiles": 1}}, "unknown key 'grid.tiles'"),
        ({"model": {}}, "missing key 'model.weights'"),
        ({"domains": []}, "domains"),
        ({"domains": [{"name": "64_2021"}]}, "domains.0.name"),
        ({"domains": [{"name": "D064_2021"}] * 2}, "named twice"),
        ({"output": {"chunk": 999}}, "chunk 999 must divide shard 25000"),
        ({"output": {"extent_km": [0, 0, 7, 10]}}, "no rectangle of whole tiles of 5.0 km"),
        ({"engine": "tensorflow"}, "engine"),
        ({"base": "/etc"}, "unknown key base"),
    ],
)
def test_what_cannot_be_is_said_by_key(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        load_campaign(path)
    assert str(path) in str(caught.value)


def test_sizes_that_do_not_fit_the_stride_are_refused_with_the_numbers(tmp_path: Path) -> None:
    campaign = load_campaign(write(tmp_path, grid={"window": 2850}))
    with pytest.raises(ConfigError, match="2850 px is not a multiple of the network's stride 32; use 2848 or 2880"):
        campaign.grid.layout(32)


@pytest.mark.parametrize("text", ["- a\n", "{", "!!python/object/apply:os.system ['true']", "\xff"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_campaign(path)
    with pytest.raises(ConfigError, match="no such file"):
        load_campaign(tmp_path / "absent.yaml")


def test_an_unknown_domain_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown domain 'D065_2021'.*D064_2021"):
        load_campaign(write(tmp_path)).domain("D065_2021")


def test_the_default_recipe_is_the_cards() -> None:
    recipe = load_recipe(DEFAULT_RECIPE)
    assert recipe.bands == ("red", "green", "blue", "nir", "elevation")
    assert recipe.mean == (105.08, 110.87, 101.82, 106.38, 53.26)
    assert recipe.std == (52.17, 45.38, 44.00, 39.69, 79.30)
    assert recipe.live == tuple(range(1, 13))
    assert recipe.logits == 19


@pytest.mark.parametrize("path", sorted((config_folder() / "models").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_under_its_own_name(path: Path) -> None:
    assert load_recipe(path.stem).name == path.stem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [1.0]}, "5 bands want 5 means"),
        ({"std": [1, 1, 1, 1, 0]}, "above 0"),
        ({"live": [1, 20]}, "FLAIR values"),
        ({"live": [2, 1]}, "ascending"),
        ({"bands": ["red", "red", "blue", "nir", "elevation"]}, "one band twice"),
        ({"logits": 10}, "live"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(load_recipe(DEFAULT_RECIPE).model_dump(mode="json") | changes))
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=f"expected a path to a YAML or one of .*{DEFAULT_RECIPE}"):
        load_recipe("nothing")
    assert isinstance(load_recipe(DEFAULT_RECIPE), Recipe)
