"""The projected memory is at least what a worker takes and less than twice as much, and a limit is enforced."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.errors import ConfigError
from pipeline.halo import Layout
from pipeline.inference import Engine
from pipeline.inference.memory_projection import project_memory, window_bytes

MAPPED_ALONE = """
import json, resource, sys
import numpy as np
from pipeline.config import DEFAULT_RECIPE, load_recipe
from pipeline.inference import Engine, predictor_for
from pipeline.model import Model
from pipeline.model.network import build_network
name, side = sys.argv[1], int(sys.argv[2])
recipe = load_recipe(DEFAULT_RECIPE)
predictor = predictor_for(Model.in_memory(build_network(recipe), recipe), Engine(name), threads=2)
predictor(np.full((1, 5, side, side), 90, np.uint8), np.ones((1, side, side), bool))
# VmHWM is of this process alone; ru_maxrss starts at the memory of the parent.
status = open("/proc/self/status").read().split("VmHWM:")[1]
print(json.dumps(int(status.split()[0]) * 1024))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_process_that_maps_one_window_stays_below_the_projection(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LANDCOVER_CACHE", str(tmp_path))
    engine = Engine("torch") if name == "torch" else Engine("openvino")
    command = [sys.executable, "-c", MAPPED_ALONE, name, "512"]
    peak = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peak <= window_bytes(512, engine) <= 2 * peak


HOW = {
    "recipe": load_recipe(DEFAULT_RECIPE),
    "block": 5000,
    "tile": 25_000,
    "threads": 2,
    "tiles_in_flight": 2,
    "gdal_cache_mb": 512,
    "decoded_cache_mb": 640,
}


def test_larger_windows_and_blocks_and_more_threads_take_more() -> None:
    small = project_memory(Layout(), Engine("openvino"), **HOW)
    assert project_memory(Layout(5000, 160, 5376), Engine("openvino"), **HOW).engine > 3 * small.engine
    for key in ("block", "threads", "tiles_in_flight", "gdal_cache_mb", "decoded_cache_mb", "tile"):
        assert project_memory(Layout(), Engine("openvino"), **HOW | {key: 2 * HOW[key]}).total > small.total
    assert small.total == small.process + small.engine + small.reads + small.tiles + small.cache


def test_flair_hubs_networks_take_more() -> None:
    usual = project_memory(Layout(), Engine("torch"), **HOW)
    for name in ("ir_convnextv2tiny-upernet", "ir_swinbase-unet"):
        hub = project_memory(Layout(), Engine("torch"), **HOW | {"recipe": load_recipe(f"flair-hub_lc-a_{name}")})
        assert hub.engine > 2 * usual.engine
        assert hub.process > usual.process


def test_batches_of_small_windows_count_for_torch() -> None:
    layout = Layout(core=250, halo=32, window=352)
    one, many = (project_memory(layout, Engine("torch"), **HOW | {"block": block}) for block in (250, 5000))
    assert many.engine > 30 * one.engine
    batched, single = (project_memory(layout, Engine(name), **HOW) for name in ("torch", "openvino"))
    assert batched.engine > 10 * single.engine


def test_an_exceeded_limit_is_refused_with_the_numbers() -> None:
    projection = project_memory(Layout(), Engine("openvino"), **HOW)
    projection.check(None)
    projection.check(projection.total)
    with pytest.raises(ConfigError, match=r"up to \d+\.\d\d GB \(process 1.10, .*memory_bytes allows 2.00 GB"):
        projection.check(2_000_000_000)


def test_the_memory_of_a_gpu_has_its_own_limit() -> None:
    here, there = (project_memory(Layout(), Engine("torch"), gpu=gpu, **HOW) for gpu in (False, True))
    assert here.device == 0
    assert "GPU" not in str(here)
    assert there.engine < here.engine / 10
    assert there.device > 2848**2 * 480
    assert f"{there.total / 1e9:.2f} GB" in str(there)
    assert str(there).endswith(f", and {there.device / 1e9:.2f} GB of its GPU")
    there.check(there.total, there.device)
    with pytest.raises(ConfigError, match=r"of its GPU, but cluster\.device_memory_bytes allows 2\.00 GB"):
        there.check(None, 2_000_000_000)
    with pytest.raises(ConfigError, match=r"cluster\.memory_bytes allows 2\.00 GB"):
        there.check(2_000_000_000, there.device)


def test_each_thread_adds_torchs_copies_of_a_batch() -> None:
    one, two = (project_memory(Layout(), Engine("torch"), **HOW | {"threads": threads}) for threads in (1, 2))
    assert two.engine - one.engine == 9 * 2848**2
