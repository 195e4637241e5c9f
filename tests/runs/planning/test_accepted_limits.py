"""Domains that exceed limits of the model's card need a campaign that accepts them; attribution of the products."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.provenance import tile_provenance
from pipeline.sources.delivery.attribution import Origin
from tests.support.campaigns import RECIPE, Made, make_campaign, write_weights


def past(made: Made, *limits: str) -> Made:
    """As `landcover index --accept` leaves the catalogue."""
    path = made.folder / "catalog" / made.delivery.domain / "collection.json"
    content = json.loads(path.read_text())
    content["landcover:accepted_limits"] = list(limits)
    path.write_text(json.dumps(content))
    return made


def test_an_exceeded_limit_that_is_not_accepted_stops_the_plan(tmp_path: Path) -> None:
    made = past(make_campaign(tmp_path, at=[(0, 0)]), "radiometry", "territory")
    with pytest.raises(
        ConfigError, match=r"does not accept: radiometry, territory; .*accept_limits: \[radiometry, terr"
    ):
        make_plan(made.campaign)
    made.change(accept_limits=["radiometry"])
    with pytest.raises(ConfigError, match="does not accept: territory"):
        make_plan(made.campaign)
    made.change(accept_limits=["radiometry", "territory"])
    before = make_plan(made.campaign).domains[0].tiles[0].fingerprint
    past(made)
    made.change(accept_limits=[])
    assert make_plan(made.campaign).domains[0].tiles[0].fingerprint == before, "acceptance changes no fingerprint"


def test_a_network_that_pools_whole_windows_needs_accepted_seams(tmp_path: Path) -> None:
    made = make_campaign(tmp_path, at=[(0, 0)])
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"architecture": "deeplabv3plus", "encoder": "resnet18"}))
    write_weights(tmp_path / "weights.pth", recipe)
    with pytest.raises(ConfigError, match=r"deeplabv3plus on resnet18.*seams show.*accept_limits: \[whole_window\]"):
        make_plan(made.campaign)
    assert make_plan(made.change(accept_limits=["whole_window"]).campaign).todo == 1


def test_a_measured_window_is_enough_for_a_network_that_pools_it(tmp_path: Path) -> None:
    made = make_campaign(tmp_path, at=[(0, 0)])
    pooling = RECIPE | {"architecture": "upernet", "encoder": "resnet18", "smallest_halo": 32}
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(pooling | {"smallest_window": 416}))
    write_weights(tmp_path / "weights.pth", recipe)
    with pytest.raises(
        ConfigError, match=r"window of 224 px is too small .* needs 416 .*window 416, or .*whole_window"
    ):
        make_plan(made.campaign)
    assert make_plan(made.change(accept_limits=["whole_window"]).campaign).todo == 1
    grid = yaml.safe_load(made.config.read_text())["grid"]
    plan = make_plan(made.change(accept_limits=[], grid=grid | {"window": 416}).campaign)
    assert plan.todo == 1
    before = plan.domains[0].tiles[0].fingerprint
    recipe.write_text(yaml.safe_dump(pooling | {"smallest_window": 384}))
    assert make_plan(made.campaign).domains[0].tiles[0].fingerprint == before, "no map depends on the smallest window"


def test_the_attribution_is_the_deliverys_unless_the_campaign_sets_one(tmp_path: Path) -> None:
    made = make_campaign(tmp_path, at=[(0, 0)])
    plan = make_plan(made.campaign)
    tile = plan.domains[0].tiles[0].tile
    provenance = tile_provenance(plan.resolved, plan.domains[0].inputs, tile)
    assert (provenance.attribution, provenance.licence) == ("IGN, BD ORTHO 2021, LiDAR HD", "etalab-2.0")
    assert provenance.citation == "IGN, BD ORTHO 2021, LiDAR HD (Licence Ouverte Etalab 2.0)"
    output = {**yaml.safe_load(made.config.read_text())["output"], "attribution": "A region"}
    plan = make_plan(made.change(output=output).campaign)
    assert tile_provenance(plan.resolved, plan.domains[0].inputs, tile).attribution == "A region"
    other = replace(plan.domains[0].inputs, origin=Origin("A region", "cc-by-4.0", "Somebody, 2021", "10.1/x"))
    provenance = tile_provenance(plan.resolved, other, tile)
    assert provenance.licence == "other", "two licences are not a single one"
    assert provenance.citation == "Somebody, 2021, doi 10.1/x", "this recipe has none of its own"
