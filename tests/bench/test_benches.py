"""Every bench runs at its quick scale and writes its figures. No test looks at a time."""

import json
import shutil
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.bench import suite
from pipeline.bench.development import nation, rehearsal
from pipeline.bench.development.synthetic_domains import DELIVERED_TILE, Footprint, write_domains
from pipeline.bench.imagery import Imagery, make_imagery, mirrored
from pipeline.bench.measurements import gpu, gpu_checks
from pipeline.bench.measurements.gpu_timings import EngineStep, EngineTiming
from pipeline.bench.scale import QUICK
from pipeline.bench.suite import DEVELOPMENT, available_benches, run_benches
from pipeline.config import GridSection
from pipeline.errors import ConfigError, EngineError
from pipeline.grid import Window
from pipeline.inference import Engine
from pipeline.inference.torch_engine import forward_kinds
from pipeline.products.map_page.building import BUILT
from pipeline.products.tile.seal import read_sealed
from pipeline.runs.quality.verify import verify
from tests.support.paths import ROOT, SHARED_DATA

LOWER = "fp16" if torch.cuda.is_available() else "bf16"
FIGURES = {
    "engines": {"engines.gemm_share_fp32", "engines.agreement_fp32"},
    "feed": {"feed.share_of_decode", "feed.share_of_decode_once", "feed.memory_ratio_4x"},
    "run": {
        "run.speedup_fp32",
        "run.speedup_best",
        "run.agreement_best",
        "run.speedup_unseen",
        "run.agreement_unseen",
        "run.core_seconds_share",
        "run.core_seconds_share_int8",
        "run.core_seconds_share_once",
        "run.core_seconds_share_once_int8",
        "run.memory_ratio_4x",
    },
    "halo": {"halo.disagreement_default", "halo.overlap_default"},
    "ensemble": {"ensemble.miou", "ensemble.cost", "ensemble.auroc_disagreement"},
    "gpu": {"gpu.decode_mpx_per_core_s"}
    | {f"gpu.{what}" for what in ("tests_passed", "tests_failed", "tests_skipped", "campaign_tiles")}
    | {"gpu.campaign_mpx_per_s"}
    | {f"gpu.device_mpx_per_s_{LOWER}_{how}_{windows}" for how in forward_kinds() for windows in ("352x1", "160x2")}
    | {
        f"gpu.{what}_{precision}"
        for what in ("mpx_per_s", "km2_per_hour", "gemm_share", "copies_hidden", "cores_to_feed", "agreement")
        for precision in (
            ("fp32", "fp16", "bf16", "fp16_160x2") if torch.cuda.is_available() else ("fp32", "bf16", "bf16_160x2")
        )
    },
    "coverage": {f"coverage.{what}" for what in ("least", "least_mean", "most_mean", "mean", "width_of_exact")},
    "growth": {
        f"growth.{step}_{what}_{tiles}_tiles"
        for step in ("plan", "plan_again", "status", "publish", "search")
        for what in ("s", "core_s", "gb")
        for tiles in (1, 2)
    },
    "areas": {"areas.regression_width", "areas.regression_covered", "areas.composite_covered"},
    "novelty": {"novelty.false_alarms", "novelty.found", "novelty.auroc"},
    "nation": {"nation.tiles", "nation.seconds", "nation.peak_memory_gb"},
    "publish": {
        "publish.mpx_per_s",
        "publish.bytes_per_km2",
        "publish.inodes_per_km2",
        "publish.worker_peak_gb_4_tiles",
        "publish.worker_peak_gb_16_tiles",
        "publish.memory_ratio_4x",
    },
    "quantize": {"quantize.agreement", "quantize.agreement_unseen", "quantize.agreement_unseen_bf16"},
    "view": {f"view.{view}_{what}" for view in ("first", "zoom") for what in ("s", "s_worst", "requests", "mb")},
    "windows": {
        f"windows.{what}"
        for of in ("default", "swin")
        for what in (
            *(f"seam_ratio_{of}", f"seam_ratio_{of}_published_head", f"disagreement_{of}"),
            *(f"oa_ratio_{of}", f"oa_near_borders_ratio_{of}"),
        )
    },
    "train": {"train.oa_held_out", "train.minutes", "train.ece_before", "train.ece_after"},
    "vectorize": {
        f"vectorize.{what}"
        for what in (
            *("mpx_per_core_s", "polygons_per_km2", "vertices_per_km2", "parquet_bytes_per_km2", "bytes_per_km2"),
            *("memory_ratio_4x", "core_hours_departement", "core_hours_france"),
            *("whole_mpx_per_core_s", "whole_vertices", "whole_memory"),
        )
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def imagery(folder: Path) -> Imagery:
    """Made from the demo's country, since benches must run without real data."""
    return make_imagery(folder, data=folder / "none", scale=QUICK, on_message=lambda _: None)


SLOW = ("engines", "gpu", "growth", "novelty", "publish", "quantize", "run", "train", "vectorize", "view", "windows")


def check_browser() -> None:
    """Skips where Chromium, Playwright or the map page is missing."""
    pytest.importorskip("playwright", reason="Playwright is not installed: pip install playwright")
    if shutil.which("chromium") is None or not BUILT.is_dir():
        pytest.skip("needs Chromium (apt-get install chromium) and the map page (`make install` builds it)")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FIGURES])
def test_a_bench_writes_its_figures_and_a_chart(
    imagery: Imagery, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if name == "view":
        check_browser()
    if name == "gpu":  # its campaign starts no worker; the bench `run` starts some
        client = request.getfixturevalue("dask_client")
        monkeypatch.setattr(gpu_checks, "run_plan", partial(gpu_checks.run_plan, client=client))
    monkeypatch.setenv("GDAL_CACHEMAX", "64")  # benches change it; this restores it
    monkeypatch.setenv("LANDCOVER_CACHE", str(folder / "cache"))
    messages: list[str] = []
    run_benches([name], out=folder, data=folder / "none", quick=True, on_message=messages.append)
    if name != "gpu":  # which makes its own, of noise
        assert not [line for line in messages if "making" in line], "the imagery exists already"
    report = json.loads((folder / f"{name}.json").read_text())
    assert report["figures"].keys() == FIGURES[name]
    # Hidden copies are a difference of two times.
    figures = {figure: value for figure, value in report["figures"].items() if "copies_hidden" not in figure}
    assert all(np.isfinite(value) and value >= 0 for value in figures.values())
    # Others make their own domains, or need none.
    if name not in ("areas", "coverage", "growth", "nation", "publish", "vectorize", "view"):
        assert ("made from noise" if name == "gpu" else "demo's country") in report["notes"][0]
    assert report["machine"]["cores"] >= 1
    with Image.open(folder / f"{name}.png") as chart:
        assert min(chart.size) > 100
    assert not [p for p in imagery.folder.glob("*-*") if p.is_dir()], "temporary folders are left"
    assert not (folder / "cache" / "rates.json").exists(), "rates of the quick scale must not be kept"


@pytest.mark.slow
def test_a_rehearsal_seals_every_tile_of_its_departement(imagery: Imagery, tmp_path: Path) -> None:
    footprint = Footprint.rectangle(1, rows=1, cols=3, tile=500)
    catalog = write_domains(tmp_path, [footprint], write=rehearsal.write_uniform_raster)
    campaign = rehearsal.rehearsal_campaign(imagery, catalog, footprint)
    done = rehearsal.rehearse(campaign)
    assert (done.tiles, done.blocks, len(done.driver_bytes)) == (3, 3 * 25, 3)
    report = rehearsal.report_of(done, 500)
    assert report.figures["rehearsal.tasks"] == 3 * 26
    assert report.figures.keys() == {
        f"rehearsal.{what}"
        for what in ("tasks", "scheduler_seconds_per_tile", "driver_peak_gb", "driver_growth", "wall_s")
    }
    assert report.write(tmp_path, "rehearsal").is_file()
    (state,) = verify(campaign).domains
    assert (state.tiles, state.missing, state.problems) == (3, (), ())
    for tile in footprint.tiles:
        sealed = read_sealed(campaign.product_folder(footprint.domain), footprint.domain, tile)
        assert sealed is not None
        assert sealed.class_pixels == {0: 0, 5: 500 * 500}, "the constant predictor maps only water"


def test_a_smaller_tile_has_as_many_blocks_and_windows_as_a_full_size_one() -> None:
    full, small = rehearsal.grid_of(DELIVERED_TILE), rehearsal.grid_of(1_000)
    assert full == GridSection()
    for grid in (full, small):
        assert (grid.tile // grid.block, grid.block // grid.core) == (5, 2)
        grid.layout(32)  # raises if sizes do not fit


def test_the_footprints_of_the_nation_are_its_departements() -> None:
    if not (SHARED_DATA / "admin_france").is_dir():
        pytest.skip("no borders of départements beside the repository")
    given = nation.departement_footprints(SHARED_DATA)
    tiles = [tile for footprint in given for tile in footprint.tiles]
    assert len(given) == len({f.domain for f in given}) == 96
    assert 21_500 < len(tiles) < 22_500
    assert len(set(tiles)) > 0.99 * len(tiles), "only simplified borders may overlap"
    (herault,) = (f for f in given if f.domain == "D034_2021")
    assert "0770-6280" in {tile.name for tile in herault.tiles}, "Montpellier"


def test_the_imagery_is_reused_and_contains_the_mirrored_patches(imagery: Imagery) -> None:
    mosaic = imagery.mosaic
    assert mosaic.window.shape == (1000, 1000)
    part = Window(mosaic.window.row + 480, mosaic.window.col + 480, 40, 40)  # all four tiles
    delivered = mosaic.read(part).bands.astype(int)
    patches = np.load(imagery.folder / "patches.npy")
    assert patches.shape[1:] == (5, QUICK.patch, QUICK.patch)
    assert delivered.std() > 1
    again = make_imagery(imagery.folder.parents[1], data=imagery.data, scale=QUICK, on_message=lambda _: None)
    assert again == imagery


def test_mirrored_patches_have_no_seam_and_all_appear() -> None:
    patches = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 4), dtype=np.uint8)
    plane = mirrored(patches, Window(0, 0, 20, 20))
    np.testing.assert_array_equal(plane[:, :4, :4], patches[0])
    np.testing.assert_array_equal(plane[:, :4, 4:8], patches[1])
    np.testing.assert_array_equal(plane[:, 4:8, :4], patches[1])
    np.testing.assert_array_equal(plane[:, :8], plane[:, 15:7:-1])
    np.testing.assert_array_equal(plane[:, :, :8], plane[:, :, 15:7:-1])
    np.testing.assert_array_equal(mirrored(patches, Window(3, 5, 7, 9)), plane[:, 3:10, 5:14])


def test_an_unknown_bench_is_refused_before_it_writes_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown bench speed: expected engines, feed, run, halo, quantize"):
        run_benches(["speed"], out=tmp_path, data=tmp_path, quick=True, on_message=lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_bench_is_refused_before_it_writes_files(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="bench gpu needs a CUDA device, and torch finds none here"):
        run_benches(["gpu"], out=tmp_path, data=tmp_path, quick=False, on_message=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_the_figures_of_a_gpu_count_the_core_of_a_window() -> None:
    """4 windows a second with a core of 250² px: 0.25 Mpx/s at 0.04 m² a pixel, a tenth of the peak, half a core."""
    flops = 7e3 * QUICK.layout.window**2
    timed = EngineTiming(Engine("torch"), QUICK.layout, 1, 1.0, 0.25, 40 * flops / 1e9, None, 0)
    figures = gpu.engine_figures(timed, flops_a_pixel=7e3, core_mpx_per_s=0.5)
    assert figures["mpx_per_s"] == pytest.approx(0.25)
    assert figures["km2_per_hour"] == pytest.approx(0.25e6 * 0.04 * 3600 / 1e6)
    assert figures["gemm_share"] == pytest.approx(0.1)
    assert figures["copies_hidden"] == pytest.approx(0.75)
    assert figures["cores_to_feed"] == pytest.approx(0.5)
    assert "agreement" not in figures, "fp32 did not fit into the memory"


def test_a_measurement_that_fails_costs_only_its_own_figure(imagery: Imagery, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("a driver of 2009")

    step = EngineStep("fp32", Engine("torch"), QUICK.layout)
    steps: Any = lambda _, report: [("copies", broken), ("fp32", partial(report.add_engine, step))]  # noqa: E731
    monkeypatch.setattr(gpu, "_measurements", steps)
    report = gpu.run(imagery, on_message=lambda _: None)
    assert report.figures["gpu.agreement_fp32"] == 1
    assert "copies failed: KeyError: 'a driver of 2009'" in report.notes
    monkeypatch.setattr(gpu, "_measurements", lambda *_: [("copies", broken)])
    with pytest.raises(EngineError, match=r"could time no engine; .*gpu\.json has what failed"):
        gpu.run(imagery, on_message=lambda _: None)


@pytest.mark.slow
@pytest.mark.usefixtures("imagery")
def test_the_loader_and_the_step_of_a_training_are_measured(folder: Path) -> None:
    run_benches(["train"], out=folder, data=folder / "none", quick=True, loader=True, on_message=lambda _: None)
    figures = json.loads((folder / "train.json").read_text())["figures"]
    # 64.7 GFLOP for a forward of a patch, three of them for a step, at .3 of 125 TFLOPS.
    cores = 0.3 * 125e12 / (3 * 64.7e9) / figures["train.loader_samples_per_core_s"]
    assert figures["train.cores_to_feed_v100"] == pytest.approx(cores, rel=1e-3)
    assert {f"train.step_samples_per_s_{way}" for way in ("fp32_nchw", "fp32", "bf16")} < figures.keys()


@pytest.mark.usefixtures("imagery")
def test_without_time_the_bench_of_a_gpu_writes_its_first_figures(folder: Path) -> None:
    run_benches(["gpu"], out=folder, data=folder / "none", quick=True, on_message=lambda _: None, minutes=0)
    report = json.loads((folder / "gpu.json").read_text())
    assert {figure.rsplit("_", 1)[1] for figure in report["figures"]} == {"fp32"}
    assert "there was no time to measure" in report["notes"][-1]
    assert f"measure {LOWER}, decoding on one core" in report["notes"][-1]
    assert "the tests marked gpu, a campaign on a local cluster: give it more --minutes" in report["notes"][-1]


def test_an_installed_package_has_no_benches_for_developers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(DEVELOPMENT) <= available_benches().keys(), "a checkout has all benches"
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "pipeline/bench/development" in wheel["exclude"]
    assert {path.stem for path in (ROOT / "pipeline/bench/development").rglob("*.py")} >= set(DEVELOPMENT)
    monkeypatch.setattr(suite, "__file__", str(tmp_path / "suite.py"))
    assert set(DEVELOPMENT).isdisjoint(available_benches())
    with pytest.raises(ConfigError, match="bench nation is not in the installed package"):
        run_benches(["nation"], out=tmp_path, data=tmp_path, quick=True, on_message=lambda _: None)
    assert not list(tmp_path.iterdir())
