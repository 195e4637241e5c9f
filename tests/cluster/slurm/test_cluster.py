"""Kind `slurm` in a job of three nodes: its workers, access without the key, and leftovers."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.campaigns import make_campaign
from tests.support.dask_processes import faked_gpus
from tests.support.slurm.lab import Lab
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slurm

INSIDE = """
import dask, json, os, stat, sys, time
from pathlib import Path
from distributed import Client, Security
from pipeline.cluster.client import dashboard, open_cluster
from pipeline.cluster.connection import worker_count
from pipeline.config import load_campaign

def seen(dask_worker):
    return str(dask_worker.name), os.environ["CUDA_VISIBLE_DEVICES"], os.environ["SLURMD_NODENAME"]

def refused(address, security):
    try:
        Client(address, security=security, timeout=3).close()
    except OSError as error:
        return type(error).__name__

if __name__ == "__main__":
    config, out = map(Path, sys.argv[1:])
    campaign = load_campaign(config)
    with open_cluster(campaign) as client:
        client.wait_for_workers(6)
        (folder,) = (config.parent / ".clusters").iterdir()
        address = client.scheduler_info()["address"]
        with dask.config.set({"distributed.comm": dask.config.get("distributed.comm") | {"require-encryption": False}}):
            plain = refused(address.replace("tls://", "tcp://"), Security(tls_ca_file=None, require_encryption=False))
        seen_inside = {
            "workers": sorted(client.run(seen).values()),
            "count": worker_count(client),
            "address": address,
            "dashboard": dashboard(client),
            "modes": {p.name: stat.S_IMODE(p.stat().st_mode) for p in (folder, folder / "key.pem")},
            "plain": plain,
            "stranger": refused(address, Security.temporary()),
        }
        temporary = out.with_suffix(".part")
        temporary.write_text(json.dumps(seen_inside | {"folder": folder.name}))
        temporary.rename(out)
        while out.with_suffix(".hold").exists():
            time.sleep(0.1)
"""


def _ours(lab: Lab) -> list[str]:
    """Command lines of the schedulers, sruns and workers of this lab's jobs that still run."""
    mark = f"SLURM_CONF={lab.environment['SLURM_CONF']}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if mark in environment.split(b"\0") and (b"pipeline.cluster" in command or b"spawn_main" in command):
            found.append(command.replace(b"\0", b" ").decode())
    return found


def _until_nothing_is_left(lab: Lab) -> None:
    wait_until(lambda: not _ours(lab), lambda: _ours(lab))


@pytest.mark.slow
def test_a_job_has_workers_on_all_nodes_refuses_strangers_and_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    made = make_campaign(tmp_path / "made", at=((0, 0),))
    made.change(cluster={"kind": "slurm", "gdal_cache_mb": 64, "decoded_cache_mb": 64, "dashboard": True})
    script, out = tmp_path / "inside.py", tmp_path / "seen_inside.json"
    script.write_text(INSIDE)
    hold = out.with_suffix(".hold")
    variables = {
        k: v for k, v in faked_gpus(8).items() if k in ("PYTHONPATH", "FAKED_GPUS", "DASK_CUDA_TEST_SINGLE_GPU")
    }
    export = ",".join(["ALL", *(f"{k}={v}" for k, v in variables.items())])
    ask = ("--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=2", "--gres=gpu:2", f"--export={export}")
    python = f"{sys.executable} {script} {made.config} {out}"

    job = lab.sbatch(*ask, f"--output={tmp_path}/first.log", wrap=python)
    assert [j.state for j in lab.ended(job)] == ["COMPLETED"], (tmp_path / "first.log").read_text()
    seen_inside = json.loads(out.read_text())
    assert seen_inside["count"] == 6
    devices = {name: given.split(",")[0] for name, given, _ in seen_inside["workers"]}
    assert devices == {f"n{rank + 1}-{rank}-{gpu}": str(gpu) for rank in range(3) for gpu in range(2)}
    assert all(name.startswith(node) for name, _, node in seen_inside["workers"])
    assert seen_inside["address"].startswith("tls://127.0.1.1:")
    assert "ssh -N -L" in seen_inside["dashboard"]
    assert seen_inside["dashboard"].endswith(" n1")
    assert seen_inside["modes"] == {seen_inside["folder"]: 0o700, "key.pem": 0o600}
    assert seen_inside["plain"] is not None
    assert seen_inside["stranger"] is not None
    _until_nothing_is_left(lab)
    assert list((made.folder / ".clusters").iterdir()) == []

    # The driver dies, and the job script goes on.
    out.unlink()
    hold.touch()
    job = lab.sbatch(*ask, f"--output={tmp_path}/second.log", wrap=f"{python} & echo $! > {tmp_path}/pid; sleep 86400")
    wait_until(out.exists, (tmp_path / "second.log").read_text)
    assert _ours(lab)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    _until_nothing_is_left(lab)
    assert [j.state for j in lab.jobs(job)] == ["RUNNING"]
