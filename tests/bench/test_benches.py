"""Every bench runs at its small scale and writes its figures under their names. No timing is looked at."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.bench.development import nation, rehearsal
from pipeline.bench.development.synthetic_domains import FRANCE, Footprint, make_up
from pipeline.bench.gemm import network_flops
from pipeline.bench.imagery import QUICK, Imagery, make_imagery, mirrored
from pipeline.bench.measurements import gpu
from pipeline.bench.suite import run_benches
from pipeline.config import GridSection
from pipeline.errors import ConfigError, EngineError
from pipeline.grid import Window
from pipeline.inference import Engine
from pipeline.products.tile.seal import read_sealed
from pipeline.runs.quality.verify import verify
from tests.support.deliveries import SHARED_DATA

FIGURES = {
    "engines": {"engines.gemm_share_fp32", "engines.agreement_fp32"},
    "feed": {"feed.share_of_decode"},
    "run": {
        "run.speedup_fp32",
        "run.speedup_best",
        "run.agreement_best",
        "run.core_seconds_share",
        "run.memory_ratio_4x",
    },
    "halo": {"halo.disagreement_default", "halo.overlap_default"},
    "gpu": {"gpu.decode_mpx_per_core_s"}
    | {
        f"gpu.{what}_{precision}"
        for what in ("mpx_per_s", "km2_per_hour", "gemm_share", "cores_to_feed", "agreement")
        for precision in (("fp32", "fp16", "bf16") if torch.cuda.is_available() else ("fp32", "bf16"))
    },
    "nation": {"nation.tiles", "nation.seconds", "nation.peak_memory_gb"},
    "publish": {
        "publish.mpx_per_s",
        "publish.bytes_per_km2",
        "publish.inodes_per_km2",
        "publish.worker_peak_gb_4_tiles",
        "publish.worker_peak_gb_16_tiles",
        "publish.memory_ratio_4x",
    },
    "quantize": {"quantize.agreement"},
    "train": {"train.oa_held_out", "train.minutes", "train.ece_before", "train.ece_after"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def imagery(folder: Path) -> Imagery:
    """Made up: a checkout without real data has to measure too."""
    return make_imagery(folder, data=folder / "none", scale=QUICK, say=lambda _: None)


SLOW = ("engines", "publish", "quantize", "run", "train")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FIGURES])
def test_a_bench_writes_its_figures_and_a_picture(
    imagery: Imagery, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_CACHEMAX", "64")  # benches set it; this puts it back
    monkeypatch.setenv("LANDCOVER_CACHE", str(folder / "cache"))
    told: list[str] = []
    run_benches([name], out=folder, data=folder / "none", quick=True, say=told.append)
    assert not [line for line in told if "being made" in line], "the imagery was there"
    report = json.loads((folder / f"{name}.json").read_text())
    assert report["figures"].keys() == FIGURES[name]
    assert all(np.isfinite(value) and value >= 0 for value in report["figures"].values())
    if name not in ("nation", "publish"):  # which make up their own
        assert "demo's country" in report["notes"][0]
    assert report["machine"]["cores"] >= 1
    with Image.open(folder / f"{name}.png") as picture:
        assert min(picture.size) > 100
    assert not [p for p in imagery.folder.glob("*-*") if p.is_dir()], "scratch is left"
    assert not (folder / "cache" / "rates.json").exists(), "the small scale measures nothing that may be kept"


@pytest.mark.slow
def test_a_rehearsal_seals_every_tile_of_its_departement_through_the_code_of_every_run(
    imagery: Imagery, tmp_path: Path
) -> None:
    given = Footprint.oblong(1, (FRANCE.row, FRANCE.col), rows=1, cols=3, tile=500)
    campaign = rehearsal.campaign_of(imagery, make_up(tmp_path, [given], write=rehearsal.blank), given)
    done = rehearsal.rehearse(campaign)
    assert (done.tiles, done.blocks, done.tasks, len(done.driver_bytes)) == (3, 3 * 25, 3 * 26, 3)
    report = rehearsal.report_of(done, 500)
    assert report.figures["rehearsal.tasks"] == 3 * 26
    assert report.figures.keys() == {
        f"rehearsal.{what}"
        for what in ("tasks", "scheduler_seconds_per_tile", "driver_peak_gb", "driver_growth", "wall_s")
    }
    assert report.write(tmp_path).is_file()
    (state,) = verify(campaign).domains
    assert (state.tiles, state.missing, state.problems) == (3, (), ())
    for tile in given.tiles:
        sealed = read_sealed(campaign.output.domains / given.domain, given.domain, tile)
        assert sealed is not None
        assert sealed.class_pixels == {0: 0, 5: 500 * 500}, "the network that costs nothing knows only water"


def test_a_full_size_tile_has_the_grid_of_a_real_campaign_and_a_smaller_one_as_many_blocks_and_windows() -> None:
    full, small = rehearsal.grid_of(rehearsal.FULL_TILE), rehearsal.grid_of(1_000)
    assert full == GridSection()
    for grid in (full, small):
        assert (grid.tile // grid.block, grid.block // grid.core) == (5, 2)
        grid.layout(32)  # raises where sizes do not fit


def test_the_footprints_of_the_nation_are_its_departements_and_hold_each_tile_once() -> None:
    if not (SHARED_DATA / "admin_france").is_dir():
        pytest.skip("no borders of départements beside the repository")
    given = nation.footprints(SHARED_DATA)
    tiles = [tile for footprint in given for tile in footprint.tiles]
    assert len(given) == len({f.domain for f in given}) == 96
    assert 21_500 < len(tiles) < 22_500
    assert len(set(tiles)) > 0.99 * len(tiles), "simplified borders may overlap at a centre"
    (herault,) = (f for f in given if f.domain == "D034_2021")
    assert "0770-6280" in {tile.name for tile in herault.tiles}, "Montpellier"


def test_the_imagery_is_what_was_mirrored_and_the_height_survives_resampling(imagery: Imagery) -> None:
    mosaic = imagery.mosaic
    assert mosaic.window.shape == (1000, 1000)
    part = Window(mosaic.window.row + 480, mosaic.window.col + 480, 40, 40)  # all four tiles
    delivered = mosaic.read(part).bands.astype(int)
    patches = np.load(imagery.folder / "patches.npy")
    assert patches.shape[1:] == (5, QUICK.patch, QUICK.patch)
    assert delivered.std() > 1
    again = make_imagery(imagery.folder.parents[1], data=imagery.data, scale=QUICK, say=lambda _: None)
    assert again == imagery


def test_mirroring_has_no_seam_at_the_edge_of_the_square_and_shows_every_patch() -> None:
    patches = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 4), dtype=np.uint8)
    plane = mirrored(patches, Window(0, 0, 20, 20))
    np.testing.assert_array_equal(plane[:, :4, :4], patches[0])
    np.testing.assert_array_equal(plane[:, :4, 4:8], patches[1])
    np.testing.assert_array_equal(plane[:, 4:8, :4], patches[1])
    np.testing.assert_array_equal(plane[:, :8], plane[:, 15:7:-1])
    np.testing.assert_array_equal(plane[:, :, :8], plane[:, :, 15:7:-1])
    np.testing.assert_array_equal(mirrored(patches, Window(3, 5, 7, 9)), plane[:, 3:10, 5:14])


def test_an_unknown_bench_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown bench speed: expected engines, feed, run, halo, quantize"):
        run_benches(["speed"], out=tmp_path, data=tmp_path, quick=True, say=lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_bench_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="bench gpu wants a CUDA device, and torch sees none here"):
        run_benches(["gpu"], out=tmp_path, data=tmp_path, quick=False, say=lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_gpu_s_figures_are_of_what_is_kept_of_a_window(imagery: Imagery) -> None:
    """4 windows a second, each keeping 250²: 0.25 Mpx/s, of 0.04 m² a pixel; a tenth of the peak; half a core."""
    flops = network_flops(imagery.model, QUICK.layout.window**2)
    timed = gpu.Timed(Engine("torch"), 1.0, 0.25, 40 * flops / 1e9, 1.0)
    figures = gpu._figures(imagery, timed, 0.5)
    assert figures["mpx_per_s"] == pytest.approx(0.25)
    assert figures["km2_per_hour"] == pytest.approx(0.25e6 * 0.04 * 3600 / 1e6)
    assert figures["gemm_share"] == pytest.approx(0.1)
    assert figures["cores_to_feed"] == pytest.approx(0.5)
