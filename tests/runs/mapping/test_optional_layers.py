"""Optional layers of a campaign: made beside maps that stay as they are, with the same bytes whatever the workers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from distributed import Client
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.domain import Domain
from pipeline.errors import ConfigError
from pipeline.inference.block_mapping import read_reflected
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import RunPlan, make_plan
from pipeline.runs.planning.resolved_campaign import resolve
from pipeline.runs.planning.totals import plan_totals
from pipeline.runs.quality.verify import verify
from pipeline.sources.catalog.reader import read_domain
from pipeline.sources.reading.mosaic import Mosaic
from tests.support.campaigns import TILE, Made, make_campaign

BOTH = ["probabilities", "disagreement"]
TURNED = {"weights": "weights.pth", "recipe": "tiny.yaml", "tta": "flips"}
DOMAIN = "D034_2021"


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Path below a folder → hash and time of the last change of its COGs and items."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".tif", ".json") and p.name != "run.json")
    return {
        str(p.relative_to(folder)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files
    }


def plan_of(made: Made, **changes: Any) -> RunPlan:
    return make_plan(made.change(**changes).campaign)


def reasons(plan: RunPlan) -> list[str | None]:
    return [tile.reason for domain in plan.domains for tile in domain.tiles]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """A domain that was mapped without layers."""
    made = make_campaign(tmp_path_factory.mktemp("layers"), at=[(0, 0), (0, 1)]).change(model=TURNED)
    run(make_plan(made.campaign), client=dask_client)
    return made


@pytest.fixture(scope="module")
def layered(mapped: Made, tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """The same domain, with both layers added one after the other."""
    made = mapped.copy(tmp_path_factory.mktemp("layered") / "copy")
    before = state(made.products)
    first = plan_of(made, layers=["probabilities"])
    assert reasons(first) == ["probabilities not made yet"] * 2
    run(first, client=dask_client)
    one = state(made.products)
    assert one.items() >= before.items(), "maps and their items were not written again"
    second = plan_of(made, layers=BOTH)
    assert reasons(second) == ["disagreement not made yet"] * 2
    totals = plan_totals(second)
    assert (totals.output_files, totals.write_bytes) == (4, 2 * TILE**2)
    assert totals.computed_pixels == 2 * 16 * 224**2 * 4, "every forward is needed again"
    run(second, client=dask_client)
    assert state(made.products).items() >= one.items()
    assert plan_of(made).todo == 0
    return made


def read(made: Made, tile: str, layer: str) -> NDArray[np.uint8]:
    folder = made.products / DOMAIN / (layer if layer in BOTH else "")
    with rasterio.open(folder / f"{DOMAIN}-{tile}-{layer}.tif") as file:
        pixels: NDArray[np.uint8] = file.read()
    return pixels


def test_layers_hold_what_their_definition_says(layered: Made) -> None:
    """Each pixel of one block, from one forward of each turn in plain torch."""
    own = resolve(layered.campaign)
    inputs = read_domain(layered.campaign.catalog, Domain(DOMAIN), tile_size=TILE)
    tile = inputs.tiles[0].tile
    core, window = own.layout.windows_of(tile.window)[5]
    pixels = read_reflected(Mosaic.of(inputs, bands=own.recipe.bands), window)
    scaled = (torch.from_numpy(pixels.bands.copy()).float() - 120.0) / 50.0 * torch.from_numpy(pixels.valid.copy())
    shares = []
    for axes in ([], [-1], [-2], [-2, -1]):
        logits = own.model.members[0].network(scaled[None].flip(axes))[0, :12].flip(axes)  # type: ignore[union-attr]
        shares.append(torch.softmax(logits.double(), dim=0).numpy()[:, *core.slices_in(window)])
    mean = np.mean(shares, axis=0)
    place = core.slices_in(tile.window)
    assert np.abs(read(layered, tile.name, "probabilities")[:, *place] - (1 + 254 * mean)).max() <= 0.51
    information = _entropy(mean) - np.mean([_entropy(share) for share in shares], axis=0)
    expected = 1 + 254 * information / np.log(4)
    assert np.abs(read(layered, tile.name, "disagreement")[0][place] - expected).max() <= 0.51
    classes = read(layered, tile.name, "landcover")[0][place]
    clear = np.ptp(np.sort(mean, axis=0)[-2:], axis=0) > 1e-5
    np.testing.assert_array_equal(classes[clear], 1 + mean.argmax(axis=0)[clear])


def _entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return -(shares * np.log(shares)).sum(axis=0)


@pytest.mark.slow
def test_two_processes_make_layers_and_maps_at_once_with_the_same_bytes(
    layered: Made, mapped: Made, tmp_path: Path
) -> None:
    made = mapped.copy(tmp_path / "copy").change(layers=BOTH)
    run(make_plan(made.campaign, force=True), workers=2)
    of_bytes = {path: sha for path, (sha, _) in state(made.products).items() if path.endswith(".tif")}
    assert of_bytes == {path: sha for path, (sha, _) in state(layered.products).items() if path.endswith(".tif")}


def test_a_layer_is_made_again_where_it_is_damaged_or_the_map_changes(layered: Made, tmp_path: Path) -> None:
    made = layered.copy(tmp_path / "copy")
    folder = made.products / DOMAIN / "disagreement"
    first, second = sorted(folder.glob("*.tif"))
    first.unlink()
    second.with_suffix(".json").write_text("{}")
    plan = plan_of(made)
    assert reasons(plan) == ["disagreement damaged"] * 2
    assert [list(t.layers) for d in plan.domains for t in d.todo] == [["disagreement"]] * 2
    changed = plan_of(made, model=TURNED | {"tta": "d4"})
    assert reasons(changed) == ["test-time augmentation changed"] * 2
    assert [list(t.layers) for d in changed.domains for t in d.todo] == [BOTH] * 2
    assert not any(t.keeps_map for d in changed.domains for t in d.todo)


def problems_of(made: Made) -> list[str]:
    return [problem for domain in verify(made.campaign).domains for problem in domain.problems]


def test_a_layer_of_an_earlier_map_is_a_problem(layered: Made, tmp_path: Path, dask_client: Client) -> None:
    """As after a run with other weights that was killed between map and layer, or that had no layers."""
    made = layered.copy(tmp_path / "copy").change(layers=[], model=TURNED | {"tta": "none"})
    run(make_plan(made.campaign), client=dask_client)
    assert problems_of(made) == []
    problems = problems_of(made.change(layers=["probabilities"]))
    assert len(problems) == 2
    assert all("was made with an earlier map of the tile; `landcover run` makes it again" in p for p in problems)
    run(make_plan(made.campaign), client=dask_client)
    assert problems_of(made) == []


def test_leftovers_of_a_layer_go_though_the_campaign_no_longer_has_it(layered: Made, tmp_path: Path) -> None:
    made = layered.copy(tmp_path / "copy").change(layers=[])
    left = made.products / DOMAIN / "probabilities" / f".{DOMAIN}-7000-68000-probabilities.tif.1.tmp"
    left.touch()
    (made.products / DOMAIN / "run.json").unlink()
    plan = make_plan(made.campaign)
    assert plan.todo == 0
    run(plan)
    assert not left.exists()


def test_verify_checks_layers_and_names_what_is_wrong(layered: Made, tmp_path: Path) -> None:
    made = layered.copy(tmp_path / "copy")
    assert problems_of(made) == []
    folder = made.products / DOMAIN
    lost, changed = sorted((folder / "probabilities").glob("*.tif"))
    lost.unlink()
    content = bytearray(changed.read_bytes())
    content[-10] ^= 1
    changed.write_bytes(content)
    problems = problems_of(made)
    assert [p.partition(": ")[2].partition(";")[0] for p in problems] == [
        "is missing",
        f"checksum mismatch: SHA-256 differs from {changed.stem}.json",
    ]


def test_fingerprints_of_layers_are_their_own(mapped: Made) -> None:
    plain, layered = (resolve(mapped.campaign.model_copy(update={"layers": given})) for given in ((), tuple(BOTH)))
    inputs = read_domain(mapped.campaign.catalog, Domain(DOMAIN), tile_size=TILE)
    tile = inputs.tiles[0].tile
    assert plain.fingerprint(tile, inputs) == layered.fingerprint(tile, inputs)
    found = layered.layer_fingerprints(tile, inputs)
    assert len({plain.fingerprint(tile, inputs), *found.values()}) == 3
    alone = resolve(mapped.campaign.model_copy(update={"layers": ("disagreement",)}))
    assert alone.layer_fingerprints(tile, inputs) == {"disagreement": found["disagreement"]}


def test_the_files_say_how_to_read_them(layered: Made) -> None:
    folder = layered.products / DOMAIN / "probabilities"
    with rasterio.open(next(folder.glob("*.tif"))) as file:
        assert file.descriptions[:2] == ("building", "pervious_surface")
        assert (file.count, file.nodata, file.scales[0], file.offsets[0]) == (12, 0, 1 / 254, -1 / 254)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert not list(folder.glob("*.aux.xml"))
    item = json.loads(next(folder.glob("*.json")).read_text())
    assert item["assets"]["probabilities"]["bands"][0]["raster:scale"] == 1 / 254


def test_the_plan_says_that_maps_stay_and_what_layers_cost(mapped: Made, tmp_path: Path) -> None:
    made = mapped.copy(tmp_path / "copy").change(layers=["probabilities"])
    printed = " ".join(CliRunner().invoke(app, ["plan", str(made.config)]).output.split())
    assert "2 tiles to map (probabilities not made yet)" in printed
    assert "their maps stay as they are; the layers need every forward of their windows again" in printed


def test_disagreement_of_a_single_forward_is_refused(mapped: Made, tmp_path: Path) -> None:
    made = mapped.copy(tmp_path / "copy").change(model=TURNED | {"tta": "none"}, layers=["disagreement"])
    with pytest.raises(ConfigError, match=r"needs several forwards: set model\.members or model\.tta"):
        _ = made.campaign
