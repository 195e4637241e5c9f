"""`slurm/train.sbatch` on two nodes, requeued once, trains like one process with the doubled batch."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from pipeline.cluster.slurm.script import scripts_folder
from pipeline.training.fit import fit
from tests.support.paths import ROOT
from tests.support.slurm.lab import Lab
from tests.support.training_runs import a_run, curve, write_run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slurm_slow]

EPOCHS = 12


def landcover_on_path(folder: Path) -> str:
    """A PATH on which this checkout's `landcover` is first."""
    folder.mkdir()
    command = folder / "landcover"
    command.write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from pipeline.cli import main; main()' \"$@\"\n"
    )
    command.chmod(0o755)
    return os.pathsep.join((str(folder), os.environ["PATH"]))


def test_two_requeued_nodes_train_like_one_process_with_the_doubled_batch(lab: Lab, tmp_path: Path) -> None:
    # Batch normalisation would see another batch in each process, so it is frozen.
    how = {
        "freeze_batchnorm": True,
        "epochs": EPOCHS,
        "optimizer": {"name": "sgd", "learning_rate": 0.02},
        "plateau": {"factor": 0.5, "patience": 0, "cooldown": 0, "min_lr": 0.0},
    }
    fit(a_run(tmp_path, batch=4, **how), tmp_path / "one")
    config, out, log = write_run(tmp_path, batch=2, **how), tmp_path / "two", tmp_path / "job.log"
    variables = {
        "PATH": landcover_on_path(tmp_path / "bin"),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",  # the nodes are on this machine, and no name server knows their names
        "TRAINING": str(config),
        "OUT": str(out),
    }
    export = ",".join(["ALL", *(f"{k}={v}" for k, v in variables.items())])
    options = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--time=30", f"--output={log}")
    job = lab.sbatch(*options, f"--export={export}", str(scripts_folder() / "train.sbatch"))
    checkpoint = out / "checkpoints" / "last.ckpt"
    wait_until(checkpoint.exists, lambda: log.read_text() if log.exists() else lab.jobs(job))
    # SLURM sends this signal before the time limit, but it checks the time only every 30 s.
    lab.tell("scancel", "--batch", "--signal=USR1", str(job))
    (ended,) = lab.ended(job)
    output = log.read_text()
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), output
    assert "requeued" in output
    assert len(list(out.glob("logs/start-*"))) == 2, "the job resumed after its second start"
    for name in ("train_loss", "val_loss"):
        assert len(curve(out, name)) == EPOCHS
        assert curve(out, name) == pytest.approx(curve(tmp_path / "one", name), rel=1e-4)
    assert curve(out, "learning_rate") == curve(tmp_path / "one", "learning_rate")
    assert (out / "t_weights.pth").is_file()
