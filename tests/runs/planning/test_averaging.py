"""Campaigns that average networks: fingerprints, the plan's cost, and what an item says of them."""

from dataclasses import asdict
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError, WeightsError
from pipeline.fingerprint import PRODUCT_VERSION, digest, file_sha256
from pipeline.inference.engine import Engine
from pipeline.products.stac.model_item import model_item
from pipeline.runs.planning import resolved_campaign
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.provenance import tile_provenance
from pipeline.runs.planning.resolved_campaign import ResolvedCampaign, resolve
from tests.support.campaigns import RECIPE, Made, make_campaign, write_weights

ONE = {"weights": "weights.pth", "recipe": "tiny.yaml"}
OTHER = {"weights": "other.pth", "recipe": "infrared.yaml"}


PROPERTIES: dict[str, Any] = {
    "landcover:weights": "weights.pth, other.pth",
    "landcover:weights_sha256": "0" * 64,
    "landcover:tta": "flips",
    "landcover:layout": {"window": 224},
    "start_datetime": "2021-01-01T00:00:00Z",
    "end_datetime": "2021-12-31T23:59:59Z",
}
"""What the model's item takes of a tile's."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tile, and a second network of two bands and another temperature."""
    made = make_campaign(tmp_path_factory.mktemp("averaging"), at=[(0, 0)])
    recipe = RECIPE | {"name": "infrared", "bands": ["nir", "red"], "mean": [1.0] * 2, "std": [9.0] * 2}
    (made.folder / "infrared.yaml").write_text(yaml.safe_dump(recipe | {"temperature": 1.5}))
    write_weights(made.folder / "other.pth", made.folder / "infrared.yaml", seed=1)
    return made


def resolved(made: Made, **model: Any) -> ResolvedCampaign:
    return resolve(made.change(model=model).campaign)


def fingerprint(made: Made, **model: Any) -> str:
    (domain,) = make_plan(made.change(model=model).campaign).domains
    return domain.tiles[0].fingerprint


def test_a_single_network_has_the_fingerprint_that_it_always_had(made: Made) -> None:
    plan = make_plan(made.change(model=ONE).campaign)
    own, (domain,) = plan.resolved, plan.domains
    (tile,) = domain.inputs.tiles
    parts = {
        "version": PRODUCT_VERSION,
        "weights": file_sha256(made.folder / "weights.pth"),
        "recipe": own.recipe.model_dump(mode="json"),
        "layout": asdict(own.layout),
        "engine": {"name": "torch", "precision": "fp32"},
        "tile": asdict(tile.tile.window),
        "inputs": domain.inputs.inputs_digest(own.read_window(tile.tile)),
    }
    assert domain.tiles[0].fingerprint == digest(parts)
    assert fingerprint(made, members=[ONE], tta="none") == digest(parts), "one member is a single network"


def test_fingerprints_change_with_members_order_recipes_and_turns(made: Made) -> None:
    models: list[dict[str, Any]] = [
        ONE,
        ONE | {"tta": "flips"},
        ONE | {"tta": "d4"},
        {"members": [ONE, OTHER]},
        {"members": [OTHER, ONE]},
        {"members": [ONE, dict(ONE), OTHER]},
        {"members": [ONE, OTHER], "tta": "d4"},
        {"members": [ONE, OTHER], "tta": "d4", "temperature": 0.8},
    ]
    found = [fingerprint(made, **model) for model in models]
    assert len(set(found)) == len(models)
    assert fingerprint(made, members=[ONE, OTHER], temperature=1.0) == found[3]
    with pytest.raises(ConfigError, match=r"found temperature 0\.8, and a single forward"):
        resolved(made, **ONE, temperature=0.8)
    recipe = made.folder / "infrared.yaml"
    before = recipe.read_text()
    recipe.write_text(before.replace("temperature: 1.5", "temperature: 1.25"))
    assert fingerprint(made, members=[ONE, OTHER]) not in found, "each member's temperature counts"
    recipe.write_text(before + "smallest_halo: 16\n")
    assert fingerprint(made, members=[ONE, OTHER]) == found[3], "no byte follows from the smallest halo"
    recipe.write_text(before)


def test_the_plan_states_the_cost_and_reads_the_bands_of_all(made: Made) -> None:
    single = resolved(made, **ONE)
    averaged = resolved(made, members=[OTHER, ONE], tta="d4")
    assert (single.forwards, averaged.forwards) == (1, 16)
    assert averaged.recipe.bands == ("nir", "red", "green", "blue", "elevation")
    assert averaged.memory.total > single.memory.total
    printed = CliRunner().invoke(app, ["plan", str(made.config)])
    assert "forwards of each window: 16 (2 networks, tta: d4)" in " ".join(printed.output.split())


def test_an_item_names_each_network(made: Made) -> None:
    own = resolved(made, members=[ONE, OTHER], tta="flips")
    (domain,) = make_plan(own.campaign).domains
    provenance = tile_provenance(own, domain.inputs, domain.tiles[0].tile)
    assert [member[::2] for member in provenance.members] == [("weights.pth", "tiny"), ("other.pth", "infrared")]
    assert (provenance.recipe, provenance.tta) == ("tiny+infrared", "flips")
    members = [dict(zip(("weights", "sha256", "recipe"), member, strict=True)) for member in provenance.members]
    item = model_item(own.recipe, sealed={"properties": PROPERTIES | {"landcover:members": members}})
    assert [asset["href"] for asset in item["assets"].values()] == ["weights.pth", "other.pth"]
    assert item["properties"]["mlm:hyperparameters"] == {"members": ["tiny", "infrared"], "tta": "flips"}


def test_int8_is_refused_before_anything_runs(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolved_campaign, "resolve_engine", lambda *_, **__: Engine("openvino", "int8"))
    with pytest.raises(ConfigError, match="in int8 gives classes without them"):
        resolved(made, **ONE, tta="d4")


def test_members_are_pinned_one_by_one(made: Made) -> None:
    with pytest.raises(WeightsError, match=r"other\.pth: checksum mismatch"):
        resolved(made, members=[ONE, OTHER | {"sha256": "0" * 64}])
