"""Campaigns and recipes: valid files load, and errors name the key."""

from pathlib import Path

import pytest
import yaml

from pipeline.config import DEFAULT_RECIPE, config_folder, load_campaign, load_recipe
from pipeline.domain import Domain
from pipeline.errors import ConfigError

MINIMAL = {"name": "test", "catalog": "catalog", "model": {"weights": "w.pth"}, "domains": [{"name": "D064_2021"}]}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | changes))
    return path


def test_relative_paths_start_at_the_folder_of_the_yaml_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, output={"domains": "out", "national": "/elsewhere"})
    monkeypatch.chdir("/")
    campaign = load_campaign(path)
    assert campaign.catalog == tmp_path / "catalog"
    assert campaign.weights == str(tmp_path / "w.pth")
    assert campaign.output.domains == tmp_path / "out"
    assert campaign.output.national == Path("/elsewhere")
    assert load_campaign(write(tmp_path)).output.national == tmp_path / "national", "defaults too"


def test_weights_on_a_hub_are_not_made_a_path(tmp_path: Path) -> None:
    campaign = load_campaign(write(tmp_path, model={"weights": "hf://IGNF/FLAIR-INC"}))
    assert campaign.weights == "hf://IGNF/FLAIR-INC"


def test_the_default_extent_is_france_in_whole_tiles(tmp_path: Path) -> None:
    extent = load_campaign(write(tmp_path)).extent
    assert extent.height % 25_000 == extent.width % 25_000 == 0
    assert extent.bounds == (90_000.0, 6_040_000.0, 1_250_000.0, 7_120_000.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"members": [{"weights": "a"}], "weights": "b"}}, "found members and weights"),
        ({"model": {"members": [{"weights": str(i)} for i in range(9)]}}, "model.members: Tuple should have at most 8"),
        ({"model": {"weights": "a", "tta": "d8"}}, "model.tta: Input should be 'none', 'flips' or 'd4'"),
        ({"layers": ["probabilities", "probabilities"]}, "a layer is listed twice"),
        ({"modle": {}}, "unknown key 'modle'"),
        ({"grid": {"tiles": 1}}, "unknown key 'grid.tiles'"),
        ({"model": {}}, "missing key 'model.weights'"),
        ({"domains": []}, "domains"),
        ({"domains": [{"name": "64_2021"}]}, "domains.0.name"),
        ({"domains": [{"name": "D064_2021"}, {"name": "D064_2021"}]}, "listed twice"),
        ({"output": {"chunk": 999}}, "chunk 999 must divide shard 25000"),
        ({"output": {"extent_km": [0, 0, 7, 10]}}, "multiples of a tile, 5.0 km"),
        ({"engine": "tensorflow"}, "engine"),
        ({"base": "/etc"}, "unknown key base"),
        ({"grid": {"blok": 1}}, r"line \d+, column \d+: unknown key 'grid.blok'; did you mean block\?"),
        ({"domains": [{"name": "D034_2021", "bondary": "x"}]}, "'domains.0.bondary'; did you mean boundary"),
        ({"cluster": {"zzz": 1}}, "unknown key 'cluster.zzz'; expected kind, scheduler, dashboard, "),
        ({"name": "a b"}, r"name: expected letters, digits, `_`, `-` and `\.` \(found 'a b'\)"),
        ({"model": {"weights": "w.pth", "sha256": "12"}}, "model.sha256: expected 64 hexadecimal digits"),
    ],
)
def test_an_invalid_campaign_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        load_campaign(path)
    assert str(path) in str(caught.value)


def test_a_window_off_the_stride_is_refused_with_the_next_sizes(tmp_path: Path) -> None:
    campaign = load_campaign(write(tmp_path, grid={"window": 2850}))
    with pytest.raises(ConfigError, match="2850 px is not a multiple of the network's stride 32: use 2848 or 2880"):
        campaign.grid.layout(32)


@pytest.mark.parametrize("text", ["- a\n", "{", "!!python/object/apply:os.system ['true']", "\xff"])
def test_a_file_that_is_not_a_yaml_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_campaign(path)
    with pytest.raises(ConfigError, match="no such file"):
        load_campaign(tmp_path / "absent.yaml")


def test_an_unknown_domain_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown domain 'D065_2021'.*D064_2021"):
        load_campaign(write(tmp_path)).domain("D065_2021")


def test_the_default_recipe_has_the_values_of_the_model_card() -> None:
    recipe = load_recipe(DEFAULT_RECIPE)
    assert recipe.bands == ("red", "green", "blue", "nir", "elevation")
    assert recipe.mean == (105.08, 110.87, 101.82, 106.38, 53.26)
    assert recipe.std == (52.17, 45.38, 44.00, 39.69, 79.30)
    assert recipe.live == tuple(range(1, 13))
    assert recipe.logits == 19


@pytest.mark.parametrize("path", sorted((config_folder() / "models").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_by_its_name(path: Path) -> None:
    assert load_recipe(path.stem).name == path.stem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [1.0]}, "expected 5 means and stds, one per band, found 1 and 5"),
        ({"std": [1, 1, 1, 1, 0]}, "above 0"),
        ({"live": [1, 20]}, "FLAIR values"),
        ({"live": [2, 1]}, "ascending"),
        ({"bands": ["red", "red", "blue", "nir", "elevation"]}, "a band twice"),
        ({"logits": 10}, "live"),
    ],
)
def test_an_invalid_recipe_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(load_recipe(DEFAULT_RECIPE).model_dump(mode="json") | changes))
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(path))


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=rf"unknown recipe 'nothing': .* or one of .*{DEFAULT_RECIPE}"):
        load_recipe("nothing")


def test_a_campaign_finds_its_recipe_and_its_product_folders(tmp_path: Path) -> None:
    recipe = load_recipe(DEFAULT_RECIPE)
    own = recipe.model_dump(mode="json") | {"name": "own", "smallest_halo": recipe.smallest_halo}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    campaign = load_campaign(write(tmp_path, model={"weights": "w.pth", "recipe": "./own.yaml"}))
    assert campaign.recipe() == recipe.model_copy(update={"name": "own"})
    assert campaign.product_folder(Domain("D064_2021")) == tmp_path / "products" / "D064_2021"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("grid: {tile: x}", "line 1, column 8: grid.tile"),
        ("name: a\ngrid:\n  core: -1", "line 3, column 3: grid.core"),
        ("name: [", "line 1, column 8"),
        ("name: a\nname: b", "a key occurs twice"),
        ('catalog: "~nobody-here/x"', "catalog: "),
        ('catalog: "a\\0b"', "no file name has"),
        ("output: {extent_km: [0, 0, .inf, 1]}", "line 1, column 28: output.extent_km.2"),
        ("cluster: {threads: 999999999999}", "cluster.threads"),
    ],
)
def test_an_error_names_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_campaign(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
