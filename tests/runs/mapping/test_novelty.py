"""The novelty score of a tile: from the map's own forward, with its own fingerprint, listed, searchable and a limit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import load_campaign
from pipeline.errors import ConfigError, EngineError, WeightsError
from pipeline.grid import Window
from pipeline.halo import Layout
from pipeline.inference.array_source import ArraySource
from pipeline.inference.block_mapping import map_and_count
from pipeline.inference.predictor import predictor_for
from pipeline.inference.torch_engine import TorchPredictor
from pipeline.model import Ensemble, Model
from pipeline.model.reference_features import ReferenceFile, fit_reference, pool_squares
from pipeline.products.analysis.campaign_map import novel_tiles, write_campaign_map
from pipeline.products.map_page import page_files
from pipeline.products.national.edition_record import current_edition
from pipeline.products.stac.search import search
from pipeline.products.tile.seal import list_sealed
from pipeline.runs.mapping.predict import predict
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from pipeline.runs.planning.resolved_campaign import resolve
from pipeline.runs.publishing.publish import publish
from pipeline.runs.quality.verify import verify
from pipeline.runs.quality.write_reports import write_reports
from pipeline.sources.lazy_image import open_raster
from tests.support.campaigns import Made, cog_bytes, make_campaign
from tests.support.dask_client import in_process_client
from tests.support.deliveries import write_raster


def write_reference(made: Made, *, threshold: float | None = None) -> Path:
    """A reference of noise, made as from patches."""
    resolved = resolve(made.campaign)
    predictor = TorchPredictor(resolved.model)
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(24):
        image = rng.integers(0, 256, (1, 5, 64, 64), dtype=np.uint8)
        _, features = predictor.with_features(image, np.ones((1, 64, 64), bool))
        squares.append(pool_squares(features[0], np.ones((64, 64), bool), (slice(0, 64), slice(0, 64))))
    found = fit_reference(
        np.concatenate(squares), [f"Z{k % 6}" for k in range(24)], weights_sha256=resolved.weights.weights_hash,
        recipe=resolved.recipe,
    )  # fmt: skip
    path = made.folder / ("reference.safetensors" if threshold is None else "other.safetensors")
    object.__setattr__(found, "threshold", threshold or found.threshold)
    found.save(path)
    return path


def with_reference(made: Made, path: Path | None, **sections: object) -> None:
    reference = {"reference": path.name} if path else {}
    made.change(model={"weights": "weights.pth", "recipe": "tiny.yaml"} | reference, engine_threads=1, **sections)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_campaign(tmp_path / "campaign", at=((0, 0), (0, 1)))


def mapped(made: Made, *, threads: int = 2, **options: bool) -> dict[str, float | None]:
    """Tile → novelty, after a run."""
    with in_process_client(threads=threads) as client:
        run(make_plan(made.campaign, **options), client=client)
    return scores(made)


def scores(made: Made) -> dict[str, float | None]:
    campaign = load_campaign(made.config)
    name = campaign.domains[0].name
    return {s.tile.name: s.novelty for s in list_sealed(campaign.product_folder(name), name, campaign.grid.tile)}


def test_the_score_is_that_of_the_forward_and_changes_no_byte_of_the_map(made: Made) -> None:
    with_reference(made, None)
    assert set(mapped(made).values()) == {None}
    before, planned = cog_bytes(made.products), make_plan(made.campaign)
    with_reference(made, write_reference(made))
    again = make_plan(made.campaign)
    assert again.todo == 0, "a reference maps nothing again"
    assert [t.fingerprint for d in again.domains for t in d.tiles] == [
        t.fingerprint for d in planned.domains for t in d.tiles
    ]
    wanted = make_plan(made.campaign, unscored=True)
    assert {t.reason for d in wanted.domains for t in d.tiles} == {"not scored"}
    found = mapped(made, unscored=True)
    assert cog_bytes(made.products) == before
    assert all(score is not None and score > 0 for score in found.values())
    assert make_plan(made.campaign, unscored=True).todo == 0
    assert mapped(made, threads=4, force=True) == found
    # Another reference: the map stays, the scores are of the former one until they are wanted.
    with_reference(made, write_reference(made, threshold=1e6))
    assert make_plan(made.campaign).todo == 0
    assert make_plan(made.campaign, unscored=True).todo == 2
    assert scores(made) == found
    low = mapped(made, unscored=True)
    assert all(score is not None and score < 1 for score in low.values())


def test_openvino_scores_as_torch_does_and_changes_no_byte(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path / "cache"))
    path = write_reference(made)
    with_reference(made, path)
    expected = mapped(made)
    with_reference(made, None, engine="openvino")
    mapped(made)
    before = cog_bytes(made.products)
    with_reference(made, path)
    assert make_plan(made.campaign).todo == 0
    found = mapped(made, unscored=True)
    assert cog_bytes(made.products) == before
    assert found.keys() == expected.keys()
    assert all(found[tile] == pytest.approx(score, rel=1e-3) for tile, score in expected.items())


def test_one_raster_has_the_score_of_its_squares_from_the_same_forwards(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_reference(made)
    model = resolve(made.campaign).model
    layout = Layout(core=125, halo=32, window=224, stride=32)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 250, 250), dtype=np.uint8)
    source = ArraySource.all_valid(pixels, Window(0, 0, 250, 250))
    whole = map_and_count(
        source, source.window, layout=layout, predictor=TorchPredictor(model), reference=ReferenceFile.of(path).load()
    )
    assert whole.novelty is not None
    expected = whole.novelty.mean()
    forwards = []
    forward = TorchPredictor._map
    monkeypatch.setattr(TorchPredictor, "_map", lambda *given: forwards.append(len(given[1])) or forward(*given))
    raster = write_raster(made.folder / "in.tif", pixels, 700_000, 6_600_000)
    image = open_raster(raster).load()
    for given in (image, image.chunk(y=125, x=100), open_raster(raster)):
        forwards.clear()
        maps = predict(given, model, layout=layout, block=125, engine="torch", reference=path, checks="ignore")
        done = maps.compute()
        assert sum(forwards) == 4, "each window is mapped once"
        np.testing.assert_array_equal(done.landcover, whole.layers[0])
        assert float(done.novelty) == pytest.approx(expected, rel=1e-4)
    options = ["--recipe", str(made.folder / "tiny.yaml"), "--window", "224", "--halo", "32", "--engine", "torch"]
    command = [
        "predict",
        str(raster),
        "--weights",
        str(made.folder / "weights.pth"),
        *options,
        "--accept",
        "radiometry",
    ]
    printed = {}
    for name, more in (("plain", []), ("scored", ["--reference", str(path)])):
        result = CliRunner().invoke(app, [*command, "--out", str(made.folder / name), *more])
        assert result.exit_code == 0, (result.output, result.exception)
        printed[name] = result.output
    assert "novelty" not in printed["plain"]
    assert re.search(r"novelty: \d\.\d\d; above 1 the imagery is unlike", printed["scored"])
    assert cog_bytes(made.folder / "plain") == cog_bytes(made.folder / "scored")
    empty = xr.full_like(image, 0).drop_vars("valid").rio.write_nodata(0)
    assert np.isnan(predict(empty, model, engine="torch", reference=path, checks="ignore").novelty.compute())
    with pytest.raises(EngineError, match="of a single forward"):
        predict(image, Ensemble((model,), "flips"), reference=path)
    with pytest.raises(WeightsError, match="made with another weight"):
        predict(image, Model.in_memory(model.network, model.recipe), reference=path)


def test_a_tiles_squares_are_those_of_its_windows_whatever_the_blocks(made: Made) -> None:
    resolved = resolve(made.campaign)
    reference = ReferenceFile.of(write_reference(made)).load()
    layout = Layout(core=125, halo=32, window=224, stride=32)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 250, 250), dtype=np.uint8)
    source = ArraySource.all_valid(pixels, Window(0, 0, 250, 250))
    predictor = predictor_for(resolved.model, resolved.engine)
    whole = map_and_count(source, source.window, layout=layout, predictor=predictor, reference=reference)
    plain = map_and_count(source, source.window, layout=layout, predictor=predictor)
    np.testing.assert_array_equal(whole.layers, plain.layers)
    assert plain.novelty is None
    parts = [
        map_and_count(source, block, layout=layout, predictor=predictor, reference=reference).novelty
        for block in source.window.split(125)
    ]
    assert whole.novelty is not None
    np.testing.assert_allclose(np.sort(whole.novelty), np.sort(np.concatenate(parts)), rtol=1e-4)
    # Independently: the plain network's encoder on one window, and the mean of the cells within its core.
    core, read = next(iter(layout.windows_of(Window(125, 125, 125, 125))))
    inside = read.intersect(source.window)
    assert inside != read, "the window is reflected at the edge, as numpy does"
    above, left = max(0, -read.row), max(0, -read.col)
    below, right = max(0, read.bottom - 250), max(0, read.right - 250)
    padded = np.pad(pixels, ((0, 0), (above, below), (left, right)), mode="reflect")
    image = padded[:, max(0, read.row) :, max(0, read.col) :][:, : read.height, : read.width]
    recipe = resolved.recipe
    mean, std = (torch.tensor(v)[:, None, None] for v in (recipe.mean, recipe.std))
    x = (torch.from_numpy(image).float() - mean) / std
    with torch.inference_mode():
        deepest = resolved.model.network.encoder(x[None])[-1][0].numpy()  # type: ignore[union-attr, operator]
    rows, cols = (range(-(-s.start // 32), s.stop // 32) for s in core.slices_in(read))
    pooled = deepest[:, rows.start : rows.stop, cols.start : cols.stop].mean(axis=(1, 2))
    assert np.isclose(reference.novelty(pooled[None])[0], whole.novelty, rtol=1e-3).any()


def test_novel_tiles_are_listed_found_and_exceed_a_limit(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "built").mkdir()
    (tmp_path / "built" / "index.html").write_text("the page")
    monkeypatch.setattr(page_files, "BUILT", tmp_path / "built")
    with_reference(made, write_reference(made, threshold=1e-3))
    found = mapped(made)
    assert all(score is not None and score > 1 for score in found.values())
    with in_process_client() as client:
        publish(made.campaign, client=client)
    (tile, highest) = max(found.items(), key=lambda pair: pair[1] or 0)
    national = made.campaign.output.national
    assert len(search(national, min_novelty=1)) == 2
    edition = current_edition(national)
    assert edition is not None
    assert len(novel_tiles(edition)) == 2
    content = json.loads((write_campaign_map(made.campaign, edition).parent / "page.json").read_text())
    assert content["novel"] == [list(at) for at in novel_tiles(edition)]
    (item,) = search(national, min_novelty=highest)
    assert item.properties["landcover:tile"] == tile
    assert len(search(national, min_novelty=(highest or 0) + 1)) == 0
    assert verify(made.campaign).clean
    with_reference(made, made.folder / "other.safetensors", limits={"novel_share": 0.5})
    (exceeded,) = (e for d in verify(made.campaign).domains for e in d.exceeded)
    assert str(exceeded).endswith("novel_share is 1; the limit is 0.5")
    page = write_reports(made.campaign)[0].read_text()
    assert "2 of 2 scored tiles have a novelty score above 1" in page
    assert f"novelty {highest:,.2f}" in page


def test_a_reference_that_does_not_fit_is_refused_before_the_run(made: Made) -> None:
    with_reference(made, None)
    with pytest.raises(ConfigError, match=r"has no model\.reference, so no tile can be scored"):
        make_plan(made.campaign, unscored=True)
    path = write_reference(made)
    with_reference(made, path, engine="torch", torch_compile=True)
    with pytest.raises(EngineError, match="which torch_compile does not give"):
        make_plan(made.campaign)
    with_reference(made, path, torch_compile=False)
    torch.save({"x": torch.zeros(1)}, made.folder / "weights.pth")
    with pytest.raises(WeightsError, match="this reference was made with another weight"):
        make_plan(made.campaign)
