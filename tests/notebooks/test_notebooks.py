"""A small demo is asked: notebooks run from top to bottom and end in a figure, and false change is as expected."""

import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
import rioxarray
import xarray as xr
from distributed import Client
from nbmake.nb_run import NotebookRun

from pipeline.config import Campaign
from pipeline.demo.network import FitSettings
from pipeline.demo.walkthrough import prepare
from pipeline.errors import EvaluationError, ProductError
from pipeline.products.analysis.accessor import register_cover
from pipeline.products.analysis.change import CHANGED, NO_DATA, STABLE, UNCERTAIN, FalseChange
from pipeline.products.analysis.open_product import open_product
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.publishing.publish import publish
from tests.support.paths import ROOT
from tests.support.waiting import LONGEST_S

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIT = FitSettings(steps=80, batch=2, crop=96, learning_rate=1e-2)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Campaign:
    """A demo in seconds: both domains have two tiles of 100 m, one of which is the same ground."""
    folder = tmp_path_factory.mktemp("demo")
    small = {"rows": 1, "columns": 3, "tile_size": 500}
    _, campaign = prepare(folder, on_message=lambda _: None, settings=FIT, threads=1, **small)
    run(make_plan(campaign), client=dask_client)
    publish(campaign, client=dask_client)
    return campaign


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_opens_with_its_question_and_is_kept_bare(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.splitlines()[0].endswith("?")
    for cell in cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert "def " not in cell.source


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_ends_in_a_figure(
    path: Path, demo: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDCOVER_CAMPAIGN", str(demo.base / "campaign.yaml"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    ended = NotebookRun(path, default_timeout=int(LONGEST_S)).execute()
    assert ended.error is None, ended.error
    (figure,) = (o for o in ended.nb.cells[-1].outputs if o.output_type == "display_data")
    assert "image/png" in figure.data


def both(campaign: Campaign) -> tuple[xr.Dataset, xr.Dataset]:
    first, second = (open_product(campaign.product_folder(d.name)) for d in campaign.domains)
    return first, second


@pytest.mark.slow
def test_expected_false_change_is_what_the_truth_of_both_vintages_gives(demo: Campaign, tmp_path: Path) -> None:
    first, second = both(demo)
    ground = first.cover.change(second).map
    maps = [
        p[layer].sel(y=ground.y, x=ground.x).to_numpy() for p in both(demo) for layer in ("landcover", "confidence")
    ]
    truths = [
        rioxarray.open_rasterio(demo.base / "country" / "truth" / f"{d.name}.tif")
        .sel(band=1)
        .sel(x=ground.x, y=ground.y, method="nearest")
        .to_numpy()
        for d in demo.domains
    ]
    lesser, unchanged = np.minimum(maps[1], maps[3]), truths[0] == truths[1]
    labelled = np.random.default_rng(3).choice(lesser.size, 6000, replace=False)
    errors = FalseChange.of(
        maps[0].ravel()[labelled],
        maps[2].ravel()[labelled],
        lesser=lesser.ravel()[labelled],
        truth=(truths[0].ravel()[labelled], truths[1].ravel()[labelled]),
    )
    curve = []
    for least in (0.0, 0.3, 0.45, 0.6):
        found = first.cover.change(second, min_confidence=least, errors=errors)
        sure = unchanged & (lesser >= 255 * least)
        curve.append((least, float((maps[0] != maps[2])[sure].mean()), found.expected, (lesser >= 255 * least).mean()))
    (tmp_path / "curve.txt").write_text("\n".join(map(str, curve)))
    _, measured, expected, _ = curve[0]
    assert expected == pytest.approx(measured, rel=0.2)
    assert curve[-1][1] < curve[0][1] / 2
    assert curve[-1][2] < curve[0][2] / 2
    whole = first.cover.change(second)
    assert whole.if_together < whole.if_independent
    assert "season" in str(whole)


def test_change_gates_by_confidence_and_by_patch_and_counts_hectares() -> None:
    before = np.array([[1, 1, 5, 5], [1, 1, 5, 5], [7, 7, 7, 0]], np.uint8)
    after = np.array([[2, 1, 5, 9], [1, 1, 5, 9], [7, 7, 8, 8]], np.uint8)
    sure = np.where(before, 200, 0).astype(np.uint8)
    less_sure = np.full_like(sure, 220)
    less_sure[1, 0] = 90
    y, x = 10 - 0.2 * (np.arange(3) + 0.5), 20 + 0.2 * (np.arange(4) + 0.5)
    first, second = (
        xr.Dataset(
            {"landcover": (("y", "x"), c), "confidence": (("y", "x"), s)}, coords={"y": y, "x": x}
        ).rio.write_crs(2154)
        for c, s in ((before, sure), (after, less_sure))
    )
    register_cover()
    found = first.cover.change(second, min_confidence=0.5, min_area_m2=0.08)
    u, s, c, n = UNCERTAIN, STABLE, CHANGED, NO_DATA
    np.testing.assert_array_equal(found.map, [[u, s, s, c], [u, s, s, c], [s, s, c, n]])
    assert found.matrix.loc["water", "vineyard"] == pytest.approx(2 * 0.04 / 1e4)
    assert found.matrix.loc["building", "building"] == pytest.approx(2 * 0.04 / 1e4)
    assert found.matrix.to_numpy().sum() == pytest.approx(9 * 0.04 / 1e4)
    assert found.changed_share == pytest.approx(4 / 10)
    with pytest.raises(EvaluationError, match="no pixel has a confidence of"):
        first.cover.change(second, min_confidence=0.99)
    moved = second.assign_coords(x=second.x + 0.1)
    with pytest.raises(ProductError, match="different lattices"):
        first.cover.change(moved)
