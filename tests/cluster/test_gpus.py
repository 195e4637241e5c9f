"""Clusters of dask-cuda on GPUs that a fake of NVIDIA's management library reports, and on real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from distributed import Client

from pipeline.cluster.slurm.node import NodeWork
from pipeline.runs.mapping.run import run
from pipeline.runs.planning.plan import make_plan
from tests.support.campaigns import Made, cog_bytes, make_campaign
from tests.support.dask_processes import faked_gpus, process, scheduler
from tests.support.paths import ROOT

pytestmark = pytest.mark.many_processes

SEEN = """
import json, os, sys
from pathlib import Path
from pipeline.cluster.client import open_cluster
from pipeline.config import load_campaign

if __name__ == "__main__":
    config, file, *where = sys.argv[1:]
    campaign = load_campaign(Path(config)).on_cluster(*(w or None for w in where))
    with open_cluster(campaign) as client:
        client.wait_for_workers(2)
        seen = client.run(lambda dask_worker: (str(dask_worker.name), os.environ["CUDA_VISIBLE_DEVICES"]))
    Path(file).write_text(json.dumps(sorted(seen.values())))
"""


def _landcover(made: Made, *options: str) -> None:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(made.config), *options]
    done = subprocess.run(command, env=faked_gpus(2), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _devices(made: Made, kind: str = "", address: str = "") -> list[list[str]]:
    """[worker's name, its CUDA_VISIBLE_DEVICES] of each worker."""
    script = made.folder / "seen.py"
    script.write_text(SEEN)
    command = [sys.executable, str(script), str(made.config), str(made.folder / "seen.json"), kind, address]
    subprocess.run(command, env=faked_gpus(2), check=True, capture_output=True)
    seen: list[list[str]] = json.loads((made.folder / "seen.json").read_text())
    return seen


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, dask_client: Client) -> Made:
    """One tile, mapped in this process."""
    made = make_campaign(tmp_path_factory.mktemp("gpus") / "made", at=((0, 0),))
    made.change(engine_threads=1)
    run(make_plan(made.campaign), client=dask_client)
    return made


@pytest.mark.slow
def test_a_domain_is_mapped_by_one_worker_per_gpu_of_this_machine(mapped: Made, tmp_path: Path) -> None:
    assert [devices for _, devices in _devices(mapped, "cuda")] == ["0,1", "1,0"]
    mapped.change(output=_output(mapped, tmp_path))
    _landcover(mapped, "--cluster", "cuda")
    assert cog_bytes(tmp_path) == cog_bytes(mapped.products)


@pytest.mark.slow
def test_a_node_of_a_job_starts_one_worker_per_gpu(mapped: Made, tmp_path: Path) -> None:
    """What `srun` starts on a node, without SLURM around it: `dask cuda worker` for the GPUs that the job has."""
    NodeWork({"n7": "127.0.0.1"}, workers=None, processes=1, threads=2, gpus=True).write(tmp_path)
    slurm = {"SLURMD_NODENAME": "n7", "SLURM_PROCID": "3", "CUDA_VISIBLE_DEVICES": "0,1"}
    node = ("-m", "pipeline.cluster.slurm.node", str(tmp_path))
    with (
        scheduler(tmp_path) as (file, _),
        process(*node, log=tmp_path / "log", environment=faked_gpus(2) | slurm),
    ):
        assert _devices(mapped, "", str(file)) == [["n7-3-0", "0,1"], ["n7-3-1", "1,0"]]
        mapped.change(output=_output(mapped, tmp_path / "products"))
        _landcover(mapped, "--scheduler", str(file))
    assert cog_bytes(tmp_path / "products") == cog_bytes(mapped.products)


def _output(made: Made, domains: Path) -> dict[str, object]:
    section: dict[str, object] = yaml.safe_load(made.config.read_text())["output"]
    return section | {"domains": str(domains)}


@pytest.mark.gpu
def test_a_domain_is_mapped_on_the_gpus_of_this_machine(tmp_path: Path) -> None:
    """The maps agree with those of the CPU, except for pixels on the border of a class."""
    import numpy as np
    import rasterio
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("dask_cuda", reason="dask-cuda cannot be imported", exc_type=ImportError)
    made = make_campaign(tmp_path / "made", at=((0, 0), (0, 1)))
    run(make_plan(made.campaign.on_cluster("cuda")))
    on_gpu = {p.name: p for p in made.products.rglob("*-landcover.tif")}
    made.change(output=_output(made, tmp_path / "cpu"))
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths}
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(made.config)]
    subprocess.run(command, env=hidden, check=True)
    for path in (tmp_path / "cpu").rglob("*-landcover.tif"):
        with rasterio.open(path) as cpu, rasterio.open(on_gpu[path.name]) as gpu:
            assert np.mean(cpu.read(1) == gpu.read(1)) > 0.999
